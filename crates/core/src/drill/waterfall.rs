//! The RTO waterfall: the steps from the disaster to the first successful write, one after the other.
//!
//! A step ends where the next one begins, so there is no way to record a gap or an overlap, and the steps add up to
//! the measured RTO by construction. Boundaries, not durations, are cut to whole microseconds; therefore the sum is
//! exact after the cut too.

use super::Seconds;
use crate::error::{Error, ErrorKind, Result, codes};
use serde::{Deserialize, Deserializer, Serialize};
use std::time::Duration;

/// What happens between the disaster and the service's first successful write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepName {
    /// Until somebody or something knows that the service is gone.
    Detect,
    /// Until it is clear what to restore, and to when.
    Decide,
    /// Getting the data out of the repository.
    Fetch,
    /// Bringing them to a consistent and recent state.
    Replay,
    /// Starting the service.
    Start,
    /// Looking whether it is right.
    Check,
    /// Sending its users there.
    CutOver,
    /// Until the first write from outside succeeds.
    FirstWrite,
}

impl StepName {
    /// All steps, in the order of a recovery.
    pub const ALL: [Self; 8] = [
        Self::Detect,
        Self::Decide,
        Self::Fetch,
        Self::Replay,
        Self::Start,
        Self::Check,
        Self::CutOver,
        Self::FirstWrite,
    ];
}

/// One bar of the waterfall.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    /// What was done.
    pub name: StepName,
    /// For which component, when it was for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub component: Option<String>,
    /// Since the disaster.
    pub start_seconds: Seconds,
    /// How long it took.
    pub duration_seconds: Seconds,
}

impl Step {
    /// When it ended, since the disaster.
    pub fn end_seconds(&self) -> Seconds {
        self.start_seconds.plus(self.duration_seconds)
    }
}

/// Steps that touch each other, the first one starting at zero.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
#[serde(transparent)]
pub struct Waterfall {
    steps: Vec<Step>,
}

impl Waterfall {
    /// The steps, oldest first.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// From the disaster to the end of the last step.
    pub fn total(&self) -> Seconds {
        self.steps.last().map_or(Seconds::ZERO, Step::end_seconds)
    }

    /// The name whose steps together took longest, and how long; the earlier one of equals. `None` without steps.
    pub fn dominating(&self) -> Option<(StepName, Seconds)> {
        let time_of = |name: StepName| {
            let steps = self.steps.iter().filter(|step| step.name == name);
            steps.fold(Seconds::ZERO, |sum, step| sum.plus(step.duration_seconds))
        };
        let names = StepName::ALL.into_iter().filter(|name| self.steps.iter().any(|step| step.name == *name));
        names.map(|name| (name, time_of(name))).reduce(|best, next| if next.1 > best.1 { next } else { best })
    }
}

impl<'de> Deserialize<'de> for Waterfall {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let steps = Vec::<Step>::deserialize(deserializer)?;
        let mut end = Seconds::ZERO;
        for (index, step) in steps.iter().enumerate() {
            if step.start_seconds != end {
                return Err(serde::de::Error::custom(format!(
                    "step {} of the waterfall starts at {} s, and the one before ends at {end} s",
                    index + 1,
                    step.start_seconds
                )));
            }
            end = step.end_seconds();
        }
        Ok(Self { steps })
    }
}

/// Records a waterfall. Instants are `Duration`s on one monotonic clock, whatever its zero is.
#[derive(Debug, Clone)]
pub struct WaterfallRecorder {
    disaster_at: Duration,
    /// Name, component and start since the disaster; the last one is still open.
    begun: Vec<(StepName, Option<String>, Seconds)>,
    last_at: Duration,
}

impl WaterfallRecorder {
    /// Starts at the disaster, and with it the step `first`.
    pub fn start(disaster_at: Duration, first: StepName) -> Self {
        Self { disaster_at, begun: vec![(first, None, Seconds::ZERO)], last_at: disaster_at }
    }

    /// Ends the open step and begins `name`, for one `component` or for the whole service.
    ///
    /// # Errors
    /// `Internal` when `at` lies before the last instant: the clock was not monotonic.
    pub fn begin(&mut self, name: StepName, component: Option<&str>, at: Duration) -> Result<()> {
        let since_disaster = self.advance(at)?;
        self.begun.push((name, component.map(str::to_owned), since_disaster));
        Ok(())
    }

    /// Whether the step `name` has begun, for any component.
    pub fn has_begun(&self, name: StepName) -> bool {
        self.begun.iter().any(|step| step.0 == name)
    }

    /// Ends the open step and the waterfall.
    ///
    /// # Errors
    /// As [`WaterfallRecorder::begin`].
    pub fn finish(mut self, at: Duration) -> Result<Waterfall> {
        let total = self.advance(at)?;
        let ends: Vec<Seconds> = self.begun.iter().skip(1).map(|step| step.2).chain([total]).collect();
        let steps = self.begun.into_iter().zip(ends).map(|((name, component, start_seconds), end)| Step {
            name,
            component,
            start_seconds,
            duration_seconds: end.minus(start_seconds),
        });
        Ok(Waterfall { steps: steps.collect() })
    }

    fn advance(&mut self, at: Duration) -> Result<Seconds> {
        if at < self.last_at {
            return Err(Error::new(
                ErrorKind::Internal,
                codes::DRILL_CLOCK,
                format!("the drill's clock went back from `{:?}` to `{at:?}`", self.last_at),
            )
            .with_hint("this is a bug in Retoma; please report it with the command that you ran"));
        }
        self.last_at = at;
        Ok(Seconds::from_duration(at.saturating_sub(self.disaster_at)))
    }
}

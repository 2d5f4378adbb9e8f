//! The steps of a recovery on one clock, from the disaster on.

use crate::interrupt::Stopwatch;
use retoma_core::Result;
use retoma_core::drill::{Seconds, StepName, Waterfall, WaterfallRecorder};
use std::time::Duration;

/// Records steps; each begins where the one before ends.
#[derive(Debug, Clone)]
pub struct Timeline {
    clock: Stopwatch,
    disaster_at: Duration,
    recorder: WaterfallRecorder,
}

impl Timeline {
    /// The disaster is now; `first` begins.
    pub fn start(clock: Stopwatch, first: StepName) -> Self {
        let disaster_at = clock.elapsed();
        Self { clock, disaster_at, recorder: WaterfallRecorder::start(disaster_at, first) }
    }

    /// The step `name` begins, for one component or for all.
    ///
    /// # Errors
    /// The clock went back.
    pub fn begin(&mut self, name: StepName, component: Option<&str>) -> Result<()> {
        self.recorder.begin(name, component, self.clock.elapsed())
    }

    /// The last step ends.
    ///
    /// # Errors
    /// The clock went back.
    pub fn finish(self) -> Result<Waterfall> {
        self.recorder.finish(self.clock.elapsed())
    }

    /// Whether the step `name` has begun, for any component.
    pub fn has_begun(&self, name: StepName) -> bool {
        self.recorder.has_begun(name)
    }

    /// When the disaster was, on the clock.
    pub fn disaster_at(&self) -> Duration {
        self.disaster_at
    }

    /// Since the disaster.
    pub fn elapsed(&self) -> Seconds {
        Seconds::from_duration(self.clock.elapsed().saturating_sub(self.disaster_at))
    }
}

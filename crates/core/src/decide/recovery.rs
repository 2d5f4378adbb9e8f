//! Point-in-time recovery of a database server: which snapshot, along which timeline, and whether the target lies in what
//! can be recovered at all.
//!
//! A snapshot can be recovered to any position from its stop on, as far as WAL follows it without a gap. Where a time, a
//! transaction or a name lies in the WAL is known only to who reads it: such a position comes in as `located`. Without it the
//! newest snapshot that can be right is chosen, and only the server finds out whether the target is there.

mod refusal;
#[cfg(test)]
mod tests;

pub use refusal::{Loss, Refusal};

use crate::postgres::{Lsn, ParseError, SegmentName, TimelineId};
use jiff::Timestamp;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Where a recovery ends.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Target {
    /// At the end of the WAL.
    #[default]
    Latest,
    /// At the last commit before or at a time.
    Time(Timestamp),
    /// At a position in the WAL.
    Lsn(Lsn),
    /// At the end of a transaction.
    Transaction(u64),
    /// At a point that `pg_create_restore_point` named.
    Name(String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Latest => f.write_str("the end of the WAL"),
            Self::Time(time) => write!(f, "time `{time}`"),
            Self::Lsn(lsn) => write!(f, "position `{lsn}`"),
            Self::Transaction(id) => write!(f, "transaction `{id}`"),
            Self::Name(name) => write!(f, "restore point `{}`", name.escape_debug()),
        }
    }
}

/// What a recovery is to reach.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Goal {
    /// Where it ends.
    pub target: Target,
    /// Whether what is exactly at the target is replayed too.
    pub inclusive: bool,
    /// Along the history of this timeline; `None` for the newest that a snapshot leads to.
    pub timeline: Option<TimelineId>,
}

impl Default for Goal {
    /// Everything there is.
    fn default() -> Self {
        Self { target: Target::Latest, inclusive: true, timeline: None }
    }
}

/// Which transactions had ended when a snapshot was stopped, as `pg_current_snapshot()` prints it: `xmin:xmax:running,…`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// The first transaction that had not begun.
    pub next: u64,
    /// Those before it that ran.
    pub running: BTreeSet<u64>,
}

impl Ended {
    /// Whether this transaction had ended. A number of 32 bits, as columns have it, is that of the present round.
    pub fn has(&self, transaction: u64) -> bool {
        const ROUND: u64 = 1 << 32;
        let full = if transaction < ROUND {
            // Within half a round of the next one, as the server compares them.
            let same_round = self.next / ROUND * ROUND + transaction;
            if same_round > self.next + ROUND / 2 { same_round.saturating_sub(ROUND) } else { same_round }
        } else {
            transaction
        };
        full < self.next && !self.running.contains(&full)
    }
}

impl FromStr for Ended {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        const SHAPE: ParseError = ParseError("a snapshot of transactions is `xmin:xmax:running,…`");
        let mut parts = text.splitn(3, ':');
        let mut part = || parts.next().ok_or(SHAPE);
        part()?.parse::<u64>().map_err(|_| SHAPE)?;
        let next = part()?.parse().map_err(|_| SHAPE)?;
        let running = part()?.split(',').filter(|id| !id.is_empty()).map(str::parse);
        Ok(Self { next, running: running.collect::<Result<_, _>>().map_err(|_| SHAPE)? })
    }
}

/// How far WAL carries a snapshot along the history of one timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// The timeline at its end.
    pub timeline: TimelineId,
    /// Everything before this position is there.
    pub until: Lsn,
    /// The first segments that are missing before later WAL that is there, first and last.
    pub gap: Option<(SegmentName, SegmentName)>,
}

/// A complete physical snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The timeline of its backup.
    pub timeline: TimelineId,
    /// Here its data are consistent …
    pub stop: Lsn,
    /// … and this was then.
    pub stopped: Timestamp,
    /// The transactions that it holds, where that is known.
    pub ended: Option<Ended>,
    /// One for each timeline that can be reached from it.
    pub ways: Vec<Way>,
}

impl Candidate {
    fn way_to(&self, timeline: TimelineId) -> Option<&Way> {
        self.ways.iter().find(|way| way.timeline == timeline)
    }
}

/// A stretch of WAL to any position of which one can recover.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// From the stop of a snapshot on …
    pub from: Lsn,
    /// … which was then …
    pub from_time: Timestamp,
    /// … up to here, …
    pub until: Lsn,
    /// … on the history of this timeline.
    pub timeline: TimelineId,
    /// What is missing behind it, first and last segment.
    pub gap: Option<(SegmentName, SegmentName)>,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// The snapshot, by its place in the list.
    pub candidate: usize,
    /// The timeline whose history is followed.
    pub timeline: TimelineId,
    /// The target that the server is given.
    pub target: Target,
    /// The end of the WAL that follows the snapshot.
    pub until: Lsn,
    /// What is missing there.
    pub gap: Option<(SegmentName, SegmentName)>,
}

/// The newest timeline that a snapshot leads to.
pub fn newest_timeline(candidates: &[Candidate]) -> Option<TimelineId> {
    candidates.iter().flat_map(|candidate| &candidate.ways).map(|way| way.timeline).max()
}

/// What can be recovered along the history of a timeline, oldest first. Between two of them WAL is missing.
pub fn windows(candidates: &[Candidate], timeline: TimelineId) -> Vec<Window> {
    let mut found: Vec<Window> = Vec::new();
    let mut leading: Vec<_> = candidates.iter().filter_map(|it| Some((it, it.way_to(timeline)?))).collect();
    leading.sort_by_key(|(candidate, way)| (candidate.stop, Reverse(way.until)));
    for (candidate, way) in leading {
        match found.last_mut() {
            Some(last) if candidate.stop <= last.until => {
                if way.until >= last.until {
                    (last.until, last.gap) = (way.until, way.gap);
                }
            }
            _ => found.push(Window {
                from: candidate.stop,
                from_time: candidate.stopped,
                until: way.until,
                timeline,
                gap: way.gap,
            }),
        }
    }
    found
}

/// Chooses the snapshot. `known` are the timelines that the archive has anything of; `located` is where the target lies in
/// the WAL, when that was found out.
///
/// # Errors
/// Why nothing can be done, before anything is.
pub fn choose(
    goal: &Goal,
    candidates: &[Candidate],
    known: &BTreeSet<TimelineId>,
    located: Option<Lsn>,
) -> Result<Choice, Refusal> {
    let newest = newest_timeline(candidates).ok_or(Refusal::NoSnapshot)?;
    let timeline = goal.timeline.unwrap_or(newest);
    let windows = windows(candidates, timeline);
    let leading = candidates.iter().enumerate();
    let leading = leading.filter_map(|(at, it)| Some((at, it, it.way_to(timeline)?)));
    let leading: Vec<_> = leading.collect();
    if leading.is_empty() {
        return Err(if known.contains(&timeline) {
            Refusal::NotReached { timeline, known: known.clone() }
        } else {
            Refusal::UnknownTimeline { timeline, known: known.clone() }
        });
    }
    let position = match goal.target {
        Target::Lsn(lsn) => Some(lsn),
        _ => located,
    };
    let is_before = |candidate: &Candidate| match (&goal.target, position) {
        (_, Some(position)) => candidate.stop <= position,
        (Target::Time(time), None) => candidate.stopped <= *time,
        (Target::Transaction(id), None) => candidate.ended.as_ref().is_none_or(|ended| !ended.has(*id)),
        (Target::Latest | Target::Name(_) | Target::Lsn(_), None) => true,
    };
    let right = leading.into_iter().filter(|(_, candidate, _)| is_before(candidate));
    let Some((at, _, way)) = right.max_by_key(|(_, candidate, way)| (candidate.stop, way.until)) else {
        return Err(Refusal::Before { target: goal.target.clone(), windows });
    };
    let choice = |target| Choice { candidate: at, timeline, target, until: way.until, gap: way.gap };
    let is_missing = match (&goal.target, position) {
        // Everything before the end of the WAL is there; no record at it would tell the server to stop.
        (Target::Lsn(_), Some(position)) if !goal.inclusive && position == way.until => {
            return Ok(choice(Target::Latest));
        }
        (Target::Latest, _) => way.gap.is_some(),
        (_, Some(position)) => position >= way.until,
        (_, None) => false,
    };
    match (is_missing, way.gap) {
        (false, _) => Ok(choice(goal.target.clone())),
        (true, Some(gap)) => {
            let (target, until) = (goal.target.clone(), way.until);
            Err(Refusal::BehindGap { target, gap, until, windows, loss: Box::default() })
        }
        (true, None) => Err(Refusal::After { target: goal.target.clone(), until: way.until, windows }),
    }
}

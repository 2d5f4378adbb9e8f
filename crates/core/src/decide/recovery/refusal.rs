//! Why a recovery is not begun.

use super::{Target, Window};
use crate::error::{Error, ErrorKind, codes};
use crate::postgres::{Lsn, SegmentName, TimelineId};
use std::collections::BTreeSet;
use std::fmt::Write as _;

/// Why nothing is done. Nothing was touched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// There is no snapshot.
    NoSnapshot,
    /// The archive has nothing of this timeline.
    UnknownTimeline {
        /// The one that was asked for.
        timeline: TimelineId,
        /// Those that it has.
        known: BTreeSet<TimelineId>,
    },
    /// No snapshot lies on the way to this timeline.
    NotReached {
        /// The one that was asked for.
        timeline: TimelineId,
        /// Those that the archive has.
        known: BTreeSet<TimelineId>,
    },
    /// The target is before the stop of the first snapshot.
    Before {
        /// The target.
        target: Target,
        /// What can be recovered.
        windows: Vec<Window>,
    },
    /// The target is behind the end of the WAL.
    After {
        /// The target.
        target: Target,
        /// The end of the WAL.
        until: Lsn,
        /// What can be recovered.
        windows: Vec<Window>,
    },
    /// WAL is missing between the snapshot and the target.
    BehindGap {
        /// The target.
        target: Target,
        /// First and last segment that are missing.
        gap: (SegmentName, SegmentName),
        /// Everything before this position is there.
        until: Lsn,
        /// What can be recovered.
        windows: Vec<Window>,
    },
}

impl Refusal {
    /// As the error about a component.
    pub fn into_error(self, component: &str) -> Error {
        let (kind, code) = match &self {
            Self::NoSnapshot => (ErrorKind::NotFound, codes::SNAPSHOT_NOT_FOUND),
            Self::BehindGap { .. } => (ErrorKind::NotFound, codes::WAL_MISSING),
            _ => (ErrorKind::Invalid, codes::RECOVERY_WINDOW),
        };
        let (message, hint) = self.words(component);
        Error::new(kind, code, message).with_hint(hint)
    }

    fn words(self, component: &str) -> (String, String) {
        match self {
            Self::NoSnapshot => (
                format!("no complete snapshot of `{component}` can be recovered"),
                "take one with `retoma backup`".to_owned(),
            ),
            Self::UnknownTimeline { timeline, known } => (
                format!("the archive of `{component}` has no timeline `{timeline}`"),
                format!("it has {}", listed(&known)),
            ),
            Self::NotReached { timeline, known } => (
                format!("no snapshot of `{component}` leads to timeline `{timeline}`"),
                format!(
                    "the archive has {}; a snapshot that was taken on the way there, and the timelines' histories, are needed: see `retoma wal check`",
                    listed(&known)
                ),
            ),
            Self::Before { target, windows } => (
                format!("{target} is before anything that `{component}` can be recovered to"),
                in_words(&windows),
            ),
            Self::After { target, until, windows } => (
                format!("{target} of `{component}` is behind the end of its WAL, `{until}`"),
                in_words(&windows),
            ),
            Self::BehindGap { target, gap, until, windows } => (
                format!("WAL of `{component}` is missing before {target}: {}", missing(gap)),
                format!(
                    "{}; `--lsn {until} --exclusive` recovers all that is before the gap",
                    in_words(&windows)
                ),
            ),
        }
    }
}

fn listed(known: &BTreeSet<TimelineId>) -> String {
    let numbers: Vec<String> = known.iter().map(ToString::to_string).collect();
    if numbers.is_empty() { "none".to_owned() } else { numbers.join(", ") }
}

fn missing((first, last): (SegmentName, SegmentName)) -> String {
    if first == last { format!("`{first}`") } else { format!("`{first}` to `{last}`") }
}

impl Window {
    /// As in `2026-11-22T10:00:00Z (0/3000100) to 0/9000000 (timeline 2)`.
    pub fn in_words(&self) -> String {
        let time = self.from_time.strftime("%Y-%m-%dT%H:%M:%SZ");
        format!("{time} ({}) to {} (timeline {})", self.from, self.until, self.timeline)
    }

    /// What is missing behind it, as in `000000010000000000000004 to 000000010000000000000006`.
    pub fn gap_in_words(&self) -> Option<String> {
        self.gap.map(|(first, last)| format!("{first} to {last}"))
    }
}

/// One sentence that lists all windows.
fn in_words(windows: &[Window]) -> String {
    let mut text = "recoverable from ".to_owned();
    for (at, window) in windows.iter().enumerate() {
        let begin = if at > 0 { ", and from " } else { "" };
        // Nothing can fail in memory.
        write!(text, "{begin}{}", window.in_words()).ok();
    }
    text
}

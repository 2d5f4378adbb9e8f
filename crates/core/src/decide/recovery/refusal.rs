//! Why a recovery is not begun.

use super::{Target, Window};
use crate::error::{Error, ErrorKind, codes};
use crate::postgres::{Lsn, SegmentName, TimelineId};
use crate::units::ByteSize;
use jiff::Timestamp;
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
        /// What is behind the gap, as far as it is known.
        loss: Box<Loss>,
    },
}

/// What a recovery that ends before a gap gives up.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loss {
    /// When the last transaction before the gap ended.
    pub after: Option<Timestamp>,
    /// When the last one ended that is stored behind it.
    pub up_to: Option<Timestamp>,
    /// From the gap's beginning to the end of what is stored, in bytes of WAL.
    pub bytes: Option<u64>,
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
            Self::BehindGap { target, gap, until, windows, loss } => (
                format!("WAL of `{component}` is missing before {target}: {}", missing(gap)),
                format!(
                    "look first whether another repository or the server's `pg_wal` still has these segments; the same \
                     command with `--only {component} --lsn {until} --exclusive` recovers all that is before the gap{}; {}",
                    loss.in_words(),
                    in_words(&windows)
                ),
            ),
        }
    }
}

impl Loss {
    /// As in `, and loses what was committed after … (14.2 MiB of WAL, up to …)`.
    fn in_words(&self) -> String {
        let shown = |time: &Timestamp| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let mut what = ", and loses ".to_owned();
        match &self.after {
            Some(after) => what += &format!("what was committed after {}", shown(after)),
            None => what += "everything behind it",
        }
        let bytes = self.bytes.map(|bytes| format!("{} of WAL", ByteSize(bytes)));
        let up_to = self.up_to.as_ref().map(|time| format!("up to {}", shown(time)));
        let known: Vec<String> = bytes.into_iter().chain(up_to).collect();
        if known.is_empty() { what } else { format!("{what} ({})", known.join(", ")) }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_gap_costs_is_said_as_far_as_it_is_known() {
        let said = |loss: Loss| {
            let gap: SegmentName = "000000010000000000000004".parse().unwrap();
            let (target, until) = (Target::Latest, Lsn(0x400_0000));
            let refusal = Refusal::BehindGap {
                target,
                gap: (gap, gap),
                until,
                windows: Vec::new(),
                loss: Box::new(loss),
            };
            refusal.into_error("db").hint().unwrap_or_default().to_owned()
        };
        let time = |text: &str| text.parse::<Timestamp>().ok();
        let all = Loss {
            after: time("2026-11-22T10:02:11.4Z"),
            up_to: time("2026-11-22T10:40:00Z"),
            bytes: Some(14 << 20),
        };
        let command =
            "with `--only db --lsn 0/4000000 --exclusive` recovers all that is before the gap, and loses ";
        for (loss, expected) in [
            (
                all.clone(),
                "what was committed after 2026-11-22T10:02:11Z (14.0 MiB of WAL, up to 2026-11-22T10:40:00Z);",
            ),
            (
                Loss { up_to: None, ..all.clone() },
                "what was committed after 2026-11-22T10:02:11Z (14.0 MiB of WAL);",
            ),
            (Loss { after: None, bytes: None, ..all }, "everything behind it (up to 2026-11-22T10:40:00Z);"),
            (Loss::default(), "everything behind it;"),
        ] {
            let hint = said(loss);
            assert!(hint.contains(&format!("{command}{expected}")), "{hint}");
        }
    }
}

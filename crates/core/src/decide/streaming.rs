//! Streaming of WAL: where it begins, and what a slot may hold. `docs/wal.md`, "Streaming".

use crate::error::codes;
use crate::postgres::{Lsn, TimelineHistory, TimelineId};
use crate::{Error, ErrorKind};
use std::fmt;

/// A position on a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The timeline.
    pub timeline: TimelineId,
    /// The position.
    pub lsn: Lsn,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} on timeline {}", self.lsn, self.timeline)
    }
}

/// Why a server's WAL does not continue an archive's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Diverged {
    /// The archive is on a later timeline than the server.
    OlderTimeline,
    /// The server's history does not know the archive's timeline.
    NotInHistory,
    /// On the same timeline, the server's WAL ends first.
    EndsBefore,
}

impl Diverged {
    /// The error about a server that is at `server`, and an archive that ends at `archive`.
    pub fn into_error(self, archive: Position, server: Position) -> Error {
        let message = match self {
            Self::OlderTimeline | Self::NotInHistory => {
                format!("the archive ends at {archive}, from which the server, at {server}, does not descend")
            }
            Self::EndsBefore => format!("the archive ends at {archive}, but the server's WAL at {server}"),
        };
        Error::new(ErrorKind::Conflict, codes::WAL_DIVERGED, message).with_hint(
            "find out which server is the right one; one that was rewound or restored must begin a timeline of its own",
        )
    }
}

/// From where on an archive that ends at `archive` needs the WAL of a server that is at `server` with this `history`.
///
/// # Errors
/// Why the server does not continue it.
pub fn start(archive: Position, server: Position, history: &TimelineHistory) -> Result<Position, Diverged> {
    if archive.timeline > server.timeline {
        return Err(Diverged::OlderTimeline);
    }
    let mut at = archive;
    while at.timeline != server.timeline {
        let switch = history.switch_of(at.timeline).ok_or(Diverged::NotInHistory)?;
        if at.lsn < switch {
            return Ok(at);
        }
        // What the archive has behind the switch belongs to nobody's future.
        at.lsn = switch;
        let next = history.entries().iter().map(|entry| entry.timeline).find(|next| *next > at.timeline);
        at.timeline = next.unwrap_or(history.timeline());
    }
    if at.lsn > server.lsn { Err(Diverged::EndsBefore) } else { Ok(at) }
}

/// How full a slot is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum SlotLevel {
    /// Below half of its limit.
    Fine,
    /// From half on.
    Warning,
    /// From four fifths on.
    Alarm,
    /// At its limit.
    Full,
}

/// How full a slot is that keeps `retained_bytes` and may keep `limit_bytes`.
pub fn slot_level(retained_bytes: u64, limit_bytes: u64) -> SlotLevel {
    let (retained, limit) = (u128::from(retained_bytes), u128::from(limit_bytes));
    match retained {
        _ if retained >= limit => SlotLevel::Full,
        _ if retained * 5 >= limit * 4 => SlotLevel::Alarm,
        _ if retained * 2 >= limit => SlotLevel::Warning,
        _ => SlotLevel::Fine,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(timeline: u32, lsn: u64) -> Position {
        Position { timeline: TimelineId::new(timeline).unwrap(), lsn: Lsn(lsn) }
    }

    /// Timeline 4 came from 2, which came from 1; the third is somebody else's.
    fn history() -> TimelineHistory {
        TimelineHistory::parse(at(4, 0).timeline, "1\t0/100\tx\n2\t0/200\tx\n").unwrap()
    }

    #[test]
    fn an_archive_is_continued_where_it_ends_and_never_by_another_branch() {
        let server = at(4, 0x300);
        for (archive, expected) in [
            (at(1, 0x50), Ok(at(1, 0x50))),
            (at(1, 0x100), Ok(at(2, 0x100))),
            (at(1, 0x150), Ok(at(2, 0x100))),
            (at(1, 0x999), Ok(at(2, 0x100))),
            (at(2, 0x1FF), Ok(at(2, 0x1FF))),
            (at(2, 0x200), Ok(at(4, 0x200))),
            (at(4, 0x300), Ok(at(4, 0x300))),
            (at(4, 0x301), Err(Diverged::EndsBefore)),
            (at(3, 0x50), Err(Diverged::NotInHistory)),
            (at(5, 0x50), Err(Diverged::OlderTimeline)),
        ] {
            assert_eq!(start(archive, server, &history()), expected, "{archive}");
        }
        let first = TimelineHistory::first();
        assert_eq!(start(at(1, 5), at(1, 9), &first), Ok(at(1, 5)));
        assert_eq!(start(at(1, 9), at(1, 5), &first), Err(Diverged::EndsBefore));
    }

    #[test]
    fn a_timeline_that_was_left_at_once_is_passed() {
        let history = TimelineHistory::parse(at(3, 0).timeline, "1\t0/100\tx\n2\t0/100\tx\n").unwrap();
        assert_eq!(start(at(1, 0x100), at(3, 0x300), &history), Ok(at(3, 0x100)));
    }

    #[test]
    fn the_error_names_both_ends() {
        let error = Diverged::EndsBefore.into_error(at(1, 0x20), at(1, 0x10));
        assert_eq!(error.code(), codes::WAL_DIVERGED);
        assert!(
            error.message().contains("0/20 on timeline 1") && error.message().contains("0/10"),
            "{error}"
        );
    }

    #[test]
    fn a_slot_is_warned_of_at_half_and_alarmed_at_four_fifths() {
        let level = |retained| slot_level(retained, 1000);
        assert_eq!(
            [0, 499, 500, 799].map(level),
            [SlotLevel::Fine, SlotLevel::Fine, SlotLevel::Warning, SlotLevel::Warning]
        );
        assert_eq!(
            [800, 999, 1000, u64::MAX].map(level),
            [SlotLevel::Alarm, SlotLevel::Alarm, SlotLevel::Full, SlotLevel::Full]
        );
        assert_eq!(slot_level(u64::MAX / 2 + 1, u64::MAX), SlotLevel::Warning);
    }
}

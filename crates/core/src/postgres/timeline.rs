//! Timelines: which history of a cluster a piece of WAL belongs to, and where histories parted.

use super::{Lsn, ParseError};
use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

/// The number of a timeline, from 1 on; a promotion begins the next one. Printed as a decimal number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TimelineId(NonZeroU32);

impl TimelineId {
    /// The timeline that `initdb` begins.
    pub const FIRST: Self = Self(NonZeroU32::MIN);

    /// The timeline with this number; 0 is none.
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    /// The number.
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// The name of its history file, `00000002.history`. The first timeline has no such file.
    pub fn history_file_name(self) -> String {
        format!("{:08X}.history", self.get())
    }

    /// Eight hexadecimal digits, as file names have them.
    pub fn to_hex(self) -> String {
        format!("{:08X}", self.get())
    }
}

impl fmt::Display for TimelineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for TimelineId {
    type Err = ParseError;

    /// Reads a decimal number.
    fn from_str(text: &str) -> Result<Self, ParseError> {
        let digits = text.bytes().all(|byte| byte.is_ascii_digit());
        let number = if digits { text.parse().ok().and_then(Self::new) } else { None };
        number.ok_or(ParseError("a timeline is a number from 1 to 4294967295"))
    }
}

/// One line of a history file: a timeline that came before, and where it was left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HistoryEntry {
    /// The earlier timeline.
    pub timeline: TimelineId,
    /// The first position that is no longer on it.
    pub switch: Lsn,
    /// Why it was left, in the words of the server.
    pub reason: String,
}

/// What came before a timeline, oldest first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineHistory {
    timeline: TimelineId,
    entries: Vec<HistoryEntry>,
}

impl TimelineHistory {
    /// More lines than any cluster has; a longer file is none.
    const MAX_ENTRIES: usize = 100_000;

    /// The history of the first timeline: nothing was before it.
    pub fn first() -> Self {
        Self { timeline: TimelineId::FIRST, entries: Vec::new() }
    }

    /// Reads the history file of `timeline`: lines of number, position and reason, empty lines and `#` comments.
    pub fn parse(timeline: TimelineId, text: &str) -> Result<Self, ParseError> {
        let mut entries: Vec<HistoryEntry> = Vec::new();
        for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
            let entry = parse_line(line)?;
            if entries.last().is_some_and(|last| last.timeline >= entry.timeline) {
                return Err(ParseError("the timelines of a history file must rise"));
            }
            if entries.last().is_some_and(|last| last.switch > entry.switch) {
                return Err(ParseError("the positions of a history file must not fall"));
            }
            if entry.timeline >= timeline {
                return Err(ParseError("a history file names earlier timelines only"));
            }
            if entries.len() >= Self::MAX_ENTRIES {
                return Err(ParseError("the history file has too many lines"));
            }
            entries.push(entry);
        }
        Ok(Self { timeline, entries })
    }

    /// The timeline whose history this is.
    pub fn timeline(&self) -> TimelineId {
        self.timeline
    }

    /// The earlier timelines, oldest first.
    pub fn entries(&self) -> &[HistoryEntry] {
        &self.entries
    }

    /// The timeline on which the byte at `lsn` was written, seen from this one.
    pub fn timeline_at(&self, lsn: Lsn) -> TimelineId {
        let earlier = self.entries.iter().find(|entry| lsn < entry.switch);
        earlier.map_or(self.timeline, |entry| entry.timeline)
    }

    /// Where `timeline` was left; `None` when it is the last one, or not in this history.
    pub fn switch_of(&self, timeline: TimelineId) -> Option<Lsn> {
        self.entries.iter().find(|entry| entry.timeline == timeline).map(|entry| entry.switch)
    }
}

fn parse_line(line: &str) -> Result<HistoryEntry, ParseError> {
    const SHAPE: ParseError = ParseError("a line of a history file is a timeline, a position and a reason");
    let (timeline, rest) = line.split_once(char::is_whitespace).ok_or(SHAPE)?;
    let rest = rest.trim_start();
    let (switch, reason) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    Ok(HistoryEntry {
        timeline: timeline.parse().map_err(|_| SHAPE)?,
        switch: switch.parse().map_err(|_| SHAPE)?,
        reason: reason.trim().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn id(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    const THREE: &str =
        "# a comment\n1\t0/3000148\tno recovery target specified\n\n2\t0/50000A0\tbefore 2000-01-01\n";

    #[test]
    fn a_history_tells_which_timeline_wrote_a_position() {
        let history = TimelineHistory::parse(id(3), THREE).unwrap();
        assert_eq!(history.entries().len(), 2);
        assert_eq!(history.entries()[0].reason, "no recovery target specified");
        assert_eq!(history.timeline_at(Lsn(0)), id(1));
        assert_eq!(history.timeline_at(Lsn(0x300_0147)), id(1));
        assert_eq!(history.timeline_at(Lsn(0x300_0148)), id(2));
        assert_eq!(history.timeline_at(Lsn(0x500_00A0)), id(3));
        assert_eq!(history.switch_of(id(2)), Some(Lsn(0x500_00A0)));
        assert_eq!(history.switch_of(id(3)), None);
        assert_eq!(TimelineHistory::first().timeline_at(Lsn(u64::MAX)), TimelineId::FIRST);
    }

    #[test]
    fn what_no_server_writes_is_refused() {
        for wrong in
            ["1", "1 0/1 x\n1 0/2 x", "2 0/1 x\n1 0/2 x", "1 0/5 x\n2 0/4 x", "3 0/1 x", "0 0/1 x", "x 0/1 x"]
        {
            assert!(TimelineHistory::parse(id(3), wrong).is_err(), "{wrong}");
        }
        let long = "1 0/1\n".repeat(3);
        assert!(TimelineHistory::parse(id(9), &long).is_err());
        assert!(TimelineHistory::parse(id(2), "1 0/1").is_ok(), "the reason may be empty");
    }

    #[test]
    fn numbers_are_read_without_signs() {
        for wrong in ["", "0", "+1", "-1", "4294967296", "1.0", " 1"] {
            assert!(wrong.parse::<TimelineId>().is_err(), "{wrong}");
        }
        assert_eq!("4294967295".parse::<TimelineId>().unwrap().to_hex(), "FFFFFFFF");
        assert_eq!(id(17).history_file_name(), "00000011.history");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "([0-9]{1,3}[ \t][0-9A-F]{1,3}/[0-9A-F]{1,8}[ \t][a-z ]{0,5}\n){0,6}|.{0,80}") {
            if let Ok(history) = TimelineHistory::parse(id(500), &text) {
                for entry in history.entries() {
                    prop_assert!(history.timeline_at(entry.switch) > entry.timeline);
                }
            }
        }
    }
}

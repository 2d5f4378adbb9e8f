//! Names of the files that a server writes into `pg_wal` and hands to `archive_command`.

use super::{Lsn, ParseError, SegmentSize, TimelineId, hex8};
use std::fmt;
use std::str::FromStr;

/// The name of a WAL segment: 24 hexadecimal digits for timeline, log (4 GiB of positions) and segment in it.
///
/// The order is that of the digits: timelines first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentName {
    timeline: TimelineId,
    log: u32,
    segment: u32,
}

impl SegmentName {
    /// The segment with this number (see [`SegmentSize::number_of`]); `None` past the end of all positions.
    pub fn new(timeline: TimelineId, number: u64, size: SegmentSize) -> Option<Self> {
        let log = u32::try_from(number / size.per_log()).ok()?;
        let segment = u32::try_from(number % size.per_log()).ok()?;
        Some(Self { timeline, log, segment })
    }

    /// The segment that holds the byte at `lsn`.
    pub fn at(timeline: TimelineId, lsn: Lsn, size: SegmentSize) -> Self {
        let number = size.number_of(lsn);
        // Both are below 2^32: a log has at most 4096 segments, and there are 2^32 logs in 2^64 positions.
        let part = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        Self { timeline, log: part(number / size.per_log()), segment: part(number % size.per_log()) }
    }

    /// The timeline that wrote it.
    pub fn timeline(self) -> TimelineId {
        self.timeline
    }

    /// The segment's number in a server with segments of `size`; `None` when no such server has a file of this name.
    pub fn number(self, size: SegmentSize) -> Option<u64> {
        let segment = u64::from(self.segment);
        (segment < size.per_log()).then(|| u64::from(self.log) * size.per_log() + segment)
    }

    /// The position of its first byte; `None` as with [`SegmentName::number`].
    pub fn start(self, size: SegmentSize) -> Option<Lsn> {
        self.number(size).and_then(|number| size.start_of_number(number))
    }

    /// The segment behind it on the same timeline; `None` as with [`SegmentName::number`].
    pub fn next(self, size: SegmentSize) -> Option<Self> {
        Self::new(self.timeline, self.number(size)?.checked_add(1)?, size)
    }

    /// The same segment on another timeline.
    #[must_use]
    pub fn on(self, timeline: TimelineId) -> Self {
        Self { timeline, ..self }
    }
}

impl fmt::Display for SegmentName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08X}{:08X}{:08X}", self.timeline.get(), self.log, self.segment)
    }
}

impl FromStr for SegmentName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        const SHAPE: ParseError = ParseError("24 hexadecimal digits in upper case are expected");
        if text.len() != 24 || !text.is_ascii() {
            return Err(SHAPE);
        }
        let timeline = hex8(&text[..8]).and_then(TimelineId::new).ok_or(SHAPE)?;
        let log = hex8(&text[8..16]).ok_or(SHAPE)?;
        let segment = hex8(&text[16..]).ok_or(SHAPE)?;
        Ok(Self { timeline, log, segment })
    }
}

/// A file that `archive_command` may be called with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum WalFileName {
    /// `000000010000000000000007`: a whole segment.
    Segment(SegmentName),
    /// `000000010000000000000007.partial`: the last segment of a timeline that was left in it.
    Partial(SegmentName),
    /// `000000010000000000000007.00000028.backup`: that a backup began there.
    Backup {
        /// The segment in which the backup began.
        segment: SegmentName,
        /// Where in it, in bytes.
        offset: u32,
    },
    /// `00000002.history`: what came before a timeline.
    History(TimelineId),
}

impl WalFileName {
    /// The timeline that the name begins with.
    pub fn timeline(self) -> TimelineId {
        match self {
            Self::Segment(segment) | Self::Partial(segment) | Self::Backup { segment, .. } => {
                segment.timeline()
            }
            Self::History(timeline) => timeline,
        }
    }
}

impl fmt::Display for WalFileName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Segment(segment) => segment.fmt(f),
            Self::Partial(segment) => write!(f, "{segment}.partial"),
            Self::Backup { segment, offset } => write!(f, "{segment}.{offset:08X}.backup"),
            Self::History(timeline) => f.write_str(&timeline.history_file_name()),
        }
    }
}

impl FromStr for WalFileName {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        const SHAPE: ParseError = ParseError("this is not the name of a file that PostgreSQL archives");
        let (stem, rest) = text.split_once('.').map_or((text, None), |(stem, rest)| (stem, Some(rest)));
        match rest {
            Some("history") => hex8(stem).and_then(TimelineId::new).map(Self::History).ok_or(SHAPE),
            None => stem.parse().map(Self::Segment).map_err(|_| SHAPE),
            Some("partial") => stem.parse().map(Self::Partial).map_err(|_| SHAPE),
            Some(rest) => {
                let offset = rest.strip_suffix(".backup").and_then(hex8).ok_or(SHAPE)?;
                Ok(Self::Backup { segment: stem.parse().map_err(|_| SHAPE)?, offset })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const T1: TimelineId = TimelineId::FIRST;

    #[test]
    fn names_are_those_that_the_server_gives() {
        // Each as `pg_walfile_name` of a server with this segment size gives it.
        let name = |lsn: &str, size: u64| {
            SegmentName::at(T1, lsn.parse().unwrap(), SegmentSize::new(size << 20).unwrap()).to_string()
        };
        assert_eq!(name("16/B374D848", 16), "0000000100000016000000B3");
        assert_eq!(name("0/1000000", 16), "000000010000000000000001");
        assert_eq!(name("0/1000000", 1), "000000010000000000000010");
        assert_eq!(name("1/FFFFFFFF", 1024), "000000010000000100000003");
        assert_eq!(name("FFFFFFFF/FFFFFFFF", 1), "00000001FFFFFFFF00000FFF");
    }

    #[test]
    fn the_segment_behind_the_last_one_of_a_log_begins_the_next_log() {
        let size = SegmentSize::default();
        let last: SegmentName = "0000000100000000000000FF".parse().unwrap();
        assert_eq!(last.next(size).unwrap().to_string(), "000000010000000100000000");
        assert_eq!(last.start(size), Some(Lsn(0xFF00_0000)));
        let end: SegmentName = "00000001FFFFFFFF000000FF".parse().unwrap();
        assert_eq!(end.next(size), None);
        assert_eq!(
            last.number(SegmentSize::new(1 << 30).unwrap()),
            None,
            "such a server has 4 segments in a log"
        );
    }

    #[test]
    fn every_archived_file_has_its_kind() {
        for text in [
            "000000010000000000000007",
            "000000010000000000000007.partial",
            "000000010000000000000007.00000028.backup",
            "00000002.history",
        ] {
            assert_eq!(text.parse::<WalFileName>().unwrap().to_string(), text);
        }
        for wrong in [
            "",
            "00000001000000000000000",
            "0000000100000000000000070",
            "00000001000000000000000g",
            "00000001000000000000000a",
            "000000000000000000000007",
            "000000010000000000000007.backup",
            "000000010000000000000007.0028.backup",
            "000000010000000000000007.partial.x",
            "00000000.history",
            "2.history",
            "../000000010000000000000007",
            "+00000010000000000000007",
            "ääääääääääää",
        ] {
            assert!(wrong.parse::<WalFileName>().is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_segment_survives_printing_and_reading(timeline in 1u32.., lsn: u64, exponent in 20u32..=30) {
            let size = SegmentSize::new(1 << exponent).unwrap();
            let name = SegmentName::at(TimelineId::new(timeline).unwrap(), Lsn(lsn), size);
            prop_assert_eq!(name.to_string().parse(), Ok(name));
            prop_assert_eq!(name.start(size), Some(size.start_of(Lsn(lsn))));
            prop_assert_eq!(SegmentName::new(name.timeline(), name.number(size).unwrap(), size), Some(name));
        }

        #[test]
        fn names_on_one_timeline_have_the_order_of_their_positions(a: u64, b: u64, exponent in 20u32..=30) {
            let size = SegmentSize::new(1 << exponent).unwrap();
            let (first, second) = (SegmentName::at(T1, Lsn(a), size), SegmentName::at(T1, Lsn(b), size));
            prop_assert_eq!(first.cmp(&second), size.number_of(Lsn(a)).cmp(&size.number_of(Lsn(b))));
            prop_assert_eq!(first.to_string().cmp(&second.to_string()), first.cmp(&second));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9A-F]{24}(\\.[0-9A-F]{8}\\.backup|\\.partial)?|.{0,40}") {
            if let Ok(name) = text.parse::<WalFileName>() {
                prop_assert_eq!(name.to_string(), text);
            }
        }
    }
}

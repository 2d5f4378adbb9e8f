//! Positions in the WAL, and the size of the files that it is cut into.

use super::ParseError;
use std::fmt;
use std::str::FromStr;

/// A position in the write-ahead log, in bytes since its beginning; written as `16/B374D848`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Lsn(pub u64);

impl Lsn {
    /// The position that stands for "none".
    pub const ZERO: Self = Self(0);

    /// The position `bytes` later; `None` past the end of all positions.
    pub fn checked_add(self, bytes: u64) -> Option<Self> {
        self.0.checked_add(bytes).map(Self)
    }

    /// How many bytes this is after `earlier`; 0 when it is not after it.
    pub fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let parts = text.split_once('/').and_then(|(high, low)| Some((super::hex(high)?, super::hex(low)?)));
        let (high, low) = parts
            .ok_or(ParseError("two hexadecimal numbers with a slash are expected, such as `16/B374D848`"))?;
        Ok(Self(u64::from(high) << 32 | u64::from(low)))
    }
}

/// The size of a server's WAL segments: a power of two from 1 MiB to 1 GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SegmentSize(u32);

impl Default for SegmentSize {
    /// 16 MiB, what `initdb` takes when it is not told otherwise.
    fn default() -> Self {
        Self(16 << 20)
    }
}

impl SegmentSize {
    /// `bytes`, when that is a size that PostgreSQL allows.
    pub fn new(bytes: u64) -> Result<Self, ParseError> {
        u32::try_from(bytes)
            .ok()
            .filter(|bytes| bytes.is_power_of_two() && (1 << 20..=1 << 30).contains(bytes))
            .map(Self)
            .ok_or(ParseError("a WAL segment's size is a power of two from 1 MiB to 1 GiB"))
    }

    /// The size in bytes.
    pub fn bytes(self) -> u64 {
        u64::from(self.0)
    }

    /// The number of the segment that holds the byte at `lsn`, counted from 0.
    pub fn number_of(self, lsn: Lsn) -> u64 {
        lsn.0 / self.bytes()
    }

    /// The number of the segment that holds the byte before `lsn`: of the last one that a range ending at `lsn` needs.
    pub fn number_before(self, lsn: Lsn) -> u64 {
        lsn.0.saturating_sub(1) / self.bytes()
    }

    /// Where `lsn` is in its segment, in bytes.
    pub fn offset_of(self, lsn: Lsn) -> u64 {
        lsn.0 % self.bytes()
    }

    /// The first position of the segment that holds `lsn`.
    pub fn start_of(self, lsn: Lsn) -> Lsn {
        Lsn(lsn.0 - self.offset_of(lsn))
    }

    /// The first position of the segment with this number; `None` past the end of all positions.
    pub fn start_of_number(self, number: u64) -> Option<Lsn> {
        number.checked_mul(self.bytes()).map(Lsn)
    }

    /// How many segments make one "log": 4 GiB of positions, which file names count apart.
    pub(super) fn per_log(self) -> u64 {
        (1 << 32) / self.bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn positions_are_read_and_printed_as_postgresql_does() {
        assert_eq!("16/B374D848".parse(), Ok(Lsn(0x16_B374_D848)));
        assert_eq!(Lsn(0x16_B374_D848).to_string(), "16/B374D848");
        assert_eq!("0/0".parse(), Ok(Lsn::ZERO));
        assert_eq!("ffffffff/00000010".parse::<Lsn>().unwrap().to_string(), "FFFFFFFF/10");
        for wrong in
            ["", "/", "1", "1/", "/1", "1/2/3", "+1/2", "1/-2", "1/ 2", "123456789/0", "0/g", "0x1/2"]
        {
            assert!(wrong.parse::<Lsn>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn only_sizes_that_initdb_takes_are_accepted() {
        for exponent in 20..=30 {
            assert_eq!(SegmentSize::new(1 << exponent).map(SegmentSize::bytes), Ok(1 << exponent));
        }
        for wrong in [0, 1, 1 << 19, 1 << 31, 1 << 40, (1 << 20) + 1, 3 << 20, u64::MAX] {
            assert!(SegmentSize::new(wrong).is_err(), "{wrong}");
        }
        assert_eq!(SegmentSize::default().bytes(), 16_777_216);
    }

    #[test]
    fn the_end_of_a_range_at_a_boundary_needs_no_next_segment() {
        let size = SegmentSize::default();
        let boundary = Lsn(3 * size.bytes());
        assert_eq!((size.number_of(boundary), size.number_before(boundary)), (3, 2));
        assert_eq!((size.offset_of(boundary), size.start_of(boundary)), (0, boundary));
        assert_eq!(size.number_before(Lsn::ZERO), 0);
        assert_eq!(size.start_of_number(u64::MAX), None);
    }

    #[test]
    fn distances_do_not_overflow() {
        assert_eq!(Lsn(5).bytes_since(Lsn(7)), 0);
        assert_eq!(Lsn(7).bytes_since(Lsn(5)), 2);
        assert_eq!(Lsn(u64::MAX).checked_add(1), None);
    }

    proptest! {
        #[test]
        fn a_position_survives_printing_and_reading(lsn: u64) {
            prop_assert_eq!(Lsn(lsn).to_string().parse(), Ok(Lsn(lsn)));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9a-fA-F/+-]{0,20}|.{0,20}") {
            if let Ok(lsn) = text.parse::<Lsn>() {
                prop_assert_eq!(lsn.to_string().parse(), Ok(lsn));
            }
        }

        #[test]
        fn a_position_is_its_segment_and_its_offset(lsn: u64, exponent in 20u32..=30) {
            let size = SegmentSize::new(1 << exponent).unwrap();
            let start = size.start_of_number(size.number_of(Lsn(lsn))).unwrap();
            prop_assert_eq!(start, size.start_of(Lsn(lsn)));
            prop_assert_eq!(start.checked_add(size.offset_of(Lsn(lsn))), Some(Lsn(lsn)));
        }
    }
}

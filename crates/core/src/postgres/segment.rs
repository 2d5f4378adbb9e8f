//! The beginning of a WAL segment: which server wrote it, and which part of the WAL it holds.

use super::{Lsn, SegmentName, SegmentSize};
use crate::error::{Error, ErrorKind, Result, codes};

/// In `xlp_info`: the header is a long one.
const LONG_HEADER: u16 = 2;

/// What the first page of a segment says (`XLogLongPageHeaderData` in `xlog_internal.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The timeline of the first page.
    pub timeline: u32,
    /// The position of the first byte.
    pub start: Lsn,
    /// The server.
    pub system_identifier: u64,
    /// The size of the server's segments in bytes.
    pub segment_bytes: u32,
}

impl SegmentHeader {
    /// So many bytes at the beginning of a segment are looked at.
    pub const BYTES: usize = 40;

    /// Reads it; `None` when these bytes do not begin a segment. Written by a machine of the same byte order.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let part = |at: usize, length: usize| bytes.get(at..at + length);
        let info = u16::from_ne_bytes(part(2, 2)?.try_into().ok()?);
        let magic = u16::from_ne_bytes(part(0, 2)?.try_into().ok()?);
        // The high byte of `XLOG_PAGE_MAGIC` has been the same in every version.
        if bytes.len() < Self::BYTES || magic >> 8 != 0xD1 || info & LONG_HEADER == 0 {
            return None;
        }
        Some(Self {
            timeline: u32::from_ne_bytes(part(4, 4)?.try_into().ok()?),
            start: Lsn(u64::from_ne_bytes(part(8, 8)?.try_into().ok()?)),
            system_identifier: u64::from_ne_bytes(part(24, 8)?.try_into().ok()?),
            segment_bytes: u32::from_ne_bytes(part(32, 4)?.try_into().ok()?),
        })
    }

    /// Whether a segment that begins so, and has `size_bytes`, is the one that `name` says, of the server.
    ///
    /// # Errors
    /// `R0421` with what is wrong.
    pub fn check(
        bytes: &[u8],
        size_bytes: u64,
        name: SegmentName,
        size: SegmentSize,
        system_identifier: u64,
    ) -> Result<()> {
        let own = Self::check_itself(bytes, size_bytes, name, system_identifier)?;
        if own != size {
            let what = format!("has `{}` bytes, where the server has `{}`", own.bytes(), size.bytes());
            return Err(wrong(name, &what));
        }
        Ok(())
    }

    /// As [`SegmentHeader::check`], where the size of the server's segments is what the segment itself says. Gives it.
    ///
    /// # Errors
    /// `R0421` with what is wrong.
    pub fn check_itself(
        bytes: &[u8],
        size_bytes: u64,
        name: SegmentName,
        system_identifier: u64,
    ) -> Result<SegmentSize> {
        let size = Self::check_beginning(bytes, name, system_identifier)?;
        if size_bytes != size.bytes() {
            let what = format!("has `{size_bytes}` bytes, where the server has `{}`", size.bytes());
            return Err(wrong(name, &what));
        }
        Ok(size)
    }

    /// As [`SegmentHeader::check_itself`], for the beginning of a segment that need not be whole.
    ///
    /// # Errors
    /// `R0421` with what is wrong.
    pub fn check_beginning(bytes: &[u8], name: SegmentName, system_identifier: u64) -> Result<SegmentSize> {
        let Some(header) = Self::parse(bytes) else {
            return Err(wrong(name, "does not begin like WAL"));
        };
        let Ok(size) = SegmentSize::new(header.segment_bytes.into()) else {
            return Err(wrong(name, &format!("says that segments have `{}` bytes", header.segment_bytes)));
        };
        if header.system_identifier != system_identifier {
            let what = format!("is of server `{}`, not `{system_identifier}`", header.system_identifier);
            return Err(wrong(name, &what));
        }
        if Some(header.start) != name.start(size) {
            return Err(wrong(name, &format!("begins at `{}`", header.start)));
        }
        if header.timeline > name.timeline().get() {
            return Err(wrong(name, &format!("is of timeline `{}`", header.timeline)));
        }
        Ok(size)
    }
}

fn wrong(name: SegmentName, what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, codes::WAL_MALFORMED, format!("WAL segment `{name}` {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NAME: &str = "000000020000000000000003";
    const SERVER: u64 = 7_000_000_000_000_000_001;

    /// As a server writes it.
    fn header(timeline: u32, start: u64, server: u64, segment_bytes: u32) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(0xD110_u16.to_ne_bytes());
        bytes.extend(LONG_HEADER.to_ne_bytes());
        bytes.extend(timeline.to_ne_bytes());
        bytes.extend(start.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(server.to_ne_bytes());
        bytes.extend(segment_bytes.to_ne_bytes());
        bytes.extend(8192_u32.to_ne_bytes());
        bytes
    }

    #[test]
    fn a_segment_is_what_its_name_says_or_refused_with_the_reason() {
        let name: SegmentName = NAME.parse().unwrap();
        let mib = 1 << 20;
        let check = |bytes: &[u8], length| {
            SegmentHeader::check(bytes, length, name, SegmentSize::new(mib).unwrap(), SERVER)
        };
        let good = header(2, 3 * mib, SERVER, 1 << 20);
        check(&good, mib).unwrap();
        check(&header(1, 3 * mib, SERVER, 1 << 20), mib).unwrap();
        for (bytes, length, why) in [
            (good.clone(), mib - 1, "has `1048575` bytes"),
            (header(3, 3 * mib, SERVER, 1 << 20), mib, "is of timeline `3`"),
            (header(2, 4 * mib, SERVER, 1 << 20), mib, "begins at `0/400000`"),
            (header(2, 3 * mib, SERVER + 1, 1 << 20), mib, "not `7000000000000000001`"),
            (header(2, 6 * mib, SERVER, 2 << 20), 2 * mib, "where the server has `1048576`"),
            (header(2, 3 * mib, SERVER, 3), mib, "segments have `3` bytes"),
            (good[..39].to_vec(), mib, "does not begin like WAL"),
            (vec![0; 40], mib, "does not begin like WAL"),
        ] {
            let error = check(&bytes, length).unwrap_err();
            assert_eq!(error.code(), codes::WAL_MALFORMED);
            assert!(error.message().contains(why) && error.message().contains(NAME), "{error}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..60)) {
            let name: SegmentName = NAME.parse().unwrap();
            if let Ok(size) = SegmentHeader::check_beginning(&bytes, name, SERVER) {
                prop_assert_eq!(name.start(size), SegmentHeader::parse(&bytes).map(|header| header.start));
            }
        }
    }
}

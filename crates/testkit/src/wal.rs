//! WAL segments as a server could have written them: a true first page, and noise.

use crate::data::bytes;
use retoma_core::postgres::{SegmentName, SegmentSize, TimelineId};

/// Segments of 1 MiB, the smallest there are.
///
/// # Panics
/// Never.
#[allow(clippy::expect_used)]
pub fn size() -> SegmentSize {
    SegmentSize::new(1 << 20).expect("1 MiB is a size")
}

/// The timeline of this number.
///
/// # Panics
/// For 0.
#[allow(clippy::expect_used)]
pub fn timeline(number: u32) -> TimelineId {
    TimelineId::new(number).expect("the number of a timeline")
}

/// Segment `number` of 1 MiB of a timeline.
///
/// # Panics
/// When there is none.
#[allow(clippy::expect_used)]
pub fn name(on: u32, number: u64) -> SegmentName {
    SegmentName::new(timeline(on), number, size()).expect("a segment's number")
}

/// A segment of 1 MiB with this name, of the server, whose contents depend on `seed`. A third of it is compressible.
///
/// # Panics
/// When no server with segments of 1 MiB has this name.
pub fn segment(name: &str, system_identifier: u64, seed: u64) -> Vec<u8> {
    segment_of(name, size(), system_identifier, seed)
}

/// As [`segment`], of another size.
///
/// # Panics
/// When no server with such segments has this name.
#[allow(clippy::expect_used)]
pub fn segment_of(name: &str, size: SegmentSize, system_identifier: u64, seed: u64) -> Vec<u8> {
    let name: SegmentName = name.parse().expect("a segment's name");
    let start = name.start(size).expect("a name that a server with such segments has");
    let mut segment = Vec::new();
    segment.extend(0xD110_u16.to_ne_bytes());
    segment.extend(2_u16.to_ne_bytes());
    segment.extend(name.timeline().get().to_ne_bytes());
    segment.extend(start.0.to_ne_bytes());
    segment.extend([0; 8]);
    segment.extend(system_identifier.to_ne_bytes());
    segment.extend(u32::try_from(size.bytes()).unwrap_or_default().to_ne_bytes());
    segment.extend(8192_u32.to_ne_bytes());
    let length = usize::try_from(size.bytes()).unwrap_or_default();
    segment.extend(bytes(seed, length / 3 * 2));
    segment.resize(length, 0);
    segment
}

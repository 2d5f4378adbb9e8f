//! What was received and is not stored everywhere yet: the segment that is being received, and finished ones.

use retoma_core::postgres::{Lsn, SegmentName, SegmentSize, TimelineId};
use retoma_repo::memory;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// So many finished segments are held; then nothing more is received until one is stored.
const FINISHED: usize = 2;

/// A segment, or what of it has come.
#[derive(Debug)]
pub(super) struct Held {
    /// Its name.
    pub(super) name: SegmentName,
    /// The position of its first byte.
    pub(super) start: Lsn,
    bytes: Arc<Vec<u8>>,
    /// So many bytes at its beginning are no longer in memory, or never were.
    base: usize,
}

impl Held {
    /// Behind its last byte that has come.
    pub(super) fn received(&self) -> Lsn {
        Lsn(self.start.0 + (self.base + self.bytes.len()) as u64)
    }

    /// All of its bytes, when they are in memory.
    pub(super) fn whole(&self, size: SegmentSize) -> Option<Arc<Vec<u8>>> {
        (self.base == 0 && self.bytes.len() as u64 == size.bytes()).then(|| self.bytes.clone())
    }

    /// A copy of the bytes of a range of positions, and where they begin in the segment; `None` when they are not in memory.
    pub(super) fn copy(&self, range: Range<Lsn>) -> Option<(u32, Vec<u8>)> {
        let offset = |lsn: Lsn| usize::try_from(lsn.0.checked_sub(self.start.0)?).ok();
        let (from, to) = (offset(range.start)?, offset(range.end)?);
        let bytes = self.bytes.get(from.checked_sub(self.base)?..to.checked_sub(self.base)?)?;
        let mut copy = memory::buffer(bytes.len());
        copy.extend_from_slice(bytes);
        Some((u32::try_from(from).ok()?, copy))
    }
}

/// The window over one timeline.
#[derive(Debug)]
pub(super) struct Window {
    pub(super) timeline: TimelineId,
    pub(super) size: SegmentSize,
    segments: VecDeque<Held>,
    received: Lsn,
}

impl Window {
    /// An empty one that begins at `start`.
    pub(super) fn new(timeline: TimelineId, start: Lsn, size: SegmentSize) -> Self {
        Self { timeline, size, segments: VecDeque::new(), received: start }
    }

    /// Behind the last byte.
    pub(super) fn received(&self) -> Lsn {
        self.received
    }

    /// Takes bytes that follow the last one.
    pub(super) fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let (size, received) = (self.size, self.received);
            let offset = size.offset_of(received);
            if offset == 0 || self.segments.is_empty() {
                self.segments.push_back(Held {
                    name: SegmentName::at(self.timeline, received, size),
                    start: size.start_of(received),
                    bytes: Arc::default(),
                    base: usize::try_from(offset).unwrap_or_default(),
                });
            }
            let room = usize::try_from(size.bytes() - offset).unwrap_or(usize::MAX);
            let (now, later) = bytes.split_at(room.min(bytes.len()));
            if let Some(last) = self.segments.back_mut() {
                // Nobody else has an unfinished one.
                let held = Arc::make_mut(&mut last.bytes);
                if held.capacity() == 0 {
                    *held = memory::buffer(room);
                }
                held.extend_from_slice(now);
            }
            self.received.0 += now.len() as u64;
            bytes = later;
        }
    }

    /// Whether no more may be received now.
    pub(super) fn is_full(&self) -> bool {
        let finished = self.segments.iter().filter(|held| self.is_finished(held)).count();
        finished >= FINISHED
    }

    /// Whether all of a segment has come.
    pub(super) fn is_finished(&self, held: &Held) -> bool {
        held.received().bytes_since(held.start) == self.size.bytes()
    }

    /// The segment that holds the byte at `lsn`, or will hold it.
    pub(super) fn at(&self, lsn: Lsn) -> Option<&Held> {
        let start = self.size.start_of(lsn);
        self.segments.iter().find(|held| held.start == start)
    }

    /// The first segment.
    pub(super) fn first(&self) -> Option<&Held> {
        self.segments.front()
    }

    /// The last segment.
    #[cfg(test)]
    pub(super) fn last(&self) -> Option<&Held> {
        self.segments.back()
    }

    /// Lets go of finished segments before `whole`.
    pub(super) fn release(&mut self, whole: Lsn) {
        while self.segments.front().is_some_and(|held| held.start < whole && self.is_finished(held)) {
            self.segments.pop_front();
        }
    }

    /// Lets go of the bytes of the unfinished segment: whoever needs them reads them where they are stored.
    pub(super) fn shrink(&mut self) {
        if let Some(last) = self.segments.back_mut()
            && !last.bytes.is_empty()
        {
            last.base += last.bytes.len();
            last.bytes = Arc::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn window(start: u64) -> Window {
        Window::new(TimelineId::FIRST, Lsn(start), SegmentSize::new(MIB).unwrap())
    }

    fn bytes(length: u64) -> Vec<u8> {
        retoma_testkit::bytes(length, usize::try_from(length).unwrap()).to_vec()
    }

    #[test]
    fn bytes_are_cut_into_segments_and_found_by_position() {
        let mut window = window(3 * MIB);
        let all = bytes(2 * MIB + 100);
        all.chunks(70_001).for_each(|piece| window.push(piece));
        assert_eq!(window.received(), Lsn(5 * MIB + 100));
        assert!(window.is_full());
        let second = window.at(Lsn(4 * MIB + 5)).unwrap();
        assert_eq!(second.name.to_string(), "000000010000000000000004");
        let middle = usize::try_from(MIB).unwrap();
        assert!(second.whole(window.size).unwrap()[..] == all[middle..2 * middle]);
        assert_eq!(
            second.copy(Lsn(4 * MIB + 5)..Lsn(4 * MIB + 9)),
            Some((5, all[middle + 5..middle + 9].to_vec()))
        );
        assert_eq!(second.copy(Lsn(3 * MIB)..Lsn(3 * MIB + 1)), None);
        let last = window.last().unwrap();
        assert_eq!((last.whole(window.size), last.copy(Lsn(5 * MIB)..Lsn(5 * MIB + 101))), (None, None));
        window.release(Lsn(4 * MIB));
        assert_eq!(window.first().unwrap().start, Lsn(4 * MIB));
        assert!(!window.is_full());
        window.release(Lsn(9 * MIB));
        assert_eq!(window.first().unwrap().start, Lsn(5 * MIB), "an unfinished one stays");
    }

    #[test]
    fn what_is_let_go_is_not_whole_and_goes_on() {
        let mut window = window(MIB + 10);
        window.push(&bytes(20));
        window.shrink();
        window.push(&bytes(5));
        let held = window.last().unwrap();
        assert_eq!(held.received(), Lsn(MIB + 35));
        assert_eq!(held.copy(Lsn(MIB + 29)..Lsn(MIB + 30)), None);
        assert_eq!(held.copy(Lsn(MIB + 30)..Lsn(MIB + 35)), Some((30, bytes(5))));
        window.push(&bytes(MIB - 35));
        let held = window.last().unwrap();
        assert!(window.is_finished(held) && held.whole(window.size).is_none());
        window.push(&[1]);
        assert_eq!(window.last().unwrap().start, Lsn(2 * MIB));
    }
}

//! Where an archive ends: there streaming goes on.

use super::archive::Archive;
use super::listing::{Numbers, Timeline};
use super::name::WalObject;
use retoma_core::postgres::{Lsn, SegmentSize, TimelineId, WalFileName};
use retoma_core::{Result, ResultExt as _};

/// The end of an archive on the newest timeline that it has WAL of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiveEnd {
    /// The timeline.
    pub timeline: TimelineId,
    /// The first position behind its last whole segment; what whole segments alone reach.
    pub whole: Lsn,
    /// The first position that is not there either in parts that join there.
    pub joined: Lsn,
}

impl Archive {
    /// Where it ends, for a server whose segments have `size`; `None` when it has no WAL. Gaps before the last whole segment
    /// are not looked at: what streaming could have filled, it has filled in order.
    ///
    /// # Errors
    /// What the store says.
    pub fn end(&self, size: SegmentSize) -> Result<Option<ArchiveEnd>> {
        let (mut newest, mut whole) = (None, Numbers::default());
        let mut first_part = None::<u64>;
        let mut meet = |timeline: TimelineId, number: u64, is_part: bool| {
            if newest.is_none_or(|newest| timeline > newest) {
                newest = Some(timeline);
                whole = Numbers::default();
                first_part = None;
            }
            if newest != Some(timeline) {
                return;
            }
            if is_part {
                first_part = Some(first_part.map_or(number, |first| first.min(number)));
            } else {
                whole.insert(number);
            }
        };
        self.for_each(|object, _| match object {
            WalObject::File(WalFileName::Segment(segment)) => {
                if let Some(number) = segment.number(size) {
                    meet(segment.timeline(), number, false);
                }
            }
            WalObject::Part(part) => {
                if let Some(number) = part.segment.number(size) {
                    meet(part.segment.timeline(), number, true);
                }
            }
            WalObject::File(_) => {}
        })?;
        let Some(timeline) = newest else { return Ok(None) };
        let Some(behind) = whole.last().map(|last| last + 1).or(first_part) else { return Ok(None) };
        self.join_end(timeline, behind, size).map(Some)
    }

    /// Goes on from the segment `number` over parts.
    fn join_end(&self, timeline: TimelineId, number: u64, size: SegmentSize) -> Result<ArchiveEnd> {
        let mut parts = Timeline::default();
        let folder = self.place().timeline_parts_folder(timeline);
        let listed = self.store().for_each(&folder, |meta| {
            if let Some((_, _, WalObject::Part(part))) = WalObject::parse(meta.key.as_str())
                && let Some(own) = part.segment.number(size).filter(|own| *own >= number)
            {
                parts.parts.entry(own).or_default().insert((part.from, part.to));
            }
        });
        listed.context("list the parts of WAL segments")?;
        let start = |number| size.start_of_number(number).unwrap_or(Lsn(u64::MAX));
        let mut last = number;
        while u64::from(parts.known_bytes(last)) >= size.bytes() {
            last += 1;
        }
        let joined = Lsn(start(last).0.saturating_add(parts.known_bytes(last).into()));
        Ok(ArchiveEnd { timeline, whole: start(number), joined })
    }
}

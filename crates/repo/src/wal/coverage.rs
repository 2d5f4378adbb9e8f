//! Whether WAL is there without a gap, along the timelines.

use super::listing::{Listing, Numbers, Timeline};
use retoma_core::postgres::{Lsn, SegmentName, SegmentSize, TimelineHistory, TimelineId};
use std::collections::BTreeMap;

/// Whole segments that are missing, one after the other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Gap {
    /// The first one.
    pub first: SegmentName,
    /// The last one.
    pub last: SegmentName,
    /// How many.
    pub segments: u64,
}

/// What there is of the WAL from a position on, along the history of a timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Coverage {
    /// The timeline at its end.
    pub timeline: TimelineId,
    /// From here on.
    pub from: Lsn,
    /// Everything before this position is there: the end of the recoverable window.
    pub until: Lsn,
    /// What is missing before later WAL that is there.
    pub gaps: Vec<Gap>,
}

/// Looks whether everything from `from` on is there, on the way to `history`'s timeline. `own` are segments that the
/// snapshot has inside it, on the timeline of `from`.
///
/// The segment in which a timeline was left is looked for on the next one, as a server does: its copy there has both.
/// WAL behind the last segment that is there cannot be missed: nobody knows whether it exists.
pub fn coverage(listing: &Listing, history: &TimelineHistory, from: Lsn, own: &Numbers) -> Coverage {
    let size = listing.size;
    let (begin_timeline, mut begin) = (history.timeline_at(from), size.number_of(from));
    let (mut gaps, mut until) = (Vec::new(), None);
    for (timeline, switch) in legs(history).into_iter().filter(|(timeline, _)| *timeline >= begin_timeline) {
        let stored = listing.timelines.get(&timeline);
        let mut present = stored.map(|stored| stored.segments.clone()).unwrap_or_default();
        if timeline == begin_timeline {
            own.ranges().for_each(|(first, last)| present.insert_range(first, last));
        }
        let full = |number| known(stored, number, size) == size.bytes();
        let parts = stored.into_iter().flat_map(|stored| stored.parts.keys().copied());
        parts.filter(|number| full(*number)).for_each(|number| present.insert(number));
        let begun = stored.and_then(|stored| stored.parts.keys().next_back().copied());
        // A segment that is only begun is the last one; what lies before it has to be there.
        let last = match switch {
            Some(switch) => size.number_of(switch).checked_sub(1),
            None => present.last().max(begun.and_then(|number| number.checked_sub(1))),
        };
        let Some(last) = last.filter(|last| *last >= begin) else { continue };
        for (first, last) in present.missing(begin, last) {
            until = until.or_else(|| Some(reached(stored, first, size)));
            gaps.extend(gap(timeline, first, last, size));
        }
        begin = last + 1;
    }
    let end = || reached(listing.timelines.get(&history.timeline()), begin, size);
    Coverage { timeline: history.timeline(), from, until: until.unwrap_or_else(end).max(from), gaps }
}

/// The timelines of a history, oldest first, each with the position where it was left.
fn legs(history: &TimelineHistory) -> Vec<(TimelineId, Option<Lsn>)> {
    let earlier = history.entries().iter().map(|entry| (entry.timeline, Some(entry.switch)));
    earlier.chain([(history.timeline(), None)]).collect()
}

fn known(stored: Option<&Timeline>, number: u64, size: SegmentSize) -> u64 {
    stored.map_or(0, |stored| u64::from(stored.known_bytes(number)).min(size.bytes()))
}

/// How far one gets when the segment `number` is not there as a whole.
fn reached(stored: Option<&Timeline>, number: u64, size: SegmentSize) -> Lsn {
    let start = size.start_of_number(number).unwrap_or(Lsn(u64::MAX));
    Lsn(start.0.saturating_add(known(stored, number, size)))
}

fn gap(timeline: TimelineId, first: u64, last: u64, size: SegmentSize) -> Option<Gap> {
    let name = |number| SegmentName::new(timeline, number, size);
    Some(Gap { first: name(first)?, last: name(last)?, segments: last - first + 1 })
}

/// Every way from a position to a timeline on which WAL or a history is there: the histories of those that nothing
/// branched off from later, seen from `timeline` at `from`.
pub fn ways(
    histories: &BTreeMap<TimelineId, TimelineHistory>,
    timeline: TimelineId,
    from: Lsn,
) -> Vec<&TimelineHistory> {
    let reaches = |history: &&TimelineHistory| {
        history.timeline() == timeline
            || (history.timeline() > timeline && history.timeline_at(from) == timeline)
    };
    histories.values().filter(reaches).collect()
}

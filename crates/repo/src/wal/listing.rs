//! What an archive holds, in memory that grows with its gaps, not with its segments.

use super::FOLDER;
use super::archive::Archive;
use super::name::{PartName, WalObject};
use crate::repository::Repository;
use retoma_core::postgres::{SegmentName, SegmentSize, TimelineHistory, TimelineId, WalFileName};
use retoma_core::{Error, ErrorKind, Result, ResultExt as _, error::codes};
use std::collections::{BTreeMap, BTreeSet};

/// Numbers of segments, as ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Numbers {
    /// First to last, both in it; ranges neither overlap nor touch.
    ranges: BTreeMap<u64, u64>,
}

impl Numbers {
    /// Puts a number in.
    pub fn insert(&mut self, number: u64) {
        self.insert_range(number, number);
    }

    /// Puts all from `first` to `last` in.
    pub fn insert_range(&mut self, mut first: u64, mut last: u64) {
        if first > last {
            return;
        }
        // Every range that overlaps or touches is taken in.
        while let Some((&begin, &end)) = self.ranges.range(..=last.saturating_add(1)).next_back()
            && end.saturating_add(1) >= first
        {
            self.ranges.remove(&begin);
            first = first.min(begin);
            last = last.max(end);
        }
        self.ranges.insert(first, last);
    }

    /// Whether it is in.
    pub fn contains(&self, number: u64) -> bool {
        self.ranges.range(..=number).next_back().is_some_and(|(_, end)| *end >= number)
    }

    /// The ranges, first and last, in order.
    pub fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.ranges.iter().map(|(first, last)| (*first, *last))
    }

    /// The first number.
    pub fn first(&self) -> Option<u64> {
        self.ranges.keys().next().copied()
    }

    /// The last number.
    pub fn last(&self) -> Option<u64> {
        self.ranges.values().next_back().copied()
    }

    /// How many there are.
    pub fn count(&self) -> u64 {
        self.ranges().map(|(first, last)| last - first + 1).sum()
    }

    /// What is missing between `first` and `last`, as ranges.
    pub fn missing(&self, first: u64, last: u64) -> Vec<(u64, u64)> {
        let mut gaps = Vec::new();
        let mut next = first;
        for (begin, end) in self.ranges() {
            if begin > last || next > last {
                break;
            }
            if begin > next {
                gaps.push((next, begin - 1));
            }
            let Some(behind) = end.checked_add(1) else { return gaps };
            next = next.max(behind);
        }
        if next <= last {
            gaps.push((next, last));
        }
        gaps
    }
}

/// What an archive holds of one timeline.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Timeline {
    /// Whole segments.
    pub segments: Numbers,
    /// Parts, by the segment's number: where each begins and ends.
    pub parts: BTreeMap<u64, BTreeSet<(u32, u32)>>,
    /// Whether its history is stored. The first timeline has none.
    pub has_history: bool,
    /// Files that are neither segments nor parts nor its history: backups' histories and partial segments.
    pub other: u64,
    /// Bytes of all of it, as stored.
    pub stored_bytes: u64,
}

impl Timeline {
    /// So many bytes at the beginning of a segment are in its parts.
    pub fn known_bytes(&self, number: u64) -> u32 {
        let parts = self.parts.get(&number).into_iter().flatten();
        parts.fold(0, |known, (from, to)| if *from <= known { known.max(*to) } else { known })
    }
}

/// What an archive holds, by timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listing {
    /// The size of the server's segments, by which they are numbered.
    pub size: SegmentSize,
    /// Every timeline that has an object.
    pub timelines: BTreeMap<TimelineId, Timeline>,
    /// Names of segments that no server with such segments has.
    pub foreign: u64,
}

/// A server that has an archive in a repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Server {
    /// The component.
    pub component: String,
    /// The server.
    pub system_identifier: u64,
    /// Its first whole segment, by which its segments' size can be found.
    pub first_segment: Option<SegmentName>,
}

/// The servers that have an archive in a repository.
///
/// # Errors
/// What the store says.
pub fn servers(repository: &Repository) -> Result<Vec<Server>> {
    let mut found: BTreeMap<(String, u64), Option<SegmentName>> = BTreeMap::new();
    repository
        .store()
        .for_each(FOLDER, |meta| {
            let Some((component, system_identifier, object)) = WalObject::parse(meta.key.as_str()) else {
                return;
            };
            // Not `entry` with an owned name for each object: there may be a million.
            let first = match found
                .iter_mut()
                .find(|((name, server), _)| name == component && *server == system_identifier)
            {
                Some((_, first)) => first,
                None => found.entry((component.to_owned(), system_identifier)).or_default(),
            };
            if let WalObject::File(WalFileName::Segment(segment)) = object {
                *first = Some(first.map_or(segment, |known| known.min(segment)));
            }
        })
        .context("list the WAL")?;
    let server = |((component, system_identifier), first_segment)| Server {
        component,
        system_identifier,
        first_segment,
    };
    Ok(found.into_iter().map(server).collect())
}

impl Archive {
    /// Shows `each` every object of the archive with its stored size in bytes, in any order.
    ///
    /// # Errors
    /// What the store says.
    pub fn for_each(&self, mut each: impl FnMut(WalObject, u64)) -> Result<()> {
        let listed = self.store().for_each(&self.place().folder(), |meta| {
            if let Some((_, _, object)) = WalObject::parse(meta.key.as_str()) {
                each(object, meta.size_bytes);
            }
        });
        listed.context("list the WAL")
    }

    /// What is there, for a server whose segments have `size`. Nothing is read or opened.
    ///
    /// # Errors
    /// What the store says.
    pub fn list(&self, size: SegmentSize) -> Result<Listing> {
        let mut listing = Listing { size, timelines: BTreeMap::new(), foreign: 0 };
        self.for_each(|object, stored_bytes| listing.add(object, stored_bytes))?;
        Ok(listing)
    }

    /// The size of the server's segments, as a stored one says it; `None` when it is not there.
    ///
    /// # Errors
    /// As [`Archive::fetch`].
    pub fn segment_size(&self, segment: SegmentName) -> Result<Option<SegmentSize>> {
        let found = self.fetch(WalFileName::Segment(segment))?;
        Ok(found.and_then(|bytes| SegmentSize::new(bytes.len() as u64).ok()))
    }

    /// The history of a timeline; of the first one, that there is nothing before it. `None` when it is not stored.
    ///
    /// # Errors
    /// As [`Archive::fetch`].
    pub fn history(&self, timeline: TimelineId) -> Result<Option<TimelineHistory>> {
        if timeline == TimelineId::FIRST {
            return Ok(Some(TimelineHistory::first()));
        }
        let Some(bytes) = self.fetch(WalFileName::History(timeline))? else { return Ok(None) };
        let text = String::from_utf8_lossy(&bytes);
        let history = TimelineHistory::parse(timeline, &text).map_err(|why| {
            let message = format!("`{}` is no history: {why}", timeline.history_file_name());
            Error::new(ErrorKind::Corrupt, codes::WAL_MALFORMED, message)
        });
        history.map(Some)
    }
}

impl Listing {
    /// Puts in what another repository has of the same server.
    pub fn join(&mut self, other: Self) {
        for (timeline, more) in other.timelines {
            let own = self.timelines.entry(timeline).or_default();
            more.segments.ranges().for_each(|(first, last)| own.segments.insert_range(first, last));
            for (number, parts) in more.parts {
                own.parts.entry(number).or_default().extend(parts);
            }
            own.has_history |= more.has_history;
            own.other += more.other;
            own.stored_bytes += more.stored_bytes;
        }
        self.foreign += other.foreign;
    }

    fn add(&mut self, object: WalObject, stored_bytes: u64) {
        let size = self.size;
        let timeline = self.timelines.entry(object.timeline()).or_default();
        timeline.stored_bytes += stored_bytes;
        match object {
            WalObject::File(WalFileName::Segment(segment)) => match segment.number(size) {
                Some(number) => timeline.segments.insert(number),
                None => self.foreign += 1,
            },
            WalObject::File(WalFileName::History(_)) => timeline.has_history = true,
            WalObject::File(_) => timeline.other += 1,
            WalObject::Part(PartName { segment, from, to }) => match segment.number(size) {
                Some(number) => {
                    timeline.parts.entry(number).or_default().insert((from, to));
                }
                None => self.foreign += 1,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn ranges_are_a_set(
            numbers in prop::collection::vec((0u64..60, 0u64..4), 0..40), first in 0u64..60, length in 0u64..60,
        ) {
            let (mut ranges, mut set) = (Numbers::default(), BTreeSet::new());
            for (number, more) in numbers {
                ranges.insert_range(number, number + more);
                set.extend(number..=number + more);
            }
            let listed: Vec<u64> = ranges.ranges().flat_map(|(first, last)| first..=last).collect();
            prop_assert_eq!(&listed, &set.iter().copied().collect::<Vec<_>>());
            let touching = ranges.ranges().zip(ranges.ranges().skip(1)).any(|(a, b)| a.1 + 1 >= b.0);
            prop_assert!(!touching);
            prop_assert_eq!(ranges.count(), set.len() as u64);
            prop_assert_eq!((ranges.first(), ranges.last()), (set.first().copied(), set.last().copied()));
            let last = first + length;
            let missing: Vec<u64> = ranges.missing(first, last).into_iter().flat_map(|(a, b)| a..=b).collect();
            let expected: Vec<u64> = (first..=last).filter(|number| !set.contains(number)).collect();
            prop_assert_eq!(missing, expected);
            prop_assert!((0..70).all(|number| ranges.contains(number) == set.contains(&number)));
        }
    }

    #[test]
    fn the_ends_of_all_numbers_are_no_trap() {
        let mut numbers = Numbers::default();
        numbers.insert(u64::MAX);
        numbers.insert(0);
        numbers.insert(u64::MAX - 1);
        assert_eq!(numbers.ranges().collect::<Vec<_>>(), [(0, 0), (u64::MAX - 1, u64::MAX)]);
        assert_eq!(numbers.missing(0, u64::MAX), [(1, u64::MAX - 2)]);
        numbers.insert_range(5, 4);
        assert_eq!(numbers.count(), 3);
    }

    #[test]
    fn what_two_repositories_have_is_joined() {
        let timeline = |segments: &[u64], part: (u32, u32), has_history| {
            let mut timeline = Timeline { has_history, ..Timeline::default() };
            for number in segments {
                timeline.segments.insert(*number);
            }
            timeline.parts.insert(9, BTreeSet::from([part]));
            timeline
        };
        let listing = |timelines: Vec<(u32, Timeline)>| Listing {
            size: SegmentSize::default(),
            timelines: timelines.into_iter().map(|(id, it)| (TimelineId::new(id).unwrap(), it)).collect(),
            foreign: 1,
        };
        let mut joined = listing(vec![(1, timeline(&[1, 3], (0, 5), false))]);
        joined.join(listing(vec![(1, timeline(&[2], (5, 8), true)), (2, timeline(&[4], (0, 1), true))]));
        let first = &joined.timelines[&TimelineId::FIRST];
        assert_eq!(first.segments.ranges().collect::<Vec<_>>(), [(1, 3)]);
        assert_eq!((first.known_bytes(9), first.has_history), (8, true));
        assert_eq!((joined.timelines.len(), joined.foreign), (2, 2));
    }

    #[test]
    fn parts_are_known_up_to_the_first_gap() {
        let mut timeline = Timeline::default();
        timeline.parts.insert(7, BTreeSet::from([(0, 10), (5, 20), (20, 30), (31, 40)]));
        assert_eq!((timeline.known_bytes(7), timeline.known_bytes(8)), (30, 0));
        timeline.parts.insert(8, BTreeSet::from([(1, 9)]));
        assert_eq!(timeline.known_bytes(8), 0);
    }
}

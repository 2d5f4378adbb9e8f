//! The recoverable window beside a slow way to find it: segment by segment, along up to three timelines, with parts, with
//! what a snapshot has inside it. Too long a window promises a recovery that fails; too short a one refuses what can be done.

use super::{MIB, size, timeline};
use proptest::prelude::*;
use retoma_core::postgres::{Lsn, TimelineHistory};
use retoma_repo::wal::{Listing, Numbers, coverage};
use std::collections::{BTreeMap, BTreeSet};

/// What is stored of a timeline: whole segments, and parts as segment, begin and length in eighths.
type Stored = (BTreeSet<u64>, Vec<(u64, u32, u32)>);

const EIGHTH: u32 = 1 << 17;

fn stored() -> impl Strategy<Value = Stored> {
    let parts = prop::collection::vec((0u64..14, 0u32..8, 1u32..9), 0..8);
    (prop::collection::btree_set(0u64..14, 0..14), parts)
}

/// Where timelines 1 and 2 were left, in eighths of a segment.
fn switches() -> impl Strategy<Value = Vec<u64>> {
    prop::collection::btree_set(8u64..100, 0..3).prop_map(|all| all.into_iter().collect())
}

fn history(switches: &[u64]) -> TimelineHistory {
    let line = |(number, at): (u32, &u64)| {
        format!("{number}\t{}\tno recovery target\n", Lsn(at * u64::from(EIGHTH)))
    };
    let text: String = (1u32..).zip(switches).map(line).collect();
    match u32::try_from(switches.len()).unwrap() {
        0 => TimelineHistory::first(),
        count => TimelineHistory::parse(timeline(count + 1), &text).unwrap(),
    }
}

fn listing(all: &[Stored]) -> Listing {
    let mut timelines = BTreeMap::new();
    for (number, (segments, parts)) in (1u32..).zip(all) {
        let own: &mut retoma_repo::wal::Timeline = timelines.entry(timeline(number)).or_default();
        for segment in segments {
            own.segments.insert(*segment);
        }
        for (segment, from, length) in parts {
            let to = (from + length).min(8);
            own.parts.entry(*segment).or_default().insert((from * EIGHTH, to * EIGHTH));
        }
    }
    Listing { size: size(), timelines, foreign: 0 }
}

/// The slow way.
struct Slow<'a> {
    all: &'a [Stored],
    switches: &'a [u64],
    own: &'a BTreeSet<u64>,
    begin: u32,
}

impl Slow<'_> {
    /// The timeline on which a segment is looked for, from 1 on: the one in which a timeline was left lies on the next.
    fn timeline(&self, segment: u64) -> u32 {
        let later = (self.begin..).zip(&self.switches[self.begin as usize - 1..]);
        let left_later = later.into_iter().find(|(_, switch)| **switch / 8 > segment);
        left_later.map_or(u32::try_from(self.switches.len()).unwrap() + 1, |(timeline, _)| timeline)
    }

    /// How many bytes of a segment are there from its beginning on, eighth by eighth.
    fn known(&self, timeline: u32, segment: u64) -> u64 {
        let Some((segments, parts)) = self.all.get(timeline as usize - 1) else { return 0 };
        if segments.contains(&segment) || timeline == self.begin && self.own.contains(&segment) {
            return MIB;
        }
        let has = |eighth: u32| {
            parts.iter().any(|(of, from, length)| *of == segment && (*from..from + length).contains(&eighth))
        };
        (0..8).take_while(|eighth| has(*eighth)).count() as u64 * u64::from(EIGHTH)
    }

    fn is_whole(&self, segment: u64) -> bool {
        self.known(self.timeline(segment), segment) == MIB
    }
}

proptest! {
    #[test]
    fn the_window_and_its_gaps_are_what_the_slow_way_finds(
        all in prop::collection::vec(stored(), 3),
        switches in switches(),
        own in prop::collection::btree_set(0u64..14, 0..3),
        from in 0u64..110,
    ) {
        let from = Lsn(from * u64::from(EIGHTH) + 40);
        let history = history(&switches);
        let begin = history.timeline_at(from).get();
        let mut numbers = Numbers::default();
        for number in &own {
            numbers.insert(*number);
        }
        let found = coverage(&listing(&all), &history, from, &numbers);

        let slow = Slow { all: &all, switches: &switches, own: &own, begin };
        let first = from.0 / MIB;
        let missing = (first..=first + 20).find(|segment| !slow.is_whole(*segment)).unwrap();
        let until = missing * MIB + slow.known(slow.timeline(missing), missing);
        prop_assert_eq!(found.until, Lsn(until).max(from));
        prop_assert_eq!((found.from, found.timeline), (from, history.timeline()));

        // What comes before the last that is known to have been written, and is not there.
        let last_timeline = u32::try_from(switches.len()).unwrap() + 1;
        let (segments, parts) = &all[last_timeline as usize - 1];
        let whole = (0..14).filter(|segment| slow.timeline(*segment) == last_timeline && slow.is_whole(*segment)).max();
        let begun = parts.iter().map(|(segment, ..)| *segment).max().and_then(|segment| segment.checked_sub(1));
        let left = switches.last().map(|switch| switch / 8);
        let end = [whole, segments.last().copied(), begun, left.and_then(|left| left.checked_sub(1))].into_iter().flatten().max();
        let end = if begin == last_timeline { end.max(own.last().copied()) } else { end };
        let expected: Vec<(u32, u64)> = end
            .map(|end| (first..=end).filter(|segment| !slow.is_whole(*segment)).map(|segment| (slow.timeline(segment), segment)).collect())
            .unwrap_or_default();
        let told: Vec<(u32, u64)> = found
            .gaps
            .iter()
            .flat_map(|gap| {
                let (first, last) = (gap.first.number(size()).unwrap(), gap.last.number(size()).unwrap());
                assert_eq!((last + 1 - first, gap.first.timeline()), (gap.segments, gap.last.timeline()));
                (first..=last).map(|number| (gap.first.timeline().get(), number))
            })
            .collect();
        prop_assert_eq!(told, expected);
    }
}

//! The choice of a recovery's snapshot against a server's WAL as a row of pieces that are there or not.

use jiff::Timestamp;
use proptest::prelude::*;
use retoma_core::decide::recovery::{Candidate, Goal, Refusal, Target, Way, choose, windows};
use retoma_core::postgres::{Lsn, SegmentName, SegmentSize, TimelineId};
use std::collections::BTreeSet;

/// Positions in a piece of WAL; small, so that everything can be tried.
const PIECE: u64 = 4;
const PIECES: u64 = 12;

fn first() -> TimelineId {
    TimelineId::FIRST
}

fn at(position: u64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + i64::try_from(position).unwrap()).unwrap()
}

fn segment(number: u64) -> SegmentName {
    SegmentName::new(first(), number, SegmentSize::default()).unwrap()
}

/// One timeline: which pieces are stored, and where snapshots stopped.
#[derive(Debug, Clone)]
struct World {
    pieces: Vec<bool>,
    stops: Vec<u64>,
}

impl World {
    fn has(&self, position: u64) -> bool {
        usize::try_from(position / PIECE).ok().and_then(|at| self.pieces.get(at)).copied().unwrap_or(false)
    }

    /// Everything from `from` up to this position is there.
    fn reach(&self, from: u64) -> u64 {
        (from..=PIECE * PIECES).find(|position| !self.has(*position)).unwrap()
    }

    /// The first and last piece that are missing at `position`, before one that is there.
    fn gap_at(&self, position: u64) -> Option<(SegmentName, SegmentName)> {
        let begin = position / PIECE;
        let end = (begin..PIECES).find(|piece| self.has(piece * PIECE))?;
        Some((segment(begin), segment(end - 1)))
    }

    fn candidates(&self) -> Vec<Candidate> {
        let candidate = |stop: &u64| {
            let until = self.reach(*stop);
            let way = Way { timeline: first(), until: Lsn(until), gap: self.gap_at(until) };
            Candidate {
                timeline: first(),
                stop: Lsn(*stop),
                stopped: at(*stop),
                ended: None,
                ways: vec![way],
            }
        };
        self.stops.iter().map(candidate).collect()
    }

    /// Whether some snapshot and what follows it hold everything before `position`.
    fn leads_to(&self, position: u64) -> bool {
        self.stops.iter().any(|stop| (*stop..position).all(|it| self.has(it)) && *stop <= position)
    }
}

fn worlds() -> impl Strategy<Value = World> {
    let pieces = prop::collection::vec(prop::bool::weighted(0.75), usize::try_from(PIECES).unwrap());
    (pieces, prop::collection::vec(0..PIECE * PIECES, 0..5))
        .prop_map(|(pieces, stops)| World { pieces, stops })
}

fn goal(target: Target, inclusive: bool) -> Goal {
    Goal { target, inclusive, ..Goal::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn windows_hold_exactly_the_positions_that_a_snapshot_and_its_wal_lead_to(world in worlds()) {
        let found = windows(&world.candidates(), first());
        for position in 0..PIECE * PIECES + 2 {
            let is_in = found.iter().any(|it| (it.from.0..=it.until.0).contains(&position));
            prop_assert_eq!(is_in, world.leads_to(position), "{} in {:?}", position, found);
        }
        for pair in found.windows(2) {
            prop_assert!(pair[0].until < pair[1].from, "they neither touch nor overlap: {:?}", found);
        }
        for window in &found {
            prop_assert_eq!(window.from_time, at(window.from.0));
            prop_assert_eq!(window.gap, world.gap_at(window.until.0));
        }
    }

    #[test]
    fn a_position_is_recovered_from_the_newest_snapshot_before_it_or_refused_for_its_true_reason(
        world in worlds(), inclusive: bool,
    ) {
        let (candidates, known) = (world.candidates(), BTreeSet::from([first()]));
        for position in 0..PIECE * PIECES + 2 {
            let target = Target::Lsn(Lsn(position));
            let chosen = choose(&goal(target.clone(), inclusive), &candidates, &known, None);
            let newest_stop = world.stops.iter().filter(|stop| **stop <= position).max();
            // To replay what is at the position, that has to be there too.
            let is_held = world.leads_to(position) && (world.has(position) || !inclusive);
            match chosen {
                Ok(choice) => {
                    prop_assert!(is_held, "{position}");
                    prop_assert_eq!(Some(&candidates[choice.candidate].stop.0), newest_stop);
                    prop_assert_eq!(choice.until.0, world.reach(*newest_stop.unwrap()));
                    let is_at_end = choice.until.0 == position;
                    // A server that is told to stop where no record is would not stop.
                    let told = if is_at_end { Target::Latest } else { target };
                    prop_assert_eq!(choice.target, told);
                }
                Err(Refusal::NoSnapshot) => prop_assert!(world.stops.is_empty()),
                Err(Refusal::Before { .. }) => prop_assert!(newest_stop.is_none() && !world.stops.is_empty()),
                Err(Refusal::BehindGap { gap, until, .. }) => {
                    prop_assert!(!is_held, "{position}");
                    prop_assert_eq!(until.0, world.reach(*newest_stop.unwrap()));
                    prop_assert_eq!(Some(gap), world.gap_at(until.0));
                }
                Err(Refusal::After { until, .. }) => {
                    prop_assert!(!is_held, "{position}");
                    prop_assert_eq!(world.gap_at(until.0), None);
                }
                Err(other) => prop_assert!(false, "{other:?}"),
            }
        }
    }

    #[test]
    fn the_end_of_the_wal_is_reached_only_where_nothing_is_missing_before_it(world in worlds()) {
        let candidates = world.candidates();
        let chosen = choose(&Goal::default(), &candidates, &BTreeSet::from([first()]), None);
        let newest = world.stops.iter().max().copied();
        let gap = newest.and_then(|stop| world.gap_at(world.reach(stop)));
        match chosen {
            Ok(choice) => {
                prop_assert_eq!(Some(candidates[choice.candidate].stop.0), newest);
                prop_assert_eq!(gap, None);
            }
            Err(Refusal::NoSnapshot) => prop_assert_eq!(newest, None),
            Err(Refusal::BehindGap { gap: told, .. }) => prop_assert_eq!(Some(told), gap),
            Err(other) => prop_assert!(false, "{other:?}"),
        }
    }

    /// Where a time lies in the WAL is not known: the server finds it, from the newest snapshot that is not after it.
    #[test]
    fn a_time_takes_the_newest_snapshot_that_stopped_by_then(world in worlds(), asked in 0..PIECE * PIECES) {
        let candidates = world.candidates();
        let chosen = choose(&goal(Target::Time(at(asked)), true), &candidates, &BTreeSet::from([first()]), None);
        let newest = world.stops.iter().filter(|stop| **stop <= asked).max();
        match chosen {
            Ok(choice) => prop_assert_eq!(Some(&candidates[choice.candidate].stop.0), newest),
            Err(Refusal::NoSnapshot) => prop_assert!(world.stops.is_empty()),
            Err(Refusal::Before { windows, .. }) => {
                prop_assert_eq!(newest, None);
                prop_assert!(!windows.is_empty(), "what can be had is told");
            }
            Err(other) => prop_assert!(false, "{other:?}"),
        }
    }
}

use super::*;
use crate::error::{Error, codes};
use crate::postgres::SegmentSize;
use proptest::prelude::*;

fn id(number: u32) -> TimelineId {
    TimelineId::new(number).unwrap()
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_790_000_000 + seconds).unwrap()
}

fn gap(number: u64) -> (SegmentName, SegmentName) {
    let name = SegmentName::new(id(1), number, SegmentSize::default()).unwrap();
    (name, name)
}

/// A snapshot on timeline 1 that stopped at `stop`, as many seconds later.
fn candidate(stop: u64, ways: &[(u32, u64, bool)]) -> Candidate {
    Candidate {
        timeline: id(1),
        stop: Lsn(stop),
        stopped: at(i64::try_from(stop).unwrap()),
        ended: Some(Ended { next: stop, running: BTreeSet::from([stop - 1]) }),
        ways: ways
            .iter()
            .map(|(timeline, until, has_gap)| Way {
                timeline: id(*timeline),
                until: Lsn(*until),
                gap: has_gap.then(|| gap(7)),
            })
            .collect(),
    }
}

/// Two snapshots with a gap between them, a third behind it; after it timeline 2 begins.
fn three() -> Vec<Candidate> {
    vec![
        candidate(100, &[(1, 250, true), (2, 250, true)]),
        candidate(200, &[(1, 250, true), (2, 250, true)]),
        candidate(400, &[(1, 500, false), (2, 600, false)]),
    ]
}

fn known() -> BTreeSet<TimelineId> {
    BTreeSet::from([id(1), id(2), id(5)])
}

fn to(target: Target) -> Goal {
    Goal { target, ..Goal::default() }
}

fn chosen(goal: &Goal, located: Option<Lsn>) -> Result<(usize, u32), Refusal> {
    choose(goal, &three(), &known(), located).map(|choice| (choice.candidate, choice.timeline.get()))
}

#[test]
fn the_newest_snapshot_before_the_target_is_taken() {
    assert_eq!(chosen(&Goal::default(), None), Ok((2, 2)));
    for (lsn, expected) in [(100, 0), (199, 0), (200, 1), (249, 1), (400, 2), (599, 2)] {
        assert_eq!(chosen(&to(Target::Lsn(Lsn(lsn))), None), Ok((expected, 2)), "{lsn}");
        // A time, a transaction or a name whose place is known is a position.
        for target in [Target::Time(at(0)), Target::Transaction(1), Target::Name("x".to_owned())] {
            assert_eq!(chosen(&to(target), Some(Lsn(lsn))), Ok((expected, 2)), "{lsn}");
        }
    }
    for (seconds, expected) in [(100, 0), (399, 1), (400, 2), (9999, 2)] {
        assert_eq!(chosen(&to(Target::Time(at(seconds))), None), Ok((expected, 2)), "{seconds}");
    }
    // One that ran when the snapshot was stopped ended behind it.
    for (transaction, expected) in [(100, 0), (199, 1), (200, 1), (398, 1), (399, 2), (9999, 2)] {
        assert_eq!(chosen(&to(Target::Transaction(transaction)), None), Ok((expected, 2)), "{transaction}");
    }
    assert_eq!(chosen(&to(Target::Name("x".to_owned())), None), Ok((2, 2)));
}

#[test]
fn a_timeline_that_is_named_is_followed_or_refused() {
    let on = |timeline| Goal { timeline: Some(id(timeline)), ..Goal::default() };
    assert_eq!(chosen(&on(1), None), Ok((2, 1)));
    assert_eq!(chosen(&on(5), None), Err(Refusal::NotReached { timeline: id(5), known: known() }));
    assert_eq!(chosen(&on(9), None), Err(Refusal::UnknownTimeline { timeline: id(9), known: known() }));
    let beyond = Goal { target: Target::Lsn(Lsn(550)), ..on(1) };
    assert!(matches!(chosen(&beyond, None), Err(Refusal::After { until: Lsn(500), .. })));
}

#[test]
fn what_is_outside_of_the_window_is_refused_and_the_window_told() {
    let refused = |goal: &Goal| chosen(goal, None).unwrap_err().into_error("db");
    let texts = |error: &Error| format!("{}\n{}", error.message(), error.hint().unwrap());
    let before = refused(&to(Target::Lsn(Lsn(99))));
    assert_eq!(before.code(), codes::RECOVERY_WINDOW);
    assert_eq!(
        texts(&before),
        "position `0/63` is before anything that `db` can be recovered to\n\
         recoverable from 2026-09-21T14:15:00Z (0/64) to 0/FA (timeline 2), \
         and from 2026-09-21T14:20:00Z (0/190) to 0/258 (timeline 2)"
    );
    assert_eq!(refused(&to(Target::Time(at(99)))).code(), codes::RECOVERY_WINDOW);
    assert_eq!(refused(&to(Target::Transaction(98))).code(), codes::RECOVERY_WINDOW);
    let after = refused(&to(Target::Lsn(Lsn(600))));
    assert_eq!(after.code(), codes::RECOVERY_WINDOW);
    assert!(after.message().contains("behind the end of its WAL, `0/258`"), "{after}");
    let behind = refused(&to(Target::Lsn(Lsn(250))));
    assert_eq!(behind.code(), codes::WAL_MISSING);
    assert!(behind.message().contains("`000000010000000000000007`"), "{behind}");
    assert!(behind.hint().unwrap().contains("--lsn 0/FA --exclusive` recovers all that is before the gap"));
    assert_eq!(choose(&Goal::default(), &[], &known(), None), Err(Refusal::NoSnapshot));
}

#[test]
fn the_hint_about_a_gap_can_be_followed() {
    let goal = Goal { inclusive: false, ..to(Target::Lsn(Lsn(250))) };
    let choice = choose(&goal, &three(), &known(), None).unwrap();
    // Nothing at the end of the WAL would tell the server to stop.
    assert_eq!((choice.candidate, choice.target), (1, Target::Latest));
}

#[test]
fn the_end_of_the_wal_is_not_behind_a_gap() {
    let two = &three()[..2];
    assert!(matches!(choose(&Goal::default(), two, &known(), None), Err(Refusal::BehindGap { .. })));
    // A time may lie before it.
    let time = to(Target::Time(at(300)));
    assert_eq!(choose(&time, two, &known(), None).unwrap().gap, Some(gap(7)));
}

#[test]
fn windows_join_where_snapshots_lie_in_the_wal_of_earlier_ones() {
    let ranges = |candidates: &[Candidate], timeline| -> Vec<(u64, u64)> {
        windows(candidates, id(timeline)).iter().map(|it| (it.from.0, it.until.0)).collect()
    };
    assert_eq!(ranges(&three(), 1), [(100, 250), (400, 500)]);
    assert_eq!(ranges(&three(), 2), [(100, 250), (400, 600)]);
    assert_eq!(ranges(&three(), 9), []);
    let newer_reaches_farther = [candidate(100, &[(1, 300, true)]), candidate(300, &[(1, 400, false)])];
    assert_eq!(ranges(&newer_reaches_farther, 1), [(100, 400)]);
    assert_eq!(windows(&newer_reaches_farther, id(1))[0].gap, None);
}

#[test]
fn transactions_are_compared_within_half_a_round() {
    let ended: Ended = "5:10:5,7".parse().unwrap();
    let has: Vec<u64> = (3..13).filter(|it| ended.has(*it)).collect();
    assert_eq!(has, [3, 4, 6, 8, 9]);
    let later: Ended = format!("{0}:{0}:", (3_u64 << 32) + 5).parse().unwrap();
    assert!(later.has(4) && later.has((3 << 32) + 4) && later.has(1 << 32));
    assert!(!later.has(5) && later.has(u64::from(u32::MAX)), "the last one of the round before");
    for wrong in ["", "1", "1:2", "1:x:", "x:1:", "1:2:x", "-1:2:"] {
        assert!(wrong.parse::<Ended>().is_err(), "{wrong}");
    }
}

proptest! {
    /// Whatever is asked for: what is chosen leads there, holds nothing that comes later, and nothing newer would do.
    #[test]
    fn what_is_chosen_leads_to_the_target(
        snapshots in prop::collection::vec((1u64..100, 0u64..60, any::<bool>()), 0..8), lsn in 0u64..160, inclusive: bool,
    ) {
        let candidates: Vec<Candidate> =
            snapshots.iter().map(|(stop, more, gap)| candidate(*stop, &[(1, stop + more, *gap)])).collect();
        let goal = Goal { target: Target::Lsn(Lsn(lsn)), inclusive, timeline: None };
        let leads = |it: &Candidate| {
            let until = it.ways[0].until.0;
            it.stop.0 <= lsn && (lsn < until || (!inclusive && lsn == until))
        };
        match choose(&goal, &candidates, &known(), None) {
            Ok(choice) => {
                let taken = &candidates[choice.candidate];
                prop_assert!(leads(taken));
                prop_assert!(candidates.iter().all(|it| !leads(it) || it.stop <= taken.stop));
            }
            // Only the newest before the target is tried: with the archive of one server, none before it reaches farther.
            Err(Refusal::Before { .. }) => prop_assert!(candidates.iter().all(|it| it.stop.0 > lsn)),
            Err(Refusal::NoSnapshot) => prop_assert!(candidates.is_empty()),
            Err(_) => {
                let newest = candidates.iter().filter(|it| it.stop.0 <= lsn).max_by_key(|it| (it.stop, it.ways[0].until));
                prop_assert!(!leads(newest.unwrap()));
            }
        }
    }

    #[test]
    fn any_text_is_read_or_refused(text in "[0-9:,]{0,20}|.{0,20}") {
        if let Ok(ended) = text.parse::<Ended>() {
            prop_assert!(!ended.has(ended.next));
        }
    }
}

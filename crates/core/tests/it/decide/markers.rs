use proptest::prelude::*;
use retoma_core::decide::drill::{Mark, MarkSet, rpo_from_markers};
use retoma_core::drill::Seconds;
use std::collections::BTreeSet;
use std::time::Duration;

/// Mark `n`, acknowledged at second `n`.
fn mark(number: u64) -> Mark {
    Mark { number, acknowledged_at: Duration::from_secs(number) }
}

fn ranges(set: &MarkSet) -> Vec<(u64, u64)> {
    set.ranges().map(std::ops::RangeInclusive::into_inner).collect()
}

/// Every set of survivors of up to 7 marks, written out by hand as a bit set.
#[test]
fn all_losses_of_up_to_seven_marks() {
    for count in 0..=7u64 {
        let marks: Vec<Mark> = (1..=count).map(mark).collect();
        for survivors in 0u64..1 << count {
            let survives = |number: u64| survivors >> (number - 1) & 1 == 1;
            let survived: MarkSet = (1..=count).filter(|number| survives(*number)).collect();
            let found = rpo_from_markers(&marks, &survived, Duration::from_secs(10));
            let lost: Vec<u64> = (1..=count).filter(|number| !survives(*number)).collect();
            assert_eq!(found.markers_written, count);
            assert_eq!(found.markers_lost, lost.len() as u64);
            let expected = match (count, lost.first()) {
                (0, _) => None,
                (_, None) => Some(0),
                (_, Some(oldest)) => Some(10 - oldest),
            };
            assert_eq!(found.measured_seconds, expected.map(Seconds::from_secs), "{count} {survivors:b}");
            for number in 1..=count {
                assert_eq!(found.lost.contains(number), !survives(number));
                let in_the_middle = !survives(number) && (number + 1..=count).any(survives);
                assert_eq!(found.gaps.contains(number), in_the_middle, "{count} {survivors:b} {number}");
            }
        }
    }
}

#[test]
fn a_hole_in_the_middle_is_listed_and_counts_from_its_first_mark() {
    let marks: Vec<Mark> = (1..=100).map(mark).collect();
    let survived = MarkSet::from_ranges([1..=39, 43..=90]);
    let found = rpo_from_markers(&marks, &survived, Duration::from_secs(101));
    assert_eq!(found.measured_seconds, Some(Seconds::from_secs(61)));
    assert_eq!(ranges(&found.gaps), [(40, 42)]);
    assert_eq!(ranges(&found.lost), [(40, 42), (91, 100)]);
    assert_eq!(found.markers_lost, 13);
}

#[test]
fn what_was_never_acknowledged_counts_for_nothing() {
    let found = rpo_from_markers(&[mark(1)], &MarkSet::from_ranges([1..=1_000]), Duration::from_secs(9));
    assert_eq!((found.markers_written, found.markers_lost), (1, 0));
    assert!(found.lost.is_empty());
}

#[test]
fn a_number_that_comes_twice_counts_once_with_its_earlier_time() {
    let again = Mark { number: 1, acknowledged_at: Duration::from_secs(8) };
    let found = rpo_from_markers(&[again, mark(1)], &MarkSet::default(), Duration::from_secs(9));
    assert_eq!((found.markers_written, found.markers_lost), (1, 1));
    assert_eq!(found.measured_seconds, Some(Seconds::from_secs(8)));
}

#[test]
fn a_mark_after_the_disaster_is_lost_without_time() {
    let found = rpo_from_markers(&[mark(12)], &MarkSet::default(), Duration::from_secs(9));
    assert_eq!((found.markers_lost, found.measured_seconds), (1, Some(Seconds::ZERO)));
}

proptest! {
    #[test]
    fn a_mark_set_holds_what_its_ranges_hold(
        input in proptest::collection::vec((0u64..60, 0u64..12), 0..12),
    ) {
        let set = MarkSet::from_ranges(input.iter().map(|(start, length)| *start..=start + length));
        let plain: BTreeSet<u64> =
            input.iter().flat_map(|(start, length)| *start..=start + length).collect();
        for number in 0..80 {
            prop_assert_eq!(set.contains(number), plain.contains(&number));
        }
        let ranges = ranges(&set);
        prop_assert!(ranges.windows(2).all(|pair| pair[0].1 + 1 < pair[1].0));
        prop_assert_eq!(set, plain.into_iter().collect::<MarkSet>());
    }
}

#[test]
fn the_ends_of_the_numbers_are_safe() {
    let set = MarkSet::from_ranges([u64::MAX - 1..=u64::MAX, u64::MAX..=u64::MAX, 0..=0]);
    assert!(set.contains(u64::MAX) && set.contains(0) && !set.contains(1));
    #[allow(clippy::reversed_empty_ranges)]
    let reversed = MarkSet::from_ranges([5..=4]);
    assert!(reversed.is_empty());
}

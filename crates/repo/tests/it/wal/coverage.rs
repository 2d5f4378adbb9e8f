//! Gaps and windows, along timelines.

use super::{MIB, archive, file, name, segment, size, timeline};
use proptest::prelude::*;
use retoma_core::postgres::{Lsn, TimelineHistory, WalFileName};
use retoma_repo::wal::{Archive, Coverage, Listing, Numbers, coverage, ways};
use std::collections::{BTreeMap, BTreeSet};

/// An archive with these segments, as timeline and number.
fn filled(segments: &[(u32, u64)]) -> Archive {
    let (_, archive) = archive();
    for (on, number) in segments {
        archive.push(file(*on, *number), &segment(*on, *number)).unwrap();
    }
    archive
}

fn look(archive: &Archive, history: &TimelineHistory, from: u64) -> Coverage {
    coverage(&archive.list(size()).unwrap(), history, Lsn(from), &Numbers::default())
}

/// Names and numbers of what is missing.
fn gaps(coverage: &Coverage) -> Vec<String> {
    coverage.gaps.iter().map(|gap| format!("{}-{} {}", gap.first, gap.last, gap.segments)).collect()
}

#[test]
fn a_gap_is_named_and_ends_the_window() {
    let archive = filled(&[(1, 3), (1, 4), (1, 7), (1, 8), (1, 10)]);
    let found = look(&archive, &TimelineHistory::first(), 3 * MIB + 40);
    assert_eq!(
        gaps(&found),
        [
            "000000010000000000000005-000000010000000000000006 2",
            "000000010000000000000009-000000010000000000000009 1"
        ]
    );
    assert_eq!(found.until, Lsn(5 * MIB));
    let found = look(&archive, &TimelineHistory::first(), 10 * MIB);
    assert_eq!((gaps(&found).len(), found.until), (0, Lsn(11 * MIB)));
    // Before the first one there is: missing too.
    let found = look(&archive, &TimelineHistory::first(), MIB + 5);
    assert_eq!((gaps(&found).len(), found.until), (3, Lsn(MIB + 5)));
    // Behind the last one nobody knows.
    let found = look(&archive, &TimelineHistory::first(), 20 * MIB + 5);
    assert_eq!((gaps(&found).len(), found.until), (0, Lsn(20 * MIB + 5)));
}

#[test]
fn what_the_snapshot_has_inside_it_is_not_missing() {
    let archive = filled(&[(1, 5), (1, 6)]);
    let mut own = Numbers::default();
    own.insert_range(3, 4);
    let listing = archive.list(size()).unwrap();
    let found = coverage(&listing, &TimelineHistory::first(), Lsn(3 * MIB + 40), &own);
    assert_eq!((gaps(&found).len(), found.until), (0, Lsn(7 * MIB)));
}

#[test]
fn parts_carry_the_window_into_the_unfinished_segment() {
    let archive = filled(&[(1, 3)]);
    let whole = segment(1, 4);
    archive.push_part(name(1, 4), size(), 0, &whole[..700]).unwrap();
    archive.push_part(name(1, 4), size(), 600, &whole[600..900]).unwrap();
    let found = look(&archive, &TimelineHistory::first(), 3 * MIB);
    assert_eq!((gaps(&found).len(), found.until), (0, Lsn(4 * MIB + 900)));
    archive.push_part(name(1, 6), size(), 0, &segment(1, 6)[..10]).unwrap();
    let found = look(&archive, &TimelineHistory::first(), 3 * MIB);
    assert_eq!(gaps(&found), ["000000010000000000000004-000000010000000000000005 2"]);
    assert_eq!(found.until, Lsn(4 * MIB + 900));
    // Parts that make a whole are one.
    archive.push_part(name(1, 4), size(), 900, &whole[900..]).unwrap();
    assert_eq!(look(&archive, &TimelineHistory::first(), 3 * MIB).until, Lsn(5 * MIB));
}

#[test]
fn a_way_leads_along_the_timelines() {
    // Left in the middle of segment 5: its beginning is in 5 of timeline 2 as well.
    let archive = filled(&[(1, 3), (1, 4), (2, 5), (2, 6), (1, 5), (1, 6), (1, 9)]);
    let text = format!("1\t{}\tpromoted\n", Lsn(5 * MIB + 300));
    archive.push(WalFileName::History(timeline(2)), text.as_bytes()).unwrap();
    let second = archive.history(timeline(2)).unwrap().unwrap();
    let found = look(&archive, &second, 3 * MIB);
    assert_eq!((gaps(&found).len(), found.until, found.timeline), (0, Lsn(7 * MIB), timeline(2)));
    assert_eq!(look(&archive, &TimelineHistory::first(), 3 * MIB).until, Lsn(7 * MIB));
    assert_eq!(
        gaps(&look(&archive, &TimelineHistory::first(), 3 * MIB)),
        ["000000010000000000000007-000000010000000000000008 2"]
    );
    // Without segment 4 both ways end there.
    let poorer = filled(&[(1, 3), (2, 5)]);
    let found = look(&poorer, &second, 3 * MIB);
    assert_eq!(gaps(&found), ["000000010000000000000004-000000010000000000000004 1"]);
    assert_eq!(found.until, Lsn(4 * MIB));
    // A snapshot of timeline 1 behind the fork is not on the way to timeline 2.
    let histories = BTreeMap::from([(timeline(1), TimelineHistory::first()), (timeline(2), second)]);
    let reached = |from| {
        ways(&histories, timeline(1), Lsn(from))
            .iter()
            .map(|history| history.timeline().get())
            .collect::<Vec<_>>()
    };
    assert_eq!((reached(4 * MIB), reached(6 * MIB)), (vec![1, 2], vec![1]));
    assert_eq!(archive.history(timeline(3)).unwrap(), None);
}

#[test]
fn a_timeline_that_was_left_at_a_boundary_needs_its_last_segment() {
    let second = TimelineHistory::parse(timeline(2), &format!("1\t{}\tx\n", Lsn(5 * MIB))).unwrap();
    assert_eq!(look(&filled(&[(1, 3), (1, 4), (2, 5)]), &second, 3 * MIB).until, Lsn(6 * MIB));
    assert_eq!(look(&filled(&[(1, 3), (2, 5)]), &second, 3 * MIB).until, Lsn(4 * MIB));
}

#[test]
fn a_listing_counts_what_is_there() {
    let archive = filled(&[(1, 3), (1, 4), (2, 5)]);
    archive.push(WalFileName::Partial(name(1, 5)), &segment(1, 5)).unwrap();
    archive.push(WalFileName::History(timeline(2)), b"1\t0/500100\tx\n").unwrap();
    let listing = archive.list(size()).unwrap();
    let one = &listing.timelines[&timeline(1)];
    let two = &listing.timelines[&timeline(2)];
    assert_eq!((one.segments.count(), one.other, one.has_history), (2, 1, false));
    assert_eq!((two.segments.count(), two.other, two.has_history), (1, 0, true));
    assert!(one.stored_bytes > 2 * MIB / 3 && listing.foreign == 0);
}

proptest! {
    #[test]
    fn the_window_ends_at_the_first_number_that_is_missing(numbers: BTreeSet<u8>, from: u8) {
        let mut listing = Listing { size: size(), timelines: BTreeMap::new(), foreign: 0 };
        let stored = listing.timelines.entry(timeline(1)).or_default();
        for number in &numbers {
            stored.segments.insert(u64::from(*number));
        }
        let found = coverage(&listing, &TimelineHistory::first(), Lsn(u64::from(from) * MIB), &Numbers::default());
        let until = (from..=255).find(|number| !numbers.contains(number)).map_or(256, u64::from);
        prop_assert_eq!(found.until, Lsn(until * MIB));
        let missing: u64 = found.gaps.iter().map(|gap| gap.segments).sum();
        let last = numbers.last().copied().unwrap_or(0);
        let expected = (u16::from(from)..=u16::from(last)).filter(|n| !numbers.contains(&u8::try_from(*n).unwrap())).count();
        let expected = if numbers.is_empty() { 0 } else { expected };
        prop_assert_eq!(missing, expected as u64);
    }
}

use super::*;
use retoma_core::Secret;
use retoma_core::postgres::{SegmentName, WalFileName};
use retoma_repo::store::{BlockingStore, ObjectStore};
use retoma_testkit::wal::{name, size, timeline};
use std::sync::Arc;

const MIB: u64 = 1 << 20;

fn repository() -> Repository {
    let store = BlockingStore::new(Arc::new(ObjectStore::memory())).unwrap();
    Repository::init(store, &Secret::new("correct horse".to_owned())).unwrap()
}

fn archive_in(repository: &Repository, component: &str, server: u64, segments: &[(u32, u64)]) -> Archive {
    let archive = Archive::new(repository, component, server).unwrap();
    for (on, number) in segments {
        let name = name(*on, *number);
        let bytes = retoma_testkit::wal::segment(&name.to_string(), server, *number);
        archive.push(WalFileName::Segment(name), &bytes).unwrap();
    }
    archive
}

/// The archive of server 77 with these segments, in a repository of its own.
fn archive(segments: &[(u32, u64)]) -> Archive {
    archive_in(&repository(), "db", 77, segments)
}

/// A snapshot on a timeline that needs WAL from `start` on and is consistent at `stop`.
fn snapshot(on: u32, start: u64, stop: u64) -> WalFacts {
    WalFacts {
        id: SnapshotId([u8::try_from(start / MIB).unwrap(); 32]),
        component: "db".to_owned(),
        time: Time(Timestamp::from_second(1_800_000_000).unwrap()),
        system_identifier: 77,
        size: size(),
        timeline: timeline(on),
        start: Lsn(start),
        stop: Lsn(stop),
        stopped: Timestamp::from_second(1_800_000_000).unwrap(),
        ended: None,
        tablespaces: Vec::new(),
        is_complete: true,
    }
}

fn seen(archives: &[Archive], snapshots: &[WalFacts]) -> ServerWal {
    let facts: Vec<&WalFacts> = snapshots.iter().collect();
    look(archives, size(), &facts).unwrap().unwrap()
}

/// The first and last missing segment of each gap, with their timeline.
fn gaps(wal: &ServerWal) -> Vec<(u32, u64, u64)> {
    let number = |name: SegmentName| name.number(size()).unwrap();
    wal.gaps.iter().map(|gap| (gap.first.timeline().get(), number(gap.first), number(gap.last))).collect()
}

/// Until where each way of each snapshot leads, in MiB.
fn reached(wal: &ServerWal) -> Vec<Vec<(u32, u64)>> {
    let way = |way: &Coverage| (way.timeline.get(), way.until.0 / MIB);
    wal.snapshots.iter().map(|snapshot| snapshot.ways.iter().map(way).collect()).collect()
}

#[test]
fn without_an_archive_nothing_is_known_and_nothing_is_said() {
    assert_eq!(look(&[], size(), &[&snapshot(1, MIB, 2 * MIB)]).unwrap(), None);
}

#[test]
fn a_snapshot_is_carried_as_far_as_segments_follow_it_without_a_gap() {
    let snapshots = [snapshot(1, 3 * MIB + 40, 4 * MIB - 10)];
    let whole = seen(&[archive(&[(1, 3), (1, 4), (1, 5)])], &snapshots);
    assert_eq!((gaps(&whole), reached(&whole)), (vec![], vec![vec![(1, 6)]]));
    assert!(whole.is_whole());
    // Those that it has inside it need not be in the archive …
    let inside = seen(&[archive(&[(1, 4), (1, 5)])], &snapshots);
    assert_eq!((gaps(&inside), reached(&inside)), (vec![], vec![vec![(1, 6)]]));
    // … and what lies before it is nobody's need.
    let older = seen(&[archive(&[(1, 0), (1, 2), (1, 4)])], &snapshots);
    assert_eq!((gaps(&older), reached(&older)), (vec![], vec![vec![(1, 5)]]));
    let gap = seen(&[archive(&[(1, 3), (1, 4), (1, 7), (1, 9)])], &snapshots);
    assert_eq!((gaps(&gap), reached(&gap)), (vec![(1, 5, 6), (1, 8, 8)], vec![vec![(1, 5)]]));
    assert!(!gap.is_whole());
}

#[test]
fn with_nothing_behind_it_a_snapshot_leads_to_the_end_of_the_segment_in_which_it_stopped() {
    let wal = seen(&[archive(&[])], &[snapshot(1, 3 * MIB, 5 * MIB + 7)]);
    assert_eq!(wal.windows().len(), 1);
    assert_eq!((wal.windows()[0].from, wal.windows()[0].until), (Lsn(5 * MIB + 7), Lsn(6 * MIB)));
    // One that ended with a segment has nothing of the next one.
    let wal = seen(&[archive(&[])], &[snapshot(1, 3 * MIB, 5 * MIB)]);
    assert_eq!((wal.windows()[0].from, wal.windows()[0].until), (Lsn(5 * MIB), Lsn(5 * MIB)));
}

#[test]
fn what_one_archive_lacks_another_may_have() {
    let snapshots = [snapshot(1, 3 * MIB, 4 * MIB)];
    let (one, other) = (archive(&[(1, 4), (1, 6)]), archive(&[(1, 5), (1, 7)]));
    assert_eq!(gaps(&seen(std::slice::from_ref(&one), &snapshots)), [(1, 5, 5)]);
    let both = seen(&[one, other], &snapshots);
    assert_eq!((gaps(&both), reached(&both)), (vec![], vec![vec![(1, 8)]]));
}

#[test]
fn an_incomplete_snapshot_is_told_and_no_recovery_begins_with_it() {
    let incomplete = WalFacts { is_complete: false, ..snapshot(1, 5 * MIB, 6 * MIB) };
    let wal =
        seen(&[archive(&[(1, 3), (1, 4), (1, 5), (1, 6)])], &[snapshot(1, 3 * MIB, 4 * MIB), incomplete]);
    assert_eq!(wal.snapshots.len(), 2);
    let stops: Vec<_> = wal.candidates().iter().map(|candidate| candidate.stop.0 / MIB).collect();
    assert_eq!(stops, [4]);
    assert_eq!(wal.windows()[0].from, Lsn(4 * MIB));
    let alone =
        seen(&[archive(&[(1, 5)])], &[WalFacts { is_complete: false, ..snapshot(1, 5 * MIB, 6 * MIB) }]);
    assert_eq!((alone.candidates(), alone.windows()), (vec![], vec![]));
}

#[test]
fn a_timeline_is_reached_by_its_history_alone() {
    let history = |archive: &Archive, on: u32, text: &str| {
        archive.push(WalFileName::History(timeline(on)), text.as_bytes()).unwrap();
    };
    let snapshots = [snapshot(1, 3 * MIB, 4 * MIB), snapshot(2, 7 * MIB, 8 * MIB)];
    let segments = [(1, 3), (1, 4), (1, 5), (2, 5), (2, 6), (2, 7), (2, 8)];
    let archive = archive(&segments);
    let without = seen(std::slice::from_ref(&archive), &snapshots);
    assert_eq!(without.without_history, [timeline(2)]);
    assert_eq!(reached(&without), [vec![(1, 6)], vec![(2, 9)]], "the backup on it stays on it");
    assert!(!without.is_whole());
    history(&archive, 2, "1\t0/580000\tx\n");
    let with = seen(&[archive], &snapshots);
    assert_eq!(with.without_history, []);
    assert_eq!(reached(&with), [vec![(1, 6), (2, 9)], vec![(2, 9)]]);
    assert!(with.is_whole());
    let until: Vec<_> = with.windows().iter().map(|it| (it.from.0 / MIB, it.until.0 / MIB)).collect();
    assert_eq!(until, [(4, 9)], "the two are one stretch on timeline 2");
}

#[test]
fn without_a_snapshot_gaps_count_from_the_oldest_segment_on() {
    let wal = seen(&[archive(&[(1, 3), (1, 5), (1, 8)])], &[]);
    assert_eq!(gaps(&wal), [(1, 4, 4), (1, 6, 7)]);
    assert!(wal.snapshots.is_empty() && wal.windows().is_empty());
    assert!(seen(&[archive(&[])], &[]).is_whole());
}

#[test]
fn every_server_of_every_component_is_looked_at_by_itself() {
    let repository = repository();
    archive_in(&repository, "db", 77, &[(1, 3), (1, 5)]);
    archive_in(&repository, "db", 78, &[(1, 9)]);
    archive_in(&repository, "other", 77, &[(1, 1), (1, 2)]);
    let found = |component| {
        let found = check(&repository, component).unwrap();
        let one = |it: &ServerWal| (it.component.clone(), it.system_identifier, it.gaps.len());
        found.iter().map(one).collect::<Vec<_>>()
    };
    let expected = |all: &[(&str, u64, usize)]| {
        all.iter().map(|(name, server, gaps)| ((*name).to_owned(), *server, *gaps)).collect::<Vec<_>>()
    };
    assert_eq!(found(None), expected(&[("db", 77, 1), ("db", 78, 0), ("other", 77, 0)]));
    assert_eq!(found(Some("db")), expected(&[("db", 77, 1), ("db", 78, 0)]));
    assert_eq!(found(Some("absent")), []);
    // The size of its segments is what the first one says.
    let sizes = check(&repository, Some("db")).unwrap();
    assert!(sizes.iter().all(|server| server.listing.size == size()));
}

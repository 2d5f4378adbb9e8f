//! What goes in comes out, under its own name alone.

use super::{
    MIB, SERVER, archive, archive_in, fetch_in_parts, file, name, repository_in, segment, size, timeline,
};
use proptest::prelude::*;
use retoma_core::ErrorKind;
use retoma_core::error::codes;
use retoma_core::postgres::{SegmentName, SegmentSize, WalFileName};
use retoma_repo::store::ObjectStore;
use retoma_repo::wal::{Archive, Pushed, WalObject, servers};
use retoma_testkit::wal::segment_of;
use std::sync::{Arc, Barrier};

#[test]
fn every_kind_of_file_comes_back_byte_for_byte() {
    let (_, archive) = archive();
    let history = WalFileName::History(timeline(2));
    let backup = WalFileName::Backup { segment: name(1, 7), offset: 0x28 };
    let files = [
        (file(1, 7), segment(1, 7)),
        (WalFileName::Partial(name(1, 8)), segment(1, 8)),
        (history, b"1\t0/800000\tno recovery target specified\n".to_vec()),
        (backup, b"START WAL LOCATION: 0/700028\n".to_vec()),
    ];
    for (name, bytes) in &files {
        assert_eq!(archive.fetch(*name).unwrap(), None);
        assert_eq!(fetch_in_parts(&archive, *name, 2).unwrap(), None);
        assert_eq!(archive.push(*name, bytes).unwrap(), Pushed::New);
        assert_eq!(archive.push(*name, bytes).unwrap(), Pushed::Same);
    }
    for (name, bytes) in &files {
        assert_eq!(archive.fetch(*name).unwrap().as_ref(), Some(bytes), "{name}");
        assert_eq!(fetch_in_parts(&archive, *name, 2).unwrap().as_ref(), Some(bytes), "{name}");
    }
    let mut listed = Vec::new();
    archive.for_each(|object, _| listed.push(object)).unwrap();
    assert_eq!(listed.len(), files.len());
    assert!(files.iter().all(|(name, _)| listed.contains(&WalObject::File(*name))));
}

#[test]
fn other_contents_are_a_conflict_and_change_nothing() {
    let (_, archive) = archive();
    archive.push(file(1, 7), &segment(1, 7)).unwrap();
    let mut other = segment(1, 7);
    *other.last_mut().unwrap() ^= 1;
    let error = archive.push(file(1, 7), &other).unwrap_err();
    assert_eq!((error.code(), error.kind()), (codes::WAL_CONFLICT, ErrorKind::Conflict));
    assert!(error.to_string().contains("000000010000000000000007"), "{error}");
    assert_eq!(archive.fetch(file(1, 7)).unwrap(), Some(segment(1, 7)));
}

#[test]
fn what_is_not_what_its_name_says_is_not_stored() {
    let (_, archive) = archive();
    let foreign = retoma_testkit::wal::segment(&name(1, 7).to_string(), SERVER + 1, 7);
    let refused = [
        (file(1, 8), segment(1, 7)),
        (file(1, 7), segment(2, 7)),
        (file(1, 7), foreign),
        (file(1, 7), segment(1, 7)[1..].to_vec()),
        (file(1, 7), Vec::new()),
        (WalFileName::Partial(name(1, 8)), segment(1, 7)),
        (WalFileName::History(timeline(2)), b"2\t0/1\tx\n".to_vec()),
        (WalFileName::History(timeline(2)), vec![0xFF]),
    ];
    for (name, bytes) in refused {
        assert_eq!(archive.push(name, &bytes).unwrap_err().code(), codes::WAL_MALFORMED, "{name}");
        assert_eq!(archive.fetch(name).unwrap(), None, "{name}");
    }
}

/// Segments as PostgreSQL has them are several frames.
#[test]
fn a_segment_of_16_mib_comes_back_in_parts_whoever_packed_it() {
    let (_, archive) = archive();
    let size = SegmentSize::new(16 * MIB).unwrap();
    for (pushing, on) in [(1, 1), (4, 2)] {
        let name = SegmentName::new(timeline(on), 3, size).unwrap();
        let bytes = segment_of(&name.to_string(), size, SERVER, 3);
        archive.push_on(pushing, WalFileName::Segment(name), &bytes).unwrap();
        for fetching in [1, 3] {
            let found = fetch_in_parts(&archive, WalFileName::Segment(name), fetching).unwrap();
            assert!(found.unwrap() == bytes, "{pushing} {fetching}");
        }
    }
}

#[test]
fn servers_do_not_see_each_other() {
    let repository = repository_in(Arc::new(ObjectStore::memory()));
    let one = Archive::new(&repository, "db", SERVER).unwrap();
    one.push(file(1, 9), &segment(1, 9)).unwrap();
    one.push(file(1, 7), &segment(1, 7)).unwrap();
    for other in [Archive::new(&repository, "db", SERVER + 1), Archive::new(&repository, "db2", SERVER)] {
        let other = other.unwrap();
        assert_eq!(other.fetch(file(1, 7)).unwrap(), None);
        assert!(other.list(size()).unwrap().timelines.is_empty());
    }
    let found = servers(&repository).unwrap();
    assert_eq!(found.len(), 1);
    assert_eq!(
        (found[0].component.as_str(), found[0].system_identifier, found[0].first_segment),
        ("db", SERVER, Some(name(1, 7)))
    );
    assert_eq!(one.segment_size(name(1, 7)).unwrap(), Some(size()));
    assert!(Archive::new(&repository, "a/b", SERVER).is_err());
}

#[test]
fn of_two_that_push_at_once_one_stores_and_the_other_agrees_or_is_refused() {
    for is_same in [true, false] {
        let store = Arc::new(ObjectStore::memory());
        let archives = [archive_in(store.clone()), archive_in(store)];
        let mut contents = [segment(1, 7), segment(1, 7)];
        if !is_same {
            contents[1][100_000] ^= 1;
        }
        let barrier = Barrier::new(2);
        let results: Vec<_> = std::thread::scope(|scope| {
            let push = |at: usize| {
                let (archive, bytes, barrier) = (&archives[at], &contents[at], &barrier);
                scope.spawn(move || {
                    barrier.wait();
                    archive.push(file(1, 7), bytes)
                })
            };
            [push(0), push(1)].map(|thread| thread.join().unwrap()).into()
        });
        let winner = results.iter().position(|result| matches!(result, Ok(Pushed::New))).unwrap();
        match &results[1 - winner] {
            Ok(pushed) => assert!(is_same && *pushed == Pushed::Same),
            Err(error) => assert!(!is_same && error.code() == codes::WAL_CONFLICT, "{error}"),
        }
        assert_eq!(archives[0].fetch(file(1, 7)).unwrap().as_ref(), Some(&contents[winner]));
    }
}

#[test]
fn parts_are_joined_up_to_the_first_gap() {
    let (_, archive) = archive();
    let whole = segment(1, 7);
    let put = |from: usize, to: usize| {
        archive.push_part(name(1, 7), size(), u32::try_from(from).unwrap(), &whole[from..to]).unwrap()
    };
    let known = || {
        let assembled = archive.assemble(name(1, 7)).unwrap()?;
        assert_eq!(assembled.bytes[..assembled.known_bytes], whole[..assembled.known_bytes]);
        assert!(assembled.bytes[assembled.known_bytes..].iter().all(|byte| *byte == 0));
        assert_eq!(assembled.bytes.len(), whole.len());
        Some(assembled.known_bytes)
    };
    assert_eq!(known(), None);
    put(30, 100);
    assert_eq!(known(), None, "the beginning is missing");
    put(0, 30);
    assert_eq!(known(), Some(100), "the header comes in two parts");
    put(50, 80);
    put(90, 5_000);
    assert_eq!(known(), Some(5_000));
    put(5_001, whole.len());
    assert_eq!(known(), Some(5_000));
    assert_eq!(put(4_999, 5_002), Pushed::New);
    assert_eq!(put(4_999, 5_002), Pushed::Same);
    assert_eq!(known(), Some(whole.len()));
    assert_eq!(archive.fetch(file(1, 7)).unwrap(), None);
    assert_eq!(archive.fetch_or_assemble(file(1, 7)).unwrap(), Some(whole));
    assert_eq!(archive.fetch_or_assemble(file(1, 8)).unwrap(), None);
}

#[test]
fn parts_that_are_none_are_refused() {
    let (_, archive) = archive();
    let whole = segment(1, 7);
    let push = |from, bytes: &[u8]| archive.push_part(name(1, 7), size(), from, bytes);
    let beyond = u32::try_from(MIB).unwrap() - 1;
    for (from, bytes) in
        [(0, &whole[..0]), (beyond, &whole[..2]), (u32::MAX, &whole[..2]), (0, &whole[1..90])]
    {
        assert_eq!(push(from, bytes).unwrap_err().code(), codes::WAL_MALFORMED);
    }
    push(0, &whole[..100]).unwrap();
    assert_eq!(push(0, &[&whole[..99], b"!"].concat()).unwrap_err().code(), codes::WAL_CONFLICT);
    // Another server's view of the same bytes.
    let mut other = whole[50..200].to_vec();
    other[10] ^= 1;
    push(50, &other).unwrap();
    let error = archive.assemble(name(1, 7)).unwrap_err();
    assert_eq!(error.code(), codes::WAL_MALFORMED);
    assert!(error.to_string().contains("00000032-000000C8"), "{error}");
}

#[test]
fn a_part_that_is_longer_than_the_segment_says_is_found() {
    let (_, archive) = archive();
    let large = SegmentSize::new(2 * MIB).unwrap();
    archive.push_part(name(1, 7), size(), 0, &segment(1, 7)).unwrap();
    let end = u32::try_from(MIB).unwrap();
    archive.push_part(name(1, 7), large, end, b"more").unwrap();
    assert_eq!(archive.assemble(name(1, 7)).unwrap_err().code(), codes::WAL_MALFORMED);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn parts_in_any_order_give_what_joins(cuts in prop::collection::vec((0usize..4_000, 1usize..1_500), 0..12)) {
        let (_, archive) = archive();
        let whole = segment(1, 7);
        for (from, length) in &cuts {
            archive
                .push_part(name(1, 7), size(), u32::try_from(*from).unwrap(), &whole[*from..from + length])
                .unwrap();
        }
        let mut known = 0;
        while let Some(to) = cuts.iter().filter(|(from, _)| *from <= known).map(|(from, length)| from + length).max()
            && to > known
        {
            known = to;
        }
        match archive.assemble(name(1, 7)).unwrap() {
            None => prop_assert!(known < 40),
            Some(assembled) => {
                prop_assert_eq!(assembled.known_bytes, known);
                prop_assert_eq!(&assembled.bytes[..known], &whole[..known]);
            }
        }
    }
}

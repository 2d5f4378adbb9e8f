//! Where streaming goes on.

use super::{MIB, archive, file, name, segment, size, timeline};
use retoma_core::error::codes;
use retoma_core::postgres::{Lsn, WalFileName};
use retoma_repo::wal::{Archive, ArchiveEnd, Pushed};

fn part(archive: &Archive, on: u32, number: u64, from: usize, to: usize) {
    let bytes = segment(on, number);
    archive.push_part(name(on, number), size(), from.try_into().unwrap(), &bytes[from..to]).unwrap();
}

fn end(on: u32, whole: u64, joined: u64) -> ArchiveEnd {
    ArchiveEnd { timeline: timeline(on), whole: Lsn(whole * MIB), joined: Lsn(joined) }
}

#[test]
fn an_archive_ends_where_whole_segments_and_parts_no_longer_join() {
    const SIZE: usize = 1 << 20;
    let (_, archive) = archive();
    let now = || archive.end(size()).unwrap();
    assert_eq!(now(), None);
    // Histories and partial segments are no WAL that goes on.
    archive.push(WalFileName::History(timeline(9)), b"1\t0/1\tx\n").unwrap();
    assert_eq!(now(), None);
    part(&archive, 1, 7, 0, 9000);
    assert_eq!(now(), Some(end(1, 7, 7 * MIB + 9000)));
    archive.push(file(1, 5), &segment(1, 5)).unwrap();
    assert_eq!(now(), Some(end(1, 6, 6 * MIB)), "a gap ends it");
    archive.push(file(1, 6), &segment(1, 6)).unwrap();
    part(&archive, 1, 7, 8000, 20_000);
    part(&archive, 1, 7, 20_001, 30_000);
    assert_eq!(now(), Some(end(1, 7, 7 * MIB + 20_000)));
    part(&archive, 1, 7, 20_000, SIZE);
    assert_eq!(now(), Some(end(1, 7, 8 * MIB)), "parts make a segment full, and not whole");
    part(&archive, 1, 8, 0, 10);
    assert_eq!(now(), Some(end(1, 7, 8 * MIB + 10)));
    part(&archive, 2, 8, 0, 16);
    assert_eq!(now(), Some(end(2, 8, 8 * MIB + 16)));
    archive.push(WalFileName::Partial(name(1, 8)), &segment(1, 8)).unwrap();
    archive.push(file(1, 8), &segment(1, 8)).unwrap();
    assert_eq!(now(), Some(end(2, 8, 8 * MIB + 16)), "an older timeline no longer matters");
}

#[test]
fn a_partial_segment_that_says_less_is_the_same_one() {
    let (_, archive) = archive();
    let partial = WalFileName::Partial(name(1, 8));
    let full = segment(1, 8);
    let mut less = full.clone();
    less[5000..].fill(0);
    assert_eq!(archive.push(partial, &less).unwrap(), Pushed::New);
    assert_eq!(archive.push(partial, &full).unwrap(), Pushed::Same);
    let mut other = full;
    other[4000] ^= 1;
    assert_eq!(archive.push(partial, &other).unwrap_err().code(), codes::WAL_CONFLICT);
    assert_eq!(archive.push(file(1, 8), &other).unwrap(), Pushed::New);
    assert_eq!(
        archive.push(file(1, 8), &less).unwrap_err().code(),
        codes::WAL_CONFLICT,
        "whole ones are exact"
    );
}

#[test]
fn a_repository_that_is_gone_is_not_confirmed() {
    let (store, archive) = archive();
    archive.confirm_repository().unwrap();
    let store = retoma_repo::store::BlockingStore::new(store).unwrap();
    store.delete(&retoma_repo::store::Key::new("config").unwrap()).unwrap();
    assert_eq!(archive.confirm_repository().unwrap_err().code(), codes::STORE_UNAVAILABLE);
}

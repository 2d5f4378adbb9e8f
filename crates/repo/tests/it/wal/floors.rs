//! Floors in the archive.

use super::{archive, file, segment, timeline};
use retoma_core::decide::keep::Floors;
use retoma_core::error::codes;
use retoma_core::postgres::Lsn;
use retoma_repo::format::time::Time;
use retoma_repo::store::{BlockingStore, Key, PutMode};
use retoma_repo::wal::WalObject;

#[test]
fn floors_come_back_in_the_order_of_time_and_go_one_by_one() {
    let (_, archive) = archive();
    assert_eq!(archive.floors().unwrap(), []);
    let at = |seconds| Time::from_unix(seconds, 0);
    let of = |lsn| Floors::from([(timeline(1), Lsn(lsn)), (timeline(0xAB), Lsn(u64::MAX))]);
    archive.put_floor(at(2_000_000_000), &of(7)).unwrap();
    archive.put_floor(at(900), &of(5)).unwrap();
    archive.put_floor(at(900), &of(6)).unwrap();
    let found = archive.floors().unwrap();
    let found: Vec<_> = found.into_iter().map(|floor| (floor.time, floor.floors)).collect();
    assert_eq!(found, [(at(900), of(5)), (at(2_000_000_000), of(7))]);
    archive.delete_floor(at(900)).unwrap();
    archive.delete_floor(at(900)).unwrap();
    assert_eq!(archive.floors().unwrap().len(), 1);
}

#[test]
fn a_floor_is_no_wal_and_deleted_wal_is_gone() {
    let (_, archive) = archive();
    archive.push(file(1, 5), &segment(1, 5)).unwrap();
    archive.put_floor(Time::from_unix(900, 0), &Floors::new()).unwrap();
    let listed = || {
        let mut objects = Vec::new();
        archive.for_each(|object, _| objects.push(object)).unwrap();
        objects
    };
    assert_eq!(listed(), [WalObject::File(file(1, 5))]);
    archive.delete(WalObject::File(file(1, 5))).unwrap();
    archive.delete(WalObject::File(file(1, 5))).unwrap();
    assert_eq!((listed(), archive.fetch(file(1, 5)).unwrap()), (Vec::new(), None));
}

#[test]
fn a_floor_under_another_ones_name_or_damaged_stops() {
    let (store, archive) = archive();
    archive.put_floor(Time::from_unix(900, 0), &Floors::from([(timeline(1), Lsn(5))])).unwrap();
    let store = BlockingStore::new(store).unwrap();
    let mut keys = Vec::new();
    store.for_each("wal", |meta| keys.push(meta.key.as_str().to_owned())).unwrap();
    let bytes = store.get(&Key::new(keys[0].clone()).unwrap()).unwrap();
    let later = Key::new(keys[0].replace("0900", "0901")).unwrap();
    store.put(&later, bytes.clone(), PutMode::Create).unwrap();
    assert_eq!(archive.floors().unwrap_err().code(), codes::NOT_AUTHENTIC);
    store.put(&later, bytes.slice(..10), PutMode::Overwrite).unwrap();
    assert!(archive.floors().is_err());
}

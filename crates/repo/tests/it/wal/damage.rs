//! Every changed byte in the store is found, and the object is named.

use super::{SERVER, archive, fetch_in_parts, file, key, name, repository_in, segment, size, timeline};
use retoma_core::ErrorKind;
use retoma_core::error::codes;
use retoma_core::postgres::WalFileName;
use retoma_repo::lane::Lane;
use retoma_repo::store::{BlockingStore, ObjectStore, PutMode};
use retoma_repo::wal::{Archive, FOLDER, LIMIT_BYTES, Share, examine};
use std::sync::Arc;

/// Changes the byte in the middle of an object.
fn damage(store: &Arc<ObjectStore>, object: &str) {
    let store = BlockingStore::new(store.clone()).unwrap();
    let mut bytes = store.get(&key(object)).unwrap().to_vec();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    store.put(&key(object), bytes.into(), PutMode::Overwrite).unwrap();
}

#[test]
fn a_changed_byte_in_each_kind_of_object_is_found_and_named() {
    let (store, archive) = archive();
    let files = [
        (file(1, 7), segment(1, 7), "00000001/000000010000000000000007"),
        (WalFileName::Partial(name(1, 8)), segment(1, 8), "00000001/000000010000000000000008.partial"),
        (WalFileName::History(timeline(2)), b"1\t0/800000\tpromoted\n".to_vec(), "00000002/00000002.history"),
        (
            WalFileName::Backup { segment: name(1, 7), offset: 0x28 },
            b"START WAL LOCATION: 0/700028\n".to_vec(),
            "00000001/000000010000000000000007.00000028.backup",
        ),
    ];
    for (name, bytes, object) in files {
        archive.push(name, &bytes).unwrap();
        damage(&store, object);
        let error = archive.fetch(name).unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Corrupt, codes::NOT_AUTHENTIC));
        assert!(error.to_string().contains(object), "{error}");
        // It is not written over, and not called stored.
        let error = archive.push(name, &bytes).unwrap_err();
        assert_eq!(error.code(), codes::NOT_AUTHENTIC);
        assert!(error.hint().unwrap().contains("delete"), "{:?}", error.hint());
    }
}

#[test]
fn a_damaged_part_is_found_and_named() {
    let (store, archive) = archive();
    archive.push_part(name(1, 7), size(), 0, &segment(1, 7)[..500]).unwrap();
    damage(&store, "00000001/parts/00000000/000000010000000000000007.00000000-000001F4");
    let error = archive.fetch_or_assemble(file(1, 7)).unwrap_err();
    assert_eq!(error.code(), codes::NOT_AUTHENTIC);
    assert!(error.to_string().contains("00000000-000001F4"), "{error}");
}

#[test]
fn a_segment_under_the_name_of_another_does_not_open() {
    let (store, archive) = archive();
    archive.push(file(1, 7), &segment(1, 7)).unwrap();
    let store = BlockingStore::new(store).unwrap();
    let stored = store.get(&key("00000001/000000010000000000000007")).unwrap();
    for other in ["00000001/000000010000000000000008", "00000002/000000020000000000000007"] {
        store.put(&key(other), stored.clone(), PutMode::Create).unwrap();
    }
    for other in [file(1, 8), file(2, 7)] {
        assert_eq!(archive.fetch(other).unwrap_err().code(), codes::NOT_AUTHENTIC);
    }
}

/// Sealed with the right key, under the right name: only what is in it tells. Nobody gets a byte of it.
#[test]
fn what_is_sealed_and_is_not_what_its_name_says_is_not_given_out() {
    let (store, archive) = archive();
    let lane = Lane::new(repository_in(store.clone()).key(), FOLDER, LIMIT_BYTES);
    let object = key("00000001/000000010000000000000007");
    let store = BlockingStore::new(store).unwrap();
    let foreign = retoma_testkit::wal::segment(&name(1, 7).to_string(), SERVER + 1, 7);
    let half = segment(1, 7)[..segment(1, 7).len() / 2].to_vec();
    for wrong in [foreign, half, segment(1, 8), vec![0; 100], Vec::new()] {
        let sealed = lane.seal(&object, &wrong).unwrap();
        store.put(&object, sealed.into(), PutMode::Overwrite).unwrap();
        assert_eq!(archive.fetch(file(1, 7)).unwrap_err().code(), codes::WAL_MALFORMED);
        assert_eq!(fetch_in_parts(&archive, file(1, 7), 2).unwrap_err().code(), codes::WAL_MALFORMED);
    }
}

#[test]
fn reading_everything_names_each_damaged_object_and_nothing_else() {
    let store = Arc::new(ObjectStore::memory());
    let repository = repository_in(store.clone());
    for component in ["db", "other"] {
        let archive = Archive::new(&repository, component, SERVER).unwrap();
        for number in 3..8 {
            archive.push(file(1, number), &segment(1, number)).unwrap();
        }
        archive.push_part(name(1, 8), size(), 0, &segment(1, 8)[..500]).unwrap();
        archive.push(WalFileName::History(timeline(2)), b"1\t0/800000\tpromoted\n").unwrap();
    }
    let look = |component, share| examine(&repository, component, share, &|| false).unwrap();
    let counts = |component, share| {
        let examined = look(component, share);
        assert!(examined.damaged.is_empty(), "{:?}", examined.damaged);
        (examined.objects, examined.read, examined.read_bytes > 0)
    };
    assert_eq!(counts(None, Share::None), (14, 0, false));
    assert_eq!(counts(None, Share::All), (14, 14, true));
    assert_eq!(counts(Some("db"), Share::All), (7, 7, true));
    assert_eq!(counts(None, Share::Sample(25.0, 7)), (14, 4, true));
    assert_eq!(counts(Some("nobody"), Share::Sample(25.0, 7)), (0, 0, false));

    let hit = [
        "00000001/000000010000000000000005",
        "00000001/parts/00000000/000000010000000000000008.00000000-000001F4",
        "00000002/00000002.history",
    ];
    for object in hit {
        damage(&store, object);
    }
    let examined = look(None, Share::All);
    let found: Vec<_> = examined.damaged.iter().map(|(name, error)| (name.as_str(), error.code())).collect();
    let expected = hit.map(|object| (key(object).as_str().to_owned(), codes::NOT_AUTHENTIC));
    assert_eq!(found, expected.iter().map(|(name, code)| (name.as_str(), *code)).collect::<Vec<_>>());
    assert_eq!(examined.read, 11);
    assert!(look(Some("other"), Share::All).damaged.is_empty());
    let stopped = examine(&repository, None, Share::All, &|| true).unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Cancelled);
}

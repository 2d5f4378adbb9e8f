use super::*;
use retoma_core::Secret;
use retoma_repo::Repository;
use retoma_repo::store::{BlockingStore, Key, ObjectStore, PutMode, Verb};
use retoma_testkit::wal::timeline;
use retoma_testkit::{Fault, FaultyStore, Rule, When};
use std::sync::Arc;

const SECOND: &str = "1\t0/5000000\tno recovery target specified\n";
const THIRD: &str =
    "1\t0/5000000\tno recovery target specified\n\n2\t0/7000000\tno recovery target specified\n";

fn archive(store: &Arc<FaultyStore>) -> Archive {
    let store = BlockingStore::new(store.clone()).unwrap();
    let repository = Repository::init(store, &Secret::new("correct horse".to_owned())).unwrap();
    Archive::new(&repository, "db", 77).unwrap()
}

fn fresh() -> (Arc<FaultyStore>, Archive) {
    let store = Arc::new(FaultyStore::new(Arc::new(ObjectStore::memory())));
    let archive = archive(&store);
    (store, archive)
}

/// A `pg_wal` with these histories.
fn folder(histories: &[(u32, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (number, text) in histories {
        std::fs::write(folder.path().join(timeline(*number).history_file_name()), text).unwrap();
    }
    folder
}

fn stored(archive: &Archive, number: u32) -> Option<String> {
    let found = archive.fetch(WalFileName::History(timeline(number))).unwrap();
    found.map(|bytes| String::from_utf8(bytes).unwrap())
}

#[test]
fn every_archive_gets_those_that_lead_to_a_timeline() {
    let folder = folder(&[(2, SECOND), (3, THIRD), (4, "nonsense")]);
    let archives = [fresh().1, fresh().1];
    // One had it already.
    archives[1].push(WalFileName::History(timeline(3)), THIRD.as_bytes()).unwrap();
    store(&archives, folder.path(), timeline(1)).unwrap();
    assert_eq!(stored(&archives[0], 2), None);
    store(&archives, folder.path(), timeline(3)).unwrap();
    assert_eq!(
        [2, 3].map(|number| stored(&archives[0], number)),
        [SECOND, THIRD].map(|it| Some(it.to_owned()))
    );
    assert_eq!(stored(&archives[1], 2), None, "who has the newest had the others offered before");
    store(&archives, folder.path(), timeline(2)).unwrap();
    assert_eq!(stored(&archives[1], 2).as_deref(), Some(SECOND));
    // Of a timeline whose history the server does not have, nothing is stored, and nothing is wrong.
    store(&archives, folder.path(), timeline(5)).unwrap();
    let wrong = store(&archives, folder.path(), timeline(4)).unwrap_err();
    assert_eq!(wrong.code(), codes::WAL_MALFORMED);
}

#[test]
fn another_history_of_the_same_timeline_is_an_error_and_stays() {
    let other = SECOND.replace('5', "6");
    for (number, beside) in [(2, 2), (3, 2)] {
        let folder = folder(&[(2, SECOND), (3, THIRD)]);
        let (_, archive) = fresh();
        archive.push(WalFileName::History(timeline(beside)), other.as_bytes()).unwrap();
        let archives = [archive];
        let refused = store(&archives, folder.path(), timeline(number)).unwrap_err();
        assert_eq!(refused.code(), codes::WAL_CONFLICT);
        assert_eq!(stored(&archives[0], 2).as_deref(), Some(other.as_str()));
        assert_eq!(stored(&archives[0], 3), None, "nothing is stored that seems to lead somewhere");
    }
}

/// The newest one is stored last: where it is, nothing is missing before it.
#[test]
fn a_store_that_fails_in_between_is_asked_again() {
    let folder = folder(&[(2, SECOND), (3, THIRD)]);
    for last in 1..=2 {
        let (faulty, archive) = fresh();
        let rule = Rule::new(Verb::Put, "wal/*", When::Call(last), Fault::Error(ErrorKind::Unavailable));
        faulty.add(rule);
        let archives = [archive];
        let failed = store(&archives, folder.path(), timeline(3)).unwrap_err();
        assert_eq!(failed.kind(), ErrorKind::Unavailable);
        assert_eq!(stored(&archives[0], 3), None);
        store(&archives, folder.path(), timeline(3)).unwrap();
        assert!(stored(&archives[0], 2).is_some() && stored(&archives[0], 3).is_some());
    }
}

#[test]
fn what_an_empty_mount_point_took_is_not_called_stored() {
    let folder = folder(&[(2, SECOND)]);
    let (faulty, archive) = fresh();
    // The disk goes between the question and the write.
    let inner = BlockingStore::new(faulty.clone()).unwrap();
    let config = Key::new("config").unwrap();
    faulty.add(Rule::new(Verb::Head, "config", When::From(2), Fault::Error(ErrorKind::NotFound)));
    let refused = store(&[archive], folder.path(), timeline(2)).unwrap_err();
    assert_eq!(refused.code(), codes::STORE_UNAVAILABLE);
    assert!(inner.get(&config).is_ok());
}

#[test]
fn a_damaged_one_holds_no_wal_up() {
    let folder = folder(&[(2, SECOND)]);
    let (faulty, archive) = fresh();
    let archives = [archive];
    store(&archives, folder.path(), timeline(2)).unwrap();
    let inner = BlockingStore::new(faulty).unwrap();
    let name = Key::new("wal/db/77/00000002/00000002.history").unwrap();
    let mut bytes = inner.get(&name).unwrap().to_vec();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    inner.delete(&name).unwrap();
    inner.put(&name, bytes.into(), PutMode::Create).unwrap();
    assert_eq!(archives[0].fetch(WalFileName::History(timeline(2))).unwrap_err().kind(), ErrorKind::Corrupt);
    store(&archives, folder.path(), timeline(2)).unwrap();
}

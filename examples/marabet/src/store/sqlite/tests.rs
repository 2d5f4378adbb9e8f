//! Tests of the SQLite store on real files.

mod by_model;

use super::*;

/// A folder with an empty database that has the tables.
fn database() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("marabet.sqlite");
    create(&path);
    (folder, path)
}

fn create(path: &Path) {
    let connection = Connection::open(path).unwrap();
    connection.execute_batch(SCHEMA).unwrap();
}

fn example() -> NewPrediction {
    NewPrediction { user_id: None, model_version: 3, score: 0.25, features: vec![1.5, -2.0] }
}

#[test]
fn a_prediction_comes_back_as_it_was_kept() {
    let (_folder, path) = database();
    let store = SqliteStore::new(&path);
    let id = store.add_prediction(&example()).unwrap();
    let found = store.prediction(id).unwrap().unwrap();
    assert_eq!((found.features.as_slice(), found.model_version), ([1.5, -2.0].as_slice(), 3));
    assert_eq!(store.latest_predictions(5).unwrap(), [found]);
    assert_eq!(store.count_predictions().unwrap(), 1);
    assert_eq!(store.prediction(id + 1).unwrap(), None);
}

#[test]
fn the_connection_is_durable() {
    let (_folder, path) = database();
    let connection = open(&path).unwrap();
    let pragma = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, String>(0));
    assert_eq!(pragma("journal_mode").unwrap(), "wal");
    let synchronous: i64 = connection.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
    assert_eq!(synchronous, 2, "FULL");
}

#[test]
fn markers_are_counted_with_their_gaps_and_once_each() {
    let (_folder, path) = database();
    let store = SqliteStore::new(&path);
    for number in [2, 3, 3, 7] {
        store.add_marker("a", number).unwrap();
    }
    store.add_marker("b", 1).unwrap();
    let summary = store.markers("a").unwrap();
    assert_eq!((summary.count, summary.max), (3, 7));
    assert_eq!(summary.missing, [(1, 1), (4, 6)]);
    let present: Vec<u64> = (0..10).filter(|number| summary.contains(*number)).collect();
    assert_eq!(present, [2, 3, 7]);
    assert_eq!(store.markers("none").unwrap().max, 0);
}

#[test]
fn a_missing_database_is_not_created() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("marabet.sqlite");
    let store = SqliteStore::new(&path);
    assert_eq!(store.check().unwrap_err().code(), codes::SAMPLE_DATABASE);
    assert!(store.add_marker("a", 1).is_err());
    assert!(!path.exists());
}

#[test]
fn an_empty_file_and_a_dropped_table_are_red() {
    let (_folder, path) = database();
    let store = SqliteStore::new(&path);
    store.check().unwrap();
    Connection::open(&path).unwrap().execute_batch("DROP TABLE predictions").unwrap();
    assert!(store.check().unwrap_err().to_string().contains("no such table"));
    assert!(store.add_prediction(&example()).is_err());

    fs::write(path.with_file_name("empty.sqlite"), b"").unwrap();
    assert!(SqliteStore::new(path.with_file_name("empty.sqlite")).check().is_err());
}

#[test]
fn a_deleted_database_takes_no_writes_although_it_is_still_open() {
    let (_folder, path) = database();
    let store = SqliteStore::new(&path);
    store.add_marker("a", 1).unwrap();
    fs::remove_file(&path).unwrap();
    assert!(store.add_marker("a", 2).is_err());
    assert!(store.check().is_err());
}

#[test]
fn a_replaced_database_is_the_one_that_is_used() {
    let (_folder, path) = database();
    let store = SqliteStore::new(&path);
    store.add_marker("a", 1).unwrap();
    let other = path.with_file_name("other.sqlite");
    create(&other);
    for suffix in ["-wal", "-shm"] {
        let beside = path.with_file_name(format!("marabet.sqlite{suffix}"));
        fs::remove_file(beside).unwrap();
    }
    fs::rename(&other, &path).unwrap();
    assert_eq!(store.markers("a").unwrap().count, 0, "the new file is empty");
    store.add_marker("a", 9).unwrap();
    let fresh = SqliteStore::new(&path);
    assert!(fresh.markers("a").unwrap().contains(9));
}

#[test]
fn a_write_into_a_file_that_is_replaced_meanwhile_is_not_acknowledged() {
    let (_folder, path) = database();
    let store = SqliteStore::new(&path);
    let other = path.with_file_name("other.sqlite");
    create(&other);
    let error = store
        .write(|connection| {
            connection.execute("INSERT INTO markers VALUES ('a', 1, 0)", ())?;
            fs::rename(&other, &path).unwrap();
            Ok(())
        })
        .unwrap_err();
    assert!(error.to_string().contains("replaced"), "{error}");
}

#[test]
fn damage_that_no_query_meets_is_found_by_the_deep_check() {
    let (_folder, path) = database();
    let store = SqliteStore::new(&path);
    for _ in 0..2000 {
        store.add_prediction(&example()).unwrap();
    }
    drop(store);
    let mut bytes = fs::read(&path).unwrap();
    let middle = bytes.len() / 4096 / 2 * 4096;
    bytes[middle..middle + 64].fill(0xff);
    fs::write(&path, bytes).unwrap();
    let store = SqliteStore::new(&path);
    store.check().unwrap();
    assert_eq!(store.check_deep().unwrap_err().kind(), ErrorKind::Corrupt);
}

//! Backups by the manifest.

use super::sample::Sample;
use retoma_control::backup::{backup, backup_manifest, read_manifest};
use retoma_core::error::codes;
use retoma_repo::Folder;
use retoma_repo::backup::Progress;
use retoma_repo::format::snapshot::Snapshot;

#[test]
fn a_component_becomes_a_snapshot_that_says_what_it_is_and_the_next_one_builds_on_it() {
    let sample = Sample::new();
    let repository = sample.repository();
    let back_up = || {
        let component = sample.manifest.component("database").unwrap();
        backup(&sample.manifest, component, &repository, &Progress::default()).unwrap()
    };
    let first = back_up();
    let snapshot = repository.snapshot(first.snapshot()).unwrap();
    assert_eq!((snapshot.component(), snapshot.kind()), (Some("database"), Some("sqlite")));
    assert_eq!(snapshot.manifest_hash(), Some(sample.manifest.hash()));
    assert!(first.facts.as_ref().unwrap().rows() > 300);
    assert_eq!(first.parent, None);
    assert_eq!(back_up().parent, Some(first.snapshot()));
}

#[test]
fn a_database_that_lost_its_rows_gives_no_snapshot() {
    let sample = Sample::new();
    let repository = sample.repository();
    let component = sample.manifest.component("database").unwrap();
    backup(&sample.manifest, component, &repository, &Progress::default()).unwrap();
    let connection = rusqlite::Connection::open(component.path().unwrap()).unwrap();
    connection.execute_batch("DELETE FROM predictions").unwrap();
    let error = backup(&sample.manifest, component, &repository, &Progress::default()).unwrap_err();
    assert_eq!(error.code(), codes::SOURCE_EMPTY, "{error}");
    assert!(error.to_string().contains("`predictions`"), "{error}");
    assert_eq!(repository.snapshots().unwrap().len(), 1);
}

/// A container has a new name each time, and so has the machine that a service was recovered on.
#[test]
fn a_host_with_a_new_name_builds_on_what_another_backed_up() {
    let sample = Sample::new();
    let repository = sample.repository();
    let component = sample.manifest.component("database").unwrap();
    let back_up = || backup(&sample.manifest, component, &repository, &Progress::default());
    let first = back_up().unwrap().snapshot();
    let elsewhere = Snapshot { hostname: "elsewhere".to_owned(), ..repository.snapshot(first).unwrap() };
    let moved = repository.save_snapshot(&elsewhere).unwrap();
    repository.store().delete(&Folder::Snapshots.key(&first.to_hex()).unwrap()).unwrap();
    let connection = rusqlite::Connection::open(component.path().unwrap()).unwrap();
    connection
        .execute_batch("CREATE TABLE kept AS SELECT * FROM predictions; DELETE FROM predictions")
        .unwrap();
    assert_eq!(back_up().unwrap_err().code(), codes::SOURCE_EMPTY);
    connection.execute_batch("INSERT INTO predictions SELECT * FROM kept").unwrap();
    assert_eq!(back_up().unwrap().parent, Some(moved));
}

#[test]
fn the_manifest_is_stored_when_it_changed() {
    let sample = Sample::new();
    let repository = sample.repository();
    let store =
        |text: &str| backup_manifest(&sample.manifest, text, &repository, &Progress::default()).unwrap();
    let first = store(&sample.text).unwrap();
    assert_eq!(store(&sample.text), None);
    let snapshot = repository.snapshot(first).unwrap();
    assert_eq!(read_manifest(&repository, &snapshot).unwrap(), sample.text);
    assert!(store("version = 2").is_some());
}

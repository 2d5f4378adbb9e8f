//! Backups by the manifest.

use super::sample::Sample;
use retoma_control::backup::{backup, backup_manifest, read_manifest};
use retoma_core::error::{ErrorKind, codes};
use retoma_repo::Folder;
use retoma_repo::backup::Progress;
use retoma_repo::format::snapshot::{Snapshot, TAG_INCOMPLETE};

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

#[test]
fn a_manifest_from_another_place_is_stored_anew_since_its_paths_start_there() {
    let sample = Sample::new();
    let repository = sample.repository();
    let elsewhere = sample.manifest.below(std::path::Path::new("/elsewhere"));
    let store = |manifest: &retoma_core::manifest::Manifest| {
        backup_manifest(manifest, &sample.text, &repository, &Progress::default()).unwrap()
    };
    let first = store(&sample.manifest).unwrap();
    let second = store(&elsewhere).unwrap();
    assert_eq!(store(&elsewhere), None);
    let place = |id| repository.snapshot(id).unwrap().paths.remove(0);
    assert_eq!(place(second), format!("/elsewhere{}", place(first)));
    // What another host stored last says nothing about this one.
    let foreign = Snapshot { hostname: "another".to_owned(), ..repository.snapshot(first).unwrap() };
    repository.store().delete(&Folder::Snapshots.key(&first.to_hex()).unwrap()).unwrap();
    repository.store().delete(&Folder::Snapshots.key(&second.to_hex()).unwrap()).unwrap();
    repository.save_snapshot(&foreign).unwrap();
    assert!(store(&sample.manifest).is_some());
}

#[test]
fn the_parent_is_the_newest_complete_one_of_this_component() {
    let sample = Sample::new();
    let repository = sample.repository();
    let back_up = |name: &str| {
        let component = sample.manifest.component(name).unwrap();
        backup(&sample.manifest, component, &repository, &Progress::default()).unwrap()
    };
    let first = back_up("models").snapshot();
    let incomplete = |snapshot: Snapshot| {
        let mut snapshot = snapshot;
        snapshot.tags.push(TAG_INCOMPLETE.to_owned());
        snapshot.time.0 += jiff::SignedDuration::from_secs(1);
        snapshot
    };
    repository.save_snapshot(&incomplete(repository.snapshot(first).unwrap())).unwrap();
    back_up("config");
    let second = back_up("models");
    assert_eq!(second.parent, Some(first));
    assert_eq!(back_up("models").parent, Some(second.snapshot()));
}

#[test]
fn what_is_stored_as_a_manifest_and_is_no_text_or_far_too_long_is_damage() {
    let sample = Sample::new();
    let repository = sample.repository();
    let store = |bytes: &[u8]| {
        let mut source = retoma_testkit::MemorySource::default();
        source.file(b"retoma.toml", bytes);
        let options = retoma_repo::backup::Options::default();
        let done = retoma_repo::backup::backup(&repository, &mut source, &options, &Progress::default());
        repository.snapshot(done.unwrap().snapshot).unwrap()
    };
    let longest = vec![b'#'; 1 << 20];
    assert_eq!(read_manifest(&repository, &store(&longest)).unwrap().len(), longest.len());
    for bytes in [&b"version = \xff1"[..], &[longest.as_slice(), b"#"].concat()] {
        let error = read_manifest(&repository, &store(bytes)).unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Corrupt, codes::MALFORMED), "{error}");
    }
}

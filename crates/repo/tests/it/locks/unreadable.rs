//! Locks that cannot be read, and stores in which nothing can be deleted.

use super::{locks, refused};
use crate::prune::kit::*;
use retoma_core::error::codes;
use retoma_core::{ErrorKind, Result};
use retoma_repo::Repository;
use retoma_repo::format::lock::{Holder, Lock};
use retoma_repo::lock::{acquire, running_backups};
use retoma_repo::store::{BlockingStore, LocalStore, Verb};
use retoma_testkit::{Fault, FaultyStore, Rule, When, restic_lock};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A repository in a folder with a lock in which one byte is flipped, its object's name and its file.
fn with_damaged_lock(folder: &tempfile::TempDir) -> (Repository, String, PathBuf) {
    let store = BlockingStore::new(Arc::new(LocalStore::new(folder.path()).unwrap())).unwrap();
    let repository = Repository::init(store, &secret(PASSWORD)).unwrap();
    let name = format!("locks/{}", repository.save_lock(&restic_lock(false)).unwrap());
    let path = folder.path().join(&name);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    (repository, name, path)
}

#[test]
fn whoever_holds_a_lock_that_cannot_be_read_may_still_work() {
    let folder = tempfile::tempdir().unwrap();
    let (repository, name, _) = with_damaged_lock(&folder);
    for holder in [Holder::Backup, Holder::Prune, Holder::PruneNow] {
        let error = acquire(&repository, holder).unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Conflict, codes::LOCKED), "{error}");
        assert!(error.message().contains(&name), "{error}");
        let hint = error.hint().unwrap();
        assert!(hint.contains("30 minutes") && hint.contains("restic unlock --remove-all"), "{hint}");
    }
    assert_eq!(running_backups(&repository).unwrap_err().code(), codes::LOCKED);
    assert_eq!(locks(&repository), 1, "nothing of ours is left");
}

#[test]
fn a_lock_that_cannot_be_read_is_stale_half_an_hour_after_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let (repository, _, path) = with_damaged_lock(&folder);
    let age = |minutes| {
        let file = File::options().write(true).open(&path).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_mins(minutes)).unwrap();
    };
    age(29);
    refused(acquire(&repository, Holder::Backup));
    age(31);
    acquire(&repository, Holder::PruneNow).unwrap().release();
    assert_eq!(locks(&repository), 0);
}

#[test]
fn an_empty_lock_is_the_rest_of_an_upload() {
    let folder = tempfile::tempdir().unwrap();
    let (repository, _, path) = with_damaged_lock(&folder);
    std::fs::write(path, "").unwrap();
    acquire(&repository, Holder::PruneNow).unwrap().release();
}

#[test]
fn who_may_not_delete_is_not_stopped_by_the_lock_of_a_dead_process() {
    let (disk, repository) = new_repository();
    let dead = Lock { time: later(-1), hostname: "elsewhere".to_owned(), ..restic_lock(true) };
    repository.save_lock(&dead).unwrap();
    let denied = Rule::new(Verb::Delete, "*", When::Always, Fault::Error(ErrorKind::Unauthorized));
    let store = FaultyStore::new(disk.store().store().clone()).with(denied);
    let writer = repository.through(BlockingStore::new(Arc::new(store)).unwrap());
    let backed_up: Result<_> = back_up(&writer, &files(0..3));
    assert!(backed_up.is_ok(), "{backed_up:?}");
}

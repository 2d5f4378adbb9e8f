//! Locks: what we leave, what we respect, what we clean up.

mod unreadable;

use crate::prune::disk::write_files;
use crate::prune::kit::*;
use retoma_core::error::codes;
use retoma_core::{ErrorKind, Result};
use retoma_repo::format::lock::{Holder, Lock};
use retoma_repo::lock::{acquire, acquire_refreshing};
use retoma_repo::{Folder, Repository};
use retoma_testkit::{PATIENCE, restic_lock, wait_for};
use std::collections::HashSet;
use std::time::{Duration, Instant};

fn locks(repository: &Repository) -> usize {
    repository.list(Folder::Locks).unwrap().len()
}

fn refused<T: std::fmt::Debug>(outcome: Result<T>) {
    let error = outcome.unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Conflict, codes::LOCKED), "{error}");
}

#[test]
fn an_exclusive_lock_of_restic_stops_everything_and_nothing_is_left() {
    let (disk, repository) = new_repository();
    let snapshot = back_up(&repository, &files(0..3)).unwrap();
    repository.save_lock(&restic_lock(true)).unwrap();
    let before = disk.objects();
    refused(back_up(&repository, &files(0..3)));
    refused(prune(&repository, &at_once()));
    refused(retoma_repo::ops::forget::hold(&repository, snapshot, true));
    drop_snapshot(&repository, snapshot);
    let before_prune = disk.objects();
    refused(prune(&repository, &options(now())));
    assert_eq!(disk.objects(), before_prune);
    assert_eq!(before_prune.len() + 1, before.len());
}

#[test]
fn a_shared_lock_of_restic_stops_only_who_deletes() {
    let (_, repository) = new_repository();
    let old = back_up(&repository, &files(0..3)).unwrap();
    drop_snapshot(&repository, old);
    repository.save_lock(&restic_lock(false)).unwrap();
    back_up(&repository, &files(3..6)).unwrap();
    prune(&repository, &options(later(-30))).unwrap();
    refused(prune(&repository, &options(now())));
    refused(prune(&repository, &at_once()));
}

#[test]
fn our_holders_tolerate_each_other_as_documented() {
    use Holder::{Backup, Prune, PruneNow};
    let (_, repository) = new_repository();
    for (first, second, together) in [
        (Backup, Backup, true),
        (Backup, Prune, true),
        (Prune, Backup, true),
        (Prune, Prune, false),
        (Backup, PruneNow, false),
        (PruneNow, Backup, false),
        (PruneNow, Prune, false),
        (Prune, PruneNow, false),
    ] {
        let held = acquire(&repository, first).unwrap();
        let other = acquire(&repository, second);
        assert_eq!(other.is_ok(), together, "{first:?} then {second:?}");
        drop(other);
        assert_eq!(locks(&repository), 1);
        held.release();
    }
    assert_eq!(locks(&repository), 0);
}

#[test]
fn stale_and_dead_locks_are_cleaned() {
    let (_, repository) = new_repository();
    // A process that has ended and was waited for: its number is free.
    let mut child = std::process::Command::new("true").spawn().unwrap();
    let pid = child.id();
    child.wait().unwrap();
    repository.save_lock(&Lock { pid, ..restic_lock(true) }).unwrap();
    repository
        .save_lock(&Lock { time: later(-1), hostname: "elsewhere".to_owned(), ..restic_lock(true) })
        .unwrap();
    let guard = acquire(&repository, Holder::PruneNow).unwrap();
    assert_eq!(locks(&repository), 1);
    guard.release();
    assert_eq!(locks(&repository), 0);
    repository.save_lock(&Lock { hostname: "elsewhere".to_owned(), pid, ..restic_lock(true) }).unwrap();
    refused(acquire(&repository, Holder::Backup));
}

#[test]
fn a_lock_is_refreshed_and_there_is_always_one() {
    let (disk, repository) = new_repository();
    let guard = acquire_refreshing(&repository, Holder::Prune, Duration::from_millis(2)).unwrap();
    let mut seen = HashSet::new();
    let deadline = Instant::now() + PATIENCE;
    while seen.len() < 5 {
        assert!(Instant::now() < deadline, "the lock is not refreshed");
        let names: Vec<String> =
            disk.objects().into_keys().filter(|name| name.starts_with("locks/")).collect();
        assert!(matches!(names.len(), 1 | 2), "{names:?}");
        seen.extend(names);
        // Whoever looks while it is being refreshed sees it every time.
        refused(acquire(&repository, Holder::Prune));
    }
    guard.check().unwrap();
    guard.release();
    assert_eq!(locks(&repository), 0);
}

#[test]
fn a_lock_that_somebody_removed_is_noticed_also_after_a_refresh() {
    let (_, repository) = new_repository();
    for interval in [Duration::from_millis(2), Duration::from_hours(1)] {
        let guard = acquire_refreshing(&repository, Holder::Prune, interval).unwrap();
        guard.check().unwrap();
        wait_for(|| {
            for (id, _) in repository.list(Folder::Locks).unwrap() {
                let id = retoma_repo::LockId(id).to_hex();
                repository.store().delete(&Folder::Locks.key(&id).unwrap()).unwrap();
            }
            guard.check().is_err().then_some(())
        });
        let error = guard.check().unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Fenced, codes::LOCK_LOST));
        guard.release();
    }
}

#[test]
fn a_sweep_waits_for_a_backup_that_began_before_its_mark() {
    let (_, repository) = new_repository();
    let old = back_up(&repository, &files(0..3)).unwrap();
    drop_snapshot(&repository, old);
    let backup = acquire(&repository, Holder::Backup).unwrap();
    prune(&repository, &options(now())).unwrap();
    let waited = prune(&repository, &options(later(25))).unwrap();
    assert_eq!((waited.removed_packs, waited.postponed.len()), (0, 1));
    backup.release();
    let swept = prune(&repository, &options(later(25))).unwrap();
    assert_eq!((swept.removed_packs, swept.postponed.len()), (2, 0));
}

#[test]
fn restic_sees_our_lock() {
    let (disk, repository) = new_repository();
    let old = back_up(&repository, &files(0..3)).unwrap();
    drop_snapshot(&repository, old);
    for (holder, command) in
        [(Holder::Backup, "prune"), (Holder::Prune, "prune"), (Holder::PruneNow, "snapshots")]
    {
        let guard = acquire(&repository, holder).unwrap();
        let folder = tempfile::tempdir().unwrap();
        write_files(&disk.objects(), folder.path());
        guard.release();
        let Some(output) = restic(folder.path(), &[command]) else { return };
        assert!(!output.status.success(), "{holder:?}: {}", text(&output));
        assert!(text(&output).contains("already locked"), "{holder:?}: {}", text(&output));
        // The same without our lock goes through.
        std::fs::remove_dir_all(folder.path().join("locks")).unwrap();
        std::fs::create_dir(folder.path().join("locks")).unwrap();
        let output = restic(folder.path(), &[command]).unwrap();
        assert!(output.status.success(), "{}", text(&output));
    }
}

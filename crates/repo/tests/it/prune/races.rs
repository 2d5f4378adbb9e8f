//! What others do between two steps of ours, each at the one moment that hurts.

use super::disk::Disk;
use super::kit::*;
use retoma_core::ErrorKind;
use retoma_core::error::codes;
use retoma_repo::backup::Progress;
use retoma_repo::format::key::KeyFile;
use retoma_repo::ops::{keys, prune as pruning};
use retoma_repo::store::{BlockingStore, Key, LocalStore, PutMode, Store, Verb};
use retoma_repo::{Folder, KeyId, Repository};
use retoma_testkit::FaultyStore;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A store around `inner` in which `act` happens once, before the first call that `when` says yes to.
fn meanwhile(
    inner: Arc<dyn Store>,
    when: impl Fn(Verb, &str) -> bool + Send + 'static,
    act: impl Fn() + Send + Sync + 'static,
) -> BlockingStore {
    let (store, acted) = (Arc::new(FaultyStore::new(inner)), AtomicBool::new(false));
    store.before_calls(move |verb, name| {
        if when(verb, name) && !acted.swap(true, Ordering::Relaxed) {
            // Not in this thread, in which a runtime waits for us.
            std::thread::scope(|scope| scope.spawn(&act).join().unwrap());
        }
        Ok(())
    });
    BlockingStore::new(store).unwrap()
}

#[test]
fn of_two_that_make_a_repository_at_once_with_one_key_neither_takes_the_key_away() {
    let disk = Disk::default();
    let other = disk.store();
    let store = meanwhile(
        disk.store().store().clone(),
        |verb, name| (verb, name) == (Verb::Put, "config"),
        move || drop(Repository::init(other.clone(), &secret(PASSWORD)).unwrap()),
    );
    let error = Repository::init(store, &secret(PASSWORD)).unwrap_err();
    assert_eq!(error.code(), codes::REPOSITORY_EXISTS);
    assert_eq!(disk.objects().len(), 2, "the other one took over our key");
    Repository::open(disk.store(), &secret(PASSWORD)).unwrap();
}

#[test]
fn of_two_that_make_a_repository_at_once_the_loser_leaves_no_key() {
    let disk = Disk::default();
    let other = disk.store();
    let store = meanwhile(
        disk.store().store().clone(),
        |verb, name| (verb, name) == (Verb::Put, "config"),
        move || drop(Repository::init(other.clone(), &secret("another")).unwrap()),
    );
    let error = Repository::init(store, &secret(PASSWORD)).unwrap_err();
    assert_eq!(error.code(), codes::REPOSITORY_EXISTS);
    assert_eq!(disk.objects().len(), 2, "the winner's key and config");
    Repository::open(disk.store(), &secret("another")).unwrap();
}

#[test]
fn two_that_remove_each_others_key_leave_one() {
    let (disk, first) = new_repository();
    keys::add(&first, &secret("second")).unwrap();
    let second = Repository::open(disk.store(), &secret("second")).unwrap();
    let (own, others) = (first.key_id(), second.key_id());
    let store = meanwhile(
        disk.store().store().clone(),
        |verb, name| verb == Verb::Delete && name.starts_with("keys/"),
        move || drop(keys::remove(&second, &own.to_hex())),
    );
    keys::remove(&first.through(store), &others.to_hex()).unwrap();
    Repository::open(disk.store(), &secret(PASSWORD)).unwrap();
}

#[test]
fn a_key_that_nobody_would_try_is_not_added() {
    let (_, repository) = new_repository();
    let (_, file) = repository.keys().unwrap().remove(0);
    for number in 1..20 {
        let other = KeyFile { username: format!("user {number}"), ..file.clone() };
        let json = other.to_json().unwrap();
        let key = Folder::Keys.key(&KeyId::of(&json).to_hex()).unwrap();
        repository.store().put(&key, json.into(), PutMode::Create).unwrap();
    }
    let error = keys::add(&repository, &secret("one too many")).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Exhausted, codes::TOO_MANY_KEYS));
    assert_eq!(keys::list(&repository).unwrap().len(), 20);
}

#[test]
fn a_snapshot_that_is_forgotten_while_they_are_read_is_passed_over() {
    let (disk, repository) = new_repository();
    let ids = [0, 1].map(|seed| back_up(&repository, &files(seed..seed + 2)).unwrap());
    let gone = Folder::Snapshots.key(&ids[0].to_hex()).unwrap();
    let (name, other) = (gone.to_string(), disk.store());
    let store = meanwhile(
        disk.store().store().clone(),
        move |verb, read| verb == Verb::Get && read == name,
        move || other.delete(&gone).unwrap(),
    );
    let found: Vec<_> =
        repository.through(store).snapshots().unwrap().into_iter().map(|(id, _)| id).collect();
    assert_eq!(found, ids[1..]);
}

#[test]
fn a_mark_is_not_written_without_a_lock() {
    let (disk, repository) = new_repository();
    let old = back_up(&repository, &files(0..20)).unwrap();
    back_up(&repository, &files(15..25)).unwrap();
    drop_snapshot(&repository, old);
    let other = repository.clone();
    let store = meanwhile(
        disk.store().store().clone(),
        |verb, name| verb == Verb::Put && name.starts_with("data/"),
        move || {
            for (id, _) in other.list(Folder::Locks).unwrap() {
                let id = retoma_repo::LockId(id).to_hex();
                other.store().delete(&Folder::Locks.key(&id).unwrap()).unwrap();
            }
        },
    );
    let error = prune(&repository.through(store), &options(now())).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Fenced, codes::LOCK_LOST));
    assert!(repository.marks().unwrap().is_empty());
}

/// A repository with a ripe mark, and the plan that sweeps it.
fn with_ripe_mark() -> (Disk, Repository, pruning::PrunePlan) {
    let (disk, repository) = new_repository();
    // Its trees go and its data stay, and one index file names both.
    let old = back_up(&repository, &files(0..20)).unwrap();
    back_up(&repository, &files(0..25)).unwrap();
    drop_snapshot(&repository, old);
    assert!(prune(&repository, &options(now())).unwrap().marked_packs > 0);
    let plan = pruning::plan(&repository, &options(later(25)), &Progress::default()).unwrap();
    assert_eq!(plan.sweep.len(), 1);
    (disk, repository, plan)
}

/// Whoever took the lock away may be at work: a new index file is harmless, a deleted old one is not.
#[test]
fn without_its_lock_a_sweep_deletes_no_index_file() {
    let (disk, repository, plan) = with_ripe_mark();
    let before: Vec<_> = repository.list(Folder::Index).unwrap().into_iter().map(|(id, _)| id).collect();
    let other = repository.clone();
    let store = meanwhile(
        disk.store().store().clone(),
        |verb, name| verb == Verb::Put && name.starts_with("index/"),
        move || {
            for (id, _) in other.list(Folder::Locks).unwrap() {
                let id = retoma_repo::LockId(id).to_hex();
                other.store().delete(&Folder::Locks.key(&id).unwrap()).unwrap();
            }
        },
    );
    let error = pruning::apply(&repository.through(store), plan, &Progress::default()).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Fenced, codes::LOCK_LOST));
    let after: Vec<_> = repository.list(Folder::Index).unwrap().into_iter().map(|(id, _)| id).collect();
    assert!(after.len() > before.len() && before.iter().all(|id| after.contains(id)), "the old ones stay");
    check_structure(&repository);
}

/// A backup that runs now and began after the mark was gone may build on its packs.
#[test]
fn what_a_mark_named_that_is_gone_meanwhile_is_not_swept() {
    let (_disk, repository, plan) = with_ripe_mark();
    for stored in repository.marks().unwrap() {
        let key = Folder::Marks.key(&stored.id.to_hex()).unwrap();
        repository.store().delete(&key).unwrap();
    }
    let before = repository.list(Folder::Data).unwrap().len();
    let pruned = pruning::apply(&repository, plan, &Progress::default()).unwrap();
    assert_eq!((pruned.removed_packs, repository.list(Folder::Data).unwrap().len()), (0, before));
}

/// An emptied folder `snapshots` looks as if nothing were needed.
#[test]
fn without_any_snapshot_nothing_is_pruned_unless_that_is_meant() {
    let (disk, repository) = new_repository();
    assert!(
        pruning::plan(&repository, &at_once(), &Progress::default()).unwrap().is_empty(),
        "nothing there"
    );
    let only = back_up(&repository, &files(0..5)).unwrap();
    drop_snapshot(&repository, only);
    let before = disk.objects();
    for options in [at_once(), options(now())] {
        let options = pruning::Options { without_snapshots: false, ..options };
        let error = prune(&repository, &options).unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Conflict, codes::NO_SNAPSHOTS));
        assert_eq!(disk.objects(), before);
    }
    assert!(prune(&repository, &at_once()).unwrap().removed_packs > 0);
    assert_eq!(repository.list(Folder::Data).unwrap().len(), 0);
}

#[test]
fn a_prune_at_once_leaves_alone_what_somebody_begins_to_write_after_it() {
    let folder = tempfile::tempdir().unwrap();
    let local: Arc<dyn Store> = Arc::new(LocalStore::new(folder.path()).unwrap());
    let repository = Repository::init(BlockingStore::new(local.clone()).unwrap(), &secret(PASSWORD)).unwrap();
    back_up(&repository, &files(0..3)).unwrap();
    let temporary = folder.path().join("data/#0123456789abcdef");
    let left = folder.path().join("data/#fedcba9876543210");
    std::fs::write(&left, "by a killed process").unwrap();
    let written = temporary.clone();
    let store = meanwhile(
        local,
        |verb, name| verb == Verb::Delete && name.starts_with("locks/"),
        move || std::fs::write(&written, "the first half of a pack").unwrap(),
    );
    let pruned: pruning::Pruned = prune(&repository.through(store), &at_once()).unwrap();
    assert!(temporary.exists() && !left.exists());
    assert_eq!(pruned.leftovers.count, 1);
    assert!(Key::new("data/#").is_err(), "no object has such a name");
}

/// Beside a prune that waits, backups go on: what they have begun to write must not vanish.
#[test]
fn a_prune_that_waits_takes_only_what_was_left_more_than_a_day_ago() {
    let folder = tempfile::tempdir().unwrap();
    let local: Arc<dyn Store> = Arc::new(LocalStore::new(folder.path()).unwrap());
    let repository = Repository::init(BlockingStore::new(local).unwrap(), &secret(PASSWORD)).unwrap();
    back_up(&repository, &files(0..3)).unwrap();
    let written = |name: &str, hours: u64| {
        let path = folder.path().join("data").join(name);
        std::fs::write(&path, "the first half of a pack").unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        let ago = std::time::Duration::from_hours(hours);
        file.set_modified(std::time::SystemTime::now() - ago).unwrap();
        path
    };
    let young = [written("#0123456789abcdef", 0), written("#1123456789abcdef", 23)];
    let old = written("#2123456789abcdef", 25);
    let pruned = prune(&repository, &options(now())).unwrap();
    assert_eq!(pruned.leftovers.count, 1);
    assert!(young.iter().all(|path| path.exists()) && !old.exists());
}

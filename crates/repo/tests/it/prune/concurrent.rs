//! Twenty backups at once, beside marks and sweeps that never rest.

use super::kit::*;
use retoma_core::error::codes;
use retoma_repo::store::{BlockingStore, LocalStore};
use retoma_repo::{Repository, SnapshotId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

struct Done<'a>(&'a AtomicBool);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn twenty_backups_beside_marks_and_sweeps_lose_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let open = || BlockingStore::new(Arc::new(LocalStore::new(folder.path()).unwrap())).unwrap();
    let repository = Repository::init(open(), &secret(PASSWORD)).unwrap();
    // Old marks that ripen at once, on data that the backups bring back.
    for seed in 0..5 {
        let old = back_up(&repository, &files(seed * 10..seed * 10 + 15)).unwrap();
        drop_snapshot(&repository, old);
        prune(&repository, &options(later(-30))).unwrap();
    }
    let done = AtomicBool::new(false);
    let committed: BTreeMap<SnapshotId, _> = std::thread::scope(|scope| {
        // Also when a backup fails: the test then ends red instead of never.
        let ending = Done(&done);
        let pruner = scope.spawn(|| {
            let (repository, mut sweeps) = (repository.through(open()), 0);
            while !done.load(Ordering::Relaxed) {
                // Marks of now, ripe in a day: the sweeps below find them beside backups that are older and younger.
                sweeps += prune(&repository, &options(now())).unwrap().removed_packs;
                sweeps += prune(&repository, &options(later(25))).unwrap().removed_packs;
            }
            sweeps
        });
        let backups: Vec<_> = (0..20u64)
            .map(|number| {
                let repository = repository.through(open());
                scope.spawn(move || {
                    let files = files(number * 2..number * 2 + 12);
                    (back_up(&repository, &files).unwrap(), files)
                })
            })
            .collect();
        let committed = backups.into_iter().map(|backup| backup.join().unwrap()).collect();
        drop(ending);
        assert!(pruner.join().unwrap() > 0, "no sweep found anything");
        committed
    });
    assert_eq!(read_all(&repository), committed);
    check_structure(&repository);
    restic_check(folder.path());
    prune(&repository, &at_once()).unwrap();
    assert_eq!(read_all(&repository), committed);
    check_no_garbage(&repository);
    restic_check(folder.path());
}

#[test]
fn an_immediate_prune_and_backups_exclude_each_other() {
    let (disk, repository) = new_repository();
    let held = retoma_repo::lock::acquire(&repository, retoma_repo::format::lock::Holder::Backup).unwrap();
    let before = disk.objects();
    assert_eq!(prune(&repository, &at_once()).unwrap_err().code(), codes::LOCKED);
    assert_eq!(disk.objects(), before);
    held.release();
    let held = retoma_repo::lock::acquire(&repository, retoma_repo::format::lock::Holder::PruneNow).unwrap();
    assert_eq!(back_up(&repository, &files(0..1)).unwrap_err().code(), codes::LOCKED);
    held.release();
    back_up(&repository, &files(0..1)).unwrap();
}

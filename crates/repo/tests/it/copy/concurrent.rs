//! Backups and prunes of either side, while a copy runs.

use super::{contents, copy};
use crate::prune::kit::*;
use retoma_core::error::codes;
use retoma_repo::backup::Progress;
use retoma_repo::ops::copy::Copy;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn backups_copies_and_two_phase_prunes_go_on_together() {
    let (_, source) = new_repository();
    let (_, target) = new_repository();
    super::component(&source, &files(0..8));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for repository in [&source, &target] {
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    match prune(repository, &options(now())) {
                        Ok(_) => {}
                        // The plan and what it is applied to may differ by then, or the other prune sweeps.
                        Err(error) => {
                            assert!([codes::PLAN_OUTDATED, codes::LOCKED].contains(&error.code()), "{error}");
                        }
                    }
                }
            });
        }
        for round in 0..12 {
            super::component(&source, &files(round..round + 6));
            super::component(&target, &files(100 + round..103 + round));
            let copied = copy(&source, &target).unwrap();
            assert!(copied.left.is_empty(), "{:?}", copied.lost);
        }
        done.store(true, Ordering::Relaxed);
    });
    assert_eq!(contents(&target).len(), 25);
    check_structure(&target);
    prune(&target, &at_once()).unwrap();
    assert_eq!(contents(&target).len(), 25);
    restic_check_target(&target);
}

fn restic_check_target(repository: &retoma_repo::Repository) {
    let store = repository.store();
    let folders = ["config", "data", "index", "keys", "snapshots"];
    let mut objects = crate::prune::disk::Objects::new();
    for folder in folders {
        for meta in store.list(folder).unwrap() {
            objects.insert(meta.key.as_str().to_owned(), store.get(&meta.key).unwrap());
        }
    }
    let config = retoma_repo::store::Key::new("config").unwrap();
    objects.insert("config".to_owned(), store.get(&config).unwrap());
    restic_check_objects(&objects);
}

/// A prune of the source puts what is needed into new packs and deletes the old ones, between the plan and the sending.
#[test]
fn what_the_source_moves_meanwhile_is_found() {
    let (_, source) = new_repository();
    let (_, target) = new_repository();
    let old = super::component(&source, &files(0..8));
    super::component(&source, &files(4..12));
    drop_snapshot(&source, old);
    let (begun, progress) = (Copy::begin(&source, &target).unwrap(), Progress::default());
    let plan = begun.plan(&super::all(), &progress).unwrap();
    let pruned = prune(&source, &at_once()).unwrap();
    assert!(pruned.repacked_packs > 0 && pruned.removed_packs > 0);
    let copied = begun.apply(plan, &progress).unwrap();
    assert_eq!((copied.snapshots.len(), copied.lost.len()), (1, 0));
    assert_eq!(contents(&target), contents(&source));
    check_structure(&target);
}

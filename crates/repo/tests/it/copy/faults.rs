//! Stores that fail, on either side: a copy goes through, or ends with an error and without a wrong snapshot.

use super::{contents, copy};
use crate::prune::kit::*;
use retoma_core::ErrorKind;
use retoma_repo::Repository;
use retoma_repo::store::layer::{Layers, RetryPolicy, stack};
use retoma_repo::store::{BlockingStore, Verb};
use retoma_testkit::faulty::{Fault, FaultyStore, Rates, Rule, When};
use std::sync::Arc;

fn both() -> (Repository, Repository) {
    let (_, source) = new_repository();
    let (_, target) = new_repository();
    super::component(&source, &files(0..8));
    super::component(&source, &files(4..16));
    (source, target)
}

fn faulty(repository: &Repository, store: FaultyStore) -> Repository {
    repository.through(BlockingStore::new(Arc::new(store)).unwrap())
}

#[test]
fn random_faults_on_either_side_never_give_a_wrong_success() {
    let (mut went_through, mut failed) = (0, 0);
    for seed in 0..40 {
        let (source, target) = both();
        let rates = Rates { error: 30, ..Rates::default() };
        let random = |repository: &Repository, seed| {
            faulty(repository, FaultyStore::random(Arc::clone(repository.store().store()), seed, rates))
        };
        match copy(&random(&source, seed), &random(&target, seed + 1000)) {
            Ok(copied) => {
                went_through += 1;
                assert_eq!(copied.snapshots.len(), 2, "{seed}: a store that is away is no damage");
                assert_eq!(contents(&target), contents(&source), "{seed}");
            }
            Err(error) => {
                failed += 1;
                assert_eq!(error.kind(), ErrorKind::Unavailable, "{seed}: {error}");
                read_all(&target);
            }
        }
        check_structure(&target);
        copy(&source, &target).unwrap();
        assert_eq!(contents(&target).len(), 2, "{seed}");
    }
    assert!(went_through > 0 && failed > 0, "{went_through} and {failed}");
}

#[test]
fn a_source_that_is_away_is_no_damage() {
    let (source, target) = both();
    for at in [When::Always, When::From(2)] {
        let store = FaultyStore::new(Arc::clone(source.store().store())).with(Rule::new(
            None,
            "data/*",
            at,
            Fault::Error(ErrorKind::Unavailable),
        ));
        let error = copy(&faulty(&source, store), &target).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
    assert!(contents(&target).is_empty());
}

#[test]
fn what_is_tried_again_below_is_not_seen() {
    let (source, target) = both();
    let patient = |repository: &Repository| {
        let store = FaultyStore::new(Arc::clone(repository.store().store()))
            .with(Rule::error_then_ok(None, "data/*", 1))
            .with(Rule::error_then_ok(None, "index/*", 1));
        let retry =
            RetryPolicy { first_delay: std::time::Duration::from_millis(1), ..RetryPolicy::default() };
        let layered = stack(Arc::new(store), Layers { retry, ..Layers::default() });
        repository.through(BlockingStore::new(layered.store).unwrap())
    };
    assert_eq!(copy(&patient(&source), &patient(&target)).unwrap().snapshots.len(), 2);
    assert_eq!(contents(&target), contents(&source));
}

#[test]
fn a_target_that_takes_no_snapshot_has_none_and_keeps_what_was_sent() {
    let (source, target) = both();
    let store = FaultyStore::new(Arc::clone(target.store().store())).with(Rule::new(
        Verb::Put,
        "snapshots/*",
        When::Always,
        Fault::Error(ErrorKind::Unavailable),
    ));
    assert_eq!(copy(&source, &faulty(&target, store)).unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(contents(&target).is_empty());
    let rest = copy(&source, &target).unwrap();
    assert_eq!((rest.snapshots.len(), rest.blobs), (2, 0));
    assert_eq!(contents(&target), contents(&source));
}

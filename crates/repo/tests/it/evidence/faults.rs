//! A store that fails: no record is lost, none comes twice, none is half there.

use super::{chain_of, draft, key, repository_in};
use retoma_core::error::codes;
use retoma_repo::evidence::{Chain, list};
use retoma_repo::store::{ObjectStore, Verb};
use retoma_repo::{ErrorKind, Repository};
use retoma_testkit::{Fault, FaultyStore, Rates, Rule, When};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A chain of so many records in a store that will fail.
fn troubled(records: u64) -> (Arc<FaultyStore>, Repository, Chain) {
    let store = Arc::new(FaultyStore::new(Arc::new(ObjectStore::memory())));
    let repository = repository_in(store.clone());
    let (chain, _) = chain_of(&repository, "ana", &key(), records);
    (store, repository, chain)
}

#[test]
fn a_put_whose_answer_was_lost_is_not_done_twice() {
    let (store, _, chain) = troubled(1);
    store.add(Rule::new(Verb::Put, "evidence/*", When::Always, Fault::DoneButError));
    assert_eq!(chain.append(&key(), &draft(2)).unwrap().sequence(), 2);
    assert_eq!(chain.head().unwrap().unwrap().sequence(), 2);
}

#[test]
fn a_put_that_was_not_done_is_an_error() {
    let (store, _, chain) = troubled(1);
    store.add(Rule::error_then_ok(Verb::Put, "evidence/*", 1));
    assert_eq!(chain.append(&key(), &draft(2)).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(chain.append(&key(), &draft(2)).unwrap().sequence(), 2);
}

#[test]
fn a_store_that_does_not_answer_is_not_taken_for_damage() {
    let (store, repository, chain) = troubled(2);
    store.add(Rule::error_then_ok(Verb::Get, "evidence/*", 3));
    assert_eq!(list(&repository, &BTreeMap::new()).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(chain.head().unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(chain.append(&key(), &draft(3)).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(chain.append(&key(), &draft(3)).unwrap().sequence(), 3);
}

#[test]
fn a_conflict_about_an_object_that_is_not_there_is_an_error() {
    let (store, _, chain) = troubled(1);
    store.add(Rule::new(Verb::Put, "evidence/*", When::Always, Fault::Error(ErrorKind::Conflict)));
    assert_eq!(chain.append(&key(), &draft(2)).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(chain.head().unwrap().unwrap().sequence(), 1);
}

#[test]
fn random_faults_never_give_a_wrong_chain() {
    for seed in 0..20 {
        let rates = Rates { error: 100, done_but_error: 100, corrupt: 50, ..Rates::default() };
        let calm: Arc<ObjectStore> = Arc::new(ObjectStore::memory());
        let repository = repository_in(calm.clone());
        let wild = Arc::new(FaultyStore::random(calm, seed, rates));
        let Ok(troubled) = retoma_repo::Repository::open(
            retoma_repo::store::BlockingStore::new(wild).unwrap(),
            &retoma_core::Secret::new("correct horse".to_owned()),
        ) else {
            continue;
        };
        let chain = Chain::open(&troubled, "ana").unwrap();
        let mut acknowledged = Vec::new();
        for number in 1..=30 {
            match chain.append(&key(), &draft(number)) {
                Ok(record) => acknowledged.push(record),
                Err(error) => assert!(
                    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Corrupt),
                    "seed {seed}: {error:?}"
                ),
            }
        }
        let pins = BTreeMap::from([("ana".to_owned(), key().public_key())]);
        let listings = list(&repository, &pins).unwrap();
        assert!(acknowledged.len() > 3, "seed {seed}: the test shows something");
        assert_eq!(listings[0].damages().count(), 0, "seed {seed}");
        let stored: Vec<_> = listings[0].records().collect();
        for record in &acknowledged {
            assert!(stored.contains(&record), "seed {seed}: record {} is lost", record.sequence());
        }
    }
}

#[test]
fn half_a_record_is_never_taken_for_one() {
    let (store, repository, chain) = troubled(1);
    store.add(Rule::new(Verb::Put, "evidence/*", When::First(1), Fault::HalfWrite));
    chain.append(&key(), &draft(2)).unwrap_err();
    let listings = list(&repository, &BTreeMap::new()).unwrap();
    let damage: Vec<_> = listings[0].damages().map(|damage| damage.error.code()).collect();
    assert_eq!(damage, [codes::NOT_AUTHENTIC]);
    assert_eq!(chain.append(&key(), &draft(3)).unwrap_err().code(), codes::NOT_AUTHENTIC);
    assert_eq!(chain_of(&repository, "ana-2", &key(), 1).1.len(), 1, "another name goes on");
}

//! Evidence in real repositories: chains, exports and what is done to them.

mod chain;
mod export;
mod faults;
mod keys;
mod listing;
mod unconditional;

use retoma_core::Secret;
use retoma_repo::evidence::{Chain, Draft, Outcome, Record, SigningKey, Subject, SubjectComponent, What};
use retoma_repo::store::{BlockingStore, ObjectStore, Store};
use retoma_repo::{KeyId, Repository};
use serde_json::json;
use std::sync::{Arc, LazyLock};

fn repository_in(store: Arc<dyn Store>) -> Repository {
    let store = BlockingStore::new(store).unwrap();
    Repository::open_or_init(store, &Secret::new("correct horse".to_owned())).unwrap().0
}

fn repository() -> Repository {
    repository_in(Arc::new(ObjectStore::memory()))
}

/// Always the same signing key, where a test does not care.
fn key() -> SigningKey {
    static KEY: LazyLock<SigningKey> = LazyLock::new(|| SigningKey::generate().unwrap());
    KEY.clone()
}

fn draft(number: u64) -> Draft {
    Draft {
        time: jiff::Timestamp::new(1_700_000_000 + i64::try_from(number).unwrap(), 0).unwrap(),
        tool_version: "0.1.0".to_owned(),
        what: What::Backup,
        outcome: Outcome::Passed,
        subject: Subject {
            manifest_hash: "00".repeat(32),
            key_id: KeyId([7; 32]),
            components: vec![SubjectComponent {
                component: "db".to_owned(),
                kind: "sqlite".to_owned(),
                snapshot: None,
                data_bytes: 1000,
            }],
        },
        details: json!({ "number": number }),
    }
}

/// The chain of `writer` after `count` appends.
fn chain_of(repository: &Repository, writer: &str, key: &SigningKey, count: u64) -> (Chain, Vec<Record>) {
    let chain = Chain::open(repository, writer).unwrap();
    let records = (1..=count).map(|number| chain.append(key, &draft(number)).unwrap()).collect();
    (chain, records)
}

//! Locks at providers whose test servers know none: what we send, and what we make of the answers. The objects lie in the real test
//! server; what the provider's documents say of locks, the testkit tells. Not run against the real services.

mod azure;
mod google;

use super::suite::CHECKS;
use super::{key, names, text};
use jiff::{SignedDuration, Timestamp};
use retoma_core::manifest::{LockMode, ObjectLock};
use retoma_repo::store::Store;
use retoma_repo::store::layer::{Layers, stack};
use std::sync::Arc;
use tokio::runtime::Runtime;

const STRONG: ObjectLock = ObjectLock { days: 10, mode: LockMode::Compliance };
/// Names of every folder of a repository.
const NAMES: [&str; 10] = [
    "config",
    "keys/a",
    "data/aa/b",
    "index/a",
    "snapshots/a",
    "wal/c/1/2",
    "evidence/w/1",
    "manifests/a",
    "locks/a",
    "marks/a",
];

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

fn hours(hours: i64) -> Timestamp {
    let end = Timestamp::now() + SignedDuration::from_hours(hours);
    Timestamp::from_second(end.as_second()).unwrap()
}

fn is_near(time: Timestamp, expected: Timestamp) -> bool {
    (time.as_second() - expected.as_second()).abs() < 30
}

/// Runs every check on the store behind all layers, each in a prefix of its own.
fn conforms(runtime: &Runtime, open: impl Fn(&str) -> Arc<dyn Store>) {
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        let store = stack(open(&format!("checks/{name}")), Layers::default()).store;
        if runtime.block_on(async { tokio::spawn(check(store)).await }).is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "these checks failed: {failed:?}; their panics are above");
}

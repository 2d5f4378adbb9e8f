//! Object retention of Google Cloud Storage.

use super::{Bucket, Front, Kept, STRONG, key};
use super::{believes_no_lock_that_is_not_given, conforms, locks_by_the_request_that_writes};
use retoma_core::ErrorKind;
use retoma_core::error::codes;
use retoma_core::manifest::LockMode;
use retoma_repo::store::cloud::Held;
use retoma_testkit::{GcsServer, GoogleLock, RetainingGoogle};
use std::collections::BTreeMap;

impl Front for RetainingGoogle {
    fn kept(&self) -> BTreeMap<String, Option<Kept>> {
        self.objects().into_iter().map(|(name, lock)| (name, lock.map(|lock| kept(&lock)))).collect()
    }

    fn changes(&self) -> usize {
        self.changes().len()
    }

    fn takes_locks(&self, takes: bool) {
        self.set_up(takes, true);
    }

    fn forget(&self) {
        self.forget_retention();
    }
}

fn kept(lock: &GoogleLock) -> Kept {
    let mode = match lock.mode.as_str() {
        "Locked" => LockMode::Compliance,
        "Unlocked" => LockMode::Governance,
        other => panic!("{other}"),
    };
    assert!(lock.until.len() == "2030-01-02T03:04:05Z".len(), "whole seconds: {}", lock.until);
    Kept { held: Held::Until(lock.until.parse().unwrap(), mode), from_its_write: lock.by == "POST" }
}

/// The server must live as long as its bucket is used.
fn bucket() -> Option<(GcsServer, Bucket<RetainingGoogle>)> {
    let server = GcsServer::start()?;
    server.make_bucket("bucket");
    let front = RetainingGoogle::before(&server);
    let variables = server.variables_at(front.port());
    Some((server, Bucket::new("gs://bucket", variables, front)))
}

#[test]
fn google_with_locks_conforms_and_each_object_is_locked_by_the_request_that_writes_it() {
    let Some((_server, bucket)) = bucket() else { return };
    conforms(&bucket);
    for (mode, prefix) in [(LockMode::Compliance, "strong"), (LockMode::Governance, "weak")] {
        locks_by_the_request_that_writes(&bucket, prefix, mode);
    }
    assert!(bucket.front.changes().is_empty(), "no second request is needed");
}

#[test]
fn google_is_asked_for_what_a_lock_lacks_and_never_for_less() {
    let Some((_server, bucket)) = bucket() else { return };
    super::renews_what_is_missing(&bucket);
    // Google wants to be told that an unlocked retention is changed for a stronger one, and is not told so otherwise.
    let told: Vec<String> = bucket
        .front
        .changes()
        .into_iter()
        .filter(|it| it.contains("overrideUnlockedRetention=true"))
        .collect();
    assert!(told.len() == 1 && told[0].contains("keys%2Fa"), "{told:?}");
}

#[test]
fn a_lock_that_google_does_not_give_is_no_success() {
    let Some((_server, bucket)) = bucket() else { return };
    believes_no_lock_that_is_not_given(&bucket, "gs://nobodys/x");
}

#[test]
fn without_versions_google_deletes_nothing_that_is_locked() {
    let Some((_server, bucket)) = bucket() else { return };
    bucket.front.set_up(true, false);
    let store = bucket.store("z", STRONG);
    for name in ["config", "locks/a"] {
        bucket.put(&store, name).unwrap();
    }
    let state = bucket.locks("z", STRONG).bucket().unwrap();
    assert_eq!((state.has_locks, state.has_versions), (true, false));
    bucket.front.set_up(false, true);
    let other = bucket.locks("z", STRONG).bucket().unwrap();
    assert_eq!((other.has_locks, other.has_versions), (false, true));
    bucket.front.set_up(true, false);
    let refused = bucket.runtime.block_on(store.delete(&key("config"))).unwrap_err();
    assert_eq!((refused.kind(), refused.code()), (ErrorKind::Unauthorized, codes::STORE_DENIED), "{refused}");
    assert!(refused.hint().unwrap_or_default().contains("keeps versions"), "{:?}", refused.hint());
    bucket.runtime.block_on(store.delete(&key("locks/a"))).unwrap();
    assert_eq!(bucket.names(&*store), ["config"]);
}

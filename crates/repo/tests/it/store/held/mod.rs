//! Locks at providers whose test servers know none: what we send, and what we make of the answers. The objects lie in the real test
//! server; what the provider's documents say of locks, the testkit tells. Not run against the real services.

mod azure;
mod google;

use super::suite::CHECKS;
use super::{key, names, text};
use jiff::{SignedDuration, Timestamp};
use retoma_core::error::codes;
use retoma_core::manifest::{LockMode, ObjectLock};
use retoma_core::{ErrorKind, Result};
use retoma_repo::store::cloud::{self, Held, Locks, Variables};
use retoma_repo::store::layer::{Layers, stack};
use retoma_repo::store::{PutMode, Store};
use std::collections::BTreeMap;
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

fn hours(hours: i64) -> Timestamp {
    let end = Timestamp::now() + SignedDuration::from_hours(hours);
    Timestamp::from_second(end.as_second()).unwrap()
}

/// What a provider has of an object's lock, and whether it came with the request that wrote the object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Kept {
    held: Held,
    from_its_write: bool,
}

/// The side of the provider, as the testkit tells it.
trait Front {
    /// Every object by its name, with its lock.
    fn kept(&self) -> BTreeMap<String, Option<Kept>>;
    /// How many requests changed the lock of an object that was there.
    fn changes(&self) -> usize;
    /// Whether the bucket takes locks.
    fn takes_locks(&self, takes: bool);
    /// From now on it takes locks, and forgets them.
    fn forget(&self);
}

/// A bucket whose provider locks objects.
struct Bucket<F> {
    url: &'static str,
    variables: Variables,
    front: F,
    runtime: Runtime,
}

impl<F: Front> Bucket<F> {
    fn new(url: &'static str, variables: Variables, front: F) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        Self { url, variables, front, runtime: runtime.unwrap() }
    }

    fn address(&self, prefix: &str) -> url::Url {
        format!("{}/{prefix}", self.url).parse().unwrap()
    }

    fn store(&self, prefix: &str, lock: ObjectLock) -> Arc<dyn Store> {
        cloud::open_locked_with(&self.address(prefix), &self.variables, lock).unwrap()
    }

    fn plain(&self, prefix: &str) -> Arc<dyn Store> {
        cloud::open_with(&self.address(prefix), &self.variables).unwrap()
    }

    fn locks(&self, prefix: &str, lock: ObjectLock) -> Locks {
        Locks::open_with(&self.address(prefix), &self.variables, lock).unwrap()
    }

    fn put(&self, store: &Arc<dyn Store>, name: &str) -> Result<()> {
        self.runtime.block_on(store.put(&key(name), text("x"), PutMode::Create))
    }

    fn names(&self, store: &dyn Store) -> Vec<String> {
        self.runtime.block_on(names(store, "")).unwrap()
    }

    /// The lock of an object that must have one.
    fn kept(&self, name: &str) -> Kept {
        self.front.kept()[name].unwrap_or_else(|| panic!("{name} has no lock"))
    }
}

/// Runs every check on the locked store behind all layers, each in a prefix of its own.
fn conforms<F: Front>(bucket: &Bucket<F>) {
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        let store = stack(bucket.store(&format!("checks/{name}"), STRONG), Layers::default()).store;
        if bucket.runtime.block_on(async { tokio::spawn(check(store)).await }).is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "these checks failed: {failed:?}; their panics are above");
    for (name, kept) in bucket.front.kept() {
        let is_strong = |kept: Kept| matches!(kept.held, Held::Until(_, LockMode::Compliance));
        assert!(kept.is_none_or(|kept| kept.from_its_write && is_strong(kept)), "{name}: {kept:?}");
    }
}

/// Every object of these names has its lock from the request that wrote it, and those that must go have none. `prefix` is not used
/// otherwise.
fn locks_by_the_request_that_writes<F: Front>(bucket: &Bucket<F>, prefix: &str, mode: LockMode) {
    let lock = ObjectLock { mode, ..STRONG };
    let (store, locks) = (bucket.store(prefix, lock), bucket.locks(prefix, lock));
    for name in NAMES {
        bucket.put(&store, name).unwrap();
    }
    for name in NAMES {
        let held = locks.held(&key(name)).unwrap();
        if name.starts_with("locks/") || name.starts_with("marks/") {
            assert_eq!(
                (bucket.front.kept()[&format!("{prefix}/{name}")], held),
                (None, Held::Free),
                "{name}"
            );
            continue;
        }
        let kept = bucket.kept(&format!("{prefix}/{name}"));
        assert_eq!(kept, Kept { held, from_its_write: true }, "{name}");
        let Held::Until(until, its) = held else { panic!("{name}: {held:?}") };
        assert_eq!(its, mode, "{name}");
        let expected = lock.until(Timestamp::now()).as_second();
        assert!((until.as_second() - expected).abs() < 30, "{name}: {until}");
    }
    // An object that is overwritten, too.
    bucket.runtime.block_on(store.put(&key("config"), text("y"), PutMode::Overwrite)).unwrap();
    assert!(bucket.kept(&format!("{prefix}/config")).from_its_write);
}

/// A renewal asks for what a lock lacks, and never for less.
fn renews_what_is_missing<F: Front>(bucket: &Bucket<F>) {
    let locks = bucket.locks("z", STRONG);
    assert_eq!(locks.held(&key("config")).unwrap(), Held::Gone);
    bucket.put(&bucket.store("z", ObjectLock { days: 1, ..STRONG }), "config").unwrap();
    bucket.put(&bucket.store("z", ObjectLock { days: 1, mode: LockMode::Governance }), "keys/a").unwrap();
    bucket.put(&bucket.plain("z"), "index/a").unwrap();
    bucket.put(&bucket.plain("z"), "locks/a").unwrap();
    let strong = |end| Kept { held: Held::Until(end, LockMode::Compliance), from_its_write: false };

    // Later, in its own mode.
    let end = hours(24 * 12);
    locks.extend(&key("config"), locks.held(&key("config")).unwrap(), end).unwrap();
    assert_eq!(bucket.kept("z/config"), strong(end));
    // Enough as it is: nothing is sent.
    let held = locks.held(&key("config")).unwrap();
    assert_eq!(held, strong(end).held);
    for enough in [end, hours(24)] {
        locks.extend(&key("config"), held, enough).unwrap();
    }
    assert_eq!(bucket.front.changes(), 1);
    // A strong lock stays one, also where the manifest wants a weak one.
    let weak = bucket.locks("z", ObjectLock { mode: LockMode::Governance, ..STRONG });
    let later = hours(24 * 13);
    weak.extend(&key("config"), held, later).unwrap();
    assert_eq!(bucket.kept("z/config"), strong(later));
    // A weak one is made strong, and ends no earlier than it did.
    let held = locks.held(&key("keys/a")).unwrap();
    locks.extend(&key("keys/a"), held, hours(1)).unwrap();
    assert_eq!(bucket.kept("z/keys/a"), strong(held.end().unwrap()));
    // What has none gets one.
    locks.extend(&key("index/a"), locks.held(&key("index/a")).unwrap(), end).unwrap();
    assert_eq!(bucket.kept("z/index/a"), strong(end));
    // Who did not see the newest lock is refused by the provider, not by luck.
    let refused = locks.extend(&key("config"), Held::Free, hours(24)).unwrap_err();
    assert_eq!((refused.kind(), refused.code()), (ErrorKind::Unauthorized, codes::STORE_DENIED), "{refused}");
    let gone = locks.extend(&key("data/aa/y"), Held::Free, end).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound, "{gone}");
    let before = bucket.front.changes();
    assert!(locks.extend(&key("locks/a"), Held::Free, end).is_err());
    assert_eq!(bucket.front.changes(), before);
}

/// A lock that the provider does not give is no success; what is refused for another reason is not taken for that.
fn believes_no_lock_that_is_not_given<F: Front>(bucket: &Bucket<F>, nobodys: &str) {
    let locks = bucket.locks("z", STRONG);
    let is_refused = |outcome: Result<()>| {
        let refused = outcome.unwrap_err();
        let expected = (ErrorKind::Invalid, codes::STORE_NO_LOCKS);
        assert_eq!((refused.kind(), refused.code()), expected, "{refused}");
    };
    bucket.put(&bucket.plain("z"), "index/a").unwrap();
    // The bucket has none.
    bucket.front.takes_locks(false);
    is_refused(bucket.put(&bucket.store("z", STRONG), "config"));
    is_refused(locks.extend(&key("index/a"), Held::Free, hours(24)));
    assert_eq!(bucket.names(&*bucket.plain("z")), ["index/a"]);
    assert!(!locks.bucket().unwrap().has_locks);
    bucket.front.takes_locks(true);
    assert!(locks.bucket().unwrap().has_locks && locks.bucket().unwrap().has_versions);
    let nobodys = cloud::open_locked_with(&nobodys.parse().unwrap(), &bucket.variables, STRONG).unwrap();
    assert_eq!(bucket.put(&nobodys, "config").unwrap_err().code(), codes::STORE_BUCKET);
    bucket.put(&bucket.store("z", STRONG), "config").unwrap();
    let again = bucket.put(&bucket.store("z", STRONG), "config").unwrap_err();
    assert_eq!(again.code(), codes::OBJECT_EXISTS, "{again}");
    // A server that takes the request and leaves the lock out.
    bucket.front.forget();
    is_refused(bucket.put(&bucket.store("z", STRONG), "keys/a"));
    is_refused(locks.extend(&key("index/a"), Held::Free, hours(24)));
    assert_eq!(locks.held(&key("config")).unwrap(), Held::Free);
    bucket.put(&bucket.store("z", STRONG), "locks/a").unwrap();
}

//! Object retention of Google Cloud Storage.

use super::{NAMES, STRONG, conforms, hours, is_near, key, names, runtime, text};
use jiff::Timestamp;
use retoma_core::error::codes;
use retoma_core::manifest::{LockMode, ObjectLock};
use retoma_core::{ErrorKind, Result};
use retoma_repo::store::{PutMode, Store, cloud};
use retoma_testkit::{GcsServer, GoogleLock, RetainingGoogle};
use std::sync::Arc;
use tokio::runtime::Runtime;

fn sent(end: Timestamp) -> String {
    end.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

struct Google {
    server: GcsServer,
    front: RetainingGoogle,
    runtime: Runtime,
}

impl Google {
    fn new() -> Option<Self> {
        let server = GcsServer::start()?;
        server.make_bucket("bucket");
        let front = RetainingGoogle::before(&server);
        Some(Self { server, front, runtime: runtime() })
    }

    fn variables(&self) -> cloud::Variables {
        self.server.variables_at(self.front.port())
    }

    fn store(&self, prefix: &str, lock: ObjectLock) -> Arc<dyn Store> {
        let address = format!("gs://bucket/{prefix}").parse().unwrap();
        cloud::open_locked_with(&address, &self.variables(), lock).unwrap()
    }

    fn plain(&self, prefix: &str) -> Arc<dyn Store> {
        cloud::open_with(&format!("gs://bucket/{prefix}").parse().unwrap(), &self.variables()).unwrap()
    }

    fn locks(&self, prefix: &str, lock: ObjectLock) -> cloud::Locks {
        let address = format!("gs://bucket/{prefix}").parse().unwrap();
        cloud::Locks::open_with(&address, &self.variables(), lock).unwrap()
    }

    fn put(&self, store: &Arc<dyn Store>, name: &str) -> Result<()> {
        self.runtime.block_on(store.put(&key(name), text("x"), PutMode::Create))
    }

    /// What the provider has of an object's lock.
    fn lock(&self, name: &str) -> GoogleLock {
        self.front.objects()[name].clone().unwrap()
    }
}

#[test]
fn google_with_locks_conforms_and_each_object_is_locked_by_the_request_that_writes_it() {
    let Some(google) = Google::new() else { return };
    conforms(&google.runtime, |prefix| google.store(prefix, STRONG));
    for lock in google.front.objects().values().flatten() {
        assert_eq!((lock.mode.as_str(), lock.by.as_str()), ("Locked", "POST"), "{lock:?}");
    }

    for (mode, expected) in [(LockMode::Compliance, "Locked"), (LockMode::Governance, "Unlocked")] {
        let lock = ObjectLock { mode, ..STRONG };
        let (store, locks) = (google.store(expected, lock), google.locks(expected, lock));
        for name in NAMES {
            google.put(&store, name).unwrap();
            let found = google.front.objects()[&format!("{expected}/{name}")].clone();
            let held = locks.held(&key(name)).unwrap();
            if name.starts_with("locks/") || name.starts_with("marks/") {
                assert_eq!((found, held), (None, cloud::Held::Free), "{name}");
                continue;
            }
            let found = found.unwrap_or_else(|| panic!("{name} has no lock"));
            assert_eq!((found.mode.as_str(), found.by.as_str()), (expected, "POST"), "{name}");
            let until: Timestamp = found.until.parse().unwrap();
            assert!(is_near(until, lock.until(Timestamp::now())), "{name}: {until}");
            assert_eq!(held, cloud::Held::Until(until, mode), "{name}");
        }
        // An object that is overwritten, too.
        google.runtime.block_on(store.put(&key("config"), text("y"), PutMode::Overwrite)).unwrap();
        assert_eq!(google.lock(&format!("{expected}/config")).by, "POST");
    }
    assert!(google.front.changes().is_empty(), "no second request is needed");
}

#[test]
fn google_is_asked_for_what_a_lock_lacks_and_never_for_less() {
    let Some(google) = Google::new() else { return };
    let locks = google.locks("z", STRONG);
    assert_eq!(locks.held(&key("config")).unwrap(), cloud::Held::Gone);
    google.put(&google.store("z", ObjectLock { days: 1, ..STRONG }), "config").unwrap();
    google.put(&google.store("z", ObjectLock { days: 1, mode: LockMode::Governance }), "keys/a").unwrap();
    google.put(&google.plain("z"), "index/a").unwrap();
    google.put(&google.plain("z"), "locks/a").unwrap();

    // Later, in its own mode.
    let end = hours(24 * 12);
    let held = locks.held(&key("config")).unwrap();
    locks.extend(&key("config"), held, end).unwrap();
    let expected =
        |mode: &str, end| GoogleLock { mode: mode.to_owned(), until: sent(end), by: "PATCH".to_owned() };
    assert_eq!(google.lock("z/config"), expected("Locked", end));
    // Enough as it is: nothing is sent.
    let held = locks.held(&key("config")).unwrap();
    assert_eq!(held, cloud::Held::Until(end, LockMode::Compliance));
    for enough in [end, hours(24)] {
        locks.extend(&key("config"), held, enough).unwrap();
    }
    assert_eq!(google.front.changes().len(), 1);
    assert!(!google.front.changes()[0].contains("overrideUnlockedRetention"), "{:?}", google.front.changes());
    // A strong lock stays one, also where the manifest wants a weak one.
    let weak = google.locks("z", ObjectLock { mode: LockMode::Governance, ..STRONG });
    weak.extend(&key("config"), held, hours(24 * 13)).unwrap();
    assert_eq!(google.lock("z/config").mode, "Locked");
    // A weak one is made strong, and ends no earlier than it did.
    let held = locks.held(&key("keys/a")).unwrap();
    locks.extend(&key("keys/a"), held, hours(1)).unwrap();
    assert_eq!(google.lock("z/keys/a"), expected("Locked", held.end().unwrap()));
    assert!(google.front.changes().last().unwrap().contains("overrideUnlockedRetention=true"));
    // What has none gets one.
    locks.extend(&key("index/a"), locks.held(&key("index/a")).unwrap(), end).unwrap();
    assert_eq!(google.lock("z/index/a"), expected("Locked", end));
    // Who did not see the newest lock is refused by Google, not by luck.
    let refused = locks.extend(&key("config"), cloud::Held::Free, hours(24)).unwrap_err();
    assert_eq!((refused.kind(), refused.code()), (ErrorKind::Unauthorized, codes::STORE_DENIED), "{refused}");
    let gone = locks.extend(&key("data/aa/y"), cloud::Held::Free, end).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound, "{gone}");
    let before = google.front.changes().len();
    assert!(locks.extend(&key("locks/a"), cloud::Held::Free, end).is_err());
    assert_eq!(google.front.changes().len(), before);
}

#[test]
fn a_lock_that_google_does_not_give_is_no_success() {
    let Some(google) = Google::new() else { return };
    let locks = google.locks("z", STRONG);
    let is_refused = |outcome: Result<()>| {
        let refused = outcome.unwrap_err();
        assert_eq!(
            (refused.kind(), refused.code()),
            (ErrorKind::Invalid, codes::STORE_NO_LOCKS),
            "{refused}"
        );
    };
    google.put(&google.plain("z"), "index/a").unwrap();
    // The bucket has no object retention.
    google.front.set_up(false, true);
    is_refused(google.put(&google.store("z", STRONG), "config"));
    is_refused(locks.extend(&key("index/a"), cloud::Held::Free, hours(24)));
    assert_eq!(google.runtime.block_on(names(&*google.plain("z"), "")).unwrap(), ["index/a"]);
    let state = locks.bucket().unwrap();
    assert_eq!((state.has_locks, state.has_versions), (false, true));
    // What is refused for another reason is not taken for that.
    let nobodys =
        cloud::open_locked_with(&"gs://nobodys/x".parse().unwrap(), &google.variables(), STRONG).unwrap();
    google.front.set_up(true, true);
    assert_eq!(google.put(&nobodys, "config").unwrap_err().code(), codes::STORE_BUCKET);
    google.put(&google.store("z", STRONG), "config").unwrap();
    let again = google.put(&google.store("z", STRONG), "config").unwrap_err();
    assert_eq!(again.code(), codes::OBJECT_EXISTS);
    // A server that takes the request and leaves the lock out.
    google.front.forget_retention();
    is_refused(google.put(&google.store("z", STRONG), "keys/a"));
    is_refused(locks.extend(&key("index/a"), cloud::Held::Free, hours(24)));
    assert_eq!(locks.held(&key("config")).unwrap(), cloud::Held::Free);
    google.put(&google.store("z", STRONG), "locks/a").unwrap();
}

#[test]
fn without_versions_google_deletes_nothing_that_is_locked() {
    let Some(google) = Google::new() else { return };
    google.front.set_up(true, false);
    let store = google.store("z", STRONG);
    for name in ["config", "locks/a"] {
        google.put(&store, name).unwrap();
    }
    assert!(!google.locks("z", STRONG).bucket().unwrap().has_versions);
    let refused = google.runtime.block_on(store.delete(&key("config"))).unwrap_err();
    assert_eq!((refused.kind(), refused.code()), (ErrorKind::Unauthorized, codes::STORE_DENIED), "{refused}");
    assert!(refused.hint().unwrap_or_default().contains("keeps versions"), "{:?}", refused.hint());
    google.runtime.block_on(store.delete(&key("locks/a"))).unwrap();
    assert_eq!(google.runtime.block_on(names(&*store, "")).unwrap(), ["config"]);
}

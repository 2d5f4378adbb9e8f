//! Version-level immutability of Azure.

use super::{NAMES, STRONG, conforms, hours, is_near, key, names, runtime, text};
use jiff::Timestamp;
use retoma_core::error::codes;
use retoma_core::manifest::{LockMode, ObjectLock};
use retoma_core::{ErrorKind, Result};
use retoma_repo::store::{PutMode, Store, cloud};
use retoma_testkit::{AzureLock, AzuriteServer, Exchange, ImmutableAzure};
use std::sync::Arc;
use tokio::runtime::Runtime;

struct Azure {
    server: AzuriteServer,
    front: ImmutableAzure,
    runtime: Runtime,
}

impl Azure {
    fn new() -> Option<Self> {
        let server = AzuriteServer::start()?;
        server.make_container("container");
        let front = ImmutableAzure::before(&server, "container");
        Some(Self { server, front, runtime: runtime() })
    }

    fn variables(&self) -> cloud::Variables {
        self.server.variables_at(self.front.port())
    }

    fn store(&self, prefix: &str, lock: ObjectLock) -> Arc<dyn Store> {
        let address = format!("az://container/{prefix}").parse().unwrap();
        cloud::open_locked_with(&address, &self.variables(), lock).unwrap()
    }

    fn plain(&self, prefix: &str) -> Arc<dyn Store> {
        cloud::open_with(&format!("az://container/{prefix}").parse().unwrap(), &self.variables()).unwrap()
    }

    fn locks(&self, prefix: &str, lock: ObjectLock) -> cloud::Locks {
        let address = format!("az://container/{prefix}").parse().unwrap();
        cloud::Locks::open_with(&address, &self.variables(), lock).unwrap()
    }

    fn put(&self, store: &Arc<dyn Store>, name: &str) -> Result<()> {
        self.runtime.block_on(store.put(&key(name), text("x"), PutMode::Create))
    }

    fn lock(&self, name: &str) -> AzureLock {
        self.front.blobs()[name].clone().unwrap()
    }

    /// The signature that Microsoft's documents ask for ("Authorize with Shared Key"), made by openssl.
    fn signature(&self, asked: &Exchange) -> String {
        let value = |name: &str| asked.header(name).unwrap_or_default();
        let length = if value("content-length") == "0" { "" } else { value("content-length") };
        let standard = [
            asked.method.as_str(),
            value("content-encoding"),
            value("content-language"),
            length,
            value("content-md5"),
            value("content-type"),
            value("date"),
            value("if-modified-since"),
            value("if-match"),
            value("if-none-match"),
            value("if-unmodified-since"),
            value("range"),
        ];
        let own = asked.head.lines().skip(1).filter_map(|line| {
            let (name, value) = line.split_once(':')?;
            let name = name.to_ascii_lowercase();
            name.starts_with("x-ms-").then(|| format!("{name}:{}", value.trim()))
        });
        let mut own: Vec<String> = own.collect();
        own.sort();
        let (path, query) = asked.target.split_once('?').unwrap_or((asked.target.as_str(), ""));
        let mut parts: Vec<String> =
            query.split('&').filter(|it| !it.is_empty()).map(|it| it.replacen('=', ":", 1)).collect();
        parts.sort();
        // The emulator has the account in the path, and therefore twice in what is signed.
        let resource = [vec![format!("/{}{path}", AzuriteServer::ACCOUNT)], parts].concat();
        let lines = [standard.map(str::to_owned).to_vec(), own, resource].concat();
        format!("SharedKey {}:{}", AzuriteServer::ACCOUNT, self.server.sign(&lines.join("\n")))
    }
}

#[test]
fn azure_with_locks_conforms_and_each_blob_is_locked_by_the_request_that_writes_it() {
    let Some(azure) = Azure::new() else { return };
    conforms(&azure.runtime, |prefix| azure.store(prefix, STRONG));

    for (mode, expected) in [(LockMode::Compliance, "locked"), (LockMode::Governance, "unlocked")] {
        let lock = ObjectLock { mode, ..STRONG };
        let (store, locks) = (azure.store(expected, lock), azure.locks(expected, lock));
        let looks = azure.front.asked("HEAD");
        for name in NAMES {
            azure.put(&store, name).unwrap();
        }
        assert_eq!(azure.front.asked("HEAD"), looks + 1, "the first blob of a process is looked at");
        for name in NAMES {
            let found = azure.front.blobs()[&format!("{expected}/{name}")].clone();
            let held = locks.held(&key(name)).unwrap();
            if name.starts_with("locks/") || name.starts_with("marks/") {
                assert_eq!((found, held), (None, cloud::Held::Free), "{name}");
                continue;
            }
            let found = found.unwrap_or_else(|| panic!("{name} has no policy"));
            assert_eq!((found.mode.as_str(), found.by), (expected, "Put Blob"), "{name}");
            let until = jiff::fmt::rfc2822::parse(&found.until).unwrap().timestamp();
            assert!(is_near(until, lock.until(Timestamp::now())), "{name}: {until}");
            assert_eq!(held, cloud::Held::Until(until, mode), "{name}");
        }
        azure.runtime.block_on(store.put(&key("config"), text("y"), PutMode::Overwrite)).unwrap();
        assert_eq!(azure.lock(&format!("{expected}/config")).by, "Put Blob");
    }
    assert_eq!(azure.front.changes(), 0, "no second request is needed");
    // Azurite has checked them as well; but what is not signed it would not miss.
    let requests = azure.front.requests();
    assert!(requests.len() > NAMES.len());
    for asked in requests {
        assert_eq!(asked.header("authorization"), Some(azure.signature(&asked).as_str()), "{}", asked.head);
        assert!(asked.header("x-ms-version") >= Some("2020-06-12"), "{}", asked.head);
    }
}

#[test]
fn azure_is_asked_for_what_a_lock_lacks_and_never_for_less() {
    let Some(azure) = Azure::new() else { return };
    let locks = azure.locks("z", STRONG);
    assert_eq!(locks.held(&key("config")).unwrap(), cloud::Held::Gone);
    azure.put(&azure.store("z", ObjectLock { days: 1, ..STRONG }), "config").unwrap();
    azure.put(&azure.store("z", ObjectLock { days: 1, mode: LockMode::Governance }), "keys/a").unwrap();
    azure.put(&azure.plain("z"), "index/a").unwrap();
    azure.put(&azure.plain("z"), "locks/a").unwrap();
    let state = locks.bucket().unwrap();
    assert_eq!((state.has_locks, state.has_versions), (true, true));

    let expected = |mode: &str, end: Timestamp| AzureLock {
        mode: mode.to_owned(),
        until: end.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string(),
        by: "Set Blob Immutability Policy",
    };
    // Later, in its own mode.
    let end = hours(24 * 12);
    locks.extend(&key("config"), locks.held(&key("config")).unwrap(), end).unwrap();
    assert_eq!(azure.lock("z/config"), expected("locked", end));
    // Enough as it is: nothing is sent.
    let held = locks.held(&key("config")).unwrap();
    assert_eq!(held, cloud::Held::Until(end, LockMode::Compliance));
    for enough in [end, hours(24)] {
        locks.extend(&key("config"), held, enough).unwrap();
    }
    assert_eq!(azure.front.changes(), 1);
    // A strong policy stays one, a weak one is made strong and ends no earlier, and what has none gets one.
    let weak = azure.locks("z", ObjectLock { mode: LockMode::Governance, ..STRONG });
    weak.extend(&key("config"), held, hours(24 * 13)).unwrap();
    assert_eq!(azure.lock("z/config").mode, "locked");
    let held = locks.held(&key("keys/a")).unwrap();
    locks.extend(&key("keys/a"), held, hours(1)).unwrap();
    assert_eq!(azure.lock("z/keys/a"), expected("locked", held.end().unwrap()));
    locks.extend(&key("index/a"), locks.held(&key("index/a")).unwrap(), end).unwrap();
    assert_eq!(azure.lock("z/index/a"), expected("locked", end));
    // Who did not see the newest policy is refused.
    let refused = locks.extend(&key("config"), cloud::Held::Free, hours(24)).unwrap_err();
    assert_eq!((refused.kind(), refused.code()), (ErrorKind::Unauthorized, codes::STORE_DENIED), "{refused}");
    let gone = locks.extend(&key("data/aa/y"), cloud::Held::Free, end).unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NotFound, "{gone}");
    let before = azure.front.changes();
    assert!(locks.extend(&key("locks/a"), cloud::Held::Free, end).is_err());
    assert_eq!(azure.front.changes(), before);
    for asked in azure.front.requests() {
        assert_eq!(asked.header("authorization"), Some(azure.signature(&asked).as_str()), "{}", asked.head);
    }
}

#[test]
fn a_policy_that_azure_does_not_give_is_no_success() {
    let Some(azure) = Azure::new() else { return };
    let locks = azure.locks("z", STRONG);
    let is_refused = |outcome: Result<()>| {
        let refused = outcome.unwrap_err();
        assert_eq!(
            (refused.kind(), refused.code()),
            (ErrorKind::Invalid, codes::STORE_NO_LOCKS),
            "{refused}"
        );
    };
    azure.put(&azure.plain("z"), "index/a").unwrap();
    // The container has no version-level immutability.
    azure.front.set_up(false);
    is_refused(azure.put(&azure.store("z", STRONG), "config"));
    is_refused(locks.extend(&key("index/a"), cloud::Held::Free, hours(24)));
    assert_eq!(azure.runtime.block_on(names(&*azure.plain("z"), "")).unwrap(), ["index/a"]);
    assert!(!locks.bucket().unwrap().has_locks);
    // What is refused for another reason is not taken for that.
    azure.front.set_up(true);
    let open = |address: &str, variables: &cloud::Variables| {
        cloud::open_locked_with(&address.parse().unwrap(), variables, STRONG).unwrap()
    };
    let nobodys = open("az://nobodys/x", &azure.variables());
    assert_eq!(azure.put(&nobodys, "config").unwrap_err().code(), codes::STORE_BUCKET);
    let mut wrong = azure.variables();
    wrong.iter_mut().find(|(name, _)| name == "AZURE_STORAGE_ACCOUNT_KEY").unwrap().1 = "d3Jvbmc=".to_owned();
    let refused = azure.put(&open("az://container/z", &wrong), "config").unwrap_err();
    assert_eq!(refused.code(), codes::STORE_DENIED, "{refused}");
    azure.put(&azure.store("z", STRONG), "config").unwrap();
    let again = azure.put(&azure.store("z", STRONG), "config").unwrap_err();
    assert_eq!(again.code(), codes::OBJECT_EXISTS, "{again}");
    // A server that takes the request and leaves the policy out.
    azure.front.forget_policies();
    is_refused(azure.put(&azure.store("z", STRONG), "keys/a"));
    is_refused(locks.extend(&key("index/a"), cloud::Held::Free, hours(24)));
    assert_eq!(locks.held(&key("config")).unwrap(), cloud::Held::Free);
    azure.put(&azure.store("z", STRONG), "locks/a").unwrap();
}

/// What Azurite itself makes of it: nothing, and that is seen.
#[test]
fn a_server_that_passes_over_policies_gives_no_success() {
    let Some(server) = AzuriteServer::start() else { return };
    server.make_container("container");
    let address = "az://container/z".parse().unwrap();
    let store = cloud::open_locked_with(&address, &server.variables(), STRONG).unwrap();
    let refused = runtime().block_on(store.put(&key("config"), text("x"), PutMode::Create)).unwrap_err();
    assert_eq!(refused.code(), codes::STORE_NO_LOCKS, "{refused}");
    let locks = cloud::Locks::open_with(&address, &server.variables(), STRONG).unwrap();
    assert!(!locks.bucket().unwrap().has_locks);
    // What the crate does with these is not what our own requests would do.
    for (name, value) in [("AZURE_STORAGE_USE_EMULATOR", "true"), ("AZURE_STORAGE_ENCRYPTION_KEY", "x")] {
        let mut variables = server.variables();
        variables.push((name.to_owned(), value.to_owned()));
        let refused = cloud::open_locked_with(&address, &variables, STRONG).unwrap_err();
        assert_eq!(refused.code(), codes::STORE_NO_LOCKS, "{name}: {refused}");
    }
}

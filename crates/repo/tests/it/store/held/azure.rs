//! Version-level immutability of Azure.

use super::{Bucket, Front, Kept, NAMES, STRONG};
use super::{believes_no_lock_that_is_not_given, conforms, locks_by_the_request_that_writes};
use retoma_core::error::codes;
use retoma_core::manifest::LockMode;
use retoma_repo::store::cloud::{self, Held, Locks};
use retoma_testkit::{AzureLock, AzuriteServer, Exchange, ImmutableAzure};
use std::collections::BTreeMap;

impl Front for ImmutableAzure {
    fn kept(&self) -> BTreeMap<String, Option<Kept>> {
        self.blobs().into_iter().map(|(name, lock)| (name, lock.map(|lock| kept(&lock)))).collect()
    }

    fn changes(&self) -> usize {
        self.changes()
    }

    fn takes_locks(&self, takes: bool) {
        self.set_up(takes);
    }

    fn forget(&self) {
        self.forget_policies();
    }
}

fn kept(lock: &AzureLock) -> Kept {
    let mode = match lock.mode.as_str() {
        "locked" => LockMode::Compliance,
        "unlocked" => LockMode::Governance,
        other => panic!("{other}"),
    };
    assert!(lock.until.ends_with(" GMT"), "{}", lock.until);
    let until = jiff::fmt::rfc2822::parse(&lock.until).unwrap().timestamp();
    Kept { held: Held::Until(until, mode), from_its_write: lock.by == "Put Blob" }
}

/// The server must live as long as its bucket is used.
fn bucket() -> Option<(AzuriteServer, Bucket<ImmutableAzure>)> {
    let server = AzuriteServer::start()?;
    server.make_container("container");
    let front = ImmutableAzure::before(&server, "container");
    let variables = server.variables_at(front.port());
    Some((server, Bucket::new("az://container", variables, front)))
}

/// The signature that Microsoft's documents ask for ("Authorize with Shared Key"), made by openssl.
fn signature(server: &AzuriteServer, asked: &Exchange) -> String {
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
    format!("SharedKey {}:{}", AzuriteServer::ACCOUNT, server.sign(&lines.join("\n")))
}

/// Azurite has checked the signatures of these requests as well; but what is not signed it would not miss.
fn assert_signed(server: &AzuriteServer, front: &ImmutableAzure) {
    let requests = front.requests();
    assert!(!requests.is_empty());
    for asked in requests {
        assert_eq!(asked.header("authorization"), Some(signature(server, &asked).as_str()), "{}", asked.head);
        assert!(asked.header("x-ms-version") >= Some("2020-06-12"), "{}", asked.head);
    }
}

#[test]
fn azure_with_locks_conforms_and_each_blob_is_locked_by_the_request_that_writes_it() {
    let Some((server, bucket)) = bucket() else { return };
    conforms(&bucket);
    for (mode, prefix) in [(LockMode::Compliance, "strong"), (LockMode::Governance, "weak")] {
        locks_by_the_request_that_writes(&bucket, prefix, mode);
    }
    assert_eq!(bucket.front.changes(), 0, "no second request is needed");
    assert!(bucket.front.requests().len() > NAMES.len());
    assert_signed(&server, &bucket.front);
}

#[test]
fn the_first_blob_of_a_process_is_looked_at_and_no_other() {
    let Some((_server, bucket)) = bucket() else { return };
    let store = bucket.store("z", STRONG);
    let looks = bucket.front.asked("HEAD");
    for name in NAMES {
        bucket.put(&store, name).unwrap();
    }
    assert_eq!(bucket.front.asked("HEAD"), looks + 1);
}

#[test]
fn azure_is_asked_for_what_a_lock_lacks_and_never_for_less() {
    let Some((server, bucket)) = bucket() else { return };
    super::renews_what_is_missing(&bucket);
    assert_signed(&server, &bucket.front);
}

#[test]
fn a_policy_that_azure_does_not_give_is_no_success() {
    let Some((_server, bucket)) = bucket() else { return };
    believes_no_lock_that_is_not_given(&bucket, "az://nobodys/x");
}

#[test]
fn a_wrong_key_is_not_taken_for_a_container_without_locks() {
    let Some((_server, bucket)) = bucket() else { return };
    let mut wrong = bucket.variables.clone();
    wrong.iter_mut().find(|(name, _)| name == "AZURE_STORAGE_ACCOUNT_KEY").unwrap().1 = "d3Jvbmc=".to_owned();
    let store = cloud::open_locked_with(&bucket.address("z"), &wrong, STRONG).unwrap();
    let refused = bucket.put(&store, "config").unwrap_err();
    assert_eq!(refused.code(), codes::STORE_DENIED, "{refused}");
}

/// What Azurite itself makes of it: nothing, and that is seen.
#[test]
fn a_server_that_passes_over_policies_gives_no_success() {
    let Some((server, bucket)) = bucket() else { return };
    let (address, variables) = (bucket.address("z"), server.variables());
    let store = cloud::open_locked_with(&address, &variables, STRONG).unwrap();
    let refused = bucket.put(&store, "config").unwrap_err();
    assert_eq!(refused.code(), codes::STORE_NO_LOCKS, "{refused}");
    assert!(!Locks::open_with(&address, &variables, STRONG).unwrap().bucket().unwrap().has_locks);
    // What the crate does with these is not what our own requests would do.
    for (name, value) in [("AZURE_STORAGE_USE_EMULATOR", "true"), ("AZURE_STORAGE_ENCRYPTION_KEY", "x")] {
        let mut variables = variables.clone();
        variables.push((name.to_owned(), value.to_owned()));
        let refused = cloud::open_locked_with(&address, &variables, STRONG).unwrap_err();
        assert_eq!(refused.code(), codes::STORE_NO_LOCKS, "{name}: {refused}");
    }
}

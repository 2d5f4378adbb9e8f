//! Runs the suite on the real servers of object stores; each check in a prefix of its own.

use super::suite::CHECKS;
use super::{key, names, text};
use retoma_core::error::codes;
use retoma_core::manifest::{LockMode, ObjectLock};
use retoma_repo::store::layer::{Layers, stack};
use retoma_repo::store::{PutMode, Store, cloud};
use retoma_testkit::{AzuriteServer, GcsServer, SeaweedServer};
use std::sync::Arc;

fn open(address: &str, variables: &cloud::Variables) -> Arc<dyn Store> {
    cloud::open_with(&address.parse().unwrap(), variables).unwrap()
}

/// Runs every check on the store as it is, and behind all layers.
fn conforms(bucket: &str, variables: &cloud::Variables) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut failed = Vec::new();
    for (name, check) in CHECKS {
        for layered in [false, true] {
            let store = open(&format!("{bucket}/checks/{name}-{layered}"), variables);
            let store = if layered { stack(store, Layers::default()).store } else { store };
            if runtime.block_on(async { tokio::spawn(check(store)).await }).is_err() {
                failed.push((name, layered));
            }
        }
    }
    assert!(
        failed.is_empty(),
        "these checks failed (check, behind layers): {failed:?}; their panics are above"
    );
}

#[test]
fn s3_conforms() {
    let Some(server) = SeaweedServer::start() else { return };
    server.make_bucket("bucket");
    conforms("s3://bucket", &server.variables());
}

/// Each object is written with a lock, in a bucket that keeps versions.
#[test]
fn s3_with_locks_conforms() {
    let Some(server) = SeaweedServer::start() else { return };
    server.make_locked_bucket("bucket");
    let lock = ObjectLock { days: 1, mode: LockMode::Compliance };
    let open = |prefix: String| {
        cloud::open_locked_with(&format!("s3://bucket/{prefix}").parse().unwrap(), &server.variables(), lock)
            .unwrap()
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let mut failed = Vec::new();
    // SeaweedFS makes `NAME.versions` of a name, so that one of 255 bytes does not fit there; ours have 64.
    for (name, check) in CHECKS.iter().filter(|(name, _)| *name != "folders_that_are_no_names_are_refused") {
        let store = stack(open(format!("checks/{name}")), Layers::default()).store;
        if runtime.block_on(async { tokio::spawn(check(store)).await }).is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "these checks failed: {failed:?}; their panics are above");

    // What is locked, and until when.
    let store = open("dates".to_owned());
    let locks =
        cloud::Locks::open_with(&"s3://bucket/dates".parse().unwrap(), &server.variables(), lock).unwrap();
    for name in ["config", "data/aa/x", "locks/x", "marks/x"] {
        runtime.block_on(store.put(&key(name), text("x"), PutMode::Create)).unwrap();
        let expected = lock.until(jiff::Timestamp::now());
        match locks.held(&key(name)).unwrap() {
            cloud::Held::Free => assert!(!cloud::is_locked(name), "{name} has no lock"),
            cloud::Held::Until(end, mode) => {
                assert!(cloud::is_locked(name) && mode == LockMode::Compliance, "{name}");
                assert!((expected.as_second() - end.as_second()).abs() < 30, "{name}: {end}, not {expected}");
            }
            cloud::Held::Gone => panic!("{name} is gone"),
        }
    }
    assert_eq!(locks.held(&key("data/aa/y")).unwrap(), cloud::Held::Gone);
    assert!(locks.extend(&key("locks/x"), cloud::Held::Free, jiff::Timestamp::MAX).is_err());

    // A bucket without locks takes nothing, and says why.
    server.make_bucket("plain");
    let plain = cloud::open_locked_with(&"s3://plain/x".parse().unwrap(), &server.variables(), lock).unwrap();
    let refused = runtime.block_on(plain.put(&key("config"), text("x"), PutMode::Create)).unwrap_err();
    assert_eq!(refused.code(), codes::STORE_NO_LOCKS, "{refused}");
    assert_eq!(runtime.block_on(names(&*plain, "")).unwrap(), [""; 0]);
}

#[test]
fn azure_conforms() {
    let Some(server) = AzuriteServer::start() else { return };
    server.make_container("container");
    conforms("az://container", &server.variables());
}

/// What an append-only writer has at Azure: it can add, and nothing that is there can be changed, read or deleted with it.
#[test]
fn a_create_only_signature_of_azure_refuses_the_rest() {
    let Some(server) = AzuriteServer::start() else { return };
    server.make_container("container");
    let all = open("az://container/x", &server.variables());
    let writer = open("az://container/x", &server.create_only_variables("container"));
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        writer.put(&key("config"), text("first"), PutMode::Create).await.unwrap();
        let again = writer.put(&key("config"), text("second"), PutMode::Create).await.unwrap_err();
        assert!([codes::OBJECT_EXISTS, codes::STORE_DENIED].contains(&again.code()), "{again}");
        let refused = [
            writer.put(&key("config"), text("second"), PutMode::Overwrite).await.unwrap_err(),
            writer.get(&key("config")).await.unwrap_err(),
            writer.delete(&key("config")).await.unwrap_err(),
        ];
        for error in refused {
            // Azurite's refusals of a signature have no code for all verbs, so that some look as if they may pass.
            assert!([codes::STORE_DENIED, codes::STORE_UNAVAILABLE].contains(&error.code()), "{error}");
            assert!(!format!("{error} {error:?}").contains("sig="), "{error}");
        }
        assert_eq!(names(&*writer, "").await.unwrap(), ["config"]);
        assert_eq!(all.get(&key("config")).await.unwrap(), text("first"));
    });
}

#[test]
fn gcs_conforms() {
    let Some(server) = GcsServer::start() else { return };
    server.make_bucket("bucket");
    conforms("gs://bucket", &server.variables());
    // By TLS, in a bucket without a prefix, over more than one page of names.
    let with = |authority: Option<String>| {
        let mut variables = server.variables();
        variables[0].1 = format!("https://127.0.0.1:{}", server.https_port());
        variables.extend(authority.map(|path| ("SSL_CERT_FILE".to_owned(), path)));
        open("gs://pages", &variables)
    };
    server.make_bucket("pages");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let store = with(Some(server.authority().display().to_string()));
    runtime.block_on(async {
        for number in 0..1003 {
            store.put(&key(&format!("many/{number:04}")), text("x"), PutMode::Create).await.unwrap();
        }
        store.put(&key("config"), text("x"), PutMode::Create).await.unwrap();
        assert_eq!(names(&*store, "many").await.unwrap().len(), 1003);
        assert_eq!(names(&*store, "").await.unwrap().len(), 1004);
        let distrusted = with(None).get(&key("config")).await.unwrap_err();
        assert_eq!(distrusted.code(), codes::STORE_UNAVAILABLE);
        assert!(distrusted.to_string().contains("UnknownIssuer"), "{distrusted}");
    });
}

#[test]
fn gcs_says_what_is_wrong() {
    let Some(server) = GcsServer::start() else { return };
    server.make_bucket("bucket");
    let with = |name: &str, value: &str| {
        let mut variables = server.variables();
        variables.iter_mut().find(|(known, _)| known == name).unwrap().1 = value.to_owned();
        variables
    };
    let cases = [
        ("gs://nobodys/x", server.variables(), codes::STORE_BUCKET),
        // Nothing listens on port 1.
        ("gs://bucket/x", with("GOOGLE_BASE_URL", "http://127.0.0.1:1"), codes::STORE_UNAVAILABLE),
        ("gs://bucket/x", with("GOOGLE_ALLOW_HTTP", "false"), codes::STORE_UNAVAILABLE),
    ];
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for (address, variables, code) in cases {
        let store = open(address, &variables);
        let errors = [
            runtime.block_on(store.get(&key("config"))).unwrap_err(),
            runtime.block_on(store.head(&key("config"))).unwrap_err(),
            runtime.block_on(store.delete(&key("config"))).unwrap_err(),
            runtime.block_on(store.put(&key("config"), text("x"), PutMode::Create)).unwrap_err(),
            runtime.block_on(names(&*store, "keys")).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.code(), code, "{address}: {error}");
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("http://") && !shown.contains("/storage/v1"), "{shown}");
        }
    }
}

#[test]
fn s3_says_what_is_wrong_without_the_credentials() {
    let Some(server) = SeaweedServer::start() else { return };
    server.make_bucket("bucket");
    let mut wrong = server.variables();
    wrong.iter_mut().find(|(name, _)| name == "AWS_SECRET_ACCESS_KEY").unwrap().1 =
        "another-secret".to_owned();
    let mut nowhere = server.variables();
    // Nothing listens on port 1.
    nowhere.iter_mut().find(|(name, _)| name == "AWS_ENDPOINT_URL").unwrap().1 =
        "http://127.0.0.1:1".to_owned();
    let all = server.variables();
    let cases = [
        ("s3://nobodys/x", &all, codes::STORE_BUCKET),
        ("s3://bucket/x", &wrong, codes::STORE_DENIED),
        ("s3://bucket/x", &nowhere, codes::STORE_UNAVAILABLE),
    ];
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for (address, variables, code) in cases {
        let store = open(address, variables);
        let errors = [
            runtime.block_on(store.get(&key("config"))).unwrap_err(),
            runtime.block_on(store.put(&key("config"), text("x"), PutMode::Create)).unwrap_err(),
            runtime.block_on(names(&*store, "keys")).unwrap_err(),
        ];
        for error in errors {
            assert_eq!(error.code(), code, "{address}: {error}");
            let shown = format!("{error} {error:?} {:?}", error.hint());
            assert!(!shown.contains("another-secret") && !shown.contains(SeaweedServer::SECRET), "{shown}");
        }
    }
    // Who may only read.
    let reader = open("s3://bucket/x", &server.reader_variables());
    let refused = runtime.block_on(reader.put(&key("config"), text("x"), PutMode::Overwrite)).unwrap_err();
    assert_eq!(refused.code(), codes::STORE_DENIED, "{refused}");
    assert_eq!(runtime.block_on(names(&*reader, "")).unwrap(), [""; 0]);
}

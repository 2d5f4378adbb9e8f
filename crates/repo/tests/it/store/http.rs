//! What our HTTP client does and leaves to others, seen from the other end of the wire.

use super::{key, names, text};
use retoma_core::error::codes;
use retoma_repo::store::{PutMode, Store, cloud};
use retoma_repo::{Error, ErrorKind, Result};
use retoma_testkit::{AzuriteServer, Canned, Fate, GcsServer, HttpProxy};
use std::sync::Arc;
use std::time::Duration;

/// Each cloud's address, and its variables for a server at `endpoint`.
fn clouds(endpoint: &str) -> [(&'static str, cloud::Variables); 3] {
    let named =
        |list: &[(&str, &str)]| list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let azure = format!("{endpoint}/{}", AzuriteServer::ACCOUNT);
    [
        (
            "s3://bucket/zone",
            named(&[
                ("AWS_ENDPOINT_URL", endpoint),
                ("AWS_ALLOW_HTTP", "true"),
                ("AWS_REGION", "us-east-1"),
                ("AWS_ACCESS_KEY_ID", "key"),
                ("AWS_SECRET_ACCESS_KEY", "hunter2"),
                ("AWS_SESSION_TOKEN", "hunter2"),
            ]),
        ),
        (
            "az://container/zone",
            named(&[
                ("AZURE_STORAGE_ENDPOINT", &azure),
                ("AZURE_ALLOW_HTTP", "true"),
                ("AZURE_STORAGE_ACCOUNT_NAME", AzuriteServer::ACCOUNT),
                ("AZURE_STORAGE_SAS_TOKEN", "sv=2021-12-02&sig=hunter2"),
            ]),
        ),
        (
            "gs://bucket/zone",
            named(&[
                ("GOOGLE_BASE_URL", endpoint),
                ("GOOGLE_ALLOW_HTTP", "true"),
                ("GOOGLE_BEARER_TOKEN", "hunter2"),
            ]),
        ),
    ]
}

/// Calls every verb of every cloud's store by a proxy that answers as `plan` says; gives the errors and the requests that
/// each call cost.
fn calls(fate: &Fate, more: &[(&str, &str)]) -> Vec<(String, Error, Vec<String>)> {
    let proxy = HttpProxy::start(1);
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let mut found = Vec::new();
    for (address, mut variables) in clouds(&format!("http://127.0.0.1:{}", proxy.port())) {
        variables.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let store = cloud::open_with(&address.parse().unwrap(), &variables).unwrap();
        for verb in ["put", "create", "get", "get_range", "head", "list", "delete"] {
            let fate = fate.clone();
            proxy.restart(move |_| fate.clone());
            let outcome = runtime.block_on(async {
                tokio::time::timeout(Duration::from_secs(20), call(&store, verb)).await.unwrap()
            });
            let heads = proxy.log().into_iter().map(|seen| seen.head).collect();
            found.push((format!("{address} {verb}"), outcome.unwrap_err(), heads));
        }
    }
    found
}

async fn call(store: &Arc<dyn Store>, verb: &str) -> Result<()> {
    let name = key("data/x");
    match verb {
        "put" => store.put(&name, text("data"), PutMode::Overwrite).await,
        "create" => store.put(&name, text("data"), PutMode::Create).await,
        "get" => store.get(&name).await.map(drop),
        "get_range" => store.get_range(&name, 1..3).await.map(drop),
        "head" => store.head(&name).await.map(drop),
        "list" => names(&**store, "data").await.map(drop),
        _ => store.delete(&name).await,
    }
}

fn shown(error: &Error) -> String {
    format!("{error} {error:?} {:?}", error.hint())
}

/// The retry layer repeats, and looks first whether a `Create` has happened; nobody below may.
#[test]
fn a_call_is_one_request_however_it_fails() {
    let unavailable =
        Canned::s3("503 Service Unavailable", "SlowDown", "Slow.").with_header("retry-after: 0");
    for (call, error, requests) in calls(&Fate::Answer(unavailable), &[]) {
        assert_eq!(
            (error.kind(), error.code()),
            (ErrorKind::Unavailable, codes::STORE_UNAVAILABLE),
            "{call}"
        );
        // A part that was not given is asked for its size, to tell whether it is too long.
        let allowed = if call.ends_with("get_range") { 2 } else { 1 };
        assert_eq!(requests.len(), allowed, "{call}: {requests:#?}");
    }
}

/// How connections are made is not for the environment to say, except for `…_ALLOW_HTTP`.
#[test]
fn options_of_the_client_in_the_environment_change_nothing() {
    let more = [
        ("AWS_DEFAULT_CONTENT_TYPE", "text/theirs"),
        ("AZURE_DEFAULT_CONTENT_TYPE", "text/theirs"),
        ("GOOGLE_DEFAULT_CONTENT_TYPE", "text/theirs"),
        ("AWS_TIMEOUT", "never"),
        ("AZURE_TIMEOUT", "never"),
        ("GOOGLE_TIMEOUT", "never"),
        ("AWS_PROXY_URL", "http://127.0.0.1:1"),
        ("AZURE_PROXY_URL", "http://127.0.0.1:1"),
        ("GOOGLE_PROXY_URL", "http://127.0.0.1:1"),
    ];
    let teapot = Canned::s3("503 Service Unavailable", "SlowDown", "Slow.");
    for (call, _, requests) in calls(&Fate::Answer(teapot), &more) {
        assert!(!requests.is_empty(), "{call} went elsewhere");
        for head in requests {
            assert!(!head.contains("text/theirs"), "{call}: {head}");
            assert!(
                head.contains(concat!("user-agent: retoma/", env!("CARGO_PKG_VERSION"))),
                "{call}: {head}"
            );
        }
    }
}

#[test]
fn what_a_server_says_is_cut_and_not_waited_for() {
    let mut endless = Canned::s3("400 Bad Request", "Strange", &"x".repeat(100_000));
    endless.announced_bytes = Some(1 << 40);
    // One is cut before its text ends, the other has all of it.
    let long = Canned::s3("400 Bad Request", "Strange", &"x".repeat(10_000));
    for (answer, shows_text) in [(endless, false), (long, true)] {
        for (call, error, _) in calls(&Fate::Answer(answer), &[]) {
            let said = error.to_string();
            assert!(said.len() < 500, "{call}: {} characters", said.len());
            // The answer to `HEAD` has no text; a part's error is that of the question for the size.
            let has_text = !(call.ends_with("head") || call.ends_with("get_range"));
            assert!(!has_text || said.contains("Strange"), "{call}: {said}");
            assert!(!(has_text && shows_text) || said.contains("xxx"), "{call}: {said}");
        }
    }
}

#[test]
fn neither_addresses_nor_credentials_are_shown() {
    let refused = Canned::s3("403 Forbidden", "AccessDenied", "No.");
    let fates = [Fate::ResetBefore, Fate::Answer(refused)];
    for (call, error, requests) in fates.iter().flat_map(|fate| calls(fate, &[])) {
        assert!(!requests.is_empty(), "{call}");
        let shown = shown(&error);
        for secret in ["hunter2", "http://127", "127.0.0.1", "Authorization", "sig="] {
            assert!(!shown.contains(secret), "{call}: {secret} in {shown}");
        }
    }
    // Nothing listens on port 1.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for (address, variables) in clouds("http://127.0.0.1:1") {
        let store = cloud::open_with(&address.parse().unwrap(), &variables).unwrap();
        for verb in ["put", "get", "list"] {
            let error = runtime.block_on(call(&store, verb)).unwrap_err();
            let shown = shown(&error);
            assert_eq!(error.code(), codes::STORE_UNAVAILABLE, "{shown}");
            assert!(shown.contains("refused"), "the reason is shown: {shown}");
            assert!(!shown.contains("hunter2") && !shown.contains("127.0.0.1"), "{shown}");
        }
    }
}

#[test]
fn no_redirect_is_followed() {
    let elsewhere = HttpProxy::start(1);
    let target = format!("location: http://127.0.0.1:{}/elsewhere", elsewhere.port());
    for status in ["301 Moved Permanently", "302 Found", "307 Temporary Redirect", "308 Permanent Redirect"] {
        let moved = Canned::s3(status, "Moved", "There.").with_header(&target);
        for (call, error, requests) in calls(&Fate::Answer(moved), &[]) {
            assert!(matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Unavailable), "{call}: {error}");
            assert!(!requests.is_empty(), "{call}");
        }
    }
    assert_eq!(elsewhere.requests(), 0);
}

/// The test server's authority is nobody's; it answers S3's requests with an error of its own, by then it is trusted.
#[test]
fn only_authorities_that_are_known_are_trusted() {
    let Some(server) = GcsServer::start() else { return };
    let authority = server.authority().display().to_string();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for (address, variables) in clouds(&format!("https://127.0.0.1:{}", server.https_port())) {
        let asked = |more: &[(&str, &str)]| {
            let more = more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            let all = variables.iter().cloned().chain(more).collect();
            let store = cloud::open_with(&address.parse().unwrap(), &all).unwrap();
            runtime.block_on(store.get(&key("config"))).unwrap_err().to_string()
        };
        let is_distrusted = |said: String| said.contains("UnknownIssuer");
        assert!(is_distrusted(asked(&[])), "{address}");
        for name in ["AWS", "AZURE", "GOOGLE"] {
            let careless = format!("{name}_ALLOW_INVALID_CERTIFICATES");
            assert!(is_distrusted(asked(&[(&careless, "true")])), "{address} {name}");
        }
        assert!(!is_distrusted(asked(&[("SSL_CERT_FILE", &authority)])), "{address}");
        let with_bundle = asked(&[("AWS_CA_BUNDLE", &authority)]);
        assert_eq!(is_distrusted(with_bundle), !address.starts_with("s3:"), "{address}");
    }
}

//! A bucket as it was: the pages of its versions, and a server that lies about them.

use super::{key, names};
use retoma_core::error::codes;
use retoma_core::{Error, Result};
use retoma_repo::store::{PutMode, Store, cloud};
use retoma_testkit::{Canned, Fate, HttpProxy, Seen};
use std::sync::Arc;

const TIME: &str = "2026-03-01T12:00:00Z";

/// A proxy without a server: every answer is `answer`'s.
fn served(mut answer: impl FnMut(&Seen) -> String + Send + 'static) -> HttpProxy {
    let proxy = HttpProxy::start(1);
    proxy.plan(move |seen| {
        let headers = vec!["content-type: application/xml".to_owned()];
        Fate::Answer(Canned { status: "200 OK", headers, body: answer(seen), announced_bytes: None })
    });
    proxy
}

fn open(proxy: &HttpProxy) -> Result<Arc<dyn Store>> {
    let endpoint = format!("http://127.0.0.1:{}", proxy.port());
    let variables = [
        ("AWS_ENDPOINT_URL", &*endpoint),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "hunter2"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    cloud::as_of_with(&"s3://bucket/zone".parse().unwrap(), &variables, TIME.parse().unwrap())
}

fn versioning() -> String {
    "<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>".to_owned()
}

fn page(entries: &str, next: Option<(&str, &str)>) -> String {
    let cut = next.map_or("<IsTruncated>false</IsTruncated>".to_owned(), |(name, version)| {
        format!("<IsTruncated>true</IsTruncated><NextKeyMarker>{name}</NextKeyMarker><NextVersionIdMarker>{version}</NextVersionIdMarker>")
    });
    format!("<ListVersionsResult><EncodingType>url</EncodingType>{cut}{entries}</ListVersionsResult>")
}

fn entry(element: &str, name: &str, version: &str, time: &str) -> String {
    format!(
        "<{element}><Key>zone%2F{name}</Key><VersionId>{version}</VersionId><IsLatest>false</IsLatest>\
         <LastModified>2026-03-01T{time}.000Z</LastModified><Size>3</Size></{element}>"
    )
}

#[test]
fn pages_are_put_together_and_reads_name_the_version() {
    let proxy = served(|seen| match &seen.target {
        target if target.contains("versioning=") => versioning(),
        target if target.contains("version-id-marker=v2") => {
            assert!(target.contains("key-marker=zone%2Fdata%2Fa"), "{target}");
            let old = entry("Version", "data/a", "v1", "11:00:00");
            let gone =
                entry("DeleteMarker", "gone", "m", "11:30:00") + &entry("Version", "gone", "g", "11:00:00");
            page(&(old + &gone), None)
        }
        target if target.contains("versions=") => {
            let attack = entry("DeleteMarker", "data/a", "v3", "12:00:02")
                + &entry("Version", "data/a", "v2", "12:00:01");
            page(&attack, Some(("zone%2Fdata%2Fa", "v2")))
        }
        target => {
            assert!(target.contains("versionId=v1"), "{target}");
            "abc".to_owned()
        }
    });
    let store = open(&proxy).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async {
        assert_eq!(names(&*store, "").await.unwrap(), ["data/a"]);
        assert_eq!(names(&*store, "data").await.unwrap(), ["data/a"]);
        assert_eq!(store.head(&key("data/a")).await.unwrap().size_bytes, 3);
        assert_eq!(store.get(&key("data/a")).await.unwrap(), "abc");
        assert_eq!(store.get(&key("gone")).await.unwrap_err().code(), codes::OBJECT_NOT_FOUND);
        let refused: [Error; 2] = [
            store.put(&key("x"), "x".into(), PutMode::Create).await.unwrap_err(),
            store.delete(&key("data/a")).await.unwrap_err(),
        ];
        assert!(refused.iter().all(|error| error.code() == codes::STORE_UNSUPPORTED));
    });
}

#[test]
fn a_server_that_lies_about_versions_is_left() {
    type Answer = fn(usize) -> String;
    let cases: [(&str, Answer); 4] = [
        ("a list that begins again", |_| page("", Some(("a", "1")))),
        ("a list in a circle", |page_number| page("", Some((["a", "b", "c"][page_number % 3], "1")))),
        ("a version without a size", |_| {
            page(&entry("Version", "x", "1", "11:00:00").replace("<Size>3</Size>", ""), None)
        }),
        ("no list", |_| "<html>hunter2</html>".to_owned()),
    ];
    for (name, answer) in cases {
        let mut pages = 0;
        let proxy = served(move |seen| {
            if seen.target.contains("versioning=") {
                return versioning();
            }
            pages += 1;
            answer(pages)
        });
        let error = open(&proxy).unwrap_err();
        assert_eq!(error.code(), codes::STORE_UNAVAILABLE, "{name}: {error}");
        assert!(!format!("{error} {error:?}").contains("hunter2"), "{error}");
        assert!(proxy.requests() < 20, "{name}: {} requests", proxy.requests());
    }
    let off = served(|_| "<VersioningConfiguration/>".to_owned());
    assert_eq!(open(&off).unwrap_err().code(), codes::STORE_UNSUPPORTED);
}

//! A small S3 client for tests: what an administrator and an intruder do. Signed by `object_store`'s signer.

use super::exchange;
use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService,
};
use object_store::path::Path;
use object_store::signer::{Method, SignedUrlOptions, Signer as _};
use std::time::Duration;

/// A bucket, with somebody's credentials.
#[derive(Debug)]
pub struct S3Client {
    remote: AmazonS3,
    port: u16,
}

/// Only the signer is used; requests go their own way.
#[derive(Debug)]
struct Unconnected;

impl HttpConnector for Unconnected {
    fn connect(&self, _options: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Self))
    }
}

#[async_trait]
impl HttpService for Unconnected {
    async fn call(&self, _request: HttpRequest) -> Result<HttpResponse, HttpError> {
        Err(HttpError::new(HttpErrorKind::Unknown, std::io::Error::other("nothing is sent this way")))
    }
}

/// A version of an object, or the mark that it was deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct S3Version {
    /// The object's name.
    pub key: String,
    /// The version's name.
    pub id: String,
    /// Whether it is a delete marker.
    pub is_deletion: bool,
}

impl S3Client {
    /// `port` on the loopback address.
    ///
    /// # Panics
    /// When the settings make no client.
    #[allow(clippy::panic)]
    pub fn new(port: u16, bucket: &str, (key, secret): (&str, &str)) -> Self {
        let remote = AmazonS3Builder::new()
            .with_endpoint(format!("http://127.0.0.1:{port}"))
            .with_allow_http(true)
            .with_http_connector(Unconnected)
            .with_region("us-east-1")
            .with_bucket_name(bucket)
            .with_access_key_id(key)
            .with_secret_access_key(secret)
            .build();
        Self { remote: remote.unwrap_or_else(|error| panic!("a client for S3: {error}")), port }
    }

    /// Sends a request about an object (or the bucket, for an empty name); gives status and text.
    ///
    /// # Panics
    /// When nothing answers.
    #[allow(clippy::panic)]
    pub fn ask(
        &self,
        method: &str,
        object: &str,
        query: &[(&str, &str)],
        headers: &[(&'static str, &str)],
        body: &str,
    ) -> (u16, String) {
        let mut options = SignedUrlOptions::new().with_query(query.iter().copied());
        for (name, value) in headers {
            let value = value.parse().unwrap_or_else(|error| panic!("the header {name}: {error}"));
            options = options.with_signed_header(object_store::signer::HeaderName::from_static(name), value);
        }
        let method: Method = method.parse().unwrap_or_else(|error| panic!("{error}"));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.unwrap_or_else(|error| panic!("a runtime: {error}"));
        let path = Path::from(object);
        let url = self.remote.signed_url_opts(method.clone(), &path, Duration::from_mins(5), &options);
        let url = runtime.block_on(url).unwrap_or_else(|error| panic!("sign a request: {error}"));
        let target = format!("{}?{}", url.path(), url.query().unwrap_or_default());
        exchange(self.port, method.as_str(), &target, headers, body)
            .unwrap_or_else(|| panic!("no answer to {method} {object}"))
    }

    /// As [`S3Client::ask`], and must succeed.
    ///
    /// # Panics
    /// When it does not.
    pub fn must(
        &self,
        method: &str,
        object: &str,
        query: &[(&str, &str)],
        headers: &[(&'static str, &str)],
        body: &str,
    ) -> String {
        let (status, text) = self.ask(method, object, query, headers, body);
        assert!((200..300).contains(&status), "{method} {object} {query:?}: {status} {text}");
        text
    }

    /// All versions and delete markers below a prefix; at most a thousand.
    ///
    /// # Panics
    /// When the server refuses.
    pub fn versions(&self, prefix: &str) -> Vec<S3Version> {
        let text = self.must("GET", "", &[("versions", ""), ("prefix", prefix)], &[], "");
        let mut found = Vec::new();
        for (element, is_deletion) in [("Version", false), ("DeleteMarker", true)] {
            for part in text.split(&format!("<{element}>")).skip(1) {
                let value = |name: &str| {
                    let (_, rest) = part.split_once(&format!("<{name}>"))?;
                    rest.split_once('<').map(|(value, _)| value.to_owned())
                };
                found.extend(value("Key").zip(value("VersionId")).map(|(key, id)| S3Version {
                    key,
                    id,
                    is_deletion,
                }));
            }
        }
        found
    }
}

//! Requests to S3 that the crate has no call for. Its own signer signs them, over all their headers.

use super::super::answer;
use super::super::locks::no_locks;
use super::super::pace::{Broken, Patience, collect};
use crate::store::Key;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use object_store::aws::AmazonS3;
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody, HttpResponse};
use object_store::path::Path;
use object_store::signer::{SignedUrlOptions, Signer as _};
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use retoma_core::{Error, Result};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// How long a signature holds; the service compares with the beginning of the request.
const SIGNATURE_HOLDS: Duration = Duration::from_mins(15);
/// The longest answer that is read: a thousand versions with names of a kilobyte, escaped, fit well.
pub(super) const ANSWER_LIMIT_BYTES: u64 = 16 << 20;

/// The way to a bucket.
#[derive(Clone)]
pub(super) struct Signed {
    pub(super) remote: Arc<AmazonS3>,
    pub(super) client: HttpClient,
    /// Empty, or with a slash at its end.
    pub(super) prefix: String,
    pub(super) location: String,
    pub(super) patience: Patience,
}

impl fmt::Debug for Signed {
    /// The credentials would show themselves.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signed").field("location", &self.location).finish_non_exhaustive()
    }
}

/// A request, before it is signed.
#[derive(Debug)]
pub(super) struct Ask {
    method: Method,
    path: Path,
    /// The object, for messages; empty for the bucket.
    what: String,
    query: Vec<(String, String)>,
    headers: HeaderMap,
    body: Bytes,
}

impl Ask {
    /// About the bucket.
    pub(super) fn bucket(query: &[(&str, &str)]) -> Self {
        let path = Path::from("");
        Self {
            method: Method::GET,
            path,
            what: String::new(),
            query: owned(query),
            headers: HeaderMap::new(),
            body: Bytes::new(),
        }
    }

    /// Reads something about an object.
    pub(super) fn get(signed: &Signed, key: &Key, query: &[(&str, &str)]) -> Self {
        let path = Path::from(format!("{}{key}", signed.prefix));
        Self { path, what: key.as_str().to_owned(), ..Self::bucket(query) }
    }

    /// Writes `body`, with its checksum, which S3 demands beside a lock.
    pub(super) fn put(signed: &Signed, key: &Key, query: &[(&str, &str)], body: Bytes) -> Result<Self> {
        let sum = STANDARD.encode(Sha256::digest(&body));
        let ask = Self { method: Method::PUT, body, ..Self::get(signed, key, query) };
        ask.header("x-amz-checksum-sha256", &sum)
    }

    /// Adds a header, which will be signed.
    pub(super) fn header(mut self, name: &'static str, value: &str) -> Result<Self> {
        let value = HeaderValue::from_str(value).map_err(|_| {
            Error::internal(format!("the header `{name}` of a request has a value that none has"))
        })?;
        self.headers.insert(HeaderName::from_static(name), value);
        Ok(self)
    }
}

fn owned(query: &[(&str, &str)]) -> Vec<(String, String)> {
    query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// What was said instead of success.
#[derive(Debug)]
pub(super) struct Refused {
    what: String,
    status: StatusCode,
    /// `CODE: message`; empty where the answer has no text.
    said: String,
}

impl Refused {
    /// The provider's code.
    pub(super) fn code(&self) -> &str {
        self.said.split(": ").next().unwrap_or_default()
    }
}

impl Signed {
    /// Signs and sends; the answer, or what was said instead of success.
    ///
    /// # Errors
    /// There are no credentials, or no answer.
    pub(super) async fn ask(&self, ask: Ask) -> Result<std::result::Result<HttpResponse, Refused>> {
        let mut options = SignedUrlOptions::new().with_query(ask.query);
        options.signed_headers.clone_from(&ask.headers);
        let url = self.remote.signed_url_opts(ask.method.clone(), &ask.path, SIGNATURE_HOLDS, &options).await;
        let url = url.map_err(|source| answer::remote(&self.location, &ask.what, &source))?;
        let mut request = HttpRequest::new(HttpRequestBody::from(ask.body));
        *request.method_mut() = ask.method;
        // The address holds the signature: it is in no message.
        *request.uri_mut() =
            url.as_str().parse().map_err(|_| Error::internal("a signed address is none".to_owned()))?;
        *request.headers_mut() = ask.headers;
        let got = self.client.execute(request).await;
        let got = got.map_err(|failure| answer::no_answer(&self.location, &ask.what, &failure))?;
        let status = got.status();
        if status.is_success() {
            return Ok(Ok(got));
        }
        // The client has cut the text of an error down to what may be shown.
        let said = got.into_body().bytes().await.unwrap_or_default();
        Ok(Err(Refused { what: ask.what, status, said: String::from_utf8_lossy(&said).into_owned() }))
    }

    /// The error for what was said.
    pub(super) fn refusal(&self, refused: &Refused) -> Error {
        let what = if refused.what.is_empty() { "the bucket" } else { &refused.what };
        answer::refusal(&self.location, what, refused.status, &refused.said)
    }

    /// The text of an answer.
    pub(super) async fn text(&self, got: HttpResponse, what: &str) -> Result<Bytes> {
        let announced =
            got.headers().get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
        let limit = announced.unwrap_or(ANSWER_LIMIT_BYTES).min(ANSWER_LIMIT_BYTES);
        match collect(got.into_body().bytes_stream(), limit, self.patience).await {
            Ok(bytes) => Ok(bytes),
            Err(Broken::Failed(failure)) => Err(answer::no_answer(&self.location, what, &failure)),
            Err(Broken::Slow) => Err(answer::slow(&self.location, what)),
            Err(Broken::TooLong) => Err(self.unreadable(what)),
        }
    }

    /// An answer that makes no sense.
    pub(super) fn unreadable(&self, what: &str) -> Error {
        answer::unreadable(&self.location, what)
    }

    /// The bucket takes no locks.
    pub(super) fn no_locks(&self) -> Error {
        no_locks(&self.location, "")
    }
}

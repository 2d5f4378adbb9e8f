//! Locks at Azure: the immutability policy of a blob's version, in a container with version-level immutability.
//!
//! The crate has no calls for it. Its own authorizer signs our requests, over all their headers, with the credentials that it found.
//! No answer to a write tells of the policy, so that the first write of each process is looked at.

use crate::store::cloud::answer;
use crate::store::cloud::locks::{BucketState, Held, Way, no_locks, not_locked};
use crate::store::{Key, PutMode, error};
use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use object_store::PutPayload;
use object_store::azure::{AzureAuthorizer, AzureCredentialProvider};
use object_store::client::{HttpClient, HttpRequest, HttpRequestBody};
use reqwest::header::{CONTENT_LENGTH, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode};
use retoma_core::manifest::LockMode;
use retoma_core::{Error, ErrorKind, Result};
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use url::Url;

/// Until when a blob cannot be changed or deleted.
const UNTIL: &str = "x-ms-immutability-policy-until-date";
/// Who may take that away.
const MODE: &str = "x-ms-immutability-policy-mode";
/// What a container says of itself.
const HAS_LOCKS: &str = "x-ms-immutable-storage-with-versioning-enabled";
/// The code of an error; answers to `HEAD` have it nowhere else.
const CODE: &str = "x-ms-error-code";

/// The way to a container.
pub(super) struct Blobs {
    pub(super) client: HttpClient,
    /// None where the server asks for no signature.
    pub(super) credentials: Option<AzureCredentialProvider>,
    pub(super) account: String,
    /// The container's address.
    pub(super) container: Url,
    /// Empty, or with a slash at its end.
    pub(super) prefix: String,
    pub(super) location: String,
    /// An object that was written here was seen with its lock.
    pub(super) is_proven: AtomicBool,
}

impl fmt::Debug for Blobs {
    /// The credentials would show themselves.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blobs").field("location", &self.location).finish_non_exhaustive()
    }
}

/// A status that is none of success, with code and message.
struct Refused {
    status: StatusCode,
    said: String,
}

impl Refused {
    fn code(&self) -> &str {
        self.said.split(": ").next().unwrap_or_default()
    }
}

impl Blobs {
    /// A request about a blob, or about the container; what it is about must be in the address.
    fn request(
        &self,
        method: Method,
        key: Option<&Key>,
        query: &str,
        headers: &[(&'static str, &str)],
        body: Bytes,
    ) -> Result<HttpRequest> {
        let mut url = self.container.clone();
        if let Some(key) = key {
            url.set_path(&format!("{}/{}{key}", self.container.path(), self.prefix));
        }
        url.set_query((!query.is_empty()).then_some(query));
        let length_bytes = body.len();
        let body = if body.is_empty() { HttpRequestBody::empty() } else { PutPayload::from(body).into() };
        let mut request = HttpRequest::new(body);
        if method == Method::PUT {
            request.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length_bytes));
        }
        *request.method_mut() = method;
        *request.uri_mut() =
            url.as_str().parse().map_err(|_| Error::internal("an address is none".to_owned()))?;
        for (name, value) in headers {
            let value = HeaderValue::from_str(value)
                .map_err(|_| Error::internal(format!("the header `{name}` has a value that none has")))?;
            request.headers_mut().insert(HeaderName::from_static(name), value);
        }
        Ok(request)
    }

    /// Signs and sends; the headers of the answer, or what was said instead of success.
    async fn send(
        &self,
        mut request: HttpRequest,
        what: &str,
    ) -> Result<std::result::Result<HeaderMap, Refused>> {
        if let Some(credentials) = &self.credentials {
            let found = credentials.get_credential().await;
            let signed = found.and_then(|credential| {
                AzureAuthorizer::new(&credential, &self.account).try_authorize(&mut request)
            });
            signed.map_err(|source| answer::remote(&self.location, what, &source))?;
        }
        let got = self.client.execute(request).await;
        let got = got.map_err(|failure| answer::no_answer(&self.location, what, &failure))?;
        let status = got.status();
        if status.is_success() {
            return Ok(Ok(got.headers().clone()));
        }
        let code = text(got.headers(), CODE).unwrap_or_default().to_owned();
        // The client has cut the text of an error down to what may be shown.
        let said = got.into_body().bytes().await.unwrap_or_default();
        let said = if said.is_empty() { code } else { String::from_utf8_lossy(&said).into_owned() };
        Ok(Err(Refused { status, said }))
    }

    fn refusal(&self, what: &str, refused: &Refused) -> Error {
        answer::refusal(&self.location, what, refused.status, &refused.said)
    }

    /// How Azure says that a container has no version-level immutability is in no document: the container itself is asked.
    async fn refused_lock(&self, key: &Key, refused: &Refused) -> Error {
        let error = self.refusal(key.as_str(), refused);
        // What is known by its code or status is no riddle.
        let is_riddle = matches!(refused.status, StatusCode::BAD_REQUEST | StatusCode::CONFLICT)
            && error.kind() == ErrorKind::Unavailable;
        if !is_riddle {
            return error;
        }
        match self.bucket().await {
            Ok(state) if state.has_locks => error,
            Err(other) if other.kind() != ErrorKind::Unauthorized => other,
            // A conflict may be another thing, which passes.
            Err(_) if refused.status == StatusCode::CONFLICT => error,
            Ok(_) | Err(_) => no_locks(&self.location, &refused.said),
        }
    }

    /// A container that takes the headers of a policy, and gives none, would be the worst mistake.
    async fn prove(&self, key: &Key, mode: LockMode, end: Timestamp) -> Result<()> {
        if self.is_proven.load(Ordering::Relaxed) {
            return Ok(());
        }
        if !self.held(key).await?.covers(mode, end) {
            return Err(not_locked(&self.location, key));
        }
        self.is_proven.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn unreadable(&self, what: &str) -> Error {
        answer::unreadable(&self.location, what)
    }
}

#[async_trait]
impl Way for Blobs {
    async fn bucket(&self) -> Result<BucketState> {
        let what = "the container";
        let ask = self.request(Method::HEAD, None, "restype=container", &[], Bytes::new())?;
        match self.send(ask, what).await? {
            // It cannot be had without versions.
            Ok(headers) => {
                let has_locks = text(&headers, HAS_LOCKS).is_some_and(|it| it.eq_ignore_ascii_case("true"));
                Ok(BucketState { has_locks, has_versions: has_locks })
            }
            Err(refused) if refused.status == StatusCode::NOT_FOUND => Err(answer::no_bucket(&self.location)),
            Err(refused) => Err(self.refusal(what, &refused)),
        }
    }

    async fn write(
        &self,
        key: &Key,
        data: Bytes,
        put: PutMode,
        mode: LockMode,
        end: Timestamp,
    ) -> Result<()> {
        let until = date(end);
        let mut headers =
            vec![("x-ms-blob-type", "BlockBlob"), (UNTIL, until.as_str()), (MODE, mode_name(mode))];
        if put == PutMode::Create {
            headers.push(("if-none-match", "*"));
        }
        let ask = self.request(Method::PUT, Some(key), "", &headers, data)?;
        match self.send(ask, key.as_str()).await? {
            Ok(_) => self.prove(key, mode, end).await,
            Err(refused) if refused.code() == "BlobAlreadyExists" => Err(error::exists(&self.location, key)),
            Err(refused) => Err(self.refused_lock(key, &refused).await),
        }
    }

    async fn held(&self, key: &Key) -> Result<Held> {
        let ask = self.request(Method::HEAD, Some(key), "", &[], Bytes::new())?;
        match self.send(ask, key.as_str()).await? {
            Ok(headers) => held(&headers).ok_or_else(|| self.unreadable(key.as_str())),
            Err(refused) => match self.refusal(key.as_str(), &refused) {
                gone if gone.kind() == ErrorKind::NotFound => Ok(Held::Gone),
                error => Err(error),
            },
        }
    }

    async fn extend(&self, key: &Key, _held: Held, mode: LockMode, end: Timestamp) -> Result<()> {
        let until = date(end);
        let headers = [(UNTIL, until.as_str()), (MODE, mode_name(mode))];
        let ask =
            self.request(Method::PUT, Some(key), "comp=immutabilityPolicies", &headers, Bytes::new())?;
        match self.send(ask, key.as_str()).await? {
            Ok(headers) if held(&headers).is_some_and(|held| held.covers(mode, end)) => Ok(()),
            Ok(_) => Err(not_locked(&self.location, key)),
            Err(refused) => Err(self.refused_lock(key, &refused).await),
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn mode_name(mode: LockMode) -> &'static str {
    match mode {
        LockMode::Compliance => "locked",
        LockMode::Governance => "unlocked",
    }
}

/// In whole seconds, as Azure reads it: RFC 1123, in UTC.
fn date(time: Timestamp) -> String {
    time.strftime("%a, %d %b %Y %H:%M:%S GMT").to_string()
}

/// The policy that an answer tells of; `None` for one that cannot be read.
fn held(headers: &HeaderMap) -> Option<Held> {
    let (until, mode) = (headers.get(UNTIL), headers.get(MODE));
    if until.is_none() && mode.is_none_or(|mode| mode.as_bytes().eq_ignore_ascii_case(b"mutable")) {
        return Some(Held::Free);
    }
    let end = DateTimeParser::new().parse_timestamp(until?.to_str().ok()?).ok()?;
    let mode = match mode?.to_str().ok()?.to_ascii_lowercase().as_str() {
        "locked" => LockMode::Compliance,
        "unlocked" => LockMode::Governance,
        _ => return None,
    };
    Some(Held::Until(end, mode))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn told(until: Option<&str>, mode: Option<&str>) -> Option<Held> {
        let mut headers = HeaderMap::new();
        for (name, value) in [(UNTIL, until), (MODE, mode)] {
            let Some(value) = value else { continue };
            headers.insert(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        held(&headers)
    }

    #[test]
    fn a_policy_is_read_or_refused() {
        let end: Timestamp = "2030-01-02T03:04:05Z".parse().unwrap();
        let date = Some("Wed, 02 Jan 2030 03:04:05 GMT");
        assert_eq!(told(date, Some("locked")), Some(Held::Until(end, LockMode::Compliance)));
        assert_eq!(told(date, Some("Unlocked")), Some(Held::Until(end, LockMode::Governance)));
        assert_eq!(told(None, None), Some(Held::Free));
        assert_eq!(told(None, Some("Mutable")), Some(Held::Free));
        for (until, mode) in [
            (date, None),
            (date, Some("mutable")),
            (date, Some("")),
            (None, Some("locked")),
            (Some("soon"), Some("locked")),
            (Some(""), Some("locked")),
            (Some("2030-01-02T03:04:05Z"), Some("locked")),
            (Some("\u{e9}"), Some("locked")),
        ] {
            assert_eq!(told(until, mode), None, "{until:?} {mode:?}");
        }
    }

    proptest! {
        #[test]
        fn a_policy_is_read_as_it_was_sent(second in 0i64..4_000_000_000, nanosecond in 0i32..1_000_000_000, is_compliance: bool) {
            let end = Timestamp::new(second, nanosecond).unwrap();
            let mode = if is_compliance { LockMode::Compliance } else { LockMode::Governance };
            let held = told(Some(&date(end)), Some(mode_name(mode)));
            prop_assert_eq!(held, Some(Held::Until(Timestamp::from_second(second).unwrap(), mode)));
            prop_assert!(held.unwrap().covers(mode, end));
        }

        #[test]
        fn whatever_is_told_is_read_or_refused(until in "[ -~]{0,40}", mode in "[ -~]{0,10}") {
            let _any = told(Some(&until), Some(&mode));
        }
    }
}

//! Google Cloud Storage, by its JSON API.
//!
//! The `object_store` crate gives credentials and the way to them; its store speaks Google's XML API, which no test
//! server understands. `Create` is an upload with `ifGenerationMatch=0`. An upload is one request with name, contents and lock.

mod held;
mod wire;

use super::answer;
use super::http::Connector;
use super::locks::Way;
use super::pace::{Broken, Patience, collect};
use super::{Place, Variables, no_retries, settings, variable};
use crate::store::object::{cut, exactly};
use crate::store::{Capabilities, Key, ObjectMeta, PutMode, Store, error};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use object_store::client::{HttpClient, HttpConnector as _, HttpRequest, HttpResponse};
use object_store::gcp::{GcpCredentialProvider, GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::{ClientConfigKey, ClientOptions};
use reqwest::StatusCode;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use retoma_core::{Error, ErrorKind, Result};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;
use wire::{Listing, Wire};

const HINT: &str = "set `GOOGLE_APPLICATION_CREDENTIALS` to the file of a service account, or nothing where the machine \
                    has one; `GOOGLE_BASE_URL` begins with `https://`";
/// Names in one answer of a listing.
const PAGE: u32 = 1000;

pub(super) fn open(place: &Place, variables: &Variables, patience: Patience) -> Result<Arc<dyn Store>> {
    Ok(Arc::new(bucket(place, variables, patience)?))
}

/// The way to ask about locks there.
pub(super) fn way(place: &Place, variables: &Variables, patience: Patience) -> Result<Arc<dyn Way>> {
    Ok(Arc::new(bucket(place, variables, patience)?))
}

fn bucket(place: &Place, variables: &Variables, patience: Patience) -> Result<GcsStore> {
    let client = |key: &GoogleConfigKey| match key {
        GoogleConfigKey::Client(key) => Some(*key),
        _ => None,
    };
    // The crate's default allows `http://`.
    let empty = GoogleCloudStorageBuilder::new().with_client_options(ClientOptions::new());
    let builder = settings(variables, "GOOGLE_", client)
        .fold(empty, |builder, (key, value)| builder.with_config(key, value));
    let setting = |key| builder.get_config_value(&key);
    let is_set = |key| setting(key).as_deref() == Some("true");
    let allows_clear = is_set(GoogleConfigKey::Client(ClientConfigKey::AllowHttp));
    let asks_for_no_token = is_set(GoogleConfigKey::SkipSignature);
    let base = setting(GoogleConfigKey::BaseUrl);
    let connector = Connector::new(variable(variables, "SSL_CERT_FILE"), patience)?;
    let refused = || place.refused("gs", HINT);
    let client =
        connector.connect(&ClientOptions::new().with_allow_http(allows_clear)).map_err(|_| refused())?;
    let built = builder
        .with_bucket_name(&place.bucket)
        .with_retry(no_retries())
        .with_http_connector(connector)
        .build()
        .map_err(|_| refused())?;
    Ok(GcsStore {
        client,
        credentials: (!asks_for_no_token).then(|| Arc::clone(built.credentials())),
        wire: Wire::new(base.as_deref(), &place.bucket, &place.prefix).ok_or_else(refused)?,
        location: place.location("gs"),
        patience,
    })
}

/// A bucket, below a prefix.
struct GcsStore {
    client: HttpClient,
    /// None where the server asks for no token.
    credentials: Option<GcpCredentialProvider>,
    wire: Wire,
    location: String,
    patience: Patience,
}

impl fmt::Debug for GcsStore {
    /// The credentials would show themselves.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GcsStore").field("location", &self.location).finish_non_exhaustive()
    }
}

/// An answer with a status of success, or what was said with 404: which of object and bucket is missing depends.
enum Answered {
    Yes(HttpResponse),
    Missing(String),
}

/// A status that is none of success, and its code and message.
struct Refused {
    status: StatusCode,
    said: String,
}

impl GcsStore {
    /// Sends it with a token; the answer, or what was said instead of success.
    async fn send(
        &self,
        mut request: HttpRequest,
        what: &str,
    ) -> Result<std::result::Result<HttpResponse, Refused>> {
        if let Some(credentials) = &self.credentials {
            let found = credentials.get_credential().await;
            let token = found.map_err(|source| answer::remote(&self.location, what, &source))?;
            if !token.bearer.is_empty() {
                let header = HeaderValue::from_str(&format!("Bearer {}", token.bearer));
                let mut header = header.map_err(|_| answer::no_token(&self.location))?;
                header.set_sensitive(true);
                request.headers_mut().insert(AUTHORIZATION, header);
            }
        }
        let got = self.client.execute(request).await;
        let got = got.map_err(|failure| answer::no_answer(&self.location, what, &failure))?;
        let status = got.status();
        if status.is_success() {
            return Ok(Ok(got));
        }
        // The client has cut the text of an error down to what may be shown.
        let said = got.into_body().bytes().await.unwrap_or_default();
        Ok(Err(Refused { status, said: String::from_utf8_lossy(&said).into_owned() }))
    }

    async fn ask(&self, request: HttpRequest, what: &str) -> Result<Answered> {
        match self.send(request, what).await? {
            Ok(got) => Ok(Answered::Yes(got)),
            Err(Refused { status: StatusCode::NOT_FOUND, said }) => Ok(Answered::Missing(said)),
            Err(refused) => Err(self.refusal(what, &refused)),
        }
    }

    fn refusal(&self, what: &str, refused: &Refused) -> Error {
        answer::refusal(&self.location, what, refused.status, &refused.said)
    }

    /// As [`GcsStore::ask`], about an object.
    async fn object(&self, key: &Key, request: HttpRequest) -> Result<HttpResponse> {
        match self.ask(request, key.as_str()).await? {
            Answered::Yes(got) => Ok(got),
            Answered::Missing(said) => Err(self.missing(key, &said).await),
        }
    }

    /// Google's text says what is missing; where it does not, a listing tells whether there is a bucket.
    async fn missing(&self, key: &Key, said: &str) -> Error {
        if said.contains(wire::NO_OBJECT) {
            return error::not_found(&self.location, key);
        }
        match self.page("", None, 1).await {
            Ok(_) => error::not_found(&self.location, key),
            Err(error) => error,
        }
    }

    async fn page(&self, folder: &str, token: Option<&str>, names: u32) -> Result<Listing> {
        match self.ask(self.wire.list(folder, token, names)?, folder).await? {
            Answered::Yes(got) => {
                let text = self.body(got, folder, wire::PAGE_LIMIT_BYTES).await?;
                Listing::read(&text).ok_or_else(|| self.unreadable(folder))
            }
            Answered::Missing(_) => Err(answer::no_bucket(&self.location)),
        }
    }

    /// The contents of an answer, which announced its length or may have up to `limit_bytes`.
    async fn body(&self, got: HttpResponse, what: &str, limit_bytes: u64) -> Result<Bytes> {
        let announced = wire::content_length(&got).unwrap_or(limit_bytes).min(limit_bytes);
        match collect(got.into_body().bytes_stream(), announced, self.patience).await {
            Ok(bytes) => Ok(bytes),
            Err(Broken::Failed(failure)) => Err(answer::no_answer(&self.location, what, &failure)),
            Err(Broken::Slow) => Err(answer::slow(&self.location, what)),
            Err(Broken::TooLong) => Err(self.unreadable(what)),
        }
    }

    fn unreadable(&self, what: &str) -> Error {
        answer::unreadable(&self.location, what)
    }

    async fn part(&self, key: &Key, range: &Range<u64>) -> Result<Bytes> {
        let got = self.object(key, self.wire.get(key, Some(range))?).await?;
        if got.status() != StatusCode::PARTIAL_CONTENT {
            return Err(cut(&self.location, key));
        }
        self.body(got, key.as_str(), range.end - range.start).await
    }

    /// The pages of a listing after one another; a page that names itself as the next would never end.
    fn pages<'a>(&'a self, folder: &'a str) -> BoxStream<'a, Result<Listing>> {
        let first = Some(None::<String>);
        stream::try_unfold(first, move |token| async move {
            let Some(token) = token else { return Ok(None) };
            let mut page = self.page(folder, token.as_deref(), PAGE).await?;
            let next = page.next_page_token.take().filter(|next| !next.is_empty());
            if next.is_some() && next == token {
                return Err(self.unreadable(folder));
            }
            Ok(Some((page, next.map(Some))))
        })
        .boxed()
    }
}

#[async_trait]
impl Store for GcsStore {
    fn location(&self) -> String {
        self.location.clone()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { conditional_create: true, delete: true, versions: false, far: true }
    }

    async fn put(&self, key: &Key, data: Bytes, mode: PutMode) -> Result<()> {
        match self.ask(self.wire.put(key, data, mode, None)?, key.as_str()).await? {
            Answered::Yes(_) => Ok(()),
            Answered::Missing(_) => Err(answer::no_bucket(&self.location)),
        }
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        let got = self.object(key, self.wire.get(key, None)?).await?;
        let announced = wire::content_length(&got);
        let bytes = self.body(got, key.as_str(), u64::MAX).await?;
        match announced {
            Some(length_bytes) if bytes.len() as u64 != length_bytes => Err(cut(&self.location, key)),
            _ => Ok(bytes),
        }
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        exactly(self, key, range.clone(), self.part(key, &range)).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        let got = self.object(key, self.wire.head(key)?).await?;
        let text = self.body(got, key.as_str(), wire::PAGE_LIMIT_BYTES).await?;
        let found = wire::Object::read(&text).and_then(|object| self.wire.meta(&object));
        found.filter(|meta| meta.key == *key).ok_or_else(|| self.unreadable(key.as_str()))
    }

    fn list<'a>(&'a self, folder: &'a str) -> BoxStream<'a, Result<ObjectMeta>> {
        if !folder.is_empty()
            && let Err(error) = Key::new(folder)
        {
            return stream::iter([Err(error)]).boxed();
        }
        let found = |page: Listing| {
            let known: Vec<_> =
                page.items.iter().filter_map(|object| self.wire.meta(object)).map(Ok).collect();
            stream::iter(known)
        };
        self.pages(folder).map_ok(found).try_flatten().boxed()
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        match self.object(key, self.wire.delete(key)?).await {
            Ok(_) => Ok(()),
            Err(absent) if absent.kind() == ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
        }
    }
}

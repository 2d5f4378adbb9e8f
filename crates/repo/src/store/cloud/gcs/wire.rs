//! Requests to Google's JSON API, and what its answers hold.

use super::held::Retention;
use crate::crypto;
use crate::store::{Key, ObjectMeta, PutMode};
use bytes::Bytes;
use jiff::Timestamp;
use object_store::PutPayload;
use object_store::client::{HttpRequest, HttpRequestBody, HttpResponse};
use reqwest::Method;
use reqwest::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RANGE};
use retoma_core::{Error, Result};
use serde::Deserialize;
use serde_json::json;
use std::ops::Range;
use url::Url;

/// Where Google answers.
const BASE: &str = "https://storage.googleapis.com";
/// With these words Google says that it is the object that is missing, and not the bucket.
pub(super) const NO_OBJECT: &str = "No such object";
/// What is asked about an object's lock.
const LOCK_FIELDS: &str = "name,retention";
/// The longest answer of a listing that is read: a thousand names of up to a kilobyte fit well.
pub(super) const PAGE_LIMIT_BYTES: u64 = 16 << 20;

/// Where objects lie.
#[derive(Debug)]
pub(super) struct Wire {
    base: Url,
    bucket: String,
    /// Empty, or with a slash at its end.
    prefix: String,
}

/// An object as listings and metadata show it.
#[derive(Debug, Deserialize)]
pub(super) struct Object {
    name: String,
    /// A number as text.
    size: String,
    updated: Timestamp,
}

impl Object {
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }
}

/// A page of a listing.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Listing {
    #[serde(default)]
    pub(super) items: Vec<Object>,
    pub(super) next_page_token: Option<String>,
}

impl Listing {
    pub(super) fn read(text: &[u8]) -> Option<Self> {
        serde_json::from_slice(text).ok()
    }
}

/// The length that an answer announces.
pub(super) fn content_length(got: &HttpResponse) -> Option<u64> {
    got.headers().get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

impl Wire {
    /// `base` is the address of a server that is not Google's; `None` for one that is none.
    pub(super) fn new(base: Option<&str>, bucket: &str, prefix: &str) -> Option<Self> {
        let base: Url = base.unwrap_or(BASE).parse().ok()?;
        let is_server =
            matches!(base.scheme(), "http" | "https") && base.path() == "/" && base.query().is_none();
        let prefix = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        is_server.then(|| Self { base, bucket: bucket.to_owned(), prefix })
    }

    /// The object's address; names are made of letters, digits, `.`, `_` and `-`, so that only `/` must be escaped.
    fn object(&self, key: &Key, query: &[(&str, &str)]) -> Result<Url> {
        let name = self.name(key).replace('/', "%2F");
        self.url(&format!("/storage/v1/b/{}/o/{name}", self.bucket), query)
    }

    fn url(&self, path: &str, query: &[(&str, &str)]) -> Result<Url> {
        let mut url =
            self.base.join(path).map_err(|error| Error::internal(format!("an address: {error}")))?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        Ok(url)
    }

    pub(super) fn get(&self, key: &Key, range: Option<&Range<u64>>) -> Result<HttpRequest> {
        let mut get =
            request(Method::GET, &self.object(key, &[("alt", "media")])?, HttpRequestBody::empty())?;
        if let Some(range) = range {
            let bytes = format!("bytes={}-{}", range.start, range.end.saturating_sub(1));
            get.headers_mut().insert(RANGE, header(&bytes)?);
        }
        Ok(get)
    }

    pub(super) fn head(&self, key: &Key) -> Result<HttpRequest> {
        let url = self.object(key, &[("fields", "name,size,updated")])?;
        request(Method::GET, &url, HttpRequestBody::empty())
    }

    pub(super) fn delete(&self, key: &Key) -> Result<HttpRequest> {
        request(Method::DELETE, &self.object(key, &[])?, HttpRequestBody::empty())
    }

    pub(super) fn list(&self, folder: &str, token: Option<&str>, names: u32) -> Result<HttpRequest> {
        let folder = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        let (prefix, names) = (format!("{}{folder}", self.prefix), names.to_string());
        let mut query = vec![
            ("prefix", prefix.as_str()),
            ("maxResults", names.as_str()),
            ("fields", "nextPageToken,items(name,size,updated)"),
        ];
        query.extend(token.map(|token| ("pageToken", token)));
        let url = self.url(&format!("/storage/v1/b/{}/o", self.bucket), &query)?;
        request(Method::GET, &url, HttpRequestBody::empty())
    }

    /// Name, lock and contents in one body. What is between the parts is random, so that no contents can hold it.
    pub(super) fn put(
        &self,
        key: &Key,
        data: Bytes,
        mode: PutMode,
        retention: Option<&Retention>,
    ) -> Result<HttpRequest> {
        let fields = if retention.is_some() { LOCK_FIELDS } else { "name" };
        let mut query = vec![("uploadType", "multipart"), ("fields", fields)];
        if mode == PutMode::Create {
            query.push(("ifGenerationMatch", "0"));
        }
        let url = self.url(&format!("/upload/storage/v1/b/{}/o", self.bucket), &query)?;
        let mut random = [0; 16];
        crypto::random(&mut random)?;
        let boundary = format!("retoma-{:032x}", u128::from_ne_bytes(random));
        let mut about = json!({ "name": self.name(key) });
        if let Some(retention) = retention {
            about["retention"] = retention.json();
        }
        let head = format!(
            "--{boundary}\r\ncontent-type: application/json\r\n\r\n{about}\r\n--{boundary}\r\n\
             content-type: application/octet-stream\r\n\r\n"
        );
        let tail = format!("\r\n--{boundary}--\r\n");
        let parts = [Bytes::from(head), data, Bytes::from(tail)];
        let body: PutPayload = parts.into_iter().filter(|part| !part.is_empty()).collect();
        let length_bytes = body.content_length();
        let mut put = request(Method::POST, &url, body.into())?;
        put.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length_bytes));
        put.headers_mut().insert(CONTENT_TYPE, header(&format!("multipart/related; boundary={boundary}"))?);
        Ok(put)
    }

    /// Whether an object is locked.
    pub(super) fn retention(&self, key: &Key) -> Result<HttpRequest> {
        let url = self.object(key, &[("fields", LOCK_FIELDS)])?;
        request(Method::GET, &url, HttpRequestBody::empty())
    }

    /// Gives an object another lock. Google wants to be told of one that is made stronger, and refuses one that is shortened.
    pub(super) fn retain(
        &self,
        key: &Key,
        retention: &Retention,
        is_made_stronger: bool,
    ) -> Result<HttpRequest> {
        let mut query = vec![("fields", LOCK_FIELDS)];
        query.extend(is_made_stronger.then_some(("overrideUnlockedRetention", "true")));
        let body = Bytes::from(json!({ "retention": retention.json() }).to_string());
        let length_bytes = body.len();
        let mut patch = request(Method::PATCH, &self.object(key, &query)?, PutPayload::from(body).into())?;
        patch.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length_bytes));
        patch.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        Ok(patch)
    }

    /// How the bucket is set up.
    pub(super) fn bucket(&self) -> Result<HttpRequest> {
        let url =
            self.url(&format!("/storage/v1/b/{}", self.bucket), &[("fields", "objectRetention,versioning")])?;
        request(Method::GET, &url, HttpRequestBody::empty())
    }

    /// The name by which Google knows an object of ours.
    pub(super) fn name(&self, key: &Key) -> String {
        format!("{}{key}", self.prefix)
    }

    /// `None` for what is no object of ours: others may use the same bucket.
    pub(super) fn meta(&self, object: &Object) -> Option<ObjectMeta> {
        let key = Key::new(object.name.strip_prefix(&self.prefix)?).ok()?;
        Some(ObjectMeta { key, size_bytes: object.size.parse().ok()?, modified: object.updated })
    }
}

fn request(method: Method, url: &Url, body: HttpRequestBody) -> Result<HttpRequest> {
    let mut request = HttpRequest::new(body);
    *request.method_mut() = method;
    *request.uri_mut() =
        url.as_str().parse().map_err(|_| Error::internal("an address is none".to_owned()))?;
    Ok(request)
}

fn header(text: &str) -> Result<HeaderValue> {
    HeaderValue::from_str(text).map_err(|_| Error::internal("a header has another character".to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wire() -> Wire {
        Wire::new(Some("http://127.0.0.1:9000/"), "bucket", "zone/one").unwrap()
    }

    fn key(name: &str) -> Key {
        Key::new(name).unwrap()
    }

    #[test]
    fn requests_name_bucket_and_object() {
        let at = |request: HttpRequest| format!("{} {}", request.method(), request.uri());
        let object = "http://127.0.0.1:9000/storage/v1/b/bucket/o/zone%2Fone%2Fdata%2Fab%2F.x";
        let name = key("data/ab/.x");
        assert_eq!(at(wire().get(&name, None).unwrap()), format!("GET {object}?alt=media"));
        assert_eq!(at(wire().delete(&name).unwrap()), format!("DELETE {object}"));
        assert_eq!(at(wire().head(&name).unwrap()), format!("GET {object}?fields=name%2Csize%2Cupdated"));
        let part = wire().get(&name, Some(&(5..9))).unwrap();
        assert_eq!(part.headers()[RANGE], "bytes=5-8");
        let listed = at(wire().list("data", Some("a b&c"), 7).unwrap());
        assert_eq!(
            listed,
            "GET http://127.0.0.1:9000/storage/v1/b/bucket/o?prefix=zone%2Fone%2Fdata%2F&maxResults=7&\
             fields=nextPageToken%2Citems%28name%2Csize%2Cupdated%29&pageToken=a+b%26c"
        );
        let google = Wire::new(None, "bucket", "").unwrap();
        assert!(
            at(google.head(&key("config")).unwrap())
                .starts_with("GET https://storage.googleapis.com/storage/v1/")
        );
    }

    #[test]
    fn only_create_asks_that_nothing_is_there() {
        for (mode, asks) in [(PutMode::Create, true), (PutMode::Overwrite, false)] {
            let put = wire().put(&key("config"), Bytes::from_static(b"x"), mode, None).unwrap();
            let uri = put.uri().to_string();
            assert!(
                uri.starts_with("http://127.0.0.1:9000/upload/storage/v1/b/bucket/o?uploadType=multipart"),
                "{uri}"
            );
            assert_eq!(uri.contains("ifGenerationMatch=0"), asks);
            let length: usize = put.headers()[CONTENT_LENGTH].to_str().unwrap().parse().unwrap();
            assert_eq!(length, put.body().content_length());
        }
    }

    #[test]
    fn the_address_of_another_server_is_one() {
        for wrong in ["", "server", "ftp://server", "http://server/path", "http://server/?x"] {
            assert!(Wire::new(Some(wrong), "bucket", "").is_none(), "{wrong}");
        }
        assert!(Wire::new(Some("https://server:4443"), "bucket", "").is_some());
    }

    #[test]
    fn hostile_listings_give_nothing_or_what_is_ours() {
        let object = |name: &str, size: &str| {
            format!(r#"{{"name":"{name}","size":"{size}","updated":"2026-01-31T12:00:00.5Z"}}"#)
        };
        let names = |items: &[String]| -> Option<Vec<String>> {
            let text = format!(r#"{{"items":[{}],"nextPageToken":"n"}}"#, items.join(","));
            let listing = Listing::read(text.as_bytes())?;
            let known = listing.items.iter().filter_map(|object| wire().meta(object));
            Some(known.map(|meta| meta.key.as_str().to_owned()).collect())
        };
        let items = [
            object("zone/one/data/x", "1"),
            object("zone/other", "1"),
            object("zone/one/", "1"),
            object("zone/one/../two", "1"),
            object("zone/one/y", "-1"),
        ];
        assert_eq!(names(&items), Some(vec!["data/x".to_owned()]));
        assert_eq!(names(&[r#"{"name":"x"}"#.to_owned()]), None);
        for text in ["", "null", "[]", "{\"items\":null}", "\u{0}"] {
            assert!(Listing::read(text.as_bytes()).is_none_or(|listing| listing.items.is_empty()), "{text}");
        }
        assert!(Listing::read(b"{}").unwrap().items.is_empty());
    }
}

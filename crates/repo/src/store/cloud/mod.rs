//! Buckets of cloud providers: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix`.
//!
//! The `object_store` crate speaks the protocols of S3 and Azure, and [`ObjectStore`] adds exact ranges and our errors;
//! Google's JSON API is spoken in `gcs`. Credentials come from the providers' usual environment variables, files and instance roles, never from the address. The crate's own
//! retries are off: the layers around a store repeat calls, each with its own deadline. One request writes an object
//! (up to 5 GB; ours have about 16 MiB), so killed writers leave nothing behind.

mod answer;
mod azure;
mod gcs;
mod http;
mod locked;
mod locks;
pub(super) mod pace;
mod s3;

pub(super) use answer::{remote as failure, slow};
pub use locks::{BucketState, Held, Locks, is_locked};
pub use pace::Patience;

use super::{Capabilities, Key, ObjectStore, Store};
use jiff::Timestamp;
use locked::Locked;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientConfigKey, RetryConfig};
use retoma_core::error::codes;
use retoma_core::manifest::ObjectLock;
use retoma_core::{Error, ErrorKind, Result};
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// The schemes of these stores.
pub const SCHEMES: [&str; 3] = ["s3", "gs", "az"];

/// Environment variables by name, as a store looks for its settings and credentials.
pub type Variables = Vec<(String, String)>;

/// What an address names.
struct Place {
    bucket: String,
    /// Empty for the whole bucket.
    prefix: String,
}

/// Refuses what no address of a bucket has: credentials, a port, `?`, `#`, characters that are no name's.
///
/// # Errors
/// `Invalid` with `R0304`; the message holds nothing that may be a secret.
pub fn check(url: &Url) -> Result<()> {
    place(url).map(|_| ())
}

fn place(url: &Url) -> Result<Place> {
    let scheme = url.scheme();
    let bucket = url.host_str().unwrap_or_default();
    let refused = |why: &str, hint: &str| {
        let message = format!("the address of bucket `{bucket}` is not one of a repository: {why}");
        Err(Error::new(ErrorKind::Invalid, codes::STORE_ADDRESS, message).with_hint(hint.to_owned()))
    };
    if !url.username().is_empty() || url.password().is_some() || url.query().is_some() {
        let hint = "credentials come from the environment (docs/stores.md has the variables); change those that were \
                    written here, they may have been seen";
        return refused("it holds credentials or `?`", hint);
    }
    let form = format!("write it like `{scheme}://bucket/prefix`");
    if url.port().is_some() || url.fragment().is_some() {
        return refused("it has a port or `#`; the endpoint comes from the environment", &form);
    }
    let named = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !(1..=255).contains(&bucket.len()) || !bucket.bytes().all(named) {
        return refused("its bucket is none", &form);
    }
    let prefix = url.path().trim_matches('/');
    if !prefix.is_empty() && Key::new(prefix).is_err() {
        return refused("its prefix has more than letters, digits, `.`, `_`, `-` and `/`", &form);
    }
    Ok(Place { bucket: bucket.to_owned(), prefix: prefix.to_owned() })
}

/// Opens the bucket at `url` with the settings and credentials of the process's environment. Nothing is sent yet.
///
/// # Errors
/// `Invalid` for an address that is none, or settings that contradict each other or lack a part.
pub fn open(url: &Url) -> Result<Arc<dyn Store>> {
    open_with(url, &environment())
}

/// As [`open`]; every object that is written gets this lock, but those that must be deletable.
///
/// # Errors
/// As [`open`]; `Unsupported` for a store without locks.
pub fn open_locked(url: &Url, lock: ObjectLock) -> Result<Arc<dyn Store>> {
    open_locked_with(url, &environment(), lock)
}

/// As [`open_locked`], with these variables.
///
/// # Errors
/// As [`open_locked`].
pub fn open_locked_with(url: &Url, variables: &Variables, lock: ObjectLock) -> Result<Arc<dyn Store>> {
    let way = locks::way(url, variables)?;
    Ok(Arc::new(Locked::new(open_with(url, variables)?, way, lock)))
}

/// The store at `url` as it was at `time`, read-only. Lists all versions there.
///
/// # Errors
/// As [`open`]; `Unsupported` when it keeps no versions; `Exhausted` with `R0313` when there are too many.
pub fn as_of(url: &Url, time: Timestamp) -> Result<Arc<dyn Store>> {
    s3::as_of(url, &environment(), time)
}

/// As [`as_of`], with these variables.
///
/// # Errors
/// As [`as_of`].
pub fn as_of_with(url: &Url, variables: &Variables, time: Timestamp) -> Result<Arc<dyn Store>> {
    s3::as_of(url, variables, time)
}

/// The variables of the process.
fn environment() -> Variables {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// As [`open`], with these variables instead of the environment's.
///
/// # Errors
/// As [`open`].
pub fn open_with(url: &Url, variables: &Variables) -> Result<Arc<dyn Store>> {
    open_patient(url, variables, Patience::default())
}

/// As [`open_with`], with another patience.
///
/// # Errors
/// As [`open`].
pub fn open_patient(url: &Url, variables: &Variables, patience: Patience) -> Result<Arc<dyn Store>> {
    let place = place(url)?;
    match url.scheme() {
        "s3" => s3::open(&place, variables, patience),
        "az" => azure::open(&place, variables, patience),
        "gs" => gcs::open(&place, variables, patience),
        scheme => Err(Error::internal(format!("`{scheme}` is no scheme of a bucket"))),
    }
}

impl Place {
    /// The address, as messages show it.
    fn location(&self, scheme: &str) -> String {
        let mut location = format!("{scheme}://{}", self.bucket);
        if !self.prefix.is_empty() {
            location.push('/');
            location.push_str(&self.prefix);
        }
        location
    }

    /// Our store over the provider's, below the prefix.
    fn store(
        &self,
        scheme: &str,
        remote: impl object_store::ObjectStore,
        patience: Patience,
    ) -> Arc<dyn Store> {
        let capabilities =
            Capabilities { conditional_create: true, delete: true, versions: false, far: true };
        let below = PrefixStore::new(remote, Path::from(self.prefix.as_str()));
        Arc::new(ObjectStore::new(Arc::new(below), self.location(scheme), capabilities, patience))
    }

    /// Settings that the crate refuses. Its words name variables and fields, and may quote values: they are not shown.
    fn refused(&self, scheme: &str, hint: &'static str) -> Error {
        let message =
            format!("the settings for `{}` in the environment cannot be used", self.location(scheme));
        Error::new(ErrorKind::Invalid, codes::STORE_ADDRESS, message).with_hint(hint)
    }
}

/// The settings of a provider among `variables`, by its keys. How connections are made is our business, except for whether they
/// may be in the clear: `client` tells of a key whether it is about that.
fn settings<'a, K: FromStr>(
    variables: &'a Variables,
    prefix: &str,
    client: impl Fn(&K) -> Option<ClientConfigKey>,
) -> impl Iterator<Item = (K, &'a str)> {
    let own = variables.iter().filter(move |(name, value)| name.starts_with(prefix) && !value.is_empty());
    let known =
        own.filter_map(|(name, value)| Some((name.to_ascii_lowercase().parse().ok()?, value.as_str())));
    known.filter(move |(key, _)| client(key).is_none_or(|key| key == ClientConfigKey::AllowHttp))
}

/// Our retry layer repeats; it looks first whether a `Create` that got no answer has happened.
fn no_retries() -> RetryConfig {
    RetryConfig { max_retries: 0, retry_timeout: Duration::ZERO, backoff: BackoffConfig::default() }
}

/// The value of a variable, where it is set to something.
fn variable<'a>(variables: &'a Variables, name: &str) -> Option<&'a str> {
    let found = variables.iter().find(|(known, value)| known == name && !value.is_empty());
    found.map(|(_, value)| value.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(text: &str) -> String {
        let error = check(&text.parse().unwrap()).unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, codes::STORE_ADDRESS), "{text}");
        format!("{error} {error:?} {:?}", error.hint())
    }

    #[test]
    fn an_address_names_a_bucket_and_a_prefix_and_nothing_else() {
        for (text, bucket, prefix) in [
            ("s3://bucket", "bucket", ""),
            ("gs://a.b-c_d/", "a.b-c_d", ""),
            ("az://container/x/y-1/", "container", "x/y-1"),
        ] {
            let place = place(&text.parse().unwrap()).unwrap();
            assert_eq!((&*place.bucket, &*place.prefix), (bucket, prefix));
        }
        for wrong in
            ["s3://bucket:9000/x", "s3://bucket/a%20b", "s3://bucket/a//b", "gs://bucket/x#y", "s3://b$/x"]
        {
            refusal(wrong);
        }
    }

    #[test]
    fn an_address_with_credentials_is_refused_without_showing_them() {
        for text in [
            "s3://hunter2@bucket/x",
            "s3://key:hunter2@bucket",
            "az://container/x?sig=hunter2",
            "gs://b?hunter2",
        ] {
            let shown = refusal(text);
            assert!(!shown.contains("hunter2") && shown.contains("environment"), "{shown}");
        }
    }

    #[test]
    fn settings_that_lack_a_part_are_refused_without_showing_the_rest() {
        let variables = [
            ("AWS_SECRET_ACCESS_KEY", "hunter2"),
            ("AZURE_STORAGE_ACCOUNT_KEY", "hunter2"),
            ("GOOGLE_SERVICE_ACCOUNT_KEY", "hunter2"),
        ];
        let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        for text in ["s3://bucket/x", "az://container", "gs://bucket"] {
            let error = open_with(&text.parse().unwrap(), &variables).unwrap_err();
            assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, codes::STORE_ADDRESS), "{text}");
            assert!(!format!("{error} {error:?} {:?}", error.hint()).contains("hunter2"), "{error:?}");
        }
    }
}

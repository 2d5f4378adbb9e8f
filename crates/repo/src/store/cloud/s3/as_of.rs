//! A bucket as it was at a moment, read-only.

use super::Bucket;
use super::locks::versioning;
use super::signed::{Ask, Signed};
use super::versions::{AtTime, Page, Version};
use crate::store::blocking::shared_runtime;
use crate::store::cloud::locks::patiently;
use crate::store::cloud::{Patience, Variables, place};
use crate::store::object::exactly;
use crate::store::{Capabilities, Key, ObjectMeta, ObjectStore, PutMode, Store, error};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use jiff::Timestamp;
use object_store::GetOptions;
use retoma_core::error::codes;
use retoma_core::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use url::Url;

/// More objects are not held in memory.
const OBJECTS_LIMIT: usize = 8_000_000;
/// More pages are not read: what an intruder wrote since is listed as well.
const PAGES_LIMIT: u64 = 4_000_000;

/// The store at `url` as it was at `time`. Lists all versions of the whole repository, which takes one request for a thousand.
///
/// # Errors
/// `Unsupported` when the store keeps no versions, `Exhausted` with `R0313` when there are too many; what the store says.
pub(crate) fn as_of(url: &Url, variables: &Variables, time: Timestamp) -> Result<Arc<dyn Store>> {
    if url.scheme() != "s3" {
        let message = format!(
            "`{}://` cannot be read as it was: only `s3://` is asked for older versions",
            url.scheme()
        );
        return Err(Error::new(ErrorKind::Unsupported, codes::STORE_UNSUPPORTED, message)
            .with_hint("`--at TIME` takes an older snapshot of the repository as it is now"));
    }
    let place = place(url)?;
    let bucket = Bucket::new(&place, variables, Patience::default())?;
    let (signed, inner) = (bucket.signed(&place), bucket.store(&place));
    let objects = shared_runtime()?.block_on(objects(&signed, time))?;
    Ok(Arc::new(AsOf { inner, objects, time }))
}

async fn objects(signed: &Signed, time: Timestamp) -> Result<BTreeMap<Key, Version>> {
    match patiently(async || versioning(signed).await).await {
        Ok(true) => {}
        // Who may read versions need not be allowed to read settings.
        Err(error) if error.kind() == ErrorKind::Unauthorized => {}
        Ok(false) => return Err(no_versions(signed)),
        Err(error) => return Err(error),
    }
    let mut found = AtTime::new(time, signed.prefix.clone());
    let mut next: Option<(String, String)> = None;
    // A list that leads back to where it was would never end.
    let mut landmark = None;
    for number in 1..=PAGES_LIMIT {
        let page = patiently(async || page(signed, next.as_ref()).await).await?;
        for entry in page.entries {
            found.add(entry).ok_or_else(|| signed.unreadable("the versions"))?;
        }
        if found.len() > OBJECTS_LIMIT {
            break;
        }
        let Some(following) = page.next else { return Ok(found.finish()) };
        if Some(&following) == landmark.as_ref() || Some(&following) == next.as_ref() {
            return Err(signed.unreadable("the versions"));
        }
        if number.is_power_of_two() {
            landmark = Some(following.clone());
        }
        next = Some(following);
    }
    let message = format!("`{}` has more versions than can be looked through", signed.location);
    Err(Error::new(ErrorKind::Exhausted, codes::STORE_VERSIONS, message).with_hint(
        "read it with a program that restores the bucket's versions in place, then without `--as-of`",
    ))
}

fn no_versions(signed: &Signed) -> Error {
    let message =
        format!("the bucket of `{}` keeps no versions: it cannot be read as it was", signed.location);
    Error::new(ErrorKind::Unsupported, codes::STORE_UNSUPPORTED, message).with_hint(
        "switch versions on in the bucket: it helps from then on; `--at TIME` takes an older snapshot",
    )
}

async fn page(signed: &Signed, from: Option<&(String, String)>) -> Result<Page> {
    let mut query =
        vec![("versions", ""), ("encoding-type", "url"), ("max-keys", "1000"), ("prefix", &signed.prefix)];
    if let Some((name, version)) = from {
        query.push(("key-marker", name));
        if !version.is_empty() {
            query.push(("version-id-marker", version));
        }
    }
    match signed.ask(Ask::bucket(&query)).await? {
        Ok(got) => {
            let text = signed.text(got, "the versions").await?;
            let page = std::str::from_utf8(&text).ok().and_then(Page::read);
            page.ok_or_else(|| signed.unreadable("the versions"))
        }
        Err(refused) => Err(signed.refusal(&refused)),
    }
}

/// See the module.
#[derive(Debug)]
struct AsOf {
    inner: ObjectStore,
    objects: BTreeMap<Key, Version>,
    time: Timestamp,
}

impl AsOf {
    fn version(&self, key: &Key) -> Result<&Version> {
        self.objects.get(key).ok_or_else(|| error::not_found(&self.location(), key))
    }

    fn options(version: &Version) -> GetOptions {
        GetOptions { version: Some(version.id.to_string()), ..GetOptions::default() }
    }

    fn read_only(&self) -> Error {
        let message = format!("`{}` is read-only", self.location());
        Error::new(ErrorKind::Unsupported, codes::STORE_UNSUPPORTED, message)
    }
}

fn meta((key, version): (&Key, &Version)) -> ObjectMeta {
    ObjectMeta { key: key.clone(), size_bytes: version.size_bytes, modified: version.modified }
}

#[async_trait]
impl Store for AsOf {
    fn location(&self) -> String {
        format!("{} as of {}", self.inner.location(), self.time)
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { conditional_create: false, delete: false, versions: true, far: true }
    }

    async fn put(&self, _key: &Key, _data: Bytes, _mode: PutMode) -> Result<()> {
        Err(self.read_only())
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        self.inner.read(key, Self::options(self.version(key)?)).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let version = self.version(key)?;
        let options = GetOptions { range: Some(range.clone().into()), ..Self::options(version) };
        exactly(self, key, range, self.inner.read(key, options)).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        Ok(meta((key, self.version(key)?)))
    }

    fn list<'a>(&'a self, folder: &'a str) -> BoxStream<'a, Result<ObjectMeta>> {
        let below = if folder.is_empty() { String::new() } else { format!("{folder}/") };
        if !folder.is_empty()
            && let Err(error) = Key::new(folder)
        {
            return stream::iter([Err(error)]).boxed();
        }
        let found = self.objects.iter().filter(move |(key, _)| key.as_str().starts_with(&below));
        stream::iter(found.map(|it| Ok(meta(it)))).boxed()
    }

    async fn delete(&self, _key: &Key) -> Result<()> {
        Err(self.read_only())
    }
}

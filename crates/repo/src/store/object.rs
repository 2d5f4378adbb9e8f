//! A store over the `object_store` crate: memory, and the buckets of [`cloud`].
//!
//! The local file system does not go through here: `docs/stores.md` says what that crate's local store leaves open.

use super::cloud::pace::{Broken, Patience, collect};
use super::{Capabilities, Key, ObjectMeta, PutMode, Store, cloud, error};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use jiff::Timestamp;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStore as Remote, ObjectStoreExt as _, PutOptions};
use retoma_core::error::codes;
use retoma_core::{Error, ErrorKind, Result};
use std::future::Future;
use std::ops::Range;
use std::sync::Arc;

/// A [`Store`] over any store of the `object_store` crate.
#[derive(Debug, Clone)]
pub struct ObjectStore {
    remote: Arc<dyn Remote>,
    location: String,
    capabilities: Capabilities,
    patience: Patience,
}

impl ObjectStore {
    /// A store in this process's memory, for tests and trials. Clones share the objects.
    pub fn memory() -> Self {
        Self {
            remote: Arc::new(object_store::memory::InMemory::new()),
            location: "memory:".to_owned(),
            capabilities: Capabilities {
                conditional_create: true,
                delete: true,
                versions: false,
                far: false,
            },
            patience: Patience::default(),
        }
    }

    /// Over `remote`, which promises `capabilities`. `location` is shown in messages and holds no credentials.
    pub(super) fn new(
        remote: Arc<dyn Remote>,
        location: String,
        capabilities: Capabilities,
        patience: Patience,
    ) -> Self {
        Self { remote, location, capabilities, patience }
    }

    fn failed(&self, what: impl std::fmt::Display) -> impl Fn(object_store::Error) -> Error {
        move |source| cloud::failure(&self.location, &what, &source)
    }

    /// Reads the object as `options` say, and as many bytes of it as the answer announces.
    pub(super) async fn read(&self, key: &Key, options: GetOptions) -> Result<Bytes> {
        let answer = self.remote.get_opts(&path(key), options).await.map_err(self.failed(key))?;
        let announced = answer.range.end.saturating_sub(answer.range.start);
        match collect(answer.into_stream(), announced, self.patience).await {
            Ok(bytes) if bytes.len() as u64 == announced => Ok(bytes),
            Ok(_) | Err(Broken::TooLong) => Err(cut(&self.location, key)),
            Err(Broken::Slow) => Err(cloud::slow(&self.location, key)),
            Err(Broken::Failed(source)) => Err(self.failed(key)(source)),
        }
    }
}

/// An answer that has not as many bytes as it should.
pub(super) fn cut(location: &str, key: &Key) -> Error {
    let message = format!("`{location}` did not answer with the bytes of `{key}` that it has");
    Error::new(ErrorKind::Unavailable, codes::STORE_UNAVAILABLE, message)
}

/// Exactly `range` of the object, as `fetch` reads it; `Corrupt` if the range ends beyond the object. Providers cut such a
/// range, or answer in many ways: the size decides.
pub(super) async fn exactly(
    store: &dyn Store,
    key: &Key,
    range: Range<u64>,
    fetch: impl Future<Output = Result<Bytes>>,
) -> Result<Bytes> {
    let check = async || {
        let size_bytes = store.head(key).await?.size_bytes;
        let is_short = range.end > size_bytes;
        if is_short { Err(error::short(&store.location(), key, &range, size_bytes)) } else { Ok(()) }
    };
    if range.start > range.end {
        return Err(error::reversed(key, &range));
    }
    if range.is_empty() {
        check().await?;
        return Ok(Bytes::new());
    }
    match fetch.await {
        Ok(bytes) if bytes.len() as u64 == range.end - range.start => Ok(bytes),
        Ok(_) => {
            check().await?;
            Err(cut(&store.location(), key))
        }
        Err(failed) => {
            if failed.kind().is_retryable() {
                check().await?;
            }
            Err(failed)
        }
    }
}

fn path(key: &Key) -> Path {
    Path::from(key.as_str())
}

/// `None` for objects whose names are no keys: others may use the same bucket.
fn object_meta(meta: &object_store::ObjectMeta) -> Option<ObjectMeta> {
    let key = Key::new(meta.location.as_ref()).ok()?;
    let seconds = meta.last_modified.timestamp();
    let nanoseconds = i32::try_from(meta.last_modified.timestamp_subsec_nanos()).unwrap_or_default();
    let modified = Timestamp::new(seconds, nanoseconds).unwrap_or(Timestamp::MIN);
    Some(ObjectMeta { key, size_bytes: meta.size, modified })
}

#[async_trait]
impl Store for ObjectStore {
    fn location(&self) -> String {
        self.location.clone()
    }

    fn capabilities(&self) -> Capabilities {
        self.capabilities
    }

    async fn put(&self, key: &Key, data: Bytes, mode: PutMode) -> Result<()> {
        let mode = match mode {
            PutMode::Create => object_store::PutMode::Create,
            PutMode::Overwrite => object_store::PutMode::Overwrite,
        };
        let options = PutOptions::from(mode);
        self.remote.put_opts(&path(key), data.into(), options).await.map_err(self.failed(key))?;
        Ok(())
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        self.read(key, GetOptions::default()).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let options = GetOptions { range: Some(range.clone().into()), ..GetOptions::default() };
        exactly(self, key, range, self.read(key, options)).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        let meta = self.remote.head(&path(key)).await.map_err(self.failed(key))?;
        object_meta(&meta).ok_or_else(|| error::bad_name(meta.location.as_ref()))
    }

    fn list<'a>(&'a self, folder: &'a str) -> BoxStream<'a, Result<ObjectMeta>> {
        let prefix = match folder {
            "" => None,
            name => match Key::new(name) {
                Ok(key) => Some(path(&key)),
                Err(error) => return stream::iter([Err(error)]).boxed(),
            },
        };
        let failed = move |source| self.failed(folder)(source);
        self.remote
            .list(prefix.as_ref())
            .filter_map(move |found| {
                let found = match found {
                    Ok(meta) => object_meta(&meta).map(Ok),
                    Err(source) => Some(Err(failed(source))),
                };
                futures::future::ready(found)
            })
            .boxed()
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        match self.remote.delete(&path(key)).await {
            Ok(()) => Ok(()),
            Err(source) => match self.failed(key)(source) {
                absent if absent.kind() == ErrorKind::NotFound => Ok(()),
                error => Err(error),
            },
        }
    }
}

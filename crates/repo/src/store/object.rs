//! A store over the `object_store` crate: memory now, cloud providers when their addresses are opened.
//!
//! The local file system does not go through here: `docs/stores.md` says what that crate's local store leaves open.

use super::{Capabilities, Key, ObjectMeta, PutMode, Store, error};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use jiff::Timestamp;
use object_store::path::Path;
use object_store::{ObjectStore as Remote, ObjectStoreExt as _, PutOptions};
use retoma_core::Result;
use std::ops::Range;
use std::sync::Arc;

/// A [`Store`] over any store of the `object_store` crate.
#[derive(Debug, Clone)]
pub struct ObjectStore {
    remote: Arc<dyn Remote>,
    location: String,
    capabilities: Capabilities,
}

impl ObjectStore {
    /// A store in this process's memory, for tests and trials. Clones share the objects.
    pub fn memory() -> Self {
        Self {
            remote: Arc::new(object_store::memory::InMemory::new()),
            location: "memory:".to_owned(),
            capabilities: Capabilities { conditional_create: true, delete: true, versions: false },
        }
    }

    fn failed(&self, what: impl std::fmt::Display) -> impl Fn(object_store::Error) -> retoma_core::Error {
        move |source| error::remote(&self.location, &what, source)
    }

    /// `Corrupt` if `range` ends beyond the object. Providers cut such a range, or answer in many ways.
    async fn check_range(&self, key: &Key, range: &Range<u64>) -> Result<()> {
        let size_bytes = self.head(key).await?.size_bytes;
        if range.end > size_bytes {
            return Err(error::short(&self.location, key, range, size_bytes));
        }
        Ok(())
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
        let answer = self.remote.get(&path(key)).await.map_err(self.failed(key))?;
        answer.bytes().await.map_err(self.failed(key))
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        if range.start > range.end {
            return Err(error::reversed(key, &range));
        }
        if range.is_empty() {
            self.check_range(key, &range).await?;
            return Ok(Bytes::new());
        }
        match self.remote.get_range(&path(key), range.clone()).await {
            Ok(bytes) if bytes.len() as u64 == range.end - range.start => Ok(bytes),
            Ok(_) => {
                self.check_range(key, &range).await?;
                let message = format!("`{}` answered with fewer bytes of `{key}` than it has", self.location);
                let code = retoma_core::error::codes::STORE_UNAVAILABLE;
                Err(retoma_core::Error::new(retoma_core::ErrorKind::Unavailable, code, message))
            }
            Err(source) => {
                let failed = self.failed(key)(source);
                if failed.kind().is_retryable() {
                    self.check_range(key, &range).await?;
                }
                Err(failed)
            }
        }
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
            Err(object_store::Error::NotFound { .. }) | Ok(()) => Ok(()),
            Err(source) => Err(self.failed(key)(source)),
        }
    }
}

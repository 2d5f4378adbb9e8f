//! Writes with a lock: mode and date are part of the request that writes the object, so that it never lies there without.

use super::locks::{Way, is_locked};
use crate::store::{Capabilities, Key, Leftovers, ObjectMeta, PutMode, Store};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use jiff::Timestamp;
use retoma_core::Result;
use retoma_core::manifest::ObjectLock;
use std::ops::Range;
use std::sync::Arc;

/// A bucket in which every object but locks and marks is written with a lock.
#[derive(Debug)]
pub(super) struct Locked {
    inner: Arc<dyn Store>,
    way: Arc<dyn Way>,
    lock: ObjectLock,
}

impl Locked {
    pub(super) fn new(inner: Arc<dyn Store>, way: Arc<dyn Way>, lock: ObjectLock) -> Self {
        Self { inner, way, lock }
    }
}

#[async_trait]
impl Store for Locked {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn put(&self, key: &Key, data: Bytes, mode: PutMode) -> Result<()> {
        if !is_locked(key.as_str()) {
            return self.inner.put(key, data, mode).await;
        }
        let end = self.lock.until(Timestamp::now());
        self.way.write(key, data, mode, self.lock.mode, end).await
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        self.inner.get_range(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        self.inner.head(key).await
    }

    fn list<'a>(&'a self, folder: &'a str) -> BoxStream<'a, Result<ObjectMeta>> {
        self.inner.list(folder)
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.inner.delete(key).await
    }

    async fn remove_leftovers(&self, modified_before: Timestamp) -> Result<Leftovers> {
        self.inner.remove_leftovers(modified_before).await
    }
}

//! A store that gives other bytes for chosen objects, so that a repository is opened once and damaged thousands of times.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::store::{Capabilities, Key, ObjectMeta, PutMode, Store};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

#[derive(Debug)]
pub(super) struct DamagedStore {
    inner: Arc<dyn Store>,
    /// `None`: it is gone.
    damage: Mutex<HashMap<Key, Option<Bytes>>>,
}

impl DamagedStore {
    pub(super) fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, damage: Mutex::default() }
    }

    pub(super) fn replace(&self, name: &str, bytes: impl Into<Bytes>) {
        self.damage.lock().unwrap().insert(Key::new(name).unwrap(), Some(bytes.into()));
    }

    pub(super) fn hide(&self, name: &str) {
        self.damage.lock().unwrap().insert(Key::new(name).unwrap(), None);
    }

    pub(super) fn heal(&self) {
        self.damage.lock().unwrap().clear();
    }

    /// What is given in place of an object: other bytes, or that it is gone.
    fn damaged(&self, key: &Key) -> Option<Result<Bytes>> {
        let damage = self.damage.lock().unwrap();
        damage.get(key).map(|bytes| bytes.clone().ok_or_else(|| gone(key)))
    }
}

fn gone(key: &Key) -> Error {
    Error::new(ErrorKind::NotFound, codes::OBJECT_NOT_FOUND, format!("no `{key}`"))
}

#[async_trait]
impl Store for DamagedStore {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn put(&self, key: &Key, data: Bytes, mode: PutMode) -> Result<()> {
        self.inner.put(key, data, mode).await
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        match self.damaged(key) {
            Some(bytes) => bytes,
            None => self.inner.get(key).await,
        }
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let Some(bytes) = self.damaged(key) else { return self.inner.get_range(key, range).await };
        let bytes = bytes?;
        if range.end > bytes.len() as u64 {
            return Err(Error::new(ErrorKind::Corrupt, codes::OBJECT_SHORT, format!("`{key}` is short")));
        }
        Ok(bytes.slice(usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap()))
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        let mut meta = self.inner.head(key).await?;
        if let Some(bytes) = self.damaged(key) {
            meta.size_bytes = bytes?.len() as u64;
        }
        Ok(meta)
    }

    fn list<'a>(&'a self, folder: &'a str) -> BoxStream<'a, Result<ObjectMeta>> {
        let damaged = move |meta: Result<ObjectMeta>| async move {
            let mut meta = match meta {
                Ok(meta) => meta,
                Err(error) => return Some(Err(error)),
            };
            if let Some(bytes) = self.damaged(&meta.key) {
                meta.size_bytes = bytes.ok()?.len() as u64;
            }
            Some(Ok(meta))
        };
        self.inner.list(folder).filter_map(damaged).boxed()
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.inner.delete(key).await
    }
}

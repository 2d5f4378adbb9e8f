//! Writes and deletes nothing, and counts what it would have written and deleted. Reads pass.
//!
//! A `Create` of what exists fails as it would have; what was "written" cannot be read back.

use crate::store::{Capabilities, Key, Leftovers, ObjectMeta, PutMode, Store, error};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use retoma_core::{ErrorKind, Result};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What a dry run would have done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DryRunCounts {
    /// Objects that would have been written.
    pub puts: u64,
    /// Their bytes.
    pub put_bytes: u64,
    /// Deletes that would have been asked for.
    pub deletes: u64,
}

/// See the module.
#[derive(Debug)]
pub struct DryRun {
    inner: Arc<dyn Store>,
    puts: AtomicU64,
    put_bytes: AtomicU64,
    deletes: AtomicU64,
}

impl DryRun {
    /// Reads from `inner`, and never writes to it.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, puts: AtomicU64::new(0), put_bytes: AtomicU64::new(0), deletes: AtomicU64::new(0) }
    }

    /// What would have been done so far.
    pub fn counts(&self) -> DryRunCounts {
        DryRunCounts {
            puts: self.puts.load(Ordering::Relaxed),
            put_bytes: self.put_bytes.load(Ordering::Relaxed),
            deletes: self.deletes.load(Ordering::Relaxed),
        }
    }
}

#[async_trait]
impl Store for DryRun {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn keep(&self, key: &Key) {
        self.inner.keep(key);
    }

    async fn put(&self, key: &Key, data: Bytes, mode: PutMode) -> Result<()> {
        if mode == PutMode::Create {
            match self.inner.head(key).await {
                Ok(_) => return Err(error::exists(&self.location(), key)),
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        self.puts.fetch_add(1, Ordering::Relaxed);
        self.put_bytes.fetch_add(data.len() as u64, Ordering::Relaxed);
        Ok(())
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

    async fn delete(&self, _key: &Key) -> Result<()> {
        self.deletes.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Removes nothing, and counts nothing.
    async fn remove_leftovers(&self, _modified_before: jiff::Timestamp) -> Result<Leftovers> {
        Ok(Leftovers::default())
    }
}

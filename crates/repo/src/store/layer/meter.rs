//! Counts calls, errors and bytes of each verb.

use crate::store::{Capabilities, Key, Leftovers, ObjectMeta, PutMode, Store, Verb};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use retoma_core::Result;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// What was counted of one verb.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VerbCounts {
    /// Calls that began; a listing is one. One that was given up half way (a timeout) counts here alone.
    pub calls: u64,
    /// Calls that ended with an error, `NotFound` and `Conflict` too.
    pub errors: u64,
    /// Bytes of objects written or read by calls that ended well.
    pub bytes: u64,
}

/// What was counted so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MeterSnapshot {
    counts: [VerbCounts; Verb::ALL.len()],
}

impl MeterSnapshot {
    /// What was counted of `verb`.
    pub fn verb(&self, verb: Verb) -> VerbCounts {
        self.counts[verb as usize]
    }

    /// Calls of all verbs.
    pub fn calls(&self) -> u64 {
        self.counts.iter().map(|counts| counts.calls).sum()
    }

    /// Bytes written.
    pub fn written_bytes(&self) -> u64 {
        self.verb(Verb::Put).bytes
    }

    /// Bytes read.
    pub fn read_bytes(&self) -> u64 {
        self.verb(Verb::Get).bytes + self.verb(Verb::GetRange).bytes
    }
}

#[derive(Debug, Default)]
struct Counters {
    calls: AtomicU64,
    errors: AtomicU64,
    bytes: AtomicU64,
}

/// See the module.
#[derive(Debug)]
pub struct Meter {
    inner: Arc<dyn Store>,
    counters: [Counters; Verb::ALL.len()],
}

impl Meter {
    /// Counts calls to `inner`.
    pub fn new(inner: Arc<dyn Store>) -> Self {
        Self { inner, counters: Default::default() }
    }

    /// What was counted so far. Calls that end meanwhile may be in it or not.
    pub fn snapshot(&self) -> MeterSnapshot {
        let read = |counters: &Counters| VerbCounts {
            calls: counters.calls.load(Ordering::Relaxed),
            errors: counters.errors.load(Ordering::Relaxed),
            bytes: counters.bytes.load(Ordering::Relaxed),
        };
        MeterSnapshot { counts: self.counters.each_ref().map(read) }
    }

    fn begin(&self, verb: Verb) {
        self.counters[verb as usize].calls.fetch_add(1, Ordering::Relaxed);
    }

    fn count<T>(&self, verb: Verb, result: Result<T>, bytes: impl FnOnce(&T) -> usize) -> Result<T> {
        let counters = &self.counters[verb as usize];
        match &result {
            Ok(value) => counters.bytes.fetch_add(bytes(value) as u64, Ordering::Relaxed),
            Err(_) => counters.errors.fetch_add(1, Ordering::Relaxed),
        };
        result
    }
}

#[async_trait]
impl Store for Meter {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn put(&self, key: &Key, data: Bytes, mode: PutMode) -> Result<()> {
        let length = data.len();
        self.begin(Verb::Put);
        let result = self.inner.put(key, data, mode).await;
        self.count(Verb::Put, result, |()| length)
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        self.begin(Verb::Get);
        let result = self.inner.get(key).await;
        self.count(Verb::Get, result, Bytes::len)
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        self.begin(Verb::GetRange);
        let result = self.inner.get_range(key, range).await;
        self.count(Verb::GetRange, result, Bytes::len)
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        self.begin(Verb::Head);
        let result = self.inner.head(key).await;
        self.count(Verb::Head, result, |_| 0)
    }

    fn list<'a>(&'a self, folder: &'a str) -> BoxStream<'a, Result<ObjectMeta>> {
        let counters = &self.counters[Verb::List as usize];
        self.begin(Verb::List);
        self.inner
            .list(folder)
            .inspect(|found| {
                if found.is_err() {
                    counters.errors.fetch_add(1, Ordering::Relaxed);
                }
            })
            .boxed()
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.begin(Verb::Delete);
        let result = self.inner.delete(key).await;
        self.count(Verb::Delete, result, |()| 0)
    }

    async fn remove_leftovers(&self, modified_before: jiff::Timestamp) -> Result<Leftovers> {
        self.inner.remove_leftovers(modified_before).await
    }
}

//! Gives every operation a deadline.
//!
//! A late answer counts as none: `Unavailable`, so that the retry layer outside may try again. The operation may still
//! happen later in the store; `docs/stores.md` says what that means for names that are written more than once.

use crate::store::clock::Clock;
use crate::store::{Capabilities, Key, Leftovers, ObjectMeta, PutMode, Store, Verb};
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::{self, Either};
use futures::stream::{self, BoxStream, StreamExt as _};
use retoma_core::error::codes;
use retoma_core::{Error, ErrorKind, Result};
use std::future::Future;
use std::ops::Range;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

/// How long one attempt may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimeLimits {
    /// For `head`, `delete` and each step of a listing.
    pub request: Duration,
    /// For `put`, `get` and `get_range`, which move data, and for the removal of leftovers.
    pub transfer: Duration,
}

impl Default for TimeLimits {
    /// 30 s for a request; 5 min for a transfer, in which a pack of 16 MiB comes through at 56 KiB/s.
    fn default() -> Self {
        Self { request: Duration::from_secs(30), transfer: Duration::from_mins(5) }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Timeout {
    inner: Arc<dyn Store>,
    limits: TimeLimits,
    clock: Arc<dyn Clock>,
}

impl Timeout {
    /// Holds calls to `inner` to `limits`, by `clock`.
    pub fn new(inner: Arc<dyn Store>, limits: TimeLimits, clock: Arc<dyn Clock>) -> Self {
        Self { inner, limits, clock }
    }

    async fn within<T>(
        &self,
        limit: Duration,
        doing: &str,
        what: &str,
        operation: impl Future<Output = T>,
    ) -> Result<T> {
        // The operation is polled first: an answer that is there is never called late.
        match future::select(pin!(operation), self.clock.sleep(limit)).await {
            Either::Left((answer, _)) => Ok(answer),
            Either::Right(((), _)) => {
                let seconds = limit.as_secs_f64();
                let message = format!(
                    "`{}` did not {doing} `{what}` within `{seconds}` seconds",
                    self.inner.location()
                );
                Err(Error::new(ErrorKind::Unavailable, codes::STORE_TIMEOUT, message)
                    .with_hint("check the network or the disk; a slow link may need a longer time limit"))
            }
        }
    }
}

#[async_trait]
impl Store for Timeout {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn put(&self, key: &Key, data: Bytes, mode: PutMode) -> Result<()> {
        let operation = self.inner.put(key, data, mode);
        self.within(self.limits.transfer, Verb::Put.as_str(), key.as_str(), operation).await?
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        self.within(self.limits.transfer, Verb::Get.as_str(), key.as_str(), self.inner.get(key)).await?
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let operation = self.inner.get_range(key, range);
        self.within(self.limits.transfer, "get a part of", key.as_str(), operation).await?
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        self.within(self.limits.request, "describe", key.as_str(), self.inner.head(key)).await?
    }

    fn list<'a>(&'a self, folder: &'a str) -> BoxStream<'a, Result<ObjectMeta>> {
        let steps = Some(self.inner.list(folder));
        stream::unfold(steps, move |steps| async move {
            let mut steps = steps?;
            match self.within(self.limits.request, Verb::List.as_str(), folder, steps.next()).await {
                Ok(found) => found.map(|found| (found, Some(steps))),
                Err(late) => Some((Err(late), None)),
            }
        })
        .boxed()
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.within(self.limits.request, Verb::Delete.as_str(), key.as_str(), self.inner.delete(key)).await?
    }

    async fn remove_leftovers(&self, modified_before: jiff::Timestamp) -> Result<Leftovers> {
        let operation = self.inner.remove_leftovers(modified_before);
        self.within(self.limits.transfer, "clean", "unfinished writes", operation).await?
    }
}

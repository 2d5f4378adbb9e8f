//! Bounds how many calls run at once and how many bytes move in a second.
//!
//! Calls beyond the bound wait in the order in which they came. Listings are not counted: their reader may make other
//! calls before it takes the next object, and would wait for itself.

use crate::store::clock::Clock;
use crate::store::{Capabilities, Key, Leftovers, ObjectMeta, PutMode, Store};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use retoma_core::{Error, Result};
use std::num::NonZeroU64;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// How many calls and bytes at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Calls that run at the same time; 0 counts as 1.
    pub calls: usize,
    /// Bytes written in a second; no limit without.
    pub upload_bytes_per_second: Option<NonZeroU64>,
    /// Bytes read in a second; no limit without.
    pub download_bytes_per_second: Option<NonZeroU64>,
}

impl Default for Limits {
    /// 16 calls, any number of bytes.
    fn default() -> Self {
        Self { calls: 16, upload_bytes_per_second: None, download_bytes_per_second: None }
    }
}

/// See the module.
#[derive(Debug)]
pub struct Limit {
    inner: Arc<dyn Store>,
    calls: Semaphore,
    upload: Option<Bucket>,
    download: Option<Bucket>,
    clock: Arc<dyn Clock>,
}

impl Limit {
    /// Holds calls to `inner` to `limits`, by `clock`.
    pub fn new(inner: Arc<dyn Store>, limits: Limits, clock: Arc<dyn Clock>) -> Self {
        Self {
            inner,
            calls: Semaphore::new(limits.calls.clamp(1, Semaphore::MAX_PERMITS)),
            upload: limits.upload_bytes_per_second.map(Bucket::new),
            download: limits.download_bytes_per_second.map(Bucket::new),
            clock,
        }
    }

    async fn permit(&self) -> Result<SemaphorePermit<'_>> {
        self.calls.acquire().await.map_err(|_| Error::internal("the limit of calls was closed"))
    }

    async fn pay(&self, bucket: Option<&Bucket>, bytes: u64) {
        if let Some(bucket) = bucket {
            let wait = bucket.take(bytes, self.clock.now());
            if !wait.is_zero() {
                self.clock.sleep(wait).await;
            }
        }
    }
}

/// A token bucket that holds one second's worth and may be overdrawn: whoever overdraws it waits until it is even.
#[derive(Debug)]
struct Bucket {
    bytes_per_second: NonZeroU64,
    /// When all bytes taken so far are paid for.
    even_at: Mutex<Duration>,
}

impl Bucket {
    const BURST: Duration = Duration::from_secs(1);

    fn new(bytes_per_second: NonZeroU64) -> Self {
        Self { bytes_per_second, even_at: Mutex::new(Duration::ZERO) }
    }

    /// Takes `bytes` at the time `now`, and says how long to wait for them.
    fn take(&self, bytes: u64, now: Duration) -> Duration {
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second.get());
        let cost = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let mut even_at = self.even_at.lock().unwrap_or_else(PoisonError::into_inner);
        *even_at = (*even_at).max(now).saturating_add(cost);
        even_at.saturating_sub(now + Self::BURST)
    }
}

#[async_trait]
impl Store for Limit {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn put(&self, key: &Key, data: Bytes, mode: PutMode) -> Result<()> {
        let _permit = self.permit().await?;
        self.pay(self.upload.as_ref(), data.len() as u64).await;
        self.inner.put(key, data, mode).await
    }

    /// The size is known afterwards, so the next reader waits for it.
    async fn get(&self, key: &Key) -> Result<Bytes> {
        let _permit = self.permit().await?;
        let data = self.inner.get(key).await?;
        self.pay(self.download.as_ref(), data.len() as u64).await;
        Ok(data)
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let _permit = self.permit().await?;
        let data = self.inner.get_range(key, range).await?;
        self.pay(self.download.as_ref(), data.len() as u64).await;
        Ok(data)
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        let _permit = self.permit().await?;
        self.inner.head(key).await
    }

    fn list<'a>(&'a self, folder: &'a str) -> BoxStream<'a, Result<ObjectMeta>> {
        self.inner.list(folder)
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let _permit = self.permit().await?;
        self.inner.delete(key).await
    }

    async fn remove_leftovers(&self, modified_before: jiff::Timestamp) -> Result<Leftovers> {
        let _permit = self.permit().await?;
        self.inner.remove_leftovers(modified_before).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lets_a_burst_through_and_then_the_rate() {
        let bucket = Bucket::new(NonZeroU64::new(1000).unwrap());
        let seconds = Duration::from_secs;
        assert_eq!(bucket.take(1000, seconds(0)), seconds(0), "the burst");
        assert_eq!(bucket.take(3000, seconds(0)), seconds(3));
        assert_eq!(bucket.take(1000, seconds(1)), seconds(3), "others wait behind it");
        assert_eq!(bucket.take(500, seconds(60)), seconds(0), "idle time gives no more than one burst");
        assert_eq!(bucket.take(1500, seconds(60)), seconds(1));
        assert!(bucket.take(u64::MAX, seconds(60)) > seconds(1_000_000));
    }
}

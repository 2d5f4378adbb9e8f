//! Repeats calls that failed in a way that may pass.
//!
//! Only `kind.is_retryable()` decides. Attempts are bounded, and the waits between them grow and vary, so that many
//! hosts that failed together don't come back together.
//!
//! A `Create` whose answer was lost finds its own object on the next attempt: if the stored bytes are ours, it counts
//! as written. Two writers of the *same* bytes would then both have won, so whoever uses `Create` as a lock puts
//! something of its own into the object.

use crate::store::clock::Clock;
use crate::store::{Capabilities, Key, Leftovers, ObjectMeta, PutMode, Store};
use async_trait::async_trait;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use retoma_core::{Error, ErrorKind, Result};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How often and how fast failed calls are repeated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetryPolicy {
    /// Attempts in all; 1 repeats nothing, 0 counts as 1.
    pub attempts: u32,
    /// The longest wait before the second attempt; it doubles for each further one.
    pub first_delay: Duration,
    /// No wait is longer.
    pub max_delay: Duration,
    /// Makes the waits of this store differ from those of others; give each process a random one.
    pub seed: u64,
}

impl Default for RetryPolicy {
    /// Six attempts over about 12 s (half of the longest waits).
    fn default() -> Self {
        Self {
            attempts: 6,
            first_delay: Duration::from_millis(500),
            max_delay: Duration::from_secs(10),
            seed: 0,
        }
    }
}

impl RetryPolicy {
    /// The wait after the failed attempt `attempt` (1 is the first): between half and all of the doubled delay, as
    /// `random` says.
    fn delay(&self, attempt: u32, random: u64) -> Duration {
        let doubled = self.first_delay.saturating_mul(2_u32.saturating_pow(attempt.saturating_sub(1)));
        let longest = doubled.min(self.max_delay);
        let half_nanoseconds = u64::try_from(longest.as_nanos() / 2).unwrap_or(u64::MAX - 1);
        longest.saturating_sub(Duration::from_nanos(random % (half_nanoseconds + 1)))
    }
}

/// See the module.
#[derive(Debug)]
pub struct Retry {
    inner: Arc<dyn Store>,
    policy: RetryPolicy,
    clock: Arc<dyn Clock>,
    draws: AtomicU64,
}

impl Retry {
    /// Repeats calls to `inner` as `policy` says, waiting by `clock`.
    pub fn new(inner: Arc<dyn Store>, policy: RetryPolicy, clock: Arc<dyn Clock>) -> Self {
        Self { inner, policy, clock, draws: AtomicU64::new(0) }
    }

    /// Calls `attempt` with 1, 2, … until it succeeds, fails for good, or the attempts are used up.
    async fn repeat<'a, T>(&self, mut attempt: impl FnMut(u32) -> BoxFuture<'a, Result<T>>) -> Result<T> {
        let attempts = self.policy.attempts.max(1);
        let mut number = 1;
        loop {
            let error = match attempt(number).await {
                Err(error) if error.kind().is_retryable() => error,
                done => return done,
            };
            if number == attempts {
                return Err(gave_up(error, attempts));
            }
            self.clock.sleep(self.policy.delay(number, self.random())).await;
            number += 1;
        }
    }

    /// The next number of the sequence of `SplitMix64` from the seed.
    fn random(&self) -> u64 {
        let draw = self.draws.fetch_add(1, Ordering::Relaxed) + 1;
        let mut z = self.policy.seed.wrapping_add(draw.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    async fn put_once(&self, key: &Key, data: Bytes, mode: PutMode, attempt: u32) -> Result<()> {
        match self.inner.put(key, data.clone(), mode).await {
            Err(conflict)
                if attempt > 1 && mode == PutMode::Create && conflict.kind() == ErrorKind::Conflict =>
            {
                match self.inner.get(key).await {
                    Ok(stored) if stored == data => Ok(()),
                    Err(error) if error.kind().is_retryable() => Err(error),
                    _ => Err(conflict),
                }
            }
            done => done,
        }
    }
}

fn gave_up(error: Error, attempts: u32) -> Error {
    match attempts {
        1 => error,
        _ => error.context(format!("try `{attempts}` times")),
    }
}

#[async_trait]
impl Store for Retry {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn put(&self, key: &Key, data: Bytes, mode: PutMode) -> Result<()> {
        self.repeat(|attempt| Box::pin(self.put_once(key, data.clone(), mode, attempt))).await
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        self.repeat(|_| self.inner.get(key)).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        self.repeat(|_| self.inner.get_range(key, range.clone())).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        self.repeat(|_| self.inner.head(key)).await
    }

    /// A listing that fails half way starts again, so it is given out only when it is whole: nothing twice, nothing
    /// lost. It is held in memory, about 150 bytes an object.
    fn list<'a>(&'a self, folder: &'a str) -> BoxStream<'a, Result<ObjectMeta>> {
        let whole = async move {
            let found: Vec<_> =
                self.repeat(|_| Box::pin(self.inner.list(folder).try_collect::<Vec<_>>())).await?;
            Ok::<_, Error>(stream::iter(found).map(Ok))
        };
        stream::once(whole).try_flatten().boxed()
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.repeat(|_| self.inner.delete(key)).await
    }

    async fn remove_leftovers(&self, modified_before: jiff::Timestamp) -> Result<Leftovers> {
        self.repeat(|_| self.inner.remove_leftovers(modified_before)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_vary_and_are_bounded() {
        let policy = RetryPolicy {
            first_delay: Duration::from_secs(1),
            max_delay: Duration::from_secs(5),
            ..RetryPolicy::default()
        };
        for (attempt, longest) in [(1, 1), (2, 2), (3, 4), (4, 5), (40, 5), (u32::MAX, 5)] {
            let longest = Duration::from_secs(longest);
            for random in [0, 1, u64::MAX / 3, u64::MAX] {
                let delay = policy.delay(attempt, random);
                assert!(delay <= longest && delay >= longest / 2, "{attempt} {delay:?}");
            }
            assert_ne!(policy.delay(attempt, 0), policy.delay(attempt, 1_000_000_007));
        }
        let none = RetryPolicy { first_delay: Duration::ZERO, ..policy };
        assert_eq!(none.delay(3, 12345), Duration::ZERO);
    }
}

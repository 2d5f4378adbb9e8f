//! What locks a bucket's objects have, and their renewal: the rules, once for every provider. Each has a [`Way`] of its own to ask.

use super::{Patience, Variables, azure, environment, gcs, place, s3};
use crate::store::blocking::shared_runtime;
use crate::store::{Key, PutMode};
use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;
use retoma_core::error::codes;
use retoma_core::manifest::{LockMode, ObjectLock};
use retoma_core::{Error, ErrorKind, Result};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Handle;
use url::Url;

/// Whether an object of this name gets a lock: all but who is at work and what will be deleted, which must go away.
pub fn is_locked(name: &str) -> bool {
    !(name.starts_with("locks/") || name.starts_with("marks/"))
}

/// Whether an object can be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// There is no such object (any more).
    Gone,
    /// It has no lock.
    Free,
    /// It has one, until then.
    Until(Timestamp, LockMode),
}

impl Held {
    /// When its lock ends, where it has one.
    pub fn end(self) -> Option<Timestamp> {
        match self {
            Self::Until(end, _) => Some(end),
            Self::Gone | Self::Free => None,
        }
    }

    /// Whether this is a lock until `end`, in whole seconds as stores keep it, that nobody may take away who may not take one of
    /// `mode`.
    pub(super) fn covers(self, mode: LockMode, end: Timestamp) -> bool {
        let Self::Until(until, its) = self else { return false };
        until.as_second() >= end.as_second() && (its == mode || its == LockMode::Compliance)
    }
}

/// How a bucket is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketState {
    /// It takes objects with locks.
    pub has_locks: bool,
    /// It keeps older versions.
    pub has_versions: bool,
}

/// How a provider is asked about locks; each call is one attempt.
#[async_trait]
pub(super) trait Way: fmt::Debug + Send + Sync {
    /// How the bucket is set up.
    async fn bucket(&self) -> Result<BucketState>;

    /// Writes an object that is locked until `end` from its first moment on.
    async fn write(&self, key: &Key, data: Bytes, put: PutMode, mode: LockMode, end: Timestamp)
    -> Result<()>;

    /// Whether, and until when, an object is locked.
    async fn held(&self, key: &Key) -> Result<Held>;

    /// Gives an object that has the lock `held` one until `end`, which is later or of a stronger mode.
    async fn extend(&self, key: &Key, held: Held, mode: LockMode, end: Timestamp) -> Result<()>;
}

/// The way to the bucket at `url`. Nothing is sent yet.
///
/// # Errors
/// As [`crate::store::cloud::open`]; `Unsupported` for a store without locks.
pub(super) fn way(url: &Url, variables: &Variables) -> Result<Arc<dyn Way>> {
    let (place, patience) = (place(url)?, Patience::default());
    match url.scheme() {
        "s3" => s3::way(&place, variables, patience),
        "gs" => gcs::way(&place, variables, patience),
        "az" => azure::way(&place, variables, patience),
        scheme => {
            let message = format!("`{scheme}://` has no locks that we know");
            Err(Error::new(ErrorKind::Unsupported, codes::STORE_UNSUPPORTED, message)
                .with_hint("remove `lock_days` from the manifest"))
        }
    }
}

/// The locks of the objects of a repository. For plain threads; calls are repeated while they fail in a way that may pass.
#[derive(Debug, Clone)]
pub struct Locks {
    way: Arc<dyn Way>,
    lock: ObjectLock,
    runtime: Handle,
}

impl Locks {
    /// Of the repository at `url`, whose manifest says `lock`, with the environment's credentials. Nothing is sent yet.
    ///
    /// # Errors
    /// As [`crate::store::cloud::open`].
    pub fn open(url: &Url, lock: ObjectLock) -> Result<Self> {
        Self::open_with(url, &environment(), lock)
    }

    /// As [`Locks::open`], with these variables.
    ///
    /// # Errors
    /// As [`Locks::open`]; `Unsupported` for a store without locks.
    pub fn open_with(url: &Url, variables: &Variables, lock: ObjectLock) -> Result<Self> {
        Ok(Self { way: way(url, variables)?, lock, runtime: shared_runtime()? })
    }

    /// What the manifest says.
    pub fn lock(&self) -> ObjectLock {
        self.lock
    }

    /// How the bucket is set up.
    ///
    /// # Errors
    /// What the store says; `Unauthorized` where these credentials may not ask.
    pub fn bucket(&self) -> Result<BucketState> {
        self.runtime.block_on(patiently(async || self.way.bucket().await))
    }

    /// Whether, and until when, an object is locked.
    ///
    /// # Errors
    /// What the store says; `Unauthorized` where these credentials may not ask.
    pub fn held(&self, key: &Key) -> Result<Held> {
        self.runtime.block_on(patiently(async || self.way.held(key).await))
    }

    /// Locks an object until `end`; `held` is the lock that it has. A lock that nobody may take away stays one, and none ends earlier
    /// than before: where nothing is missing, nothing is sent.
    ///
    /// # Errors
    /// `NotFound` when it is gone; `Unauthorized` when these credentials may not, or its lock ends later by now; `Invalid` with `R0312`
    /// where the bucket gives no locks; what the store says.
    pub fn extend(&self, key: &Key, held: Held, end: Timestamp) -> Result<()> {
        if !is_locked(key.as_str()) {
            return Err(Error::internal(format!("`{key}` must be deletable")));
        }
        let Some((mode, end)) = missing(held, self.lock.mode, end) else { return Ok(()) };
        self.runtime.block_on(patiently(async || self.way.extend(key, held, mode, end).await))
    }
}

/// The lock that an object needs in place of `held`; none where that is enough.
fn missing(held: Held, wanted: LockMode, end: Timestamp) -> Option<(LockMode, Timestamp)> {
    match held {
        _ if held.covers(wanted, end) => None,
        Held::Until(until, LockMode::Compliance) => Some((LockMode::Compliance, end.max(until))),
        Held::Until(until, LockMode::Governance) => Some((wanted, end.max(until))),
        Held::Gone | Held::Free => Some((wanted, end)),
    }
}

/// In whole seconds, as stores keep it: RFC 3339, in UTC.
pub(super) fn date(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The bucket takes no locks; `said` is what it answered, where that says more.
pub(super) fn no_locks(location: &str, said: &str) -> Error {
    let mut message = format!("the bucket of `{location}` takes no object with a lock");
    if !said.is_empty() {
        message.push_str(&format!(" (`{said}`)"));
    }
    Error::new(ErrorKind::Invalid, codes::STORE_NO_LOCKS, message).with_hint(
        "make a bucket with object lock, which some providers allow only when it is made, or remove `lock_days` from the manifest",
    )
}

/// The bucket took `key`, and says of no lock that it was given.
pub(super) fn not_locked(location: &str, key: &Key) -> Error {
    let message = format!("`{location}` took the lock of `{key}`, and does not say that it holds");
    Error::new(ErrorKind::Invalid, codes::STORE_NO_LOCKS, message)
        .with_hint("have the bucket keep locks of objects (docs/immutability.md), or remove `lock_days` from the manifest")
}

/// Asks up to five times, while answers fail in a way that may pass.
pub(super) async fn patiently<T>(mut ask: impl AsyncFnMut() -> Result<T>) -> Result<T> {
    let mut wait = Duration::from_millis(250);
    for _ in 0..4 {
        match ask().await {
            Err(error) if error.kind().is_retryable() => tokio::time::sleep(wait).await,
            other => return other,
        }
        wait *= 3;
    }
    ask().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn all_is_locked_but_who_works_and_what_goes() {
        for name in
            ["config", "keys/a", "data/aa/b", "index/a", "snapshots/a", "wal/c/1/2", "evidence/w/1", "locks"]
        {
            assert!(is_locked(name), "{name}");
        }
        for name in ["locks/a", "marks/a"] {
            assert!(!is_locked(name), "{name}");
        }
    }

    fn mode() -> impl Strategy<Value = LockMode> {
        prop_oneof![Just(LockMode::Compliance), Just(LockMode::Governance)]
    }

    fn moment() -> impl Strategy<Value = Timestamp> {
        (0i64..4_000_000_000, 0i32..1_000_000_000)
            .prop_map(|(second, nanosecond)| Timestamp::new(second, nanosecond).unwrap())
    }

    fn held() -> impl Strategy<Value = Held> {
        prop_oneof![Just(Held::Free), (moment(), mode()).prop_map(|(end, mode)| Held::Until(end, mode))]
    }

    proptest! {
        #[test]
        fn a_date_is_read_as_it_was_written(time in moment()) {
            let read: Timestamp = date(time).parse().unwrap();
            prop_assert_eq!(read, Timestamp::from_second(time.as_second()).unwrap());
        }

        /// Whatever an object has: what is asked for is what is missing, never less than it has, and at least what was wanted.
        #[test]
        fn a_renewal_asks_for_what_is_missing_and_never_for_less(held in held(), wanted in mode(), end in moment()) {
            match missing(held, wanted, end) {
                None => prop_assert!(held.covers(wanted, end)),
                Some((mode, until)) => {
                    prop_assert!(until >= end && held.end().is_none_or(|had| until >= had));
                    prop_assert!(Held::Until(until, mode).covers(wanted, end));
                    let Held::Until(had, its) = held else { return Ok(()) };
                    prop_assert!(until > had || its != mode, "nothing is missing");
                    prop_assert!(its == LockMode::Governance || mode == LockMode::Compliance, "made weaker");
                }
            }
        }
    }

    #[test]
    fn what_covers_a_lock_lasts_as_long_and_is_as_strong() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let end = at("2030-01-02T03:04:05.9Z");
        let said = |text: &str, mode| Held::Until(at(text), mode);
        assert!(
            said("2030-01-02T03:04:05Z", LockMode::Compliance).covers(LockMode::Compliance, end),
            "whole seconds"
        );
        assert!(said("2030-01-02T03:04:05Z", LockMode::Compliance).covers(LockMode::Governance, end));
        assert!(!said("2030-01-02T03:04:04Z", LockMode::Compliance).covers(LockMode::Compliance, end));
        assert!(!said("2031-01-02T03:04:05Z", LockMode::Governance).covers(LockMode::Compliance, end));
        assert!(
            !Held::Free.covers(LockMode::Governance, end) && !Held::Gone.covers(LockMode::Governance, end)
        );
    }
}

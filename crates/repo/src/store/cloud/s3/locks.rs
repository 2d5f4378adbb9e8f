//! What locks a bucket's objects have, and their renewal.

use super::signed::{Ask, Signed, patiently};
use super::{Bucket, is_locked};
use crate::store::Key;
use crate::store::blocking::shared_runtime;
use crate::store::cloud::{Patience, Variables, environment, place};
use bytes::Bytes;
use jiff::Timestamp;
use retoma_core::manifest::{LockMode, ObjectLock};
use retoma_core::{Error, ErrorKind, Result};
use tokio::runtime::Handle;
use url::Url;

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
}

/// How a bucket is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BucketState {
    /// It takes objects with locks.
    pub has_locks: bool,
    /// It keeps older versions.
    pub has_versions: bool,
}

/// The locks of the objects of a repository. For plain threads; calls are repeated while they fail in a way that may pass.
#[derive(Debug, Clone)]
pub struct Locks {
    signed: Signed,
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
    /// As [`Locks::open`]; an address of another kind of store.
    pub fn open_with(url: &Url, variables: &Variables, lock: ObjectLock) -> Result<Self> {
        if url.scheme() != "s3" {
            return Err(Error::internal(format!("`{}` has no locks", url.scheme())));
        }
        let place = place(url)?;
        let signed = Bucket::new(&place, variables, Patience::default())?.signed(&place);
        Ok(Self { signed, lock, runtime: shared_runtime()? })
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
        let locks = self.runtime.block_on(patiently(async || self.setting("object-lock").await))?;
        let versions = self.runtime.block_on(patiently(async || versioning(&self.signed).await))?;
        Ok(BucketState {
            has_locks: element(&locks, "ObjectLockEnabled") == Some("Enabled"),
            has_versions: versions,
        })
    }

    async fn setting(&self, name: &str) -> Result<String> {
        setting(&self.signed, name).await
    }

    /// Whether, and until when, an object is locked.
    ///
    /// # Errors
    /// What the store says; `Unauthorized` where these credentials may not ask.
    pub fn held(&self, key: &Key) -> Result<Held> {
        self.runtime.block_on(patiently(async || self.held_once(key).await))
    }

    async fn held_once(&self, key: &Key) -> Result<Held> {
        match self.signed.ask(Ask::get(&self.signed, key, &[("retention", "")])).await? {
            Ok(got) => {
                let text = self.signed.text(got, key.as_str()).await?;
                read_retention(&text).ok_or_else(|| self.signed.unreadable(key.as_str()))
            }
            Err(refused) => match refused.code() {
                // The object has no lock; or the bucket has no object lock, so nothing in it is locked.
                "NoSuchObjectLockConfiguration"
                | "ObjectLockConfigurationNotFoundError"
                | "InvalidRequest" => Ok(Held::Free),
                // The newest version is a delete marker.
                "MethodNotAllowed" => Ok(Held::Gone),
                _ => match self.signed.refusal(&refused) {
                    gone if gone.kind() == ErrorKind::NotFound => Ok(Held::Gone),
                    error => Err(error),
                },
            },
        }
    }

    /// Locks an object until `end`; a lock that nobody may take away stays one.
    ///
    /// # Errors
    /// `NotFound` when it is gone; `Unauthorized` when these credentials may not, or its lock ends later; what the store says.
    pub fn extend(&self, key: &Key, held: Held, end: Timestamp) -> Result<()> {
        if !is_locked(key.as_str()) {
            return Err(Error::internal(format!("`{key}` must be deletable")));
        }
        let mode = match held {
            Held::Until(_, LockMode::Compliance) => LockMode::Compliance,
            _ => self.lock.mode,
        };
        self.runtime.block_on(patiently(async || self.extend_once(key, mode, end).await))
    }

    async fn extend_once(&self, key: &Key, mode: LockMode, end: Timestamp) -> Result<()> {
        let (mode, end) = (mode_name(mode), date(end));
        let body = format!(
            "<Retention xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><Mode>{mode}</Mode><RetainUntilDate>{end}</RetainUntilDate></Retention>"
        );
        let ask = Ask::put(&self.signed, key, &[("retention", "")], Bytes::from(body))?;
        match self.signed.ask(ask).await? {
            Ok(_) => Ok(()),
            Err(refused) if refused.code() == "InvalidRequest" => Err(self.signed.no_locks()),
            Err(refused) => Err(self.signed.refusal(&refused)),
        }
    }
}

/// Whether the bucket keeps versions.
pub(super) async fn versioning(signed: &Signed) -> Result<bool> {
    Ok(element(&setting(signed, "versioning").await?, "Status") == Some("Enabled"))
}

/// A setting of the bucket, as its text; empty where there is none.
async fn setting(signed: &Signed, name: &str) -> Result<String> {
    match signed.ask(Ask::bucket(&[(name, "")])).await? {
        Ok(got) => Ok(String::from_utf8_lossy(&signed.text(got, "the bucket").await?).into_owned()),
        Err(refused) if refused.code() == "ObjectLockConfigurationNotFoundError" => Ok(String::new()),
        Err(refused) => Err(signed.refusal(&refused)),
    }
}

/// Mode and date of a lock, as headers.
pub(super) fn lock_headers(ask: Ask, mode: LockMode, end: Timestamp) -> Result<Ask> {
    ask.header("x-amz-object-lock-mode", mode_name(mode))?
        .header("x-amz-object-lock-retain-until-date", &date(end))
}

fn mode_name(mode: LockMode) -> &'static str {
    match mode {
        LockMode::Compliance => "COMPLIANCE",
        LockMode::Governance => "GOVERNANCE",
    }
}

/// In whole seconds, as S3 keeps it.
fn date(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// The text of the first element of this name.
fn element<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    rest.split_once('<').map(|(value, _)| value)
}

fn read_retention(text: &[u8]) -> Option<Held> {
    let text = std::str::from_utf8(text).ok()?;
    let end = element(text, "RetainUntilDate")?.parse().ok()?;
    let mode = match element(text, "Mode")? {
        "COMPLIANCE" => LockMode::Compliance,
        "GOVERNANCE" => LockMode::Governance,
        _ => return None,
    };
    Some(Held::Until(end, mode))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_read_or_refused() {
        let text = |mode: &str, end: &str| {
            format!(
                "<?xml version=\"1.0\"?><Retention xmlns=\"x\"><Mode>{mode}</Mode><RetainUntilDate>{end}</RetainUntilDate></Retention>"
            )
        };
        let end: Timestamp = "2030-01-02T03:04:05Z".parse().unwrap();
        let read = |text: String| read_retention(text.as_bytes());
        assert_eq!(
            read(text("COMPLIANCE", "2030-01-02T03:04:05Z")),
            Some(Held::Until(end, LockMode::Compliance))
        );
        assert_eq!(
            read(text("GOVERNANCE", "2030-01-02T03:04:05.000Z")),
            Some(Held::Until(end, LockMode::Governance))
        );
        for (mode, end) in [("OTHER", "2030-01-02T03:04:05Z"), ("COMPLIANCE", "soon"), ("COMPLIANCE", "")] {
            assert_eq!(read(text(mode, end)), None, "{mode} {end}");
        }
        assert_eq!(read_retention(b"<Retention/>"), None);
        assert_eq!(read_retention(b"\xff"), None);
        assert_eq!(date(end), "2030-01-02T03:04:05Z");
    }
}

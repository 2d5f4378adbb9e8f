//! Locks as restic writes them. We leave one while we write, so that restic's own prune waits.

use super::malformed;
use super::time::Time;
use retoma_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// A lock that was not refreshed for so long is stale, as in restic.
pub const STALE_SECONDS: i64 = 30 * 60;
/// How often a holder writes it anew.
pub const REFRESH_SECONDS: u64 = 5 * 60;

/// A lock as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lock {
    /// When it was written or refreshed.
    pub time: Time,
    /// Whether nobody else may read or write.
    pub exclusive: bool,
    /// The holder's host.
    #[serde(default)]
    pub hostname: String,
    /// The holder's user.
    #[serde(default)]
    pub username: String,
    /// The holder's process.
    #[serde(default)]
    pub pid: u32,
    /// The holder's user number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<u32>,
    /// The holder's group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid: Option<u32>,
    /// Present when the holder is Retoma.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retoma: Option<Holder>,
    /// When the work began that a lock of Retoma stands for; `time` moves with every refresh, this does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// What a holder that is Retoma does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Holder {
    /// Adds data; deletes nothing.
    Backup,
    /// Deletes what was marked long enough ago: backups of ours go on beside it.
    Prune,
    /// Deletes at once: everybody waits.
    PruneNow,
}

impl Lock {
    /// JSON.
    ///
    /// # Errors
    /// None in practice.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Error::internal(format!("lock: {error}")))
    }

    /// Reads a lock.
    ///
    /// # Errors
    /// `Corrupt` when it is not the JSON of a lock.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        serde_json::from_slice(json).map_err(|error| malformed(format!("lock: {error}")))
    }

    /// Whether it is older than a live holder would let it become.
    pub fn is_stale_at(&self, now: Time) -> bool {
        now.to_unix().0 - self.time.to_unix().0 > STALE_SECONDS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locks_of_restic_are_read_and_ours_keep_its_fields() {
        let json = r#"{"time":"2026-01-01T00:00:00Z","exclusive":false,"hostname":"h","username":"u","pid":7,"uid":0,"gid":0}"#;
        let lock = Lock::from_json(json.as_bytes()).unwrap();
        assert_eq!(lock.retoma, None);
        assert_eq!(String::from_utf8(lock.to_json().unwrap()).unwrap(), json);
        let ours = Lock { retoma: Some(Holder::PruneNow), ..lock };
        assert_eq!(Lock::from_json(&ours.to_json().unwrap()).unwrap(), ours);
    }

    #[test]
    fn a_lock_is_stale_after_thirty_minutes() {
        let at = |text: &str| Time::parse(text).unwrap();
        let lock = Lock {
            time: at("2026-01-01T00:00:00Z"),
            exclusive: true,
            hostname: String::new(),
            username: String::new(),
            pid: 1,
            uid: None,
            gid: None,
            retoma: None,
            since: None,
        };
        assert!(!lock.is_stale_at(at("2026-01-01T00:30:00Z")));
        assert!(lock.is_stale_at(at("2026-01-01T00:30:01Z")));
    }
}

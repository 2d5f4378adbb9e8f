//! When evidence no longer counts. A drill proves something about one manifest, one version of the program, one key and
//! one amount of data, at one time; when one of these moved on, the drill has to be run again.
//!
//! Whether a record is authentic is not decided here.

use jiff::Timestamp;
use serde::Serialize;
use std::time::Duration;

/// How far a record's time may lie ahead of ours: clocks of two machines are never quite the same.
pub const CLOCK_TOLERANCE: Duration = Duration::from_mins(5);

/// What a record was made with, or what is true now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts<'a> {
    /// Hash of the manifest.
    pub manifest_hash: &'a str,
    /// Version of the program.
    pub tool_version: &'a str,
    /// Id of the key that opens the repository.
    pub key_id: &'a str,
    /// Size of the protected data.
    pub data_bytes: u64,
    /// When the record was made, or now.
    pub time: Timestamp,
}

/// Why a record no longer counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "stale", rename_all = "snake_case")]
pub enum StaleReason {
    /// The manifest is another one.
    ManifestChanged {
        /// Its hash in the record.
        recorded: String,
        /// Its hash now.
        current: String,
    },
    /// The program is another version.
    ToolVersionChanged {
        /// The version in the record.
        recorded: String,
        /// The version now.
        current: String,
    },
    /// The repository is opened with another key.
    KeyChanged {
        /// The key's id in the record.
        recorded: String,
        /// The key's id now.
        current: String,
    },
    /// The data grew or shrank by more than half.
    DataSizeChanged {
        /// The size in the record.
        recorded_bytes: u64,
        /// The size now.
        current_bytes: u64,
    },
    /// The record is older than allowed.
    TooOld {
        /// Its age.
        age_seconds: u64,
        /// The age allowed.
        max_age_seconds: u64,
    },
    /// The record's time is later than ours by more than [`CLOCK_TOLERANCE`]; it would never grow old.
    FromTheFuture {
        /// How far ahead it is.
        ahead_seconds: u64,
    },
}

/// Every reason why a record with the facts `record` no longer counts under the facts `current`; none when it counts.
pub fn staleness(record: &Facts<'_>, current: &Facts<'_>, max_age: Duration) -> Vec<StaleReason> {
    let mut reasons = Vec::new();
    let changed = |was: &str, is: &str| (was != is).then(|| (was.to_owned(), is.to_owned()));
    if let Some((recorded, current)) = changed(record.manifest_hash, current.manifest_hash) {
        reasons.push(StaleReason::ManifestChanged { recorded, current });
    }
    if let Some((recorded, current)) = changed(record.tool_version, current.tool_version) {
        reasons.push(StaleReason::ToolVersionChanged { recorded, current });
    }
    if let Some((recorded, current)) = changed(record.key_id, current.key_id) {
        reasons.push(StaleReason::KeyChanged { recorded, current });
    }
    if differs_by_more_than_half(record.data_bytes, current.data_bytes) {
        reasons.push(StaleReason::DataSizeChanged {
            recorded_bytes: record.data_bytes,
            current_bytes: current.data_bytes,
        });
    }
    let age = current.time.duration_since(record.time);
    if let Ok(age) = Duration::try_from(age) {
        if age > max_age {
            reasons
                .push(StaleReason::TooOld { age_seconds: age.as_secs(), max_age_seconds: max_age.as_secs() });
        }
    } else if age.unsigned_abs() > CLOCK_TOLERANCE {
        reasons.push(StaleReason::FromTheFuture { ahead_seconds: age.unsigned_abs().as_secs() });
    }
    reasons
}

/// Whether `current` is less than a half or more than one and a half of `recorded`; exactly these still count.
fn differs_by_more_than_half(recorded: u64, current: u64) -> bool {
    u128::from(recorded.abs_diff(current)) * 2 > u128::from(recorded)
}

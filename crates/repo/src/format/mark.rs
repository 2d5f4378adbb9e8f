//! Marks: what prune found to be superfluous, and when. Our own lane `marks/`, JSON, compressed, sealed.
//!
//! A mark changes nothing for readers: the packs stay, and so does the index. Backups that begin later do not build on
//! marked packs; a later prune deletes them. `docs/prune.md`.

use super::malformed;
use super::time::Time;
use crate::id::PackId;
use retoma_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// A mark as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// When it was written, by the clock of the host that wrote it.
    pub time: Time,
    /// The packs, by id.
    pub packs: Vec<MarkedPack>,
}

/// One pack of a mark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct MarkedPack {
    /// The pack.
    pub id: PackId,
    /// Why it is superfluous.
    pub reason: Reason,
}

/// Why a pack is superfluous.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// No snapshot needs any of its blobs.
    Unused,
    /// What snapshots need of it was copied into another pack.
    Repacked,
    /// It is in no index: a leftover of a backup that did not end.
    Unindexed,
    /// A reason of a later version; the pack is looked at again before it is deleted, like every other.
    #[serde(other)]
    Other,
}

impl Mark {
    /// JSON.
    ///
    /// # Errors
    /// None in practice.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Error::internal(format!("mark: {error}")))
    }

    /// Reads a mark.
    ///
    /// # Errors
    /// `Corrupt` when it is not the JSON of a mark.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        serde_json::from_slice(json).map_err(|error| malformed(format!("mark: {error}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn marks_round_trip(seconds in 0i64..4_000_000_000, packs in prop::collection::vec(any::<([u8; 32], u8)>(), 0..9)) {
            let reasons = [Reason::Unused, Reason::Repacked, Reason::Unindexed, Reason::Other];
            let pack = |(id, reason): ([u8; 32], u8)| MarkedPack { id: PackId(id), reason: reasons[usize::from(reason % 4)] };
            let mark = Mark { time: Time::from_unix(seconds, 5), packs: packs.into_iter().map(pack).collect() };
            prop_assert_eq!(Mark::from_json(&mark.to_json().unwrap()).unwrap(), mark);
        }

        #[test]
        fn noise_is_refused_and_never_panics(noise: Vec<u8>) {
            prop_assert!(Mark::from_json(&noise).is_err());
        }
    }

    #[test]
    fn a_reason_of_a_later_version_is_read() {
        let id = PackId([7; 32]);
        let json = format!(
            r#"{{"time":"2026-01-01T00:00:00Z","packs":[{{"id":"{id}","reason":"moved","to":1}}],"x":2}}"#
        );
        assert_eq!(
            Mark::from_json(json.as_bytes()).unwrap().packs,
            [MarkedPack { id, reason: Reason::Other }]
        );
    }
}

//! Snapshots: the commit of a backup. JSON, compressed, sealed; restic's fields, and tags of ours.
//!
//! Tags carry what must survive other tools that rewrite snapshots (restic's `tag`, `rewrite`): the component, its kind,
//! the manifest's hash, and that a snapshot is incomplete.

use super::index::null_is_empty;
use super::malformed;
use super::time::Time;
use crate::id::{BlobId, SnapshotId};
use jiff::Timestamp;
use retoma_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// On a snapshot whose source could not be read completely; such a one is never "last good".
pub const TAG_INCOMPLETE: &str = "retoma:incomplete";
/// On snapshots of the manifest itself.
pub const TAG_MANIFEST: &str = "retoma:manifest";
/// On snapshots that no policy may remove.
pub const TAG_HOLD: &str = "retoma:hold";
/// On snapshots that look like mass change; `docs/mass-change.md`.
pub use retoma_core::decide::retention::MASS_CHANGE_TAG as TAG_MASS_CHANGE;
/// In its place once somebody said that the change was meant.
pub const TAG_MASS_CHANGE_ACCEPTED: &str = "retoma:mass-change-accepted";
/// Prefix of the tag that names the component.
pub const TAG_COMPONENT: &str = "retoma:component=";
/// Prefix of the tag that names its kind.
pub const TAG_KIND: &str = "retoma:kind=";
/// Prefix of the tag with the manifest's SHA-256.
pub const TAG_MANIFEST_HASH: &str = "retoma:manifest-hash=";
/// Prefix of the tag with the time after which nothing that is in the snapshot was written, where that is not its own time.
pub const TAG_UNTIL: &str = "retoma:until=";

/// A snapshot as stored.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When the backup began, or the earliest moment that a source shows that knows its moments.
    pub time: Time,
    /// The snapshot that it was compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<SnapshotId>,
    /// The root tree.
    pub tree: BlobId,
    /// What was backed up: absolute paths.
    #[serde(deserialize_with = "null_is_empty")]
    pub paths: Vec<String>,
    /// The host that was backed up.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub hostname: String,
    /// The user that ran the backup.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// That user's number.
    #[serde(default)]
    pub uid: u32,
    /// That user's group.
    #[serde(default)]
    pub gid: u32,
    /// Patterns that were left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub excludes: Vec<String>,
    /// Tags, ours with the prefix `retoma:`.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub tags: Vec<String>,
    /// The snapshot that this one was rewritten from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub original: Option<SnapshotId>,
}

impl Snapshot {
    /// JSON.
    ///
    /// # Errors
    /// None in practice.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        serde_json::to_vec(self).map_err(|error| Error::internal(format!("snapshot: {error}")))
    }

    /// Reads a snapshot.
    ///
    /// # Errors
    /// `Corrupt` when it is not the JSON of a snapshot.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        serde_json::from_slice(json).map_err(|error| malformed(format!("snapshot: {error}")))
    }

    /// The component that this is a snapshot of; `None` in snapshots that restic made.
    pub fn component(&self) -> Option<&str> {
        self.tag_value(TAG_COMPONENT)
    }

    /// The component's kind: `files`, `sqlite` …
    pub fn kind(&self) -> Option<&str> {
        self.tag_value(TAG_KIND)
    }

    /// The SHA-256 of the manifest that the backup ran under.
    pub fn manifest_hash(&self) -> Option<&str> {
        self.tag_value(TAG_MANIFEST_HASH)
    }

    /// The first time that it can stand for: nothing in it was written later, as far as that is known. Its own time, or a later one.
    pub fn until(&self) -> Timestamp {
        let latest = self.tag_value(TAG_UNTIL).and_then(Time::parse);
        latest.map_or(self.time, |latest| latest.max(self.time)).0
    }

    /// Whether something could not be read.
    pub fn is_incomplete(&self) -> bool {
        self.has_tag(TAG_INCOMPLETE)
    }

    /// Whether `tag` is among the tags.
    pub fn has_tag(&self, tag: &str) -> bool {
        self.tags.iter().any(|own| own == tag)
    }

    fn tag_value(&self, prefix: &str) -> Option<&str> {
        self.tags.iter().find_map(|tag| tag.strip_prefix(prefix))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RESTIC: &str = r#"{"time":"2015-01-02T18:10:50.895208559+01:00","parent":null,
        "tree":"2da81727b6585232894cfbb8f8bdab8d1eccd3d8f7c92bc934d62e62e618ffdf","paths":["/tmp/testdata"],
        "hostname":"kasimir","username":"fd0","uid":1000,"gid":100,"tags":["NL"],"program_version":"restic 0.17"}"#;

    #[test]
    fn what_restic_writes_is_read() {
        let snapshot = Snapshot::from_json(RESTIC.as_bytes()).unwrap();
        assert_eq!(snapshot.hostname, "kasimir");
        assert_eq!(snapshot.component(), None);
        assert!(!snapshot.is_incomplete());
    }

    #[test]
    fn a_snapshot_stands_for_no_time_before_its_last_moment() {
        let mut snapshot = Snapshot::from_json(RESTIC.as_bytes()).unwrap();
        let own = snapshot.time.0;
        assert_eq!(snapshot.until(), own);
        let hour = jiff::SignedDuration::from_hours(1);
        for (tag, until) in
            [((own + hour).to_string(), own + hour), ((own - hour).to_string(), own), ("x".to_owned(), own)]
        {
            snapshot.tags = vec![format!("{TAG_UNTIL}{tag}")];
            assert_eq!(snapshot.until(), until, "{tag}");
        }
    }

    #[test]
    fn tags_carry_what_is_ours() {
        let mut snapshot = Snapshot::from_json(RESTIC.as_bytes()).unwrap();
        snapshot.tags =
            vec![format!("{TAG_COMPONENT}models"), format!("{TAG_KIND}files"), TAG_INCOMPLETE.to_owned()];
        let again = Snapshot::from_json(&snapshot.to_json().unwrap()).unwrap();
        assert_eq!(again, snapshot);
        assert_eq!(
            (again.component(), again.kind(), again.is_incomplete()),
            (Some("models"), Some("files"), true)
        );
    }
}

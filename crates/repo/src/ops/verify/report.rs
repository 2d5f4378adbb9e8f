//! What an examination found.

use crate::format::time::Time;
use crate::id::{BlobId, SnapshotId};
use retoma_core::{Code, Error};
use std::sync::Arc;

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Something stored is not what it should be. The repository is not in order.
    Damage,
    /// Worth knowing; everything can be restored.
    Note,
}

/// A snapshot that needs what is damaged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotHit {
    /// The snapshot.
    pub id: SnapshotId,
    /// Its component, where it is known.
    pub component: Option<Arc<str>>,
    /// When it was made; unknown when the snapshot itself can't be read.
    pub time: Option<Time>,
    /// Some of the paths that can't be restored; all of the snapshot when there are none.
    pub paths: Vec<Vec<u8>>,
}

/// One thing that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Damage or note.
    pub severity: Severity,
    /// Stable code.
    pub code: Code,
    /// The object's name in the repository, for example `data/73/73d0…`; a folder's name where an object is missing that
    /// nothing names.
    pub object: String,
    /// Where in the object, in bytes, when known; the first place when there are several.
    pub offset_bytes: Option<u64>,
    /// One sentence without full stop.
    pub message: String,
    /// Number of blobs that are hit.
    pub blobs: u64,
    /// The first of them.
    pub blob_ids: Vec<BlobId>,
    /// The snapshots that can't be restored completely because of this, oldest first.
    pub snapshots: Vec<SnapshotHit>,
}

/// How much was examined.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Key files.
    pub keys: u64,
    /// Snapshots.
    pub snapshots: u64,
    /// Index files.
    pub index_files: u64,
    /// Packs that the index names.
    pub packs: u64,
    /// Blobs that the index names, duplicates too.
    pub blobs: u64,
    /// Different directories.
    pub trees: u64,
    /// Files in them.
    pub files: u64,
    /// Packs whose every byte was read.
    pub packs_read: u64,
    /// Bytes of those packs.
    pub read_bytes: u64,
    /// Objects of the lane of WAL.
    pub wal_objects: u64,
    /// Those of them that were read.
    pub wal_read: u64,
}

/// Everything that an examination found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Damage first, then by object and place.
    pub findings: Vec<Finding>,
    /// How much was examined.
    pub counts: Counts,
}

impl Report {
    /// The findings that are damage.
    pub fn damage(&self) -> impl Iterator<Item = &Finding> {
        self.findings.iter().filter(|finding| finding.severity == Severity::Damage)
    }

    /// Whether there is damage: the examination is not passed.
    pub fn is_damaged(&self) -> bool {
        self.damage().next().is_some()
    }

    /// The snapshots that can't be restored completely, each once.
    pub fn snapshots_hit(&self) -> Vec<SnapshotId> {
        let mut ids: Vec<SnapshotId> =
            self.damage().flat_map(|finding| &finding.snapshots).map(|hit| hit.id).collect();
        ids.sort();
        ids.dedup();
        ids
    }
}

/// What a finding makes unreadable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// Nothing.
    Nothing,
    /// Every snapshot.
    AllSnapshots,
    /// One snapshot, which can't be read itself.
    Snapshot(SnapshotId),
    /// Whoever needs the blobs that name this finding as their cause.
    Blobs,
    /// Whoever needs a blob that is in no index: it was in this index file.
    Missing,
}

/// A finding before it is known whom it hits.
#[derive(Debug)]
pub(super) struct Draft {
    pub(super) severity: Severity,
    pub(super) code: Code,
    pub(super) object: String,
    pub(super) offset_bytes: Option<u64>,
    pub(super) message: String,
    pub(super) blobs: u64,
    pub(super) blob_ids: Vec<BlobId>,
    pub(super) scope: Scope,
}

/// So many of a finding's blobs are named.
const BLOBS_NAMED: usize = 16;

impl Draft {
    pub(super) fn new(
        severity: Severity,
        code: Code,
        object: impl Into<String>,
        message: impl Into<String>,
    ) -> Self {
        Self {
            severity,
            code,
            object: object.into(),
            offset_bytes: None,
            message: message.into(),
            blobs: 0,
            blob_ids: Vec::new(),
            scope: Scope::Nothing,
        }
    }

    pub(super) fn damage(object: impl Into<String>, error: &Error) -> Self {
        Self::new(Severity::Damage, error.code(), object, error.message())
    }

    pub(super) fn note(object: impl Into<String>, code: Code, message: impl Into<String>) -> Self {
        Self::new(Severity::Note, code, object, message)
    }

    pub(super) fn scope(mut self, scope: Scope) -> Self {
        self.scope = scope;
        self
    }

    pub(super) fn at(mut self, offset_bytes: u64) -> Self {
        self.offset_bytes = Some(offset_bytes);
        self
    }

    pub(super) fn add_blob(&mut self, id: BlobId) {
        self.blobs += 1;
        if self.blob_ids.len() < BLOBS_NAMED {
            self.blob_ids.push(id);
        }
    }

    pub(super) fn finish(self, snapshots: Vec<SnapshotHit>) -> Finding {
        Finding {
            severity: self.severity,
            code: self.code,
            object: self.object,
            offset_bytes: self.offset_bytes,
            message: self.message,
            blobs: self.blobs,
            blob_ids: self.blob_ids,
            snapshots,
        }
    }
}

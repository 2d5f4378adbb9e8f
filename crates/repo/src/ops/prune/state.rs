//! The repository as it is now: snapshots first, then the index, then the packs in the store.

use crate::format::snapshot::Snapshot;
use crate::id::{BlobId, PackId, SnapshotId};
use crate::index::Index;
use crate::repository::{Folder, Repository};
use retoma_core::{ErrorKind, Result, ResultExt};
use std::collections::{BTreeMap, HashMap};

/// What a plan is made from.
#[derive(Debug)]
pub(super) struct Current {
    /// The root tree of each snapshot.
    pub(super) roots: Vec<BlobId>,
    pub(super) index: Index,
    /// Packs in the store with their sizes in bytes.
    pub(super) sizes: HashMap<PackId, u64>,
}

impl Current {
    pub(super) fn load(repository: &Repository) -> Result<Self> {
        let roots = present_snapshots(repository)?.into_values().map(|snapshot| snapshot.tree).collect();
        let index = repository.load_index().context("load the index")?;
        // After the index: a pack that an index names was stored before it.
        let packs = repository.list(Folder::Data)?;
        let sizes = packs.into_iter().map(|(id, meta)| (PackId(id), meta.size_bytes)).collect();
        Ok(Self { roots, index, sizes })
    }
}

/// Every snapshot. One that is being rewritten (a hold) is written anew before the old one is deleted, and a single
/// listing may miss both; so it is listed until nothing new appears.
pub(crate) fn present_snapshots(repository: &Repository) -> Result<BTreeMap<SnapshotId, Snapshot>> {
    let mut found = BTreeMap::new();
    let mut gone = std::collections::HashSet::new();
    loop {
        let listed = repository.list(Folder::Snapshots)?;
        let fresh: Vec<SnapshotId> = listed.into_iter().map(|(id, _)| SnapshotId(id)).collect();
        let fresh: Vec<_> =
            fresh.into_iter().filter(|id| !found.contains_key(id) && !gone.contains(id)).collect();
        if fresh.is_empty() {
            return Ok(found);
        }
        for id in fresh {
            match repository.snapshot(id) {
                Ok(snapshot) => drop(found.insert(id, snapshot)),
                Err(error) if error.kind() == ErrorKind::NotFound => drop(gone.insert(id)),
                Err(error) => return Err(error),
            }
        }
    }
}

//! The repository as it is now: snapshots first, then the index, then the packs in the store.

use crate::id::{BlobId, PackId};
use crate::index::Index;
use crate::repository::{Folder, Repository};
use retoma_core::{Result, ResultExt};
use std::collections::HashMap;

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
        let roots = repository.snapshots_by_id()?.into_values().map(|snapshot| snapshot.tree).collect();
        let index = repository.load_index().context("load the index")?;
        // After the index: a pack that an index names was stored before it.
        let packs = repository.list(Folder::Data)?;
        let sizes = packs.into_iter().map(|(id, meta)| (PackId(id), meta.size_bytes)).collect();
        Ok(Self { roots, index, sizes })
    }
}

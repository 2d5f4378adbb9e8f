//! Marks in the store, and the index without what they name.

use super::choose::PrunePlan;
use crate::format::mark::{Mark, MarkedPack, Reason};
use crate::id::{MarkId, PackId};
use crate::index::Index;
use crate::repository::{Folder, Repository};
use retoma_core::{ErrorKind, Result, ResultExt};
use std::collections::HashSet;

/// A mark, with its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMark {
    /// Its name.
    pub id: MarkId,
    /// What it says.
    pub mark: Mark,
}

impl Repository {
    /// All marks, oldest first.
    ///
    /// # Errors
    /// The first that can't be read stops: a backup would build on packs that are going to be deleted.
    pub fn marks(&self) -> Result<Vec<StoredMark>> {
        let mut marks = Vec::new();
        for (id, _) in self.list(Folder::Marks)? {
            let id = MarkId(id);
            match self.load_unpacked(Folder::Marks, id.0) {
                Ok(json) => {
                    let mark = Mark::from_json(&json).with_context(|| format!("read mark {id}"))?;
                    marks.push(StoredMark { id, mark });
                }
                // Swept meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        marks.sort_by_key(|stored| (stored.mark.time, stored.id));
        Ok(marks)
    }

    /// The index for a backup: without the packs that are marked, so that what lies only there is stored again.
    ///
    /// The marks are read before the index: a mark that is swept in between takes its packs out of the index first.
    ///
    /// # Errors
    /// See [`Repository::load_index`] and [`Repository::marks`].
    pub fn load_index_for_backup(&self) -> Result<Index> {
        let marks = self.marks()?;
        let marked: HashSet<PackId> =
            marks.iter().flat_map(|stored| &stored.mark.packs).map(|pack| pack.id).collect();
        self.load_index_where(&|pack| !marked.contains(pack))
    }
}

/// The mark for what is doomed.
pub(super) fn of(plan: &PrunePlan, doomed: &HashSet<PackId>, unindexed: &[PackId]) -> Mark {
    let removed = plan.remove.iter().map(|pack| MarkedPack { id: pack.id, reason: pack.reason });
    let repacked = plan.repack.iter().map(|pack| MarkedPack { id: pack.id, reason: Reason::Repacked });
    let going = |pack: &MarkedPack| doomed.contains(&pack.id) || unindexed.contains(&pack.id);
    Mark { time: plan.options.now, packs: removed.chain(repacked).filter(going).collect() }
}

//! Marks in the store, and the index without what they name.

use super::choose::PrunePlan;
use crate::format::mark::{Mark, MarkedPack, Reason};
use crate::format::time::Time;
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
            match self.mark(id) {
                Ok(mark) => marks.push(StoredMark { id, mark }),
                // Swept meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    return Err(error.with_hint(format!(
                        "while no prune runs, delete the object `marks/{id}`: a mark is a plan and holds no data, and \
                         the next prune makes a new one"
                    )));
                }
                Err(error) => return Err(error),
            }
        }
        marks.sort_by_key(|stored| (stored.mark.time, stored.id));
        Ok(marks)
    }

    /// Loads a mark.
    ///
    /// # Errors
    /// See [`Repository::load_unpacked`].
    pub(crate) fn mark(&self, id: MarkId) -> Result<Mark> {
        let json = self.load_unpacked(Folder::Marks, id.0)?;
        Mark::from_json(&json).with_context(|| format!("read mark {id}"))
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

/// The mark for what is doomed, written at `clock`.
///
/// Its time is that of its writing, not that of the plan: between them may lie the copying of terabytes, or a person
/// who thinks about it, and backups that begin meanwhile do not see the mark.
pub(super) fn of(plan: &PrunePlan, clock: Time, doomed: &HashSet<PackId>, unindexed: &[PackId]) -> Mark {
    let removed = plan.remove.iter().map(|pack| MarkedPack { id: pack.id, reason: pack.reason });
    let repacked = plan.repack.iter().map(|pack| MarkedPack { id: pack.id, reason: Reason::Repacked });
    let going = |pack: &MarkedPack| doomed.contains(&pack.id) || unindexed.contains(&pack.id);
    let passed = clock.0.duration_since(plan.known.begun.0).max(jiff::SignedDuration::ZERO);
    let time = Time(plan.options.now.0.checked_add(passed).unwrap_or(plan.options.now.0));
    Mark { time, packs: removed.chain(repacked).filter(going).collect() }
}

#[cfg(test)]
mod tests {
    use super::super::Options;
    use super::super::choose::{Known, PackRemoval, Share};
    use super::*;

    #[test]
    fn a_mark_has_the_time_of_its_writing() {
        let at = |seconds| Time::from_unix(seconds, 0);
        let id = PackId([7; 32]);
        let plan = PrunePlan {
            options: Options::new(at(1_000)),
            used: Share::default(),
            unused: Share::default(),
            remove: vec![PackRemoval { id, reason: Reason::Unused, size_bytes: 1 }],
            repack: Vec::new(),
            sweep: Vec::new(),
            waiting: Vec::new(),
            keep: Share::default(),
            known: Known::new(at(5_000)),
        };
        let doomed = HashSet::from([id]);
        assert_eq!(of(&plan, at(9_000), &doomed, &[]).time, at(5_000));
        assert_eq!(of(&plan, at(4_000), &doomed, &[]).time, at(1_000), "a clock that was set back");
        assert_eq!(of(&plan, at(9_000), &doomed, &[]).packs, [MarkedPack { id, reason: Reason::Unused }]);
        assert!(of(&plan, at(9_000), &HashSet::new(), &[]).packs.is_empty());
    }
}

//! Marks in the store, and the index without what they name.

use super::choose::PrunePlan;
use crate::format::mark::{Mark, MarkedPack, Reason};
use crate::format::time::Time;
use crate::id::{MarkId, PackId};
use crate::index::Index;
use crate::repository::{Folder, Repository};
use retoma_core::units::counted;
use retoma_core::{ErrorKind, Result, ResultExt};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::{Mutex, PoisonError};

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
                    return Err(error.with_hint(
                        "run `retoma repair`, which deletes it: a mark is a plan and holds no data, and the next prune \
                         makes a new one",
                    ));
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

    /// The index for a backup: without the packs that are marked, and without those that are not there any more or are
    /// too short, so that what lies only in them is stored again. The latter are listed.
    ///
    /// The marks are read before the index: a mark that is swept in between takes its packs out of the index first. The
    /// packs are listed after the index: a pack is durable before an index names it.
    ///
    /// # Errors
    /// See [`Repository::load_index`] and [`Repository::marks`].
    pub fn load_index_for_backup(&self) -> Result<(Index, Vec<LostPack>)> {
        let marks = self.marks()?;
        let marked: HashSet<PackId> =
            marks.iter().flat_map(|stored| &stored.mark.packs).map(|pack| pack.id).collect();
        let named: Mutex<HashMap<PackId, u64>> = Mutex::default();
        let index = self.load_index_where(&|pack| {
            let is_wanted = !marked.contains(&pack.id);
            if is_wanted {
                named.lock().unwrap_or_else(PoisonError::into_inner).insert(pack.id, pack.pack_bytes());
            }
            is_wanted
        })?;
        let mut lost = self.lost_of(named.into_inner().unwrap_or_else(PoisonError::into_inner))?;
        if lost.is_empty() {
            return Ok((index, lost));
        }
        drop(index);
        lost.sort_unstable_by_key(|pack| pack.id);
        let gone: HashSet<PackId> = lost.iter().map(|pack| pack.id).collect();
        let index = self.load_index_where(&|pack| !marked.contains(&pack.id) && !gone.contains(&pack.id))?;
        Ok((index, lost))
    }

    /// The packs that the index names and that are missing or too short. Costs the index files and one listing, and no memory for
    /// blobs. What is damaged inside of a pack it does not see.
    ///
    /// # Errors
    /// `Corrupt` when an index file cannot be read; what the store says.
    pub fn lost_packs(&self) -> Result<Vec<LostPack>> {
        let named: Mutex<HashMap<PackId, u64>> = Mutex::default();
        self.load_index_where(&|pack| {
            named.lock().unwrap_or_else(PoisonError::into_inner).insert(pack.id, pack.pack_bytes());
            false
        })?;
        self.lost_of(named.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    /// Those of `named`, with their lengths by the index, that are missing or too short.
    fn lost_of(&self, named: HashMap<PackId, u64>) -> Result<Vec<LostPack>> {
        let there: HashMap<[u8; 32], u64> =
            self.list(Folder::Data)?.into_iter().map(|(id, meta)| (id, meta.size_bytes)).collect();
        let is_lost = |(id, expected_bytes): (PackId, u64)| {
            let found_bytes = there.get(&id.0).copied();
            let is_whole = found_bytes.is_some_and(|found| found >= expected_bytes);
            (!is_whole).then_some(LostPack { id, expected_bytes, found_bytes })
        };
        Ok(named.into_iter().filter_map(is_lost).collect())
    }
}

/// A pack that the index names and that cannot be read from: snapshots before this one may need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LostPack {
    /// Its name.
    pub id: PackId,
    /// Its length by the index.
    pub expected_bytes: u64,
    /// Its length in the store; `None` when it is not there.
    pub found_bytes: Option<u64>,
}

impl fmt::Display for LostPack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.found_bytes {
            None => write!(f, "pack {} is missing", self.id),
            Some(found) => {
                let found = counted(found, "byte", "bytes");
                write!(f, "pack {} has {found} instead of {}", self.id, self.expected_bytes)
            }
        }
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

//! Repair: makes again what can be made from the rest of a repository, as a plan that is then applied.
//!
//! An index file tells what lies in packs, and each pack tells the same at its own end. So an index that is lost or cannot
//! be read is made anew from the headers of the packs that no readable index file names; or the whole index from all of
//! them, where it can be read and is wrong. What cannot be read and is only in the way goes: index files, marks of prune,
//! and, where that is asked for, snapshots.
//!
//! Invariants: the new index is durable before anything is deleted; nothing is deleted that can be read; nobody else works
//! meanwhile. Not done here: blobs that are damaged ([`super::verify`] names them, the next backup stores what the source
//! still has), and healing from another repository. `docs/repair.md`.

use super::verify::{header_of, object_name};
use crate::backup::Progress;
use crate::format::index::{IndexFile, IndexPack};
use crate::format::lock::Holder;
use crate::id::{IndexId, MarkId, PackId, SnapshotId};
use crate::lock::{self, Guard};
use crate::repository::{Folder, Repository};
use crate::store::Key;
use retoma_core::{Error, ErrorKind, Result, ResultExt as _};
use std::collections::{HashMap, HashSet};

/// An index file ends after so many blobs, as in backups.
const INDEX_BLOBS: usize = 50_000;

/// An object that cannot be read, with the reason.
#[derive(Debug)]
pub struct Unreadable {
    /// Its folder.
    pub folder: Folder,
    /// Its name.
    pub id: [u8; 32],
    /// Why.
    pub error: Error,
}

/// What a repair is told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Options {
    /// Snapshots that cannot be read go as well.
    pub forget_snapshots: bool,
    /// The whole index is made again from the headers of all packs.
    pub rebuild_index: bool,
}

/// What [`apply`] will do.
#[derive(Debug, Default)]
pub struct RepairPlan {
    /// Index files, marks and snapshots that are stored and cannot be read.
    pub unreadable: Vec<Unreadable>,
    /// Packs that come into the index, as their headers tell; where a header cannot be read, as the index told.
    pub packs: Vec<IndexPack>,
    /// Packs whose header cannot be read. What no index tells of either is lost, unless the same blobs lie elsewhere.
    pub lost: Vec<Unreadable>,
    /// Index files that can be read and are made anew.
    pub replaced: Vec<IndexId>,
    /// Packs that these name, and that are not there or are too short: the new index does not name them.
    pub dropped: Vec<PackId>,
    options: Options,
}

impl RepairPlan {
    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.packs.is_empty() && self.replaced.is_empty() && self.going().next().is_none()
    }

    /// What is deleted.
    pub fn going(&self) -> impl Iterator<Item = &Unreadable> {
        let forgets = self.options.forget_snapshots;
        self.unreadable.iter().filter(move |object| object.folder != Folder::Snapshots || forgets)
    }

    /// What is damaged and stays.
    pub fn staying(&self) -> impl Iterator<Item = &Unreadable> {
        let snapshots = self
            .unreadable
            .iter()
            .filter(|object| object.folder == Folder::Snapshots && !self.options.forget_snapshots);
        snapshots.chain(&self.lost)
    }

    /// Blobs that come into the index.
    pub fn blobs(&self) -> usize {
        self.packs.iter().map(|pack| pack.blobs.len()).sum()
    }
}

/// What [`apply`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Repaired {
    /// Packs that are in the index now.
    pub indexed_packs: usize,
    /// Objects that are gone.
    pub deleted: usize,
}

/// Looks for what can be repaired. Changes nothing. `progress` counts packs and can stop it.
///
/// # Errors
/// `Cancelled`; what the store says.
pub fn plan(repository: &Repository, options: Options, progress: &Progress) -> Result<RepairPlan> {
    let mut plan = RepairPlan { options, ..RepairPlan::default() };
    read_each(repository, Folder::Snapshots, &mut plan.unreadable, |id| {
        repository.snapshot(SnapshotId(id)).map(drop)
    })?;
    read_each(repository, Folder::Marks, &mut plan.unreadable, |id| repository.mark(MarkId(id)).map(drop))?;
    let mut named: HashMap<PackId, IndexPack> = HashMap::new();
    read_each(repository, Folder::Index, &mut plan.unreadable, |id| {
        let file = repository.index_file(IndexId(id))?;
        if options.rebuild_index {
            plan.replaced.push(IndexId(id));
        }
        // What lies in them is only of use where their own word is to be replaced.
        let kept = |blobs| if options.rebuild_index { blobs } else { Vec::new() };
        let packs = file.packs.into_iter();
        named.extend(packs.map(|pack| (pack.id, IndexPack { id: pack.id, blobs: kept(pack.blobs) })));
        Ok(())
    })?;
    // After the index: a pack that an index names was stored before it.
    let mut stored = repository.list(Folder::Data)?;
    if options.rebuild_index {
        let sizes: HashMap<[u8; 32], u64> = stored.iter().map(|(id, meta)| (*id, meta.size_bytes)).collect();
        let is_there =
            |pack: &IndexPack| sizes.get(&pack.id.0).is_some_and(|size| *size >= pack.pack_bytes());
        plan.dropped = named.values().filter(|pack| !is_there(pack)).map(|pack| pack.id).collect();
        plan.dropped.sort_unstable();
        plan.dropped.iter().for_each(|id| drop(named.remove(id)));
    } else {
        stored.retain(|(id, _)| !named.contains_key(&PackId(*id)));
    }
    progress.set_total(stored.len() as u64, 0);
    for (id, meta) in stored {
        progress.check("the repair")?;
        match header_of(repository, PackId(id), meta.size_bytes) {
            Ok(blobs) => plan.packs.push(IndexPack { id: PackId(id), blobs }),
            // Deleted meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                plan.packs.extend(named.remove(&PackId(id)));
                plan.lost.push(Unreadable { folder: Folder::Data, id, error });
            }
            Err(error) => return Err(error),
        }
        progress.add_file(0);
    }
    Ok(plan)
}

/// Does what the plan says, of that what is still so: it looks again once nobody else works.
///
/// # Errors
/// `Conflict` with `R0601` while somebody works on the repository; `Cancelled`; what the store says. What was done stays,
/// and the same again goes on from there.
pub fn apply(repository: &Repository, plan: &RepairPlan, progress: &Progress) -> Result<Repaired> {
    let guard = lock::acquire(repository, Holder::PruneNow)?;
    let repaired = write_and_delete(repository, &guard, plan, progress)?;
    guard.release();
    Ok(repaired)
}

fn write_and_delete(
    repository: &Repository,
    guard: &Guard,
    plan: &RepairPlan,
    progress: &Progress,
) -> Result<Repaired> {
    let stored: HashMap<[u8; 32], u64> =
        repository.list(Folder::Data)?.into_iter().map(|(id, meta)| (id, meta.size_bytes)).collect();
    let index: Vec<IndexId> =
        repository.list(Folder::Index)?.into_iter().map(|(id, _)| IndexId(id)).collect();
    // What another file says by now need not be said again.
    let mut named = HashSet::new();
    read_each(repository, Folder::Index, &mut Vec::new(), |id| {
        if !plan.replaced.contains(&IndexId(id)) {
            named.extend(repository.index_file(IndexId(id))?.packs.iter().map(|pack| pack.id));
        }
        Ok(())
    })?;
    let is_needed = |pack: &&IndexPack| {
        !named.contains(&pack.id) && stored.get(&pack.id.0).is_some_and(|size| *size >= pack.pack_bytes())
    };
    let packs: Vec<IndexPack> = plan.packs.iter().filter(is_needed).cloned().collect();
    let mut repaired = Repaired { indexed_packs: packs.len(), deleted: 0 };
    guard.check()?;
    write_index(repository, packs).context("write the new index")?;
    for id in plan.replaced.iter().filter(|id| index.contains(id)) {
        progress.check("the repair")?;
        guard.check()?;
        repository.store().delete(&Folder::Index.key(&id.to_hex())?).context("delete an old index")?;
        repaired.deleted += 1;
    }
    for object in plan.going() {
        progress.check("the repair")?;
        guard.check()?;
        // Somebody may have put the right one back.
        if !is_unreadable(repository, object)? {
            continue;
        }
        let name = object.name();
        repository.store().delete(&Key::new(name.clone())?).with_context(|| format!("delete {name}"))?;
        repaired.deleted += 1;
    }
    Ok(repaired)
}

/// Writes index files for `packs`.
pub(super) fn write_index(repository: &Repository, packs: impl IntoIterator<Item = IndexPack>) -> Result<()> {
    let (mut open, mut blobs) = (Vec::new(), 0);
    for pack in packs {
        blobs += pack.blobs.len();
        open.push(pack);
        if blobs >= INDEX_BLOBS {
            blobs = 0;
            save(repository, std::mem::take(&mut open))?;
        }
    }
    save(repository, open)
}

fn save(repository: &Repository, packs: Vec<IndexPack>) -> Result<()> {
    if packs.is_empty() {
        return Ok(());
    }
    // `supersedes` stays empty: until all new files are there, the old ones must count for every reader.
    repository.save_index_file(&IndexFile { supersedes: Vec::new(), packs }).map(drop)
}

fn read_each(
    repository: &Repository,
    folder: Folder,
    unreadable: &mut Vec<Unreadable>,
    mut read: impl FnMut([u8; 32]) -> Result<()>,
) -> Result<()> {
    for (id, _) in repository.list(folder)? {
        match read(id) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                unreadable.push(Unreadable { folder, id, error });
            }
            // Deleted meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn is_unreadable(repository: &Repository, object: &Unreadable) -> Result<bool> {
    let read = match object.folder {
        Folder::Index => repository.index_file(IndexId(object.id)).map(drop),
        Folder::Marks => repository.mark(MarkId(object.id)).map(drop),
        Folder::Snapshots => repository.snapshot(SnapshotId(object.id)).map(drop),
        _ => Ok(()),
    };
    match read {
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(true),
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(false),
    }
}

impl Unreadable {
    /// Its name in the repository, as `verify` names objects.
    pub fn name(&self) -> String {
        object_name(self.folder, self.id)
    }
}

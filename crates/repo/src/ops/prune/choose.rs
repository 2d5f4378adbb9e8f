//! Which packs go, which are copied, which wait: a pure decision from what was found.

use super::Options;
use super::mark::StoredMark;
use super::state::Current;
use crate::format::BlobKind;
use crate::format::mark::Reason;
use crate::format::pack::header_bytes;
use crate::format::time::Time;
use crate::id::{BlobId, MarkId, PackId};
use crate::index::{Index, Location};
use retoma_core::{Error, ErrorKind, Result, error::codes, units::counted};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};

/// What a prune would do. [`super::apply`] does exactly this.
#[derive(Debug)]
pub struct PrunePlan {
    /// What it was made with.
    pub options: Options,
    /// What snapshots need, each blob once.
    pub used: Share,
    /// What they don't, duplicates too, in packs that an index names.
    pub unused: Share,
    /// Packs that nobody needs, by id: they are marked, or deleted at once where there is no grace period.
    pub remove: Vec<PackRemoval>,
    /// Packs whose needed blobs are copied, by id; they are then marked or deleted as well.
    pub repack: Vec<PackRepack>,
    /// Marks that are old enough: their packs are deleted.
    pub sweep: Vec<SweepPlan>,
    /// Marks that are not.
    pub waiting: Vec<MarkWaiting>,
    /// Packs that stay as they are: how many, and their bytes.
    pub keep: Share,
    pub(super) known: Known,
}

/// A part of the repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Share {
    /// How many blobs (or packs, for [`PrunePlan::keep`]).
    pub count: u64,
    /// Their bytes as stored.
    pub size_bytes: u64,
}

impl Share {
    fn add(&mut self, size_bytes: u64) {
        self.count += 1;
        self.size_bytes += size_bytes;
    }
}

/// A pack that nobody needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackRemoval {
    /// The pack.
    pub id: PackId,
    /// Why nobody needs it.
    pub reason: Reason,
    /// Its size in bytes; 0 when it is not there.
    pub size_bytes: u64,
}

/// A pack that is copied in part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackRepack {
    /// The pack.
    pub id: PackId,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// Bytes of it that snapshots need: so many are copied.
    pub used_bytes: u64,
}

/// A mark whose packs are deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SweepPlan {
    /// The mark.
    pub id: MarkId,
    /// When it was written.
    pub time: Time,
    /// Packs that an index names.
    pub indexed: Vec<PackId>,
    /// Packs that none names.
    pub unindexed: Vec<PackId>,
    /// Packs that are needed again and stay.
    pub needed_again: Vec<PackId>,
    /// Bytes that are given back.
    pub size_bytes: u64,
}

/// A mark that waits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MarkWaiting {
    /// The mark.
    pub id: MarkId,
    /// When it was written.
    pub time: Time,
    /// From when on its packs may be deleted.
    pub until: Time,
    /// How many packs.
    pub packs: u64,
    /// Their bytes.
    pub size_bytes: u64,
}

impl PrunePlan {
    /// Whether there is nothing to do now.
    pub fn is_empty(&self) -> bool {
        self.remove.is_empty() && self.repack.is_empty() && self.sweep.is_empty()
    }
}

/// What snapshots need.
#[derive(Debug)]
pub(super) struct Known {
    /// The clock when the plan was begun: what passes until a mark is written is added to the mark's time.
    pub(super) begun: Time,
    pub(super) trees: HashSet<BlobId>,
    pub(super) data: HashSet<BlobId>,
}

impl Known {
    pub(super) fn new(begun: Time) -> Self {
        Self { begun, trees: HashSet::new(), data: HashSet::new() }
    }

    fn contains(&self, kind: BlobKind, id: &BlobId) -> bool {
        match kind {
            BlobKind::Data => self.data.contains(id),
            BlobKind::Tree => self.trees.contains(id),
        }
    }

    pub(super) fn blobs(&self) -> impl Iterator<Item = (BlobKind, &BlobId)> {
        let trees = self.trees.iter().map(|id| (BlobKind::Tree, id));
        trees.chain(self.data.iter().map(|id| (BlobKind::Data, id)))
    }
}

/// How much of a pack is needed.
#[derive(Debug, Clone, Copy, Default)]
struct PackUse {
    /// Size by the index, in bytes.
    size_bytes: u64,
    /// Needed bytes, duplicates counted in each of their packs.
    gross_bytes: u64,
    /// Needed bytes, each blob counted in one pack only.
    used_bytes: u64,
    used_blobs: u64,
    unused_bytes: u64,
    unused_blobs: u64,
    is_tree: bool,
}

const KINDS: [BlobKind; 2] = [BlobKind::Data, BlobKind::Tree];

/// Makes the plan.
pub(super) fn choose(
    options: Options,
    current: &Current,
    known: Known,
    marks: &[StoredMark],
) -> Result<PrunePlan> {
    let marked: HashSet<PackId> =
        marks.iter().flat_map(|stored| &stored.mark.packs).map(|pack| pack.id).collect();
    let uses = uses(current, &known, &marked)?;
    // With no grace period marks mean nothing: everything is decided anew.
    let considered = |pack: &PackId| options.is_immediate() || !marked.contains(pack);
    let mut plan = PrunePlan {
        options,
        used: Share::default(),
        unused: Share::default(),
        remove: Vec::new(),
        repack: Vec::new(),
        sweep: Vec::new(),
        waiting: Vec::new(),
        keep: Share::default(),
        known,
    };
    let mut candidates = BTreeMap::new();
    for (id, pack) in &uses {
        plan.used.count += pack.used_blobs;
        plan.used.size_bytes += pack.used_bytes;
        plan.unused.count += pack.unused_blobs;
        plan.unused.size_bytes += pack.unused_bytes;
        let size_bytes = current.sizes.get(id).copied().unwrap_or(0);
        if !considered(id) {
        } else if pack.used_blobs == 0 {
            plan.remove.push(PackRemoval { id: *id, reason: Reason::Unused, size_bytes });
        } else {
            candidates.insert(*id, *pack);
        }
    }
    let unindexed = current.sizes.iter().filter(|(id, _)| !uses.contains_key(*id) && considered(id));
    let removal =
        |(id, size): (&PackId, &u64)| PackRemoval { id: *id, reason: Reason::Unindexed, size_bytes: *size };
    plan.remove.extend(unindexed.map(removal));
    plan.remove.sort_unstable_by_key(|pack| pack.id);
    for (id, pack) in repack(&options, &candidates) {
        candidates.remove(&id);
        plan.repack.push(PackRepack { id, size_bytes: pack.size_bytes, used_bytes: pack.used_bytes });
    }
    for pack in candidates.values() {
        plan.keep.add(pack.size_bytes);
    }
    if !options.is_immediate() {
        sort_marks(&mut plan, current, &uses, marks);
    }
    Ok(plan)
}

fn uses(current: &Current, known: &Known, marked: &HashSet<PackId>) -> Result<HashMap<PackId, PackUse>> {
    let mut uses: HashMap<PackId, PackUse> = HashMap::new();
    for place in KINDS.into_iter().flat_map(|kind| current.index.iter(kind)) {
        // The seal of the header and the trailer, once a pack.
        let fixed = header_bytes([]) as u64;
        let pack = uses.entry(place.pack).or_insert(PackUse { size_bytes: fixed, ..PackUse::default() });
        let length = u64::from(place.blob.length_bytes);
        pack.size_bytes += length + header_bytes([&place.blob]) as u64 - fixed;
        pack.is_tree |= place.blob.kind == BlobKind::Tree;
        if known.contains(place.blob.kind, &place.blob.id) {
            pack.gross_bytes += length;
        }
    }
    // Packs that an index names and that hold no blob at all.
    for pack in current.index.packs() {
        uses.entry(*pack).or_default();
    }
    let gross: HashMap<PackId, u64> = uses.iter().map(|(id, pack)| (*id, pack.gross_bytes)).collect();
    // One that was cut off is no home either: who backed up again has the same blobs in a whole one.
    let is_whole = |(id, pack): &(&PackId, &PackUse)| current.sizes.get(*id) == Some(&pack.size_bytes);
    let whole: HashSet<PackId> = uses.iter().filter(is_whole).map(|(id, _)| *id).collect();
    let worth = |place: &Location| {
        let pack = &place.pack;
        (
            whole.contains(pack),
            !marked.contains(pack),
            gross.get(pack).copied(),
            Reverse((*pack, place.blob.offset_bytes)),
        )
    };
    for place in KINDS.into_iter().flat_map(|kind| current.index.iter(kind)) {
        let length = u64::from(place.blob.length_bytes);
        let needed = known.contains(place.blob.kind, &place.blob.id);
        let home = needed && best(&current.index, &place, worth) == Some(place);
        let Some(pack) = uses.get_mut(&place.pack) else { continue };
        if home {
            pack.used_bytes += length;
            pack.used_blobs += 1;
        } else {
            pack.unused_bytes += length;
            pack.unused_blobs += 1;
        }
    }
    check_complete(current, known, &uses)?;
    Ok(uses)
}

fn best<K: Ord>(index: &Index, place: &Location, worth: impl Fn(&Location) -> K) -> Option<Location> {
    index.all(place.blob.kind, &place.blob.id).max_by_key(worth)
}

/// A repository that misses something is left alone: what seems to be waste may be what repairs it.
fn check_complete(current: &Current, known: &Known, uses: &HashMap<PackId, PackUse>) -> Result<()> {
    let damaged = |code, message: String| {
        let hint = "run `retoma verify` to see which snapshots are hit; nothing was deleted";
        Err(Error::new(ErrorKind::Corrupt, code, message).with_hint(hint))
    };
    if let Some((_, id)) = known.blobs().find(|(kind, id)| !current.index.contains(*kind, id)) {
        return damaged(codes::BLOB_MISSING, format!("blob {id} is needed and in no index"));
    }
    let mut needed: Vec<_> = uses.iter().filter(|(_, pack)| pack.used_blobs > 0).collect();
    needed.sort_unstable_by_key(|(id, _)| **id);
    for (id, pack) in needed {
        match current.sizes.get(id) {
            Some(size) if *size == pack.size_bytes => {}
            Some(size) => {
                let (found, expected) = (counted(*size, "byte", "bytes"), pack.size_bytes);
                return damaged(codes::PACK_MISSING, format!("pack {id} has {found} instead of {expected}"));
            }
            None => return damaged(codes::PACK_MISSING, format!("pack {id} is needed and missing")),
        }
    }
    Ok(())
}

/// Packs that are worth copying: mostly waste, or small and many.
fn repack(options: &Options, candidates: &BTreeMap<PackId, PackUse>) -> Vec<(PackId, PackUse)> {
    let wasteful = |pack: &PackUse| {
        let percent = u128::from(options.repack_unused_percent);
        u128::from(pack.unused_bytes) * 100 > percent * u128::from(pack.size_bytes)
    };
    let small = |pack: &PackUse| pack.size_bytes < options.small_pack_bytes;
    let many = |is_tree: bool| {
        let small = candidates.values().filter(|pack| small(pack) && pack.is_tree == is_tree).count();
        small >= options.small_packs.max(2)
    };
    let (many_data, many_trees) = (many(false), many(true));
    let chosen = candidates.iter().filter(|(_, pack)| {
        wasteful(pack) || small(pack) && if pack.is_tree { many_trees } else { many_data }
    });
    chosen.map(|(id, pack)| (*id, *pack)).collect()
}

/// Which marks are old enough, and what of them is needed again.
fn sort_marks(
    plan: &mut PrunePlan,
    current: &Current,
    uses: &HashMap<PackId, PackUse>,
    marks: &[StoredMark],
) {
    let size = |pack: &PackId| current.sizes.get(pack).copied().unwrap_or(0);
    for StoredMark { id, mark } in marks {
        if !plan.options.is_ripe(mark.time) {
            plan.waiting.push(MarkWaiting {
                id: *id,
                time: mark.time,
                until: plan.options.until(mark.time),
                packs: mark.packs.len() as u64,
                size_bytes: mark.packs.iter().map(|pack| size(&pack.id)).sum(),
            });
            continue;
        }
        let (mut indexed, mut unindexed, mut needed_again) = (Vec::new(), Vec::new(), Vec::new());
        for pack in &mark.packs {
            match uses.get(&pack.id) {
                None => unindexed.push(pack.id),
                Some(pack_use) if pack_use.used_blobs == 0 && pack.reason != Reason::Unindexed => {
                    indexed.push(pack.id);
                }
                Some(_) => needed_again.push(pack.id),
            }
        }
        let size_bytes = indexed.iter().chain(&unindexed).map(size).sum();
        plan.sweep.push(SweepPlan { id: *id, time: mark.time, indexed, unindexed, needed_again, size_bytes });
    }
}

#[cfg(test)]
mod tests;

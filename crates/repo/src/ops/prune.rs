//! Prune: gives back the space of what no snapshot needs, in two phases, as a plan that is then applied.
//!
//! **Mark**: what is superfluous is found and written down; packs that are mostly waste are copied into new ones. The
//! packs and the index stay as they are, so every reader goes on, and backups that begin from now on do not build on
//! what is marked. **Sweep**, a grace period later: what is marked, and still not needed, leaves the index and is
//! deleted. With no grace period both happen at once, and nobody else may work meanwhile.
//!
//! Invariants, at every single write: every committed snapshot can be read; a blob that a snapshot needs lies in a
//! pack that an index names; whoever is killed leaves nothing that the next prune does not finish.
//! `docs/prune.md` tells why they hold.
//!
//! Not done here: which snapshots go ([`super::forget`]), and repairs. A repository that misses something is refused.

mod choose;
mod mark;
mod repack;
mod state;
mod sweep;
mod usage;

pub use choose::{MarkWaiting, PackRemoval, PackRepack, PrunePlan, Share, SweepPlan};
pub use mark::{LostPack, StoredMark};

use crate::backup::Progress;
use crate::format::lock::Holder;
use crate::format::mark::Reason;
use crate::format::time::Time;
use crate::host;
use crate::id::{MarkId, PackId};
use crate::lock::{self, Guard};
use crate::repository::{Folder, Repository};
use crate::store::Leftovers;
use choose::Known;
use retoma_core::units::counted;
use retoma_core::{Error, ErrorKind, Result, ResultExt, error::codes};
use state::Current;
use std::collections::HashSet;
use std::time::Duration;

/// How long a mark waits where nobody says otherwise.
pub const GRACE: Duration = Duration::from_hours(24);

/// What a prune is told.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The time: marks are written with it and their age is seen from it.
    pub now: Time,
    /// How long a pack stays marked before it is deleted. Zero: at once, and alone.
    pub grace: Duration,
    /// A pack is copied when more than so many percent of its bytes are waste.
    pub repack_unused_percent: u8,
    /// A pack below this size, in bytes, is small …
    pub small_pack_bytes: u64,
    /// … and so many small ones of a kind are merged.
    pub small_packs: usize,
    /// Goes on where there are packs and not a single snapshot: all of them are deleted.
    pub without_snapshots: bool,
}

impl Options {
    /// The defaults: a day of grace, 20 % of waste, 16 packs below 4 MiB.
    pub fn new(now: Time) -> Self {
        Self {
            now,
            grace: GRACE,
            repack_unused_percent: 20,
            small_pack_bytes: 4 << 20,
            small_packs: 16,
            without_snapshots: false,
        }
    }

    /// Whether marks and sweeps happen at once.
    pub fn is_immediate(&self) -> bool {
        self.grace.is_zero()
    }

    fn is_ripe(&self, marked: Time) -> bool {
        self.now >= self.until(marked)
    }

    fn until(&self, marked: Time) -> Time {
        let grace = jiff::SignedDuration::try_from(self.grace).unwrap_or(jiff::SignedDuration::MAX);
        Time(marked.0.checked_add(grace).unwrap_or(jiff::Timestamp::MAX))
    }
}

/// What a prune did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pruned {
    /// Packs that were deleted.
    pub removed_packs: u64,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Packs that were marked.
    pub marked_packs: u64,
    /// Their bytes: what the next sweep can give back.
    pub marked_bytes: u64,
    /// Packs whose needed blobs were copied.
    pub repacked_packs: u64,
    /// Bytes of the new packs.
    pub repacked_bytes: u64,
    /// Packs of the plan that somebody needs again; they stay.
    pub needed_again: Vec<PackId>,
    /// Marks that wait longer, since a backup runs that began before them.
    pub postponed: Vec<MarkId>,
    /// What killed writers had left in the store.
    pub leftovers: Leftovers,
}

/// Looks at the repository and says what a prune would do. Changes nothing and needs no lock.
///
/// # Errors
/// `Corrupt` with `R0208` or `R0209` when something that a snapshot needs is missing: nothing is deleted from a damaged
/// repository. `Conflict` with `R0605` when there is no snapshot at all. `Cancelled`; what the store says.
pub fn plan(repository: &Repository, options: &Options, progress: &Progress) -> Result<PrunePlan> {
    let begun = host::now();
    let current = Current::load(repository)?;
    if current.roots.is_empty() && !current.sizes.is_empty() && !options.without_snapshots {
        return Err(no_snapshots(current.sizes.len()));
    }
    let mut known = Known::new(begun);
    usage::extend(repository, &current, &mut known, progress).context("find what snapshots need")?;
    let marks = repository.marks()?;
    choose::choose(*options, &current, known, &marks)
}

/// Applies the plan: what it names and nothing else. What was committed since is looked at first; packs that it needs
/// stay.
///
/// # Errors
/// `Conflict` with `R0601` when somebody's lock forbids it, `Fenced` with `R0602` when ours was lost, `Cancelled`; what
/// the store says. What was done until then is consistent, and the next prune goes on.
pub fn apply(repository: &Repository, mut plan: PrunePlan, progress: &Progress) -> Result<Pruned> {
    let mut pruned = Pruned::default();
    if plan.options.is_immediate() {
        let guard = lock::acquire(repository, Holder::PruneNow)?;
        // Who was writing then is dead, or does not write packs.
        let alone_since = host::now();
        at_once(repository, &guard, &mut plan, &mut pruned, progress)?;
        pruned.leftovers = remove_leftovers(repository, alone_since)?;
        guard.release();
    } else {
        if !plan.sweep.is_empty() {
            let guard = lock::acquire(repository, Holder::Prune)?;
            sweep::sweep(repository, &guard, &mut plan, &mut pruned, progress)?;
            guard.release();
        }
        if !plan.remove.is_empty() || !plan.repack.is_empty() {
            // As a backup does: it only adds, and nobody may delete beside it.
            let guard = lock::acquire(repository, Holder::Backup)?;
            mark_packs(repository, &guard, &mut plan, &mut pruned, progress)?;
            guard.release();
        }
        // Writes under way are younger than a day.
        let day_ago = host::now().0.checked_sub(jiff::SignedDuration::from_hours(24));
        pruned.leftovers = remove_leftovers(repository, Time(day_ago.unwrap_or(jiff::Timestamp::MIN)))?;
    }
    Ok(pruned)
}

fn no_snapshots(packs: usize) -> Error {
    let packs = counted(packs, "pack", "packs");
    let message = format!("the repository has {packs} and no snapshot: all data would go");
    Error::new(ErrorKind::Conflict, codes::NO_SNAPSHOTS, message).with_hint(
        "look whether `snapshots` was emptied by mistake, and bring it back; if all may go, add `--delete-everything`",
    )
}

fn remove_leftovers(repository: &Repository, before: Time) -> Result<Leftovers> {
    repository.store().remove_leftovers(before.0).context("remove what killed writers left")
}

/// What the plan dooms, and what it still needs of that, seen from the repository as it is now.
struct Recheck {
    current: Current,
    /// In an index, and going.
    doomed: HashSet<PackId>,
    /// In no index, and going.
    unindexed: Vec<PackId>,
    copies: repack::Copies,
}

/// Looks again: loads what is there now, takes packs off that are needed, and finds the blobs to be copied.
fn recheck(
    repository: &Repository,
    plan: &mut PrunePlan,
    pruned: &mut Pruned,
    progress: &Progress,
) -> Result<Recheck> {
    let current = Current::load(repository)?;
    usage::extend(repository, &current, &mut plan.known, progress).context("find what snapshots need")?;
    let indexed: HashSet<PackId> = current.index.packs().iter().copied().collect();
    let mut doomed: HashSet<PackId> =
        plan.repack.iter().map(|pack| pack.id).filter(|id| indexed.contains(id)).collect();
    let sources = doomed.clone();
    let mut unindexed = Vec::new();
    for removal in &plan.remove {
        match (removal.reason, indexed.contains(&removal.id)) {
            // A backup that was still running has committed it.
            (Reason::Unindexed, true) => pruned.needed_again.push(removal.id),
            (Reason::Unindexed, false) => unindexed.push(removal.id),
            (_, true) => drop(doomed.insert(removal.id)),
            // Another prune was faster.
            (_, false) => {}
        }
    }
    let copies =
        repack::Copies::find(&current, &plan.known, &mut doomed, &sources, &mut pruned.needed_again)?;
    pruned.repacked_packs = plan.repack.iter().filter(|pack| doomed.contains(&pack.id)).count() as u64;
    Ok(Recheck { current, doomed, unindexed, copies })
}

/// Phase one: copy, and write the mark.
fn mark_packs(
    repository: &Repository,
    guard: &Guard,
    plan: &mut PrunePlan,
    pruned: &mut Pruned,
    progress: &Progress,
) -> Result<()> {
    let Recheck { current, doomed, unindexed, copies } = recheck(repository, plan, pruned, progress)?;
    let Current { index, sizes, .. } = current;
    pruned.repacked_bytes = copies.copy(repository, index, progress)?;
    let mark = mark::of(plan, host::now(), &doomed, &unindexed);
    if mark.packs.is_empty() {
        return Ok(());
    }
    pruned.marked_packs = mark.packs.len() as u64;
    // Without it somebody may have deleted the copies.
    guard.check()?;
    pruned.marked_bytes = mark.packs.iter().filter_map(|pack| sizes.get(&pack.id)).sum();
    repository.save_unpacked(Folder::Marks, &mark.to_json()?).map(drop).context("write the mark")
}

/// Both phases, alone.
fn at_once(
    repository: &Repository,
    guard: &Guard,
    plan: &mut PrunePlan,
    pruned: &mut Pruned,
    progress: &Progress,
) -> Result<()> {
    let Recheck { current, doomed, unindexed, copies } = recheck(repository, plan, pruned, progress)?;
    let Current { index, sizes, .. } = current;
    guard.check()?;
    pruned.repacked_bytes = copies.copy(repository, index, progress)?;
    let marks: Vec<MarkId> = repository.marks()?.into_iter().map(|mark| mark.id).collect();
    let deletion = sweep::Deletion { doomed, unindexed, marks, sizes: &sizes };
    deletion.run(repository, guard, pruned, progress)
}

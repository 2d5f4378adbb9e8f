//! Heal: blobs that snapshots of a repository need and that it has lost come from a copy of it. `docs/repair.md`.
//!
//! Only blobs, by their names: a copy has the same ones as its source, a direct backup of the same files has not. Nothing
//! is deleted: what is damaged stays where it is, beside what is whole.
//!
//! Not done here: snapshots, which [`super::Copy`] brings back, and the index, which [`crate::ops::repair`] makes again.

use super::walk::{self, Trees, Wanted, is_damage};
use super::{LostBlob, hits, transfer};
use crate::backup::packer::Packer;
use crate::backup::{self, Progress};
use crate::format::lock::Holder;
use crate::format::time::Time;
use crate::format::tree::Node;
use crate::host;
use crate::id::{BlobId, SnapshotId};
use crate::index::Index;
use crate::lock::{self as locks, Guard};
use crate::ops::prune::{LostPack, Share};
use crate::ops::verify;
use crate::repository::{Found, Repository};
use retoma_core::{Error, Result, ResultExt};
use std::collections::HashSet;
use std::sync::RwLock;

/// A repository that has lost something, and one that may have it.
#[derive(Debug)]
pub struct Heal {
    hurt: Repository,
    whole: Repository,
    guard: Option<Guard>,
    pub(super) started: Time,
}

/// What is to be fetched.
#[derive(Debug)]
pub struct HealPlan {
    /// The packs that are missing or too short.
    pub lost_packs: Vec<LostPack>,
    /// Blobs that were read and are damaged in every place.
    pub damaged_blobs: u64,
    /// The blobs that snapshots need and that the copy has; bytes as stored there.
    pub fetch: Share,
    /// So many blobs that snapshots need are in neither.
    pub lost_blobs: u64,
    /// Snapshots that cannot be read: what they need is not known. A copy of them comes back with `copy`.
    pub unreadable: Vec<Error>,
    snapshots: Vec<Found>,
    index: Index,
    wanted: Wanted,
}

/// What was fetched.
#[derive(Debug, Default)]
pub struct Healed {
    /// Blobs that are whole again.
    pub blobs: u64,
    /// Bytes of the new packs.
    pub stored_bytes: u64,
    /// Blobs that are in neither repository.
    pub lost: Vec<LostBlob>,
    /// The snapshots that still lack one, each with it.
    pub left: Vec<(SnapshotId, BlobId)>,
}

impl Heal {
    /// Leaves a lock in `hurt`, as a backup does: nothing is deleted.
    ///
    /// # Errors
    /// `Conflict` with `R0601`; what the store says.
    pub fn begin(hurt: &Repository, whole: &Repository) -> Result<Self> {
        let started = host::now();
        let guard = locks::acquire(hurt, Holder::Backup)?;
        Ok(Self { hurt: hurt.clone(), whole: whole.clone(), guard: Some(guard), started })
    }

    /// For a plan alone: leaves no lock, and [`Heal::apply`] refuses.
    pub fn look(hurt: &Repository, whole: &Repository) -> Self {
        Self { hurt: hurt.clone(), whole: whole.clone(), guard: None, started: host::now() }
    }

    /// Finds what the snapshots need and the repository lacks: packs that are gone, blobs in no index, trees that cannot be
    /// read; with `read_data`, which reads all of it, every blob that is damaged.
    ///
    /// # Errors
    /// `Corrupt` when an index file cannot be read, which `repair` mends first; `Cancelled`; what the stores say.
    pub fn plan(&self, read_data: bool, progress: &Progress) -> Result<HealPlan> {
        let (snapshots, unreadable) = self.hurt.readable_snapshots()?;
        let (mut index, lost_packs) = self.hurt.load_index_for_backup().context("load the index")?;
        let mut bad = if read_data { verify::damaged_blobs(&self.hurt, progress)? } else { HashSet::new() };
        // What lies in packs that are gone is wanted anyway.
        bad.retain(|(kind, id)| index.get(*kind, id).is_some());
        let damaged_blobs = bad.len() as u64;
        let source = self.whole.load_readable_index().context("load the copy's index")?;
        // Reads trees while the walk claims blobs in the other one.
        let own = self.hurt.load_readable_index().context("load the index")?;
        let trees = Either { hurt: &self.hurt, own: &own, whole: &self.whole, source: &source };
        let roots = snapshots.iter().map(|(_, snapshot)| snapshot.tree);
        let wanted = walk::walk(&trees, &source, (&mut index, bad), roots, progress)?;
        let fetch = Share { count: wanted.blobs.len() as u64, size_bytes: wanted.bytes };
        let lost_blobs = wanted.failed.len() as u64;
        Ok(HealPlan { lost_packs, damaged_blobs, fetch, lost_blobs, unreadable, snapshots, index, wanted })
    }

    /// Fetches what the plan says. Packs and index are durable on return.
    ///
    /// # Errors
    /// `Cancelled`; what the stores say. The same again goes on from there.
    pub fn apply(self, plan: HealPlan, progress: &Progress) -> Result<Healed> {
        let Some(guard) = &self.guard else {
            return Err(Error::internal("a repair without a lock"));
        };
        progress.set_total(plan.fetch.count, plan.fetch.size_bytes);
        let index = RwLock::new(plan.index);
        let packer = Packer::new(self.hurt.clone());
        let sent = transfer::transfer(&self.whole, &packer, &index, plan.wanted, progress)?;
        packer.finish(&index)?;
        backup::look_again(&self.hurt, guard, self.started, &index)?;
        let left = hits::find(&self.hurt, &plan.snapshots, &sent.failed)?;
        Ok(Healed {
            blobs: sent.blobs,
            stored_bytes: packer.stored_bytes(),
            lost: sent.failed.into_iter().map(|((_, id), error)| LostBlob { id, error }).collect(),
            left: plan.snapshots.iter().filter_map(|(id, _)| Some((*id, *left.get(id)?))).collect(),
        })
    }
}

/// Trees from where they are whole.
struct Either<'a> {
    hurt: &'a Repository,
    own: &'a Index,
    whole: &'a Repository,
    source: &'a Index,
}

impl Trees for Either<'_> {
    fn read(&self, id: &BlobId) -> Result<(Vec<Node>, bool)> {
        match self.hurt.read_tree(self.own, id) {
            Ok(nodes) => Ok((nodes, false)),
            Err(error) if is_damage(&error) => match self.whole.read_tree(self.source, id) {
                Ok(nodes) => Ok((nodes, true)),
                // What is wrong here is what matters.
                Err(other) if is_damage(&other) => Err(error),
                Err(other) => Err(other),
            },
            Err(error) => Err(error),
        }
    }
}

//! Copy: snapshots of one repository come into another, under the other's key. `docs/copy.md`.
//!
//! Invariants: the source is only read. The snapshot is the commit: packs durable → index durable → snapshot. Every blob
//! is checked against its name before it is believed; a snapshot of which one blob cannot be had is not committed, and
//! named. Whoever is killed leaves blobs that the next copy builds on, or prune reclaims.
//!
//! Not done here: the archive of WAL ([`crate::wal::copy`]), and what the target has already: that is not read again.

pub mod heal;
mod hits;
mod transfer;
mod walk;

use crate::backup::packer::Packer;
use crate::backup::{self, Progress};
use crate::format::BlobKind;
use crate::format::lock::Holder;
use crate::format::snapshot::Snapshot;
use crate::format::time::Time;
use crate::host;
use crate::id::{BlobId, SnapshotId};
use crate::index::Index;
use crate::lock::{self, Guard};
use crate::ops::prune::{LostPack, Share};
use crate::repository::{Found, Repository};
use retoma_core::{Error, Result, ResultExt};
use std::collections::{BTreeMap, HashSet};
use std::sync::{PoisonError, RwLock};
use walk::Wanted;

/// What was stopped, when it was. What was sent so far is used when it is run again.
const WHAT: &str = "the transfer";

/// Which snapshots are copied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Choice {
    /// Those of these components, and those of the manifest.
    Components(Vec<String>),
    /// The one whose id starts with these hexadecimal digits.
    Id(String),
}

/// Two repositories, and the lock in the second.
#[derive(Debug)]
pub struct Copy {
    from: Repository,
    to: Repository,
    guard: Option<Guard>,
    started: Time,
}

/// Blobs that cannot be had, each with the reason.
pub(crate) type Failed = BTreeMap<(BlobKind, BlobId), Error>;

/// What is to be copied.
#[derive(Debug)]
pub struct CopyPlan {
    /// The snapshots that the target lacks, oldest first.
    pub snapshots: Vec<Found>,
    /// So many of those that were asked for are there already.
    pub there: usize,
    /// The blobs that the target lacks; bytes as stored.
    pub missing: Share,
    /// Snapshots and index files of the source that cannot be read.
    pub unreadable: Vec<Error>,
    /// Packs that the target's index names and that are not there: what is needed of them is sent again.
    pub lost_packs: Vec<LostPack>,
    work: Work,
}

#[derive(Debug)]
struct Work {
    target: Index,
    wanted: Wanted,
}

/// A snapshot that was copied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopiedSnapshot {
    /// Its name in the source.
    pub source: SnapshotId,
    /// Its name in the target; durable.
    pub target: SnapshotId,
}

/// A blob of the source that cannot be had, so that snapshots were not copied.
#[derive(Debug)]
pub struct LostBlob {
    /// Its name.
    pub id: BlobId,
    /// Why.
    pub error: Error,
}

/// What a copy did.
#[derive(Debug, Default)]
pub struct Copied {
    /// The snapshots that were copied.
    pub snapshots: Vec<CopiedSnapshot>,
    /// The snapshots of the plan that were not, each with one of the blobs that it lacks.
    pub left: Vec<(SnapshotId, BlobId)>,
    /// The blobs that they lack.
    pub lost: Vec<LostBlob>,
    /// Blobs that were sent.
    pub blobs: u64,
    /// Bytes of the new packs.
    pub stored_bytes: u64,
}

impl Copy {
    /// Leaves a lock in `to`, so that nobody deletes there at once.
    ///
    /// # Errors
    /// `Conflict` with `R0601` while somebody does; what the store says.
    pub fn begin(from: &Repository, to: &Repository) -> Result<Self> {
        let started = host::now();
        let guard = lock::acquire(to, Holder::Backup)?;
        Ok(Self { from: from.clone(), to: to.clone(), guard: Some(guard), started })
    }

    /// For a plan alone: leaves no lock, and [`Copy::apply`] refuses.
    pub fn look(from: &Repository, to: &Repository) -> Self {
        Self { from: from.clone(), to: to.clone(), guard: None, started: host::now() }
    }

    /// Finds what the target lacks.
    ///
    /// # Errors
    /// `NotFound` with `R0211` for an id that no snapshot has; `Cancelled`; what the stores say; `Corrupt` when the target
    /// cannot be built on.
    pub fn plan(&self, choice: &Choice, progress: &Progress) -> Result<CopyPlan> {
        // Both times the snapshots first: a snapshot is written after its index.
        let (known, _damaged) = self.to.readable_snapshots().context("look at the target's snapshots")?;
        let (wanted, mut unreadable) = self.chosen(choice)?;
        let asked = wanted.len();
        let snapshots = missing_snapshots(&known, wanted);
        let (mut target, lost_packs) = self.to.load_index_for_backup().context("load the target's index")?;
        let mut source = self.from.load_readable_index().context("load the source's index")?;
        unreadable.append(&mut source.take_unreadable());
        let roots = snapshots.iter().map(|(_, snapshot)| snapshot.tree);
        let wanted = {
            let trees = walk::Source(&self.from, &source);
            walk::walk(&trees, &source, (&mut target, HashSet::new()), roots, progress)?
        };
        let missing = Share { count: wanted.blobs.len() as u64, size_bytes: wanted.bytes };
        let there = asked - snapshots.len();
        let work = Work { target, wanted };
        Ok(CopyPlan { snapshots, there, missing, unreadable, lost_packs, work })
    }

    fn chosen(&self, choice: &Choice) -> Result<(Vec<Found>, Vec<Error>)> {
        match choice {
            Choice::Components(components) => {
                let (all, damaged) =
                    self.from.readable_snapshots().context("look at the source's snapshots")?;
                let is_chosen = |snapshot: &Snapshot| match snapshot.component() {
                    Some(component) => components.iter().any(|chosen| chosen == component),
                    None => is_manifest(snapshot),
                };
                Ok((all.into_iter().filter(|(_, snapshot)| is_chosen(snapshot)).collect(), damaged))
            }
            Choice::Id(prefix) => {
                let which = super::find::Which::Id(prefix.clone());
                let selector = super::find::Selector { which, ..Default::default() };
                Ok((vec![super::find::snapshot(&self.from, &selector)?], Vec::new()))
            }
        }
    }

    /// Sends what the plan says, then commits each snapshot that is whole.
    ///
    /// # Errors
    /// `Conflict` with `R0405` when what it builds on was pruned meanwhile; `Cancelled`; what the stores say. What was
    /// sent is used by the next copy.
    pub fn apply(self, plan: CopyPlan, progress: &Progress) -> Result<Copied> {
        let Some(guard) = &self.guard else {
            return Err(Error::internal("a copy without a lock"));
        };
        progress.set_total(plan.missing.count, plan.missing.size_bytes);
        let Work { target, wanted } = plan.work;
        let index = RwLock::new(target);
        let packer = Packer::new(self.to.clone());
        let sent = transfer::transfer(&self.from, &packer, &index, wanted, progress)?;
        packer.finish(&index).context("write to the target")?;
        let left = hits::find(&self.from, &plan.snapshots, &sent.failed)?;
        backup::look_again(&self.to, guard, self.started, &index)?;
        drop(index.into_inner().unwrap_or_else(PoisonError::into_inner));
        let mut copied = Copied {
            blobs: sent.blobs,
            stored_bytes: packer.stored_bytes(),
            lost: sent.failed.into_iter().map(|((_, id), error)| LostBlob { id, error }).collect(),
            ..Copied::default()
        };
        for (id, snapshot) in plan.snapshots {
            progress.check(WHAT)?;
            if let Some(blob) = left.get(&id) {
                copied.left.push((id, *blob));
                continue;
            }
            let target = self.to.save_snapshot(&as_copy(id, snapshot)).context("write to the target")?;
            copied.snapshots.push(CopiedSnapshot { source: id, target });
        }
        Ok(copied)
    }
}

/// As restic's `copy` writes it.
fn as_copy(id: SnapshotId, snapshot: Snapshot) -> Snapshot {
    Snapshot { parent: None, original: Some(snapshot.original.unwrap_or(id)), ..snapshot }
}

fn is_manifest(snapshot: &Snapshot) -> bool {
    snapshot.has_tag(crate::format::snapshot::TAG_MANIFEST)
}

/// What makes two snapshots the same: not their tags, which a hold changes, nor who copied them from where.
type Likeness<'a> = (BlobId, Time, &'a str, &'a [String]);

fn likeness(snapshot: &Snapshot) -> Likeness<'_> {
    (snapshot.tree, snapshot.time, &snapshot.hostname, &snapshot.paths)
}

/// Those of `wanted` that are not among `known`; of the snapshots of one manifest only the newest, if there is none.
fn missing_snapshots(known: &[Found], wanted: Vec<Found>) -> Vec<Found> {
    let mut seen: HashSet<Likeness<'_>> = known.iter().map(|(_, snapshot)| likeness(snapshot)).collect();
    let manifests = known.iter().filter(|(_, snapshot)| is_manifest(snapshot));
    let mut manifests: HashSet<&str> =
        manifests.filter_map(|(_, snapshot)| snapshot.manifest_hash()).collect();
    // From the newest on, so that of equal manifests the newest is kept.
    let is_missing: Vec<bool> = wanted
        .iter()
        .rev()
        .map(|(_, snapshot)| {
            let is_new = seen.insert(likeness(snapshot));
            match snapshot.manifest_hash().filter(|_| is_manifest(snapshot)) {
                Some(hash) => manifests.insert(hash) && is_new,
                None => is_new,
            }
        })
        .collect();
    let marked = is_missing.into_iter().rev().collect::<Vec<_>>();
    wanted.into_iter().zip(marked).filter_map(|(found, is_missing)| is_missing.then_some(found)).collect()
}

#[cfg(test)]
mod tests {
    use super::heal::Heal;
    use super::*;
    use crate::format::tree;
    use crate::store::{BlockingStore, ObjectStore};
    use crate::{Folder, blob};
    use retoma_core::{Secret, error::codes};
    use std::sync::Arc;

    fn repository() -> Repository {
        let store = BlockingStore::new(Arc::new(ObjectStore::memory())).unwrap();
        Repository::init(store, &Secret::new("a test".to_owned())).unwrap()
    }

    fn long_ago() -> Time {
        Time(host::now().0 - jiff::SignedDuration::from_hours(24 * 30))
    }

    /// A snapshot of an empty folder.
    fn filled() -> (Repository, SnapshotId) {
        let repository = repository();
        let (packer, index) = (Packer::new(repository.clone()), RwLock::new(Index::default()));
        let json = tree::to_json(&[]).unwrap();
        let (tree, mut sealed) = (BlobId::of(&json), Vec::new());
        let uncompressed = blob::seal(&repository, &json, &mut sealed).unwrap();
        packer.add(&index, BlobKind::Tree, tree, &sealed, uncompressed).unwrap();
        packer.finish(&index).unwrap();
        let id = repository.save_snapshot(&of_tree(tree)).unwrap();
        (repository, id)
    }

    fn of_tree(tree: BlobId) -> Snapshot {
        let json = format!(r#"{{"time":"2026-01-02T03:04:05Z","tree":"{}","paths":["/x"]}}"#, tree.to_hex());
        Snapshot::from_json(json.as_bytes()).unwrap()
    }

    fn lose_packs(repository: &Repository) {
        for (pack, _) in repository.list(Folder::Data).unwrap() {
            repository.store().delete(&repository.pack_key(crate::id::PackId(pack)).unwrap()).unwrap();
        }
    }

    /// Who took so long that its lock may have been taken for a dead one's.
    #[test]
    fn who_took_long_looks_again_whether_what_it_builds_on_is_there() {
        let (source, id) = filled();
        let target = repository();
        let choice = Choice::Id(id.to_hex());
        let progress = Progress::default();
        let first = Copy::begin(&source, &target).unwrap();
        let plan = first.plan(&choice, &progress).unwrap();
        first.apply(plan, &progress).unwrap();
        for (copied, _) in target.snapshots().unwrap() {
            target.store().delete(&Folder::Snapshots.key(&copied.to_hex()).unwrap()).unwrap();
        }
        let mut copy = Copy::begin(&source, &target).unwrap();
        copy.started = long_ago();
        let plan = copy.plan(&choice, &progress).unwrap();
        assert_eq!((plan.snapshots.len(), plan.missing.count), (1, 0));
        lose_packs(&target);
        assert_eq!(copy.apply(plan, &progress).unwrap_err().code(), codes::PRUNED_MEANWHILE);
        assert!(target.snapshots().unwrap().is_empty());
    }

    #[test]
    fn a_repair_that_took_long_looks_again() {
        let ((hurt, _), (whole, _)) = (filled(), filled());
        let progress = Progress::default();
        let mut heal = Heal::begin(&hurt, &whole).unwrap();
        heal.started = long_ago();
        let plan = heal.plan(false, &progress).unwrap();
        lose_packs(&hurt);
        assert_eq!(heal.apply(plan, &progress).unwrap_err().code(), codes::PRUNED_MEANWHILE);
    }
}

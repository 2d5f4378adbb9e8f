//! Backup: a source becomes a snapshot.
//!
//! ```text
//! walk (this thread) ── batches ──▶ workers ── sealed blobs ──▶ packs ──▶ index ──▶ snapshot
//!   compares with the parent          read, cut, hash, dedup,     durable   durable    the commit
//!                                     compress, seal
//! ```
//! Memory is bounded by the queue and the packs in flight, whatever the size of the source. A path that can't be read
//! is named in the result and marks the snapshot as incomplete; an error of the store ends the backup without one.

mod changes;
mod directory;
mod goal;
mod large;
pub(crate) mod packer;
pub mod progress;
mod queue;
pub mod source;
mod walk;
mod worker;

pub use changes::MassChange;
pub use progress::Progress;
pub use source::{Content, Event, Found, Moments, Reader, Source};

use crate::chunk::{self, Chunker};
use crate::format::BlobKind;
use crate::format::snapshot::{Snapshot, TAG_INCOMPLETE, TAG_MASS_CHANGE, TAG_UNTIL};
use crate::format::time::Time;
use crate::format::{lock::Holder, tree::Node};
use crate::host;
use crate::id::{BlobId, SnapshotId};
use crate::index::{Claim, Index};
use crate::lock;
use crate::ops::prune::LostPack;
use crate::repository::{Folder, Repository};
use changes::{Changes, Weight};
use directory::Before;
use packer::Packer;
use queue::Queue;
use retoma_core::decide::mass_change::{self, Limits};
use retoma_core::{Error, ErrorKind, Result, ResultExt, error::codes};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use worker::{Shared, Zeros};

/// What a backup is told.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// What is backed up: absolute paths, as recorded in the snapshot.
    pub paths: Vec<String>,
    /// Tags of the snapshot, without `retoma:incomplete`.
    pub tags: Vec<String>,
    /// The patterns that were left out, for the record.
    pub excludes: Vec<String>,
    /// The host's name in the snapshot; this host's when none is given.
    pub hostname: Option<String>,
    /// The snapshot to compare with; files that are the same as there are not read.
    pub parent: Option<SnapshotId>,
    /// From where on a change is a mass change, which gets its tag; nothing is compared when none is given.
    pub mass_change: Option<Limits>,
    /// Worker threads; as many as cores when none is given.
    pub workers: Option<usize>,
}

/// A path that could not be read, and why.
#[derive(Debug)]
pub struct Unreadable {
    /// The path.
    pub path: Vec<u8>,
    /// The reason.
    pub error: Error,
}

/// What a backup did.
#[derive(Debug)]
pub struct Summary {
    /// The snapshot; durable.
    pub snapshot: SnapshotId,
    /// Its root tree.
    pub tree: BlobId,
    /// Files that were read.
    pub files_read: u64,
    /// Files that were the same as in the parent.
    pub files_unchanged: u64,
    /// Directories.
    pub directories: u64,
    /// Bytes of all files.
    pub total_bytes: u64,
    /// Bytes that were read.
    pub read_bytes: u64,
    /// Bytes that were added to the repository.
    pub stored_bytes: u64,
    /// What could not be read: not empty means that the snapshot is incomplete.
    pub unreadable: Vec<Unreadable>,
    /// What of it looks like mass change; the snapshot has the tag then.
    pub mass_change: Option<MassChange>,
    /// Packs that the index names and that are not there: this snapshot needs none of them, older ones may.
    pub lost_packs: Vec<LostPack>,
}

/// Chunks of large files that wait for a worker, each of 4 MiB at the most. A worker has as many more, which it hashes side by side.
const CHUNKS_WAITING: usize = 4;

/// Backs `source` up.
///
/// # Errors
/// `Conflict` with `R0601` while somebody deletes at once; `Cancelled`; what the store or the source says. In none of
/// these cases is there a snapshot. The source is not asked for anything before the repository's lock is there.
pub fn backup(
    repository: &Repository,
    source: &mut dyn Source,
    options: &Options,
    progress: &Progress,
) -> Result<Summary> {
    backup_since(host::now(), repository, source, options, progress)
}

/// As [`backup`], of one that began at `started`.
fn backup_since(
    started: Time,
    repository: &Repository,
    source: &mut dyn Source,
    options: &Options,
    progress: &Progress,
) -> Result<Summary> {
    // A progress may have counted something else before.
    let (_, counted_before) = progress.done();
    let lock = lock::acquire(repository, Holder::Backup)?;
    let (index, lost_packs) = repository.load_index_for_backup().context("load the index")?;
    let parent = load_parent(repository, &index, options.parent);
    // Another path is another tree.
    let is_same_tree = parent.as_ref().is_some_and(|parent| parent.paths == options.paths);
    let limits = options.mass_change.filter(|_| is_same_tree);
    let changes = limits.map(|_| Changes::default());
    let index = RwLock::new(index);
    let packer = Packer::new(repository.clone());
    let chunker = Chunker::new(repository.key(), chunk::FILES);
    let zeros = zeros(&chunker);
    let (queue, unreadable) = (Queue::new(CHUNKS_WAITING), Mutex::default());
    let (failed, root) = (Mutex::default(), Mutex::default());
    let shared = Shared {
        packer: &packer,
        index: &index,
        chunker: &chunker,
        progress,
        changes: changes.as_ref(),
        queue: &queue,
        unreadable: &unreadable,
        failed: &failed,
        root: &root,
        zeros: &zeros,
    };
    let workers =
        options.workers.or_else(|| std::thread::available_parallelism().ok().map(Into::into)).unwrap_or(2);
    let walked = std::thread::scope(|scope| {
        for worker in 0..workers.max(1) {
            let builder = std::thread::Builder::new().name(format!("backup-{worker}"));
            if let Err(error) = builder.spawn_scoped(scope, || worker::work(&shared)) {
                shared.fail(Error::io("a thread", error));
            }
        }
        let walked = walk::walk(&shared, source, parent.as_ref());
        if walked.is_err() {
            queue.abort();
        }
        queue.end_walk();
        walked
    });
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error);
    }
    let walked = walked?;
    packer.finish(&index)?;
    let tree = root.into_inner().unwrap_or_else(PoisonError::into_inner);
    let tree = tree.ok_or_else(|| Error::internal("the walk ended without a root"))?;
    let mut unreadable: Vec<Unreadable> = unreadable.into_inner().unwrap_or_else(PoisonError::into_inner);
    unreadable.sort_by(|a, b| a.path.cmp(&b.path));
    look_again(repository, &lock, started, &index)?;
    let mass_change = changes.zip(limits).and_then(|(changes, limits)| judge(&changes, &limits));
    let mut snapshot = snapshot(options, started, source.moments(), tree, !unreadable.is_empty());
    if mass_change.is_some() {
        snapshot.tags.push(TAG_MASS_CHANGE.to_owned());
    }
    let snapshot = repository.save_snapshot(&snapshot)?;
    lock.release();
    let read_bytes = progress.done().1.saturating_sub(counted_before);
    Ok(Summary {
        snapshot,
        tree,
        files_read: walked.files_queued,
        files_unchanged: walked.files_unchanged,
        directories: walked.directories,
        total_bytes: walked.unchanged_bytes + read_bytes,
        read_bytes,
        stored_bytes: packer.stored_bytes(),
        unreadable,
        mass_change,
        lost_packs,
    })
}

fn judge(changes: &Changes, limits: &Limits) -> Option<MassChange> {
    let counts = changes.counts();
    let findings = mass_change::findings(&counts, limits);
    (!findings.is_empty()).then_some(MassChange { findings, counts })
}

/// The parent is a help, not a need: when it can't be read, everything is read anew.
fn load_parent(repository: &Repository, index: &Index, id: Option<SnapshotId>) -> Option<walk::Parent> {
    let snapshot = repository.snapshot(id?).ok()?;
    let nodes = repository.read_tree(index, &snapshot.tree).ok()?;
    let root = Before { nodes: Arc::new(nodes), tree: snapshot.tree, position: None };
    Some(walk::Parent { repository: repository.clone(), root, time: snapshot.time, paths: snapshot.paths })
}

fn zeros(chunker: &Chunker) -> Zeros {
    let bytes = chunker.sizes().max_bytes;
    Zeros { bytes: bytes as u64, id: BlobId::of(&vec![0; bytes]) }
}

fn snapshot(
    options: &Options,
    started: Time,
    moments: Option<Moments>,
    tree: BlobId,
    incomplete: bool,
) -> Snapshot {
    let (uid, gid) = host::ids();
    let mut tags = options.tags.clone();
    if incomplete {
        tags.push(TAG_INCOMPLETE.to_owned());
    }
    if let Some(moments) = moments {
        tags.push(format!("{TAG_UNTIL}{}", moments.latest));
    }
    Snapshot {
        time: moments.map_or(started, |moments| Time(moments.earliest)),
        parent: options.parent,
        tree,
        paths: options.paths.clone(),
        hostname: options.hostname.clone().unwrap_or_else(host::hostname),
        username: host::username(),
        uid,
        gid,
        excludes: options.excludes.clone(),
        tags,
        original: None,
    }
}

/// A backup that took so long looks again at what it builds on.
const LONG_SECONDS: i64 = 6 * 3600;

fn is_long(started: Time) -> bool {
    host::now().to_unix().0 - started.to_unix().0 >= LONG_SECONDS
}

/// Who took very long, or whose lock was lost for a while, looks before the commit whether the packs that it builds on
/// are still there.
///
/// # Errors
/// `Conflict` with `R0405` when one is not; what the store says.
pub(crate) fn look_again(
    repository: &Repository,
    lock: &lock::Guard,
    started: Time,
    index: &RwLock<Index>,
) -> Result<()> {
    if lock.has_lapsed() || is_long(started) { check_not_pruned(repository, index) } else { Ok(()) }
}

/// Prune deletes a marked pack only when no backup runs that began before the mark, and looks then again whether
/// somebody uses it. It sees backups by their locks, so this second look is for those that lost theirs.
/// `docs/prune.md`.
fn check_not_pruned(repository: &Repository, index: &RwLock<Index>) -> Result<()> {
    let there: std::collections::HashSet<[u8; 32]> =
        repository.list(Folder::Data)?.into_iter().map(|(id, _)| id).collect();
    let index = index.read().unwrap_or_else(PoisonError::into_inner);
    match index.packs().iter().find(|pack| !there.contains(&pack.0)) {
        None => Ok(()),
        Some(pack) => {
            let message = format!("pack {pack} was pruned meanwhile");
            Err(Error::new(ErrorKind::Conflict, codes::PRUNED_MEANWHILE, message)
                .with_hint("run it again: what it stored so far is used"))
        }
    }
}

/// Hashes `plaintext` and stores it unless it is known; `buffer` is scratch space.
fn store_blob(shared: &Shared<'_>, kind: BlobKind, plaintext: &[u8], buffer: &mut Vec<u8>) -> Result<BlobId> {
    let id = BlobId::of(plaintext);
    if shared.claim(kind, id) == Claim::New {
        directory::store_new(shared, kind, id, plaintext, buffer)?;
    }
    Ok(id)
}

/// Stores a file's contents, whose hash is `id`, unless they are known. Gives how they compress, where that is counted.
fn store_contents(shared: &Shared<'_>, id: BlobId, plaintext: &[u8], buffer: &mut Vec<u8>) -> Result<Weight> {
    if shared.claim(BlobKind::Data, id) == Claim::New {
        directory::store_new(shared, BlobKind::Data, id, plaintext, buffer)?;
        return Ok(Weight::stored(plaintext, buffer));
    }
    let weight = shared.changes.map_or(Weight::default(), |_| {
        Weight::known(&shared.index.read().unwrap_or_else(PoisonError::into_inner), &id)
    });
    Ok(weight)
}

/// Whether a file is the same as in the parent snapshot, by what `stat` tells.
fn is_unchanged(now: &Node, before: &Node, parent_time: Time) -> bool {
    // A change within the clock's tick in which the parent was made may not show: such files are read again.
    let settled = before.ctime.to_unix().0 < parent_time.to_unix().0 - 1;
    settled
        && now.kind == before.kind
        && now.size_bytes == before.size_bytes
        && now.mtime == before.mtime
        && now.ctime == before.ctime
        && now.inode == before.inode
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PackId;
    use crate::store::{BlockingStore, ObjectStore};
    use retoma_core::Secret;

    /// An empty folder; while it is read, all packs go.
    struct Losing(Option<Repository>);

    impl Source for Losing {
        fn next(&mut self) -> Result<Option<Event>> {
            if let Some(repository) = self.0.take() {
                for (pack, _) in repository.list(Folder::Data)? {
                    repository.store().delete(&repository.pack_key(PackId(pack))?)?;
                }
            }
            Ok(None)
        }
    }

    /// What a prune did that took the lock for a dead one's is seen by who ran for hours, and by nobody else.
    #[test]
    fn who_took_long_looks_again_whether_what_it_builds_on_is_there() {
        for (hours, is_seen) in [(0, false), (5, false), (7, true)] {
            let store = BlockingStore::new(Arc::new(ObjectStore::memory())).unwrap();
            let repository = Repository::init(store, &Secret::new("a test".to_owned())).unwrap();
            let (options, progress) = (Options::default(), Progress::default());
            backup(&repository, &mut Losing(None), &options, &progress).unwrap();
            let started = Time(host::now().0 - jiff::SignedDuration::from_hours(hours));
            let mut source = Losing(Some(repository.clone()));
            let done = backup_since(started, &repository, &mut source, &options, &progress);
            let expected = if is_seen { Err(codes::PRUNED_MEANWHILE) } else { Ok(()) };
            assert_eq!(done.map(drop).map_err(|error| error.code()), expected, "{hours} hours");
            assert_eq!(repository.snapshots().unwrap().len(), if is_seen { 1 } else { 2 });
        }
    }
}

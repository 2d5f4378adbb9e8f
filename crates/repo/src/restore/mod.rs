//! Restore: a snapshot, or single paths of it, becomes files again.
//!
//! ```text
//! plan: trees ─▶ entries (compact) ─▶ what is not in the snapshot
//! apply: directories (0700) ─▶ compare what is there ─▶ jobs by pack and offset
//!        readers ── ranges of packs ──▶ workers: open, check, write; a file's last chunk sets its metadata
//!        what the repository lacks: the same from each of its copies, where it has some
//!        hard links ─▶ links, pipes, devices ─▶ directories' modes and times, deepest first ─▶ syncfs
//! ```
//! What holds: bytes are written only after their SHA-256 was checked. A file gets its final time only when all of its
//! bytes are there, so that whoever looks (and the next run) sees what is unfinished. Nothing is written outside the
//! target ([`target`]). A thread syncs the target's file systems while the others write, so that the last sync is short.
//! Memory is bounded by the plan (about 150 bytes an entry) and some 10 ranges of 4 MiB.
//! `docs/restore.md` says what becomes of a file that can't be completed, and what is not protected.

mod files;
mod jobs;
mod layout;
mod lost;
mod meta;
mod other;
mod owners;
mod pipeline;
mod plan;
mod range;
mod run;
mod scan;
mod select;
mod target;
mod trees;

pub use plan::{Plan, plan};
pub use range::FileMap;

use crate::backup::Progress;
use crate::repository::Repository;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use run::Run;
use target::Target;

/// What a restore is told.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Paths inside the snapshot, each with everything below it; everything when there is none.
    pub paths: Vec<Vec<u8>>,
    /// A directory inside the snapshot whose *contents* are placed in the target, or a file that is placed in it.
    pub strip: Option<Vec<u8>>,
    /// The target gets mode, owner and times of the directory that `strip` names. It does so too when it is made.
    pub root_metadata: bool,
    /// Files whose size and mtime are as in the snapshot count as unchanged; otherwise contents are compared.
    pub trust_mtime: bool,
    /// Removes what is not in the snapshot from directories that were restored; see `whole`.
    pub delete_extra: bool,
    /// The directories of which the snapshot has all there was (its `paths`): `delete_extra` acts at and below these,
    /// and not in the directories that only lead there.
    pub whole: Vec<Vec<u8>>,
    /// What decides whose the files are.
    pub owners: OwnersBy,
    /// Paths that are passed over, each with everything below it, as if the snapshot did not have them.
    pub leave_out: Vec<Vec<u8>>,
    /// Threads that open, check and write; as many as cores when none is given.
    pub workers: Option<usize>,
    /// Threads that read from the store; when none is given, few for a local disk and more for a store that is far.
    pub readers: Option<usize>,
}

/// What decides whose a restored file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OwnersBy {
    /// The owner's name, with the number that this machine gives it; the number in the snapshot where it gives none.
    #[default]
    Name,
    /// The number in the snapshot.
    Number,
}

/// Threads that read from a local disk, which gains nothing from more.
const LOCAL_READERS: usize = 2;

/// Threads that read from this repository.
fn readers(options: &Options, repository: &Repository) -> usize {
    let capabilities = repository.store().store().capabilities();
    options.readers.unwrap_or_else(|| capabilities.readers(LOCAL_READERS)).max(1)
}

/// A path that could not be restored, and why.
#[derive(Debug)]
pub struct Unrestored {
    /// The path in the target.
    pub path: Vec<u8>,
    /// The reason.
    pub error: Error,
}

/// What could not be set, and need not be for a restore to count as complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Notes {
    /// Entries whose owner only root could have set.
    pub owners: u64,
    /// Extended attributes that the file system does not have, or that only root may set.
    pub xattrs: u64,
    /// Entries without their set-uid or set-gid bits, because their owner could not be set.
    pub set_ids: u64,
    /// Sockets and what else is not restored.
    pub skipped: u64,
    /// Files whose node gives another size than their blobs; the blobs count.
    pub sizes: u64,
}

/// What a restore did.
#[derive(Debug, Default)]
pub struct Outcome {
    /// Regular files that are complete, hard links among them.
    pub files: u64,
    /// Directories.
    pub directories: u64,
    /// Links, pipes and devices.
    pub others: u64,
    /// Bytes that were written.
    pub bytes_written: u64,
    /// Bytes that were left as holes.
    pub bytes_sparse: u64,
    /// Bytes that were in the target already.
    pub bytes_reused: u64,
    /// Entries of `delete_extra` that were removed, each with what was below it.
    pub extra_deleted: u64,
    /// What could not be restored, sorted by path.
    pub failed: Vec<Unrestored>,
    /// Why the restore stopped early: the target is full, or the store is gone.
    pub stopped: Option<Error>,
    /// Files that were not tried any more after that, sorted.
    pub not_attempted: Vec<Vec<u8>>,
    /// What could not be set and need not be.
    pub notes: Notes,
}

impl Outcome {
    /// Whether everything was restored.
    pub fn is_complete(&self) -> bool {
        self.failed.is_empty() && self.stopped.is_none() && self.not_attempted.is_empty()
    }

    /// What both did, this one before the other.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        let Notes { owners, xattrs, set_ids, skipped, sizes } = other.notes;
        self.files += other.files;
        self.directories += other.directories;
        self.others += other.others;
        self.bytes_written += other.bytes_written;
        self.bytes_sparse += other.bytes_sparse;
        self.bytes_reused += other.bytes_reused;
        self.extra_deleted += other.extra_deleted;
        self.failed.extend(other.failed);
        self.stopped = self.stopped.or(other.stopped);
        self.not_attempted.extend(other.not_attempted);
        self.notes.owners += owners;
        self.notes.xattrs += xattrs;
        self.notes.set_ids += set_ids;
        self.notes.skipped += skipped;
        self.notes.sizes += sizes;
        self
    }
}

/// Carries a plan out. Durable on return: the target's file systems are synced.
///
/// # Errors
/// `Cancelled`: what is there stays, and the next run goes on from it. `NotFound`, `Unauthorized` … about the target as
/// a whole. Everything else is in the [`Outcome`], which the caller must look at.
pub fn apply(plan: Plan<'_>, progress: &Progress) -> Result<Outcome> {
    let target = Target::create(&plan.target).map_err(|error| Error::io(plan.target.display(), error))?;
    let mut run = Run::new(plan, target, progress);
    progress.set_total(run.plan.files(), run.plan.bytes());
    other::delete_extra(&run)?;
    other::make_directories(&mut run)?;
    scan::scan(&run)?;
    pipeline::write(&run)?;
    if progress.is_cancelled() {
        return Err(cancelled());
    }
    run.clean_up();
    other::make_links(&run)?;
    other::finish_directories(&run)?;
    other::sync(&run);
    Ok(run.outcome())
}

fn cancelled() -> Error {
    Error::new(ErrorKind::Cancelled, codes::CANCELLED, "the restore was stopped")
        .with_hint("run it again: what is in the target already is used")
}

//! Verify: examines a repository and tells every damage, with the snapshots that it hits.
//!
//! ```text
//! config, keys, locks, marks ─▶ snapshots ─▶ index files ─▶ packs ─▶ trees ─▶ WAL ─▶ which snapshots need what is damaged
//! ```
//! It never stops at the first damage and believes nothing that it reads. Snapshots are listed before the index and the
//! index before the packs, the reverse of the order in which a backup writes them, so that a backup that runs meanwhile
//! shows no damage. It changes nothing, and does not prove that a snapshot that somebody deleted was ever there: that is
//! what the evidence is for.
//!
//! Memory: the index, a piece of a pack for each worker, about 80 bytes for each directory, and what is damaged.

mod hits;
mod objects;
mod packs;
mod report;
mod suspects;
mod trees;
mod wal;

pub(super) use packs::header_of;
pub use report::{Counts, Finding, Report, Severity, SnapshotHit};

use crate::backup::Progress;
use crate::format::BlobKind;
use crate::format::snapshot::Snapshot;
use crate::id::{BlobId, SnapshotId};
use crate::repository::{Folder, Repository};
use report::Draft;
use retoma_core::{Error, ErrorKind, Result};
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// How much of the packs is read.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum ReadData {
    /// Nothing but directories: the repository's structure.
    #[default]
    None,
    /// Every pack, every blob.
    All,
    /// So many per cent of the packs, chosen anew by each seed; at least one.
    Sample(f64, u64),
}

/// What to examine, and how.
#[derive(Debug, Clone)]
pub struct Options {
    /// How much of the packs is read.
    pub read_data: ReadData,
    /// Threads; two more than cores when none is given, so that some read while others compute.
    pub workers: Option<usize>,
    /// Up to so many paths are named for each snapshot that a finding hits.
    pub paths: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { read_data: ReadData::None, workers: None, paths: 5 }
    }
}

/// Each worker holds a piece of a pack: more of them would cost memory and gain nothing.
const WORKERS_MAX: usize = 10;
/// So many objects that can't be read because the store does not answer end the work: the rest would fail too.
const UNAVAILABLE_MAX: u64 = 100;

/// Examines `repository`. `progress` counts packs and their bytes, and can stop the work.
///
/// Damage is no error: it is in the report.
///
/// # Errors
/// `Cancelled`; `Conflict` with `R0218` when somebody deleted meanwhile, so that what seems damaged may not be;
/// `Unauthorized`, `Unavailable` when the store keeps refusing.
pub fn verify(repository: &Repository, options: &Options, progress: &Progress) -> Result<Report> {
    let run = Run::new(repository, options, progress);
    objects::check_keys(&run)?;
    objects::check_config(&run)?;
    objects::check_locks(&run)?;
    objects::check_marks(&run)?;
    objects::check_recipients(&run)?;
    let snapshots = objects::load_snapshots(&run)?;
    let loaded = objects::load_index(&run)?;
    let listed = objects::list_packs(&run, &loaded)?;
    packs::check(&run, &loaded, &listed)?;
    let walked = trees::check(&run, &loaded, &snapshots.readable)?;
    wal::check(&run)?;
    let state = run.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    if state.drafts.iter().any(|draft| draft.severity == Severity::Damage) {
        objects::check_nobody_deleted(repository, &snapshots, &loaded)?;
    }
    let finder = hits::Finder {
        repository,
        index: &loaded.index,
        snapshots: &snapshots.readable,
        damaged: &state.damaged,
        walked: &walked,
        paths: options.paths,
    };
    let findings = hits::resolve(&finder, state.drafts);
    Ok(Report { findings, counts: state.counts })
}

/// Reads every blob that the index names, and gives those that are whole in no place.
///
/// # Errors
/// `Cancelled`; the store refuses, or does not answer.
pub(super) fn damaged_blobs(
    repository: &Repository,
    progress: &Progress,
) -> Result<HashSet<(BlobKind, BlobId)>> {
    let options = Options { read_data: ReadData::All, ..Options::default() };
    // What is only away is not damaged.
    let run = Run { unavailable_max: 0, ..Run::new(repository, &options, progress) };
    let loaded = objects::load_index(&run)?;
    let listed = objects::list_packs(&run, &loaded)?;
    packs::check(&run, &loaded, &listed)?;
    let state = run.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    Ok(state.damaged.into_keys().collect())
}

/// What all steps share.
struct Run<'a> {
    repository: &'a Repository,
    options: &'a Options,
    progress: &'a Progress,
    unavailable_max: u64,
    state: Mutex<State>,
}

/// What was found so far.
#[derive(Default)]
struct State {
    drafts: Vec<Draft>,
    counts: Counts,
    /// Blobs that can't be had, and the findings (positions in `drafts`) that say so.
    damaged: Damaged,
    unavailable: u64,
}

type Damaged = HashMap<(BlobKind, BlobId), Vec<usize>>;

impl<'a> Run<'a> {
    fn new(repository: &'a Repository, options: &'a Options, progress: &'a Progress) -> Self {
        Self { repository, options, progress, unavailable_max: UNAVAILABLE_MAX, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a finding and gives its number.
    fn add(&self, draft: Draft) -> usize {
        let mut state = self.state();
        state.drafts.push(draft);
        state.drafts.len() - 1
    }

    fn workers(&self) -> usize {
        let cores = std::thread::available_parallelism().map_or(2, Into::into);
        self.options.workers.unwrap_or(cores + 2).clamp(1, WORKERS_MAX)
    }

    /// Whether the work may go on after `error`, which is then part of a finding; otherwise it ends the work.
    fn is_finding(&self, error: Error) -> Result<Error> {
        match error.kind() {
            ErrorKind::Cancelled | ErrorKind::Unauthorized | ErrorKind::Exhausted | ErrorKind::Internal => {
                Err(error)
            }
            ErrorKind::Unavailable => {
                let mut state = self.state();
                state.unavailable += 1;
                if state.unavailable > self.unavailable_max { Err(error) } else { Ok(error) }
            }
            _ => Ok(error),
        }
    }

    fn check_not_cancelled(&self) -> Result<()> {
        self.progress.check("the examination")
    }
}

/// The name of an object as findings show it.
pub(super) fn object_name(folder: Folder, id: [u8; 32]) -> String {
    let id = SnapshotId(id).to_hex();
    folder.key(&id).map_or(id, |key| key.as_str().to_owned())
}

type Snapshots = Vec<(SnapshotId, Snapshot)>;

//! The state of a restore under way: what became of each entry, and what is counted.

use super::layout::{Kind, ROOT};
use super::meta::{Failure, NoteCounts};
use super::plan::Plan;
use super::target::{Clear, Directories, Target, open_file, remove};
use super::{Notes, Outcome, Unrestored, cancelled};
use crate::backup::Progress;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use rustix::fd::OwnedFd;
use rustix::fs::{Timespec, Timestamps, UTIME_NOW, UTIME_OMIT};
use rustix::io::Errno;
use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Bits of an entry's state.
pub(super) mod state {
    /// A directory that we made, so that nothing is in it but what we put there.
    pub(crate) const FRESH: u8 = 1;
    /// A file that was there and is changed in place.
    pub(crate) const EXISTING: u8 = 2;
    /// A file that we have made or begun to change.
    pub(crate) const BEGUN: u8 = 4;
    /// Its contents cannot be completed.
    pub(crate) const FAILED: u8 = 8;
    /// Its contents are complete.
    pub(crate) const DONE: u8 = 16;
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

pub(super) fn into_inner<T>(mutex: Mutex<T>) -> T {
    mutex.into_inner().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Default)]
pub(super) struct Counts {
    pub(super) files: AtomicU64,
    pub(super) directories: AtomicU64,
    pub(super) others: AtomicU64,
    pub(super) written: AtomicU64,
    pub(super) sparse: AtomicU64,
    pub(super) reused: AtomicU64,
    pub(super) deleted: AtomicU64,
}

pub(super) fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

/// A restore under way.
pub(super) struct Run<'a> {
    pub(super) plan: Plan<'a>,
    pub(super) target: Target,
    pub(super) progress: &'a Progress,
    states: Vec<AtomicU8>,
    /// Chunks of each file that are still to be written.
    left: Vec<AtomicU32>,
    /// Chunks that the target has already, a bit each.
    reused: Vec<AtomicU64>,
    failed: Mutex<Vec<(u32, Error)>>,
    stopping: AtomicBool,
    stopped: Mutex<Option<Error>>,
    /// Held by who has all threads look at one file: two at once would be threads by threads.
    pub(super) together: Mutex<()>,
    pub(super) counts: Counts,
    pub(super) notes: NoteCounts,
    /// Whether we may set owners: failures of it count.
    pub(super) privileged: bool,
    /// Other file systems mounted in the target, to be synced.
    pub(super) mounts: HashMap<u64, OwnedFd>,
}

impl<'a> Run<'a> {
    pub(super) fn new(mut plan: Plan<'a>, target: Target, progress: &'a Progress) -> Self {
        let entries = plan.layout.len() as usize;
        let chunks = plan.layout.chunk_count();
        let unreadable = std::mem::take(&mut plan.unreadable);
        let run = Self {
            states: (0..entries).map(|_| AtomicU8::new(0)).collect(),
            left: (0..entries).map(|_| AtomicU32::new(0)).collect(),
            reused: (0..chunks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect(),
            plan,
            target,
            progress,
            failed: Mutex::default(),
            stopping: AtomicBool::new(false),
            stopped: Mutex::default(),
            together: Mutex::default(),
            counts: Counts::default(),
            notes: NoteCounts::default(),
            privileged: rustix::process::geteuid().is_root(),
            mounts: HashMap::new(),
        };
        for (entry, error) in unreadable {
            run.fail(entry, error);
        }
        run
    }

    pub(super) fn directories(&self) -> Directories<'_> {
        Directories::new(&self.plan.layout, &self.target)
    }

    /// What may be removed where something is in the way.
    pub(super) fn clear(&self) -> Clear {
        if self.plan.options.delete_extra { Clear::Everything } else { Clear::Empty }
    }

    pub(super) fn has(&self, entry: u32, bits: u8) -> bool {
        self.states[entry as usize].load(Ordering::Acquire) & bits != 0
    }

    /// Sets bits and tells whether one of them was set before.
    pub(super) fn set(&self, entry: u32, bits: u8) -> bool {
        self.states[entry as usize].fetch_or(bits, Ordering::AcqRel) & bits != 0
    }

    pub(super) fn set_left(&self, entry: u32, chunks: u32) {
        self.left[entry as usize].store(chunks, Ordering::Release);
    }

    /// One chunk less to write; whether that was the last.
    pub(super) fn one_done(&self, entry: u32) -> bool {
        self.left[entry as usize].fetch_sub(1, Ordering::AcqRel) == 1
    }

    pub(super) fn set_reused(&self, chunk: u32) {
        self.reused[chunk as usize / 64].fetch_or(1 << (chunk % 64), Ordering::Relaxed);
    }

    pub(super) fn is_reused(&self, chunk: u32) -> bool {
        self.reused[chunk as usize / 64].load(Ordering::Relaxed) >> (chunk % 64) & 1 == 1
    }

    /// An entry's path as shown to people.
    pub(super) fn shown(&self, entry: u32) -> Vec<u8> {
        self.target.shown(&self.plan.layout.path(entry))
    }

    /// Whether to begin nothing new.
    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed) || self.progress.is_cancelled()
    }

    /// # Errors
    /// `Cancelled`.
    pub(super) fn check_cancelled(&self) -> Result<()> {
        if self.progress.is_cancelled() { Err(cancelled()) } else { Ok(()) }
    }

    /// An entry's contents can't be completed. Only the first reason is kept.
    pub(super) fn fail(&self, entry: u32, error: Error) {
        if !self.set(entry, state::FAILED) {
            lock(&self.failed).push((entry, error));
        }
    }

    /// An entry is there, but something about it is wrong.
    pub(super) fn report(&self, entry: u32, error: Error) {
        lock(&self.failed).push((entry, error));
    }

    pub(super) fn report_metadata(&self, entry: u32, (doing, errno): Failure) {
        self.report(entry, self.error(entry, errno).context(doing));
        self.stop_when_full(entry, errno);
    }

    /// The system refused something about an entry. A full target stops the restore.
    pub(super) fn fail_io(&self, entry: u32, errno: Errno) {
        self.fail(entry, self.error(entry, errno));
        self.stop_when_full(entry, errno);
    }

    fn stop_when_full(&self, entry: u32, errno: Errno) {
        if matches!(errno, Errno::NOSPC | Errno::DQUOT) {
            let path = self.shown(entry);
            let message = format!("the target has no room left at `{}`", path.escape_ascii());
            self.stop(Error::new(ErrorKind::Exhausted, codes::IO_FULL, message).with_hint(
                "free or add space there and run the restore again: what is there already is used",
            ));
        }
    }

    /// Nothing new is begun.
    pub(super) fn stop(&self, error: Error) {
        lock(&self.stopped).get_or_insert(error);
        self.stopping.store(true, Ordering::Relaxed);
    }

    pub(super) fn error(&self, entry: u32, errno: Errno) -> Error {
        let path = self.shown(entry);
        let path = path.escape_ascii();
        match errno {
            Errno::LOOP | Errno::NOTDIR => {
                let message = format!("`{path}` would be restored through a link or a file");
                Error::new(ErrorKind::Conflict, codes::RESTORE_OUTSIDE, message).with_hint(
                    "somebody changed the target while it was restored; stop that and run the restore again",
                )
            }
            Errno::NOTEMPTY | Errno::EXIST | Errno::ISDIR => {
                let message = format!("a directory with something in it is in the way at `{path}`");
                Error::new(ErrorKind::Conflict, codes::RESTORE_TARGET, message)
                    .with_hint("move it away, or ask for what is not in the snapshot to be removed")
            }
            errno => Error::io(path, errno.into()),
        }
    }

    /// Takes care of files that are not complete: what we made goes, and what was there gets the time of now, so that
    /// nobody takes it for what the snapshot has.
    pub(super) fn clean_up(&self) {
        let mut directories = self.directories();
        for (number, entry) in self.plan.layout.iter() {
            if entry.kind != Kind::File || self.has(number, state::DONE) {
                continue;
            }
            let (existing, begun) = (self.has(number, state::EXISTING), self.has(number, state::BEGUN));
            let name = self.plan.layout.name(number);
            let Ok(at) = directories.around(number) else { continue };
            let cleaned = if existing {
                open_file(&*at, name).and_then(|(file, _)| rustix::fs::futimens(file, &now()))
            } else if begun {
                remove(&*at, name, Clear::Empty)
            } else {
                Ok(())
            };
            if let Err(errno) = cleaned {
                self.report(number, self.error(number, errno).context("take back an incomplete file"));
            }
        }
    }

    /// The end: everything that is counted and listed.
    pub(super) fn outcome(self) -> Outcome {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut not_attempted = Vec::new();
        for (number, entry) in self.plan.layout.iter() {
            let expected = number != ROOT && entry.kind != Kind::Directory;
            if expected && !self.has(number, state::DONE | state::FAILED) {
                not_attempted.push(self.shown(number));
            }
        }
        not_attempted.sort();
        let failed = std::mem::take(&mut *lock(&self.failed));
        let mut failed: Vec<Unrestored> =
            failed.into_iter().map(|(entry, error)| Unrestored { path: self.shown(entry), error }).collect();
        failed.sort_by(|a, b| a.path.cmp(&b.path));
        Outcome {
            files: count(&self.counts.files),
            directories: count(&self.counts.directories),
            others: count(&self.counts.others),
            bytes_written: count(&self.counts.written),
            bytes_sparse: count(&self.counts.sparse),
            bytes_reused: count(&self.counts.reused),
            extra_deleted: count(&self.counts.deleted),
            failed,
            stopped: into_inner(self.stopped),
            not_attempted,
            notes: Notes {
                owners: count(&self.notes.owners),
                xattrs: count(&self.notes.xattrs),
                set_ids: count(&self.notes.set_ids),
                ..self.plan.notes
            },
        }
    }
}

fn now() -> Timestamps {
    let spec = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    Timestamps { last_access: spec(UTIME_OMIT), last_modification: spec(UTIME_NOW) }
}

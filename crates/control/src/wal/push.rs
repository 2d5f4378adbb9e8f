//! `archive_command`: a file of `pg_wal` into every repository of its component.
//!
//! The first push in a row takes those that wait behind it along, in parallel, and acknowledges each *after* it is durable
//! everywhere. It is stored before them: when it is refused, because another server of the same identity writes there, none of them
//! may take a free name behind it; the pushes that follow find that, ask each store whether the object is there, and end without a key.
//! Before WAL of a timeline come the histories that lead to it, where the server has them ([`histories`]).

use super::spool::{Ahead, FileId, Spool};
use super::{Job, cores, file_name, histories, no_wal_file, server, threads};
use crate::open;
use retoma_core::manifest;
use retoma_core::postgres::{SegmentName, WalFileName};
use retoma_core::{Error, ErrorKind, Result, ResultExt as _, error::codes};
use retoma_repo::wal::{self, Archive, Pushed, WalObject};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// So many segments are taken along at most: bounds how long PostgreSQL waits for its answer.
const AHEAD: usize = 32;

/// How a file got to be durable in every repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// It was stored now.
    New,
    /// Every repository had it already, with the same contents.
    Same,
    /// An earlier push took it along.
    Ahead,
}

/// What a push did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushReport {
    /// The file's name.
    pub name: WalFileName,
    /// The server.
    pub system_identifier: u64,
    /// How it is stored.
    pub stored: Stored,
    /// How many waiting segments were taken along.
    pub ahead: usize,
}

/// Pushes the file at `path`, as `archive_command` names it. Durable in every repository on return.
///
/// # Errors
/// `Corrupt` with `R0421` for what is not what its name says; `Conflict` with `R0422` when it is stored with other
/// contents, or when the history of its timeline is; `Invalid` with `R0420` when nothing tells the server; what a repository says. PostgreSQL then tries again.
pub fn push(job: &Job, path: &Path) -> Result<PushReport> {
    let name: WalFileName = file_name(path).parse().map_err(|_| no_wal_file(file_name(path)))?;
    push_file(job, path, name).with_context(|| format!("archive `{name}`"))
}

fn push_file(job: &Job, path: &Path, name: WalFileName) -> Result<PushReport> {
    let system_identifier = match job.system_identifier {
        Some(given) => given,
        None => which_server(path, name)?,
    };
    let report = |stored, ahead| PushReport { name, system_identifier, stored, ahead };
    let spool = job.spool(system_identifier);
    if let (Some(spool), WalFileName::Segment(segment)) = (&spool, name)
        && let Ok(metadata) = path.metadata()
        && spool.is_acknowledged(segment, FileId::from(&metadata))
    {
        spool.forget(segment);
        if is_everywhere(job, name, system_identifier) {
            return Ok(report(Stored::Ahead, 0));
        }
    }
    let right = spool.as_ref().and_then(|spool| Some((spool, spool.try_ahead()?)));
    let mut files = vec![Waiting { path: path.to_owned(), name }];
    if right.is_some() {
        files.extend(waiting(path, name));
    }
    let archives = open_all(job, system_identifier)?;
    let pushed = Batch::new(&archives, right.as_ref(), files).run()?;
    Ok(report(pushed.own, pushed.ahead))
}

/// Whether every repository still has an object of this name: somebody may have replaced a repository since it was
/// acknowledged. To ask takes neither password nor key.
fn is_everywhere(job: &Job, name: WalFileName, system_identifier: u64) -> bool {
    let has = |repository: &manifest::Repository| -> Result<()> {
        let key = WalObject::File(name).key(&job.component, system_identifier)?;
        open::open_store(&open::address(repository)?)?.head(&key).map(drop)
    };
    job.repositories.iter().all(|repository| has(repository).is_ok())
}

fn which_server(path: &Path, name: WalFileName) -> Result<u64> {
    if let Some(known) = server::of_data_directory(path)? {
        return Ok(known);
    }
    let of_itself = match name {
        WalFileName::Segment(_) | WalFileName::Partial(_) => server::of_segment(path)?,
        WalFileName::Backup { .. } | WalFileName::History(_) => None,
    };
    of_itself.ok_or_else(|| server::unknown(path))
}

/// All archives of the job, opened at once: to derive a key takes a tenth of a second.
fn open_all(job: &Job, system_identifier: u64) -> Result<Vec<Archive>> {
    std::thread::scope(|scope| {
        let open = |repository| scope.spawn(move || job.open(repository, system_identifier));
        let opening: Vec<_> = job.repositories.iter().map(open).collect();
        let opened = opening.into_iter().map(|thread| {
            thread
                .join()
                .unwrap_or_else(|_| Err(Error::internal("a thread that opens a repository panicked")))
        });
        opened.collect()
    })
}

/// A file that waits to be archived.
#[derive(Debug)]
struct Waiting {
    path: PathBuf,
    name: WalFileName,
}

/// The segments that the server has marked as finished beside `own`, oldest first.
fn waiting(path: &Path, own: WalFileName) -> Vec<Waiting> {
    let Some(folder) = path.parent() else { return Vec::new() };
    let entries = std::fs::read_dir(folder.join("archive_status")).into_iter().flatten().flatten();
    let ready = entries.filter_map(|entry| {
        let name = entry.file_name();
        name.to_str()?.strip_suffix(".ready")?.parse::<SegmentName>().ok()
    });
    let others: BTreeSet<SegmentName> =
        ready.filter(|segment| WalFileName::Segment(*segment) != own).collect();
    let waiting = |segment: SegmentName| Waiting {
        path: folder.join(segment.to_string()),
        name: WalFileName::Segment(segment),
    };
    others.into_iter().take(AHEAD).map(waiting).collect()
}

/// One push: the file that was asked for, then those that are taken along.
struct Batch<'a> {
    archives: &'a [Archive],
    right: Option<&'a (&'a Spool, Ahead)>,
    files: Vec<Waiting>,
    next: AtomicUsize,
    ahead: AtomicUsize,
    /// Nothing more is begun.
    is_stopped: AtomicBool,
}

/// A file that is durable in every repository.
struct Kept {
    stored: Stored,
    /// Whether a repository had it already.
    was_there: bool,
    id: FileId,
}

struct Done {
    own: Stored,
    ahead: usize,
}

impl<'a> Batch<'a> {
    fn new(archives: &'a [Archive], right: Option<&'a (&'a Spool, Ahead)>, files: Vec<Waiting>) -> Self {
        Self {
            archives,
            right,
            files,
            next: AtomicUsize::new(1),
            ahead: AtomicUsize::new(0),
            is_stopped: AtomicBool::new(false),
        }
    }

    fn run(mut self) -> Result<Done> {
        self.store_histories()?;
        if let Some((spool, right)) = self.right {
            let names = self.files.iter().skip(1).filter_map(segment);
            spool.keep_acknowledgements(right, &names.collect());
            // A server that archives does not recover.
            spool.keep(right, &BTreeSet::new());
        }
        let Some(first) = self.files.first() else { return Err(Error::internal("a push of nothing")) };
        // Alone: what another server of the same identity left may refuse it, and then nothing behind it belongs there either.
        let own = self.store(cores(), first, &mut Vec::new())?;
        // Where somebody was before us, the next one may be refused too, so nothing overtakes another there.
        let at_once = if own.was_there { 1 } else { threads(own.id.size_bytes()) };
        std::thread::scope(|scope| {
            for _ in 1..at_once.min(self.files.len()) {
                scope.spawn(|| self.work());
            }
            self.work();
        });
        Ok(Done { own: own.stored, ahead: self.ahead.into_inner() })
    }

    /// Before the WAL, the histories that lead to it. What was to be taken along and has a timeline for which that fails is left
    /// to its own push, and so is the WAL of a timeline whose history is what is pushed.
    fn store_histories(&mut self) -> Result<()> {
        let (archives, Some(own)) = (self.archives, self.files.first()) else { return Ok(()) };
        let folder = own.path.parent().unwrap_or(Path::new("")).to_owned();
        let (name, timeline) = (own.name, own.name.timeline());
        let is_history = matches!(name, WalFileName::History(_));
        if is_history {
            histories::store_before(archives, &folder, timeline)?;
        } else {
            histories::store(archives, &folder, timeline)?;
        }
        let mut is_led_to = BTreeMap::from([(timeline, !is_history)]);
        self.files.retain(|file| {
            let timeline = file.name.timeline();
            let leads = || histories::store(archives, &folder, timeline).is_ok();
            file.name == name || *is_led_to.entry(timeline).or_insert_with(leads)
        });
        Ok(())
    }

    fn work(&self) {
        let mut buffer = Vec::new();
        while !self.is_stopped.load(Ordering::Relaxed) {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = self.files.get(at) else { return };
            // Whatever is wrong with one that was taken along, its own push will say so.
            let Ok(kept) = self.store(1, file, &mut buffer) else {
                self.is_stopped.store(true, Ordering::Relaxed);
                return;
            };
            if let (Some((spool, right)), Some(segment)) = (self.right, segment(file))
                && spool.acknowledge(right, segment, kept.id).is_ok()
            {
                self.ahead.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Stores one file in every repository, on up to `threads` threads.
    fn store(&self, threads: usize, file: &Waiting, buffer: &mut Vec<u8>) -> Result<Kept> {
        let id = read(&file.path, buffer)?;
        let mut kept = Kept { stored: Stored::Same, was_there: false, id };
        for archive in self.archives {
            match archive.push_on(threads, file.name, buffer)? {
                Pushed::New => {
                    // A disk that was taken away meanwhile leaves an empty mount point, which takes anything.
                    archive.confirm_repository()?;
                    kept.stored = Stored::New;
                }
                Pushed::Same => kept.was_there = true,
            }
        }
        Ok(kept)
    }
}

fn segment(file: &Waiting) -> Option<SegmentName> {
    match file.name {
        WalFileName::Segment(segment) => Some(segment),
        _ => None,
    }
}

/// Reads a file into `buffer`, whose memory is used again, and tells which file it was.
fn read(path: &Path, buffer: &mut Vec<u8>) -> Result<FileId> {
    let failed = |error| Error::io(path.display(), error);
    let file = File::open(path).map_err(failed)?;
    let id = FileId::of(&file).map_err(failed)?;
    let length = usize::try_from(id.size_bytes()).unwrap_or(usize::MAX);
    if length > wal::LIMIT_BYTES {
        let message = format!("`{}` has `{length}` bytes, more than any WAL file", path.display());
        return Err(Error::new(ErrorKind::Corrupt, codes::WAL_MALFORMED, message));
    }
    buffer.clear();
    buffer.reserve_exact(length);
    (&file).take(id.size_bytes() + 1).read_to_end(buffer).map_err(failed)?;
    if FileId::of(&file).map_err(failed)? == id && buffer.len() == length {
        return Ok(id);
    }
    let message = format!("`{}` changed while it was read", path.display());
    Err(Error::new(ErrorKind::Unavailable, codes::SOURCE_CHANGED, message)
        .with_hint("name files that the server has finished, as `archive_command` does"))
}

#[cfg(test)]
mod tests;

//! `archive_command`: a file of `pg_wal` into every repository of its component.
//!
//! The first push in a row takes those that wait behind it along, in parallel, and acknowledges each *after* it is durable
//! everywhere; the pushes that follow find that, ask each store whether the object is there, and end without a key.

use super::spool::{Ahead, FileId, Spool};
use super::{Job, file_name, no_wal_file, server, threads};
use crate::open;
use retoma_core::manifest;
use retoma_core::postgres::{SegmentName, WalFileName};
use retoma_core::{Error, ErrorKind, Result, ResultExt as _, error::codes};
use retoma_repo::wal::{self, Archive, Pushed, WalObject};
use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
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
/// contents; `Invalid` with `R0420` when nothing tells the server; what a repository says. PostgreSQL then tries again.
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
    own: Mutex<Option<Result<Stored>>>,
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
            next: AtomicUsize::new(0),
            ahead: AtomicUsize::new(0),
            is_stopped: AtomicBool::new(false),
            own: Mutex::default(),
        }
    }

    fn run(self) -> Result<Done> {
        if let Some((spool, right)) = self.right {
            let names = self.files.iter().skip(1).filter_map(segment);
            spool.keep_acknowledgements(right, &names.collect());
            // A server that archives does not recover.
            spool.keep(right, &BTreeSet::new());
        }
        let size_bytes =
            self.files.first().and_then(|file| file.path.metadata().ok()).map_or(0, |file| file.len());
        std::thread::scope(|scope| {
            for _ in 1..threads(size_bytes).min(self.files.len()) {
                scope.spawn(|| self.work());
            }
            self.work();
        });
        let own = self.own.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        let own = own.unwrap_or_else(|| Err(Error::internal("a push ended without an answer")))?;
        Ok(Done { own, ahead: self.ahead.into_inner() })
    }

    fn work(&self) {
        let mut buffer = Vec::new();
        while !self.is_stopped.load(Ordering::Relaxed) {
            let at = self.next.fetch_add(1, Ordering::Relaxed);
            let Some(file) = self.files.get(at) else { return };
            let result = self.store(file, &mut buffer);
            // Whatever is wrong with one that was taken along, its own push will say so.
            self.is_stopped.fetch_or(result.is_err(), Ordering::Relaxed);
            if at == 0 {
                let mut own = self.own.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
                *own = Some(result.map(|(stored, _)| stored));
            } else if let (Ok((_, id)), Some((spool, right)), Some(segment)) =
                (result, self.right, segment(file))
                && spool.acknowledge(right, segment, id).is_ok()
            {
                self.ahead.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// Stores one file in every repository.
    fn store(&self, file: &Waiting, buffer: &mut Vec<u8>) -> Result<(Stored, FileId)> {
        let id = read(&file.path, buffer)?;
        let mut stored = Stored::Same;
        for archive in self.archives {
            if archive.push(file.name, buffer)? == Pushed::New {
                stored = Stored::New;
            }
        }
        Ok((stored, id))
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

//! `restore_command`: a file out of the archive to where PostgreSQL wants it.
//!
//! "Not in the archive" ends a recovery, so it is said only when every repository was asked and has neither the file nor
//! parts of it. While it is at it, a fetch fetches the segments that will be asked for next.

use super::spool::{Ahead, Spool};
use super::{Job, cores, no_wal_file, server, threads};
use crate::durable;
use retoma_core::postgres::{SegmentName, SegmentSize, WalFileName};
use retoma_core::{Error, ErrorKind, Result, ResultExt as _};
use retoma_repo::wal::{Archive, Assembled};
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

/// So many segments are fetched ahead at most …
const AHEAD: u64 = 16;
/// … and so many bytes.
const AHEAD_BYTES: u64 = 256 << 20;

/// Where a file came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// The repository.
    Repository,
    /// Parts of an unfinished segment, laid together; zeros behind them.
    Parts,
    /// The spool: an earlier call had fetched it.
    Spool,
}

/// What a fetch did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// The file's name.
    pub name: WalFileName,
    /// The server.
    pub system_identifier: u64,
    /// Where it came from; `None` when it is not in the archive. Only then `target` was not written.
    pub source: Option<Source>,
    /// How many segments were fetched ahead.
    pub ahead: usize,
}

/// Fetches `name` to `target`, a place in the `pg_wal` of the server that recovers: whole or not at all, under its name in one
/// step, and not synced: after a crash of the machine the server begins its recovery anew and asks again, and what it keeps
/// of the archive it syncs itself (`KeepFileRestoredFromArchive`).
///
/// # Errors
/// Whenever it cannot be known whether the file is in the archive, or it cannot be written: `Corrupt` with `R0203` or
/// `R0421`, `Invalid` with `R0420` when nothing tells the server, `Unavailable`; what a repository says.
pub fn fetch(job: &Job, name: &str, target: &Path) -> Result<Fetched> {
    let name: WalFileName = name.parse().map_err(|_| no_wal_file(name))?;
    fetch_file(job, name, target).with_context(|| format!("fetch `{name}`"))
}

fn fetch_file(job: &Job, name: WalFileName, target: &Path) -> Result<Fetched> {
    let given = match job.system_identifier {
        Some(given) => Some(given),
        None => server::of_data_directory(target)?,
    };
    let system_identifier = given.ok_or_else(|| server::unknown(target))?;
    let done = |source, ahead| Fetched { name, system_identifier, source, ahead };
    let spool = job.spool(system_identifier);
    if let (Some(spool), WalFileName::Segment(segment)) = (&spool, name)
        && spool.take(segment, target)?
    {
        return Ok(done(Some(Source::Spool), 0));
    }
    let archives = job.repositories.iter().map(|repository| job.open(repository, system_identifier));
    let whole = |archive: &Archive| {
        durable::fill_unsynced(target, durable::PRIVATE, |file| {
            archive.fetch_in_parts(name, cores(), &|at, part| write_at(file, at, part, target))
        })
    };
    let assembled = |bytes: Vec<u8>| {
        durable::write_unsynced(target, &bytes, durable::PRIVATE).map(|()| bytes.len() as u64)
    };
    let Some((archive, length, source)) = look_everywhere(archives, name, whole, assembled)? else {
        return Ok(done(None, 0));
    };
    let mut ahead = 0;
    if let (Some(spool), WalFileName::Segment(segment), Source::Repository) = (&spool, name, source)
        && let Ok(size) = SegmentSize::new(length)
        && let Some(right) = spool.try_ahead()
    {
        ahead = fetch_ahead(&archive, spool, &right, segment, size);
    }
    Ok(done(Some(source), ahead))
}

fn write_at(file: &File, at: u64, part: &[u8], target: &Path) -> Result<()> {
    file.write_all_at(part, at).map_err(|error| Error::io(target.display(), error))
}

/// Asks one repository after the other, until one has it: `whole` takes it from there, `assembled` what parts of it give. `None` only when
/// all have answered that they have not.
pub(crate) fn look_everywhere<T>(
    asked: impl Iterator<Item = Result<Archive>>,
    name: WalFileName,
    whole: impl Fn(&Archive) -> Result<Option<T>>,
    assembled: impl Fn(Vec<u8>) -> Result<T>,
) -> Result<Option<(Archive, T, Source)>> {
    let (mut failed, mut archives) = (None, Vec::new());
    for archive in asked {
        let looked = archive.and_then(|archive| {
            let found = whole(&archive)?;
            Ok((archive, found))
        });
        match looked {
            Ok((archive, Some(found))) => return Ok(Some((archive, found, Source::Repository))),
            Ok((archive, None)) => archives.push(archive),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    let WalFileName::Segment(segment) = name else { return Ok(None) };
    let Some((archive, bytes, source)) = longest(archives, segment)? else { return Ok(None) };
    assembled(bytes).map(|found| Some((archive, found, source)))
}

/// What parts give, in the repository that has the most of them: a whole one is nowhere.
fn longest(archives: Vec<Archive>, segment: SegmentName) -> Result<Option<(Archive, Vec<u8>, Source)>> {
    let mut best: Option<(Archive, Assembled)> = None;
    for archive in archives {
        match archive.assemble(segment) {
            Ok(Some(found)) if best.as_ref().is_none_or(|(_, best)| best.known_bytes < found.known_bytes) => {
                best = Some((archive, found));
            }
            Ok(_) => {}
            // Parts go only when the whole is there.
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let bytes = archive.fetch(WalFileName::Segment(segment))?.ok_or(error)?;
                return Ok(Some((archive, bytes, Source::Repository)));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(best.map(|(archive, found)| (archive, found.bytes, Source::Parts)))
}

/// Fetches the segments behind `segment` into the spool, in parallel, until one is not there. What goes wrong is left to
/// the call that asks for it.
fn fetch_ahead(
    archive: &Archive,
    spool: &Spool,
    right: &Ahead,
    segment: SegmentName,
    size: SegmentSize,
) -> usize {
    let wanted = following(segment, size, AHEAD, AHEAD_BYTES);
    let names: BTreeSet<SegmentName> = wanted.iter().copied().collect();
    spool.keep(right, &names);
    let fetch_one = |name: SegmentName| -> Result<bool> {
        spool.put(right, name, |take| archive.fetch_in_parts(WalFileName::Segment(name), 1, take))
    };
    in_parallel(&wanted, size, |name| {
        if spool.has(name) { Some(false) } else { fetch_one(name).ok().filter(|is_there| *is_there) }
    })
}

/// The segments behind `segment`: so many, and so many bytes.
pub(super) fn following(
    segment: SegmentName,
    size: SegmentSize,
    count: u64,
    limit_bytes: u64,
) -> Vec<SegmentName> {
    let count = count.min(limit_bytes / size.bytes());
    let following = std::iter::successors(segment.next(size), |segment| segment.next(size));
    following.take(usize::try_from(count).unwrap_or_default()).collect()
}

/// Does `fetch_one` for all, in order, in as many threads as are good for segments of this size, until one gives `None`: what
/// follows is not there either. Gives how many were fetched (`Some(true)`).
pub(super) fn in_parallel(
    wanted: &[SegmentName],
    size: SegmentSize,
    fetch_one: impl Fn(SegmentName) -> Option<bool> + Sync,
) -> usize {
    let (next, fetched, is_stopped) = (AtomicUsize::new(0), AtomicUsize::new(0), AtomicBool::new(false));
    let work = || {
        while !is_stopped.load(Ordering::Relaxed) {
            let Some(name) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) else { return };
            match fetch_one(*name) {
                Some(is_new) => fetched.fetch_add(usize::from(is_new), Ordering::Relaxed),
                None => return is_stopped.store(true, Ordering::Relaxed),
            };
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads(size.bytes()).min(wanted.len()) {
            scope.spawn(work);
        }
        work();
    });
    fetched.into_inner()
}

impl Fetched {
    /// Whether it is in the archive.
    pub fn is_found(&self) -> bool {
        self.source.is_some()
    }
}

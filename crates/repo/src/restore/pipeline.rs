//! Reading and writing: readers fetch ranges of packs, workers open the blobs in them and write. First from the repository, then,
//! in further rounds of the same, what it lacks from its copies.

use super::files::{OpenFiles, write_chunk};
use super::jobs::{self, Jobs, PackRange, Reach};
use super::lost::{Lost, same_error};
use super::other;
use super::run::{Run, lock, state};
use super::target::Directories;
use crate::blob;
use crate::copies::{AWAY, Copies, is_away};
use crate::format::BlobKind;
use crate::format::pack::PackedBlob;
use crate::id::PackId;
use crate::index::Index;
use crate::memory::Reuse;
use crate::repository::Repository;
use bytes::Bytes;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Ranges that wait for a worker.
const WAITING: usize = 2;
/// So many reads in a row that fail because the store is away end the restore where there are no copies; each was retried below us.
const STORE_FAILURES: u32 = 8;
/// After so many bytes the target's file systems are synced while the work goes on.
const FLUSH_BYTES: u64 = 768 << 20;

type Fetched = (PackRange, Result<Bytes>);

/// Number of worker threads.
pub(super) fn workers(run: &Run<'_>) -> usize {
    let cores = || std::thread::available_parallelism().ok().map(Into::into);
    run.plan.options.workers.or_else(cores).unwrap_or(2).max(1)
}

/// Where a round reads.
struct Round<'a> {
    repository: &'a Repository,
    index: &'a Index,
    /// The copies, where there are some, and which of them this is; `None` for the repository itself.
    copies: Option<(&'a Copies, Option<usize>)>,
}

/// Reads and writes everything.
///
/// # Errors
/// `Cancelled`; `Exhausted` when the system gives no threads.
pub(super) fn write(run: &Run<'_>) -> Result<()> {
    jobs::count_left(run);
    let (repository, index) = (run.plan.repository, run.plan.index);
    let copies = repository.copies();
    let lost = Lost::default();
    let mut left = if copies.is_some_and(Copies::own_is_given_up) {
        jobs::wanted(run).collect()
    } else {
        let own = Round { repository, index, copies: copies.map(|copies| (copies, None)) };
        read_round(run, &own, jobs::wanted(run), &lost)?
    };
    for (copies, at) in copies.into_iter().flat_map(|copies| (0..copies.len()).map(move |at| (copies, at))) {
        if left.is_empty() || run.is_stopping() {
            break;
        }
        let Some((repository, index)) = copies.get(at) else { continue };
        let copy = Round { repository, index, copies: Some((copies, Some(at))) };
        left = read_round(run, &copy, left.into_iter(), &lost)?;
    }
    run.check_cancelled()?;
    lost.settle(run, &left);
    Ok(())
}

/// Reads and writes what one repository has of `chunks`; gives those that are left.
fn read_round(
    run: &Run<'_>,
    round: &Round<'_>,
    chunks: impl Iterator<Item = u32>,
    lost: &Lost,
) -> Result<Vec<u32>> {
    let reach = Reach::of(round.repository.store().store().capabilities());
    let (jobs, unknown) = jobs::sort(&run.plan.layout, round.index, chunks, reach);
    let readers = super::readers(&run.plan.options, round.repository);
    let (sender, receiver) = sync_channel::<Fetched>(WAITING);
    let (flush, flushes) = sync_channel::<()>(1);
    let shared = Shared {
        round,
        lost,
        receiver: Mutex::new(receiver),
        open: OpenFiles::default(),
        reuse: Reuse::begin(),
        away: AtomicU32::new(0),
        is_over: AtomicBool::new(false),
        flushed_bytes: AtomicU64::new(0),
    };
    let failed = Mutex::new(None);
    let started = |thread: std::io::Result<_>| {
        if let Err(error) = thread {
            lock(&failed).get_or_insert(Error::io("a thread", error));
        }
    };
    std::thread::scope(|scope| {
        for reader in 0..readers {
            let builder = std::thread::Builder::new().name(format!("restore-read-{reader}"));
            let (sender, shared, jobs) = (sender.clone(), &shared, &jobs);
            started(builder.spawn_scoped(scope, move || read(run, shared, jobs, &sender)).map(drop));
        }
        drop(sender);
        let builder = std::thread::Builder::new().name("restore-sync".to_owned());
        let sync = move || flushes.iter().for_each(|()| other::sync(run));
        started(builder.spawn_scoped(scope, sync).map(drop));
        for worker in 1..workers(run) {
            let builder = std::thread::Builder::new().name(format!("restore-{worker}"));
            let worker = Worker::new(run, &shared, flush.clone());
            started(builder.spawn_scoped(scope, || worker.work()).map(drop));
        }
        // This thread is a worker too: what was read is taken even if the system gives no more threads.
        Worker::new(run, &shared, flush).work();
    });
    run.check_cancelled()?;
    lock(&failed).take().map_or(Ok(()), Err)?;
    let mut left = lost.take();
    left.extend(unknown);
    if shared.is_over.into_inner() {
        left.extend(jobs.into_rest());
    }
    Ok(left)
}

fn read(run: &Run<'_>, shared: &Shared<'_>, jobs: &Jobs, sender: &SyncSender<Fetched>) {
    let Round { repository, index, .. } = shared.round;
    while !run.is_stopping() && !shared.is_over.load(Ordering::Relaxed) {
        let Some(range) = jobs.next(&run.plan.layout, index) else { return };
        let key = repository.pack_key(range.pack);
        let bytes = key.and_then(|key| repository.store().get_range(&key, range.bytes.clone()));
        if sender.send((range, bytes)).is_err() {
            return;
        }
    }
}

/// What workers have in common.
struct Shared<'a> {
    round: &'a Round<'a>,
    lost: &'a Lost,
    receiver: Mutex<Receiver<Fetched>>,
    open: OpenFiles,
    reuse: Reuse,
    /// Reads in a row that failed because the store is away.
    away: AtomicU32,
    /// The store is away, and the next round goes on.
    is_over: AtomicBool,
    /// Up to here what was written is on the disk or on its way.
    flushed_bytes: AtomicU64,
}

/// One that opens, checks and writes.
struct Worker<'a> {
    run: &'a Run<'a>,
    shared: &'a Shared<'a>,
    /// Wakes the thread that syncs.
    flush: SyncSender<()>,
    directories: Directories<'a>,
    /// For what is expanded, used again for each blob.
    expanded: Vec<u8>,
}

impl<'a> Worker<'a> {
    fn new(run: &'a Run<'a>, shared: &'a Shared<'a>, flush: SyncSender<()>) -> Self {
        Self { run, shared, flush, directories: run.directories(), expanded: Vec::new() }
    }

    fn work(mut self) {
        loop {
            let received = lock(&self.shared.receiver).recv();
            let Ok((range, bytes)) = received else { return };
            // What was read already is dropped, so that readers don't wait for ever.
            if self.run.is_stopping() {
                continue;
            }
            match bytes {
                Ok(bytes) => {
                    self.shared.away.store(0, Ordering::Relaxed);
                    let bytes = self.write_range(&range, bytes.into());
                    self.shared.reuse.give_back(bytes);
                    self.flush_now_and_then();
                }
                Err(error) => self.read_one_by_one(&range, error),
            }
        }
    }

    /// `bytes` are those of the range; blobs are opened in them. Gives the buffer back.
    fn write_range(&mut self, range: &PackRange, mut bytes: Vec<u8>) -> Vec<u8> {
        let repository = self.shared.round.repository;
        let place = |blob: &PackedBlob| {
            let start =
                usize::try_from(u64::from(blob.offset_bytes) - range.bytes.start).unwrap_or(usize::MAX);
            start..start.saturating_add(blob.length_bytes as usize)
        };
        let mut rest = &range.blobs[..];
        while !rest.is_empty() && !self.run.is_stopping() {
            let (group, behind) = rest.split_at(blob::group_length(rest.iter().map(|(blob, _)| blob)));
            rest = behind;
            // Lent out, because writing needs all of `self`.
            let mut expanded = std::mem::take(&mut self.expanded);
            let places: Vec<_> = group.iter().map(|(blob, _)| (blob, place(blob))).collect();
            let opened = blob::open_group(repository.key(), &mut bytes, &places, &mut expanded, None);
            for ((blob, chunks), plaintext) in group.iter().zip(opened) {
                match plaintext {
                    Ok(plaintext) => self.write_blob(chunks, Ok(plaintext)),
                    Err(error) => {
                        let other = other_place(self.shared.round, range.pack, blob, error);
                        self.write_blob(chunks, other.as_deref());
                    }
                }
            }
            self.expanded = expanded;
        }
        bytes
    }

    fn write_blob(&mut self, chunks: &[u32], plaintext: Result<&[u8], &Error>) {
        let plaintext = match plaintext {
            Ok(plaintext) => plaintext,
            Err(error) => return self.lose(chunks, error),
        };
        if let Some((copies, Some(at))) = self.shared.round.copies {
            // Where it goes follows from the index that the plan was made with.
            if !chunks.iter().all(|chunk| self.run.plan.layout.chunk_bytes(*chunk) == plaintext.len() as u64)
            {
                let message = "the repository's index gives a blob another length than it has";
                return self.lose(chunks, &Error::new(ErrorKind::Corrupt, codes::INDEX_MISMATCH, message));
            }
            copies.note(at, plaintext.len() as u64);
        }
        for chunk in chunks {
            write_chunk(self.run, &self.shared.open, &mut self.directories, *chunk, plaintext);
        }
    }

    /// Chunks that cannot be had here: a copy may have them; without copies, their files fail.
    fn lose(&self, chunks: &[u32], error: &Error) {
        let run = self.run;
        if self.shared.round.copies.is_some() {
            return self.shared.lost.add(run, chunks, error);
        }
        for chunk in chunks {
            let (file, _) = run.plan.layout.place(*chunk);
            if !run.has(file, state::FAILED) {
                run.fail(file, same_error(error));
            }
        }
    }

    /// A range can't be read as a whole: perhaps single blobs, or those in other places, can.
    fn read_one_by_one(&mut self, range: &PackRange, error: Error) {
        let (run, round) = (self.run, self.shared.round);
        if is_away(&error) {
            let failures = self.shared.away.fetch_add(1, Ordering::Relaxed) + 1;
            if let Some((copies, at)) = round.copies {
                range.blobs.iter().for_each(|(_, chunks)| self.lose(chunks, &error));
                if failures >= AWAY {
                    self.shared.is_over.store(true, Ordering::Relaxed);
                    copies.give_up(at);
                    if at.is_none() {
                        self.shared.lost.give_own_up(error);
                    }
                }
                return;
            }
            if failures >= STORE_FAILURES {
                run.stop(error.context("read from the repository's store"));
                return;
            }
        }
        for (blob, chunks) in &range.blobs {
            if run.is_stopping() {
                return;
            }
            let plaintext = round.repository.read_own_blob(round.index, BlobKind::Data, &blob.id);
            self.write_blob(chunks, plaintext.as_deref());
        }
    }

    /// Lets the disk write while we work: otherwise it would begin when everything is in memory, at the final sync.
    fn flush_now_and_then(&self) {
        let written_bytes = self.run.counts.written.load(Ordering::Relaxed);
        let flushed_bytes = self.shared.flushed_bytes.load(Ordering::Relaxed);
        // A full channel: the thread is at it already.
        if written_bytes >= flushed_bytes + FLUSH_BYTES && self.flush.try_send(()).is_ok() {
            self.shared.flushed_bytes.store(written_bytes, Ordering::Relaxed);
        }
    }
}

/// The blob from another place in the same repository, where there is one; otherwise `first`.
fn other_place(round: &Round<'_>, damaged: PackId, blob: &PackedBlob, first: Error) -> Result<Vec<u8>> {
    for location in round.index.all(BlobKind::Data, &blob.id) {
        if (location.pack, location.blob.offset_bytes) == (damaged, blob.offset_bytes) {
            continue;
        }
        if let Ok(plaintext) = round.repository.read_at(&location) {
            return Ok(plaintext);
        }
    }
    Err(first.context(format!("read blob {} at {} of pack {damaged}", blob.id.short(), blob.offset_bytes)))
}

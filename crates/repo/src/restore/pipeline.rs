//! Reading and writing: readers fetch ranges of packs, workers open the blobs in them and write.

use super::LOCAL_READERS;
use super::files::{OpenFiles, write_chunk};
use super::jobs::{Jobs, PackRange};
use super::other;
use super::run::{Run, lock, state};
use super::target::Directories;
use crate::blob;
use crate::format::BlobKind;
use crate::format::pack::PackedBlob;
use crate::id::PackId;
use bytes::Bytes;
use retoma_core::{Error, ErrorKind, Result};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Ranges that wait for a worker.
const WAITING: usize = 2;
/// So many reads in a row that fail because the store is away end the restore; each was retried below us.
const STORE_FAILURES: u32 = 8;
/// After so many bytes the target's file systems are synced while the work goes on.
const FLUSH_BYTES: u64 = 256 << 20;

type Fetched = (PackRange, Result<Bytes>);

/// Number of worker threads.
pub(super) fn workers(run: &Run<'_>) -> usize {
    let cores = || std::thread::available_parallelism().ok().map(Into::into);
    run.plan.options.workers.or_else(cores).unwrap_or(2).max(1)
}

/// Reads and writes everything.
///
/// # Errors
/// `Cancelled`; `Exhausted` when the system gives no threads.
pub(super) fn write(run: &Run<'_>, jobs: &Jobs) -> Result<()> {
    let readers = run.plan.options.readers.unwrap_or(LOCAL_READERS).max(1);
    let (sender, receiver) = sync_channel::<Fetched>(WAITING);
    let (flush, flushes) = sync_channel::<()>(1);
    let shared = Shared {
        receiver: Mutex::new(receiver),
        open: OpenFiles::default(),
        away: AtomicU32::new(0),
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
            let sender = sender.clone();
            started(builder.spawn_scoped(scope, move || read(run, jobs, &sender)).map(drop));
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
    lock(&failed).take().map_or(Ok(()), Err)
}

fn read(run: &Run<'_>, jobs: &Jobs, sender: &SyncSender<Fetched>) {
    while !run.is_stopping() {
        let Some(range) = jobs.next(&run.plan.layout, run.plan.index) else { return };
        let key = run.plan.repository.pack_key(range.pack);
        let bytes = key.and_then(|key| run.plan.repository.store().get_range(&key, range.bytes.clone()));
        if sender.send((range, bytes)).is_err() {
            return;
        }
    }
}

/// What workers have in common.
struct Shared {
    receiver: Mutex<Receiver<Fetched>>,
    open: OpenFiles,
    /// Reads in a row that failed because the store is away.
    away: AtomicU32,
    /// Up to here what was written is on the disk or on its way.
    flushed_bytes: AtomicU64,
}

/// One that opens, checks and writes.
struct Worker<'a> {
    run: &'a Run<'a>,
    shared: &'a Shared,
    /// Wakes the thread that syncs.
    flush: SyncSender<()>,
    directories: Directories<'a>,
    /// For what is expanded, used again for each blob.
    expanded: Vec<u8>,
}

impl<'a> Worker<'a> {
    fn new(run: &'a Run<'a>, shared: &'a Shared, flush: SyncSender<()>) -> Self {
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
                    self.write_range(&range, bytes.into());
                    self.flush_now_and_then();
                }
                Err(error) => self.read_one_by_one(&range, error),
            }
        }
    }

    /// `bytes` are those of the range; blobs are opened in them.
    fn write_range(&mut self, range: &PackRange, mut bytes: Vec<u8>) {
        for (blob, chunks) in &range.blobs {
            if self.run.is_stopping() {
                return;
            }
            let start =
                usize::try_from(u64::from(blob.offset_bytes) - range.bytes.start).unwrap_or(usize::MAX);
            // Lent out, because writing needs all of `self`.
            let mut expanded = std::mem::take(&mut self.expanded);
            let opened = match bytes.get_mut(start..start.saturating_add(blob.length_bytes as usize)) {
                Some(sealed) => {
                    blob::open_in_place(self.run.plan.repository.key(), blob, sealed, &mut expanded)
                }
                None => Err(Error::internal("the store gave fewer bytes than were asked for")),
            };
            match opened {
                Ok(plaintext) => self.write_blob(chunks, Ok(plaintext)),
                Err(error) => {
                    let other = other_copy(self.run, range.pack, blob, error);
                    self.write_blob(chunks, other.as_deref());
                }
            }
            self.expanded = expanded;
        }
    }

    fn write_blob(&mut self, chunks: &[u32], plaintext: Result<&[u8], &Error>) {
        let run = self.run;
        match plaintext {
            Ok(plaintext) => {
                for chunk in chunks {
                    write_chunk(run, &self.shared.open, &mut self.directories, *chunk, plaintext);
                }
            }
            Err(error) => {
                for chunk in chunks {
                    let (file, _) = run.plan.layout.place(*chunk);
                    if !run.has(file, state::FAILED) {
                        run.fail(file, same_error(error));
                    }
                }
            }
        }
    }

    /// A range can't be read as a whole: perhaps single blobs, or copies of them elsewhere, can.
    fn read_one_by_one(&mut self, range: &PackRange, error: Error) {
        let run = self.run;
        let is_away =
            matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unauthorized | ErrorKind::Exhausted);
        if is_away && self.shared.away.fetch_add(1, Ordering::Relaxed) + 1 >= STORE_FAILURES {
            run.stop(error.context("read from the repository's store"));
            return;
        }
        for (blob, chunks) in &range.blobs {
            if run.is_stopping() {
                return;
            }
            let plaintext = run.plan.repository.read_blob(run.plan.index, BlobKind::Data, &blob.id);
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

/// The blob from another pack, where there is one; otherwise `first`.
fn other_copy(run: &Run<'_>, damaged: PackId, blob: &PackedBlob, first: Error) -> Result<Vec<u8>> {
    for location in run.plan.index.all(BlobKind::Data, &blob.id) {
        if (location.pack, location.blob.offset_bytes) == (damaged, blob.offset_bytes) {
            continue;
        }
        if let Ok(plaintext) = run.plan.repository.read_at(&location) {
            return Ok(plaintext);
        }
    }
    Err(first.context(format!("read blob {} at {} of pack {damaged}", blob.id.short(), blob.offset_bytes)))
}

/// Several files can fail for one reason.
fn same_error(error: &Error) -> Error {
    let copy = Error::new(error.kind(), error.code(), error.to_string());
    match error.hint() {
        Some(hint) => copy.with_hint(hint.to_owned()),
        None => copy,
    }
}

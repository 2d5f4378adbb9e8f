//! Reading and writing: readers fetch ranges of packs, workers open the blobs in them and write.

use super::LOCAL_READERS;
use super::files::{OpenFiles, write_chunk};
use super::jobs::{Jobs, PackRange};
use super::run::{Run, lock, state};
use super::target::Directories;
use crate::blob;
use crate::format::BlobKind;
use crate::format::pack::PackedBlob;
use crate::id::PackId;
use bytes::Bytes;
use retoma_core::{Error, ErrorKind, Result};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

/// Ranges that wait for a worker.
const WAITING: usize = 2;
/// So many reads in a row that fail because the store is away end the restore; each was retried below us.
const STORE_FAILURES: u32 = 8;

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
    let receiver = Mutex::new(receiver);
    let (open, away) = (OpenFiles::default(), AtomicU32::new(0));
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
        for worker in 1..workers(run) {
            let builder = std::thread::Builder::new().name(format!("restore-{worker}"));
            started(builder.spawn_scoped(scope, || work(run, &receiver, &open, &away)).map(drop));
        }
        // This thread is a worker too: what was read is taken even if the system gives no more threads.
        work(run, &receiver, &open, &away);
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

fn work(run: &Run<'_>, receiver: &Mutex<Receiver<Fetched>>, open: &OpenFiles, away: &AtomicU32) {
    let mut directories = run.directories();
    loop {
        let received = lock(receiver).recv();
        let Ok((range, bytes)) = received else { return };
        // What was read already is dropped, so that readers don't wait for ever.
        if run.is_stopping() {
            continue;
        }
        match bytes {
            Ok(bytes) => {
                away.store(0, Ordering::Relaxed);
                write_range(run, open, &mut directories, &range, &bytes);
            }
            Err(error) => read_one_by_one(run, open, &mut directories, &range, error, away),
        }
    }
}

fn write_range(
    run: &Run<'_>,
    open: &OpenFiles,
    directories: &mut Directories<'_>,
    range: &PackRange,
    bytes: &Bytes,
) {
    for (blob, chunks) in &range.blobs {
        if run.is_stopping() {
            return;
        }
        let start = usize::try_from(u64::from(blob.offset_bytes) - range.bytes.start).unwrap_or(usize::MAX);
        let sealed = bytes.get(start..start.saturating_add(blob.length_bytes as usize));
        let opened = match sealed {
            Some(sealed) => blob::open(run.plan.repository.key(), blob, sealed.to_vec()),
            None => Err(Error::internal("the store gave fewer bytes than were asked for")),
        };
        let plaintext = opened.or_else(|error| other_copy(run, range.pack, blob, error));
        write_blob(run, open, directories, chunks, plaintext);
    }
}

fn write_blob(
    run: &Run<'_>,
    open: &OpenFiles,
    directories: &mut Directories<'_>,
    chunks: &[u32],
    plaintext: Result<Vec<u8>>,
) {
    match plaintext {
        Ok(plaintext) => {
            for chunk in chunks {
                write_chunk(run, open, directories, *chunk, &plaintext);
            }
        }
        Err(error) => {
            for chunk in chunks {
                let (file, _) = run.plan.layout.place(*chunk);
                if !run.has(file, state::FAILED) {
                    run.fail(file, same_error(&error));
                }
            }
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

/// A range can't be read as a whole: perhaps single blobs, or copies of them elsewhere, can.
fn read_one_by_one(
    run: &Run<'_>,
    open: &OpenFiles,
    directories: &mut Directories<'_>,
    range: &PackRange,
    error: Error,
    away: &AtomicU32,
) {
    let is_away =
        matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unauthorized | ErrorKind::Exhausted);
    if is_away && away.fetch_add(1, Ordering::Relaxed) + 1 >= STORE_FAILURES {
        run.stop(error.context("read from the repository's store"));
        return;
    }
    for (blob, chunks) in &range.blobs {
        if run.is_stopping() {
            return;
        }
        let plaintext = run.plan.repository.read_blob(run.plan.index, BlobKind::Data, &blob.id);
        write_blob(run, open, directories, chunks, plaintext);
    }
}

/// Several files can fail for one reason.
fn same_error(error: &Error) -> Error {
    let copy = Error::new(error.kind(), error.code(), error.to_string());
    match error.hint() {
        Some(hint) => copy.with_hint(hint.to_owned()),
        None => copy,
    }
}

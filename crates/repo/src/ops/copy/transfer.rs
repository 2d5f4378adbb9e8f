//! Sends blobs: readers fetch ranges of the source's packs, workers open, check and seal them, the packer stores.

use super::walk::{Wanted, is_damage};
use super::{Failed, WHAT};
use crate::backup::Progress;
use crate::backup::packer::{Packer, lock};
use crate::blob;
use crate::format::pack::PackedBlob;
use crate::id::PackId;
use crate::index::Index;
use crate::repository::Repository;
use crate::store::REQUEST_BYTES;
use bytes::Bytes;
use retoma_core::{Error, Result, ResultExt};
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, RwLock};

/// Ranges that are read at the same time.
const READERS: usize = 4;
/// Ranges that wait for a worker.
const WAITING: usize = 2;
/// Neighbours in a pack are read at once up to so many bytes, more than a pack has: each request more is work for both sides …
const RANGE_BYTES: u64 = 32 << 20;
/// … and over gaps of so many, which cost less than another request.
const GAP_BYTES: u64 = REQUEST_BYTES as u64;

/// What was sent.
pub(super) struct Sent {
    pub(super) blobs: u64,
    pub(super) failed: Failed,
}

/// What readers and workers share.
struct Run<'a> {
    from: &'a Repository,
    packer: &'a Packer,
    index: &'a RwLock<Index>,
    progress: &'a Progress,
    wanted: &'a Wanted,
    /// The first blob that nobody reads yet.
    next: Mutex<usize>,
    /// Blobs whose copy here is damaged or gone, by their place in `wanted`.
    again: Mutex<Vec<(usize, Error)>>,
    stopping: AtomicBool,
    stopped: Mutex<Option<Error>>,
    sent: AtomicU64,
}

/// Blobs that are read at once: their places in `wanted`, where they lie, and what was read.
type Fetched = (Range<usize>, u64, Result<Bytes>);

/// Sends all of `wanted` that can be had. All of it is in `packer`, and not durable before its `finish`.
///
/// # Errors
/// `Cancelled`; what the stores say. A damaged blob is none.
pub(super) fn transfer(
    from: &Repository,
    packer: &Packer,
    index: &RwLock<Index>,
    mut wanted: Wanted,
    progress: &Progress,
) -> Result<Sent> {
    let failed = std::mem::take(&mut wanted.failed);
    let run = Run {
        from,
        packer,
        index,
        progress,
        wanted: &wanted,
        next: Mutex::new(0),
        again: Mutex::default(),
        stopping: AtomicBool::new(false),
        stopped: Mutex::default(),
        sent: AtomicU64::new(0),
    };
    if !wanted.blobs.is_empty() {
        run.on_threads();
    }
    if let Some(error) = lock(&run.stopped).take() {
        return Err(error);
    }
    progress.check(WHAT)?;
    let again = std::mem::take(&mut *lock(&run.again));
    let failed = run.once_more(again, failed)?;
    Ok(Sent { blobs: run.sent.into_inner(), failed })
}

impl Run<'_> {
    fn on_threads(&self) {
        let (sender, receiver) = sync_channel::<Fetched>(WAITING);
        let receiver = Mutex::new(receiver);
        let workers = std::thread::available_parallelism().map_or(2, usize::from);
        std::thread::scope(|scope| {
            for reader in 0..READERS {
                let builder = std::thread::Builder::new().name(format!("copy-read-{reader}"));
                let sender = sender.clone();
                if let Err(error) = builder.spawn_scoped(scope, move || self.read(&sender)) {
                    self.stop(Error::io("a thread", error));
                }
            }
            drop(sender);
            for worker in 1..workers {
                let builder = std::thread::Builder::new().name(format!("copy-{worker}"));
                // This thread is a worker too: fewer do the same work.
                drop(builder.spawn_scoped(scope, || self.work(&receiver)));
            }
            self.work(&receiver);
        });
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed) || self.progress.is_cancelled()
    }

    fn stop(&self, error: Error) {
        lock(&self.stopped).get_or_insert(error);
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// The next blobs that are read at once, and where they begin and end.
    fn next_range(&self) -> Option<(PackId, Range<usize>, Range<u64>)> {
        let mut next = lock(&self.next);
        let blobs = self.wanted.blobs.get(*next..)?;
        let (pack, first) = blobs.first()?;
        let start = u64::from(first.offset_bytes);
        let mut end = end_of(first);
        let mut count = 1;
        for (other, blob) in &blobs[1..] {
            let is_near = u64::from(blob.offset_bytes) <= end + GAP_BYTES;
            if other != pack || !is_near || end_of(blob) - start > RANGE_BYTES {
                break;
            }
            end = end.max(end_of(blob));
            count += 1;
        }
        let places = *next..*next + count;
        *next = places.end;
        Some((self.wanted.packs[*pack as usize], places, start..end))
    }

    fn read(&self, sender: &SyncSender<Fetched>) {
        while !self.is_stopping() {
            let Some((pack, places, range)) = self.next_range() else { return };
            let start = range.start;
            let bytes = self.from.pack_key(pack).and_then(|key| self.from.store().get_range(&key, range));
            let bytes = bytes.with_context(|| format!("read pack {pack} of the source"));
            if sender.send((places, start, bytes)).is_err() {
                return;
            }
        }
    }

    fn work(&self, receiver: &Mutex<Receiver<Fetched>>) {
        let (mut expanded, mut output) = (Vec::new(), Vec::new());
        loop {
            let received = lock(receiver).recv();
            let Ok((places, start, bytes)) = received else { return };
            // What was read already is dropped, so that readers don't wait for ever.
            if self.is_stopping() {
                continue;
            }
            match bytes {
                Ok(bytes) => {
                    let mut bytes = Vec::from(bytes);
                    for place in places {
                        if self.is_stopping() {
                            break;
                        }
                        self.send(place, start, &mut bytes, &mut expanded, &mut output);
                    }
                }
                Err(error) if is_damage(&error) => {
                    let all = places.map(|place| (place, same_error(&error)));
                    lock(&self.again).extend(all);
                }
                Err(error) => self.stop(error),
            }
        }
    }

    /// Sends one blob of a range that begins at `start` of its pack.
    fn send(&self, place: usize, start: u64, bytes: &mut [u8], expanded: &mut Vec<u8>, output: &mut Vec<u8>) {
        let (pack, blob) = &self.wanted.blobs[place];
        let from = usize::try_from(u64::from(blob.offset_bytes) - start).unwrap_or(usize::MAX);
        let sealed = from.checked_add(blob.length_bytes as usize).and_then(|end| bytes.get_mut(from..end));
        let both = (self.from, self.packer.repository());
        let resealed = blob::reseal(both, blob, sealed.unwrap_or_default(), expanded, output);
        match resealed {
            Ok(uncompressed) => self.add(blob, output, uncompressed),
            Err(error) if is_damage(&error) => {
                let pack = self.wanted.packs[*pack as usize];
                let context =
                    format!("read blob {} at {} of pack {pack}", blob.id.short(), blob.offset_bytes);
                lock(&self.again).push((place, error.context(context)));
            }
            Err(error) => self.stop(error),
        }
    }

    fn add(&self, blob: &PackedBlob, sealed: &[u8], uncompressed: Option<u32>) {
        match self.packer.add(self.index, blob.kind, blob.id, sealed, uncompressed) {
            Ok(()) => {
                self.sent.fetch_add(1, Ordering::Relaxed);
                self.progress.add_file(u64::from(blob.length_bytes));
            }
            Err(error) => self.stop(error.context("write to the target")),
        }
    }

    /// Looks for what could not be read in all places that a fresh index names: other packs may have it, and a prune of the
    /// source puts what is needed into new ones before it deletes.
    fn once_more(&self, again: Vec<(usize, Error)>, mut failed: Failed) -> Result<Failed> {
        if again.is_empty() {
            return Ok(failed);
        }
        let source = self.from.load_readable_index().context("load the source's index")?;
        let mut output = Vec::new();
        for (place, first) in again {
            self.progress.check(WHAT)?;
            let blob = &self.wanted.blobs[place].1;
            match self.from.read_blob(&source, blob.kind, &blob.id) {
                Ok(plaintext) => {
                    let uncompressed = blob::seal(self.packer.repository(), &plaintext, &mut output)?;
                    self.add(blob, &output, uncompressed);
                    if let Some(error) = lock(&self.stopped).take() {
                        return Err(error);
                    }
                }
                Err(error) if is_damage(&error) => drop(failed.insert((blob.kind, blob.id), first)),
                Err(error) => return Err(error),
            }
        }
        Ok(failed)
    }
}

fn end_of(blob: &PackedBlob) -> u64 {
    u64::from(blob.offset_bytes) + u64::from(blob.length_bytes)
}

/// All blobs of a range fail for one reason.
fn same_error(error: &Error) -> Error {
    let copy = Error::new(error.kind(), error.code(), error.to_string());
    match error.hint() {
        Some(hint) => copy.with_hint(hint.to_owned()),
        None => copy,
    }
}

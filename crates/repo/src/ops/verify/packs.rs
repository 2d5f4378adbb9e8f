//! Packs: listed against indexed, and every byte of those that are read.
//!
//! One pass over a pack's bytes does everything: some blobs are opened and expanded into buffers that are used again, and hashed
//! together, as stored and as plaintext, while they are in the processor's cache. The header, which tells where blobs
//! begin, is opened first; where it is damaged the blobs are found by the index instead ([`super::suspects`]).

use super::objects::{LoadedIndex, PackInfo};
use super::report::{Draft, Scope, Severity};
use super::suspects::{self, Bad, Suspects};
use super::{ReadData, Run, object_name};
use crate::blob;
use crate::crypto::MasterKey;
use crate::format::pack::{self, PackedBlob, TRAILER_BYTES};
use crate::id::PackId;
use crate::repository::{Folder, Repository};
use crate::store::{BlockingStore, Key};
use crate::threads;
use retoma_core::{Error, ErrorKind, Result, ResultExt as _, error::codes, units::counted};
use retoma_sha256::Sha256;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Packs are read in such pieces, each to the end of a blob: they stay in the processor's cache, and what the allocator
/// keeps for each thread stays small. Packs up to this size are read at once.
const PIECE_BYTES: u64 = 4 << 20;
/// At the end of a larger pack so much is read first: most headers are in it.
const TAIL_BYTES: u64 = 64 << 10;
/// Packs that are larger than any of ours may hold larger blobs: they are read one at a time.
const ALONE_BYTES: u64 = 32 << 20;
/// Blobs that expand to more are hashed as a stream. No chunker makes such; trees of huge directories are.
const EXPANDED_BYTES: u32 = 8 << 20;

/// Checks the packs that the index names against those that are there, and reads what the options ask for.
pub(super) fn check(run: &Run<'_>, loaded: &LoadedIndex, listed: &HashMap<PackId, u64>) -> Result<()> {
    let mut suspects = Suspects::default();
    for (id, info) in &loaded.packs {
        compare_with_listing(run, &mut suspects, *id, info, listed.get(id).copied());
    }
    let chosen = choose(run, loaded, listed, &suspects);
    run.progress.set_total(chosen.len() as u64, chosen.iter().map(|(_, size_bytes)| size_bytes).sum());
    let (next, large) = (AtomicUsize::new(0), Mutex::new(()));
    let suspects = Mutex::new(suspects);
    threads::on_threads("verify", run.workers().min(chosen.len()), || {
        let mut scratch = Scratch::default();
        while let Some((id, size_bytes)) = chosen.get(next.fetch_add(1, Ordering::Relaxed)).copied() {
            run.check_not_cancelled()?;
            let alone =
                (size_bytes > ALONE_BYTES).then(|| large.lock().unwrap_or_else(PoisonError::into_inner));
            let outcome = read_pack(run, loaded, id, size_bytes, &mut scratch)?;
            drop(alone);
            run.progress.add_file(size_bytes);
            let mut suspects = suspects.lock().unwrap_or_else(PoisonError::into_inner);
            suspects.bad.extend(outcome.bad);
            if outcome.look_again {
                suspects.unclear.insert(id, None);
            }
            drop(suspects);
            let mut state = run.state();
            state.counts.packs_read += 1;
            state.counts.read_bytes += size_bytes;
            state.drafts.extend(outcome.drafts);
        }
        Ok(())
    })?;
    suspects::settle(run, &loaded.index, suspects.into_inner().unwrap_or_else(PoisonError::into_inner))
}

fn compare_with_listing(
    run: &Run<'_>,
    suspects: &mut Suspects,
    id: PackId,
    info: &PackInfo,
    size_bytes: Option<u64>,
) {
    let missing = |message: String| {
        let object = object_name(Folder::Data, id.0);
        run.add(Draft::new(Severity::Damage, codes::PACK_MISSING, object, message).scope(Scope::Blobs))
    };
    match size_bytes {
        None => {
            suspects.missing.insert(id, missing("the pack is missing".to_owned()));
        }
        Some(size_bytes) if info.is_whole && size_bytes != info.bytes => {
            let cause = missing(format!(
                "the pack has {} and should have {}",
                counted(size_bytes, "byte", "bytes"),
                info.bytes
            ));
            suspects.unclear.insert(id, Some(cause));
        }
        Some(_) if !info.is_whole => {
            suspects.unclear.insert(id, None);
        }
        Some(_) => {}
    }
}

/// The packs to read, with their sizes; those that are known to be damaged are looked at singly anyway.
fn choose(
    run: &Run<'_>,
    loaded: &LoadedIndex,
    listed: &HashMap<PackId, u64>,
    suspects: &Suspects,
) -> Vec<(PackId, u64)> {
    let whole = loaded.packs.keys().filter(|id| !suspects.unclear.contains_key(id));
    let mut packs: Vec<(PackId, u64)> = whole.filter_map(|id| Some((*id, *listed.get(id)?))).collect();
    packs.sort_unstable();
    match run.options.read_data {
        ReadData::None => Vec::new(),
        ReadData::All => packs,
        ReadData::Sample(percent, seed) => {
            let order = |id: &PackId| -> [u8; 32] {
                let mut hash = Sha256::new();
                hash.update(&seed.to_le_bytes());
                hash.update(&id.0);
                hash.finalize()
            };
            packs.sort_by_cached_key(|(id, _)| order(id));
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let count = (packs.len() as f64 * percent.clamp(0.0, 100.0) / 100.0).ceil() as usize;
            packs.truncate(count.max(1));
            packs
        }
    }
}

/// What reading a pack showed.
#[derive(Default)]
struct Outcome {
    drafts: Vec<Draft>,
    bad: Vec<Bad>,
    /// Which blobs are hit is not clear from the header: each that the index names must be tried.
    look_again: bool,
}

fn read_pack(
    run: &Run<'_>,
    loaded: &LoadedIndex,
    id: PackId,
    size_bytes: u64,
    scratch: &mut Scratch,
) -> Result<Outcome> {
    let mut outcome = Outcome::default();
    let object = object_name(Folder::Data, id.0);
    if let Err(error) = read_all(run, loaded, id, size_bytes, scratch, &mut outcome) {
        let error = match error.kind() {
            // It was listed a moment ago.
            ErrorKind::NotFound => Error::new(ErrorKind::Corrupt, codes::PACK_MISSING, "the pack is missing"),
            _ => run.is_finding(error)?,
        };
        outcome.drafts.push(Draft::damage(object, &error));
        outcome.look_again = true;
        outcome.bad.clear();
    }
    Ok(outcome)
}

fn read_all(
    run: &Run<'_>,
    loaded: &LoadedIndex,
    id: PackId,
    size_bytes: u64,
    scratch: &mut Scratch,
    outcome: &mut Outcome,
) -> Result<()> {
    let object = object_name(Folder::Data, id.0);
    let mut bytes = PackReader::open(run.repository.store(), Key::new(object.clone())?, size_bytes)?;
    let mut hash = Sha256::new();
    let mut done_bytes = 0;
    match bytes.header(run.repository.key()) {
        Ok(blobs) => {
            if !fits_index(loaded, id, &blobs) {
                let message = "the index and the pack's header name different blobs";
                outcome.drafts.push(Draft::new(
                    Severity::Damage,
                    codes::INDEX_MISMATCH,
                    object.clone(),
                    message,
                ));
                outcome.look_again = true;
            }
            let mut rest = &blobs[..];
            while let Some(first) = rest.first() {
                bytes.load_blobs(rest)?;
                let (group, behind) = rest.split_at(bytes.group_length(rest));
                rest = behind;
                let start = u64::from(first.offset_bytes);
                done_bytes = group.last().map_or(start, end);
                let sealed = bytes.slice(start..done_bytes)?;
                for (blob, error) in scratch.check(run.repository.key(), group, sealed, &mut hash) {
                    // Where the index differs, what the index names counts.
                    if !outcome.look_again {
                        outcome.bad.push(Bad { pack: id, blob, error: run.is_finding(error)? });
                    }
                }
            }
        }
        Err(error) => {
            outcome.drafts.push(Draft::new(
                Severity::Damage,
                error.code(),
                object.clone(),
                format!("the pack's header: {}", error.message()),
            ));
            outcome.look_again = true;
        }
    }
    while done_bytes < bytes.size_bytes {
        let piece = done_bytes..bytes.size_bytes.min(done_bytes + PIECE_BYTES);
        done_bytes = piece.end;
        hash.update(bytes.slice(piece)?);
    }
    let same = PackId(hash.finalize()) == id;
    if !same && outcome.drafts.is_empty() && outcome.bad.is_empty() {
        let message = "the SHA-256 of the pack is not its name";
        outcome.drafts.push(Draft::new(Severity::Damage, codes::HASH_MISMATCH, object, message));
    }
    Ok(())
}

fn fits_index(loaded: &LoadedIndex, id: PackId, blobs: &[PackedBlob]) -> bool {
    let indexed = |blob: &PackedBlob| {
        loaded.index.all(blob.kind, &blob.id).any(|known| known.pack == id && known.blob == *blob)
    };
    loaded.packs.get(&id).is_some_and(|info| info.blobs as usize == blobs.len()) && blobs.iter().all(indexed)
}

/// Memory that is used again for each group of blobs.
#[derive(Default)]
struct Scratch {
    sealed: Vec<u8>,
    expanded: Vec<u8>,
}

impl Scratch {
    /// Hashes `sealed`, which are the stored bytes of `blobs` one behind the other, opens each, and compares its plaintext with its
    /// name. Gives those that are not what they should be.
    fn check(
        &mut self,
        key: &MasterKey,
        blobs: &[PackedBlob],
        sealed: &mut [u8],
        pack: &mut Sha256,
    ) -> Vec<(PackedBlob, Error)> {
        if let [blob] = blobs
            && sealed.len().max(blob.uncompressed_bytes.unwrap_or(0) as usize) > EXPANDED_BYTES as usize
        {
            pack.update(sealed);
            // Where it lies: a copy of what is huge would be twice the memory.
            let checked = match blob.uncompressed_bytes {
                Some(length) => blob::check_huge(key, blob, sealed, length),
                None => blob::open_in_place(key, blob, sealed, &mut self.expanded).map(drop),
            };
            return checked.err().map(|error| (*blob, error)).into_iter().collect();
        }
        // Opened in a copy: what is hashed beside has to stay as it is stored.
        self.sealed.clear();
        self.sealed.extend_from_slice(sealed);
        let places = blobs.iter().scan(0, |end, blob| {
            let start = *end;
            *end += blob.length_bytes as usize;
            Some((blob, start..*end))
        });
        let places: Vec<_> = places.collect();
        let opened =
            blob::open_group(key, &mut self.sealed, &places, &mut self.expanded, Some((pack, sealed)));
        let bad = |(blob, plaintext): (&PackedBlob, Result<&[u8]>)| Some((*blob, plaintext.err()?));
        blobs.iter().zip(opened).filter_map(bad).collect()
    }
}

/// A pack's bytes, piece by piece. What was given out may have been changed in place.
struct PackReader<'a> {
    store: &'a BlockingStore,
    key: Key,
    size_bytes: u64,
    buffer: Vec<u8>,
    start: u64,
}

fn end(blob: &PackedBlob) -> u64 {
    u64::from(blob.offset_bytes) + u64::from(blob.length_bytes)
}

/// The blobs of a pack of this size, as its header tells. Reads the end of the pack alone.
///
/// # Errors
/// `Corrupt` when the header cannot be read; what the store says.
pub(in crate::ops) fn header_of(
    repository: &Repository,
    id: PackId,
    size_bytes: u64,
) -> Result<Vec<PackedBlob>> {
    let key = repository.pack_key(id)?;
    let mut bytes = PackReader { store: repository.store(), key, size_bytes, buffer: Vec::new(), start: 0 };
    bytes.load(size_bytes - size_bytes.min(TAIL_BYTES)..size_bytes)?;
    bytes.header(repository.key()).with_context(|| format!("read the header of pack {id}"))
}

impl<'a> PackReader<'a> {
    fn open(store: &'a BlockingStore, key: Key, size_bytes: u64) -> Result<Self> {
        let mut bytes = Self { store, key, size_bytes, buffer: Vec::new(), start: 0 };
        let tail_bytes = if size_bytes <= PIECE_BYTES { size_bytes } else { TAIL_BYTES };
        bytes.load(size_bytes - tail_bytes..size_bytes)?;
        Ok(bytes)
    }

    /// The blobs that the header at the end names.
    fn header(&mut self, key: &MasterKey) -> Result<Vec<PackedBlob>> {
        let size_bytes = self.size_bytes;
        let cut = || Error::new(ErrorKind::Corrupt, codes::MALFORMED, "the pack is too short for a header");
        let trailer_at = size_bytes.checked_sub(TRAILER_BYTES as u64).ok_or_else(cut)?;
        let trailer = self.slice(trailer_at..size_bytes)?;
        let trailer = <[u8; TRAILER_BYTES]>::try_from(&*trailer).map_err(|_| cut())?;
        let header_at = trailer_at - u64::from(pack::header_length(trailer, size_bytes)?);
        pack::open_header(key, self.slice(header_at..trailer_at)?, header_at)
    }

    /// Loads the first of `blobs` and as many more as fit into a piece, unless the first is there.
    fn load_blobs(&mut self, blobs: &[PackedBlob]) -> Result<()> {
        let Some(first) = blobs.first() else { return Ok(()) };
        let start = u64::from(first.offset_bytes);
        if self.has(&(start..end(first))) {
            return Ok(());
        }
        let fitting = blobs.iter().map(end).take_while(|end| *end <= start + PIECE_BYTES).last();
        self.load(start..fitting.unwrap_or_else(|| end(first)))
    }

    /// How many of `blobs`, of which the first is there, are checked together.
    fn group_length(&self, blobs: &[PackedBlob]) -> usize {
        let loaded = blobs.iter().take_while(|blob| self.has(&(u64::from(blob.offset_bytes)..end(blob))));
        blob::group_length(loaded).max(1)
    }

    fn has(&self, range: &Range<u64>) -> bool {
        range.start >= self.start && range.end <= self.start + self.buffer.len() as u64
    }

    fn load(&mut self, range: Range<u64>) -> Result<()> {
        // Freed first: two pieces would be twice the memory.
        self.buffer = Vec::new();
        self.start = range.start;
        self.buffer = self.store.get_range(&self.key, range)?.into();
        Ok(())
    }

    fn slice(&mut self, range: Range<u64>) -> Result<&mut [u8]> {
        let outside = || Error::internal("a slice beyond a pack's piece");
        if !self.has(&range) {
            self.load(range.clone())?;
        }
        let within = |at: u64| usize::try_from(at - self.start).map_err(|_| outside());
        let (from, to) = (within(range.start)?, within(range.end)?);
        self.buffer.get_mut(from..to).ok_or_else(outside)
    }
}

//! Chunks that have to be read, in the order of packs and offsets, and the ranges that are read at once.

use super::layout::{Entry, Kind, Layout};
use super::run::{Run, state};
use crate::format::BlobKind;
use crate::format::pack::PackedBlob;
use crate::id::PackId;
use crate::index::Index;
use std::collections::HashMap;
use std::ops::Range;
use std::sync::Mutex;

/// A chunk that has to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Job {
    /// Position in the list of packs.
    pack: u32,
    offset_bytes: u32,
    chunk: u32,
}

/// Everything that has to be read.
#[derive(Debug)]
pub(super) struct Jobs {
    packs: Vec<PackId>,
    list: Vec<Job>,
    next: Mutex<usize>,
}

/// Blobs that are read although nobody wants them, when they lie between two that are wanted.
const GAP_BYTES: u32 = 64 << 10;
/// A range ends with the blob that goes beyond.
const RANGE_BYTES: u32 = 4 << 20;

/// A part of a pack that is read at once.
#[derive(Debug, Clone)]
pub(super) struct PackRange {
    pub(super) pack: PackId,
    pub(super) bytes: Range<u64>,
    /// The blobs in it that are wanted, each with the chunks that it is.
    pub(super) blobs: Vec<(PackedBlob, Vec<u32>)>,
}

/// Counts for each file how many chunks it waits for.
pub(super) fn count_left(run: &Run<'_>) {
    for (number, _) in waiting(run) {
        let missing = run.plan.layout.chunks(number).filter(|chunk| !run.is_reused(*chunk)).count();
        run.set_left(number, u32::try_from(missing).unwrap_or(u32::MAX));
    }
}

/// All chunks that the target does not have.
pub(super) fn wanted<'a>(run: &'a Run<'_>) -> impl Iterator<Item = u32> + 'a {
    let chunks = waiting(run).flat_map(|(number, _)| run.plan.layout.chunks(number));
    chunks.filter(|chunk| !run.is_reused(*chunk))
}

/// The files that are not complete, and can be.
fn waiting<'a>(run: &'a Run<'_>) -> impl Iterator<Item = (u32, &'a Entry)> + 'a {
    let is_waiting = |number: u32, entry: &Entry| {
        entry.kind == Kind::File && !run.has(number, state::DONE | state::FAILED)
    };
    run.plan.layout.iter().filter(move |(number, entry)| is_waiting(*number, entry))
}

/// Sorts `chunks` by where `index` says they lie; gives those, too, of which it says nothing.
pub(super) fn sort(layout: &Layout, index: &Index, chunks: impl Iterator<Item = u32>) -> (Jobs, Vec<u32>) {
    let (mut packs, mut positions) = (Vec::new(), HashMap::new());
    let (mut jobs, mut unknown) = (Vec::new(), Vec::new());
    for chunk in chunks {
        let Some(location) = index.get(BlobKind::Data, &layout.chunk(chunk).id) else {
            unknown.push(chunk);
            continue;
        };
        let pack = *positions.entry(location.pack).or_insert_with(|| {
            packs.push(location.pack);
            packs.len() - 1
        });
        let Ok(pack) = u32::try_from(pack) else { continue };
        jobs.push(Job { pack, offset_bytes: location.blob.offset_bytes, chunk });
    }
    jobs.sort_unstable();
    (Jobs { packs, list: jobs, next: Mutex::new(0) }, unknown)
}

impl Jobs {
    /// The next range, in order; `None` at the end.
    pub(super) fn next(&self, layout: &Layout, index: &Index) -> Option<PackRange> {
        let mut next = super::run::lock(&self.next);
        let first = *self.list.get(*next)?;
        let pack = self.packs[first.pack as usize];
        let mut range: Option<PackRange> = None;
        while let Some(job) = self.list.get(*next).filter(|job| job.pack == first.pack) {
            let id = &layout.chunk(job.chunk).id;
            if let Some((last, chunks)) = range.as_mut().and_then(|range| range.blobs.last_mut())
                && last.id == *id
            {
                chunks.push(job.chunk);
                *next += 1;
                continue;
            }
            let Some(location) = index.get(BlobKind::Data, id) else {
                *next += 1;
                continue;
            };
            let start = u64::from(location.blob.offset_bytes);
            let end = start + u64::from(location.blob.length_bytes);
            let range = range.get_or_insert(PackRange { pack, bytes: start..start, blobs: Vec::new() });
            let far = start > range.bytes.end + u64::from(GAP_BYTES);
            let long = end - range.bytes.start > u64::from(RANGE_BYTES) && !range.blobs.is_empty();
            if far || long {
                break;
            }
            range.bytes.end = range.bytes.end.max(end);
            range.blobs.push((location.blob, vec![job.chunk]));
            *next += 1;
        }
        range
    }

    /// The chunks that nobody began to read.
    pub(super) fn into_rest(self) -> impl Iterator<Item = u32> {
        let next = super::run::into_inner(self.next);
        self.list.into_iter().skip(next).map(|job| job.chunk)
    }
}

#[cfg(test)]
mod tests;

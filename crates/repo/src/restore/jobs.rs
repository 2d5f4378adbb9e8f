//! Chunks that have to be read, in the order of packs and offsets, and the ranges that are read at once.

use super::layout::{Entry, Kind, Layout};
use super::run::{Run, state};
use crate::format::BlobKind;
use crate::format::pack::PackedBlob;
use crate::id::PackId;
use crate::index::Index;
use crate::store::{Capabilities, REQUEST_BYTES};
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
    reach: Reach,
    next: Mutex<usize>,
}

/// How much of a pack is read at once.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reach {
    /// Blobs that are read although nobody wants them, when they lie between two that are wanted.
    gap_bytes: u32,
    /// A range ends with the blob that goes beyond.
    range_bytes: u32,
}

/// From a disk: small enough to stay in the processor's cache until it is opened.
const NEAR: Reach = Reach { gap_bytes: 64 << 10, range_bytes: 4 << 20 };
/// Over a network: each request is work for both sides, so that packs of which most is wanted are read whole.
const FAR: Reach = Reach { gap_bytes: REQUEST_BYTES, range_bytes: 32 << 20 };

impl Reach {
    /// For a store that is far, or not.
    pub(super) fn of(capabilities: Capabilities) -> Self {
        if capabilities.far { FAR } else { NEAR }
    }
}

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
pub(super) fn sort(
    layout: &Layout,
    index: &Index,
    chunks: impl Iterator<Item = u32>,
    reach: Reach,
) -> (Jobs, Vec<u32>) {
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
    (Jobs { packs, list: jobs, reach, next: Mutex::new(0) }, unknown)
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
            let far = start > range.bytes.end + u64::from(self.reach.gap_bytes);
            let long = end - range.bytes.start > u64::from(self.reach.range_bytes) && !range.blobs.is_empty();
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

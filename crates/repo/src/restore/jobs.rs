//! Chunks that have to be read, in the order of packs and offsets, and the ranges that are read at once.

use super::layout::{Kind, Layout};
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

/// Lists what has to be read, and how many chunks each file waits for.
pub(super) fn sort(run: &Run<'_>) -> Jobs {
    let (layout, index) = (&run.plan.layout, run.plan.index);
    let (mut packs, mut positions, mut jobs) = (Vec::new(), HashMap::new(), Vec::new());
    for (number, entry) in layout.iter() {
        if entry.kind != Kind::File || run.has(number, state::DONE | state::FAILED) {
            continue;
        }
        let mut left = 0;
        for chunk in layout.chunks(number).filter(|chunk| !run.is_reused(*chunk)) {
            // The plan has made sure that every chunk is in the index.
            let Some(location) = index.get(BlobKind::Data, &layout.chunk(chunk).id) else { continue };
            let pack = *positions.entry(location.pack).or_insert_with(|| {
                packs.push(location.pack);
                packs.len() - 1
            });
            let Ok(pack) = u32::try_from(pack) else { continue };
            jobs.push(Job { pack, offset_bytes: location.blob.offset_bytes, chunk });
            left += 1;
        }
        run.set_left(number, left);
    }
    jobs.sort_unstable();
    Jobs { packs, list: jobs, next: Mutex::new(0) }
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
}

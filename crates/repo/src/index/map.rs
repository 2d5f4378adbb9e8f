//! A set of entries with a table of positions.

use crate::format::pack::PackedBlob;
use crate::id::BlobId;
use hashbrown::HashTable;

/// A blob as kept in memory: 48 bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    pub(super) id: [u8; 32],
    /// Position of the pack in the index's list.
    pub(super) pack: u32,
    pub(super) offset: u32,
    pub(super) length: u32,
    /// 0 when not compressed.
    pub(super) uncompressed: u32,
}

impl Entry {
    pub(super) fn new(pack: u32, blob: &PackedBlob) -> Self {
        Self {
            id: blob.id.0,
            pack,
            offset: blob.offset_bytes,
            length: blob.length_bytes,
            uncompressed: blob.uncompressed_bytes.unwrap_or(0),
        }
    }
}

/// Entries in one segment; segments are allocated whole and never move.
const SEGMENT: usize = 1 << 10;

#[derive(Debug, Default)]
pub(super) struct Map {
    segments: Vec<Vec<Entry>>,
    table: HashTable<u32>,
}

/// Ids are SHA-256: any eight bytes of one are a good hash.
fn hash(id: &[u8; 32]) -> u64 {
    let (first, _) = id.split_first_chunk::<8>().unwrap_or((&[0; 8], &[]));
    u64::from_le_bytes(*first)
}

fn at(segments: &[Vec<Entry>], position: u32) -> &Entry {
    &segments[position as usize / SEGMENT][position as usize % SEGMENT]
}

impl Map {
    pub(super) fn find(&self, id: &BlobId) -> Option<&Entry> {
        let segments = &self.segments;
        self.table.find(hash(&id.0), |&position| at(segments, position).id == id.0).map(|&p| at(segments, p))
    }

    pub(super) fn find_mut(&mut self, id: &BlobId) -> Option<&mut Entry> {
        let segments = &self.segments;
        let position = *self.table.find(hash(&id.0), |&position| at(segments, position).id == id.0)? as usize;
        Some(&mut self.segments[position / SEGMENT][position % SEGMENT])
    }

    pub(super) fn find_all<'a>(&'a self, id: &'a BlobId) -> impl Iterator<Item = &'a Entry> + 'a {
        let positions = self.table.iter_hash(hash(&id.0));
        positions.map(|&position| at(&self.segments, position)).filter(|entry| entry.id == id.0)
    }

    pub(super) fn insert(&mut self, entry: Entry) {
        if self.segments.last().is_none_or(|last| last.len() == SEGMENT) {
            self.segments.push(Vec::with_capacity(SEGMENT));
        }
        let segment = self.segments.len() - 1;
        let position = segment * SEGMENT + self.segments[segment].len();
        self.segments[segment].push(entry);
        // 2³² entries would be 200 GB of memory: the machine ends before the number does.
        if let Ok(position) = u32::try_from(position) {
            let segments = &self.segments;
            self.table.insert_unique(hash(&entry.id), position, |&position| hash(&at(segments, position).id));
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Entry> + '_ {
        self.segments.iter().flatten()
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    pub(super) fn memory_bytes(&self) -> usize {
        self.segments.len() * SEGMENT * size_of::<Entry>() + self.table.allocation_size()
    }
}

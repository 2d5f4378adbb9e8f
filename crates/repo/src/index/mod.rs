//! The index in memory: blob → pack, offset, lengths.
//!
//! 48 bytes a blob in segments that never move, and a table of positions beside them: at most 60 bytes a blob together
//! (a test holds it), without the peaks of a growing map of large entries. A blob may be in several packs; the first is
//! used, the others are there for when the first is damaged.

mod load;
mod map;

use crate::format::BlobKind;
use crate::format::index::IndexPack;
use crate::format::pack::PackedBlob;
use crate::id::{BlobId, PackId};
use map::{Entry, Map};
use retoma_core::Error;
use std::collections::HashMap;

/// Where a blob lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Location {
    /// In which pack.
    pub pack: PackId,
    /// The blob in it.
    pub blob: PackedBlob,
}

/// Whether a blob must be stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Claim {
    /// Nobody has it: the caller stores it.
    New,
    /// It is stored, or another worker is storing it now.
    Known,
}

/// All blobs of a repository, and those that this backup is adding.
#[derive(Debug, Default)]
pub struct Index {
    data: Map,
    trees: Map,
    packs: Vec<PackId>,
    positions: HashMap<PackId, u32>,
    unreadable: Vec<Error>,
}

/// The position of a pack that is not finished yet.
const PENDING: u32 = u32::MAX;

impl Index {
    fn map(&self, kind: BlobKind) -> &Map {
        match kind {
            BlobKind::Data => &self.data,
            BlobKind::Tree => &self.trees,
        }
    }

    fn map_mut(&mut self, kind: BlobKind) -> &mut Map {
        match kind {
            BlobKind::Data => &mut self.data,
            BlobKind::Tree => &mut self.trees,
        }
    }

    fn pack_position(&mut self, pack: PackId) -> u32 {
        let next = u32::try_from(self.packs.len()).unwrap_or(PENDING);
        *self.positions.entry(pack).or_insert_with(|| {
            self.packs.push(pack);
            next
        })
    }

    /// Adds a pack that is durable. A pack that is known already is passed over; blobs that were claimed get their place.
    pub fn add_pack(&mut self, pack: &IndexPack) {
        if self.positions.contains_key(&pack.id) {
            return;
        }
        let position = self.pack_position(pack.id);
        for blob in &pack.blobs {
            let entry = Entry::new(position, blob);
            match self.map_mut(blob.kind).find_mut(&blob.id) {
                Some(known) if known.pack == PENDING => *known = entry,
                _ => self.map_mut(blob.kind).insert(entry),
            }
        }
    }

    /// Asks for the right to store a blob; the answer is [`Claim::New`] only once for each.
    pub fn claim(&mut self, kind: BlobKind, id: BlobId) -> Claim {
        let map = self.map_mut(kind);
        if map.find(&id).is_some() {
            return Claim::Known;
        }
        map.insert(Entry { id: id.0, pack: PENDING, offset: 0, length: 0, uncompressed: 0 });
        Claim::New
    }

    /// Whether a blob is stored or claimed.
    pub fn contains(&self, kind: BlobKind, id: &BlobId) -> bool {
        self.map(kind).find(id).is_some()
    }

    /// Where a blob lies; `None` when it is unknown or not yet durable.
    pub fn get(&self, kind: BlobKind, id: &BlobId) -> Option<Location> {
        self.all(kind, id).next()
    }

    /// Every place where a blob lies.
    pub fn all<'a>(&'a self, kind: BlobKind, id: &'a BlobId) -> impl Iterator<Item = Location> + 'a {
        let durable = self.map(kind).find_all(id).filter(|entry| entry.pack != PENDING);
        durable.map(move |entry| self.location(kind, entry))
    }

    /// The length of a blob's plaintext, in bytes.
    pub fn plaintext_bytes(&self, kind: BlobKind, id: &BlobId) -> Option<u64> {
        self.get(kind, id).map(|location| location.blob.plaintext_bytes())
    }

    /// Every blob of `kind`, duplicates too, in no order.
    pub fn iter(&self, kind: BlobKind) -> impl Iterator<Item = Location> + '_ {
        let durable = self.map(kind).iter().filter(|entry| entry.pack != PENDING);
        durable.map(move |entry| self.location(kind, entry))
    }

    /// Every pack.
    pub fn packs(&self) -> &[PackId] {
        &self.packs
    }

    /// Why index files are missing here, each error naming its file: only after [`Repository::load_readable_index`].
    ///
    /// [`Repository::load_readable_index`]: crate::Repository::load_readable_index
    pub fn unreadable(&self) -> &[Error] {
        &self.unreadable
    }

    /// Takes what [`Index::unreadable`] shows.
    pub fn take_unreadable(&mut self) -> Vec<Error> {
        std::mem::take(&mut self.unreadable)
    }

    /// As [`Index::unreadable`], when the index is no longer needed.
    pub fn into_unreadable(self) -> Vec<Error> {
        self.unreadable
    }

    /// Number of blobs, duplicates too.
    pub fn len(&self) -> usize {
        self.data.len() + self.trees.len()
    }

    /// Whether there is no blob at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What the blobs' entries occupy, in bytes.
    pub fn memory_bytes(&self) -> usize {
        self.data.memory_bytes() + self.trees.memory_bytes()
    }

    fn location(&self, kind: BlobKind, entry: &Entry) -> Location {
        let blob = PackedBlob {
            id: BlobId(entry.id),
            kind,
            offset_bytes: entry.offset,
            length_bytes: entry.length,
            uncompressed_bytes: (entry.uncompressed != 0).then_some(entry.uncompressed),
        };
        Location { pack: self.packs[entry.pack as usize], blob }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn blob(id: u64, offset: u32) -> PackedBlob {
        PackedBlob {
            id: BlobId::of(&id.to_le_bytes()),
            kind: BlobKind::Data,
            offset_bytes: offset,
            length_bytes: 100,
            uncompressed_bytes: Some(200),
        }
    }

    fn pack(id: u8, blobs: impl IntoIterator<Item = u64>) -> IndexPack {
        let blobs = blobs.into_iter().zip(0u32..).map(|(id, at)| blob(id, at * 100)).collect();
        IndexPack { id: PackId([id; 32]), blobs }
    }

    proptest! {
        #[test]
        fn what_is_added_is_found_and_nothing_else(known in 0u64..5000) {
            let mut index = Index::default();
            index.add_pack(&pack(1, 0..known));
            for id in 0..known {
                let location = index.get(BlobKind::Data, &blob(id, 0).id).unwrap();
                prop_assert_eq!((location.pack, location.blob), (PackId([1; 32]), blob(id, id as u32 * 100)));
            }
            prop_assert_eq!(index.get(BlobKind::Data, &blob(known, 0).id), None);
            prop_assert_eq!(index.get(BlobKind::Tree, &blob(0, 0).id), None);
        }
    }

    #[test]
    fn one_claim_wins_and_the_blob_is_found_when_it_is_durable() {
        let mut index = Index::default();
        let id = blob(7, 0).id;
        assert_eq!(index.claim(BlobKind::Data, id), Claim::New);
        assert_eq!(index.claim(BlobKind::Data, id), Claim::Known);
        assert_eq!(index.get(BlobKind::Data, &id), None);
        index.add_pack(&pack(1, [7]));
        assert!(index.get(BlobKind::Data, &id).is_some());
        assert_eq!(index.len(), 1);
    }

    #[test]
    fn a_blob_in_two_packs_has_two_places() {
        let mut index = Index::default();
        index.add_pack(&pack(1, [7]));
        index.add_pack(&pack(2, [8, 7]));
        index.add_pack(&pack(2, [8, 7]));
        let places: Vec<PackId> = index.all(BlobKind::Data, &blob(7, 0).id).map(|place| place.pack).collect();
        assert_eq!(places.len(), 2);
        assert_eq!(index.iter(BlobKind::Data).count(), 3);
    }

    #[test]
    fn a_blob_costs_at_most_60_bytes() {
        for count in [100_000u64, 230_000, 500_000] {
            let mut index = Index::default();
            for first in (0..count).step_by(1000) {
                let mut id = [0; 32];
                id[..8].copy_from_slice(&first.to_le_bytes());
                index.add_pack(&IndexPack { id: PackId(id), ..pack(0, first..first + 1000) });
            }
            let each = index.memory_bytes() as f64 / count as f64;
            assert!(each <= 60.0, "{each} bytes a blob at {count}");
        }
    }
}

//! Which parts of packs are read, for layouts and indexes by chance.

use super::*;
use crate::crypto::OVERHEAD_BYTES;
use crate::format::index::IndexPack;
use crate::format::tree::{Node, NodeKind};
use crate::id::BlobId;
use crate::restore::layout::ROOT;
use proptest::prelude::*;
use std::collections::{BTreeSet, HashSet};

const GAP_BYTES: u32 = NEAR.gap_bytes;
const RANGE_BYTES: u32 = NEAR.range_bytes;

fn blob_id(number: u8) -> BlobId {
    BlobId::of(&[number])
}

/// Packs of blobs by number and length, one after the other.
fn index(packs: &[Vec<(u8, u32)>]) -> Index {
    let mut index = Index::default();
    for (blobs, number) in packs.iter().zip(1u8..) {
        let mut offset_bytes = 0;
        let place = |(id, length_bytes): &(u8, u32)| {
            let (id, kind) = (blob_id(*id), BlobKind::Data);
            let blob =
                PackedBlob { id, kind, offset_bytes, length_bytes: *length_bytes, uncompressed_bytes: None };
            offset_bytes += length_bytes;
            blob
        };
        index.add_pack(&IndexPack { id: PackId([number; 32]), blobs: blobs.iter().map(place).collect() });
    }
    index
}

/// One file for each list of blobs.
fn layout(files: &[Vec<u8>], index: &Index) -> Layout {
    let mut layout = Layout::default();
    layout.add(ROOT, &Node::new("", NodeKind::Directory), Kind::Directory, 0).unwrap();
    for (number, blobs) in files.iter().enumerate() {
        let name = format!("f{number}");
        layout.add(ROOT, &Node::new(name.as_str(), NodeKind::File), Kind::File, 0).unwrap();
        let mut end = 0;
        for blob in blobs {
            end += index.plaintext_bytes(BlobKind::Data, &blob_id(*blob)).unwrap_or(0);
            layout.add_chunk(blob_id(*blob), end);
        }
    }
    layout
}

fn all(layout: &Layout) -> impl Iterator<Item = u32> {
    0..u32::try_from(layout.chunk_count()).unwrap()
}

fn ranges(jobs: &Jobs, layout: &Layout, index: &Index) -> Vec<PackRange> {
    std::iter::from_fn(|| jobs.next(layout, index)).collect()
}

/// Where each range begins and ends, and how many blobs are taken out of it.
fn shape(packs: &[Vec<(u8, u32)>], files: &[Vec<u8>]) -> Vec<(u8, u64, u64, usize)> {
    let index = index(packs);
    let layout = layout(files, &index);
    let (jobs, unknown) = sort(&layout, &index, all(&layout), NEAR);
    assert!(unknown.is_empty());
    let shown = |range: PackRange| (range.pack.0[0], range.bytes.start, range.bytes.end, range.blobs.len());
    ranges(&jobs, &layout, &index).into_iter().map(shown).collect()
}

#[test]
fn neighbours_are_read_at_once_and_a_small_gap_with_them() {
    let packs = |gap| [vec![(1, 100), (2, gap), (3, 100)]];
    assert_eq!(shape(&packs(50), &[vec![1, 2, 3]]), [(1, 0, 250, 3)]);
    assert_eq!(shape(&packs(GAP_BYTES), &[vec![1, 3]]), [(1, 0, 200 + u64::from(GAP_BYTES), 2)]);
    let gap = u64::from(GAP_BYTES) + 1;
    assert_eq!(shape(&packs(GAP_BYTES + 1), &[vec![1, 3]]), [(1, 0, 100, 1), (1, 100 + gap, 200 + gap, 1)]);
}

#[test]
fn a_range_has_no_more_than_its_limit_but_at_least_one_blob() {
    let half = RANGE_BYTES / 2;
    let limit = u64::from(RANGE_BYTES);
    assert_eq!(
        shape(&[vec![(1, half), (2, half), (3, 40)]], &[vec![1, 2, 3]]),
        [(1, 0, limit, 2), (1, limit, limit + 40, 1)]
    );
    let huge = 3 * limit;
    assert_eq!(
        shape(&[vec![(1, 3 * RANGE_BYTES), (2, 40)]], &[vec![1, 2]]),
        [(1, 0, huge, 1), (1, huge, huge + 40, 1)]
    );
}

#[test]
fn from_far_a_pack_is_read_whole_and_over_longer_gaps() {
    let far = |far| Reach::of(Capabilities { conditional_create: true, delete: true, versions: false, far });
    let packs = [vec![(1, 8 << 20), (2, GAP_BYTES + 1), (3, 8 << 20)]];
    let (index, files) = (index(&packs), [vec![1, 3]]);
    let layout = layout(&files, &index);
    for (is_far, expected) in [(true, vec![2]), (false, vec![1, 1])] {
        let (jobs, _) = sort(&layout, &index, all(&layout), far(is_far));
        let blobs: Vec<usize> =
            ranges(&jobs, &layout, &index).iter().map(|range| range.blobs.len()).collect();
        assert_eq!(blobs, expected);
    }
}

#[test]
fn a_blob_that_is_wanted_in_many_places_is_read_once() {
    let index = index(&[vec![(1, 100), (2, 100)]]);
    let layout = layout(&[vec![2, 1, 2], vec![2]], &index);
    let (jobs, _) = sort(&layout, &index, all(&layout), NEAR);
    let found = ranges(&jobs, &layout, &index);
    let chunks: Vec<_> = found[0].blobs.iter().map(|(blob, chunks)| (blob.id, chunks.clone())).collect();
    assert_eq!(found.len(), 1);
    assert_eq!(chunks, [(blob_id(1), vec![1]), (blob_id(2), vec![0, 2, 3])]);
}

#[test]
fn what_no_index_names_is_told_and_what_nobody_took_is_left() {
    let index = index(&[vec![(1, 100)], vec![(2, 100)]]);
    let layout = layout(&[vec![1, 9, 2], vec![9]], &index);
    let (jobs, unknown) = sort(&layout, &index, all(&layout), NEAR);
    assert_eq!(unknown, [1, 3]);
    assert_eq!(jobs.next(&layout, &index).unwrap().pack, PackId([1; 32]));
    assert_eq!(jobs.into_rest().collect::<Vec<_>>(), [2]);
}

/// Lengths on both sides of the limits.
fn length() -> impl Strategy<Value = u32> {
    let least = u32::try_from(OVERHEAD_BYTES).unwrap();
    prop_oneof![least..2_000, GAP_BYTES - 40..GAP_BYTES + 40, RANGE_BYTES / 3..RANGE_BYTES / 2 + 9]
}

proptest! {
    /// Whatever lies where and whatever is wanted: each wanted chunk is in exactly one range, at its blob, which lies within.
    #[test]
    fn each_chunk_that_is_wanted_is_read_exactly_once(
        packs in prop::collection::vec(prop::collection::vec((0u8..30, length()), 1..12), 1..4),
        files in prop::collection::vec(prop::collection::vec(0u8..32, 0..8), 0..8),
        skipped in prop::collection::hash_set(0u32..64, 0..20),
    ) {
        let index = index(&packs);
        let layout = layout(&files, &index);
        let asked: Vec<u32> = all(&layout).filter(|chunk| !skipped.contains(chunk)).collect();
        let (jobs, unknown) = sort(&layout, &index, asked.iter().copied(), NEAR);
        let mut seen: Vec<u32> = unknown;
        for chunk in &seen {
            prop_assert!(!index.contains(BlobKind::Data, &layout.chunk(*chunk).id));
        }
        let mut ends: HashMap<PackId, u64> = HashMap::new();
        let mut finished = HashSet::new();
        let mut last_pack = None;
        for range in ranges(&jobs, &layout, &index) {
            // Packs one after the other, and in each only forwards.
            if last_pack != Some(range.pack) {
                prop_assert!(finished.insert(range.pack), "a pack is read twice");
                last_pack = Some(range.pack);
            }
            let end = ends.insert(range.pack, range.bytes.end).unwrap_or(0);
            prop_assert!(range.bytes.start >= end, "bytes are read twice");
            let long = range.bytes.end - range.bytes.start > u64::from(RANGE_BYTES);
            prop_assert!(!long || range.blobs.len() == 1);
            prop_assert_eq!(range.bytes.start, u64::from(range.blobs[0].0.offset_bytes));
            let mut at = range.bytes.start;
            for (blob, chunks) in &range.blobs {
                let start = u64::from(blob.offset_bytes);
                prop_assert!(start >= at && start - at <= u64::from(GAP_BYTES));
                at = start + u64::from(blob.length_bytes);
                prop_assert!(index.all(BlobKind::Data, &blob.id).any(|place| place.pack == range.pack && place.blob == *blob));
                for chunk in chunks {
                    prop_assert_eq!(layout.chunk(*chunk).id, blob.id);
                }
                seen.extend(chunks);
            }
            prop_assert_eq!(at, range.bytes.end, "no byte behind the last blob");
        }
        seen.sort_unstable();
        prop_assert_eq!(seen, asked);
    }

    /// However many readers stop in the middle: what they took and what is left is all there is.
    #[test]
    fn what_was_taken_and_what_is_left_is_everything(
        lengths in prop::collection::vec(length(), 1..20),
        taken in 0usize..6,
    ) {
        let pack: Vec<(u8, u32)> = (0u8..).zip(lengths).collect();
        let blobs: Vec<u8> = pack.iter().map(|(id, _)| *id).rev().collect();
        let index = index(&[pack]);
        let layout = layout(&[blobs.clone(), blobs], &index);
        let (jobs, _) = sort(&layout, &index, all(&layout), NEAR);
        let took: Vec<u32> = (0..taken)
            .map_while(|_| jobs.next(&layout, &index))
            .flat_map(|range| range.blobs.into_iter().flat_map(|(_, chunks)| chunks))
            .collect();
        let left: Vec<u32> = jobs.into_rest().collect();
        let both: BTreeSet<u32> = took.iter().chain(&left).copied().collect();
        prop_assert_eq!(both.len(), took.len() + left.len(), "one chunk is both");
        prop_assert_eq!(both.len(), layout.chunk_count());
    }
}

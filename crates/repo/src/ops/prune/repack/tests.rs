//! Which blobs are copied before their packs go, against what would be lost; and the copying itself.

use super::*;
use crate::format::index::IndexPack;
use crate::format::pack::PackedBlob;
use crate::format::time::Time;
use crate::repository::Folder;
use crate::store::{BlockingStore, ObjectStore};
use proptest::prelude::*;
use retoma_core::Secret;
use std::collections::HashMap;
use std::sync::Arc;

fn blob_id(number: u8) -> BlobId {
    BlobId::of(&[number])
}

fn pack_id(number: u8) -> PackId {
    PackId([number; 32])
}

fn pack(number: u8, blobs: &[u8]) -> IndexPack {
    let blob = |(id, at): (&u8, u32)| PackedBlob {
        id: blob_id(*id),
        kind: BlobKind::Data,
        offset_bytes: at * 100,
        length_bytes: 100,
        uncompressed_bytes: None,
    };
    IndexPack { id: pack_id(number), blobs: blobs.iter().zip(0..).map(blob).collect() }
}

fn current(packs: &[Vec<u8>], is_there: impl Fn(u8) -> bool) -> Current {
    let mut index = Index::default();
    let mut sizes = HashMap::new();
    for (blobs, number) in packs.iter().zip(1u8..) {
        let pack = pack(number, blobs);
        index.add_pack(&pack);
        if is_there(number) {
            sizes.insert(pack.id, pack.pack_bytes());
        }
    }
    Current { roots: Vec::new(), index, sizes }
}

fn needs(blobs: impl IntoIterator<Item = u8>) -> Known {
    let data = blobs.into_iter().map(blob_id).collect();
    Known { data, ..Known::new(Time::from_unix(0, 0)) }
}

fn ids(numbers: &[u8]) -> HashSet<PackId> {
    numbers.iter().map(|number| pack_id(*number)).collect()
}

/// What is copied from where, as numbers of packs and how many blobs; what stays doomed; what is needed again.
type Found = (Vec<(u8, usize)>, Vec<u8>, Vec<u8>);

fn find(packs: &[Vec<u8>], needed: &[u8], doomed: &[u8], sources: &[u8]) -> Found {
    let (mut doomed, mut again) = (ids(doomed), Vec::new());
    let current = current(packs, |_| true);
    let known = needs(needed.iter().copied());
    let copies = Copies::find(&current, &known, &mut doomed, &ids(sources), &mut again).unwrap();
    let copied = copies.packs.iter().map(|(id, blobs)| (id.0[0], blobs.len())).collect();
    let mut doomed: Vec<u8> = doomed.iter().map(|id| id.0[0]).collect();
    doomed.sort_unstable();
    (copied, doomed, again.iter().map(|id| id.0[0]).collect())
}

#[test]
fn what_lies_elsewhere_is_not_copied_and_what_nobody_needs_neither() {
    let packs = [vec![1, 2, 3], vec![2], vec![3]];
    assert_eq!(find(&packs, &[1, 2], &[1], &[1]), (vec![(1, 1)], vec![1], vec![]), "2 is safe, 3 is waste");
    assert_eq!(find(&packs, &[], &[1, 2, 3], &[1]), (vec![], vec![1, 2, 3], vec![]));
    assert_eq!(
        find(&packs, &[2], &[1, 2], &[2, 1]),
        (vec![(1, 1)], vec![1, 2], vec![]),
        "once, from the first"
    );
}

#[test]
fn what_nobody_may_copy_keeps_its_pack_which_then_saves_copies() {
    // Nobody may copy from pack 1, and blob 1 is nowhere else; blob 2, which lies there too, needs no copy then.
    let packs = [vec![1, 2], vec![2, 3]];
    assert_eq!(find(&packs, &[1, 2], &[1, 2], &[2]), (vec![], vec![2], vec![1]));
    assert_eq!(find(&packs, &[2], &[1, 2], &[2]), (vec![(2, 1)], vec![1, 2], vec![]));
}

#[test]
fn a_blob_whose_packs_are_all_gone_stops_everything() {
    let current = current(&[vec![1], vec![1]], |_| false);
    let (mut doomed, mut again) = (ids(&[1]), Vec::new());
    let error = Copies::find(&current, &needs([1]), &mut doomed, &ids(&[1]), &mut again).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Corrupt, codes::BLOB_MISSING));
    let gone = Copies::find(&current, &needs([9]), &mut doomed, &ids(&[1]), &mut again).unwrap_err();
    assert_eq!(gone.code(), codes::BLOB_MISSING, "in no index at all");
}

proptest! {
    /// Whatever lies where, is needed, doomed or gone: afterwards each needed blob has a pack that stays, or is copied, once,
    /// from a pack that may be read; and nothing else is.
    #[test]
    fn after_the_copies_nothing_that_is_needed_is_lost_and_nothing_else_is_copied(
        packs in prop::collection::vec(prop::collection::btree_set(0u8..10, 1..6), 1..7),
        needed in prop::collection::btree_set(0u8..10, 0..10),
        doomed in prop::collection::btree_set(1u8..8, 0..7),
        sources in prop::collection::btree_set(1u8..8, 0..7),
        gone in prop::collection::btree_set(1u8..8, 0..3),
    ) {
        let packs: Vec<Vec<u8>> = packs.into_iter().map(|blobs| blobs.into_iter().collect()).collect();
        let there = |number: u8| !gone.contains(&number);
        let current = current(&packs, there);
        let homes = |blob: u8| {
            let has = move |(blobs, number): (&Vec<u8>, u8)| (blobs.contains(&blob) && there(number)).then_some(number);
            packs.iter().zip(1u8..).filter_map(has).collect::<Vec<u8>>()
        };
        let asked: Vec<u8> = doomed.iter().copied().collect();
        let readable: Vec<u8> = sources.iter().copied().filter(|number| doomed.contains(number)).collect();
        let (mut left, sources) = (ids(&asked), ids(&readable));
        let mut again = Vec::new();
        let found = Copies::find(&current, &needs(needed.clone()), &mut left, &sources, &mut again);
        if needed.iter().any(|blob| homes(*blob).is_empty()) {
            prop_assert!(found.is_err());
            return Ok(());
        }
        let copies = found.unwrap();
        let mut copied: HashMap<BlobId, usize> = HashMap::new();
        for (pack, places) in &copies.packs {
            prop_assert!(left.contains(pack) && sources.contains(pack) && current.sizes.contains_key(pack));
            prop_assert!(places.is_sorted_by_key(|place| place.blob.offset_bytes));
            for place in places {
                prop_assert_eq!(place.pack, *pack);
                *copied.entry(place.blob.id).or_default() += 1;
            }
        }
        for blob in 0..10u8 {
            let stays = homes(blob).iter().any(|number| !left.contains(&pack_id(*number)));
            let count = copied.get(&blob_id(blob)).copied().unwrap_or(0);
            prop_assert_eq!(count, usize::from(needed.contains(&blob) && !stays), "blob {}", blob);
        }
        for pack in &again {
            prop_assert!(asked.contains(&pack.0[0]) && !left.contains(pack));
        }
        prop_assert_eq!(left.len() + again.len(), asked.len());
    }
}

fn repository() -> Repository {
    let store = BlockingStore::new(Arc::new(ObjectStore::memory())).unwrap();
    Repository::init(store, &Secret::new("a test".to_owned())).unwrap()
}

/// Stores each text as a blob, all in one pack, and gives the index.
fn stored(repository: &Repository, texts: &[&str]) -> Index {
    let (index, packer) = (RwLock::new(Index::default()), Packer::new(repository.clone()));
    for text in texts {
        let sealed = repository.key().seal(text.as_bytes()).unwrap();
        packer.add(&index, BlobKind::Data, BlobId::of(text.as_bytes()), &sealed, None).unwrap();
    }
    packer.finish(&index).unwrap();
    repository.load_index().unwrap()
}

fn copies_of(index: &Index, texts: &[&str]) -> Copies {
    let mut copies = Copies::default();
    for text in texts {
        let place = index.get(BlobKind::Data, &BlobId::of(text.as_bytes())).unwrap();
        copies.packs.entry(place.pack).or_default().push(place);
    }
    for blobs in copies.packs.values_mut() {
        blobs.sort_by_key(|place| place.blob.offset_bytes);
    }
    copies
}

#[test]
fn copied_blobs_lie_in_a_new_pack_with_the_same_contents_and_the_old_one_is_as_it_was() {
    let repository = repository();
    let texts = ["one", "two", "three", "four"];
    let index = stored(&repository, &texts);
    let old = index.packs().to_vec();
    let copies = copies_of(&index, &["four", "two"]);
    let bytes = copies.copy(&repository, Index::default(), &Progress::default()).unwrap();
    let after = repository.load_index().unwrap();
    let new: Vec<PackId> = after.packs().iter().copied().filter(|pack| !old.contains(pack)).collect();
    let sizes: HashMap<PackId, u64> = repository
        .list(Folder::Data)
        .unwrap()
        .into_iter()
        .map(|(id, meta)| (PackId(id), meta.size_bytes))
        .collect();
    assert_eq!((old.len(), new.len(), sizes.len()), (1, 1, 2));
    assert_eq!(sizes[&new[0]], bytes);
    for text in texts {
        let id = BlobId::of(text.as_bytes());
        let places: Vec<Location> = after.all(BlobKind::Data, &id).collect();
        assert_eq!(places.len(), if matches!(text, "four" | "two") { 2 } else { 1 }, "{text}");
        for place in places {
            assert_eq!(repository.read_at(&place).unwrap(), text.as_bytes());
        }
    }
}

/// An index may be wrong about where a blob lies: what is not that blob is never stored under its name.
#[test]
fn a_blob_that_is_not_what_its_name_says_stops_the_copy() {
    let repository = repository();
    let index = stored(&repository, &["one", "two"]);
    for change in [
        |place: &mut Location| place.blob.id = BlobId::of(b"other"),
        |place: &mut Location| place.blob.offset_bytes += 1,
        |place: &mut Location| place.blob.length_bytes -= 1,
        |place: &mut Location| place.blob.uncompressed_bytes = Some(3),
    ] {
        let mut copies = copies_of(&index, &["one"]);
        change(&mut copies.packs.values_mut().next().unwrap()[0]);
        let error = copies.copy(&repository, Index::default(), &Progress::default()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
        assert_eq!(repository.list(Folder::Data).unwrap().len(), 1, "nothing was stored");
    }
}

#[test]
fn a_copy_that_is_stopped_stores_nothing() {
    let repository = repository();
    let index = stored(&repository, &["one"]);
    let progress = Progress::default();
    progress.cancel();
    let error = copies_of(&index, &["one"]).copy(&repository, Index::default(), &progress).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(repository.list(Folder::Data).unwrap().len(), 1);
}

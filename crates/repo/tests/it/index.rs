//! The index in memory beside a plain list of what was added and claimed.

use proptest::prelude::*;
use retoma_repo::format::BlobKind;
use retoma_repo::format::index::IndexPack;
use retoma_repo::format::pack::PackedBlob;
use retoma_repo::index::{Claim, Index, Location};
use retoma_repo::{BlobId, PackId};
use std::collections::HashSet;

/// Ids of which some begin with the same eight bytes, as the table's hash is made of those.
fn blob_id(number: u8) -> BlobId {
    let mut id = [number / 4; 32];
    id[31] = number;
    BlobId(id)
}

fn kind(is_tree: bool) -> BlobKind {
    if is_tree { BlobKind::Tree } else { BlobKind::Data }
}

#[derive(Debug, Clone)]
enum Step {
    Claim(bool, u8),
    Add(u8, Vec<(bool, u8, Option<u16>)>),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = 0u8..24;
    let blobs = prop::collection::vec((any::<bool>(), id.clone(), prop::option::of(1u16..)), 0..6);
    let step = prop_oneof![
        (any::<bool>(), id).prop_map(|(tree, id)| Step::Claim(tree, id)),
        (0u8..12, blobs).prop_map(|(pack, blobs)| Step::Add(pack, blobs)),
    ];
    prop::collection::vec(step, 0..40)
}

fn pack(number: u8, blobs: &[(bool, u8, Option<u16>)]) -> IndexPack {
    let blob = |((tree, id, plain), at): (&(bool, u8, Option<u16>), u32)| PackedBlob {
        id: blob_id(*id),
        kind: kind(*tree),
        offset_bytes: at * 50,
        length_bytes: 50,
        uncompressed_bytes: plain.map(u32::from),
    };
    IndexPack { id: PackId([number; 32]), blobs: blobs.iter().zip(0..).map(blob).collect() }
}

fn sorted(places: impl Iterator<Item = Location>) -> Vec<(PackId, u32, Option<u32>)> {
    let mut places: Vec<_> =
        places.map(|it| (it.pack, it.blob.offset_bytes, it.blob.uncompressed_bytes)).collect();
    places.sort_unstable();
    places
}

proptest! {
    #[test]
    fn what_is_known_is_what_was_added_and_a_claim_wins_once(steps in steps()) {
        let mut index = Index::default();
        let (mut packs, mut places): (Vec<PackId>, Vec<Location>) = Default::default();
        let mut known: HashSet<(BlobKind, BlobId)> = HashSet::new();
        for step in steps {
            match step {
                Step::Claim(tree, id) => {
                    let (kind, id) = (kind(tree), blob_id(id));
                    let is_new = index.claim(kind, id) == Claim::New;
                    prop_assert_eq!(is_new, known.insert((kind, id)));
                }
                Step::Add(number, blobs) => {
                    let pack = pack(number, &blobs);
                    index.add_pack(&pack);
                    // What is said of a pack for the second time counts for nothing.
                    if !packs.contains(&pack.id) {
                        packs.push(pack.id);
                        places.extend(pack.blobs.iter().map(|blob| Location { pack: pack.id, blob: *blob }));
                        known.extend(pack.blobs.iter().map(|blob| (blob.kind, blob.id)));
                    }
                }
            }
        }
        prop_assert_eq!(index.packs(), packs);
        for kind in [BlobKind::Data, BlobKind::Tree] {
            let of_kind = || places.iter().copied().filter(|place| place.blob.kind == kind);
            prop_assert_eq!(sorted(index.iter(kind)), sorted(of_kind()));
            for id in (0..24).map(blob_id) {
                let own = sorted(of_kind().filter(|place| place.blob.id == id));
                prop_assert_eq!(sorted(index.all(kind, &id)), own.clone());
                prop_assert_eq!(index.contains(kind, &id), known.contains(&(kind, id)));
                let one = index.get(kind, &id);
                prop_assert_eq!(one.is_some(), !own.is_empty());
                if let Some(one) = one {
                    prop_assert_eq!((one.blob.kind, one.blob.id), (kind, id));
                    prop_assert!(own.contains(&(one.pack, one.blob.offset_bytes, one.blob.uncompressed_bytes)));
                    let bytes = one.blob.uncompressed_bytes.map_or(50 - 32, u64::from);
                    prop_assert_eq!(index.plaintext_bytes(kind, &id), Some(bytes));
                }
            }
        }
        let claimed = known.iter().filter(|(kind, id)| index.get(*kind, id).is_none()).count();
        prop_assert_eq!(index.len(), places.len() + claimed);
        prop_assert_eq!(index.is_empty(), known.is_empty());
    }
}

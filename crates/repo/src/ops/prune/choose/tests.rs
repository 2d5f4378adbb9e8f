use super::*;
use crate::format::index::IndexPack;
use crate::format::mark::{Mark, MarkedPack};
use crate::format::pack::PackedBlob;
use proptest::prelude::*;
use std::time::Duration;

const NOW: i64 = 1_000_000;
const GRACE: i64 = 1_000;

fn options() -> Options {
    let now = Time::from_unix(NOW, 0);
    Options {
        now,
        grace: Duration::from_secs(1_000),
        repack_unused_percent: 20,
        small_pack_bytes: 0,
        small_packs: 4,
        without_snapshots: false,
    }
}

fn blob_id(number: u8) -> BlobId {
    BlobId::of(&[number])
}

fn pack_id(number: u8) -> PackId {
    PackId([number; 32])
}

/// A pack with blobs, by number and length.
fn pack(number: u8, kind: BlobKind, blobs: &[(u8, u32)]) -> IndexPack {
    let mut offset_bytes = 0;
    let place = |(id, length_bytes): &(u8, u32)| {
        let blob = PackedBlob {
            id: blob_id(*id),
            kind,
            offset_bytes,
            length_bytes: *length_bytes,
            uncompressed_bytes: None,
        };
        offset_bytes += length_bytes;
        blob
    };
    IndexPack { id: pack_id(number), blobs: blobs.iter().map(place).collect() }
}

/// A repository with these packs, all there and whole.
fn current(packs: &[IndexPack]) -> Current {
    let mut index = Index::default();
    for pack in packs {
        index.add_pack(pack);
    }
    let sizes = packs.iter().map(|pack| (pack.id, pack.pack_bytes())).collect();
    Current { roots: Vec::new(), index, sizes }
}

fn needs(data: &[u8], trees: &[u8]) -> Known {
    let ids = |numbers: &[u8]| numbers.iter().map(|number| blob_id(*number)).collect();
    Known { data: ids(data), trees: ids(trees), ..Known::new(Time::from_unix(0, 0)) }
}

fn mark(number: u8, age: i64, packs: &[(u8, Reason)]) -> StoredMark {
    let packs = packs.iter().map(|(id, reason)| MarkedPack { id: pack_id(*id), reason: *reason }).collect();
    StoredMark { id: MarkId([number; 32]), mark: Mark { time: Time::from_unix(NOW - age, 0), packs } }
}

fn plan(options: Options, current: &Current, known: Known, marks: &[StoredMark]) -> PrunePlan {
    choose(options, current, known, marks).unwrap()
}

fn removed(plan: &PrunePlan) -> Vec<(u8, Reason)> {
    plan.remove.iter().map(|pack| (pack.id.0[0], pack.reason)).collect()
}

fn repacked(plan: &PrunePlan) -> Vec<u8> {
    plan.repack.iter().map(|pack| pack.id.0[0]).collect()
}

#[test]
fn a_pack_is_copied_when_more_of_it_is_waste_than_allowed_and_not_when_it_is_just_as_much() {
    // With a needed blob of `4 × waste − overhead` bytes, the waste is a fifth of the whole pack.
    let overhead = u32::try_from(pack(1, BlobKind::Data, &[(1, 0), (2, 0)]).pack_bytes()).unwrap();
    for (waste, is_copied) in [(1_000, false), (1_001, true), (999, false)] {
        let packs = [pack(1, BlobKind::Data, &[(1, 4_000 - overhead), (2, waste)])];
        let plan = plan(options(), &current(&packs), needs(&[1], &[]), &[]);
        assert_eq!(!plan.repack.is_empty(), is_copied, "{waste}");
        assert_eq!((plan.used.count, plan.unused), (1, Share { count: 1, size_bytes: u64::from(waste) }));
        assert_eq!(plan.keep.count, u64::from(!is_copied));
        let copied = plan.repack.iter().map(|pack| pack.used_bytes).sum::<u64>();
        assert_eq!(copied, if is_copied { u64::from(4_000 - overhead) } else { 0 });
    }
}

#[test]
fn small_packs_are_merged_when_there_are_enough_of_a_kind() {
    let data = |number| pack(number, BlobKind::Data, &[(number, 100)]);
    let tree = |number| pack(number, BlobKind::Tree, &[(number, 100)]);
    let packs = [data(1), data(2), data(3), data(4), tree(5), tree(6), tree(7)];
    let known = || needs(&[1, 2, 3, 4], &[5, 6, 7]);
    let size = packs[0].pack_bytes();
    let merged = |small_pack_bytes, small_packs| {
        let options = Options { small_pack_bytes, small_packs, ..options() };
        repacked(&plan(options, &current(&packs), known(), &[]))
    };
    assert_eq!(merged(size + 1, 5), [0; 0]);
    assert_eq!(merged(size + 1, 4), [1, 2, 3, 4], "kinds are never mixed, so trees are counted apart");
    assert_eq!(merged(size + 1, 3), [1, 2, 3, 4, 5, 6, 7]);
    assert_eq!(merged(size, 2), [0; 0], "just as large is not small");
    let alone = current(&packs[..1]);
    for small_packs in [0, 1, 2] {
        let options = Options { small_pack_bytes: size + 1, small_packs, ..options() };
        let plan = plan(options, &alone, needs(&[1], &[]), &[]);
        assert!(plan.is_empty(), "one pack cannot be merged: {small_packs}");
    }
}

#[test]
fn of_a_blob_that_lies_twice_the_copy_in_the_best_pack_stays() {
    // The second pack has more that is needed; the copy in the first one is waste.
    let packs = [
        pack(1, BlobKind::Data, &[(1, 100)]),
        pack(2, BlobKind::Data, &[(1, 100), (2, 100)]),
        pack(3, BlobKind::Data, &[(1, 100), (2, 100), (3, 100)]),
    ];
    let known = || needs(&[1, 2, 3], &[]);
    let whole = current(&packs);
    assert_eq!(removed(&plan(options(), &whole, known(), &[])), [(1, Reason::Unused), (2, Reason::Unused)]);
    // What is going is no home while there is another …
    let marks = [mark(9, 0, &[(3, Reason::Unused)])];
    let beside = plan(options(), &whole, needs(&[1, 2], &[]), &marks);
    assert_eq!(removed(&beside), [(1, Reason::Unused)]);
    // … nor is a pack that is not there any more, which then goes out of the index.
    let mut without = current(&packs);
    without.sizes.remove(&pack_id(3));
    let gone = plan(options(), &without, needs(&[1, 2], &[]), &[]);
    assert_eq!(removed(&gone), [(1, Reason::Unused), (3, Reason::Unused)]);
    assert_eq!(gone.remove[1].size_bytes, 0);
    assert_eq!(choose(options(), &without, known(), &[]).unwrap_err().code(), codes::PACK_MISSING);
    // What was cut off is none, and refused where it is the only one.
    let mut cut = current(&packs);
    cut.sizes.insert(pack_id(3), 100);
    let beside = plan(options(), &cut, needs(&[1, 2], &[]), &[]);
    assert_eq!(removed(&beside), [(1, Reason::Unused), (3, Reason::Unused)]);
    assert_eq!(choose(options(), &cut, known(), &[]).unwrap_err().code(), codes::PACK_MISSING);
}

#[test]
fn what_is_marked_waits_for_its_time_and_is_decided_anew_where_there_is_no_grace() {
    let packs = [pack(1, BlobKind::Data, &[(1, 100)]), pack(2, BlobKind::Data, &[(2, 100)])];
    let mut found = current(&packs);
    found.sizes.insert(pack_id(3), 77);
    let marked = [(1, Reason::Unused), (2, Reason::Repacked), (3, Reason::Unindexed)];
    let decide = |age, options| plan(options, &found, needs(&[2], &[]), &[mark(9, age, &marked)]);
    for age in [0, GRACE - 1] {
        let young = decide(age, options());
        assert!(young.is_empty(), "{young:?}");
        let waiting = &young.waiting[0];
        assert_eq!((waiting.packs, waiting.until), (3, Time::from_unix(NOW - age + GRACE, 0)));
        assert_eq!(waiting.size_bytes, packs[0].pack_bytes() + packs[1].pack_bytes() + 77);
    }
    let ripe = decide(GRACE, options());
    assert!(ripe.waiting.is_empty() && ripe.remove.is_empty());
    let sweep = &ripe.sweep[0];
    let parts = [&sweep.indexed, &sweep.unindexed, &sweep.needed_again];
    assert_eq!(parts.map(Vec::as_slice), [[pack_id(1)], [pack_id(3)], [pack_id(2)]]);
    assert_eq!(sweep.size_bytes, packs[0].pack_bytes() + 77);
    let now = decide(0, Options { grace: Duration::ZERO, ..options() });
    assert_eq!(removed(&now), [(1, Reason::Unused), (3, Reason::Unindexed)]);
    assert!(now.sweep.is_empty() && now.waiting.is_empty());
    assert_eq!(now.keep, Share { count: 1, size_bytes: packs[1].pack_bytes() });
}

#[test]
fn a_pack_that_was_in_no_index_and_is_in_one_now_is_never_swept() {
    let packs = [pack(1, BlobKind::Data, &[(1, 100)])];
    let marks = [mark(9, GRACE, &[(1, Reason::Unindexed)])];
    let plan = plan(options(), &current(&packs), needs(&[], &[]), &marks);
    assert_eq!(plan.sweep[0].needed_again, [pack_id(1)], "a backup has just committed it");
    assert!(plan.sweep[0].indexed.is_empty());
}

#[test]
fn a_grace_without_end_never_ends() {
    let forever = Options { grace: Duration::MAX, ..options() };
    assert!(!forever.is_ripe(Time::from_unix(0, 0)));
    assert_eq!(forever.until(Time::from_unix(0, 0)).0, jiff::Timestamp::MAX);
}

/// Packs with some blobs of a few, which of them are needed, and which packs are marked since when.
type Repository = (Vec<Vec<u8>>, Vec<bool>, Vec<Option<i64>>);

fn repositories() -> impl Strategy<Value = Repository> {
    let packs = prop::collection::vec(prop::collection::vec(0u8..12, 1..5), 1..8);
    let ages = prop::collection::vec(prop::option::of(0..2 * GRACE), 8);
    (packs, prop::collection::vec(any::<bool>(), 12), ages)
}

proptest! {
    /// Whatever is stored, needed and marked: the plan names each pack once, and dooms nothing that is needed.
    #[test]
    fn a_plan_dooms_nothing_that_is_needed(
        (packs, needed, ages) in repositories(),
        percent in 0u8..100,
        small_pack_bytes in prop_oneof![Just(0u64), Just(1 << 20)],
        grace in prop_oneof![Just(0u64), Just(1_000)],
    ) {
        let packs: Vec<IndexPack> = packs.iter().zip(1u8..).map(|(blobs, number)| {
            let blobs: Vec<(u8, u32)> = blobs.iter().map(|id| (*id, 100 + u32::from(*id))).collect();
            pack(number, BlobKind::Data, &blobs)
        }).collect();
        let stored: HashSet<BlobId> = packs.iter().flat_map(|pack| &pack.blobs).map(|blob| blob.id).collect();
        let needed: Vec<u8> =
            (0..12).filter(|id| needed[usize::from(*id)] && stored.contains(&blob_id(*id))).collect();
        let marks: Vec<StoredMark> = ages.iter().zip(1u8..).take(packs.len())
            .filter_map(|(age, number)| Some(mark(number, (*age)?, &[(number, Reason::Unused)]))).collect();
        let options = Options {
            grace: Duration::from_secs(grace), repack_unused_percent: percent, small_pack_bytes, ..options()
        };
        let plan = plan(options, &current(&packs), needs(&needed, &[]), &marks);

        let entries: usize = packs.iter().map(|pack| pack.blobs.len()).sum();
        prop_assert_eq!(plan.used.count, needed.len() as u64);
        prop_assert_eq!(plan.used.count + plan.unused.count, entries as u64);
        let removed: Vec<PackId> = plan.remove.iter().map(|pack| pack.id).collect();
        let repacked: Vec<PackId> = plan.repack.iter().map(|pack| pack.id).collect();
        let swept: Vec<PackId> = plan.sweep.iter().flat_map(|mark| &mark.indexed).copied().collect();
        let mut named = [removed.clone(), repacked, swept.clone()].concat();
        let count = named.len();
        named.sort_unstable();
        named.dedup();
        prop_assert_eq!(named.len(), count, "a pack is named twice");
        for id in needed {
            let homes = packs.iter().filter(|pack| pack.blobs.iter().any(|blob| blob.id == blob_id(id)));
            let safe = homes.filter(|pack| !removed.contains(&pack.id) && !swept.contains(&pack.id)).count();
            prop_assert!(safe > 0, "blob {} would be lost", id);
        }
        let waiting: u64 = plan.waiting.iter().map(|mark| mark.packs).sum();
        let again: usize = plan.sweep.iter().map(|mark| mark.needed_again.len()).sum();
        prop_assert_eq!(plan.keep.count + waiting + (again + count) as u64, packs.len() as u64);
    }
}

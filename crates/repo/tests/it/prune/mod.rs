//! Prune on real repositories: what is kept reads back, what is not is gone, and restic agrees.

mod concurrent;
pub(crate) mod disk;
mod interleaved;
pub(crate) mod kit;
mod races;

use kit::*;
use retoma_core::ErrorKind;
use retoma_core::decide::retention::Holds;
use retoma_core::error::codes;
use retoma_repo::backup::Progress;
use retoma_repo::format::mark::Reason;
use retoma_repo::format::snapshot::{TAG_HOLD, TAG_MANIFEST};
use retoma_repo::ops::verify::{self, verify};
use retoma_repo::ops::{forget, keys, prune as pruning, repair};
use retoma_repo::{Folder, Repository};
use std::collections::BTreeSet;

#[test]
fn what_is_forgotten_is_given_back_after_the_grace_period_and_not_before() {
    let (disk, repository) = new_repository();
    let old = back_up(&repository, &files(0..30)).unwrap();
    let kept = back_up(&repository, &files(25..40)).unwrap();
    let before = data_bytes(&repository);
    drop_snapshot(&repository, old);

    let marked = prune(&repository, &options(now())).unwrap();
    assert!(marked.marked_packs > 0 && marked.repacked_packs > 0, "{marked:?}");
    assert_eq!(marked.removed_packs, 0);
    assert!(data_bytes(&repository) > before, "packs were copied and none is gone yet");
    restic_check_objects(&disk.objects());

    let waiting = pruning::plan(&repository, &options(later(23)), &Progress::default()).unwrap();
    assert!(waiting.is_empty(), "{waiting:?}");
    assert_eq!(waiting.waiting.len(), 1);

    let swept = prune(&repository, &options(later(25))).unwrap();
    assert_eq!(swept.removed_packs, marked.marked_packs);
    assert_eq!(swept.removed_bytes, marked.marked_bytes);
    assert_eq!(read_all(&repository), [(kept, files(25..40))].into());
    check_structure(&repository);
    check_no_garbage(&repository);
    assert!(data_bytes(&repository) < before / 2 + 4096);
    restic_check_objects(&disk.objects());
}

#[test]
fn with_no_grace_period_everything_happens_at_once() {
    let (disk, repository) = new_repository();
    let old = back_up(&repository, &files(0..30)).unwrap();
    back_up(&repository, &files(25..40)).unwrap();
    drop_snapshot(&repository, old);
    prune(&repository, &options(now())).unwrap();
    let pruned = prune(&repository, &at_once()).unwrap();
    assert!(pruned.removed_packs > 0);
    assert_eq!(read_all(&repository).into_values().collect::<Vec<_>>(), [files(25..40)]);
    check_structure(&repository);
    check_no_garbage(&repository);
    restic_check_objects(&disk.objects());
    assert_eq!(prune(&repository, &at_once()).unwrap(), pruning::Pruned::default());
}

#[test]
fn a_repository_without_snapshots_becomes_empty() {
    let (_, repository) = new_repository();
    let only = back_up(&repository, &files(0..5)).unwrap();
    drop_snapshot(&repository, only);
    prune(&repository, &at_once()).unwrap();
    assert_eq!(data_bytes(&repository), 0);
    assert!(repository.list(Folder::Index).unwrap().is_empty());
}

#[test]
fn a_backup_after_the_mark_does_not_build_on_marked_packs() {
    let (_, repository) = new_repository();
    let old = back_up(&repository, &files(0..30)).unwrap();
    drop_snapshot(&repository, old);
    prune(&repository, &options(now())).unwrap();
    let again = back_up(&repository, &files(0..30)).unwrap();
    let swept = prune(&repository, &options(later(25))).unwrap();
    assert_eq!((swept.removed_packs, swept.needed_again.len()), (2, 0));
    assert_eq!(read_all(&repository), [(again, files(0..30))].into());
    check_no_garbage(&repository);
}

#[test]
fn a_pack_that_is_needed_again_is_taken_off_the_mark() {
    let (disk, repository) = new_repository();
    let old = back_up(&repository, &files(0..30)).unwrap();
    let snapshot = repository.snapshot(old).unwrap();
    drop_snapshot(&repository, old);
    prune(&repository, &options(now())).unwrap();
    // As a backup does that began before the mark and ended after it.
    let again = repository.save_snapshot(&snapshot).unwrap();
    let planned = pruning::plan(&repository, &options(later(25)), &Progress::default()).unwrap();
    assert_eq!(planned.sweep[0].needed_again.len(), 2);
    let swept = prune(&repository, &options(later(25))).unwrap();
    assert_eq!(swept.removed_packs, 0);
    assert_eq!(read_all(&repository), [(again, files(0..30))].into());
    assert!(repository.marks().unwrap().is_empty());
    restic_check_objects(&disk.objects());
}

#[test]
fn what_is_committed_between_plan_and_apply_is_looked_at() {
    for options in [at_once(), options(later(25))] {
        let (_, repository) = new_repository();
        let old = back_up(&repository, &files(0..30)).unwrap();
        let snapshot = repository.snapshot(old).unwrap();
        drop_snapshot(&repository, old);
        prune(&repository, &kit::options(now())).unwrap();
        let progress = Progress::default();
        let plan = pruning::plan(&repository, &options, &progress).unwrap();
        let again = repository.save_snapshot(&snapshot).unwrap();
        let pruned = pruning::apply(&repository, plan, &progress).unwrap();
        assert_eq!((pruned.removed_packs, pruned.needed_again.len()), (0, 2));
        assert_eq!(read_all(&repository), [(again, files(0..30))].into());
    }
}

#[test]
fn a_pack_in_no_index_is_swept_unless_an_index_names_it_by_then() {
    let (disk, repository) = new_repository();
    back_up(&repository, &files(0..5)).unwrap();
    let index = disk.objects().into_iter().find(|(name, _)| name.starts_with("index/")).unwrap();
    let second = back_up(&repository, &files(5..10)).unwrap();
    let mut objects = disk.objects();
    // A backup that is still running: its packs are there, its index and snapshot are not.
    let late: Vec<_> = objects.clone().into_iter().filter(|(name, _)| name.starts_with("index/")).collect();
    objects.retain(|name, _| !name.starts_with("index/") || *name == index.0);
    objects.remove(&format!("snapshots/{}", second.to_hex()));
    let disk = disk::Disk::with(objects);
    let repository = repository.through(disk.store());
    let plan = pruning::plan(&repository, &options(now()), &Progress::default()).unwrap();
    assert_eq!(plan.remove.iter().map(|pack| pack.reason).collect::<Vec<_>>(), [Reason::Unindexed; 2]);
    prune(&repository, &options(now())).unwrap();

    let mut ended = disk.objects();
    ended.extend(late);
    let ended = repository.through(disk::Disk::with(ended).store());
    let swept = prune(&ended, &options(later(25))).unwrap();
    assert_eq!((swept.removed_packs, swept.needed_again.len()), (0, 2));

    let swept = prune(&repository, &options(later(25))).unwrap();
    assert_eq!((swept.removed_packs, swept.needed_again.len()), (2, 0));
    check_no_garbage(&repository);
}

#[test]
fn small_packs_are_merged() {
    let (disk, repository) = new_repository();
    for seed in 0..6 {
        back_up(&repository, &files(seed * 3..seed * 3 + 3)).unwrap();
    }
    let expected = read_all(&repository);
    let packs = repository.list(Folder::Data).unwrap().len();
    let merging = pruning::Options { small_packs: 4, ..at_once() };
    let pruned = prune(&repository, &merging).unwrap();
    assert_eq!((packs, pruned.repacked_packs), (12, 12));
    assert_eq!(repository.list(Folder::Data).unwrap().len(), 2);
    assert_eq!(read_all(&repository), expected);
    check_structure(&repository);
    restic_check_objects(&disk.objects());
    assert_eq!(prune(&repository, &merging).unwrap().repacked_packs, 0);
}

type Damage = fn(&mut disk::Objects, &str);

#[test]
fn a_damaged_repository_is_left_alone() {
    let (disk, repository) = new_repository();
    let old = back_up(&repository, &files(0..3)).unwrap();
    let kept = back_up(&repository, &files(2..6)).unwrap();
    let index = repository.load_index().unwrap();
    let tree = repository.snapshot(kept).unwrap().tree;
    drop_snapshot(&repository, old);
    let pack = index.get(retoma_repo::format::BlobKind::Tree, &tree).unwrap().pack;
    let name = repository.pack_key(pack).unwrap().as_str().to_owned();
    let damages: [Damage; 3] = [
        |objects, name| drop(objects.remove(name)),
        |objects, name| drop(objects.insert(name.to_owned(), bytes::Bytes::from_static(b"short"))),
        |objects, _| objects.retain(|name, _| !name.starts_with("index/")),
    ];
    for (damage, code) in
        damages.into_iter().zip([codes::PACK_MISSING, codes::PACK_MISSING, codes::BLOB_MISSING])
    {
        let mut objects = disk.objects();
        damage(&mut objects, &name);
        let damaged = disk::Disk::with(objects.clone());
        let error = prune(&repository.through(damaged.store()), &at_once()).unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Corrupt, code), "{error}");
        assert_eq!(damaged.objects(), objects);
    }
}

/// The repository with one byte flipped in the object `name`.
fn with_flipped(disk: &disk::Disk, repository: &Repository, name: &str) -> (disk::Disk, Repository) {
    let mut objects = disk.objects();
    let mut bytes = objects[name].to_vec();
    bytes[40] ^= 1;
    objects.insert(name.to_owned(), bytes.into());
    let damaged = disk::Disk::with(objects);
    let repository = repository.through(damaged.store());
    (damaged, repository)
}

#[test]
fn a_damaged_index_file_stops_who_writes_and_of_who_reads_only_those_that_need_it() {
    let (disk, repository) = new_repository();
    let first = back_up(&repository, &files(0..3)).unwrap();
    let before = disk.objects();
    let second = back_up(&repository, &files(10..13)).unwrap();
    let indexes: Vec<String> = disk.objects().into_keys().filter(|name| name.starts_with("index/")).collect();
    let newer = indexes.iter().find(|name| !before.contains_key(*name)).unwrap();
    let (damaged, repository) = with_flipped(&disk, &repository, newer);
    let objects = damaged.objects();
    for error in [
        repository.load_index().map(drop).unwrap_err(),
        back_up(&repository, &files(0..3)).map(drop).unwrap_err(),
        prune(&repository, &at_once()).map(drop).unwrap_err(),
        prune(&repository, &options(now())).map(drop).unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.code()), (ErrorKind::Corrupt, codes::HASH_MISMATCH), "{error}");
        assert!(error.to_string().contains(newer), "{error}");
    }
    assert_eq!(damaged.objects(), objects);
    let index = repository.load_readable_index().unwrap();
    let unreadable: Vec<String> = index.unreadable().iter().map(ToString::to_string).collect();
    assert!(unreadable.len() == 1 && unreadable[0].contains(newer), "{unreadable:?}");
    let read = |id| repository.read_tree(&index, &repository.snapshot(id).unwrap().tree);
    assert_eq!(read(first).unwrap().len(), 1);
    assert_eq!(read(second).unwrap_err().code(), codes::BLOB_MISSING);
}

#[test]
fn a_mark_that_cannot_be_read_stops_who_writes_and_the_way_out_is_told() {
    let (disk, repository) = new_repository();
    let old = back_up(&repository, &files(0..6)).unwrap();
    back_up(&repository, &files(4..9)).unwrap();
    drop_snapshot(&repository, old);
    prune(&repository, &options(now())).unwrap();
    let name = disk.objects().into_keys().find(|name| name.starts_with("marks/")).unwrap();
    let (damaged, repository) = with_flipped(&disk, &repository, &name);
    for error in [
        back_up(&repository, &files(0..3)).map(drop).unwrap_err(),
        prune(&repository, &options(later(25))).map(drop).unwrap_err(),
    ] {
        assert_eq!((error.kind(), error.code()), (ErrorKind::Corrupt, codes::HASH_MISMATCH), "{error}");
        assert!(error.to_string().contains(&name[6..14]), "{error}");
        assert!(error.hint().unwrap().contains("`retoma repair`"), "{error} {:?}", error.hint());
    }
    let report = verify(&repository, &verify::Options::default(), &Progress::default()).unwrap();
    let found: Vec<_> = report.damage().map(|finding| (finding.object.as_str(), finding.code)).collect();
    assert_eq!(found, [(name.as_str(), codes::HASH_MISMATCH)]);
    assert!(report.snapshots_hit().is_empty());
    let progress = Progress::default();
    repair::apply(
        &repository,
        &repair::plan(&repository, repair::Options::default(), &progress).unwrap(),
        &progress,
    )
    .unwrap();
    assert!(!damaged.objects().contains_key(&name));
    back_up(&repository, &files(0..3)).unwrap();
    prune(&repository, &at_once()).unwrap();
    check_no_garbage(&repository);
}

#[test]
fn a_flipped_byte_is_never_copied() {
    let (disk, repository) = new_repository();
    let old = back_up(&repository, &files(0..10)).unwrap();
    back_up(&repository, &files(9..10)).unwrap();
    let index = repository.load_index().unwrap();
    let kept = retoma_repo::BlobId::of(&files(9..10)["f0009"]);
    let place = index.get(retoma_repo::format::BlobKind::Data, &kept).unwrap();
    drop_snapshot(&repository, old);
    let mut objects = disk.objects();
    let name = repository.pack_key(place.pack).unwrap().as_str().to_owned();
    let mut pack = objects[&name].to_vec();
    pack[place.blob.offset_bytes as usize + 20] ^= 1;
    objects.insert(name, pack.into());
    let damaged = repository.through(disk::Disk::with(objects.clone()).store());
    let error = prune(&damaged, &at_once()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    assert_eq!(data_bytes(&damaged), data_bytes(&repository));
}

#[test]
fn a_stop_is_honoured_before_anything_is_deleted() {
    let (disk, repository) = new_repository();
    let old = back_up(&repository, &files(0..10)).unwrap();
    drop_snapshot(&repository, old);
    let plan = pruning::plan(&repository, &at_once(), &Progress::default()).unwrap();
    let before = disk.objects();
    let stopped = Progress::default();
    stopped.cancel();
    let error = pruning::apply(&repository, plan, &stopped).unwrap_err();
    assert_eq!(error.code(), codes::CANCELLED);
    assert_eq!(disk.objects(), before);
}

fn tagged(repository: &Repository, seeds: std::ops::Range<u64>, tag: &str) -> retoma_repo::SnapshotId {
    let id = back_up(repository, &files(seeds)).unwrap();
    let mut snapshot = repository.snapshot(id).unwrap();
    snapshot.tags.push(tag.to_owned());
    drop_snapshot(repository, id);
    repository.save_snapshot(&snapshot).unwrap()
}

#[test]
fn forget_keeps_what_is_held_and_the_newest_manifest_and_the_last_complete() {
    let (_, repository) = new_repository();
    let held = forget::hold(&repository, back_up(&repository, &files(0..2)).unwrap(), true).unwrap();
    let manifest = tagged(&repository, 2..3, TAG_MANIFEST);
    let plain = back_up(&repository, &files(3..5)).unwrap();
    let last = back_up(&repository, &files(5..6)).unwrap();
    for id in [held, manifest, last] {
        let error = remove(&repository, id).unwrap_err();
        assert_eq!(error.code(), codes::SNAPSHOT_PROTECTED, "{error}");
    }
    let policy = retoma_core::decide::retention::Policy { last: 1, ..Default::default() };
    let zone = jiff::tz::TimeZone::UTC;
    let plan = forget::plan(&repository, &policy, &Holds::default(), &|_| true, later(1).0, &zone).unwrap();
    assert_eq!(plan.remove, [plain]);
    assert_eq!(forget::apply(&repository, &plan).unwrap(), [plain]);
    assert_eq!(forget::apply(&repository, &plan).unwrap(), []);
    let left: BTreeSet<_> = read_all(&repository).into_keys().collect();
    assert_eq!(left, BTreeSet::from([held, manifest, last]));
}

#[test]
fn forget_refuses_a_plan_for_another_repository_than_there_is_now() {
    let (_, repository) = new_repository();
    let first = back_up(&repository, &files(0..2)).unwrap();
    let second = back_up(&repository, &files(1..3)).unwrap();
    let plan = forget::plan_removal(&repository, &BTreeSet::from([first]), later(1).0).unwrap();
    drop_snapshot(&repository, second);
    let error = forget::apply(&repository, &plan).unwrap_err();
    assert_eq!(error.code(), codes::PLAN_OUTDATED);
    assert!(repository.snapshot(first).is_ok());
    let unknown = forget::plan_removal(&repository, &BTreeSet::from([second]), later(1).0).unwrap_err();
    assert_eq!(unknown.code(), codes::SNAPSHOT_NOT_FOUND);
}

#[test]
fn a_hold_is_put_on_and_taken_off_and_names_its_origin() {
    let (_, repository) = new_repository();
    let id = back_up(&repository, &files(0..2)).unwrap();
    let held = forget::hold(&repository, id, true).unwrap();
    assert_eq!(forget::hold(&repository, held, true).unwrap(), held);
    let snapshot = repository.snapshot(held).unwrap();
    assert!(snapshot.has_tag(TAG_HOLD));
    assert_eq!(snapshot.original, Some(id));
    let free = forget::hold(&repository, held, false).unwrap();
    assert!(!repository.snapshot(free).unwrap().has_tag(TAG_HOLD));
    assert_eq!(read_all(&repository), [(free, files(0..2))].into());
}

#[test]
fn keys_are_listed_added_changed_and_removed_and_one_always_stays() {
    let (_, repository) = new_repository();
    let second = keys::add(&repository, &secret("second")).unwrap();
    let listed = keys::list(&repository).unwrap();
    assert_eq!(listed.iter().filter(|key| key.is_current).count(), 1);
    assert_eq!(listed.len(), 2);
    assert_eq!(keys::remove(&repository, "").unwrap_err().code(), codes::OBJECT_NOT_FOUND);
    let current = repository.key_id().to_hex();
    assert_eq!(keys::remove(&repository, &current).unwrap_err().code(), codes::LAST_KEY);
    assert_eq!(keys::remove(&repository, &second.to_hex()[..10]).unwrap(), second);

    let changed = keys::change_password(&repository, &secret("third")).unwrap();
    assert_eq!(keys::list(&changed).unwrap().len(), 1);
    let store = || repository.store().clone();
    assert_eq!(Repository::open(store(), &secret(PASSWORD)).unwrap_err().code(), codes::WRONG_KEY);
    let same = keys::change_password(&changed, &secret("third")).unwrap();
    assert_eq!(keys::list(&same).unwrap().len(), 1);
    assert!(Repository::open(store(), &secret("third")).is_ok());
}

//! A repository that has lost something, and its copy.

use super::{component, contents, copy, damage};
use crate::prune::disk::{Death, Disk, Objects};
use crate::prune::kit::*;
use retoma_core::Result;
use retoma_core::error::codes;
use retoma_repo::backup::Progress;
use retoma_repo::format::BlobKind;
use retoma_repo::format::lock::Holder;
use retoma_repo::ops::copy::heal::{Heal, Healed};
use retoma_repo::{Repository, lock};

fn heal(hurt: &Repository, whole: &Repository, read_data: bool) -> Result<Healed> {
    let (heal, progress) = (Heal::begin(hurt, whole)?, Progress::default());
    let plan = heal.plan(read_data, &progress)?;
    heal.apply(plan, &progress)
}

/// Two snapshots, and a copy of both.
fn copied() -> (Disk, Repository, Repository) {
    let (disk, source) = new_repository();
    component(&source, &files(0..6));
    component(&source, &files(4..12));
    let (_, target) = new_repository();
    copy(&source, &target).unwrap();
    (disk, source, target)
}

#[test]
fn every_pack_that_is_lost_comes_back() {
    let (disk, source, target) = copied();
    let expected = contents(&source);
    let packs: Vec<String> = disk.objects().into_keys().filter(|name| name.starts_with("data/")).collect();
    assert_eq!(packs.len(), 4);
    let mut losses: Vec<Vec<String>> = packs.iter().map(|pack| vec![pack.clone()]).collect();
    losses.push(packs);
    for lost in losses {
        let mut objects = disk.objects();
        objects.retain(|name, _| !lost.contains(name));
        let hurt = source.through(Disk::with(objects).store());
        let healed = heal(&hurt, &target, false).unwrap();
        assert!(healed.blobs > 0 && healed.lost.is_empty() && healed.left.is_empty());
        assert_eq!(contents(&hurt), expected);
        assert_eq!(heal(&hurt, &target, true).unwrap().blobs, 0, "once is enough");
    }
}

#[test]
fn a_pack_that_was_cut_comes_back_without_reading() {
    let (disk, source, target) = copied();
    let expected = contents(&source);
    for name in disk.objects().into_keys().filter(|name| name.starts_with("data/")) {
        let mut objects = disk.objects();
        let half = objects[&name].slice(..objects[&name].len() / 2);
        objects.insert(name.clone(), half);
        let cut = Disk::with(objects.clone());
        let hurt = source.through(cut.store());
        assert!(heal(&hurt, &target, false).unwrap().blobs > 0, "{name}");
        assert_eq!(contents(&hurt), expected);
        let after = cut.objects();
        assert!(objects.iter().all(|(name, bytes)| after.get(name) == Some(bytes)), "nothing is deleted");
    }
}

#[test]
fn a_plan_leaves_nothing_and_a_repair_waits_for_no_sweep() {
    let (disk, source, target) = copied();
    let before = disk.objects();
    Heal::look(&source, &target).plan(true, &Progress::default()).unwrap();
    assert_eq!(disk.objects(), before);
    let begun = Heal::begin(&source, &target).unwrap();
    assert_eq!(lock::acquire(&source, Holder::PruneNow).unwrap_err().code(), codes::LOCKED);
    drop(begun);
    let guard = lock::acquire(&source, Holder::PruneNow).unwrap();
    assert_eq!(Heal::begin(&source, &target).unwrap_err().code(), codes::LOCKED);
    guard.release();
}

#[test]
fn what_is_damaged_is_found_by_reading_and_trees_without() {
    let (disk, source, target) = copied();
    let expected = contents(&source);
    let index = source.load_index().unwrap();
    let data = index.iter(BlobKind::Data).next().unwrap().blob.id;
    let tree = index.iter(BlobKind::Tree).next().unwrap().blob.id;
    let hurt = damage(&source, &disk, BlobKind::Data, &data);
    assert_eq!(heal(&hurt, &target, false).unwrap().blobs, 0);
    assert_eq!(heal(&hurt, &target, true).unwrap().blobs, 1);
    assert_eq!(contents(&hurt), expected);
    for read_data in [false, true] {
        let hurt = damage(&source, &disk, BlobKind::Tree, &tree);
        assert_eq!(heal(&hurt, &target, read_data).unwrap().blobs, 1);
        assert_eq!(contents(&hurt), expected);
    }
}

#[test]
fn what_neither_has_is_named_and_the_rest_comes_back() {
    let (disk, source, target) = copied();
    let only_here = component(&source, &files(20..22));
    let mut objects: Objects = disk.objects();
    objects.retain(|name, _| !name.starts_with("data/"));
    let hurt = source.through(Disk::with(objects).store());
    let healed = heal(&hurt, &target, false).unwrap();
    assert_eq!(healed.blobs, 14, "12 files and 2 trees");
    assert_eq!(healed.left.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [only_here]);
    assert_eq!(healed.lost.len(), 1, "the tree, below which nobody can look");
    drop_snapshot(&hurt, only_here);
    drop_snapshot(&source, only_here);
    assert_eq!(contents(&hurt), contents(&source));
}

#[test]
fn killed_at_any_write_the_same_again_goes_on() {
    let (disk, source, target) = copied();
    let expected = contents(&source);
    let mut objects = disk.objects();
    let index = source.load_index().unwrap();
    let pack = index.iter(BlobKind::Data).next().unwrap().pack;
    objects.remove(source.pack_key(pack).unwrap().as_str());
    let whole = Disk::with(objects.clone());
    heal(&source.through(whole.store()), &target, false).unwrap();
    assert_eq!(whole.log(), ["put locks", "put data", "put index", "delete locks"]);
    for write in 0..3 {
        for death in [Death::Before, Death::After] {
            let dying = Disk::dying(objects.clone(), write, death);
            assert!(heal(&source.through(dying.store()), &target, false).is_err());
            let mut left = dying.objects();
            left.retain(|name, _| !name.starts_with("locks/"));
            let survivor = source.through(Disk::with(left).store());
            let again = heal(&survivor, &target, false).unwrap();
            assert_eq!(again.blobs == 0, (write, death) == (2, Death::After), "{death:?} {write}");
            assert_eq!(contents(&survivor), expected);
        }
    }
}

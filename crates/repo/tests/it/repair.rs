//! What is lost of the index is made again from the packs, and what cannot be read is out of the way: nothing else changes.

use crate::prune::disk::{Disk, Objects};
use crate::prune::kit::*;
use bytes::Bytes;
use retoma_core::{ErrorKind, error::codes};
use retoma_repo::backup::Progress;
use retoma_repo::lock;
use retoma_repo::ops::repair::{self, Options, RepairPlan, Repaired};
use retoma_repo::{Folder, IndexId, Repository};
use std::collections::BTreeSet;

fn plan(repository: &Repository) -> RepairPlan {
    repair::plan(repository, Options::default(), &Progress::default()).unwrap()
}

fn repair(repository: &Repository) -> Repaired {
    repair::apply(repository, &plan(repository), &Progress::default()).unwrap()
}

fn names(objects: &Objects, folder: &str) -> Vec<String> {
    objects.keys().filter(|name| name.starts_with(folder)).cloned().collect()
}

/// Three snapshots with an index file each.
fn world() -> (Disk, Repository, BTreeSet<Files>) {
    let (disk, repository) = new_repository();
    let contents = [files(0..6), files(4..12), files(10..16)];
    for files in &contents {
        back_up(&repository, files).unwrap();
    }
    (disk, repository, contents.into())
}

fn contents(repository: &Repository) -> BTreeSet<Files> {
    read_all(repository).into_values().collect()
}

#[test]
fn of_a_whole_repository_nothing_is_repaired() {
    let (disk, repository, _) = world();
    let before = disk.objects();
    assert!(plan(&repository).is_empty());
    assert_eq!(repair(&repository), Repaired::default());
    assert_eq!(disk.objects(), before);
}

/// Each index file lost, cut, changed or foreign; and all of them at once.
#[test]
fn an_index_is_made_again_from_the_packs() {
    let (disk, repository, expected) = world();
    let objects = disk.objects();
    let indexes = names(&objects, "index/");
    assert_eq!(indexes.len(), 3);
    let mut sets: Vec<Vec<String>> = indexes.iter().map(|name| vec![name.clone()]).collect();
    sets.push(indexes);
    for set in sets {
        for damage in ["gone", "empty", "cut", "flipped", "text"] {
            let mut objects = objects.clone();
            for name in &set {
                let mut bytes = objects.remove(name).unwrap().to_vec();
                match damage {
                    "empty" => bytes.clear(),
                    "cut" => bytes.truncate(bytes.len() / 2),
                    "flipped" => bytes[40] ^= 1,
                    "text" => bytes = b"{\"packs\":[]}".to_vec(),
                    _ => continue,
                }
                objects.insert(name.clone(), Bytes::from(bytes));
            }
            let disk = Disk::with(objects);
            let repository = repository.through(disk.store());
            let repaired = repair(&repository);
            let unreadable = if damage == "gone" { 0 } else { set.len() };
            assert_eq!(repaired.deleted, unreadable, "{damage}");
            assert!(repaired.indexed_packs >= set.len());
            assert_eq!(contents(&repository), expected, "{damage}");
            check_structure(&repository);
            restic_check_objects(&disk.objects());
            assert!(plan(&repository).is_empty());
            // Backups and prune go on.
            back_up(&repository, &files(20..22)).unwrap();
            prune(&repository, &at_once()).unwrap();
            assert!(contents(&repository).is_superset(&expected));
        }
    }
}

/// The header of one pack cannot be read either: what lies in it is named, and all else comes back.
#[test]
fn a_pack_whose_header_is_damaged_is_named_and_the_others_are_indexed() {
    let (disk, repository, _) = world();
    let mut objects = disk.objects();
    for name in names(&objects, "index/") {
        objects.remove(&name);
    }
    let victim = names(&objects, "data/").remove(0);
    let mut bytes = objects[&victim].to_vec();
    let at = bytes.len() - 10;
    bytes[at] ^= 1;
    objects.insert(victim.clone(), Bytes::from(bytes));
    let packs = names(&objects, "data/").len();
    let disk = Disk::with(objects);
    let repository = repository.through(disk.store());
    let plan = plan(&repository);
    let lost: Vec<String> = plan.lost.iter().map(repair::Unreadable::name).collect();
    assert_eq!(lost, std::slice::from_ref(&victim));
    assert_eq!(plan.lost[0].error.kind(), ErrorKind::Corrupt);
    assert_eq!(plan.packs.len(), packs - 1);
    repair::apply(&repository, &plan, &Progress::default()).unwrap();
    assert!(disk.objects().contains_key(&victim), "what is damaged may still be wanted");
    check_structure(&repository);
}

#[test]
fn marks_that_cannot_be_read_go_and_snapshots_only_when_asked() {
    let (disk, repository, expected) = world();
    let dropped = repository.snapshots().unwrap().pop().unwrap().0;
    prune(&repository, &options(now())).unwrap();
    let mut objects = disk.objects();
    let junk = Bytes::from_static(b"neither sealed nor JSON");
    let mark = format!("marks/{}", "ab".repeat(32));
    objects.insert(mark.clone(), junk.clone());
    let damaged = Folder::Snapshots.key(&dropped.to_hex()).unwrap().as_str().to_owned();
    objects.insert(damaged.clone(), junk);
    let disk = Disk::with(objects);
    let repository = repository.through(disk.store());
    assert!(repository.marks().is_err(), "which would stop every backup");
    assert_eq!(repair(&repository).deleted, 1);
    assert!(!disk.objects().contains_key(&mark) && disk.objects().contains_key(&damaged));
    assert_eq!(repository.snapshots().unwrap_err().kind(), ErrorKind::Corrupt);
    let plan = repair::plan(
        &repository,
        Options { forget_snapshots: true, ..Options::default() },
        &Progress::default(),
    )
    .unwrap();
    let names: Vec<String> = plan.going().map(repair::Unreadable::name).collect();
    assert_eq!(names, std::slice::from_ref(&damaged));
    assert_eq!(repair::apply(&repository, &plan, &Progress::default()).unwrap().deleted, 1);
    assert!(!disk.objects().contains_key(&damaged));
    assert!(contents(&repository).is_subset(&expected) && contents(&repository).len() == 2);
}

/// Between the plan and its application a prune took packs away, and somebody put the right index file back.
#[test]
fn what_changed_since_the_plan_is_left_alone() {
    let (disk, repository, expected) = world();
    let mut objects = disk.objects();
    let index = names(&objects, "index/").remove(0);
    let right = objects[&index].clone();
    objects.insert(index.clone(), Bytes::from_static(b"damaged"));
    let disk = Disk::with(objects);
    let repository = repository.through(disk.store());
    let plan = plan(&repository);
    assert_eq!((plan.packs.is_empty(), plan.going().count()), (false, 1));
    let mut objects = disk.objects();
    objects.insert(index.clone(), right.clone());
    let healed = Disk::with(objects);
    let repository = repository.through(healed.store());
    let repaired = repair::apply(&repository, &plan, &Progress::default()).unwrap();
    assert_eq!(repaired, Repaired::default());
    assert_eq!(healed.objects()[&index], right);
    assert_eq!(contents(&repository), expected);
    // A pack of the plan is gone: no index may name it.
    let mut objects = disk.objects();
    for pack in &plan.packs {
        objects.remove(repository.pack_key(pack.id).unwrap().as_str());
    }
    let pruned = Disk::with(objects);
    let repository = repository.through(pruned.store());
    let repaired = repair::apply(&repository, &plan, &Progress::default()).unwrap();
    assert_eq!(repaired, Repaired { indexed_packs: 0, deleted: 1 });
    check_structure(&repository);
    // Or it has not the length any more that it had.
    let mut objects = disk.objects();
    for pack in &plan.packs {
        let bytes = objects.get_mut(repository.pack_key(pack.id).unwrap().as_str()).unwrap();
        bytes.truncate(bytes.len() - 1);
    }
    let repository = repository.through(Disk::with(objects).store());
    let repaired = repair::apply(&repository, &plan, &Progress::default()).unwrap();
    assert_eq!(repaired, Repaired { indexed_packs: 0, deleted: 1 });
}

#[test]
fn nothing_is_repaired_beside_a_backup() {
    let (disk, repository, _) = world();
    let mut objects = disk.objects();
    for name in names(&objects, "index/") {
        objects.remove(&name);
    }
    let disk = Disk::with(objects);
    let repository = repository.through(disk.store());
    let held = lock::acquire(&repository, retoma_repo::format::lock::Holder::Backup).unwrap();
    let error = repair::apply(&repository, &plan(&repository), &Progress::default()).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Conflict, codes::LOCKED));
    assert!(names(&disk.objects(), "index/").is_empty());
    drop(held);
}

fn rebuild(repository: &Repository) -> (RepairPlan, Repaired) {
    let options = Options { rebuild_index: true, ..Options::default() };
    let plan = repair::plan(repository, options, &Progress::default()).unwrap();
    let repaired = repair::apply(repository, &plan, &Progress::default()).unwrap();
    (plan, repaired)
}

/// An index file of another truth: authentic, and the places of its blobs are wrong. The headers are right.
#[test]
fn an_index_that_is_wrong_is_rebuilt_from_all_packs() {
    let (disk, repository, expected) = world();
    let (id, _) = repository.list(Folder::Index).unwrap()[0];
    let mut file = repository.index_file(IndexId(id)).unwrap();
    file.packs[0].blobs.iter_mut().for_each(|blob| blob.offset_bytes += 1);
    repository.save_index_file(&file).unwrap();
    repository.store().delete(&Folder::Index.key(&IndexId(id).to_hex()).unwrap()).unwrap();
    assert!(plan(&repository).is_empty(), "it can be read");
    assert!(expected.iter().any(|files| !contents_that_read(&repository).contains(files)));
    let (plan, repaired) = rebuild(&repository);
    assert_eq!((plan.replaced.len(), repaired.deleted), (3, 3));
    assert_eq!(contents(&repository), expected);
    check_structure(&repository);
    restic_check_objects(&disk.objects());
}

fn contents_that_read(repository: &Repository) -> BTreeSet<Files> {
    let snapshots = repository.snapshots().unwrap();
    snapshots.into_iter().filter_map(|(id, _)| read_back(repository, id).ok()).collect()
}

/// Prune refuses a repository that lacks what is needed. Backed up again, it goes on, with the index rebuilt or not.
#[test]
fn a_pack_that_is_gone_leaves_the_rebuilt_index() {
    let (disk, repository, expected) = world();
    let mut objects = disk.objects();
    let data = names(&objects, "data/");
    objects.remove(&data[0]);
    let cut = objects[&data[1]].slice(..100);
    objects.insert(data[1].clone(), cut);
    let disk = Disk::with(objects);
    let repository = repository.through(disk.store());
    assert_eq!(prune(&repository, &at_once()).unwrap_err().code(), codes::PACK_MISSING);
    for files in &expected {
        back_up(&repository, files).unwrap();
    }
    assert_eq!(contents(&repository), expected, "what was lost is stored again");
    let as_it_is = repository.through(Disk::with(disk.objects()).store());
    prune(&as_it_is, &at_once()).unwrap();
    assert_eq!(contents(&as_it_is), expected);
    check_structure(&as_it_is);
    let (plan, _) = rebuild(&repository);
    let mut gone: Vec<String> =
        plan.dropped.iter().map(|id| repository.pack_key(*id).unwrap().as_str().to_owned()).collect();
    gone.sort();
    assert_eq!(gone, data[..2]);
    assert_eq!(contents(&repository), expected);
    check_structure(&repository);
    prune(&repository, &at_once()).unwrap();
    assert_eq!(contents(&repository), expected);
}

/// What a header no longer tells, the index still does: a rebuilt one must not know less.
#[test]
fn a_rebuilt_index_keeps_what_it_knew_of_a_pack_whose_header_is_damaged() {
    let (disk, repository, expected) = world();
    let mut objects = disk.objects();
    for name in names(&objects, "data/") {
        let mut bytes = objects[&name].to_vec();
        let at = bytes.len() - 10;
        bytes[at] ^= 1;
        objects.insert(name, Bytes::from(bytes));
    }
    let disk = Disk::with(objects);
    let repository = repository.through(disk.store());
    let (plan, _) = rebuild(&repository);
    assert_eq!(plan.staying().count(), plan.packs.len(), "each is named");
    assert!(plan.dropped.is_empty());
    assert_eq!(contents(&repository), expected);
}

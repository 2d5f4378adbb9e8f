//! Copies between repositories: what arrives, what is skipped, what is named, and what may happen meanwhile.

mod concurrent;
mod faults;
mod heal;
mod wal;

use crate::prune::disk::{Disk, Objects};
use crate::prune::kit::*;
use proptest::prelude::*;
use retoma_core::{ErrorKind, Result, error::codes};
use retoma_repo::backup::{self, Progress};
use retoma_repo::format::BlobKind;
use retoma_repo::format::lock::Holder;
use retoma_repo::format::snapshot::{
    Snapshot, TAG_COMPONENT, TAG_HOLD, TAG_INCOMPLETE, TAG_MANIFEST, TAG_MANIFEST_HASH,
};
use retoma_repo::format::tree::{Node, NodeKind};
use retoma_repo::ops::copy::{Choice, Copied, Copy, CopyPlan};
use retoma_repo::ops::forget;
use retoma_repo::{Folder, Repository, SnapshotId, lock};
use retoma_testkit::MemorySource;
use std::collections::BTreeSet;

/// Backs `files` up as the component `c`, with more tags.
pub(crate) fn back_up_tagged(repository: &Repository, files: &Files, tags: &[&str]) -> SnapshotId {
    let mut source = MemorySource::default();
    for (name, bytes) in files {
        source.file(name.as_bytes(), bytes);
    }
    let options = backup::Options {
        paths: vec!["/data".to_owned()],
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        workers: Some(1),
        ..Default::default()
    };
    backup::backup(repository, &mut source, &options, &Progress::default()).unwrap().snapshot
}

fn component(repository: &Repository, files: &Files) -> SnapshotId {
    back_up_tagged(repository, files, &[&format!("{TAG_COMPONENT}c")])
}

fn all() -> Choice {
    Choice::Components(vec!["c".to_owned()])
}

pub(crate) fn plan(from: &Repository, to: &Repository) -> Result<CopyPlan> {
    Copy::look(from, to).plan(&all(), &Progress::default())
}

pub(crate) fn copy(from: &Repository, to: &Repository) -> Result<Copied> {
    copy_chosen(from, to, &all())
}

fn copy_chosen(from: &Repository, to: &Repository, choice: &Choice) -> Result<Copied> {
    let (copy, progress) = (Copy::begin(from, to)?, Progress::default());
    let plan = copy.plan(choice, &progress)?;
    copy.apply(plan, &progress)
}

pub(crate) fn contents(repository: &Repository) -> Vec<Files> {
    repository.snapshots().unwrap().into_iter().map(|(id, _)| read_back(repository, id).unwrap()).collect()
}

#[test]
fn a_copy_is_the_snapshot_under_another_key() {
    let (source_disk, source) = new_repository();
    let (target_disk, target) = new_repository();
    let first = component(&source, &files(0..8));
    let tags = [&format!("{TAG_COMPONENT}c"), TAG_INCOMPLETE, TAG_HOLD];
    let second = back_up_tagged(&source, &files(4..12), &tags);
    let before = source_disk.objects();
    let plan = plan(&source, &target).unwrap();
    assert_eq!((plan.snapshots.len(), plan.there), (2, 0));
    assert_eq!(plan.missing.count, 14, "12 files and 2 trees");
    let copied = copy(&source, &target).unwrap();
    assert_eq!((copied.snapshots.len(), copied.blobs), (2, 14));
    assert!(copied.left.is_empty() && copied.lost.is_empty());
    for (done, id) in copied.snapshots.iter().zip([first, second]) {
        assert_eq!(done.source, id);
        let (theirs, mut ours) = (source.snapshot(id).unwrap(), target.snapshot(done.target).unwrap());
        assert_eq!((ours.original, ours.parent), (Some(id), None));
        ours.original = theirs.original;
        ours.parent = theirs.parent;
        assert_eq!(ours, theirs);
    }
    assert_eq!(contents(&target), contents(&source));
    assert_eq!(source_disk.objects(), before, "the source is only read");
    assert_ne!(source.key().subkey("x"), target.key().subkey("x"));
    check_structure(&target);
    check_no_garbage(&target);
    restic_check_objects(&target_disk.objects());
}

#[test]
fn what_restic_restores_of_a_copy_is_what_was_backed_up() {
    let (_, source) = new_repository();
    let (target_disk, target) = new_repository();
    component(&source, &files(0..20));
    copy(&source, &target).unwrap();
    let folder = tempfile::tempdir().unwrap();
    crate::prune::disk::write_files(&target_disk.objects(), &folder.path().join("r"));
    let into = folder.path().join("restored");
    let Some(done) =
        restic(&folder.path().join("r"), &["restore", "latest", "--target", into.to_str().unwrap()])
    else {
        return;
    };
    assert!(done.status.success(), "{}", text(&done));
    let restored: Files = std::fs::read_dir(&into)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), std::fs::read(&path).unwrap()))
        .collect();
    assert_eq!(restored, files(0..20));
}

/// restic's own `copy` and ours take what the other copied for what it is.
#[test]
fn restic_copies_nothing_that_we_copied() {
    let (source_disk, source) = new_repository();
    let (target_disk, target) = new_repository();
    component(&source, &files(0..3));
    copy(&source, &target).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from"), folder.path().join("to"));
    crate::prune::disk::write_files(&source_disk.objects(), &from);
    crate::prune::disk::write_files(&target_disk.objects(), &to);
    let password = folder.path().join("password");
    std::fs::write(&password, PASSWORD).unwrap();
    let (from, password) = (from.to_str().unwrap(), password.to_str().unwrap());
    let Some(done) = restic(&to, &["copy", "--from-repo", from, "--from-password-file", password]) else {
        return;
    };
    assert!(done.status.success(), "{}", text(&done));
    assert_eq!(std::fs::read_dir(to.join("snapshots")).unwrap().count(), 1, "{}", text(&done));
}

#[test]
fn a_second_copy_sends_what_is_new_alone() {
    let (_, source) = new_repository();
    let (target_disk, target) = new_repository();
    component(&source, &files(0..8));
    copy(&source, &target).unwrap();
    let before = target_disk.objects();
    let again = copy(&source, &target).unwrap();
    assert_eq!((again.snapshots.len(), again.blobs), (0, 0));
    assert_eq!(target_disk.objects(), before);
    component(&source, &files(0..9));
    let plan = plan(&source, &target).unwrap();
    assert_eq!((plan.snapshots.len(), plan.there, plan.missing.count), (1, 1, 2), "a file and the tree");
    assert_eq!(copy(&source, &target).unwrap().blobs, 2);
    assert_eq!(contents(&target), contents(&source));
}

#[test]
fn what_was_held_released_or_copied_back_is_no_other_snapshot() {
    let (_, source) = new_repository();
    let (_, target) = new_repository();
    let id = component(&source, &files(0..4));
    let copied = copy(&source, &target).unwrap().snapshots[0].target;
    forget::hold(&source, id, true).unwrap();
    forget::hold(&target, copied, true).unwrap();
    assert!(copy(&source, &target).unwrap().snapshots.is_empty());
    assert!(copy(&target, &source).unwrap().snapshots.is_empty());
    // Of a copy of a copy, the original is the first.
    let (_, third) = new_repository();
    let done = copy(&target, &third).unwrap();
    assert_eq!(third.snapshot(done.snapshots[0].target).unwrap().original, Some(id));
}

#[test]
fn only_what_was_chosen_comes_and_each_manifest_once() {
    let (_, source) = new_repository();
    let (_, target) = new_repository();
    component(&source, &files(0..2));
    let other = back_up_tagged(&source, &files(2..4), &[&format!("{TAG_COMPONENT}other")]);
    let manifest = |repository: &Repository, hash: &str, seed: u64| {
        back_up_tagged(repository, &files([seed]), &[TAG_MANIFEST, &format!("{TAG_MANIFEST_HASH}{hash}")])
    };
    manifest(&source, "one", 10);
    let newest_two = [manifest(&source, "two", 11), manifest(&source, "two", 12)][1];
    manifest(&target, "one", 13);
    let copied: Vec<_> = copy(&source, &target).unwrap().snapshots.iter().map(|done| done.source).collect();
    assert_eq!(copied.len(), 2);
    assert!(copied.contains(&newest_two) && !copied.contains(&other));
    let one = copy_chosen(&source, &target, &Choice::Id(other.to_hex()[..10].to_owned())).unwrap();
    assert_eq!(one.snapshots[0].source, other);
    let error = copy_chosen(&source, &target, &Choice::Id("ffffffffff".to_owned())).unwrap_err();
    assert_eq!(error.code(), codes::SNAPSHOT_NOT_FOUND);
}

#[test]
fn what_the_target_is_about_to_delete_or_has_lost_is_sent_again() {
    let (_, source) = new_repository();
    let (target_disk, target) = new_repository();
    component(&source, &files(0..8));
    let first = copy(&source, &target).unwrap().snapshots[0].target;
    drop_snapshot(&target, first);
    assert!(prune(&target, &options(later(-26))).unwrap().marked_packs > 0);
    assert_eq!(copy(&source, &target).unwrap().blobs, 9);
    prune(&target, &options(now())).unwrap();
    assert_eq!(contents(&target), contents(&source));
    check_structure(&target);
    // A pack is gone: a copy of what needs it sends it again.
    let mut objects: Objects = target_disk.objects();
    let pack =
        objects.iter().filter(|(name, _)| name.starts_with("data/")).max_by_key(|(_, bytes)| bytes.len());
    let pack = pack.unwrap().0.clone();
    objects.remove(&pack);
    objects.retain(|name, _| !name.starts_with("snapshots/"));
    let damaged = target.through(Disk::with(objects).store());
    let plan = plan(&source, &damaged).unwrap();
    assert_eq!((plan.lost_packs.len(), plan.missing.count), (1, 8));
    copy(&source, &damaged).unwrap();
    assert_eq!(contents(&damaged), contents(&source));
}

/// The first blob of `kind` that `files` do not share with others, made unreadable wherever it lies.
pub(crate) fn damage(
    repository: &Repository,
    disk: &Disk,
    kind: BlobKind,
    id: &retoma_repo::BlobId,
) -> Repository {
    let mut objects = disk.objects();
    let index = repository.load_index().unwrap();
    for place in index.all(kind, id) {
        let name = repository.pack_key(place.pack).unwrap();
        let mut bytes = objects[name.as_str()].to_vec();
        bytes[place.blob.offset_bytes as usize + 20] ^= 1;
        objects.insert(name.as_str().to_owned(), bytes.into());
    }
    repository.through(Disk::with(objects).store())
}

#[test]
fn a_damaged_blob_stops_the_snapshots_that_need_it_and_no_other() {
    let (disk, source) = new_repository();
    let sound = component(&source, &files(0..4));
    let hit = component(&source, &files(2..8));
    let also_hit = component(&source, &files(7..9));
    let index = source.load_index().unwrap();
    let tree = source.read_tree(&index, &source.snapshot(hit).unwrap().tree).unwrap();
    let blob = tree.iter().find(|node| node.name == b"f0007").unwrap().content[0];
    let damaged = damage(&source, &disk, BlobKind::Data, &blob);
    let (_, target) = new_repository();
    let copied = copy(&damaged, &target).unwrap();
    assert_eq!(copied.snapshots.iter().map(|done| done.source).collect::<Vec<_>>(), [sound]);
    assert_eq!(copied.left, [(hit, blob), (also_hit, blob)]);
    assert_eq!(copied.lost.iter().map(|lost| lost.id).collect::<Vec<_>>(), [blob]);
    let error = &copied.lost[0].error;
    assert_eq!((error.kind(), error.code()), (ErrorKind::Corrupt, codes::NOT_AUTHENTIC));
    assert!(error.to_string().contains(&blob.short()), "{error}");
    assert_eq!(contents(&target), [files(0..4)]);
    check_structure(&target);
    // Once the source is whole again, only the rest is sent.
    let rest = copy(&source, &target).unwrap();
    assert_eq!((rest.snapshots.len(), rest.blobs), (2, 1));
    assert_eq!(contents(&target), contents(&source));
}

/// Authentic, but not what its name says: two blobs of one length that lie in each other's place.
#[test]
fn a_blob_with_other_contents_is_not_copied() {
    let (disk, source) = new_repository();
    let hit = component(&source, &files([0, 7]));
    let sound = component(&source, &files(1..4));
    let index = source.load_index().unwrap();
    let tree = source.read_tree(&index, &source.snapshot(hit).unwrap().tree).unwrap();
    let places: Vec<_> =
        tree.iter().map(|node| index.get(BlobKind::Data, &node.content[0]).unwrap()).collect();
    assert_eq!((places.len(), places[0].pack), (2, places[1].pack));
    let name = source.pack_key(places[0].pack).unwrap();
    let mut objects = disk.objects();
    let mut bytes = objects[name.as_str()].to_vec();
    let [one, other] = [0, 1].map(|at| {
        let blob = &places[at].blob;
        blob.offset_bytes as usize..(blob.offset_bytes + blob.length_bytes) as usize
    });
    let (old, new) = (bytes[one.clone()].to_vec(), bytes[other.clone()].to_vec());
    bytes[one].copy_from_slice(&new);
    bytes[other].copy_from_slice(&old);
    objects.insert(name.as_str().to_owned(), bytes.into());
    let damaged = source.through(Disk::with(objects).store());
    let (_, target) = new_repository();
    let copied = copy(&damaged, &target).unwrap();
    assert_eq!(copied.snapshots.iter().map(|done| done.source).collect::<Vec<_>>(), [sound]);
    assert_eq!(copied.left.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [hit]);
    let codes: Vec<_> = copied.lost.iter().map(|lost| lost.error.code()).collect();
    assert_eq!(codes, [codes::HASH_MISMATCH; 2]);
    assert_eq!(contents(&target), [files(1..4)]);
}

#[test]
fn a_snapshot_that_lacks_something_deep_in_its_folders_is_not_copied() {
    let (disk, source) = new_repository();
    let hit = back_up(&source, &files(0..3)).unwrap();
    let index = source.load_index().unwrap();
    let root = source.read_tree(&index, &source.snapshot(hit).unwrap().tree).unwrap();
    let below = source.read_tree(&index, &root[0].subtree.unwrap()).unwrap();
    let damaged = damage(&source, &disk, BlobKind::Data, &below[1].content[0]);
    let (_, target) = new_repository();
    let copied = copy_chosen(&damaged, &target, &Choice::Id(hit.to_hex())).unwrap();
    assert_eq!((copied.snapshots.len(), &copied.left[..]), (0, &[(hit, below[1].content[0])][..]));
    assert!(target.snapshots().unwrap().is_empty());
}

#[test]
fn a_snapshot_whose_blobs_no_index_names_is_not_copied() {
    let (disk, source) = new_repository();
    let first = component(&source, &files(0..4));
    let index: Vec<String> = disk.objects().into_keys().filter(|name| name.starts_with("index/")).collect();
    // Its tree is in an index of its own, most of its blobs are not.
    let second = component(&source, &files(0..5));
    let mut objects = disk.objects();
    objects.retain(|name, _| !index.contains(name));
    let damaged = source.through(Disk::with(objects).store());
    let (_, target) = new_repository();
    let copied = copy(&damaged, &target).unwrap();
    assert_eq!(copied.left.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [first, second]);
    assert_eq!(copied.lost.len(), 5, "a tree and four blobs");
    assert!(copied.lost.iter().all(|lost| lost.error.code() == codes::BLOB_MISSING), "{:?}", copied.lost);
    assert!(target.snapshots().unwrap().is_empty());
}

/// The target has the tree and not what it names: nobody can tell what that is.
#[test]
fn a_damaged_tree_that_the_target_has_is_no_reason_to_commit() {
    let (disk, source) = new_repository();
    let id = component(&source, &files(0..4));
    let tree = source.snapshot(id).unwrap().tree;
    let (target_disk, target) = new_repository();
    copy(&source, &target).unwrap();
    let data = target.load_index().unwrap().iter(BlobKind::Data).next().unwrap().pack;
    let mut objects = target_disk.objects();
    objects.remove(target.pack_key(data).unwrap().as_str());
    objects.retain(|name, _| !name.starts_with("snapshots/"));
    let target = target.through(Disk::with(objects).store());
    let copied = copy(&damage(&source, &disk, BlobKind::Tree, &tree), &target).unwrap();
    assert_eq!(copied.left, [(id, tree)]);
    assert!(target.snapshots().unwrap().is_empty());
    copy(&source, &target).unwrap();
    assert_eq!(contents(&target), contents(&source));
}

/// A parent is a snapshot of the same repository.
#[test]
fn a_copy_names_no_parent() {
    let (_, source) = new_repository();
    let parent = component(&source, &files(0..2));
    let child = component(&source, &files(0..3));
    let snapshot = source.snapshot(child).unwrap();
    drop_snapshot(&source, child);
    let child = source.save_snapshot(&Snapshot { parent: Some(parent), ..snapshot }).unwrap();
    let (_, target) = new_repository();
    let copied = copy(&source, &target).unwrap();
    let done = copied.snapshots.iter().find(|done| done.source == child).unwrap();
    assert_eq!(target.snapshot(done.target).unwrap().parent, None);
}

#[test]
fn a_damaged_tree_snapshot_or_index_is_named() {
    let (disk, source) = new_repository();
    let sound = component(&source, &files(0..4));
    let hit = component(&source, &files(2..8));
    let tree = source.snapshot(hit).unwrap().tree;
    let (_, target) = new_repository();
    let damaged = damage(&source, &disk, BlobKind::Tree, &tree);
    let copied = copy(&damaged, &target).unwrap();
    assert_eq!((copied.snapshots.len(), &copied.left[..]), (1, &[(hit, tree)][..]));
    assert_eq!(copied.snapshots[0].source, sound);
    for folder in ["snapshots/", "index/"] {
        let mut objects = disk.objects();
        let name = objects.keys().rfind(|name| name.starts_with(folder)).unwrap().clone();
        objects.insert(name, bytes::Bytes::from_static(b"damaged"));
        let damaged = source.through(Disk::with(objects).store());
        let (_, target) = new_repository();
        let plan = plan(&damaged, &target).unwrap();
        assert_eq!(plan.unreadable.len(), 1, "{folder}");
        let copied = copy(&damaged, &target).unwrap();
        assert_eq!(copied.snapshots.len() + copied.left.len(), if folder == "index/" { 2 } else { 1 });
        assert_eq!(copied.lost.is_empty(), folder == "snapshots/");
        read_all(&target);
    }
}

#[test]
fn whoever_deletes_at_once_is_waited_for_by_nobody() {
    let (_, source) = new_repository();
    let (_, target) = new_repository();
    component(&source, &files(0..2));
    for holder in [Holder::Backup, Holder::Prune] {
        let guard = lock::acquire(&target, holder).unwrap();
        copy(&source, &target).unwrap();
        guard.release();
    }
    let guard = lock::acquire(&target, Holder::PruneNow).unwrap();
    assert_eq!(copy(&source, &target).unwrap_err().code(), codes::LOCKED);
    plan(&source, &target).unwrap();
    guard.release();
    plan(&source, &target).unwrap();
    assert!(target.list(Folder::Locks).unwrap().is_empty(), "a plan leaves nothing");
    let copy = Copy::begin(&source, &target).unwrap();
    assert_eq!(lock::acquire(&target, Holder::PruneNow).unwrap_err().code(), codes::LOCKED);
    drop(copy);
    lock::acquire(&target, Holder::PruneNow).unwrap().release();
}

#[test]
fn a_copy_that_is_stopped_commits_nothing() {
    let (_, source) = new_repository();
    let (disk, target) = new_repository();
    component(&source, &files(0..8));
    let (begun, progress) = (Copy::begin(&source, &target).unwrap(), Progress::default());
    let plan = begun.plan(&all(), &progress).unwrap();
    progress.cancel();
    assert_eq!(begun.apply(plan, &progress).unwrap_err().kind(), ErrorKind::Cancelled);
    assert!(!disk.objects().keys().any(|name| name.starts_with("snapshots/") || name.starts_with("locks/")));
    let begun = Copy::begin(&source, &target).unwrap();
    assert_eq!(begun.plan(&all(), &progress).unwrap_err().kind(), ErrorKind::Cancelled);
}

/// Nested folders, an empty file, and one of several chunks that compress.
#[test]
fn what_compresses_and_what_does_not_arrives_the_same() {
    let (_, source) = new_repository();
    let (disk, target) = new_repository();
    let text = "a line of a log\n".repeat(400_000);
    let mut tree = MemorySource::default();
    tree.enter(Node::new("a", NodeKind::Directory));
    tree.file(b"empty", b"");
    tree.file(b"log", text.as_bytes());
    tree.file(b"noise", &retoma_testkit::noise(3, 3 << 20));
    tree.leave();
    let tags = vec![format!("{TAG_COMPONENT}c")];
    let options = backup::Options { paths: vec!["/x".to_owned()], tags, ..Default::default() };
    backup::backup(&source, &mut tree, &options, &Progress::default()).unwrap();
    copy(&source, &target).unwrap();
    assert_eq!(contents(&target), contents(&source));
    let lengths = |repository: &Repository| -> BTreeSet<_> {
        let index = repository.load_index().unwrap();
        let of =
            |kind| index.iter(kind).map(|place| (place.blob.id, place.blob.length_bytes)).collect::<Vec<_>>();
        of(BlobKind::Data).into_iter().chain(of(BlobKind::Tree)).collect()
    };
    assert_eq!(lengths(&target), lengths(&source), "compressed forms go as they are");
    restic_check_objects(&disk.objects());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(12))]

    /// Whatever is backed up where and copied in whichever order: in the end both have all of it, once.
    #[test]
    fn copies_in_any_order_end_with_all_in_both(steps in proptest::collection::vec((0usize..3, 0u64..12, 1u64..6), 1..8)) {
        let repositories = [new_repository().1, new_repository().1];
        let mut made = Vec::new();
        for (step, first, count) in steps {
            match step {
                2 => drop(copy(&repositories[0], &repositories[1]).unwrap()),
                which => {
                    component(&repositories[which], &files(first..first + count));
                    made.push(files(first..first + count));
                }
            }
        }
        copy(&repositories[1], &repositories[0]).unwrap();
        copy(&repositories[0], &repositories[1]).unwrap();
        made.sort();
        for repository in &repositories {
            let mut found = contents(repository);
            found.sort();
            prop_assert_eq!(&found, &made);
            check_structure(repository);
            check_no_garbage(repository);
        }
    }
}

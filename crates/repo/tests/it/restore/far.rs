//! Over a network each request costs: fewer and larger ones, and the same files.

use super::support::*;
use retoma_repo::ErrorKind;
use retoma_repo::backup::{self, Progress};
use retoma_repo::format::BlobKind;
use retoma_repo::format::tree::NodeKind;
use retoma_repo::ops::find;
use retoma_repo::restore::{Options, apply, plan};
use retoma_repo::store::layer::{Cache, CacheSettings};
use retoma_repo::store::{BlockingStore, LocalStore, Verb};
use retoma_repo::{BlobId, Repository};
use retoma_testkit::FaultyStore;
use std::path::Path;
use std::sync::Arc;

/// Folders in folders, and many side by side, each with a file.
fn items() -> Vec<Item> {
    const CHAIN: [&str; 4] = ["a", "a/b", "a/b/c", "a/b/c/d"];
    let mut items: Vec<Item> = CHAIN.map(directory).into();
    items.push(file("a/b/c/d/deep", noise(0, 3000)));
    for number in 0..40u64 {
        let path = |text: String| -> &'static str { text.leak() };
        items.push(directory(path(format!("many-{number:02}"))));
        items.push(file(path(format!("many-{number:02}/file")), noise(number + 1, 3000)));
    }
    items
}

/// The repository of `folder`, as if it were far away.
fn far(repository: &Repository, folder: &Path) -> (Repository, Arc<FaultyStore>) {
    let local = LocalStore::new(folder.join("repository")).unwrap();
    let store = Arc::new(FaultyStore::new(Arc::new(local)).far());
    (repository.through(BlockingStore::new(store.clone()).unwrap()), store)
}

#[test]
fn the_trees_that_lead_to_a_folder_are_one_request_and_near_one_each() {
    let fixture = Fixture::new();
    let tree = fixture.backup(&items());
    let (far, store) = far(&fixture.repository, fixture.folder.path());
    let index = far.load_index().unwrap();
    let before = store.calls(Verb::GetRange);
    let node = find::node(&far, &index, &tree, b"/a/b/c/d/deep").unwrap();
    assert_eq!((node.kind, node.size_bytes), (NodeKind::File, 3000));
    assert_eq!(store.calls(Verb::GetRange) - before, 1);
    let before = fixture.reads();
    find::node(&fixture.repository, &index, &tree, b"/a/b/c/d/deep").unwrap();
    assert_eq!(fixture.reads() - before, 5, "a disk answers at once: nothing is read beside");
}

#[test]
fn a_restore_from_far_asks_for_much_at_once_and_gives_the_same_files() {
    let fixture = Fixture::new();
    let items = items();
    let tree = fixture.backup(&items);
    let (far, store) = far(&fixture.repository, fixture.folder.path());
    let index = far.load_index().unwrap();
    let before = store.calls(Verb::GetRange);
    let plan = plan(&far, &index, tree, &Options::default(), &fixture.target()).unwrap();
    // The root, with what is before it; the 41 folders in it together; what is below lies in memory then.
    assert_eq!(store.calls(Verb::GetRange) - before, 2);
    let outcome = apply(plan, &Progress::default()).unwrap();
    assert!(outcome.is_complete(), "{outcome:?}");
    assert_eq!(store.calls(Verb::GetRange) - before, 3, "the only pack of data");
    for (path, node, bytes) in &items {
        if node.kind == NodeKind::File {
            assert_eq!(&fixture.read(path), bytes, "{path}");
        }
    }
}

/// An answer that was no good is not what the next one is taken from.
#[test]
fn a_damaged_answer_is_asked_for_again() {
    let fixture = Fixture::new();
    let tree = fixture.backup(&items());
    let (far, _) = far(&fixture.repository, fixture.folder.path());
    let index = far.load_index().unwrap();
    let location = index.get(BlobKind::Tree, &tree).unwrap();
    let pack = fixture.folder.path().join("repository").join(far.pack_key(location.pack).unwrap().as_str());
    let flip = || {
        let mut bytes = std::fs::read(&pack).unwrap();
        bytes[location.blob.offset_bytes as usize + 20] ^= 1;
        std::fs::write(&pack, bytes).unwrap();
    };
    flip();
    assert_eq!(far.read_tree(&index, &tree).unwrap_err().kind(), ErrorKind::Corrupt);
    flip();
    assert_eq!(far.read_tree(&index, &tree).unwrap().len(), 41);
}

/// What this host stored, or read once, it reads near by.
#[test]
fn a_backup_reads_the_directories_of_its_parent_from_the_cache() {
    let fixture = Fixture::new();
    let local = LocalStore::new(fixture.folder.path().join("repository")).unwrap();
    let store = Arc::new(FaultyStore::new(Arc::new(local)).far());
    let cached = |name: &str| {
        let settings = CacheSettings::metadata(fixture.folder.path().join(name));
        fixture.repository.through(BlockingStore::new(Arc::new(Cache::new(store.clone(), settings))).unwrap())
    };
    let reads =
        || store.log().iter().filter(|call| call.name.starts_with("data/") && call.verb != Verb::Put).count();
    let walk = |repository: &Repository, tree: BlobId| {
        let index = repository.load_index().unwrap();
        for (path, ..) in items() {
            find::node(repository, &index, &tree, format!("/{path}").as_bytes()).unwrap();
        }
    };
    let here = cached("cache");
    let options = backup::Options::default();
    let tree = backup::backup(&here, &mut source(&items()), &options, &Progress::default()).unwrap().tree;
    walk(&here, tree);
    assert_eq!(reads(), 0, "it stored them itself");
    walk(&cached("another-host"), tree);
    assert_eq!(reads(), 1, "another host reads the pack of trees once");
    walk(&cached("another-host"), tree);
    assert_eq!(reads(), 1);
}

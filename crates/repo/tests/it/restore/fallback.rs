//! A repository that has lost something while it is restored, and copies that still have it: the same data, and it is said where
//! they came from; where nobody has them, nothing wrong is written.

use super::support::*;
use retoma_core::{Error, ErrorKind, Secret, error::codes};
use retoma_repo::backup::Progress;
use retoma_repo::copies::{Copies, Opener};
use retoma_repo::format::BlobKind;
use retoma_repo::format::snapshot::TAG_COMPONENT;
use retoma_repo::ops::copy::{Choice, Copy};
use retoma_repo::restore::{Options, Outcome, apply, plan};
use retoma_repo::store::{BlockingStore, LocalStore, Verb};
use retoma_repo::{BlobId, Folder, Repository, Result, backup};
use retoma_testkit::{FaultyStore, Random};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A repository in a folder of the fixture.
struct Place {
    folder: PathBuf,
    repository: Repository,
    store: Arc<FaultyStore>,
}

impl Place {
    fn new(fixture: &Fixture, name: &str) -> Self {
        let folder = fixture.folder.path().join(name);
        let store = Arc::new(FaultyStore::new(Arc::new(LocalStore::new(folder.clone()).unwrap())));
        let blocking = BlockingStore::new(store.clone()).unwrap();
        let (repository, _) = Repository::open_or_init(blocking, &Secret::new(name.to_owned())).unwrap();
        Self { folder, repository, store }
    }

    fn objects(&self, folder: &str) -> Vec<PathBuf> {
        objects(&self.folder, folder)
    }

    /// From now on every call fails as if nothing answered.
    fn cut_off(&self) {
        self.store.before_calls(|_, _| Err(away()));
    }
}

fn away() -> Error {
    Error::new(ErrorKind::Unavailable, codes::STORE_UNAVAILABLE, "the network is down")
}

/// All files below a folder of a repository, sorted.
fn objects(repository: &Path, folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut waiting = vec![repository.join(folder)];
    while let Some(folder) = waiting.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { waiting.push(path) } else { found.push(path) }
        }
    }
    found.sort();
    found
}

fn remove(files: impl IntoIterator<Item = PathBuf>) {
    for file in files {
        std::fs::remove_file(file).unwrap();
    }
}

/// Flips a byte in the middle of a file.
fn spoil(path: &Path) {
    let mut bytes = std::fs::read(path).unwrap();
    let middle = bytes.len() / 3;
    bytes[middle] ^= 1;
    std::fs::remove_file(path).unwrap();
    std::fs::write(path, bytes).unwrap();
}

/// Files in several folders: small ones, one that is cut into chunks, one with a hole; so many that there are several packs.
fn items() -> Vec<Item> {
    const FOLDERS: [&str; 4] = ["a", "b", "c", "d"];
    const NAMES: [[&str; 4]; 4] = [
        ["a/0", "a/1", "a/2", "a/3"],
        ["b/0", "b/1", "b/2", "b/3"],
        ["c/0", "c/1", "c/2", "c/3"],
        ["d/0", "d/1", "d/2", "d/3"],
    ];
    let mut items = Vec::new();
    for (at, (folder, names)) in FOLDERS.into_iter().zip(NAMES).enumerate() {
        items.push(directory(folder));
        for (seed, name) in names.into_iter().enumerate() {
            let length = if seed == 3 { 6_000_000 } else { 3000 + 500 * seed };
            items.push(file(name, noise((at * 10 + seed) as u64, length)));
        }
    }
    items
}

/// A backup that a copy was made of.
struct Both {
    fixture: Fixture,
    first: Place,
    second: Place,
    tree: BlobId,
    items: Vec<Item>,
}

/// Backs the items up as a component.
fn back_up(repository: &Repository, items: &[Item]) -> BlobId {
    let options = backup::Options { tags: vec![format!("{TAG_COMPONENT}c")], ..backup::Options::default() };
    backup::backup(repository, &mut source(items), &options, &Progress::default()).unwrap().tree
}

fn copy(from: &Repository, to: &Repository) {
    let (copy, progress) = (Copy::begin(from, to).unwrap(), Progress::default());
    let plan = copy.plan(&Choice::Components(vec!["c".to_owned()]), &progress).unwrap();
    assert!(copy.apply(plan, &progress).unwrap().left.is_empty());
}

fn both() -> Both {
    let fixture = Fixture::new();
    let (first, second) = (Place::new(&fixture, "first"), Place::new(&fixture, "second"));
    let items = items();
    // Several backups, so that the data lie in several packs and indexes.
    back_up(&first.repository, &items[..7]);
    back_up(&first.repository, &items[..14]);
    let tree = back_up(&first.repository, &items);
    copy(&first.repository, &second.repository);
    Both { fixture, first, second, tree, items }
}

impl Both {
    fn copies(&self) -> Arc<Copies> {
        let second = self.second.repository.clone();
        copies([("second", Arc::new(move || Ok(second.clone())) as Opener)])
    }

    fn restore(&self, copies: &Arc<Copies>) -> Result<Outcome> {
        restore(&self.first.repository.with_copies(Arc::clone(copies)), self.tree, &self.fixture.target())
    }

    /// Restores all of it, some from the copy.
    #[track_caller]
    fn comes_back_with_the_copy(&self) {
        let copies = self.copies();
        let outcome = self.restore(&copies).unwrap();
        assert!(outcome.is_complete(), "{outcome:?}");
        self.assert_all_is_there();
        assert!(blobs(&copies)[0] > 0);
    }

    fn assert_all_is_there(&self) {
        for (path, node, bytes) in &self.items {
            if node.kind == retoma_repo::format::tree::NodeKind::File {
                assert!(self.fixture.read(path) == *bytes, "{path} differs");
                assert_eq!(mtime(&self.fixture.at(path)), node.mtime, "{path}");
            }
        }
    }

    fn clear_target(&self) {
        std::fs::remove_dir_all(self.fixture.target()).ok();
    }
}

fn copies<const N: usize>(list: [(&str, Opener); N]) -> Arc<Copies> {
    Arc::new(Copies::new(list.into_iter().map(|(name, opener)| (name.to_owned(), opener))))
}

fn restore(repository: &Repository, tree: BlobId, target: &Path) -> Result<Outcome> {
    let index = repository.load_readable_index()?;
    let plan = plan(repository, &index, tree, &Options::default(), target)?;
    apply(plan, &Progress::default())
}

fn blobs(copies: &Copies) -> Vec<u64> {
    copies.taken().map(|taken| taken.blobs).collect()
}

/// The test of the issue: 30 % of the data objects are gone and some of the others damaged, by seed.
#[test]
fn what_is_gone_or_damaged_comes_from_the_copy_and_is_counted() {
    let both = both();
    let whole: Vec<(PathBuf, Vec<u8>)> = both
        .first
        .objects("data")
        .into_iter()
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    assert!(whole.len() >= 5, "{}", whole.len());
    let mut taken = 0;
    for seed in 0..6 {
        let mut random = Random::new(seed);
        for (path, bytes) in &whole {
            std::fs::remove_file(path).ok();
            match random.below(10) {
                0..3 => {}
                3..5 => {
                    std::fs::write(path, bytes).unwrap();
                    spoil(path);
                }
                5 => std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap(),
                _ => std::fs::write(path, bytes).unwrap(),
            }
        }
        both.clear_target();
        let copies = both.copies();
        let outcome = both.restore(&copies).unwrap();
        assert!(outcome.is_complete(), "seed {seed}: {outcome:?}");
        both.assert_all_is_there();
        taken += blobs(&copies)[0];
        let bytes = copies.taken().next().unwrap().bytes;
        assert_eq!(bytes > 0, blobs(&copies)[0] > 0);
    }
    assert!(taken > 20, "the seeds damage something: {taken}");
}

#[test]
fn nothing_is_opened_where_nothing_is_missing() {
    let both = both();
    let copies = copies([("second", Arc::new(|| Err(Error::internal("nobody needs it"))) as Opener)]);
    assert!(both.restore(&copies).unwrap().is_complete());
    both.assert_all_is_there();
    assert!(copies.taken().all(|taken| taken.blobs == 0 && taken.problem.is_none()), "it was opened");
}

#[test]
fn a_copy_is_opened_once_and_each_blob_counts_once() {
    let both = both();
    let data = both.first.repository.load_index().unwrap().iter(BlobKind::Data).count() as u64;
    let trees = both.first.repository.load_index().unwrap().iter(BlobKind::Tree).count() as u64;
    remove(both.first.objects("data"));
    let (opened, second) = (Arc::new(AtomicUsize::new(0)), both.second.repository.clone());
    let counted = Arc::clone(&opened);
    let open = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        Ok(second.clone())
    };
    let copies = copies([("second", Arc::new(open) as Opener)]);
    assert!(both.restore(&copies).unwrap().is_complete());
    both.assert_all_is_there();
    assert_eq!(opened.load(Ordering::Relaxed), 1);
    // The trees of the last snapshot: the root and four folders.
    assert_eq!(blobs(&copies), [data + 5]);
    assert!(trees > 5);
}

#[test]
fn without_any_index_all_comes_from_the_copy() {
    let both = both();
    for lost in [1, usize::MAX] {
        let indexes = both.first.objects("index");
        remove(indexes.into_iter().take(lost));
        both.clear_target();
        both.comes_back_with_the_copy();
    }
}

#[test]
fn a_damaged_index_file_is_made_up_for() {
    let both = both();
    spoil(&both.first.objects("index")[0]);
    both.comes_back_with_the_copy();
}

#[test]
fn a_store_that_goes_away_in_the_middle_leaves_the_rest_to_the_copy() {
    let both = both();
    let reads = AtomicUsize::new(0);
    both.first.store.before_calls(move |verb, _| {
        // The trees are read, and some of the data.
        let is_away = verb == Verb::GetRange && reads.fetch_add(1, Ordering::Relaxed) >= 8;
        if is_away { Err(away()) } else { Ok(()) }
    });
    both.comes_back_with_the_copy();
}

#[test]
fn a_store_that_is_away_is_not_asked_again() {
    let both = both();
    let repository = both.first.repository.with_copies(both.copies());
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    both.first.store.before_calls(move |_, _| {
        counted.fetch_add(1, Ordering::Relaxed);
        Err(away())
    });
    let outcome = restore(&repository, both.tree, &both.fixture.target()).unwrap();
    assert!(outcome.is_complete(), "{outcome:?}");
    both.assert_all_is_there();
    assert_eq!(asked.load(Ordering::Relaxed), 1, "the listing of the index");
}

#[test]
fn what_is_damaged_in_both_fails_alone_and_with_the_reason_of_the_first() {
    let both = both();
    let content = both.items[1].2.clone();
    let id = BlobId::of(&content);
    for place in [&both.first, &both.second] {
        let index = place.repository.load_index().unwrap();
        let location = index.get(BlobKind::Data, &id).unwrap();
        let path = place.folder.join(place.repository.pack_key(location.pack).unwrap().as_str());
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[location.blob.offset_bytes as usize + 20] ^= 1;
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, bytes).unwrap();
    }
    let outcome = both.restore(&both.copies()).unwrap();
    let failed: Vec<_> = outcome.failed.iter().map(|failed| failed.path.clone()).collect();
    assert_eq!(failed, [both.fixture.at("a/0").into_os_string().into_encoded_bytes()]);
    assert_eq!(outcome.failed[0].error.kind(), ErrorKind::Corrupt);
    let index = both.first.repository.load_index().unwrap();
    let pack = index.get(BlobKind::Data, &id).unwrap().pack;
    assert!(outcome.failed[0].error.to_string().contains(&pack.to_string()), "{}", outcome.failed[0].error);
    assert!(!both.fixture.at("a/0").exists(), "never wrong bytes");
    for (path, _, bytes) in both.items.iter().filter(|item| item.0.contains('/') && item.0 != "a/0") {
        assert!(both.fixture.read(path) == *bytes, "{path}");
    }
}

#[test]
fn when_both_are_away_the_restore_stops_and_lists_everything() {
    let both = both();
    let index = both.first.repository.load_readable_index().unwrap();
    let repository = both.first.repository.with_copies(both.copies());
    let plan = plan(&repository, &index, both.tree, &Options::default(), &both.fixture.target()).unwrap();
    both.first.cut_off();
    both.second.cut_off();
    let outcome = apply(plan, &Progress::default()).unwrap();
    assert_eq!(outcome.stopped.as_ref().unwrap().kind(), ErrorKind::Unavailable);
    assert_eq!(outcome.failed.len() + outcome.not_attempted.len(), 16, "{outcome:?}");
    for (path, ..) in both.items.iter().filter(|item| item.0.contains('/')) {
        assert!(!both.fixture.at(path).exists(), "{path}");
    }
}

#[test]
fn a_copy_that_cannot_be_opened_is_named_and_the_next_one_is_asked() {
    let both = both();
    let third = Place::new(&both.fixture, "third");
    copy(&both.second.repository, &third.repository);
    remove(both.first.objects("data").into_iter().step_by(2));
    let third = third.repository.clone();
    let copies = copies([
        ("second", Arc::new(|| Err(away())) as Opener),
        ("third", Arc::new(move || Ok(third.clone()))),
    ]);
    assert!(both.restore(&copies).unwrap().is_complete());
    both.assert_all_is_there();
    let taken: Vec<_> = copies.taken().collect();
    assert_eq!(taken[0].blobs, 0);
    assert_eq!(taken[0].problem.unwrap().kind(), ErrorKind::Unavailable);
    assert!(taken[1].blobs > 0 && taken[1].problem.is_none());
}

/// What each of them lacks, another one has.
#[test]
fn what_two_copies_have_between_them_makes_a_whole() {
    let both = both();
    let third = Place::new(&both.fixture, "third");
    copy(&both.second.repository, &third.repository);
    remove(both.first.objects("data"));
    remove(both.first.objects("index"));
    // Damage of every blob of one copy but some, and of those in the other.
    for (place, is_lost) in [(&both.second, true), (&third, false)] {
        let index = place.repository.load_index().unwrap();
        for kind in [BlobKind::Data, BlobKind::Tree] {
            for location in index.iter(kind).filter(|location| (location.blob.id.0[0] % 2 == 0) == is_lost) {
                let path = place.folder.join(place.repository.pack_key(location.pack).unwrap().as_str());
                let mut bytes = std::fs::read(&path).unwrap();
                bytes[location.blob.offset_bytes as usize + 20] ^= 1;
                std::fs::remove_file(&path).unwrap();
                std::fs::write(&path, bytes).unwrap();
            }
        }
    }
    let (second, third) = (both.second.repository.clone(), third.repository.clone());
    let copies = copies([
        ("second", Arc::new(move || Ok(second.clone())) as Opener),
        ("third", Arc::new(move || Ok(third.clone()))),
    ]);
    let outcome = both.restore(&copies).unwrap();
    assert!(outcome.is_complete(), "{outcome:?}");
    both.assert_all_is_there();
    assert!(blobs(&copies).iter().all(|blobs| *blobs > 0), "{:?}", blobs(&copies));
}

/// In place, with parts there already: what is right stays, what is wrong is replaced from the copy.
#[test]
fn a_delta_restore_takes_only_what_is_missing() {
    let both = both();
    assert!(both.restore(&both.copies()).unwrap().is_complete());
    let mut bytes = both.fixture.read("b/3");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(both.fixture.at("b/3"), &bytes).unwrap();
    remove(both.first.objects("data"));
    let copies = both.copies();
    assert!(both.restore(&copies).unwrap().is_complete());
    both.assert_all_is_there();
    assert_eq!(blobs(&copies), [1 + 5], "one chunk, and the trees");
}

#[test]
fn an_examination_sees_what_the_repository_itself_has() {
    let both = both();
    let id = both.first.repository.list(Folder::Data).unwrap().len();
    assert!(id > 0 && both.first.repository.copies().is_none());
    remove(both.first.objects("data"));
    let index = both.first.repository.load_index().unwrap();
    assert!(both.first.repository.read_tree(&index, &both.tree).is_err());
    let with = both.first.repository.with_copies(both.copies());
    assert!(with.read_tree(&index, &both.tree).is_ok());
}

use super::*;
use jiff::SignedDuration;
use retoma_core::Secret;
use retoma_repo::backup::{self, Progress};
use retoma_repo::format::snapshot::TAG_COMPONENT;
use retoma_repo::store::{BlockingStore, LocalStore};
use retoma_repo::{BlobId, ops::find};
use retoma_testkit::{MemorySource, noise};
use std::path::Path;

fn open(folder: &Path) -> Result<Repository> {
    let store = BlockingStore::new(Arc::new(LocalStore::new(folder.to_owned())?))?;
    Repository::open(store, &Secret::new("pw".to_owned()))
}

/// A repository with a snapshot of the component `c` that holds noise by `seed`.
fn make(folder: &Path, seed: u64) {
    let store = BlockingStore::new(Arc::new(LocalStore::new(folder.to_owned()).unwrap())).unwrap();
    let (repository, _) = Repository::open_or_init(store, &Secret::new("pw".to_owned())).unwrap();
    let mut source = MemorySource::default();
    source.file(b"f", &noise(seed, 3000));
    let options = backup::Options { tags: vec![format!("{TAG_COMPONENT}c")], ..backup::Options::default() };
    backup::backup(&repository, &mut source, &options, &Progress::default()).unwrap();
}

/// Moves the newest snapshot of a repository by so many seconds.
fn shift(folder: &Path, seconds: i64) {
    let repository = open(folder).unwrap();
    let (id, mut snapshot) = repository.snapshots().unwrap().pop().unwrap();
    snapshot.time.0 += SignedDuration::from_secs(seconds);
    repository.save_snapshot(&snapshot).unwrap();
    std::fs::remove_file(folder.join("snapshots").join(id.to_hex())).unwrap();
}

fn newest(repository: &Repository) -> Result<BTreeMap<String, Timestamp>> {
    let selector = find::Selector { component: Some("c".to_owned()), ..find::Selector::default() };
    let (_, snapshot) = find::snapshot(repository, &selector)?;
    Ok(BTreeMap::from([("c".to_owned(), snapshot.time.0)]))
}

fn choose_of(folder: &Path, names: &[(&str, bool)]) -> Result<Chosen> {
    let candidate = |(name, is_local): &(&str, bool)| {
        let place = folder.join(name);
        Candidate { name: (*name).to_owned(), is_local: *is_local, open: Arc::new(move || open(&place)) }
    };
    choose(names.iter().map(candidate).collect(), &(Arc::new(newest) as Arc<Wanted>))
}

fn packs(folder: &Path) -> Vec<std::path::PathBuf> {
    let folders = std::fs::read_dir(folder.join("data")).unwrap().map(|it| it.unwrap().path());
    folders.flat_map(|it| std::fs::read_dir(it).unwrap().map(|it| it.unwrap().path())).collect()
}

/// What the copies of the chosen one are.
fn copies(chosen: &Chosen) -> Vec<&str> {
    chosen.repository.copies().map_or_else(Vec::new, |copies| copies.taken().map(|it| it.name).collect())
}

#[test]
fn the_first_local_one_is_read_and_the_others_are_its_copies() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for name in ["far", "near", "also"] {
        make(&path.join(name), 1);
    }
    let chosen = choose_of(path, &[("far", false), ("near", true), ("also", true)]).unwrap();
    assert_eq!(chosen.name, "near");
    assert_eq!(copies(&chosen), ["far", "also"]);
    assert!(chosen.care.is_empty() && chosen.unusable.is_empty(), "{:?}", chosen.care);
    let alone = choose_of(path, &[("far", false)]).unwrap();
    assert!(alone.name == "far" && alone.repository.copies().is_none());
}

#[test]
fn the_newest_wins_and_one_that_lacks_packs_is_passed_over() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for name in ["near", "far", "old"] {
        make(&path.join(name), 1);
    }
    shift(&path.join("old"), -3600);
    let all = [("old", true), ("near", true), ("far", false)];
    assert_eq!(choose_of(path, &all).unwrap().name, "near");
    std::fs::remove_file(&packs(&path.join("near"))[0]).unwrap();
    let chosen = choose_of(path, &all).unwrap();
    assert_eq!(chosen.name, "far");
    assert!(
        chosen.care.len() == 1 && chosen.care[0].contains("`near` lacks 1 of its packs"),
        "{:?}",
        chosen.care
    );
    // Where none is complete, the first of the newest stays.
    std::fs::remove_file(&packs(&path.join("far"))[0]).unwrap();
    let chosen = choose_of(path, &all).unwrap();
    assert_eq!((chosen.name.as_str(), chosen.care.len()), ("near", 2));
    assert_eq!(copies(&chosen), ["old", "far"]);
}

#[test]
fn one_that_cannot_be_used_stops_nothing_and_may_still_give_blobs() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for name in ["near", "spoilt"] {
        make(&path.join(name), 1);
    }
    let snapshots = path.join("spoilt/snapshots");
    let snapshot = std::fs::read_dir(snapshots).unwrap().next().unwrap().unwrap().path();
    std::fs::remove_file(&snapshot).unwrap();
    std::fs::write(&snapshot, b"no snapshot").unwrap();
    let chosen = choose_of(path, &[("gone", true), ("spoilt", true), ("near", true)]).unwrap();
    assert_eq!(chosen.name, "near");
    let unusable: Vec<_> =
        chosen.unusable.iter().map(|(name, error)| (name.as_str(), error.code())).collect();
    assert_eq!(unusable, [("gone", codes::NO_REPOSITORY), ("spoilt", codes::HASH_MISMATCH)]);
    assert_eq!(copies(&chosen), ["spoilt"]);
    // Its blobs are whole.
    let index = chosen.repository.load_readable_index().unwrap();
    for pack in packs(&path.join("near")) {
        std::fs::remove_file(pack).unwrap();
    }
    let id = BlobId::of(&noise(1, 3000));
    let read = chosen.repository.read_blob(&index, retoma_repo::format::BlobKind::Data, &id);
    assert_eq!(read.unwrap(), noise(1, 3000));
}

#[test]
fn without_any_the_error_is_that_of_the_first() {
    let folder = tempfile::tempdir().unwrap();
    make(&folder.path().join("locked"), 1);
    std::fs::remove_file(folder.path().join("locked/config")).unwrap();
    let error = choose_of(folder.path(), &[("gone", true), ("locked", true)]).unwrap_err();
    assert_eq!(error.code(), codes::NO_REPOSITORY);
    let error = choose_of(folder.path(), &[("locked", true), ("gone", true)]).unwrap_err();
    assert_eq!(error.code(), codes::CONFIG_MISSING);
}

#[test]
fn what_is_newer_elsewhere_is_said() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    for name in ["near", "far"] {
        make(&path.join(name), 1);
    }
    shift(&path.join("near"), -30);
    let both = [("near", true), ("far", false)];
    let chosen = choose_of(path, &both).unwrap();
    assert!(chosen.name == "near" && chosen.care.is_empty(), "{:?}", chosen.care);
    shift(&path.join("near"), -60);
    assert_eq!(choose_of(path, &both).unwrap().name, "far");
}

//! Verify, find, ls and diff, on repositories that `backup` and restic wrote.

mod browse;
mod corruption;
mod damaged_store;
mod findings;
mod memory_source;
mod restic;
mod truth;

use damaged_store::DamagedStore;
use memory_source::{Files, source};
use retoma_core::Secret;
use retoma_repo::backup::{self, Progress};
use retoma_repo::format::snapshot::TAG_COMPONENT;
use retoma_repo::ops::verify::{Options, ReadData, Report, verify};
use retoma_repo::store::{BlockingStore, ObjectStore};
use retoma_repo::{Folder, Repository, SnapshotId};
use retoma_testkit::{Random, noise};
use std::collections::BTreeMap;
use std::sync::Arc;

/// A repository in memory whose objects a test can damage, and what each snapshot must give back.
struct Fixture {
    store: Arc<DamagedStore>,
    repository: Repository,
    known: BTreeMap<SnapshotId, Files>,
}

impl Fixture {
    fn new() -> Self {
        let store = Arc::new(DamagedStore::new(Arc::new(ObjectStore::memory())));
        let blocking = BlockingStore::new(store.clone()).unwrap();
        let repository = Repository::init(blocking, &Secret::new("a test".to_owned())).unwrap();
        Self { store, repository, known: BTreeMap::new() }
    }

    fn back_up(&mut self, component: &str, files: &Files) -> SnapshotId {
        self.back_up_with(component, files, &[])
    }

    fn back_up_with(&mut self, component: &str, files: &Files, unreadable: &[&str]) -> SnapshotId {
        let options = backup::Options {
            paths: vec!["/srv".to_owned()],
            tags: vec![format!("{TAG_COMPONENT}{component}")],
            hostname: Some("db1".to_owned()),
            workers: Some(1),
            ..backup::Options::default()
        };
        let mut source = source(files, unreadable);
        let done = backup::backup(&self.repository, &mut source, &options, &Progress::default()).unwrap();
        self.known.insert(done.snapshot, files.clone());
        done.snapshot
    }

    fn verify(&self, read_data: ReadData) -> Report {
        let options = Options { read_data, workers: Some(2), ..Options::default() };
        verify(&self.repository, &options, &Progress::default()).unwrap()
    }

    /// The names of all objects in a folder, sorted.
    fn objects(&self, folder: Folder) -> Vec<String> {
        let listed = self.repository.store().list(folder.name()).unwrap();
        let mut names: Vec<String> = listed.iter().map(|meta| meta.key.as_str().to_owned()).collect();
        names.sort();
        names
    }
}

/// Files by path from the snapshot's root, without a slash in front.
fn files<const N: usize>(list: [(&str, Vec<u8>); N]) -> Files {
    list.into_iter().map(|(path, contents)| (path.as_bytes().to_vec(), contents)).collect()
}

fn text(seed: u64, bytes: usize) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut text = Vec::with_capacity(bytes + 16);
    while text.len() < bytes {
        text.extend_from_slice(format!("line {} of a log\n", random.below(10_000)).as_bytes());
    }
    text.truncate(bytes);
    text
}

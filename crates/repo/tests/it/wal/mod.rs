//! The WAL archive in real repositories.

mod coverage;
mod damage;
mod end;
mod faults;
mod floors;
mod objects;
mod windows;

use retoma_core::Secret;
use retoma_core::postgres::WalFileName;
use retoma_repo::store::{BlockingStore, Key, ObjectStore, PutMode, Store};
use retoma_repo::wal::Archive;
use retoma_repo::{Repository, Result};
use retoma_testkit::wal::{name, size, timeline};
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};

const SERVER: u64 = 7_000_000_000_000_000_001;
const MIB: u64 = 1 << 20;

/// The same repository in every store: to derive a key takes long.
fn repository_in(store: Arc<dyn Store>) -> Repository {
    static MADE: LazyLock<Repository> = LazyLock::new(|| {
        let store = BlockingStore::new(Arc::new(ObjectStore::memory())).unwrap();
        Repository::init(store, &Secret::new("correct horse".to_owned())).unwrap()
    });
    let config = Key::new("config").unwrap();
    let store = BlockingStore::new(store).unwrap();
    store.put(&config, MADE.store().get(&config).unwrap(), PutMode::Overwrite).unwrap();
    MADE.through(store)
}

fn archive_in(store: Arc<dyn Store>) -> Archive {
    Archive::new(&repository_in(store), "db", SERVER).unwrap()
}

fn archive() -> (Arc<ObjectStore>, Archive) {
    let store = Arc::new(ObjectStore::memory());
    (store.clone(), archive_in(store))
}

fn file(on: u32, number: u64) -> WalFileName {
    WalFileName::Segment(name(on, number))
}

/// Its contents.
fn segment(on: u32, number: u64) -> Vec<u8> {
    retoma_testkit::wal::segment(&name(on, number).to_string(), SERVER, number)
}

/// What comes in parts, laid together; no byte twice.
fn fetch_in_parts(archive: &Archive, name: WalFileName, threads: usize) -> Result<Option<Vec<u8>>> {
    let parts = Mutex::new(BTreeMap::new());
    let length = archive.fetch_in_parts(name, threads, &|at, part| {
        parts.lock().unwrap().insert(at, part.to_vec());
        Ok(())
    });
    let mut whole = Vec::new();
    for (at, part) in parts.into_inner().unwrap() {
        assert_eq!(at, whole.len() as u64);
        whole.extend(part);
    }
    assert_eq!(
        length.as_ref().ok().copied().flatten().unwrap_or(0),
        whole.len() as u64,
        "an error comes before all parts"
    );
    length.map(|length| length.map(|_| whole))
}

/// The object of a file in the archive.
fn key(text: &str) -> Key {
    Key::new(format!("wal/db/{SERVER}/{text}")).unwrap()
}

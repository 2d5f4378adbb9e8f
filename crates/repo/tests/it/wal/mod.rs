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
use retoma_repo::Repository;
use retoma_repo::store::{BlockingStore, Key, ObjectStore, PutMode, Store};
use retoma_repo::wal::Archive;
use retoma_testkit::wal::{name, size, timeline};
use std::sync::{Arc, LazyLock};

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

/// The object of a file in the archive.
fn key(text: &str) -> Key {
    Key::new(format!("wal/db/{SERVER}/{text}")).unwrap()
}

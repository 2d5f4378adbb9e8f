//! A copy of a repository that lies in a bucket or on another machine: every object is fetched into a folder.
//!
//! It is the whole repository, so a drill from far away costs its transfer; what a drill restores and damages must not be the
//! original.

use super::copy::WAL;
use crate::interrupt::Interrupt;
use retoma_core::{Error, ErrorKind, Result, ResultExt as _, error::codes};
use retoma_repo::Folder;
use retoma_repo::store::{BlockingStore, Key};
use retoma_repo::threads;
use std::path::Path;

/// How many objects are fetched at once; each waits for the network most of the time, and is held in memory meanwhile.
const AT_ONCE: usize = 8;

/// Fetches the objects below `store` into the new folder `to`, in the reverse of the order in which a backup writes, as
/// [`super::copy::copy_repository`] does. Locks stay behind. When an object vanishes meanwhile, everything is fetched once more.
///
/// # Errors
/// `Conflict` with `R0218` when an object vanishes the second time too; what the store and the file system say; `Cancelled`.
pub(super) fn fetch_repository(store: &BlockingStore, to: &Path, interrupt: &Interrupt) -> Result<()> {
    let vanished = |error: &Error| error.kind() == ErrorKind::NotFound;
    match fetch_all(store, to, interrupt) {
        Err(error) if vanished(&error) => {}
        ended => return ended,
    }
    std::fs::remove_dir_all(to).map_err(|error| Error::io(to.display(), error))?;
    fetch_all(store, to, interrupt).map_err(|error| {
        if !vanished(&error) {
            return error;
        }
        let message = "an object of the repository vanished while it was fetched, twice";
        Error::new(ErrorKind::Conflict, codes::CHANGED_MEANWHILE, message).with_source(error).with_hint(
            "wait until `retoma prune` or `retoma forget` on this repository has ended, and run it again",
        )
    })
}

fn fetch_all(store: &BlockingStore, to: &Path, interrupt: &Interrupt) -> Result<()> {
    let folders =
        [Folder::Snapshots, Folder::Index, Folder::Recipients, Folder::Keys, Folder::Data].map(Folder::name);
    for folder in folders.into_iter().chain([WAL]) {
        let objects = store.list(folder).with_context(|| format!("list `{folder}`"))?;
        // Where there are none a repository has the folder all the same.
        std::fs::create_dir_all(to.join(folder)).map_err(|error| Error::io(to.display(), error))?;
        threads::for_each("fetch", AT_ONCE, &objects, |object| {
            interrupt.check()?;
            fetch_one(store, &object.key, to)
        })?;
    }
    fetch_one(store, &Key::new("config")?, to)
}

fn fetch_one(store: &BlockingStore, key: &Key, to: &Path) -> Result<()> {
    let bytes = store.get(key)?;
    let path = to.join(key.as_str());
    let write = || {
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, &bytes)
    };
    write().map_err(|error| Error::io(path.display(), error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use retoma_repo::store::{ObjectStore, PutMode, Verb};
    use retoma_testkit::faulty::{Fault, FaultyStore, Rule, When};
    use std::sync::Arc;

    fn store(keys: &[&str]) -> BlockingStore {
        let store = BlockingStore::new(Arc::new(ObjectStore::memory())).unwrap();
        for key in keys {
            let data = Bytes::copy_from_slice(key.as_bytes());
            store.put(&Key::new(*key).unwrap(), data, PutMode::Create).unwrap();
        }
        store
    }

    #[test]
    fn every_object_that_a_recovery_needs_is_fetched_and_no_lock() {
        let kept = [
            "config",
            "keys/k",
            "index/i",
            "snapshots/s",
            "data/ab/abc",
            "data/cd/cde",
            "wal/db/1/1/x",
            "recipients/r",
        ];
        let store = store(&[&kept[..], &["locks/l", "evidence/w/1"]].concat());
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("to");
        fetch_repository(&store, &to, &Interrupt::default()).unwrap();
        for key in kept {
            assert_eq!(std::fs::read_to_string(to.join(key)).unwrap(), key);
        }
        assert!(!to.join("locks").exists() && !to.join("evidence").exists());
    }

    /// A prune and a forget while it is fetched: an index file goes, and a snapshot that was fetched before.
    #[test]
    fn what_vanishes_is_fetched_anew_and_nothing_of_the_first_try_is_left() {
        let keys = ["config", "keys/k", "index/i", "snapshots/kept", "snapshots/forgotten", "data/ab/abc"];
        let inner = store(&keys);
        let gone = Fault::Error(ErrorKind::NotFound);
        let faulty = Arc::new(FaultyStore::new(Arc::clone(inner.store())).with(Rule::new(
            Verb::Get,
            "index/i",
            When::First(1),
            gone,
        )));
        let forgotten = Key::new("snapshots/forgotten").unwrap();
        faulty.before_calls(move |verb, name| {
            if (verb, name) == (Verb::Get, "index/i") {
                let (inner, key) = (inner.clone(), forgotten.clone());
                std::thread::spawn(move || inner.delete(&key)).join().unwrap()?;
            }
            Ok(())
        });
        let folder = tempfile::tempdir().unwrap();
        let to = folder.path().join("to");
        let store = BlockingStore::new(Arc::<FaultyStore>::clone(&faulty)).unwrap();
        fetch_repository(&store, &to, &Interrupt::default()).unwrap();
        assert!(to.join("snapshots/kept").is_file() && to.join("index/i").is_file());
        assert!(!to.join("snapshots/forgotten").exists(), "it was there at the first try alone");
        let lists: Vec<String> =
            faulty.log().into_iter().filter(|call| call.verb == Verb::List).map(|call| call.name).collect();
        let all = ["snapshots", "index", "recipients", "keys", "data", "wal"];
        assert_eq!(lists, [&all[..2], &all[..]].concat(), "what needs others is looked at before them");
    }

    #[test]
    fn what_is_no_repository_and_what_is_stopped_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let error = fetch_repository(&store(&["keys/k"]), &folder.path().join("a"), &Interrupt::default())
            .unwrap_err();
        assert_eq!(
            (error.kind(), error.code()),
            (ErrorKind::Conflict, codes::CHANGED_MEANWHILE),
            "no config, twice"
        );
        let interrupt = Interrupt::default();
        interrupt.set();
        let error = fetch_repository(&store(&["config", "keys/k"]), &folder.path().join("b"), &interrupt)
            .unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Cancelled);
    }
}

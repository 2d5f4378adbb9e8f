//! A writer killed at any moment leaves whole objects, all those it called stored, and leftovers that can be removed.

use super::{key, names};
use jiff::Timestamp;
use retoma_repo::store::{BlockingStore, LocalStore, PutMode, Store as _};
use retoma_testkit::{Folder, Random, bytes};
use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::{env, fs, thread};

const FOLDER: &str = "RETOMA_TEST_CRASH_FOLDER";
const SIZE: usize = 300_000;

/// The name and mode of object `number`; its bytes are `bytes(number, SIZE)`.
fn object(number: u64) -> (String, PutMode) {
    let mode = if number.is_multiple_of(2) { PutMode::Create } else { PutMode::Overwrite };
    (format!("data/{:x}/{number}", number % 16), mode)
}

/// The child: stores objects until it is killed, and tells each that is stored.
fn store_for_ever(folder: &str) {
    let store = BlockingStore::new(Arc::new(LocalStore::new(folder).unwrap())).unwrap();
    thread::scope(|scope| {
        for first in 0..3 {
            let store = &store;
            scope.spawn(move || {
                for number in (first..).step_by(3) {
                    let (name, mode) = object(number);
                    store.put(&key(&name), bytes(number, SIZE), mode).unwrap();
                    eprintln!("stored {number}");
                }
            });
        }
    });
}

/// Runs a child that is killed once it has stored `count` objects; gives the numbers of what it called stored.
fn run_until_killed(folder: &Folder, count: usize) -> Vec<u64> {
    let mut child = Command::new(env::current_exe().unwrap())
        .args(["--exact", "store::crash::a_killed_writer_leaves_whole_objects", "--nocapture"])
        .env(FOLDER, folder.join("root"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stored = Vec::new();
    for line in BufReader::new(child.stderr.take().unwrap()).lines() {
        let line = line.unwrap();
        stored.extend(line.strip_prefix("stored ").and_then(|number| number.parse::<u64>().ok()));
        if stored.len() == count {
            child.kill().unwrap();
        }
    }
    assert!(!child.wait().unwrap().success(), "it was killed");
    stored
}

#[test]
fn a_killed_writer_leaves_whole_objects() {
    if let Ok(folder) = env::var(FOLDER) {
        store_for_ever(&folder);
        return;
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).build().unwrap();
    let mut random = Random::new(1);
    let mut leftovers = 0;
    for _ in 0..20 {
        let folder = Folder::new();
        let stored = run_until_killed(&folder, 1 + usize::try_from(random.below(12)).unwrap());
        let store = LocalStore::new(folder.join("root")).unwrap();
        let found = runtime.block_on(names(&store, "")).unwrap();
        for number in &stored {
            assert!(found.contains(&object(*number).0), "{number} was called stored");
        }
        for name in &found {
            let number: u64 = name.rsplit('/').next().unwrap().parse().unwrap();
            assert_eq!(*name, object(number).0);
            let data = runtime.block_on(store.get(&key(name))).unwrap();
            assert!(data == bytes(number, SIZE), "{name} is half an object");
        }
        leftovers += runtime.block_on(store.remove_leftovers(Timestamp::MAX)).unwrap().count;
        assert_eq!(all_files(&folder.join("root")), found.len(), "nothing else is left");
    }
    println!("{leftovers} leftovers removed");
}

fn all_files(folder: &std::path::Path) -> usize {
    fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .map(|path| if path.is_dir() { all_files(&path) } else { 1 })
        .sum()
}

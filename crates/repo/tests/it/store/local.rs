//! What only the local store promises: modes, leftovers, foreign files, the system's errors, the order of syncs.

use super::{key, names, text};
use jiff::Timestamp;
use retoma_core::error::codes;
use retoma_repo::ErrorKind;
use retoma_repo::store::{LocalStore, PutMode, Store};
use retoma_testkit::{Folder, require_tool};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;
use std::{env, fs};

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[tokio::test]
async fn only_the_owner_may_read() {
    let folder = Folder::new();
    let root = folder.join("deep/store");
    let store = LocalStore::new(&root).unwrap();
    for put in [PutMode::Create, PutMode::Overwrite] {
        store.put(&key("data/ab/x"), text("x"), put).await.unwrap();
        assert_eq!(mode(&root.join("data/ab/x")), 0o600);
    }
    for made in ["", "data", "data/ab"] {
        assert_eq!(mode(&root.join(made)), 0o700, "{made}");
    }
    assert_eq!(fs::metadata(root.join("data/ab/x")).unwrap().nlink(), 1);
}

#[test]
fn a_relative_path_is_refused() {
    assert_eq!(LocalStore::new("relative").unwrap_err().kind(), ErrorKind::Invalid);
}

#[tokio::test]
async fn reading_makes_nothing() {
    let folder = Folder::new();
    let store = LocalStore::new(folder.join("store")).unwrap();
    assert_eq!(store.get(&key("config")).await.unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(names(&store, "").await.unwrap(), [""; 0]);
    store.delete(&key("a/b")).await.unwrap();
    store.remove_leftovers(Timestamp::MAX).await.unwrap();
    assert!(!folder.join("store").exists());
}

#[tokio::test]
async fn leftovers_are_never_listed_and_only_old_ones_are_removed() {
    let folder = Folder::new();
    let store = LocalStore::new(folder.path()).unwrap();
    store.put(&key("data/ab/x"), text("x"), PutMode::Create).await.unwrap();
    let leftovers = ["#0123456789abcdef", "data/#00000000000000aa", "data/ab/#ffffffffffffffff"];
    let foreign = ["#notes", "data/a b", "data/ab/#0123", "data/ab/x#1"];
    for name in leftovers.iter().chain(&foreign) {
        fs::write(folder.join(name), "half").unwrap();
    }
    assert_eq!(names(&store, "").await.unwrap(), ["data/ab/x"]);

    let hour = jiff::SignedDuration::from_hours(1);
    let kept = store.remove_leftovers(Timestamp::now() - hour).await.unwrap();
    assert_eq!(kept.count, 0, "a running put keeps its file");
    let removed = store.remove_leftovers(Timestamp::now() + hour).await.unwrap();
    assert_eq!((removed.count, removed.size_bytes), (3, 12));
    assert!(leftovers.iter().all(|name| !folder.join(name).exists()));
    assert!(foreign.iter().all(|name| folder.join(name).exists()), "what is not ours stays");
    assert_eq!(store.get(&key("data/ab/x")).await.unwrap(), "x");
}

#[tokio::test]
async fn a_failed_put_leaves_nothing() {
    let folder = Folder::new();
    let store = LocalStore::new(folder.path()).unwrap();
    store.put(&key("a/b"), text("x"), PutMode::Create).await.unwrap();
    store.put(&key("a/b"), text("y"), PutMode::Create).await.unwrap_err();
    for name in ["a", "a/b/c"] {
        for put in [PutMode::Create, PutMode::Overwrite] {
            let error = store.put(&key(name), text("y"), put).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Conflict, "{name}: a name is an object or a folder");
        }
    }
    let entries: Vec<_> =
        fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(entries, ["a"]);
    assert_eq!(fs::read_dir(folder.join("a")).unwrap().count(), 1);
}

#[tokio::test]
async fn a_folder_that_vanished_is_made_again() {
    let folder = Folder::new();
    let store = LocalStore::new(folder.join("store")).unwrap();
    for vanishes in ["store/a/b", "store/a"] {
        store.put(&key("a/b/c"), text("x"), PutMode::Overwrite).await.unwrap();
        fs::remove_dir_all(folder.join(vanishes)).unwrap();
        store.put(&key("a/b/c"), text("again"), PutMode::Overwrite).await.unwrap();
        assert_eq!(store.get(&key("a/b/c")).await.unwrap(), "again");
    }
}

#[tokio::test]
async fn a_root_that_vanished_is_not_made_again() {
    let folder = Folder::new();
    let store = LocalStore::new(folder.join("store")).unwrap();
    store.put(&key("a/b"), text("x"), PutMode::Overwrite).await.unwrap();
    fs::rename(folder.join("store"), folder.join("away")).unwrap();
    store.put(&key("a/c"), text("x"), PutMode::Overwrite).await.unwrap_err();
    assert!(!folder.join("store").exists(), "nobody would find what is written there");
    fs::rename(folder.join("away"), folder.join("store")).unwrap();
    store.put(&key("a/c"), text("x"), PutMode::Overwrite).await.unwrap();
}

#[tokio::test]
async fn a_root_that_was_read_and_vanished_is_not_made_by_a_write() {
    let folder = Folder::new();
    let root = folder.join("store");
    LocalStore::new(&root).unwrap().put(&key("a"), text("x"), PutMode::Create).await.unwrap();
    // Another process, which reads before it writes.
    let store = LocalStore::new(&root).unwrap();
    store.get(&key("a")).await.unwrap();
    fs::rename(&root, folder.join("away")).unwrap();
    store.put(&key("b/c"), text("x"), PutMode::Create).await.unwrap_err();
    assert!(!root.exists(), "nobody would find what is written there");
    fs::rename(folder.join("away"), &root).unwrap();
    store.put(&key("b/c"), text("x"), PutMode::Create).await.unwrap();
}

#[tokio::test]
async fn linked_folders_are_followed_and_circles_end() {
    let (folder, elsewhere) = (Folder::new(), Folder::new());
    symlink(elsewhere.path(), folder.join("data")).unwrap();
    let store = LocalStore::new(folder.path()).unwrap();
    store.put(&key("data/ab/x"), text("x"), PutMode::Create).await.unwrap();
    assert!(elsewhere.join("ab/x").exists());
    symlink(folder.join("nowhere"), folder.join("broken")).unwrap();
    assert_eq!(names(&store, "").await.unwrap(), ["data/ab/x"]);

    symlink(folder.path(), folder.join("circle")).unwrap();
    let error = names(&store, "").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Invalid);
    assert!(error.hint().unwrap().contains("link"));
}

#[tokio::test]
async fn a_refused_folder_is_unauthorized() {
    let folder = Folder::new();
    let store = LocalStore::new(folder.path()).unwrap();
    store.put(&key("a/b"), text("x"), PutMode::Create).await.unwrap();
    fs::set_permissions(folder.join("a"), fs::Permissions::from_mode(0o000)).unwrap();
    let probe = fs::read_dir(folder.join("a"));
    let put = store.put(&key("a/c"), text("x"), PutMode::Create).await;
    let get = store.get(&key("a/b")).await;
    let list = names(&store, "").await;
    fs::set_permissions(folder.join("a"), fs::Permissions::from_mode(0o700)).unwrap();
    if probe.is_ok() {
        println!("skipped: this user may read everything");
        return;
    }
    for error in [put.unwrap_err(), get.unwrap_err(), list.unwrap_err()] {
        assert_eq!((error.kind(), error.code()), (ErrorKind::Unauthorized, codes::STORE_DENIED));
    }
}

/// `/dev/full` behind a temporary name can't be had without privileges, but a limit of file size can: `EFBIG` is
/// handled as `ENOSPC` and `EDQUOT` are.
#[test]
fn a_store_without_room_is_exhausted() {
    if let Some(folder) = env::var_os("RETOMA_TEST_NO_ROOM") {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let store = LocalStore::new(folder).unwrap();
        let large = retoma_testkit::bytes(1, 1 << 20);
        let error = runtime.block_on(store.put(&key("a/large"), large, PutMode::Create)).unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Exhausted, codes::STORE_FULL));
        assert!(!error.kind().is_retryable());
        runtime.block_on(store.put(&key("a/small"), text("x"), PutMode::Create)).unwrap();
        return;
    }
    let Some(shell) = require_tool("bash") else { return };
    let folder = Folder::new();
    let status = Command::new(shell)
        .args(["-c", "trap '' XFSZ; ulimit -f 64 && exec \"$0\" \"$@\""])
        .arg(env::current_exe().unwrap())
        .args(["--exact", "store::local::a_store_without_room_is_exhausted"])
        .env("RETOMA_TEST_NO_ROOM", folder.path())
        .status()
        .unwrap();
    assert!(status.success());
    let entries: Vec<_> =
        fs::read_dir(folder.join("a")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(entries, ["small"], "the half-written file is gone");
}

/// Reads the system calls of a put in a new folder: contents synced before the name, each folder after its entry.
#[test]
fn syncs_come_in_the_order_that_survives_a_power_cut() {
    if let Some(folder) = env::var_os("RETOMA_TEST_TRACED") {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let store = LocalStore::new(Path::new(&folder).join("store")).unwrap();
        runtime.block_on(store.put(&key("data/new"), text("contents"), PutMode::Create)).unwrap();
        runtime.block_on(store.put(&key("data/over"), text("contents"), PutMode::Overwrite)).unwrap();
        runtime.block_on(store.delete(&key("data/new"))).unwrap();
        return;
    }
    let Some(strace) = require_tool("strace") else { return };
    let folder = Folder::new();
    let trace = folder.join("trace");
    let status = Command::new(strace)
        .args([
            "-f",
            "-y",
            "-e",
            "trace=write,fsync,rename,renameat,renameat2,mkdir,mkdirat,unlink,unlinkat",
            "-o",
        ])
        .arg(&trace)
        .arg(env::current_exe().unwrap())
        .args(["--exact", "store::local::syncs_come_in_the_order_that_survives_a_power_cut"])
        .env("RETOMA_TEST_TRACED", folder.path())
        .status()
        .unwrap();
    if !status.success() {
        println!("skipped: tracing is not allowed here");
        return;
    }
    let place = folder.path().to_str().unwrap();
    let calls: Vec<_> =
        fs::read_to_string(trace).unwrap().lines().filter_map(|line| shortened(line, place)).collect();
    insta::assert_snapshot!(calls.join("\n"));
}

/// `rename /store/data/#TEMPORARY /store/data/over`, of a line of strace about `place`.
fn shortened(line: &str, place: &str) -> Option<String> {
    let call = line.split_once(' ')?.1.trim_start();
    let (name, arguments) = call.split_once('(')?;
    let paths: Vec<_> = arguments
        .split(['"', '<', '>'])
        .filter_map(|part| part.strip_prefix(place))
        .map(|path| match path.split_once('#') {
            Some((parent, _)) => format!("{parent}#TEMPORARY"),
            None if path.is_empty() => "/".to_owned(),
            None => path.to_owned(),
        })
        .collect();
    // The same step has several system calls, by platform and library.
    let name = match name {
        "mkdirat" => "mkdir",
        "unlinkat" => "unlink",
        "rename" | "renameat" | "renameat2" if arguments.contains("RENAME_NOREPLACE") => {
            "rename-without-replacing"
        }
        "renameat" | "renameat2" => "rename",
        name => name,
    };
    (!paths.is_empty()).then(|| format!("{name} {}", paths.join(" ")))
}

//! The place of a restore: old journals go, and a database in use is left alone.

use super::{CHILD, Killed, child, database, number, quick};
use retoma_core::ErrorKind;
use retoma_core::error::codes;
use retoma_sources::sqlite::{SqliteSource, after_restore, is_live, prepare_target};
use retoma_testkit::{Folder, bytes};
use rusqlite::Connection;
use std::path::Path;
use std::time::Duration;

const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

fn beside(path: &Path, suffix: &str) -> std::path::PathBuf {
    format!("{}{suffix}", path.display()).into()
}

#[test]
fn an_old_wal_is_not_replayed_into_a_restored_file() {
    let folder = Folder::new();
    let (path, good) = (folder.join("app.db"), folder.join("good.db"));
    let sql = "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (i);
               INSERT INTO t VALUES (1); PRAGMA wal_checkpoint(TRUNCATE);";
    let crash = |prepare: bool| -> i64 {
        let open = database(&path, sql);
        std::fs::copy(&path, &good).unwrap();
        open.execute_batch("INSERT INTO t VALUES (2);").unwrap();
        // A crash leaves the WAL as it is.
        let wal = std::fs::read(beside(&path, "-wal")).unwrap();
        drop(open);
        std::fs::write(beside(&path, "-wal"), wal).unwrap();
        if prepare {
            prepare_target(&path, quick()).unwrap();
        }
        std::fs::copy(&good, &path).unwrap();
        if prepare {
            after_restore(&path).unwrap();
        }
        let rows = number(&Connection::open(&path).unwrap(), "SELECT count(*) FROM t");
        std::fs::remove_file(&path).unwrap();
        rows
    };
    assert_eq!(crash(false), 2, "without help the old WAL is replayed: what this test is about");
    assert_eq!(crash(true), 1);
}

#[test]
fn the_old_database_keeps_its_commits_when_the_restore_does_not_happen() {
    let folder = Folder::new();
    let (path, crashed) = (folder.join("app.db"), folder.join("crashed.db"));
    let open = database(&path, "PRAGMA journal_mode = WAL; CREATE TABLE t (i); INSERT INTO t VALUES (1);");
    for suffix in ["", "-wal"] {
        std::fs::copy(beside(&path, suffix), beside(&crashed, suffix)).unwrap();
    }
    drop(open);
    prepare_target(&crashed, quick()).unwrap();
    assert!(BESIDE.iter().all(|suffix| !beside(&crashed, suffix).exists()));
    assert_eq!(number(&Connection::open(&crashed).unwrap(), "SELECT count(*) FROM t"), 1);
}

#[test]
fn a_damaged_or_missing_database_is_no_hindrance() {
    let folder = Folder::new();
    let path = folder.join("app.db");
    prepare_target(&folder.join("not/there.db"), quick()).unwrap();
    for suffix in BESIDE {
        std::fs::write(beside(&path, suffix), bytes(2, 5000)).unwrap();
    }
    prepare_target(&path, quick()).unwrap();
    std::fs::write(&path, bytes(1, 50_000)).unwrap();
    for suffix in BESIDE {
        std::fs::write(beside(&path, suffix), bytes(2, 5000)).unwrap();
    }
    prepare_target(&path, quick()).unwrap();
    assert!(BESIDE.iter().all(|suffix| !beside(&path, suffix).exists()));
    std::fs::write(beside(&path, "-wal"), "again").unwrap();
    after_restore(&path).unwrap();
    assert!(!beside(&path, "-wal").exists());
}

#[test]
fn a_database_that_another_process_has_open_is_live() {
    let folder = Folder::new();
    for mode in ["wal", "exclusive"] {
        let path = folder.join(format!("{mode}.db"));
        drop(database(&path, "CREATE TABLE t (i);"));
        assert_eq!(is_live(&path).unwrap(), None);
        let process = Killed::start(child("sqlite::target::hold_open", &path));
        let holder = is_live(&path).unwrap().unwrap();
        assert_eq!(holder.pid, i32::try_from(process.0.id()).ok(), "{mode}");
        for error in [prepare_target(&path, quick()).unwrap_err(), after_restore(&path).unwrap_err()] {
            assert_eq!((error.kind(), error.code()), (ErrorKind::Conflict, codes::RESTORE_TARGET));
            assert!(error.message().contains(&holder.to_string()), "{error}");
        }
        assert_eq!(beside(&path, "-wal").exists(), mode == "wal", "nothing was removed");
        drop(process);
        assert_eq!(is_live(&path).unwrap(), None);
        prepare_target(&path, quick()).unwrap();
    }
    assert_eq!(is_live(&folder.join("none.db")).unwrap(), None);
}

#[test]
fn an_idle_connection_of_this_process_in_wal_mode_is_seen() {
    let folder = Folder::new();
    let path = folder.join("app.db");
    let open = database(&path, "CREATE TABLE t (i); PRAGMA journal_mode = WAL; INSERT INTO t VALUES (1);");
    let link = folder.join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    for name in [&path, &link] {
        let error = prepare_target(name, quick()).unwrap_err();
        assert_eq!(error.code(), codes::RESTORE_TARGET);
    }
    assert!(beside(&path, "-wal").exists());
    drop(open);
    prepare_target(&link, quick()).unwrap();
}

#[test]
fn a_capture_keeps_its_locks_while_somebody_asks() {
    let folder = Folder::new();
    let path = folder.join("app.db");
    drop(database(&path, "CREATE TABLE t (i);"));
    let source = SqliteSource::open(&path).unwrap();
    let own = i32::try_from(std::process::id()).ok();
    assert_eq!(is_live(&path).unwrap().unwrap().pid, own);
    assert_eq!(prepare_target(&path, quick()).unwrap_err().code(), codes::RESTORE_TARGET);
    let output = child("sqlite::target::cannot_write", &path).output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("locked out"), "{output:?}");
    drop(source);
    assert_eq!(is_live(&path).unwrap(), None);
}

/// Another process; see [`child`].
#[test]
#[ignore = "played by another test as a process of its own"]
fn cannot_write() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(Duration::ZERO).unwrap();
    match connection.execute("INSERT INTO t VALUES (1)", ()) {
        Err(_) => println!("locked out"),
        Ok(_) => println!("written"),
    }
}

/// Another process; see [`child`].
#[test]
#[ignore = "played by another test as a process of its own"]
fn hold_open() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let path = Path::new(&path);
    let sql = if path.ends_with("wal.db") {
        "PRAGMA journal_mode = WAL; INSERT INTO t VALUES (1);"
    } else {
        "BEGIN EXCLUSIVE;"
    };
    let _open = database(path, sql);
    println!("ready");
    // Ends when the parent does: then nobody holds the other end.
    let mut rest = String::new();
    std::io::stdin().read_line(&mut rest).unwrap();
}

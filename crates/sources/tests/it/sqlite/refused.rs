//! What never becomes a snapshot.

use super::{CHILD, Home, child, database, quick};
use retoma_core::error::codes;
use retoma_core::{Code, ErrorKind};
use retoma_sources::sqlite::{SqliteSource, compare};
use retoma_testkit::{Folder, bytes};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt};
use std::os::unix::process::CommandExt as _;
use std::path::Path;

const NONE: [&str; 0] = [];

fn refused(path: &Path) -> (ErrorKind, Code) {
    let error = SqliteSource::open_with(path, quick()).unwrap_err();
    assert!(error.hint().is_some(), "{error}");
    assert!(error.to_string().contains(path.file_name().unwrap().to_str().unwrap()), "{error}");
    (error.kind(), error.code())
}

#[test]
fn what_is_no_database() {
    let folder = Folder::new();
    let path = folder.join("app.db");
    assert_eq!(refused(&path), (ErrorKind::NotFound, codes::SOURCE_UNREADABLE));
    assert!(!path.exists(), "nothing is made");
    std::fs::write(&path, "").unwrap();
    assert_eq!(refused(&path), (ErrorKind::Invalid, codes::SOURCE_EMPTY));
    std::fs::write(&path, bytes(1, 100_000)).unwrap();
    assert_eq!(refused(&path), (ErrorKind::Corrupt, codes::SOURCE_DAMAGED));
    std::fs::write(&path, "short").unwrap();
    assert_eq!(refused(&path), (ErrorKind::Corrupt, codes::SOURCE_DAMAGED));
    std::fs::create_dir(folder.join("folder.db")).unwrap();
    assert_eq!(refused(&folder.join("folder.db")), (ErrorKind::Invalid, codes::SOURCE_UNREADABLE));
    let error = SqliteSource::open(Path::new("relative.db")).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, codes::USAGE));
}

#[test]
fn a_database_without_tables() {
    let folder = Folder::new();
    let path = folder.join("app.db");
    let open = database(&path, "CREATE TABLE t (i); DROP TABLE t;");
    assert_eq!(refused(&path), (ErrorKind::Invalid, codes::SOURCE_EMPTY));
    open.execute_batch("CREATE VIEW v AS SELECT 1;").unwrap();
    assert_eq!(refused(&path), (ErrorKind::Invalid, codes::SOURCE_EMPTY));
    open.execute_batch("CREATE VIRTUAL TABLE w USING fts5(body);").unwrap();
    assert_eq!(SqliteSource::open(&path).unwrap().facts().tables.len(), 0);
}

#[test]
fn flipped_bytes_and_a_cut_file() {
    let folder = Folder::new();
    let path = folder.join("app.db");
    let rows = "CREATE TABLE t (i INTEGER PRIMARY KEY, body UNIQUE); \
                WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3000) \
                INSERT INTO t SELECT i, hex(randomblob(50)) FROM n;";
    drop(database(&path, rows));
    let sound = std::fs::read(&path).unwrap();
    SqliteSource::open(&path).unwrap();
    // Every page after the first: its header flipped.
    for page in 1..sound.len() / 4096 {
        let mut flipped = sound.clone();
        for byte in &mut flipped[page * 4096..page * 4096 + 16] {
            *byte ^= 0xff;
        }
        std::fs::write(&path, flipped).unwrap();
        assert_eq!(refused(&path), (ErrorKind::Corrupt, codes::SOURCE_DAMAGED), "page {page}");
    }
    std::fs::write(&path, &sound[..sound.len() / 2]).unwrap();
    assert_eq!(refused(&path), (ErrorKind::Corrupt, codes::SOURCE_DAMAGED));
}

#[test]
fn a_schema_that_needs_its_application() {
    let folder = Folder::new();
    let path = folder.join("app.db");
    drop(database(
        &path,
        "CREATE TABLE t (body); CREATE INDEX by_body ON t (body); INSERT INTO t VALUES ('a'), ('b');
         PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET sql = 'CREATE INDEX by_body ON t (body COLLATE ours)' WHERE name = 'by_body';",
    ));
    assert_eq!(refused(&path), (ErrorKind::Unsupported, codes::SOURCE_UNCHECKABLE));
}

#[test]
fn a_database_that_stays_locked() {
    let folder = Folder::new();
    for mode in ["DELETE", "WAL"] {
        let path = folder.join(format!("{mode}.db"));
        let open = database(
            &path,
            &format!(
                "PRAGMA locking_mode = EXCLUSIVE; PRAGMA journal_mode = {mode}; CREATE TABLE t (i);
                 BEGIN EXCLUSIVE; INSERT INTO t VALUES (1);"
            ),
        );
        assert_eq!(refused(&path), (ErrorKind::Unavailable, codes::SOURCE_BUSY), "{mode}");
        drop(open);
        SqliteSource::open_with(&path, quick()).unwrap();
    }
}

#[test]
fn rows_and_tables_that_were_there_before() {
    let folder = Folder::new();
    let path = folder.join("app.db");
    let open = database(
        &path,
        "CREATE TABLE kept (i); CREATE TABLE emptied (i); CREATE TABLE dropped (i); CREATE TABLE never (i);
         INSERT INTO kept VALUES (1); INSERT INTO emptied VALUES (1), (2); INSERT INTO dropped VALUES (1);",
    );
    let facts = || SqliteSource::open(&path).unwrap().facts().clone();
    let before = facts();
    compare(None, &before, &NONE).unwrap();
    compare(Some(&before), &before, &NONE).unwrap();
    open.execute_batch("DELETE FROM emptied; DROP TABLE dropped; DROP TABLE never;").unwrap();
    let error = compare(Some(&before), &facts(), &NONE).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, codes::SOURCE_EMPTY));
    assert!(error.message().contains("`dropped`") && error.message().contains("`emptied`"), "{error}");
    assert!(!error.message().contains("kept") && !error.message().contains("never"), "{error}");
    compare(Some(&before), &facts(), &["dropped", "emptied"]).unwrap();
}

#[test]
fn a_snapshot_is_not_written_for_what_is_refused() {
    let home = Home::new();
    let path = home.folder.join("app.db");
    std::fs::write(&path, "").unwrap();
    assert!(SqliteSource::open(&path).is_err());
    assert_eq!(home.repository.snapshots().unwrap().len(), 0);
}

#[test]
fn a_folder_that_may_not_be_written() {
    let folder = Folder::new();
    let (inner, program) = (folder.join("inner"), folder.join("program"));
    std::fs::create_dir(&inner).unwrap();
    let path = inner.join("app.db");
    drop(database(&path, "PRAGMA journal_mode = WAL; CREATE TABLE t (i); INSERT INTO t VALUES (1), (2);"));
    let mode = |path: &Path, mode| std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    std::fs::copy(std::env::current_exe().unwrap(), &program).unwrap();
    mode(folder.path(), 0o755);
    mode(&inner, 0o555);
    mode(&path, 0o444);
    // The administrator may write everywhere: then another user plays.
    let mut command = child("sqlite::refused::read_as_another_user", &path);
    if made_by_root(&path) {
        let mut other = std::process::Command::new(&program);
        other.args(command.get_args()).env(CHILD, &path).uid(65_534).gid(65_534).current_dir("/");
        command = other;
    }
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("2 rows in wal mode"), "{text}");
    let names: Vec<_> = std::fs::read_dir(&inner).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["app.db"]);
    mode(&inner, 0o755);
}

fn made_by_root(path: &Path) -> bool {
    std::fs::metadata(path).unwrap().uid() == 0
}

/// Another process; see [`child`].
#[test]
#[ignore = "played by another test as a process of its own"]
fn read_as_another_user() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let source = SqliteSource::open_with(Path::new(&path), quick()).unwrap();
    println!("{} rows in {} mode", source.facts().tables["t"], source.facts().journal_mode);
}

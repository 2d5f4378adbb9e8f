//! What a capture holds: every kind of schema, every page size, metadata, commits that only the WAL has.

use super::{Home, database, number};
use retoma_core::Result;
use retoma_repo::backup::{Event, Source};
use retoma_sources::sqlite::{FACTS_PATH, SqliteSource};
use rusqlite::Connection;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

const ROWS: &str = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 2000) \
                    INSERT INTO t SELECT i, hex(randomblob(100)) FROM n;";

#[test]
fn every_kind_of_schema_comes_back() {
    let home = Home::new();
    let path = home.folder.join("sch\u{e9}ma 100%?#.db");
    database(
        &path,
        "CREATE TABLE \"odd \"\" 'name'\" (a); INSERT INTO \"odd \"\" 'name'\" VALUES (1), (2);
         CREATE TABLE keyed (k TEXT PRIMARY KEY, v) WITHOUT ROWID; INSERT INTO keyed VALUES ('x', 1);
         CREATE TABLE generated (a INT, b INT AS (a * 2) STORED, c TEXT AS (a || '!') VIRTUAL);
         CREATE INDEX by_c ON generated (c); INSERT INTO generated (a) VALUES (21);
         CREATE TABLE strict_one (a INTEGER PRIMARY KEY AUTOINCREMENT) STRICT;
         CREATE VIEW seen AS SELECT a FROM generated;
         CREATE VIRTUAL TABLE words USING fts5(body); INSERT INTO words VALUES ('um arquivo morto');
         CREATE VIRTUAL TABLE boxes USING rtree(id, x0, x1); INSERT INTO boxes VALUES (1, 2, 3);
         PRAGMA user_version = 42; PRAGMA application_id = 7;",
    );
    let summary = home.back_up(&path, None);
    let facts = home.facts(&summary);
    let tables: Vec<(&str, u64)> = facts.tables.iter().map(|(name, rows)| (name.as_str(), *rows)).collect();
    assert_eq!(tables, [("generated", 1), ("keyed", 1), ("odd \" 'name'", 2), ("strict_one", 0)]);
    assert_eq!((facts.user_version, facts.application_id), (42, 7));
    assert_eq!((facts.journal_mode.as_str(), facts.integrity.as_str()), ("rollback", "ok"));
    assert_eq!((facts.page_count * facts.page_size, facts.rows()), (facts.bytes, 4));
    let copy = home.round_trip(&path);
    assert_eq!(number(&copy, "SELECT b FROM generated WHERE c = '21!'"), 42);
    assert_eq!(number(&copy, "SELECT count(*) FROM words WHERE words MATCH 'morto'"), 1);
    assert_eq!(number(&copy, "SELECT count(*) FROM boxes WHERE x0 > 1"), 1);
    assert_eq!(number(&copy, "SELECT a FROM seen"), 21);
}

#[test]
fn every_page_size_and_auto_vacuum_come_back_byte_by_byte() {
    let home = Home::new();
    for (page_size, auto_vacuum) in [(512, 0), (1024, 1), (4096, 2), (16384, 0), (65536, 1)] {
        let path = home.folder.join(format!("{page_size}.db"));
        let sql = format!(
            "PRAGMA page_size = {page_size}; PRAGMA auto_vacuum = {auto_vacuum};
             CREATE TABLE t (i INTEGER PRIMARY KEY, text); {ROWS} DELETE FROM t WHERE i % 3 = 0;"
        );
        drop(database(&path, &sql));
        let summary = home.back_up(&path, None);
        assert_eq!(home.facts(&summary).page_size, page_size);
        let copy = home.restore(&summary, &path);
        assert!(std::fs::read(&path).unwrap() == std::fs::read(copy).unwrap(), "{page_size}");
    }
}

#[test]
fn commits_that_only_the_wal_has_are_captured() {
    let home = Home::new();
    let path = home.folder.join("app.db");
    let open = database(
        &path,
        "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (i INTEGER PRIMARY KEY, text);",
    );
    open.execute_batch(ROWS).unwrap();
    let on_disk = std::fs::metadata(&path).unwrap().len();
    assert_eq!(on_disk, 4096, "all else lies in the WAL");
    let summary = home.back_up(&path, None);
    assert!(home.facts(&summary).bytes > 10 * on_disk);
    let copy = home.restore(&summary, &path);
    let header = std::fs::read(&copy).unwrap();
    let pages = u32::from_be_bytes(header[28..32].try_into().unwrap());
    assert_eq!(u64::from(pages) * 4096, header.len() as u64, "size in the header");
    assert_eq!(header[24..28], header[92..96], "the size counts only where these are the same");
    assert_eq!(header[18..20], [2, 2], "opens in WAL mode");
    let copy = Connection::open(copy).unwrap();
    assert_eq!(number(&copy, "SELECT count(*) FROM t"), 2000);
    copy.execute_batch("INSERT INTO t (text) VALUES ('the copy takes writes'); VACUUM;").unwrap();

    // The same after a crash: nobody has it open, and nobody wrote the `-shm` file.
    let crashed = home.folder.join("crashed.db");
    for suffix in ["", "-wal"] {
        std::fs::copy(format!("{}{suffix}", path.display()), format!("{}{suffix}", crashed.display()))
            .unwrap();
    }
    let wal_bytes = || std::fs::metadata(home.folder.join("crashed.db-wal")).unwrap().len();
    let before = wal_bytes();
    assert_eq!(number(&home.round_trip(&crashed), "SELECT count(*) FROM t"), 2000);
    assert_eq!(
        (std::fs::metadata(&crashed).unwrap().len(), wal_bytes()),
        (4096, before),
        "nothing was moved"
    );
}

#[test]
fn a_commit_that_the_files_times_do_not_show_is_captured() {
    let home = Home::new();
    let path = home.folder.join("app.db");
    let open = database(
        &path,
        "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (i INTEGER PRIMARY KEY);
         INSERT INTO t VALUES (1); PRAGMA wal_checkpoint(TRUNCATE);",
    );
    let stat = || {
        let stat = std::fs::metadata(&path).unwrap();
        (stat.len(), stat.mtime(), stat.mtime_nsec(), stat.ctime(), stat.ino())
    };
    let before = stat();
    // A backup believes in times only when they are older than the parent: a parent from the future makes them so.
    let first = home.back_up(&path, None);
    let mut parent = home.repository.snapshot(first.snapshot).unwrap();
    parent.time = retoma_repo::format::time::Time::from_unix(before.1 + 3600, 0);
    let parent = home.repository.save_snapshot(&parent).unwrap();
    open.execute_batch("INSERT INTO t VALUES (2);").unwrap();
    assert_eq!(stat(), before);
    let second = home.back_up(&path, Some(parent));
    let copy = Connection::open(home.restore(&second, &path)).unwrap();
    assert_eq!(number(&copy, "SELECT max(i) FROM t"), 2);
    let node = home.node(&second, &path);
    assert_eq!((node.inode, node.mtime.to_unix()), (before.4, (before.1, before.2)), "the real ones");
}

#[test]
fn a_hot_journal_is_rolled_back() {
    let home = Home::new();
    let path = home.folder.join("app.db");
    let open = database(&path, &format!("CREATE TABLE t (i INTEGER PRIMARY KEY, text); {ROWS}"));
    // A tiny cache spills uncommitted pages into the file, so that file and journal are those of a crash.
    open.execute_batch("PRAGMA cache_size = 1; BEGIN; UPDATE t SET text = 'half';").unwrap();
    let crashed = home.folder.join("crashed.db");
    for suffix in ["", "-journal"] {
        std::fs::copy(format!("{}{suffix}", path.display()), format!("{}{suffix}", crashed.display()))
            .unwrap();
    }
    let half = std::fs::read(&crashed).unwrap();
    assert!(half.windows(4).any(|bytes| bytes == b"half"), "nothing was spilled: the test shows nothing");
    let copy = home.round_trip(&crashed);
    assert_eq!(number(&copy, "SELECT count(*) FROM t WHERE text <> 'half'"), 2000);
}

#[test]
fn a_link_leads_to_its_file() {
    let home = Home::new();
    let path = home.folder.join("real.db");
    let _open = database(&path, "PRAGMA journal_mode = WAL; CREATE TABLE t (i); INSERT INTO t VALUES (5);");
    let link = home.folder.join("link.db");
    std::os::unix::fs::symlink(&path, &link).unwrap();
    assert_eq!(number(&home.round_trip(&link), "SELECT i FROM t"), 5);
}

#[test]
fn steps_ascend_by_name_and_the_facts_are_among_them() {
    let home = Home::new();
    let path = home.folder.join("app.db");
    drop(database(&path, "CREATE TABLE t (i);"));
    let steps = |path: &Path| -> Vec<String> {
        let mut source = SqliteSource::open(path).unwrap();
        let next = || -> Result<Option<Event>> { source.next() };
        std::iter::from_fn(next_or_none(next)).map(|event| format!("{event:?}")).collect()
    };
    let real = std::fs::canonicalize(&path).unwrap();
    let found = steps(&real);
    let depth = real.components().count() - 2;
    assert_eq!(found[..3], ["Enter(.retoma)", "Entry(capture.json)", "Leave"]);
    assert_eq!(found.len(), 3 + 2 * depth + 1);
    assert_eq!(found[3 + depth], "Entry(app.db)");
    assert_eq!(FACTS_PATH, "/.retoma/capture.json");
}

fn next_or_none(mut next: impl FnMut() -> Result<Option<Event>>) -> impl FnMut() -> Option<Event> {
    move || next().unwrap()
}

#[test]
fn a_source_that_is_dropped_lets_writers_go_on() {
    let home = Home::new();
    let path = home.folder.join("app.db");
    let open = database(&path, "CREATE TABLE t (i);");
    open.busy_timeout(std::time::Duration::ZERO).unwrap();
    let source = SqliteSource::open(&path).unwrap();
    assert!(open.execute("INSERT INTO t VALUES (1)", ()).is_err(), "a rollback journal makes writers wait");
    drop(source);
    open.execute("INSERT INTO t VALUES (1)", ()).unwrap();
}

//! Captures while others write: each copy is one state that was committed.

use super::{CHILD, Home, Killed, child, database, number};
use rusqlite::{Connection, TransactionBehavior};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SCHEMA: &str = "CREATE TABLE counter (n INTEGER); INSERT INTO counter VALUES (0);
    CREATE TABLE left_side (i INTEGER PRIMARY KEY, body); CREATE TABLE right_side (i INTEGER PRIMARY KEY, body);
    CREATE INDEX by_body ON right_side (body);";

/// The rows that [`write`] leaves in each table: however fast the writers are, a copy is checked in the same time.
const ROWS_KEPT: i64 = 500;

/// One transaction: both tables and the counter, always together; the oldest row goes when there are [`ROWS_KEPT`].
fn write(connection: &mut Connection) -> rusqlite::Result<()> {
    let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    transaction.execute_batch(&format!(
        "INSERT INTO left_side (body) VALUES (hex(randomblob(600)));
         INSERT INTO right_side SELECT i, body FROM left_side WHERE i = last_insert_rowid();
         UPDATE counter SET n = n + 1;
         UPDATE left_side SET body = hex(randomblob(600)) WHERE i = (SELECT n FROM counter) - 7;
         UPDATE right_side SET body = (SELECT body FROM left_side WHERE i = right_side.i)
           WHERE i = (SELECT n FROM counter) - 7;
         DELETE FROM left_side WHERE i <= (SELECT n FROM counter) - {ROWS_KEPT};
         DELETE FROM right_side WHERE i <= (SELECT n FROM counter) - {ROWS_KEPT};",
    ))?;
    transaction.commit()
}

/// What holds after each commit, and the counter. One transaction reads all of it: others may be writing.
fn consistent(connection: &Connection) -> i64 {
    let transaction = connection.unchecked_transaction().unwrap();
    let copy: &Connection = &transaction;
    let n = number(copy, "SELECT n FROM counter");
    let rows = n.min(ROWS_KEPT);
    for table in ["left_side", "right_side"] {
        assert_eq!(number(copy, &format!("SELECT count(*) FROM {table}")), rows, "{table}");
        assert_eq!(number(copy, &format!("SELECT coalesce(max(i), 0) FROM {table}")), n, "{table}");
    }
    let same =
        "SELECT count(*) FROM left_side JOIN right_side USING (i) WHERE left_side.body = right_side.body";
    assert_eq!(number(copy, same), rows, "both sides agree");
    n
}

/// [`write`], or nothing when another one writes: with a rollback journal, writers without a pause starve each other.
fn try_write(connection: &mut Connection) {
    match write(connection) {
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::DatabaseBusy) => {}
        written => written.unwrap(),
    }
}

/// Runs `work` while a thread writes.
fn beside_a_writer(path: &Path, work: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    let mut writer = database(path, "");
    writer.busy_timeout(Duration::from_millis(100)).unwrap();
    std::thread::scope(|scope| {
        let writing = scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                try_write(&mut writer);
            }
        });
        // Also when `work` panics: the scope waits for the thread.
        let worked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        stop.store(true, Ordering::Relaxed);
        writing.join().unwrap();
        worked.unwrap();
    });
}

fn captures(home: &Home, path: &Path, times: usize) -> Vec<i64> {
    (0..times).map(|_| consistent(&home.round_trip(path))).collect()
}

#[test]
fn wal_mode_beside_a_thread_and_a_process() {
    let home = Home::new();
    let path = home.folder.join("app.db");
    let keeper = database(&path, &format!("PRAGMA journal_mode = WAL; {SCHEMA}"));
    let _process = Killed::start(child("sqlite::concurrent::write_forever", &path));
    beside_a_writer(&path, || {
        let counted = captures(&home, &path, 20);
        assert!(counted.is_sorted(), "{counted:?}");
        assert!(counted[0] < counted[19], "nobody wrote meanwhile: {counted:?}");
    });
    let path = std::fs::canonicalize(&path).unwrap();
    assert!(consistent(&keeper) > 0, "{}", path.display());
}

#[test]
fn rollback_journal_beside_a_thread_and_a_process() {
    let home = Home::new();
    let path = home.folder.join("app.db");
    let _keeper = database(&path, SCHEMA);
    let _process = Killed::start(child("sqlite::concurrent::write_forever", &path));
    beside_a_writer(&path, || {
        let counted = captures(&home, &path, 5);
        assert!(counted.is_sorted(), "{counted:?}");
        assert!(counted[0] < counted[4], "nobody wrote meanwhile: {counted:?}");
    });
}

#[test]
fn checkpoints_and_a_vacuum_between_opening_and_reading_change_nothing() {
    use retoma_repo::backup::{Options, Progress, backup};
    use retoma_sources::sqlite::{self, SqliteSource};
    let home = Home::new();
    let path = home.folder.join("app.db");
    let mut writer =
        database(&path, &format!("PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 20; {SCHEMA}"));
    for _ in 0..200 {
        write(&mut writer).unwrap();
    }
    let mut source = SqliteSource::open(&path).unwrap();
    let facts = source.facts().clone();
    for _ in 0..200 {
        write(&mut writer).unwrap();
    }
    writer.execute_batch("DELETE FROM left_side; VACUUM;").unwrap();
    writer.execute_batch("PRAGMA wal_checkpoint(PASSIVE);").unwrap();
    let summary = backup(&home.repository, &mut source, &Options::default(), &Progress::default()).unwrap();
    assert!(summary.unreadable.is_empty(), "{:?}", summary.unreadable);
    let copy = home.restore(&summary, &path);
    assert!(sqlite::check(&copy, Some(&facts), &[], super::quick()).unwrap().passed());
    assert_eq!(consistent(&Connection::open(copy).unwrap()), 200);
}

/// Another process; see [`child`].
#[test]
fn write_forever() {
    let Some(path) = std::env::var_os(CHILD) else { return };
    let mut connection = database(Path::new(&path), "");
    write(&mut connection).unwrap();
    println!("ready");
    // The parent kills it; without one it ends by itself.
    let start = std::time::Instant::now();
    while start.elapsed() < Duration::from_mins(5) {
        try_write(&mut connection);
    }
}

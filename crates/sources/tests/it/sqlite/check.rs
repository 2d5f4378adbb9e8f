//! Checks of restored copies.

use super::{database, quick};
use retoma_core::drill::CheckOutcome::{Failed, NotRun, Passed};
use retoma_core::error::codes;
use retoma_core::manifest::{Check, Command, SqlExpectation};
use retoma_sources::sqlite::{CaptureFacts, CheckReport, SqliteSource, check};
use retoma_testkit::{Folder, bytes};
use std::path::Path;

fn facts(path: &Path) -> CaptureFacts {
    SqliteSource::open(path).unwrap().facts().clone()
}

fn sql(sql: &str, expected: &str) -> Check {
    Check::Sql { sql: sql.into(), expectation: SqlExpectation::Text(expected.into()) }
}

fn at_least(sql: &str, rows: u64) -> Check {
    Check::Sql { sql: sql.into(), expectation: SqlExpectation::MinRows(rows) }
}

fn lines(report: &CheckReport) -> Vec<String> {
    let shown = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".into());
    let line = |check: &retoma_core::drill::CheckResult| {
        format!("{}: {:?}, {} / {}", check.name, check.outcome, shown(&check.expected), shown(&check.found))
    };
    report.checks.iter().map(line).collect()
}

#[test]
fn a_sound_copy_passes_and_nothing_is_left_beside_it() {
    let folder = Folder::new();
    let path = folder.join("app.db");
    drop(database(
        &path,
        "PRAGMA journal_mode = WAL; CREATE TABLE t (i, r REAL); INSERT INTO t VALUES (1, 0.5), (2, 2);
         CREATE TABLE empty (i);",
    ));
    let copy = folder.join("copy.db");
    std::fs::copy(&path, &copy).unwrap();
    let checks = [
        sql("SELECT count(*) FROM t", "2"),
        sql("SELECT r FROM t WHERE i = 2", "2.0"),
        sql("SELECT 'text', 'other column'", "text"),
        sql("SELECT NULL", "NULL"),
        at_least("SELECT * FROM t", 2),
        Check::Command(Command { program: "false".into(), arguments: Vec::new() }),
    ];
    let report = check(&copy, Some(&facts(&path)), &checks, quick()).unwrap();
    assert!(report.passed(), "{report:#?}");
    insta::assert_debug_snapshot!(lines(&report), @r#"
    [
        "integrity_check: Passed, ok / ok",
        "rows of `empty`: Passed, 0 / 0",
        "rows of `t`: Passed, 2 / 2",
        "SQL `SELECT count(*) FROM t`: Passed, 2 / 2",
        "SQL `SELECT r FROM t WHERE i = 2`: Passed, 2.0 / 2.0",
        "SQL `SELECT 'text', 'other column'`: Passed, text / text",
        "SQL `SELECT NULL`: Passed, NULL / NULL",
        "SQL `SELECT * FROM t`: Passed, at least 2 rows / at least 2 rows",
    ]
    "#);
    for suffix in ["-wal", "-shm", "-journal"] {
        assert!(!folder.join(format!("copy.db{suffix}")).exists(), "{suffix}");
    }
    let unknown = check(&copy, None, &[], quick()).unwrap();
    assert!(!unknown.passed());
    assert_eq!(unknown.checks[1].outcome, NotRun);
    assert_eq!(unknown.tables["t"], 2);
}

#[test]
fn each_difference_is_a_failed_check() {
    let folder = Folder::new();
    let path = folder.join("app.db");
    let open = database(&path, "CREATE TABLE a (i); INSERT INTO a VALUES (1), (2); CREATE TABLE b (i);");
    let before = facts(&path);
    open.execute_batch("DELETE FROM a WHERE i = 2; DROP TABLE b; CREATE TABLE c (i);").unwrap();
    let checks = [
        sql("SELECT count(*) FROM a", "2"),
        at_least("SELECT * FROM a", 2),
        sql("SELECT i FROM a WHERE i = 9", "9"),
        sql("SELECT * FROM b", "1"),
        sql("DELETE FROM a", "1"),
        sql("SELECT 1; SELECT 2", "1"),
        sql("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n", "1"),
    ];
    let report = check(&path, Some(&before), &checks, quick()).unwrap();
    assert!(report.checks.iter().skip(1).all(|check| check.outcome == Failed), "{report:#?}");
    insta::assert_debug_snapshot!(lines(&report)[..7], @r#"
    [
        "integrity_check: Passed, ok / ok",
        "rows of `a`: Failed, 2 / 1",
        "rows of `b`: Failed, 0 / no such table",
        "rows of `c`: Failed, no such table / 0",
        "SQL `SELECT count(*) FROM a`: Failed, 2 / 1",
        "SQL `SELECT * FROM a`: Failed, at least 2 rows / 1 row",
        "SQL `SELECT i FROM a WHERE i = 9`: Failed, 9 / no row",
    ]
    "#);
    let details: Vec<&str> = report.checks[7..].iter().map(|check| check.detail.as_str()).collect();
    assert!(details[0].contains("no such table"), "{details:?}");
    assert_eq!(details[1], "it is not a query that only reads");
    assert_eq!(details[3], "it took longer than 0.2 s");
    assert_eq!(report.tables["a"], 1, "nothing was deleted");
}

#[test]
fn a_damaged_or_empty_copy_fails_and_the_rest_is_not_run() {
    let folder = Folder::new();
    let path = folder.join("app.db");
    drop(database(&path, "CREATE TABLE t (i); INSERT INTO t VALUES (1);"));
    let facts = facts(&path);
    for contents in [bytes(3, 20_000), bytes(3, 0)] {
        std::fs::write(&path, contents).unwrap();
        let report = check(&path, Some(&facts), &[sql("SELECT 1", "1")], quick()).unwrap();
        let outcomes: Vec<_> = report.checks.iter().map(|check| check.outcome).collect();
        assert_eq!(outcomes, [Failed, NotRun, NotRun]);
        assert!(!report.passed());
    }
    std::fs::remove_file(&path).unwrap();
    let error = check(&path, Some(&facts), &[], quick()).unwrap_err();
    assert_eq!(error.code(), codes::SOURCE_UNREADABLE);
}

#[test]
fn a_copy_that_a_service_uses_is_read_with_its_wal() {
    let folder = Folder::new();
    let path = folder.join("app.db");
    let open = database(&path, "PRAGMA journal_mode = WAL; CREATE TABLE t (i);");
    open.execute_batch("INSERT INTO t VALUES (1), (2), (3);").unwrap();
    let report = check(&path, None, &[sql("SELECT count(*) FROM t", "3")], quick()).unwrap();
    assert_eq!(report.checks.last().unwrap().outcome, Passed, "{report:#?}");
}

#[test]
fn a_table_that_lost_all_its_rows_is_a_failed_check() {
    let folder = Folder::new();
    let path = folder.join("app.db");
    let open = database(&path, "CREATE TABLE a (i); INSERT INTO a VALUES (1), (2);");
    let before = facts(&path);
    open.execute_batch("DELETE FROM a;").unwrap();
    let report = check(&path, Some(&before), &[], quick()).unwrap();
    assert_eq!(lines(&report)[1], "rows of `a`: Failed, 2 / 0");
}

//! Rows against what was captured, and the user's queries: what passes, and what never may.

use super::*;

fn table(rows: u32) -> Connection {
    let connection = Connection::open_in_memory().unwrap();
    connection.execute_batch("CREATE TABLE t (n INTEGER, x)").unwrap();
    for row in 0..rows {
        connection.execute("INSERT INTO t VALUES (?1, 'x')", [row]).unwrap();
    }
    connection
}

fn run(connection: &Connection, sql: &str, expectation: &SqlExpectation) -> CheckResult {
    run_query(connection, sql, expectation, Duration::from_mins(1))
}

#[test]
fn at_least_so_many_rows_are_exactly_that() {
    let connection = table(3);
    for (wanted, passes, found) in [
        (0, true, "at least 0 rows"),
        (1, true, "at least 1 row"),
        (3, true, "at least 3 rows"),
        (4, false, "3 rows"),
    ] {
        let result = run(&connection, "SELECT * FROM t", &SqlExpectation::MinRows(wanted));
        assert_eq!(result.outcome == CheckOutcome::Passed, passes, "{wanted}");
        assert_eq!(result.found.as_deref(), Some(found));
    }
    let one = run(&table(1), "SELECT * FROM t", &SqlExpectation::MinRows(2));
    assert_eq!((one.outcome, one.found.as_deref()), (CheckOutcome::Failed, Some("1 row")));
}

#[test]
fn the_first_value_is_compared_as_text() {
    let connection = table(2);
    for (sql, wanted, passes) in [
        ("SELECT count(*) FROM t", "2", true),
        ("SELECT count(*) FROM t", "3", false),
        ("SELECT count(*) FROM t", "2 ", false),
        ("SELECT n FROM t ORDER BY n", "0", true),
        ("SELECT 'ok', 'other'", "ok", true),
        ("SELECT n FROM t WHERE n > 9", "", false),
        ("SELECT n FROM t WHERE n > 9", "no row", false),
        ("SELECT missing FROM t", "", false),
        ("not SQL", "", false),
    ] {
        let result = run(&connection, sql, &SqlExpectation::Text(wanted.to_owned()));
        assert_eq!(result.outcome == CheckOutcome::Passed, passes, "{sql}: {result:?}");
        assert_eq!(result.expected.as_deref(), Some(wanted), "{sql}");
        assert_eq!(result.name, format!("SQL `{sql}`"));
    }
}

/// A check that changes the copy, or does nothing at all, proves nothing.
#[test]
fn a_statement_that_writes_or_gives_nothing_fails_and_does_nothing() {
    let connection = table(2);
    for sql in [
        "DELETE FROM t",
        "INSERT INTO t VALUES (9, 'x') RETURNING n",
        "DROP TABLE t",
        "BEGIN",
        "",
        "-- nothing",
        "CREATE TABLE u (a)",
    ] {
        for expectation in [SqlExpectation::MinRows(0), SqlExpectation::Text(String::new())] {
            assert_eq!(run(&connection, sql, &expectation).outcome, CheckOutcome::Failed, "{sql}");
        }
    }
    let rows: i64 = connection.query_row("SELECT count(*) FROM t", (), |row| row.get(0)).unwrap();
    assert_eq!(rows, 2);
}

#[test]
fn a_query_without_an_end_is_ended_and_the_next_one_runs() {
    let connection = table(1);
    let endless = "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT count(*) FROM c";
    let expectation = SqlExpectation::Text("1".to_owned());
    let result = run_query(&connection, endless, &expectation, Duration::from_millis(20));
    assert_eq!(result.outcome, CheckOutcome::Failed);
    assert!(result.detail.contains("took longer than"), "{}", result.detail);
    assert_eq!(run(&connection, "SELECT count(*) FROM t", &expectation).outcome, CheckOutcome::Passed);
}

#[test]
fn each_table_is_compared_and_one_too_many_is_as_wrong_as_one_that_is_missing() {
    let rows =
        |tables: &[(&str, u64)]| tables.iter().map(|(name, rows)| ((*name).to_owned(), *rows)).collect();
    let compared = |was: &[(&str, u64)], is: &[(&str, u64)]| -> Vec<(String, bool)> {
        let checks = compare_rows(&rows(was), &rows(is));
        checks.into_iter().map(|check| (check.name, check.outcome == CheckOutcome::Passed)).collect()
    };
    let named = |name: &str, passes| (format!("rows of `{name}`"), passes);
    assert_eq!(compared(&[("a", 1), ("b", 0)], &[("a", 1), ("b", 0)]), [named("a", true), named("b", true)]);
    assert_eq!(compared(&[("a", 1)], &[("a", 2)]), [named("a", false)]);
    assert_eq!(compared(&[("a", 0)], &[]), [named("a", false)], "an empty table is not none");
    assert_eq!(compared(&[], &[("new", 0)]), [named("new", false)]);
    assert!(
        !CheckReport { checks: Vec::new(), tables: BTreeMap::new() }.passed(),
        "no check at all is no pass"
    );
}

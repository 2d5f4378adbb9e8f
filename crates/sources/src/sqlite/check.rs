//! Checks of a restored copy: SQLite's own, rows against what was captured, and the user's queries.

use super::database::{Access, Database, Options, beside, text};
use super::facts::CaptureFacts;
use retoma_core::drill::{CheckOutcome, CheckResult};
use retoma_core::manifest::{Check, SqlExpectation};
use retoma_core::units::{counted, span};
use retoma_core::{Error, Result, error::codes};
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

/// What the checks of one copy found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CheckReport {
    /// Each check, in this order: `integrity_check`, `rows of …` for each table, `SQL …` for each query.
    pub checks: Vec<CheckResult>,
    /// Rows of every ordinary table; empty when they could not be counted.
    pub tables: BTreeMap<String, u64>,
}

impl CheckReport {
    /// Whether every check ran and passed.
    pub fn passed(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.outcome == CheckOutcome::Passed)
    }
}

/// Checks the database at `path` without changing it. Rows must be exactly those of `expected`; without facts they count
/// as not checked. Of `checks`, the queries are run; commands are left to the caller.
///
/// A copy that nobody uses, with no `-wal`, `-shm` or `-journal` beside it, is read without leaving such files behind.
///
/// # Errors
/// `R0401` when there is no file or it may not be read, `R0406` when it is locked. What is wrong *in* the database is in
/// the report.
pub fn check(
    path: &Path,
    expected: Option<&CaptureFacts>,
    checks: &[Check],
    options: Options,
) -> Result<CheckReport> {
    let queries = || {
        checks.iter().filter_map(|check| match check {
            Check::Sql { sql, expectation } => Some((sql.as_str(), expectation)),
            Check::Command(_) => None,
        })
    };
    let (database, tables) = match open(path, options) {
        Ok(opened) => opened,
        Err(error) if is_about_contents(&error) => {
            let failed = result("integrity_check", CheckOutcome::Failed, error.to_string());
            let mut results = vec![CheckResult { expected: Some("ok".into()), ..failed }];
            let not_run =
                |name: String| result(&name, CheckOutcome::NotRun, "the database is not sound".into());
            results.extend(
                expected.iter().flat_map(|facts| facts.tables.keys()).map(|name| not_run(rows_of(name))),
            );
            results.extend(queries().map(|(sql, _)| not_run(sql_name(sql))));
            return Ok(CheckReport { checks: results, tables: BTreeMap::new() });
        }
        Err(error) => return Err(error),
    };
    let mut results = vec![found("integrity_check", true, "ok".into(), "ok".into())];
    match expected {
        Some(facts) => results.extend(compare_rows(&facts.tables, &tables)),
        None => results.push(result(
            "rows of each table",
            CheckOutcome::NotRun,
            "nothing is known about the captured rows".into(),
        )),
    }
    results.extend(
        queries().map(|(sql, expectation)| {
            run_query(database.connection(), sql, expectation, options.query_timeout)
        }),
    );
    Ok(CheckReport { checks: results, tables })
}

/// Opens a copy, checks it and counts its rows.
fn open(path: &Path, options: Options) -> Result<(Database, BTreeMap<String, u64>)> {
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let in_use = ["-wal", "-shm", "-journal"].iter().any(|suffix| beside(&real, suffix).exists());
    let database = if in_use {
        Database::begin(path, options)?
    } else {
        Database::begin_with(path, Access::Immutable, options)?
    };
    let tables = database.facts()?.tables;
    Ok((database, tables))
}

fn is_about_contents(error: &Error) -> bool {
    [codes::SOURCE_EMPTY, codes::SOURCE_DAMAGED, codes::SOURCE_UNCHECKABLE].contains(&error.code())
}

fn result(name: &str, outcome: CheckOutcome, detail: String) -> CheckResult {
    CheckResult { name: name.to_owned(), outcome, detail, expected: None, found: None }
}

fn found(name: &str, passed: bool, expected: String, found: String) -> CheckResult {
    let outcome = if passed { CheckOutcome::Passed } else { CheckOutcome::Failed };
    CheckResult { expected: Some(expected), found: Some(found), ..result(name, outcome, String::new()) }
}

fn rows_of(table: &str) -> String {
    format!("rows of `{}`", table.escape_debug())
}

fn sql_name(sql: &str) -> String {
    format!("SQL `{sql}`")
}

/// Table by table; one that is too many is as wrong as one that is missing.
fn compare_rows(expected: &BTreeMap<String, u64>, now: &BTreeMap<String, u64>) -> Vec<CheckResult> {
    let names: std::collections::BTreeSet<&String> = expected.keys().chain(now.keys()).collect();
    let shown = |rows: Option<&u64>| rows.map_or_else(|| "no such table".to_owned(), u64::to_string);
    let compare = |name: &String| {
        let (expected, now) = (expected.get(name), now.get(name));
        found(&rows_of(name), expected == now, shown(expected), shown(now))
    };
    names.into_iter().map(compare).collect()
}

/// Runs one query of the user, which must only read.
fn run_query(
    connection: &Connection,
    sql: &str,
    expectation: &SqlExpectation,
    timeout: Duration,
) -> CheckResult {
    let name = sql_name(sql);
    let expected = match expectation {
        SqlExpectation::Text(text) => text.clone(),
        SqlExpectation::MinRows(rows) => format!("at least {}", counted(*rows, "row", "rows")),
    };
    let outcome = within(connection, timeout, || -> rusqlite::Result<CheckResult> {
        let mut statement = connection.prepare(sql)?;
        if !statement.readonly() || statement.column_count() == 0 {
            let detail = "it is not a query that only reads".to_owned();
            return Ok(result(&name, CheckOutcome::Failed, detail));
        }
        let mut rows = statement.query(())?;
        match expectation {
            SqlExpectation::Text(wanted) => {
                let first = rows.next()?.map(|row| row.get_ref(0).map(text)).transpose()?;
                let passed = first.as_ref() == Some(wanted);
                Ok(found(&name, passed, expected.clone(), first.unwrap_or_else(|| "no row".into())))
            }
            SqlExpectation::MinRows(wanted) => {
                let mut count = 0;
                while count < *wanted && rows.next()?.is_some() {
                    count += 1;
                }
                let shown = if count == *wanted { expected.clone() } else { counted(count, "row", "rows") };
                Ok(found(&name, count == *wanted, expected.clone(), shown))
            }
        }
    });
    let failed = |detail: String| result(&name, CheckOutcome::Failed, detail);
    let mut result = match outcome {
        Ok(result) => result,
        Err(error) if error.sqlite_error_code() == Some(rusqlite::ErrorCode::OperationInterrupted) => {
            failed(format!("it took longer than {}", span(timeout)))
        }
        Err(error) => failed(error.to_string()),
    };
    result.expected.get_or_insert(expected);
    result
}

/// Runs `work` and interrupts the connection when it takes too long.
fn within<T>(connection: &Connection, timeout: Duration, work: impl FnOnce() -> T) -> T {
    let handle = connection.get_interrupt_handle();
    let (done, waits) = sync_channel::<()>(1);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            // An interrupt between two statements hits nothing, so it is repeated until the work is done.
            let mut wait = timeout;
            while waits.recv_timeout(wait) == Err(RecvTimeoutError::Timeout) {
                handle.interrupt();
                wait = Duration::from_millis(10);
            }
        });
        let result = work();
        drop(done);
        result
    })
}

#[cfg(test)]
mod tests;

//! Checks of a restored server while it runs.

use super::Instance;
use crate::interrupt::Interrupt;
use retoma_core::drill::CheckResult;
use retoma_core::manifest::{Check, SqlExpectation};
use retoma_core::units::counted;
use retoma_core::{Error, Result};
use retoma_sources::postgres::wire::{Connection, Mode, Timeouts};
use retoma_sources::postgres::{Contents, PostgresFacts, contents};
use std::time::Duration;

/// How long `pg_amcheck` may take: it reads everything.
const AMCHECK_LIMIT: Duration = Duration::from_hours(12);
/// How long one of the user's queries may be silent.
const QUERY_LIMIT: Duration = Duration::from_mins(10);

/// Checks every database against what was captured, all tables and indexes by `pg_amcheck`, then the user's queries in the
/// database `main`.
///
/// # Errors
/// `Cancelled`, and what keeps a check from being run at all. What is wrong with the server's data is in the results.
pub fn check(
    instance: &Instance,
    facts: &PostgresFacts,
    main: &str,
    checks: &[Check],
    interrupt: &Interrupt,
) -> Result<Vec<CheckResult>> {
    let mut results = Vec::new();
    for database in &facts.databases {
        let Some(contents) = &database.contents else { continue };
        interrupt.check()?;
        let name = format!("database `{}`", database.name.escape_debug());
        let expected = shown(contents);
        let found =
            connect(instance, &database.name).and_then(|mut connection| self::contents(&mut connection));
        results.push(match found {
            Ok(found) => {
                let kept =
                    (contents.tables == 0 || found.tables > 0) && (!contents.has_rows || found.has_rows);
                CheckResult::ran(&name, kept, expected, shown(&found))
            }
            Err(error) => CheckResult::ran(&name, false, expected, &error.to_string()),
        });
    }
    results.push(amcheck(instance, facts, interrupt)?);
    for check in checks {
        if let Check::Sql { sql, expectation } = check {
            interrupt.check()?;
            results.push(query(instance, main, sql, expectation));
        }
    }
    Ok(results)
}

fn connect(instance: &Instance, database: &str) -> Result<Connection> {
    let timeouts = Timeouts { silence: QUERY_LIMIT, ..Timeouts::default() };
    Connection::connect(&instance.address(database), Mode::Sql, timeouts)
}

fn shown(contents: &Contents) -> &'static str {
    match contents {
        Contents { has_rows: true, .. } => "tables with rows",
        Contents { tables: 0, .. } => "no tables",
        _ => "tables without rows",
    }
}

/// Runs `pg_amcheck` over everything. The extension that it needs is put into the databases that lack it, and taken out again:
/// these files may go on as the live ones.
fn amcheck(instance: &Instance, facts: &PostgresFacts, interrupt: &Interrupt) -> Result<CheckResult> {
    const NAME: &str = "pg_amcheck";
    let options = ["--all", "--install-missing", "--no-strict-names"];
    let ran = instance.run("pg_amcheck", &options, AMCHECK_LIMIT, interrupt);
    for database in &facts.databases {
        let had_it = |contents: &Contents| contents.extensions.iter().any(|it| it.name == "amcheck");
        if database.contents.as_ref().is_some_and(|contents| !had_it(contents))
            && let Err(error) = connect(instance, &database.name)
                .and_then(|mut connection| connection.execute("DROP EXTENSION IF EXISTS amcheck"))
        {
            return Ok(CheckResult::not_run(NAME, &error));
        }
    }
    match ran {
        Ok((0, _)) => Ok(CheckResult::ran(NAME, true, "no corruption", "no corruption")),
        Ok((_, said)) => Ok(CheckResult::ran(NAME, false, "no corruption", &said)),
        Err(error) if error.kind() == retoma_core::ErrorKind::Cancelled => Err(error),
        Err(error) => Ok(CheckResult::not_run(NAME, &error)),
    }
}

fn query(instance: &Instance, database: &str, sql: &str, expectation: &SqlExpectation) -> CheckResult {
    let name = format!("SQL `{sql}`");
    let answer = connect(instance, database).and_then(|mut connection| {
        let rows = connection.query(sql)?;
        let first = rows.iter().next();
        let text = first.map(|row| match row.columns().first() {
            Some(column) => row.get(column).map(|value| value.unwrap_or("NULL").to_owned()),
            None => Err(Error::internal("a row has no column")),
        });
        Ok((rows.len() as u64, text.transpose()?))
    });
    match (answer, expectation) {
        (Err(error), _) => CheckResult::ran(&name, false, "an answer", &error.to_string()),
        (Ok((_, text)), SqlExpectation::Text(expected)) => {
            let found = text.unwrap_or_else(|| "no rows".to_owned());
            CheckResult::ran(&name, found == *expected, expected, &found)
        }
        (Ok((rows, _)), SqlExpectation::MinRows(least)) => {
            let expected = format!("at least {}", counted(*least, "row", "rows"));
            CheckResult::ran(&name, rows >= *least, &expected, &counted(rows, "row", "rows"))
        }
    }
}

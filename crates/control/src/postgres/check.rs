//! Checks of a restored server while it runs.

use super::Instance;
use crate::interrupt::Interrupt;
use retoma_core::drill::CheckResult;
use retoma_core::manifest::{Check, SqlExpectation};
use retoma_core::units::counted;
use retoma_core::{Error, Result};
use retoma_sources::postgres::PostgresFacts;
use retoma_sources::postgres::wire::{Connection, Mode, Timeouts, quote_identifier};
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
        let expected = if contents.tables == 0 {
            "it can be read".to_owned()
        } else if contents.rows_estimated == 0 {
            "it has tables".to_owned()
        } else {
            "it has tables with rows".to_owned()
        };
        let found = connect(instance, &database.name).and_then(|mut connection| holds(&mut connection));
        results.push(match found {
            Ok(Holds { tables, rows }) => {
                let passed = (contents.tables == 0 || tables > 0) && (contents.rows_estimated == 0 || rows);
                let rows = if rows { "rows" } else { "no rows" };
                let found = format!("{} with {rows}", counted(tables, "table", "tables"));
                CheckResult::ran(&name, passed, &expected, if passed { &expected } else { &found })
            }
            Err(error) => CheckResult::ran(&name, false, &expected, &error.to_string()),
        });
    }
    results.push(amcheck(instance, interrupt)?);
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

struct Holds {
    tables: u64,
    /// Whether any of them has a row.
    rows: bool,
}

fn holds(connection: &mut Connection) -> Result<Holds> {
    let tables = connection.query(
        "SELECT n.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'm') AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' \
         ORDER BY c.relpages DESC",
    )?;
    let mut rows = false;
    for table in &tables {
        let table =
            format!("{}.{}", quote_identifier(table.text("schema")?), quote_identifier(table.text("name")?));
        let found = connection.query(&format!("SELECT EXISTS (SELECT FROM {table}) AS found"))?;
        if found.one()?.boolean("found")? {
            rows = true;
            break;
        }
    }
    Ok(Holds { tables: tables.len() as u64, rows })
}

fn amcheck(instance: &Instance, interrupt: &Interrupt) -> Result<CheckResult> {
    const NAME: &str = "pg_amcheck";
    let options = ["--all", "--install-missing", "--no-strict-names"];
    match instance.run("pg_amcheck", &options, AMCHECK_LIMIT, interrupt) {
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

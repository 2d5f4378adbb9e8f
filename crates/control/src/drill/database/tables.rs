//! What a scratch server holds, table by table, and writes that keep it busy.

use crate::drill::markers;
use crate::interrupt::Interrupt;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_sources::postgres::PostgresFacts;
use retoma_sources::postgres::wire::{Address, Connection, Mode, Timeouts};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// From one write of the load to the next, in each of its connections.
const INTERVAL: Duration = Duration::from_millis(5);
/// How long a query may take: counting reads everything.
const QUERY_LIMIT: Duration = Duration::from_mins(30);
/// The table that the load writes into.
pub(super) const LOAD_TABLE: &str = "public.retoma_load";
/// Connections that write beside the marks.
pub(super) const LOADERS: usize = 3;

/// The users' tables whose rows survive a crash.
const TABLES: &str = "SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_class c \
     JOIN pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND c.relpersistence = 'p' \
     AND n.nspname NOT IN ('pg_catalog', 'information_schema') ORDER BY 1";

pub(super) fn connect(address: &Address) -> Result<Connection> {
    let timeouts = Timeouts { silence: QUERY_LIMIT, ..Timeouts::default() };
    Connection::connect(address, Mode::Sql, timeouts)
}

/// Rows by database and table, without those that the drill writes itself.
pub(super) type Rows = BTreeMap<(String, String), u64>;

/// Counts the rows of every table, in every database that was asked when it was backed up.
///
/// # Errors
/// What the server says; `Cancelled`.
pub(super) fn rows(address: &Address, facts: &PostgresFacts, interrupt: &Interrupt) -> Result<Rows> {
    let mut counted = Rows::new();
    for database in facts.databases.iter().filter(|database| database.contents.is_some()) {
        let mut connection = connect(&address.clone().with_database(&database.name))?;
        for table in names(&mut connection)? {
            interrupt.check()?;
            let count = connection.query(&format!("SELECT count(*) AS rows FROM {table}"))?;
            counted.insert((database.name.clone(), table), count.one()?.value("rows")?);
        }
    }
    counted.retain(|(_, table), _| table != markers::TABLE && table != LOAD_TABLE);
    Ok(counted)
}

fn names(connection: &mut Connection) -> Result<Vec<String>> {
    connection.query(TABLES)?.iter().map(|row| row.text("name").map(str::to_owned)).collect()
}

/// Removes every row of every table.
///
/// # Errors
/// What the server says.
pub(super) fn truncate_all(address: &Address, facts: &PostgresFacts) -> Result<()> {
    for database in facts.databases.iter().filter(|database| database.contents.is_some()) {
        let mut connection = connect(&address.clone().with_database(&database.name))?;
        let tables = names(&mut connection)?;
        if !tables.is_empty() {
            connection.execute(&format!("TRUNCATE {} CASCADE", tables.join(", ")))?;
        }
    }
    Ok(())
}

/// The table of `database` with the most rows.
///
/// # Errors
/// `R0713` when it has none with rows.
pub(super) fn largest<'r>(rows: &'r Rows, database: &str) -> Result<&'r str> {
    let of_it = rows.iter().filter(|((of, _), rows)| of == database && **rows > 0);
    let largest = of_it.max_by_key(|(_, rows)| **rows).map(|((_, table), _)| table.as_str());
    largest.ok_or_else(|| {
        let message = format!("the database `{database}` has no table with rows that could be broken");
        Error::new(ErrorKind::Invalid, codes::DRILL_UNSUITED, message)
            .with_hint("name the database with the service's data in the component's `url`")
    })
}

/// Writes that keep a server busy.
#[derive(Debug, Default)]
pub(super) struct Load {
    is_open: AtomicBool,
    is_over: AtomicBool,
}

impl Load {
    /// Makes the table.
    ///
    /// # Errors
    /// What the server says.
    pub(super) fn make_table(address: &Address) -> Result<()> {
        let statement = format!("CREATE TABLE IF NOT EXISTS {LOAD_TABLE} (run text, payload text)");
        connect(address)?.execute(&statement).map(drop)
    }

    /// Writes while it is open, in one connection; outages are waited out.
    pub(super) fn write(&self, address: &Address, run: &str, interrupt: &Interrupt) {
        let statement = insert(run);
        let mut connection = None;
        while !self.is_over.load(Ordering::Relaxed) && !interrupt.is_set() {
            std::thread::sleep(INTERVAL);
            if !self.is_open.load(Ordering::Relaxed) {
                continue;
            }
            let Ok(mut current) = connection.take().map_or_else(|| connect(address), Ok) else { continue };
            if current.execute(&statement).is_ok() {
                connection = Some(current);
            }
        }
    }

    pub(super) fn open(&self) {
        self.is_open.store(true, Ordering::Relaxed);
    }

    pub(super) fn close(&self) {
        self.is_open.store(false, Ordering::Relaxed);
    }

    pub(super) fn stop(&self) {
        self.is_over.store(true, Ordering::Relaxed);
    }
}

/// One row of the load.
pub(super) fn insert(run: &str) -> String {
    format!(
        "INSERT INTO {LOAD_TABLE} SELECT '{run}', string_agg(md5(random()::text), '') FROM generate_series(1, 30)"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_table_is_of_the_database_that_is_meant_and_has_rows() {
        let key = |database: &str, table: &str| (database.to_owned(), table.to_owned());
        let rows = Rows::from([
            (key("shop", "public.a"), 3),
            (key("shop", "public.b"), 7),
            (key("other", "public.c"), 99),
            (key("empty", "public.d"), 0),
        ]);
        assert_eq!(largest(&rows, "shop").unwrap(), "public.b");
        for database in ["empty", "absent"] {
            assert_eq!(largest(&rows, database).unwrap_err().code(), codes::DRILL_UNSUITED);
        }
    }
}

//! Numbered writes of the agent into a server that is at work, in the table `retoma.mark`: `docs/agent.md`, "Marks".
//!
//! One row for each component, whose number goes up by one with each write. What it says of a recovered server: everything up to
//! that mark came back.

use super::kept::Kept;
use jiff::Timestamp;
use retoma_core::decide::observed::Mark;
use retoma_core::manifest::Component;
use retoma_core::{Result, ResultExt as _};
use retoma_sources::postgres::wire::{Connection, Row, quote_literal, sqlstate};

/// A writer waits for nobody: not for another one's lock, and not for repositories, whose silence would keep the session in the
/// server until it ends.
const SETTINGS: &str =
    "SET synchronous_commit = local; SET lock_timeout = '2s'; SET statement_timeout = '5s'";
/// Half of the page stays free, so that a new version of a row needs no other page.
const MAKE: &str = "CREATE TABLE IF NOT EXISTS retoma.mark (component text PRIMARY KEY, number bigint NOT NULL, \
    written timestamptz NOT NULL) WITH (fillfactor = 50)";
const COLUMNS: &str = "number, (extract(epoch FROM written) * 1000000)::bigint AS written";
/// The table or its schema is not there.
const NOT_THERE: [&str; 2] = ["42P01", "3F000"];

/// Writes marks into one server, on a connection that is kept.
#[derive(Debug)]
pub(crate) struct MarkWriter {
    kept: Kept,
    statement: String,
}

impl MarkWriter {
    /// Into the server of `component`; nothing is connected yet.
    ///
    /// # Errors
    /// `R0002` for a component that is no PostgreSQL server; what its address says.
    pub(crate) fn new(component: &Component) -> Result<Self> {
        let name = quote_literal(&component.name);
        let statement = format!(
            "INSERT INTO retoma.mark AS mine VALUES ({name}, 1, clock_timestamp()) ON CONFLICT (component) \
             DO UPDATE SET number = mine.number + 1, written = clock_timestamp() RETURNING {COLUMNS}"
        );
        Ok(Self { kept: Kept::of(component)?, statement })
    }

    /// Writes one more, and makes the table where it is not there. Gives it when it is durable in the server; `None` when the
    /// server is a standby, which takes no writes.
    ///
    /// # Errors
    /// What connecting to the server and asking it says.
    pub(crate) fn write(&mut self) -> Result<Option<Mark>> {
        let statement = &self.statement;
        let write = |connection: &mut Connection| {
            if connection.query("SELECT pg_is_in_recovery() AS is_standby")?.one()?.boolean("is_standby")? {
                return Ok(None);
            }
            connection.execute(SETTINGS)?;
            let rows = match connection.query(statement) {
                Err(error) if sqlstate(&error).is_some_and(|state| NOT_THERE.contains(&state)) => {
                    make(connection)?;
                    connection.query(statement)?
                }
                rows => rows?,
            };
            mark(rows.one()?).map(Some)
        };
        self.kept.ask(write).context("write a mark")
    }
}

fn make(connection: &mut Connection) -> Result<()> {
    let is_there = "SELECT to_regnamespace('retoma') IS NOT NULL AS is_there";
    // Asked first: who may not make schemas is refused also where it is there.
    if !connection.query(is_there)?.one()?.boolean("is_there")? {
        connection.execute("CREATE SCHEMA IF NOT EXISTS retoma")?;
    }
    connection.execute(MAKE).map(drop)
}

/// The newest mark of `component` in the database of `connection`; `None` when there is none.
///
/// # Errors
/// What asking the server says.
pub(crate) fn newest_mark(connection: &mut Connection, component: &str) -> Result<Option<Mark>> {
    let there = connection.query("SELECT to_regclass('retoma.mark') IS NOT NULL AS is_there")?;
    if !there.one()?.boolean("is_there")? {
        return Ok(None);
    }
    let name = quote_literal(component);
    let rows = connection.query(&format!("SELECT {COLUMNS} FROM retoma.mark WHERE component = {name}"))?;
    rows.iter().next().map(mark).transpose()
}

fn mark(row: &Row) -> Result<Mark> {
    let written = Timestamp::from_microsecond(row.value("written")?).unwrap_or(Timestamp::MIN);
    Ok(Mark { number: row.value("number")?, written })
}

#[cfg(test)]
mod tests {
    use super::*;
    use retoma_core::manifest::{Origin, parse};
    use retoma_sources::postgres::wire::{Address, Mode, Timeouts};
    use retoma_testkit::PostgresServer;

    fn writer(url: &str) -> MarkWriter {
        let text = format!(
            "version = 1\n[service]\nname = \"s\"\n[[repository]]\nname = \"r\"\nurl = \"file:///r\"\npassword = \"env:P\"\n\
             [[component]]\nname = \"db\"\nkind = \"postgres\"\ntier = \"low\"\nurl = \"{url}\"\n"
        );
        let origin = Origin { file_name: "retoma.toml".to_owned(), dir: "/".into() };
        let manifest = parse(&text, &origin).unwrap();
        MarkWriter::new(manifest.component("db").unwrap()).unwrap()
    }

    #[test]
    fn each_mark_is_one_higher_whatever_the_table_was() {
        let Some(server) = PostgresServer::start() else { return };
        let url = server.socket_url();
        let newest = || {
            let address = Address::of_process(&url).unwrap();
            let mut connection = Connection::connect(&address, Mode::Sql, Timeouts::default()).unwrap();
            newest_mark(&mut connection, "db").unwrap()
        };
        assert_eq!(newest(), None);
        let mut marks = writer(&url);
        let first = marks.write().unwrap().unwrap();
        let second = marks.write().unwrap().unwrap();
        assert_eq!((first.number, second.number), (1, 2));
        assert!(first.written < second.written);
        assert_eq!(newest(), Some(second));
        server.psql("INSERT INTO retoma.mark VALUES ('another', 99, now() + interval '1 day')");
        assert_eq!(newest(), Some(second), "each component has its own");
        // A second writer goes on, and so does one whose connection is gone.
        assert_eq!(writer(&url).write().unwrap().unwrap().number, 3);
        server.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename = 'postgres' AND backend_type = 'client backend'");
        let after = (0..2).find_map(|_| marks.write().ok()).unwrap().unwrap();
        assert_eq!(after.number, 4);
        server.psql("DROP SCHEMA retoma CASCADE");
        assert_eq!(marks.write().unwrap().unwrap().number, 1, "made again");
    }

    #[test]
    fn a_mark_waits_neither_for_a_standby_nor_for_a_lock() {
        let Some(server) = PostgresServer::start() else { return };
        let mut marks = writer(&server.socket_url());
        marks.write().unwrap();
        server.psql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'");
        server.psql("SELECT pg_reload_conf()");
        retoma_testkit::wait_for_what("the setting", || {
            (server.psql("SHOW synchronous_standby_names") == "nobody").then_some(())
        });
        assert_eq!(marks.write().unwrap().unwrap().number, 2);
        let address = Address::of_process(&server.socket_url()).unwrap();
        let mut other = Connection::connect(&address, Mode::Sql, Timeouts::default()).unwrap();
        other.execute("BEGIN").unwrap();
        other.execute("LOCK TABLE retoma.mark").unwrap();
        let error = marks.write().unwrap_err();
        assert_eq!(sqlstate(&error), Some("55P03"), "{error}");
        other.execute("ROLLBACK").unwrap();
        assert_eq!(marks.write().unwrap().unwrap().number, 3);
    }

    #[test]
    fn without_rights_there_is_no_mark_and_with_a_schema_of_its_own_there_is() {
        let Some(server) = PostgresServer::start() else { return };
        server.psql("CREATE ROLE plain LOGIN");
        let url = server.socket_url().replace("postgres@", "plain@");
        assert!(url.contains("plain"), "{url}");
        let mut marks = writer(&url);
        assert_eq!(sqlstate(&marks.write().unwrap_err()), Some("42501"));
        server.psql("CREATE SCHEMA retoma AUTHORIZATION plain");
        assert_eq!(marks.write().unwrap().unwrap().number, 1);
        server.psql("ALTER ROLE plain SET default_transaction_read_only = on");
        assert_eq!(sqlstate(&writer(&url).write().unwrap_err()), Some("25006"));
    }

    #[test]
    fn a_standby_takes_none() {
        let Some(server) = PostgresServer::start() else { return };
        let standby = server.standby(None);
        assert_eq!(writer(&standby.socket_url()).write().unwrap(), None);
    }
}

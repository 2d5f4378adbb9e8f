//! What a backup asks of the server, in one session: facts, a slot that keeps WAL, start and stop.

use super::facts::{Contents, Database, Extension, Server, Tablespace};
use super::page::PAGE_BYTES;
use super::wire::{Address, Connection, Mode, Rows, Timeouts, quote_identifier, quote_literal};
use retoma_core::postgres::{Lsn, SegmentSize};
use retoma_core::{Error, ErrorKind, Result, ResultExt, error::codes};
use std::collections::BTreeSet;
use std::time::Duration;

/// The oldest version that works.
const OLDEST_VERSION: u32 = 130_000;
/// From this version on, the functions are called `pg_backup_start` and `pg_backup_stop`, and a database knows the version
/// of its collation.
const VERSION_15: u32 = 150_000;
/// A checkpoint is silent for as long as writing all dirty buffers takes.
pub(super) const CHECKPOINT: Duration = Duration::from_hours(6);

/// The oldest version that ends sessions that are idle outside of transactions.
const VERSION_14: u32 = 140_000;

/// A session with the server. While it lasts, the server keeps the WAL from [`Session::keep_wal`] on, and its backup mode;
/// when it ends, both end.
#[derive(Debug)]
pub(super) struct Session {
    connection: Connection,
    address: Address,
    version_num: u32,
}

/// Whether a database lets us in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// It does.
    Open,
    /// It lets others in, and we lack the privilege `CONNECT`.
    Refused,
    /// It lets nobody in.
    Shut,
}

/// What `pg_backup_stop` gave.
#[derive(Debug)]
pub(super) struct Stopped {
    /// Here the data are consistent.
    pub(super) lsn: Lsn,
    /// When that was, by the server's clock, or a little later.
    pub(super) time: jiff::Timestamp,
    /// Which transactions had ended then: `xmin:xmax:running,…`.
    pub(super) transactions: String,
    /// The contents of `backup_label`.
    pub(super) label: String,
    /// The contents of `tablespace_map`; empty without tablespaces.
    pub(super) tablespace_map: String,
}

fn unfit(message: String, hint: &'static str) -> Error {
    Error::new(ErrorKind::Invalid, codes::POSTGRES_SETUP, message).with_hint(hint)
}

impl Session {
    /// Connects, and looks whether this server can be backed up.
    ///
    /// # Errors
    /// As [`Connection::connect`]; `R0420` for a server that cannot be backed up.
    pub(super) fn open(address: &Address) -> Result<Self> {
        let mut session = Self::ask(address)?;
        session.check_setup()?;
        Ok(session)
    }

    /// Connects to a server that only has to answer.
    ///
    /// # Errors
    /// As [`Connection::connect`]; `R0420` for a server that is too old.
    pub(super) fn ask(address: &Address) -> Result<Self> {
        let mut connection = Connection::connect(address, Mode::Sql, Timeouts::default())?;
        let version_num = connection.server_version_num()?;
        if version_num < OLDEST_VERSION {
            let message =
                format!("the server has version {}; 13 is the oldest that works", version_num / 10_000);
            return Err(unfit(
                message,
                "upgrade the server, or dump it into a folder that is a `files` component",
            ));
        }
        // It is idle for as long as a backup takes.
        connection.execute("SET idle_in_transaction_session_timeout = 0")?;
        if version_num >= VERSION_14 {
            connection.execute("SET idle_session_timeout = 0")?;
        }
        Ok(Self { connection, address: address.clone(), version_num })
    }

    pub(super) fn version_num(&self) -> u32 {
        self.version_num
    }

    /// The one `value` that a query gives.
    pub(super) fn one(&mut self, sql: &str) -> Result<String> {
        Ok(self.connection.query(sql)?.one()?.text("value")?.to_owned())
    }

    fn setting(&mut self, name: &str) -> Result<String> {
        let rows =
            self.connection.query(&format!("SELECT current_setting({}) AS value", quote_literal(name)));
        let rows = rows.with_context(|| format!("read the setting `{name}`"))?;
        Ok(rows.one()?.text("value")?.to_owned())
    }

    fn check_setup(&mut self) -> Result<()> {
        let standby = self.connection.query("SELECT pg_is_in_recovery() AS standby")?;
        if standby.one()?.boolean("standby")? {
            let message = "the server is a standby".to_owned();
            return Err(unfit(message, "back up the primary"));
        }
        if self.setting("wal_level")? == "minimal" {
            let message = "the server's `wal_level` is `minimal`".to_owned();
            return Err(unfit(
                message,
                "set `wal_level = replica` in postgresql.conf and restart the server",
            ));
        }
        let page = self.setting("block_size")?;
        if page != PAGE_BYTES.to_string() {
            let message = format!("the server has pages of {page} bytes; only {PAGE_BYTES} are supported");
            return Err(unfit(message, "dump it into a folder that is a `files` component"));
        }
        Ok(())
    }

    /// What does not change while the server runs, which runs on this machine.
    pub(super) fn server(&mut self) -> Result<Server> {
        let server = self.server_elsewhere()?;
        let data_directory = std::fs::canonicalize(&server.data_directory).map_err(|error| {
            unfit(
                format!("the server's data directory `{}` cannot be reached: {error}", server.data_directory),
                "run the backup on the database's host, as its user or as root; or set `backup = \"stream\"`",
            )
        })?;
        Ok(Server {
            data_directory: data_directory.to_string_lossy().into_owned(),
            machine: rustix::system::uname().machine().to_string_lossy().into_owned(),
            ..server
        })
    }

    /// What does not change while the server runs, wherever that is. Its data directory is what it says itself.
    pub(super) fn server_elsewhere(&mut self) -> Result<Server> {
        let rows = self.connection.query(
            "SELECT s.system_identifier AS id, s.catalog_version_no AS catalog, i.bytes_per_wal_segment AS segment, \
             i.max_data_alignment AS alignment, (SELECT rolname FROM pg_roles WHERE oid = 10) AS superuser \
             FROM pg_control_system() s, pg_control_init() i",
        );
        let rows = rows.context("read what the server's control file says")?;
        let row = rows.one()?;
        let superuser = row.text("superuser")?.to_owned();
        let data_directory = self.setting("data_directory")?;
        if !data_directory.starts_with('/') || data_directory.split('/').any(|part| part == "..") {
            let message = format!("the server's data directory is `{}`", data_directory.escape_debug());
            return Err(unfit(message, "set `data_directory` to an absolute path"));
        }
        let version = self.connection.query("SELECT version() AS version")?;
        let machine = machine(version.one()?.text("version")?);
        Ok(Server {
            version_num: self.version_num,
            catalog_version: row.value("catalog")?,
            system_identifier: row.value("id")?,
            data_directory,
            data_checksums: self.setting("data_checksums")? == "on",
            wal_segment_bytes: row.value("segment")?,
            max_data_alignment: row.value("alignment")?,
            machine,
            shared_preload_libraries: self.setting("shared_preload_libraries")?,
            superuser,
        })
    }

    /// The tablespaces beside the two that every server has.
    pub(super) fn tablespaces(&mut self) -> Result<Vec<Tablespace>> {
        let rows = self.connection.query(
            "SELECT oid, spcname AS name, pg_tablespace_location(oid) AS location FROM pg_tablespace \
             WHERE pg_tablespace_location(oid) <> '' ORDER BY oid",
        )?;
        let tablespace = |row: &super::wire::Row| {
            Ok(Tablespace {
                oid: row.value("oid")?,
                name: row.text("name")?.to_owned(),
                location: row.text("location")?.to_owned(),
            })
        };
        rows.iter().map(tablespace).collect()
    }

    /// The databases; contents of those that let us in.
    pub(super) fn databases(&mut self) -> Result<Vec<Database>> {
        let mut databases = Vec::new();
        for (database, access) in self.database_names()? {
            let contents = if access == Access::Open { Some(self.contents(&database.name)?) } else { None };
            databases.push(Database { contents, ..database });
        }
        Ok(databases)
    }

    /// The databases without their contents, each with whether it lets us in.
    pub(super) fn database_names(&mut self) -> Result<Vec<(Database, Access)>> {
        let collation = if self.version_num >= VERSION_15 { "datcollversion" } else { "NULL" };
        let rows = self.connection.query(&format!(
            "SELECT datname AS name, CASE WHEN has_database_privilege(oid, 'CONNECT') OR pg_has_role('pg_read_all_stats', 'MEMBER') \
             THEN pg_database_size(oid) ELSE 0 END AS bytes, pg_encoding_to_char(encoding) AS encoding, \
             datcollate AS collate, datctype AS ctype, {collation} AS collation_version, \
             datallowconn AS open, has_database_privilege(oid, 'CONNECT') AS allowed FROM pg_database ORDER BY datname"
        ))?;
        let mut databases = Vec::new();
        for row in &rows {
            let database = Database {
                name: row.text("name")?.to_owned(),
                bytes: row.value("bytes")?,
                encoding: row.text("encoding")?.to_owned(),
                collate: row.text("collate")?.to_owned(),
                ctype: row.text("ctype")?.to_owned(),
                collation_version: row.get("collation_version")?.map(str::to_owned),
                contents: None,
            };
            let access = match (row.boolean("open")?, row.boolean("allowed")?) {
                (true, true) => Access::Open,
                (true, false) => Access::Refused,
                (false, _) => Access::Shut,
            };
            databases.push((database, access));
        }
        Ok(databases)
    }

    fn contents(&self, database: &str) -> Result<Contents> {
        let address = self.address.clone().with_database(database);
        let mut connection = Connection::connect(&address, Mode::Sql, Timeouts::default())
            .with_context(|| format!("connect to the database `{database}`"))?;
        contents(&mut connection).with_context(|| format!("look into the database `{database}`"))
    }

    /// The names of all roles.
    pub(super) fn roles(&mut self) -> Result<BTreeSet<String>> {
        roles(&mut self.connection)
    }

    /// How many replication slots can still be made.
    pub(super) fn free_slots(&mut self) -> Result<u64> {
        let rows = self.connection.query(
            "SELECT greatest(current_setting('max_replication_slots')::bigint - count(*), 0) AS free \
             FROM pg_replication_slots",
        )?;
        rows.one()?.value("free")
    }

    /// Makes the server keep all WAL from now on, for as long as this session lasts.
    pub(super) fn keep_wal(&mut self) -> Result<()> {
        let name = slot_name()?;
        let sql = format!("SELECT pg_create_physical_replication_slot({}, true, true)", quote_literal(&name));
        self.connection
            .query(&sql)
            .map(drop)
            .context("make the server keep its WAL during the backup")
            .map_err(|error| {
                error.with_hint("the backup needs one free replication slot: see `max_replication_slots`")
            })
    }

    /// Begins the backup with a checkpoint, and gives the location from which on WAL is needed.
    pub(super) fn start(&mut self, label: &str) -> Result<Lsn> {
        let label = quote_literal(label);
        let call = if self.version_num >= VERSION_15 {
            format!("pg_backup_start({label}, fast => true)")
        } else {
            format!("pg_start_backup({label}, fast => true, exclusive => false)")
        };
        self.connection.set_silence(CHECKPOINT);
        let rows = self.connection.query(&format!("SELECT {call} AS lsn")).context("begin the backup")?;
        rows.one()?.lsn("lsn")
    }

    /// Ends the backup. Everything must have been read.
    pub(super) fn stop(&mut self) -> Result<Stopped> {
        let call = if self.version_num >= VERSION_15 {
            "pg_backup_stop(wait_for_archive => false)"
        } else {
            "pg_stop_backup(exclusive => false, wait_for_archive => false)"
        };
        let rows = self.connection.query(&format!("SELECT lsn, labelfile, spcmapfile FROM {call}"));
        let rows = rows.context("end the backup")?;
        let row = rows.one()?;
        let (time, transactions) = self.now()?;
        Ok(Stopped {
            lsn: row.lsn("lsn")?,
            time,
            transactions,
            label: row.text("labelfile")?.to_owned(),
            tablespace_map: row.get("spcmapfile")?.unwrap_or_default().to_owned(),
        })
    }

    /// The time of the server's clock, and which transactions have ended. Asked after the end of a backup: what has ended by then
    /// is before the stop, or is taken for it, and an older snapshot is used.
    pub(super) fn now(&mut self) -> Result<(jiff::Timestamp, String)> {
        let then = self.connection.query(
            "SELECT to_char(clock_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS time, \
             pg_current_snapshot()::text AS transactions",
        )?;
        let then = then.one()?;
        Ok((then.value("time")?, then.text("transactions")?.to_owned()))
    }
}

/// The machine that a server was built for, by what `version()` says: `PostgreSQL 15.18 (…) on x86_64-pc-linux-gnu, compiled by …`.
/// As the machine itself is called by `uname`; empty where it does not say.
fn machine(version: &str) -> String {
    let triple = version.split(" on ").nth(1).unwrap_or_default();
    let name = triple.split(['-', ',', ' ']).next().unwrap_or_default();
    if name == "powerpc64le" { "ppc64le".to_owned() } else { name.to_owned() }
}

/// A name for the slot of one backup. Numbers of processes repeat among hosts and containers.
fn slot_name() -> Result<String> {
    let random =
        getrandom::u64().map_err(|error| Error::io("random numbers", std::io::Error::other(error)))?;
    Ok(format!("retoma_backup_{}_{random:016x}", std::process::id()))
}

/// The names of all roles, as the transaction of this connection sees them.
pub(super) fn roles(connection: &mut Connection) -> Result<BTreeSet<String>> {
    let rows = connection.query("SELECT rolname AS name FROM pg_roles")?;
    rows.iter().map(|row| Ok(row.text("name")?.to_owned())).collect()
}

/// What the database of this connection holds.
///
/// # Errors
/// As [`Connection::query`].
pub fn contents(connection: &mut Connection) -> Result<Contents> {
    let rows =
        connection.query("SELECT extname AS name, extversion AS version FROM pg_extension ORDER BY 1")?;
    let extension = |row: &super::wire::Row| {
        Ok(Extension { name: row.text("name")?.to_owned(), version: row.text("version")?.to_owned() })
    };
    let extensions = rows.iter().map(extension).collect::<Result<_>>()?;
    // The largest first: it most likely has rows. Statistics would not do, they lag behind.
    let tables = connection.query(
        "SELECT n.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind IN ('r', 'm') AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' \
         ORDER BY c.relpages DESC",
    )?;
    let has_rows = has_rows(connection, &tables)?;
    Ok(Contents { extensions, tables: tables.len() as u64, has_rows })
}

/// Whether one of these tables has a row.
fn has_rows(connection: &mut Connection, tables: &Rows) -> Result<bool> {
    for table in tables {
        let (schema, name) = (quote_identifier(table.text("schema")?), quote_identifier(table.text("name")?));
        let found = connection.query(&format!("SELECT EXISTS (SELECT FROM {schema}.{name}) AS found"))?;
        if found.one()?.boolean("found")? {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the database of this connection has rows that `pg_dump` must write: none of views, none of tables of extensions.
pub(super) fn has_rows_to_dump(connection: &mut Connection) -> Result<bool> {
    let tables = connection.query(
        "SELECT n.nspname AS schema, c.relname AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
         WHERE c.relkind = 'r' AND n.nspname NOT LIKE 'pg\\_%' AND n.nspname <> 'information_schema' \
         AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e') \
         ORDER BY c.relpages DESC",
    )?;
    has_rows(connection, &tables)
}

/// The size of a server's WAL segments.
pub(super) fn segment_size(server: &Server) -> Result<SegmentSize> {
    SegmentSize::new(server.wal_segment_bytes).map_err(|error| {
        let message = format!("the server has WAL segments of {} bytes: {error}", server.wal_segment_bytes);
        Error::new(ErrorKind::Corrupt, codes::POSTGRES_ANSWER, message)
    })
}

#[cfg(test)]
mod tests {
    use super::{machine, slot_name};

    #[test]
    fn two_backups_of_the_same_process_number_have_two_slots() {
        let names = [slot_name().unwrap(), slot_name().unwrap()];
        assert_ne!(names[0], names[1]);
        let is_valid = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
        assert!(names.iter().all(|name| name.len() < 64 && name.chars().all(is_valid)), "{names:?}");
    }

    #[test]
    fn the_machine_is_read_from_the_version() {
        for (version, expected) in [
            ("PostgreSQL 15.18 (Debian 15.18-0+deb12u1) on x86_64-pc-linux-gnu, compiled by gcc", "x86_64"),
            ("PostgreSQL 18.0 on aarch64-linux, compiled by gcc-14, 64-bit", "aarch64"),
            ("PostgreSQL 17.2 on powerpc64le-unknown-linux-gnu, compiled by gcc", "ppc64le"),
            ("something else", ""),
        ] {
            assert_eq!(machine(version), expected, "{version}");
        }
    }
}

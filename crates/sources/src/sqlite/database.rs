//! A database in a read transaction: how it is opened, what it tells about itself, and what SQLite's errors mean.

use super::facts::CaptureFacts;
use crate::files::node::unreadable;
use retoma_core::{Error, ErrorKind, Result, ResultExt, error::codes};
use rusqlite::config::DbConfig;
use rusqlite::types::ValueRef;
use rusqlite::{CachedStatement, Connection, OpenFlags, ffi};
use rustix::fs::{FileType, Stat};
use std::collections::BTreeMap;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How databases are opened.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long to wait for a lock that another connection holds.
    pub busy_timeout: Duration,
    /// How long one of the user's checks may take.
    pub query_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self { busy_timeout: Duration::from_secs(5), query_timeout: Duration::from_mins(1) }
    }
}

/// How a database is opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    /// With SQLite's locks, without changing the database; `-wal` and `-shm` may be made beside it.
    ReadOnly,
    /// As the application opens it: what a crash left undone is rolled back.
    Recover,
    /// Without locks and without files beside it; right only while nobody writes.
    Immutable,
}

/// A database in a read transaction, until it is dropped.
pub(super) struct Database {
    connection: Connection,
    path: PathBuf,
    access: Access,
    /// The file as it was when the transaction began.
    stat: Stat,
    /// Behind the connection, so that it goes when that is closed.
    _open: OpenHere,
}

/// Files that this process reads now, by device and inode: opening and closing one of them otherwise would drop the locks
/// that SQLite holds for us.
static OPEN_HERE: Mutex<Vec<(u64, u64)>> = Mutex::new(Vec::new());

/// An entry in [`OPEN_HERE`].
struct OpenHere((u64, u64));

impl OpenHere {
    fn enter(stat: &Stat) -> Self {
        OPEN_HERE.lock().unwrap_or_else(PoisonError::into_inner).push(identity(stat));
        Self(identity(stat))
    }
}

impl Drop for OpenHere {
    fn drop(&mut self) {
        let mut open = OPEN_HERE.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(at) = open.iter().position(|entry| *entry == self.0) {
            open.swap_remove(at);
        }
    }
}

#[allow(clippy::unnecessary_cast)] // The fields' types differ between systems.
fn identity(stat: &Stat) -> (u64, u64) {
    (stat.st_dev as u64, stat.st_ino as u64)
}

/// Whether this process reads the database at `path` now.
pub(super) fn is_open_here(path: &Path) -> bool {
    let open = OPEN_HERE.lock().unwrap_or_else(PoisonError::into_inner);
    rustix::fs::stat(path).is_ok_and(|stat| open.contains(&identity(&stat)))
}

impl Database {
    /// Opens `path` beside whoever else uses it, and begins.
    pub(super) fn begin(path: &Path, options: Options) -> Result<Self> {
        let first = match Self::begin_as(path, Access::ReadOnly, options) {
            Ok(database) => return Ok(database),
            Err(Begin::Other(error)) => return Err(error),
            Err(Begin::Sqlite(error)) => error,
        };
        let next = match extended_code(&first) {
            // A crash left a journal: whoever reads first rolls it back, here as anywhere.
            Some(ffi::SQLITE_READONLY_ROLLBACK) => Access::Recover,
            // We may not write the folder, and no process has the database open in WAL mode.
            Some(
                ffi::SQLITE_CANTOPEN
                | ffi::SQLITE_READONLY_CANTINIT
                | ffi::SQLITE_READONLY_RECOVERY
                | ffi::SQLITE_READONLY_DIRECTORY,
            ) if !has_journal(path) => Access::Immutable,
            _ => return Err(sqlite_error(path, first)),
        };
        Self::begin_as(path, next, options).map_err(|error| error.into_error(path))
    }

    /// Opens `path` in one way only, and begins.
    pub(super) fn begin_with(path: &Path, access: Access, options: Options) -> Result<Self> {
        Self::begin_as(path, access, options).map_err(|error| error.into_error(path))
    }

    fn begin_as(path: &Path, access: Access, options: Options) -> Result<Self, Begin> {
        let open = OpenHere::enter(&file_stat(path)?);
        let connection = connect(path, access, options)?;
        connection.execute_batch("BEGIN")?;
        // `BEGIN` alone takes no snapshot; the first read does.
        connection.query_row("SELECT count(*) FROM sqlite_schema", (), |_| Ok(()))?;
        let stat = file_stat(path)?;
        Ok(Self { connection, path: path.to_owned(), access, stat, _open: open })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn stat(&self) -> &Stat {
        &self.stat
    }

    pub(super) fn connection(&self) -> &Connection {
        &self.connection
    }

    fn error(&self, error: rusqlite::Error) -> Error {
        sqlite_error(&self.path, error)
    }

    fn pragma(&self, name: &str) -> Result<i64> {
        let query = format!("PRAGMA {name}");
        self.connection.query_row(&query, (), |row| row.get(0)).map_err(|error| self.error(error))
    }

    /// Everything about the database; it must be sound and hold a table.
    ///
    /// # Errors
    /// `R0403` when there is nothing in it, `R0404` when it is damaged, `R0407` when it can't be checked.
    pub(super) fn facts(&self) -> Result<CaptureFacts> {
        let size = |name| self.pragma(name).map(|value| u64::try_from(value).unwrap_or(0));
        let (page_size, page_count) = (size("page_size")?, size("page_count")?);
        if page_count == 0 {
            return Err(self.empty("has no bytes"));
        }
        self.check_integrity()?;
        let tables = self.count_rows()?;
        let journal_mode: String = self
            .connection
            .query_row("PRAGMA journal_mode", (), |row| row.get(0))
            .map_err(|error| self.error(error))?;
        // Which kind of rollback journal each connection decides for itself.
        let journal_mode = if journal_mode == "wal" { "wal" } else { "rollback" };
        Ok(CaptureFacts {
            schema: CaptureFacts::schema(),
            kind: "sqlite".into(),
            path: self.path.to_string_lossy().into_owned(),
            bytes: page_size * page_count,
            page_size,
            page_count,
            tables,
            integrity: "ok".into(),
            journal_mode: if self.access == Access::Immutable {
                self.mode_in_header()?
            } else {
                journal_mode
            }
            .into(),
            user_version: self.pragma("user_version")?,
            application_id: self.pragma("application_id")?,
            sqlite_version: rusqlite::version().into(),
        })
    }

    /// What the file says: a connection without locks does not ask for it.
    fn mode_in_header(&self) -> Result<&'static str> {
        let bytes = usize::try_from(self.pragma("page_size")?).unwrap_or(0);
        let mut page = vec![0; bytes];
        self.pages(bytes)?.read(1, &mut page)?;
        Ok(if page.get(18) == Some(&2) { "wal" } else { "rollback" })
    }

    fn empty(&self, what: &str) -> Error {
        let message = format!("the database `{}` {what}", self.path.display());
        Error::new(ErrorKind::Invalid, codes::SOURCE_EMPTY, message)
            .with_hint("check the path in the manifest, and whether the service has lost its database")
    }

    /// SQLite's own check: each page, each index, each constraint.
    pub(super) fn check_integrity(&self) -> Result<()> {
        let run = || {
            let mut statement = self.connection.prepare("PRAGMA integrity_check(3)")?;
            let mut rows = statement.query(())?;
            let mut lines = Vec::new();
            while let Some(row) = rows.next()? {
                lines.push(text(row.get_ref(0)?));
            }
            Ok(lines)
        };
        let lines: Vec<String> = run().map_err(|error: rusqlite::Error| {
            if error.sqlite_error_code() == Some(rusqlite::ErrorCode::Unknown) {
                return uncheckable(&self.path, &error);
            }
            self.error(error)
        })?;
        if lines.len() == 1 && lines[0] == "ok" {
            return Ok(());
        }
        let found = lines.join("; ").escape_debug().to_string();
        let message = format!("the database `{}` is damaged: {found}", self.path.display());
        Err(damaged(message))
    }

    /// Rows of every ordinary table.
    pub(super) fn count_rows(&self) -> Result<BTreeMap<String, u64>> {
        let run = || {
            let all: i64 = self.connection.query_row(
                "SELECT count(*) FROM sqlite_schema WHERE type = 'table'",
                (),
                |row| row.get(0),
            )?;
            let list = "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' \
                        AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'";
            let mut statement = self.connection.prepare(list)?;
            let names = statement.query_map((), |row| row.get::<_, String>(0))?;
            let mut tables = BTreeMap::new();
            for name in names {
                let name = name?;
                let query = format!("SELECT count(*) FROM main.\"{}\"", name.replace('"', "\"\""));
                let rows: i64 = self.connection.query_row(&query, (), |row| row.get(0))?;
                tables.insert(name, u64::try_from(rows).unwrap_or(0));
            }
            Ok((all, tables))
        };
        let (all, tables) =
            run().map_err(|error| self.error(error)).context("count the rows of each table")?;
        if all == 0 {
            return Err(self.empty("has no tables"));
        }
        Ok(tables)
    }

    /// Access to pages, for a while.
    pub(super) fn pages(&self, page_bytes: usize) -> Result<Pages<'_>> {
        let statement = self
            .connection
            .prepare_cached("SELECT data FROM sqlite_dbpage WHERE pgno = ?1")
            .map_err(|error| self.error(error))?;
        Ok(Pages { database: self, statement, page_bytes })
    }

    /// Whether nobody wrote to the file where nobody may. In WAL mode others may: a checkpoint writes what we see too.
    pub(super) fn check_untouched(&self) -> Result<()> {
        let moment = |stat: &Stat| (stat.st_ino, stat.st_size, stat.st_mtime, stat.st_mtime_nsec);
        let same = moment(&file_stat(&self.path)?) == moment(&self.stat);
        let untouched = match self.access {
            Access::Immutable => same && !has_journal(&self.path),
            _ => same || self.mode_in_header()? == "wal",
        };
        if untouched {
            return Ok(());
        }
        let message = format!("`{}` was written to while it was read", self.path.display());
        Err(Error::new(ErrorKind::Conflict, codes::SOURCE_CHANGED, message).with_hint(
            "run the backup again; if it stays so, let the user of the backup write the database's folder, and let \
             no other component read the same file",
        ))
    }
}

/// Reads pages; see [`Database::pages`].
pub(super) struct Pages<'a> {
    database: &'a Database,
    statement: CachedStatement<'a>,
    page_bytes: usize,
}

impl Pages<'_> {
    /// Fills `page` with page `number`, counted from 1.
    pub(super) fn read(&mut self, number: u64, page: &mut [u8]) -> Result<()> {
        let number = i64::try_from(number).unwrap_or(i64::MAX);
        let read = self.statement.query_row([number], |row| match row.get_ref(0)? {
            ValueRef::Blob(data) if data.len() == page.len() && page.len() == self.page_bytes => {
                page.copy_from_slice(data);
                Ok(())
            }
            _ => Err(rusqlite::Error::QueryReturnedNoRows),
        });
        read.map_err(|error| match error {
            rusqlite::Error::QueryReturnedNoRows => {
                damaged(format!("the database `{}` lacks page `{number}`", self.database.path.display()))
            }
            other => self.database.error(other),
        })
    }
}

/// Why a transaction did not begin.
enum Begin {
    Sqlite(rusqlite::Error),
    Other(Error),
}

impl From<rusqlite::Error> for Begin {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<Error> for Begin {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

impl Begin {
    fn into_error(self, path: &Path) -> Error {
        match self {
            Self::Sqlite(error) => sqlite_error(path, error),
            Self::Other(error) => error,
        }
    }
}

/// Opens a connection that trusts nothing that a database says.
pub(super) fn connect(path: &Path, access: Access, options: Options) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
    let (mode, parameters) = match access {
        Access::ReadOnly => (OpenFlags::SQLITE_OPEN_READ_ONLY, ""),
        Access::Recover => (OpenFlags::SQLITE_OPEN_READ_WRITE, ""),
        Access::Immutable => (OpenFlags::SQLITE_OPEN_READ_ONLY, "?immutable=1"),
    };
    let mut connection = Connection::open_with_flags(format!("{}{parameters}", uri(path)), flags | mode)?;
    wait_when_busy(&mut connection, options.busy_timeout)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_DEFENSIVE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_TRUSTED_SCHEMA, false)?;
    connection.execute_batch("PRAGMA cell_size_check = ON; PRAGMA mmap_size = 0;")?;
    Ok(connection)
}

/// Asks each millisecond for a lock. SQLite's own handler sleeps longer and longer, and among busy writers of a rollback
/// journal hardly ever meets one of the short moments in which a reader is let in.
fn wait_when_busy(connection: &mut Connection, timeout: Duration) -> rusqlite::Result<()> {
    let mut since = Instant::now();
    connection.busy_handler(Some(move |tries| {
        if tries == 0 {
            since = Instant::now();
        }
        std::thread::sleep(Duration::from_millis(1));
        since.elapsed() < timeout
    }))
}

/// The path as an address that SQLite reads back byte by byte.
fn uri(path: &Path) -> String {
    let mut uri = String::from("file:");
    for &byte in path.as_os_str().as_bytes() {
        if byte.is_ascii_alphanumeric() || b"/._-".contains(&byte) {
            uri.push(char::from(byte));
        } else {
            uri.push('%');
            push_hex(&mut uri, byte);
        }
    }
    uri
}

fn push_hex(text: &mut String, byte: u8) {
    text.extend([byte >> 4, byte & 15].iter().filter_map(|digit| char::from_digit(u32::from(*digit), 16)));
}

/// `path` with `suffix` behind its name.
pub(super) fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Whether a journal or WAL with something in it lies beside the database.
pub(super) fn has_journal(path: &Path) -> bool {
    let real = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    ["-wal", "-journal"]
        .iter()
        .any(|suffix| rustix::fs::lstat(beside(&real, suffix)).is_ok_and(|stat| stat.st_size > 0))
}

/// What `stat` says about the database; links are followed, as SQLite follows them.
fn file_stat(path: &Path) -> Result<Stat> {
    let stat = rustix::fs::stat(path).map_err(|error| {
        unreadable(path, error)
            .with_hint("check the path in the manifest, and that the database was not moved")
    })?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        let message = format!("`{}` is not a file", path.display());
        return Err(Error::new(ErrorKind::Invalid, codes::SOURCE_UNREADABLE, message)
            .with_hint("name the database file itself in the manifest"));
    }
    Ok(stat)
}

fn extended_code(error: &rusqlite::Error) -> Option<i32> {
    error.sqlite_error().map(|error| error.extended_code)
}

/// A value as text: what SQLite's shell shows, blobs in hexadecimal digits.
pub(super) fn text(value: ValueRef<'_>) -> String {
    match value {
        ValueRef::Null => "NULL".into(),
        ValueRef::Integer(number) => number.to_string(),
        ValueRef::Real(number) => format!("{number:?}"),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into_owned(),
        ValueRef::Blob(bytes) => bytes.iter().fold(String::new(), |mut hex, byte| {
            push_hex(&mut hex, *byte);
            hex
        }),
    }
}

fn damaged(message: String) -> Error {
    Error::new(ErrorKind::Corrupt, codes::SOURCE_DAMAGED, message)
        .with_hint("stop the service, keep the damaged file, and restore the last good snapshot")
}

fn uncheckable(path: &Path, error: &rusqlite::Error) -> Error {
    let message = format!("the integrity of `{}` cannot be checked: {error}", path.display());
    Error::new(ErrorKind::Unsupported, codes::SOURCE_UNCHECKABLE, message).with_hint(
        "the schema uses a function or collation that only the application has; use built-in ones, or let the \
         application export the data and back that up as files",
    )
}

/// What SQLite's error means for the caller.
pub(super) fn sqlite_error(path: &Path, error: rusqlite::Error) -> Error {
    use rusqlite::ErrorCode as Sqlite;
    let shown = path.display();
    let (kind, code, message, hint) = match error.sqlite_error_code() {
        Some(Sqlite::NotADatabase) => (
            ErrorKind::Corrupt,
            codes::SOURCE_DAMAGED,
            format!("`{shown}` is not a SQLite database"),
            "check the path in the manifest; an encrypted or overwritten database cannot be read",
        ),
        Some(Sqlite::DatabaseCorrupt) => {
            return damaged(format!("the database `{shown}` is damaged: {error}"));
        }
        Some(Sqlite::DatabaseBusy | Sqlite::DatabaseLocked | Sqlite::FileLockingProtocolFailed) => (
            ErrorKind::Unavailable,
            codes::SOURCE_BUSY,
            format!("the database `{shown}` stays locked by another connection: {error}"),
            "let the service end its long transactions and not use `locking_mode = EXCLUSIVE`, then run it again",
        ),
        Some(Sqlite::CannotOpen | Sqlite::ReadOnly | Sqlite::PermissionDenied) => (
            ErrorKind::Unauthorized,
            codes::SOURCE_UNREADABLE,
            format!("the database `{shown}` cannot be opened: {error}"),
            "let the user that runs this read the file and write its folder, which WAL mode needs",
        ),
        Some(Sqlite::SystemIoFailure) => (
            ErrorKind::Unavailable,
            codes::SOURCE_UNREADABLE,
            format!("the database `{shown}` cannot be read: {error}"),
            "check the disk and the file system",
        ),
        _ => (
            ErrorKind::Unsupported,
            codes::SOURCE_UNREADABLE,
            format!("the database `{shown}` cannot be read: {error}"),
            "see whether the `sqlite3` shell reads it",
        ),
    };
    Error::new(kind, code, message).with_hint(hint).with_source(error)
}

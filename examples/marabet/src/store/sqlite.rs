//! The store on SQLite, in WAL mode with `synchronous=FULL`.
//!
//! Invariants:
//! - A database is never created here: a missing one is an error, not an empty store.
//! - Before each call the file at the path is compared with the one that is open, and the connection is made anew when
//!   they differ; a write compares again before it is acknowledged. So nothing is acknowledged that went into a file
//!   which was deleted or replaced (a restore puts another file at the same path).

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use retoma_core::error::codes;
use retoma_core::{Error, ErrorKind, Result};
use rusqlite::{Connection, ErrorCode, OpenFlags, OptionalExtension, Row, params};

use super::{MarkerSummary, NewPrediction, Prediction, PredictionStore};
use crate::files::FileId;

/// The tables, without their indexes.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE users (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL, email TEXT NOT NULL, created_ms INTEGER NOT NULL
    ) STRICT;
    CREATE TABLE events (
        id INTEGER PRIMARY KEY, user_id INTEGER NOT NULL REFERENCES users(id), kind TEXT NOT NULL,
        created_ms INTEGER NOT NULL, detail TEXT NOT NULL
    ) STRICT;
    CREATE TABLE predictions (
        id INTEGER PRIMARY KEY, user_id INTEGER REFERENCES users(id), created_ms INTEGER NOT NULL,
        model_version INTEGER NOT NULL, score REAL NOT NULL, features BLOB NOT NULL
    ) STRICT;
    CREATE TABLE markers (
        run TEXT NOT NULL, number INTEGER NOT NULL, created_ms INTEGER NOT NULL, PRIMARY KEY (run, number)
    ) STRICT, WITHOUT ROWID;
";

/// How long a statement waits for another process's lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);
/// More gaps in one run's markers than this are refused rather than listed.
const MAX_GAPS: usize = 100_000;
const COLUMNS: &str = "id, user_id, created_ms, model_version, score, features";

/// See the module.
#[derive(Debug)]
pub struct SqliteStore {
    path: PathBuf,
    /// Writes and reads have a connection each, so that a long read doesn't hold up a write.
    writer: Mutex<Option<Open>>,
    reader: Mutex<Option<Open>>,
}

#[derive(Debug)]
struct Open {
    connection: Connection,
    file: FileId,
}

impl SqliteStore {
    /// The store in the database file at `path`; opens it at the first use.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), writer: Mutex::default(), reader: Mutex::default() }
    }

    fn read<T>(&self, query: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        self.with(&self.reader, query)
    }

    fn write<T>(&self, statement: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> Result<T> {
        self.with(&self.writer, statement)
    }

    fn with<T>(
        &self,
        slot: &Mutex<Option<Open>>,
        run: impl FnOnce(&Connection) -> rusqlite::Result<T>,
    ) -> Result<T> {
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        let file = self.file()?;
        if slot.as_ref().is_none_or(|open| open.file != file) {
            // SQLite sees that its file has moved and leaves the new file's WAL alone when the old one is closed.
            *slot = None;
        }
        let open = match slot.take() {
            Some(open) => open,
            None => Open { connection: self.open()?, file },
        };
        // Not put back on an error: the next call starts from a fresh connection.
        let result = run(&open.connection).map_err(|error| self.failed(&error))?;
        if self.file()? != open.file {
            return Err(Error::new(
                ErrorKind::Unavailable,
                codes::SAMPLE_DATABASE,
                format!("`{}` was replaced meanwhile", self.path.display()),
            ));
        }
        *slot = Some(open);
        Ok(result)
    }

    /// The file that stands at the path now.
    fn file(&self) -> Result<FileId> {
        let metadata = fs::metadata(&self.path).map_err(|error| {
            let message = format!("`{}`: {error}", self.path.display());
            Error::new(ErrorKind::Unavailable, codes::SAMPLE_DATABASE, message)
                .with_hint("restore the database")
        })?;
        Ok(FileId::of(&metadata))
    }

    fn open(&self) -> Result<Connection> {
        open(&self.path).map_err(|error| self.failed(&error).context("open database"))
    }

    fn failed(&self, error: &rusqlite::Error) -> Error {
        let kind = match error.sqlite_error_code() {
            Some(ErrorCode::ConstraintViolation) => {
                let message = format!("the row does not fit the tables: {error}");
                return Error::new(ErrorKind::Invalid, codes::SAMPLE_REQUEST, message);
            }
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => ErrorKind::Corrupt,
            Some(ErrorCode::DiskFull) => ErrorKind::Exhausted,
            _ => ErrorKind::Unavailable,
        };
        Error::new(kind, codes::SAMPLE_DATABASE, format!("`{}`: {error}", self.path.display()))
    }
}

/// Opens an existing database durably.
fn open(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get::<_, String>(0))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "foreign_keys", "ON")?;
    Ok(connection)
}

impl PredictionStore for SqliteStore {
    fn check(&self) -> Result<()> {
        self.read(|connection| {
            for table in ["users", "events", "predictions", "markers"] {
                let query = format!("SELECT 1 FROM {table} LIMIT 1");
                connection.prepare_cached(&query)?.query_row((), |_| Ok(())).optional()?;
            }
            Ok(())
        })
    }

    fn check_deep(&self) -> Result<()> {
        self.check()?;
        // A fresh connection, whose cache holds nothing: the pages on disk are what counts.
        let answer = self.open()?.query_row("PRAGMA quick_check(1)", (), |row| row.get::<_, String>(0));
        match answer.map_err(|error| self.failed(&error))?.as_str() {
            "ok" => Ok(()),
            damage => {
                let message = format!("`{}`: {}", self.path.display(), damage.replace('\n', " "));
                Err(Error::new(ErrorKind::Corrupt, codes::SAMPLE_DATABASE, message))
            }
        }
    }

    fn add_prediction(&self, prediction: &NewPrediction) -> Result<i64> {
        let now = unix_ms();
        self.write(|connection| {
            connection
                .prepare_cached(
                    "INSERT INTO predictions (user_id, created_ms, model_version, score, features) \
                     VALUES (?1, ?2, ?3, ?4, ?5)",
                )?
                .insert(params![
                    prediction.user_id,
                    now,
                    prediction.model_version,
                    prediction.score,
                    encode_features(&prediction.features)
                ])
        })
    }

    fn prediction(&self, id: i64) -> Result<Option<Prediction>> {
        let query = format!("SELECT {COLUMNS} FROM predictions WHERE id = ?1");
        self.read(|connection| connection.prepare_cached(&query)?.query_row([id], prediction_of).optional())
    }

    fn latest_predictions(&self, limit: u32) -> Result<Vec<Prediction>> {
        let query = format!("SELECT {COLUMNS} FROM predictions ORDER BY id DESC LIMIT ?1");
        self.read(|connection| {
            connection.prepare_cached(&query)?.query_map([limit], prediction_of)?.collect()
        })
    }

    fn count_predictions(&self) -> Result<u64> {
        self.read(|connection| {
            connection.prepare_cached("SELECT count(*) FROM predictions")?.query_row((), unsigned)
        })
    }

    fn add_marker(&self, run: &str, number: u64) -> Result<()> {
        let now = unix_ms();
        let number = i64::try_from(number).map_err(|_| {
            let message = format!("marker {number} is larger than {}", i64::MAX);
            Error::new(ErrorKind::Invalid, codes::SAMPLE_REQUEST, message)
        })?;
        self.write(|connection| {
            connection
                .prepare_cached(
                    "INSERT OR IGNORE INTO markers (run, number, created_ms) VALUES (?1, ?2, ?3)",
                )?
                .execute(params![run, number, now])
        })?;
        Ok(())
    }

    fn markers(&self, run: &str) -> Result<MarkerSummary> {
        let summary = self.read(|connection| {
            let mut statement =
                connection.prepare_cached("SELECT number FROM markers WHERE run = ?1 ORDER BY number")?;
            let mut summary = MarkerSummary { run: run.to_owned(), count: 0, max: 0, missing: Vec::new() };
            for number in statement.query_map([run], unsigned)? {
                let number = number?;
                if number > summary.max + 1 && summary.missing.len() <= MAX_GAPS {
                    summary.missing.push((summary.max + 1, number - 1));
                }
                summary.count += 1;
                summary.max = number;
            }
            Ok(summary)
        })?;
        if summary.missing.len() > MAX_GAPS {
            let message = format!("run `{run}` has more than {MAX_GAPS} gaps");
            return Err(Error::new(ErrorKind::Invalid, codes::SAMPLE_REQUEST, message)
                .with_hint("number the markers of a run 1, 2, 3 and so on"));
        }
        Ok(summary)
    }
}

/// The first column, a number that is never negative.
fn unsigned(row: &Row<'_>) -> rusqlite::Result<u64> {
    let number: i64 = row.get(0)?;
    u64::try_from(number).map_err(|_| rusqlite::Error::IntegralValueOutOfRange(0, number))
}

fn prediction_of(row: &Row<'_>) -> rusqlite::Result<Prediction> {
    let features: Vec<u8> = row.get(5)?;
    Ok(Prediction {
        id: row.get(0)?,
        user_id: row.get(1)?,
        created_ms: row.get(2)?,
        model_version: row.get(3)?,
        score: row.get(4)?,
        features: features.as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
    })
}

/// Features as they are stored: little-endian float32.
pub(crate) fn encode_features(features: &[f32]) -> Vec<u8> {
    features.iter().flat_map(|feature| feature.to_le_bytes()).collect()
}

/// Now, in milliseconds since 1970 (UTC); 0 on a clock before that.
pub(crate) fn unix_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;

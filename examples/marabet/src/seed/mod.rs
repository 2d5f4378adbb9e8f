//! Makes a root folder with realistic data, fast, and the same for the same seed.
//!
//! The database is written in one transaction without a journal and switched to WAL at the end; models and logs are
//! made by a second thread meanwhile. Everything is synced before the function returns. Nothing depends on the clock.

mod database;
mod logs;
mod models;

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use retoma_core::error::codes;
use retoma_core::{Error, ErrorKind, Result};

use crate::config::{Config, Layout};
use crate::files::{create_folder, sync_folder_of, write_atomic};

/// How many features the seeded models and predictions have.
const FEATURES: u32 = 16;
/// The version of the seeded models.
const MODEL_VERSION: u32 = 3;
/// The moment at which the seeded history ends, in milliseconds since 1970: 2026-01-01 00:00 UTC.
const HISTORY_END_MS: i64 = 1_767_225_600_000;

/// How much to make. The sizes are reached within a few percent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedOptions {
    /// Rows in `predictions`; `users` gets a hundredth and `events` a tenth of it.
    pub rows: u64,
    /// Bytes of all models together, in four files.
    pub model_bytes: u64,
    /// Bytes of all logs together, in four files.
    pub log_bytes: u64,
    /// The same seed makes the same files.
    pub seed: u64,
}

impl Default for SeedOptions {
    /// More than 200 MB: 1,000,000 rows, 80 MiB of models, 32 MiB of logs.
    fn default() -> Self {
        Self { rows: 1_000_000, model_bytes: 80 << 20, log_bytes: 32 << 20, seed: 1 }
    }
}

/// What is being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SeedPart {
    /// `data/marabet.sqlite`, counted in rows.
    Database,
    /// `models/`, counted in bytes.
    Models,
    /// `logs/`, counted in bytes.
    Logs,
}

/// How far one part is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeedProgress {
    /// The part.
    pub part: SeedPart,
    /// How much of it is made, in the part's unit.
    pub done: u64,
    /// How much will be made.
    pub total: u64,
}

/// What was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SeedReport {
    /// Rows in `predictions`.
    pub rows: u64,
    /// Size of the database file, in bytes.
    pub database_bytes: u64,
    /// Size of all models, in bytes.
    pub model_bytes: u64,
    /// Size of all logs, in bytes.
    pub log_bytes: u64,
    /// How long it took, syncing included.
    pub elapsed: Duration,
}

impl SeedReport {
    /// All that was made, in bytes, without the small configuration.
    pub fn total_bytes(&self) -> u64 {
        self.database_bytes + self.model_bytes + self.log_bytes
    }
}

/// Makes a service's root at `root`, where none may be yet; other files there are left alone. `progress` is called
/// from two threads, some ten times for each part.
pub fn seed(
    root: &Path,
    options: &SeedOptions,
    progress: &(dyn Fn(SeedProgress) + Sync),
) -> Result<SeedReport> {
    let started = Instant::now();
    let layout = Layout::new(root);
    for path in [layout.config(), layout.database()] {
        if path.try_exists().map_err(|error| Error::io(path.display(), error))? {
            let message = format!("`{}` exists already", path.display());
            return Err(Error::new(ErrorKind::Conflict, codes::SAMPLE_EXISTS, message)
                .with_hint("seed another folder, or remove this one first"));
        }
    }
    for file in [layout.config(), layout.database(), layout.log(), layout.models().join(models::SERVED)] {
        create_folder(file.parent().unwrap_or(root))?;
    }
    let (database_bytes, files) = thread::scope(|scope| {
        let files = scope.spawn(|| {
            let model_bytes = models::write(&layout.models(), options, progress)?;
            Ok((model_bytes, logs::write(&layout, options, progress)?))
        });
        let database_bytes = database::write(&layout.database(), options, progress);
        let files =
            files.join().unwrap_or_else(|_| Err(Error::internal("the thread that makes models ended")));
        (database_bytes, files)
    });
    let (model_bytes, log_bytes) = files?;
    let report = SeedReport {
        rows: options.rows,
        database_bytes: database_bytes?,
        model_bytes,
        log_bytes,
        elapsed: Duration::ZERO,
    };
    // Last: a root without configuration is one that was not finished.
    let config = Config {
        name: "marabet".to_owned(),
        model: models::SERVED.to_owned(),
        features: FEATURES,
        list_limit: 1000,
    };
    write_atomic(&layout.config(), config.to_toml().as_bytes())?;
    sync_folder_of(&layout.models())?;
    Ok(SeedReport { elapsed: started.elapsed(), ..report })
}

/// Calls `progress` when another tenth of `total` is done, and at the end.
struct Steps<'a> {
    progress: &'a (dyn Fn(SeedProgress) + Sync),
    part: SeedPart,
    total: u64,
    next: u64,
}

impl<'a> Steps<'a> {
    fn new(progress: &'a (dyn Fn(SeedProgress) + Sync), part: SeedPart, total: u64) -> Self {
        Self { progress, part, total, next: 0 }
    }

    fn at(&mut self, done: u64) {
        if done >= self.next || done >= self.total {
            (self.progress)(SeedProgress { part: self.part, done: done.min(self.total), total: self.total });
            self.next = done + (self.total / 10).max(1);
        }
    }
}

#[cfg(test)]
mod tests;

//! Numbered writes. What was acknowledged before a disaster and is not there after it is lost; nothing else is.
//!
//! Each component gets marks of its own: through the service's `marker_url` where the manifest has one (so that a mark
//! is what a user's write is), otherwise written into the scratch copy: a row in a table `retoma_markers`, an empty
//! file `.retoma-marker-…` in a folder, an extended attribute of a single file. A number is written until it is
//! acknowledged, so acknowledged numbers have no gaps.

use crate::backup::server_address;
use crate::interrupt::{Interrupt, Stopwatch};
use crate::probe;
use retoma_core::decide::drill::{Mark, MarkSet, RpoMeasured, rpo_from_markers};
use retoma_core::manifest::{Component, Manifest, Source};
use retoma_core::{Error, ErrorKind, Result, ResultExt, error::codes};
use retoma_sources::postgres::wire::{Address, Connection, Mode, Timeouts};
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// From one mark to the next.
const INTERVAL: Duration = Duration::from_millis(20);
/// How long one write may take.
const WRITE_LIMIT: Duration = Duration::from_secs(2);
/// How long the list of marks may take to come.
const READ_LIMIT: Duration = Duration::from_secs(30);
const PREFIX: &str = ".retoma-marker-";
/// The table of marks in a PostgreSQL server.
pub const TABLE: &str = "public.retoma_markers";
const XATTR: &str = "user.retoma.marker";

/// Where marks of one component go.
#[derive(Debug)]
enum Sink {
    Service { write_url: String, read_url: String, agent: ureq::Agent },
    Database(PathBuf),
    Folder(PathBuf),
    File(PathBuf),
    Server { address: Box<Address>, connection: Mutex<Option<Connection>> },
}

/// Marks of one component.
#[derive(Debug)]
struct Writer {
    component: String,
    sink: Sink,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Nothing is written while it is not open.
    open: bool,
    acknowledged: Vec<Mark>,
    last_error: Option<String>,
}

/// Marks of all components of one drill.
#[derive(Debug)]
pub struct Markers {
    run: String,
    clock: Stopwatch,
    writers: Vec<Writer>,
    stop: AtomicBool,
}

impl Markers {
    /// Marks named `run` (letters, digits, `-`) for every component of `manifest`, which must be a scratch copy's.
    pub fn new(manifest: &Manifest, run: &str, clock: Stopwatch) -> Self {
        let through_service = manifest.drill.markers.as_ref();
        let writer = |component: &Component| {
            let served = through_service.filter(|it| it.component.as_ref() == Some(&component.name));
            let sink = match (served, &component.source) {
                (Some(markers), _) => Sink::Service {
                    write_url: markers.write_url.clone(),
                    read_url: markers.read_url.clone(),
                    agent: probe::agent(WRITE_LIMIT),
                },
                (None, Source::Sqlite { path, .. }) => Sink::Database(path.clone()),
                (None, Source::Files { path, .. }) if path.is_dir() => Sink::Folder(path.clone()),
                (None, Source::Files { path, .. }) => Sink::File(path.clone()),
                (None, Source::Postgres { url }) => Sink::Server {
                    address: Box::new(server_address(url).ok()?),
                    connection: Mutex::default(),
                },
                (None, Source::Redis { .. }) => return None,
            };
            Some(Writer { component: component.name.clone(), sink, state: Mutex::default() })
        };
        let writers = manifest.components.iter().filter_map(writer).collect();
        Self { run: run.to_owned(), clock, writers, stop: AtomicBool::new(false) }
    }

    /// Writes marks until [`Markers::stop`]; blocks, so it runs in a thread. Outages are waited out.
    pub fn write(&self, interrupt: &Interrupt) {
        std::thread::scope(|scope| {
            for writer in &self.writers {
                scope.spawn(|| {
                    while !self.stop.load(Ordering::Relaxed) && !interrupt.is_set() {
                        writer.step(&self.run, self.clock);
                        std::thread::sleep(INTERVAL);
                    }
                });
            }
        });
    }

    /// Ends [`Markers::write`].
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Lets marks through, those that go through the service or all.
    pub fn open(&self, which: Which) {
        self.gate(which, true);
    }

    /// Holds marks back. On return no write is under way.
    pub fn close(&self, which: Which) {
        self.gate(which, false);
    }

    fn gate(&self, which: Which, open: bool) {
        for writer in self.writers.iter().filter(|writer| which.fits(&writer.sink)) {
            writer.state().open = open;
        }
    }

    /// How many marks each component has.
    fn counts(&self) -> Vec<usize> {
        self.writers.iter().map(|writer| writer.state().acknowledged.len()).collect()
    }

    /// Waits until every component has `more` marks more than now.
    ///
    /// # Errors
    /// `R0713` naming a component that takes none within `limit`; `Cancelled`.
    pub fn wait_for(&self, more: usize, limit: Duration, interrupt: &Interrupt) -> Result<()> {
        let before = self.counts();
        let lacking = || {
            let counts = self.counts();
            counts.iter().zip(&before).position(|(now, before)| *now < before + more)
        };
        let enough = interrupt.wait_for(limit, || Ok(lacking().is_none().then_some(())))?;
        let Some(writer) = lacking().filter(|_| enough.is_none()).and_then(|at| self.writers.get(at)) else {
            return Ok(());
        };
        let error = writer.state().last_error.clone().unwrap_or_else(|| "none".to_owned());
        let message = format!("component `{}` takes no marks within {} s", writer.component, limit.as_secs());
        Err(Error::new(ErrorKind::Unavailable, codes::DRILL_UNSUITED, message)
            .with_hint(format!("its last error: {error}; see `marker_url` in `docs/manifest.md`")))
    }

    /// The first mark that the service acknowledged after `since`; always `None` when none goes through it.
    pub fn first_through_service(&self, since: Duration) -> Option<Mark> {
        let writer = self.writers.iter().find(|writer| Which::Service.fits(&writer.sink))?;
        let state = writer.state();
        state.acknowledged.iter().find(|mark| mark.acknowledged_at > since).copied()
    }

    /// Whether marks go through the service.
    pub fn has_service(&self) -> bool {
        self.writers.iter().any(|writer| Which::Service.fits(&writer.sink))
    }

    /// The reason why the service took no mark, when it was asked last.
    pub fn service_error(&self) -> Option<String> {
        let writer = self.writers.iter().find(|writer| Which::Service.fits(&writer.sink))?;
        writer.state().last_error.clone()
    }

    /// Writes one mark more into a component that gets them directly: the first write where no service takes any.
    ///
    /// # Errors
    /// It could not be written.
    pub fn write_one(&self) -> Result<()> {
        for writer in &self.writers {
            let next = writer.state().acknowledged.len() as u64 + 1;
            writer.sink.write(&self.run, next)?;
        }
        Ok(())
    }

    /// Counts what `component` lost. Only marks acknowledged before `recovered_at` could be lost; all times are on the
    /// clock of the drill. `None` for a component without marks.
    ///
    /// # Errors
    /// The surviving marks cannot be read.
    pub fn count(
        &self,
        component: &str,
        disaster_at: Duration,
        recovered_at: Duration,
    ) -> Result<Option<RpoMeasured>> {
        let Some(writer) = self.writers.iter().find(|writer| writer.component == component) else {
            return Ok(None);
        };
        let survived =
            writer.sink.survived(&self.run).with_context(|| format!("count marks of `{component}`"))?;
        let before: Vec<Mark> = writer
            .state()
            .acknowledged
            .iter()
            .filter(|mark| mark.acknowledged_at < recovered_at)
            .copied()
            .collect();
        Ok(Some(rpo_from_markers(&before, &survived, disaster_at)))
    }
}

/// Which marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Those that go through the service.
    Service,
    /// All.
    All,
}

impl Which {
    fn fits(self, sink: &Sink) -> bool {
        self == Self::All || matches!(sink, Sink::Service { .. })
    }
}

impl Writer {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the next mark. The state stays locked meanwhile, so that closing the gate waits for it.
    fn step(&self, run: &str, clock: Stopwatch) {
        let mut state = self.state();
        if !state.open {
            return;
        }
        let number = state.acknowledged.len() as u64 + 1;
        match self.sink.write(run, number) {
            Ok(()) => state.acknowledged.push(Mark { number, acknowledged_at: clock.elapsed() }),
            Err(error) => state.last_error = Some(error.to_string()),
        }
    }
}

impl Sink {
    /// Durable on return.
    fn write(&self, run: &str, number: u64) -> Result<()> {
        match self {
            Self::Service { write_url, agent, .. } => post(agent, write_url, run, number),
            Self::Database(path) => insert(path, run, number).map_err(|error| database_error(path, error)),
            Self::Folder(folder) => {
                let path = folder.join(format!("{PREFIX}{run}-{number}"));
                let write = || {
                    std::fs::File::create(&path)?.sync_all()?;
                    std::fs::File::open(folder)?.sync_all()
                };
                write().map_err(|error| Error::io(path.display(), error))
            }
            Self::File(path) => {
                let set = || {
                    xattr::set(path, XATTR, format!("{run}-{number}").as_bytes())?;
                    std::fs::File::open(path)?.sync_all()
                };
                set().map_err(|error| Error::io(path.display(), error))
            }
            Self::Server { address, connection } => {
                let statement = format!(
                    "INSERT INTO {TABLE} (run, number) VALUES ('{run}', {number}) \
                     ON CONFLICT (run, number) DO UPDATE SET number = excluded.number"
                );
                let mut kept = connection.lock().unwrap_or_else(PoisonError::into_inner);
                // One that is kept may be of a server that is gone; what it was told may be told again.
                if let Some(mut old) = kept.take()
                    && old.execute(&statement).is_ok()
                {
                    *kept = Some(old);
                    return Ok(());
                }
                let mut new = connect_server(address)?;
                new.execute(&statement)?;
                *kept = Some(new);
                Ok(())
            }
        }
    }

    /// The numbers that are there now.
    fn survived(&self, run: &str) -> Result<MarkSet> {
        match self {
            Self::Service { read_url, .. } => read(read_url, run),
            Self::Database(path) => select(path, run).map_err(|error| database_error(path, error)),
            Self::Folder(folder) => {
                let prefix = format!("{PREFIX}{run}-");
                let entries =
                    std::fs::read_dir(folder).map_err(|error| Error::io(folder.display(), error))?;
                let number = |name: std::ffi::OsString| name.to_str()?.strip_prefix(&prefix)?.parse().ok();
                Ok(entries.flatten().filter_map(|entry| number(entry.file_name())).collect())
            }
            Self::File(path) => {
                let value = xattr::get(path, XATTR).map_err(|error| Error::io(path.display(), error))?;
                let text = String::from_utf8(value.unwrap_or_default()).unwrap_or_default();
                let last = text.strip_prefix(&format!("{run}-")).and_then(|number| number.parse().ok());
                Ok(MarkSet::from_ranges(last.map(|last: u64| 1..=last)))
            }
            Self::Server { address, .. } => {
                let rows = connect_server(address)?
                    .query(&format!("SELECT number FROM {TABLE} WHERE run = '{run}' ORDER BY number"))?;
                rows.iter().map(|row| row.value("number")).collect()
            }
        }
    }
}

fn connect_server(address: &Address) -> Result<Connection> {
    let timeouts = Timeouts { silence: READ_LIMIT, ..Timeouts::default() };
    let mut connection = Connection::connect(address, Mode::Sql, timeouts)?;
    // A commit that is not durable is no acknowledgement.
    connection.execute("SET synchronous_commit = on")?;
    Ok(connection)
}

/// Makes the table of marks in a scratch copy of a PostgreSQL server.
///
/// # Errors
/// What the server says.
pub fn make_table(address: &Address) -> Result<()> {
    let statement =
        format!("CREATE TABLE IF NOT EXISTS {TABLE} (run text, number bigint, PRIMARY KEY (run, number))");
    connect_server(address)?.execute(&statement).map(drop)
}

fn not_taken(url: &str, why: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Unavailable, codes::NO_FIRST_WRITE, format!("`{url}` took no mark: {why}"))
}

/// One mark through the service. It counts only when the service says which one it kept.
fn post(agent: &ureq::Agent, url: &str, run: &str, number: u64) -> Result<()> {
    let mark = json!({"run": run, "number": number});
    let seen = probe::observe(std::time::Instant::now(), agent.post(url).send_json(&mark));
    if !seen.is_status(200) {
        return Err(not_taken(url, seen.outcome));
    }
    let receipt: Option<Value> = serde_json::from_str(&seen.body).ok();
    if receipt.is_some_and(|receipt| receipt["run"] == mark["run"] && receipt["number"] == mark["number"]) {
        return Ok(());
    }
    Err(not_taken(url, "the answer is no receipt of it"))
}

/// The service's answer to which marks it has.
#[derive(Deserialize)]
struct Kept {
    max: u64,
    missing: Vec<(u64, u64)>,
}

fn read(url: &str, run: &str) -> Result<MarkSet> {
    let seen = probe::get(&format!("{url}?run={run}"), READ_LIMIT);
    let wrong = |why: &dyn std::fmt::Display| {
        let message = format!("`{url}` does not tell its marks: {why}");
        Error::new(ErrorKind::Unavailable, codes::NO_EVIDENCE, message)
            .with_hint("see `markers_url` in `docs/manifest.md` for the answer that is expected")
    };
    if !seen.is_status(200) {
        return Err(wrong(&seen.outcome));
    }
    let kept: Kept = serde_json::from_str(&seen.body).map_err(|error| wrong(&error))?;
    Ok(present(kept.max, kept.missing))
}

/// The numbers from 1 to `max` without those in `missing`, which may be in any order and overlap.
fn present(max: u64, missing: Vec<(u64, u64)>) -> MarkSet {
    let missing = MarkSet::from_ranges(missing.into_iter().map(|(first, last)| first..=last));
    let mut next = 1;
    let mut ranges = Vec::new();
    for gap in missing.ranges() {
        ranges.push(next..=gap.start().saturating_sub(1).min(max));
        next = next.max(gap.end().saturating_add(1));
    }
    ranges.push(next..=max);
    MarkSet::from_ranges(ranges)
}

fn connect(path: &Path) -> rusqlite::Result<rusqlite::Connection> {
    use rusqlite::OpenFlags;
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = rusqlite::Connection::open_with_flags(path, flags)?;
    connection.busy_timeout(WRITE_LIMIT)?;
    connection.execute_batch(
        "PRAGMA synchronous = FULL;
         CREATE TABLE IF NOT EXISTS retoma_markers (run TEXT, number INTEGER, PRIMARY KEY (run, number));",
    )?;
    Ok(connection)
}

fn insert(path: &Path, run: &str, number: u64) -> rusqlite::Result<()> {
    let number = i64::try_from(number).unwrap_or(i64::MAX);
    let insert = "INSERT OR IGNORE INTO retoma_markers (run, number) VALUES (?1, ?2)";
    connect(path)?.execute(insert, (run, number)).map(drop)
}

fn select(path: &Path, run: &str) -> rusqlite::Result<MarkSet> {
    let connection = connect(path)?;
    let mut statement = connection.prepare("SELECT number FROM retoma_markers WHERE run = ?1")?;
    let numbers = statement.query_map([run], |row| row.get::<_, i64>(0))?;
    numbers.map(|number| number.map(i64::cast_unsigned)).collect()
}

fn database_error(path: &Path, error: rusqlite::Error) -> Error {
    let message = format!("`{}`: {error}", path.display());
    Error::new(ErrorKind::Unavailable, codes::NO_EVIDENCE, message).with_source(error)
}

#[cfg(test)]
mod tests;

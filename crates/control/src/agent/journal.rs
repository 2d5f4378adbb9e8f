//! The journal: a line of JSON for each operation that begins and for each that ends. `docs/agent.md`, "Journal".
//!
//! Invariants: a line is synced before anything follows from it; what cannot be read is passed over and never stops an agent;
//! the files together have a bound, and what is needed of each task outlives the oldest line.

use crate::durable;
use jiff::Timestamp;
use retoma_core::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// The current file.
const NAME: &str = "journal.jsonl";
/// The one before.
const OLD_NAME: &str = "journal.1.jsonl";
/// When the current one becomes the old one, in bytes.
const LIMIT_BYTES: u64 = 4 << 20;
/// Journals that are larger are not ours.
const READ_LIMIT_BYTES: u64 = 64 << 20;

/// What a line tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Event {
    /// An operation begins.
    Begun,
    /// It has ended.
    Ended,
    /// Something that a newer program writes.
    #[serde(other)]
    Unknown,
}

/// How an operation ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Outcome {
    /// Everything was done.
    Good,
    /// Something could not be read.
    Incomplete,
    /// It failed.
    Failed,
    /// The agent died, and nobody saw the end.
    Lost,
    /// It was asked to stop.
    Stopped,
    /// Something that a newer program writes.
    #[serde(other)]
    Unknown,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Line {
    /// What it tells.
    pub(super) event: Event,
    /// The run's number.
    pub(super) id: u64,
    /// The task, such as `backup/models`.
    pub(super) task: String,
    /// What was run.
    pub(super) verb: String,
    /// Of which component.
    #[serde(default)]
    pub(super) component: Option<String>,
    /// When it began.
    pub(super) started: Timestamp,
    /// When it ended.
    #[serde(default)]
    pub(super) ended: Option<Timestamp>,
    /// The time between them, by a clock that is never put back.
    #[serde(default)]
    pub(super) duration_seconds: Option<f64>,
    /// How it ended.
    #[serde(default)]
    pub(super) outcome: Option<Outcome>,
    /// The exit code of the last child that was not well, or 0.
    #[serde(default)]
    pub(super) exit_code: Option<i32>,
    /// The code of its error.
    #[serde(default)]
    pub(super) error_code: Option<String>,
    /// The snapshot of a backup.
    #[serde(default)]
    pub(super) snapshot: Option<String>,
    /// Bytes of all its files.
    #[serde(default)]
    pub(super) total_bytes: Option<u64>,
    /// Bytes that the repositories grew by.
    #[serde(default)]
    pub(super) stored_bytes: Option<u64>,
    /// What else is worth knowing.
    #[serde(default)]
    pub(super) details: Value,
}

/// What the journal remembers of a task.
#[derive(Debug, Clone, PartialEq, Default)]
pub(super) struct Past {
    /// The newest good end.
    pub(super) good: Option<Line>,
    /// The newest end that says something: not `stopped`.
    pub(super) last: Option<Line>,
    /// How many ends after the good one were not.
    pub(super) failures: u32,
    /// Begun and not ended.
    open: Option<Line>,
}

/// An open journal.
#[derive(Debug)]
pub(super) struct Journal {
    folder: PathBuf,
    file: Option<File>,
    bytes: u64,
    limit_bytes: u64,
    next_id: u64,
    since: Option<Timestamp>,
    past: BTreeMap<String, Past>,
    /// Lines that could not be written.
    pub(super) errors: u64,
}

impl Journal {
    /// Opens the journal in `folder`, which must be there, or begins one. Runs without an end are given one at `now`: `lost`.
    ///
    /// # Errors
    /// What the file system says of reading.
    pub(super) fn open(folder: &Path, now: Timestamp) -> Result<Self> {
        Self::open_with(folder, now, LIMIT_BYTES)
    }

    fn open_with(folder: &Path, now: Timestamp, limit_bytes: u64) -> Result<Self> {
        let mut journal = Self {
            folder: folder.to_owned(),
            file: None,
            bytes: 0,
            limit_bytes,
            next_id: 1,
            since: None,
            past: BTreeMap::new(),
            errors: 0,
        };
        journal.read(OLD_NAME)?;
        journal.bytes = journal.read(NAME)?;
        journal.since = journal.since.map(|since| since.min(now));
        let lost: Vec<Line> = journal.past.values_mut().filter_map(|past| past.open.take()).collect();
        for line in lost {
            let lost = Line { event: Event::Ended, ended: Some(now), outcome: Some(Outcome::Lost), ..line };
            journal.write(lost);
        }
        Ok(journal)
    }

    /// Since when there is a journal.
    pub(super) fn since(&self) -> Option<Timestamp> {
        self.since
    }

    /// What is remembered of a task.
    pub(super) fn past(&self, task: &str) -> Option<&Past> {
        self.past.get(task)
    }

    /// The number of the next run.
    pub(super) fn next_id(&mut self) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        id
    }

    /// Writes a line and syncs it. One that cannot be written is remembered all the same, and counted.
    pub(super) fn write(&mut self, line: Line) {
        if self.append(&line).is_err() {
            self.errors += 1;
            // Opened anew next time: whatever is wrong may be over.
            self.file = None;
        }
        self.note(line);
        if self.bytes > self.limit_bytes && self.rotate().is_err() {
            self.errors += 1;
        }
    }

    fn append(&mut self, line: &Line) -> Result<()> {
        let path = self.folder.join(NAME);
        let failed = |error| Error::io(path.display(), error);
        let mut text = serde_json::to_string(line)
            .map_err(|error| Error::internal("a line of the journal is no JSON").with_source(error))?;
        text.push('\n');
        if self.file.is_none() {
            let mut options = OpenOptions::new();
            let file =
                options.create(true).append(true).mode(durable::PRIVATE).open(&path).map_err(failed)?;
            durable::sync_folder_of(&path)?;
            // A line that was torn by a full disk must not swallow this one.
            let length = file.metadata().map_err(failed)?.len();
            if length > self.bytes {
                file.set_len(self.bytes).map_err(failed)?;
            }
            self.file = Some(file);
        }
        let Some(file) = &mut self.file else { return Err(Error::internal("the journal is not open")) };
        file.write_all(text.as_bytes()).and_then(|()| file.sync_data()).map_err(failed)?;
        self.bytes += text.len() as u64;
        Ok(())
    }

    /// Reads a file; gives the length of its whole lines.
    fn read(&mut self, name: &str) -> Result<u64> {
        let path = self.folder.join(name);
        let bytes = match std::fs::metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(0),
            Ok(metadata) if metadata.len() > READ_LIMIT_BYTES => {
                return Err(Error::io(
                    path.display(),
                    std::io::Error::from(std::io::ErrorKind::FileTooLarge),
                )
                .with_hint("this is no journal of ours: move it away"));
            }
            _ => std::fs::read(&path).map_err(|error| Error::io(path.display(), error))?,
        };
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        for line in bytes[..whole].split(|byte| *byte == b'\n') {
            if let Ok(line) = serde_json::from_slice::<Line>(line) {
                self.note(line);
            }
        }
        Ok(whole as u64)
    }

    /// Takes a line into memory.
    fn note(&mut self, line: Line) {
        self.next_id = self.next_id.max(line.id.saturating_add(1));
        self.since = Some(self.since.map_or(line.started, |since| since.min(line.started)));
        let past = self.past.entry(line.task.clone()).or_default();
        match (line.event, line.outcome) {
            (Event::Begun, _) => past.open = Some(line),
            (Event::Ended, outcome) => {
                past.open.take_if(|open| open.id <= line.id);
                match outcome {
                    Some(Outcome::Good) => {
                        (past.good, past.last, past.failures) = (Some(line.clone()), Some(line), 0);
                    }
                    Some(Outcome::Incomplete | Outcome::Failed | Outcome::Lost) => {
                        // The same line may come twice: once carried over.
                        if past.last.as_ref().is_none_or(|last| last.id != line.id) {
                            past.failures = past.failures.saturating_add(1);
                        }
                        past.last = Some(line);
                    }
                    _ => {}
                }
            }
            (Event::Unknown, _) => {}
        }
    }

    /// The current file becomes the old one; the new one begins with what is needed of each task.
    fn rotate(&mut self) -> Result<()> {
        let mut carried: Vec<&Line> = Vec::new();
        for past in self.past.values() {
            carried.extend([&past.good, &past.last, &past.open].into_iter().flatten());
        }
        carried.sort_by_key(|line| (line.id, line.event == Event::Ended));
        carried.dedup();
        let mut text = String::new();
        for line in carried {
            text += &serde_json::to_string(line)
                .map_err(|error| Error::internal("a line of the journal is no JSON").with_source(error))?;
            text.push('\n');
        }
        let (path, old) = (self.folder.join(NAME), self.folder.join(OLD_NAME));
        // Killed in between, the old one alone has everything.
        std::fs::rename(&path, &old).map_err(|error| Error::io(path.display(), error))?;
        (self.file, self.bytes) = (None, 0);
        durable::write(&path, text.as_bytes(), durable::PRIVATE)?;
        self.bytes = text.len() as u64;
        Ok(())
    }
}

#[cfg(test)]
mod tests;

//! `logs/marabet.log`: one JSON object a line for each request.
//!
//! A request never fails because its line cannot be written; lost lines are counted and shown by `/healthz`.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;

use crate::files::FileId;

/// What a line says about one request.
#[derive(Debug, Serialize)]
pub(crate) struct Line<'a> {
    /// When it was answered: RFC 3339, UTC, milliseconds.
    pub(crate) time: String,
    pub(crate) level: &'a str,
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) status: u16,
    pub(crate) duration_us: u64,
}

impl<'a> Line<'a> {
    /// A line for a request that was answered now, after `took`.
    pub(crate) fn now(method: &'a str, path: &'a str, status: u16, took: Duration) -> Self {
        let level = match status {
            500.. => "error",
            400.. => "warn",
            _ => "info",
        };
        let duration_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        Self { time: format!("{:.3}", jiff::Timestamp::now()), level, method, path, status, duration_us }
    }
}

/// The log file; opened again when it was rotated, removed or restored.
#[derive(Debug)]
pub(crate) struct RequestLog {
    path: PathBuf,
    open: Mutex<Option<(File, FileId)>>,
    lost: AtomicU64,
}

impl RequestLog {
    /// A log that is appended to `path`.
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, open: Mutex::default(), lost: AtomicU64::new(0) }
    }

    /// Appends one line.
    pub(crate) fn write(&self, line: &Line<'_>) {
        let written = serde_json::to_vec(line).map_err(std::io::Error::other).and_then(|mut bytes| {
            bytes.push(b'\n');
            self.append(&bytes)
        });
        if written.is_err() {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// How many lines could not be written since the start.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    fn append(&self, bytes: &[u8]) -> std::io::Result<()> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let at_path = fs::metadata(&self.path).ok().map(|metadata| FileId::of(&metadata));
        if open.as_ref().map(|(_, id)| *id) != at_path || at_path.is_none() {
            if let Some(parent) = self.path.parent() {
                fs::create_dir_all(parent)?;
            }
            let file = OpenOptions::new().append(true).create(true).open(&self.path)?;
            let id = FileId::of(&file.metadata()?);
            *open = Some((file, id));
        }
        match open.as_mut() {
            Some((file, _)) => file.write_all(bytes),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_on_in_a_new_file_when_the_old_one_is_gone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("logs/marabet.log");
        let log = RequestLog::new(path.clone());
        let line = |path| Line::now("GET", path, 404, Duration::from_micros(12));
        log.write(&line("/first"));
        fs::rename(&path, folder.path().join("rotated")).unwrap();
        log.write(&line("/second\n\"quoted\""));
        log.write(&line("/third"));
        let text = fs::read_to_string(&path).unwrap();
        let lines: Vec<serde_json::Value> = text.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0]["path"], "/second\n\"quoted\"");
        assert_eq!((lines[1]["level"].as_str(), lines[1]["duration_us"].as_u64()), (Some("warn"), Some(12)));
        assert!(fs::read_to_string(folder.path().join("rotated")).unwrap().contains("/first"));
        assert_eq!(log.lost(), 0);
    }

    #[test]
    fn a_line_that_cannot_be_written_is_counted() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("logs"), b"a file where the folder should be").unwrap();
        let log = RequestLog::new(folder.path().join("logs/marabet.log"));
        log.write(&Line::now("GET", "/", 200, Duration::ZERO));
        assert_eq!(log.lost(), 1);
    }
}

//! What a recovering server says in its log, in English (`lc_messages` is set so): the only voice it has before it takes
//! connections.

use jiff::Timestamp;
use retoma_core::postgres::Lsn;
use retoma_core::{Error, Result};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

/// A longer line is not one of those that are looked for.
const LINE_BYTES: usize = 64 << 10;

/// The log of a server, read as it grows.
#[derive(Debug)]
pub(super) struct Log {
    path: PathBuf,
    read_bytes: u64,
    line: Vec<u8>,
    pub(super) seen: Seen,
}

/// What was seen so far.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Seen {
    /// Replay has ended; what follows is a checkpoint and the promotion.
    pub(super) is_replayed: bool,
    /// The last record that was replayed begins here.
    pub(super) last_record: Option<Lsn>,
    /// When the last transaction that was replayed ended.
    pub(super) last_transaction: Option<Timestamp>,
    /// The WAL ended before the target.
    pub(super) is_not_reached: bool,
    /// The target is before the end of the backup.
    pub(super) is_too_early: bool,
}

impl Log {
    pub(super) fn new(path: &Path) -> Self {
        Self { path: path.to_owned(), read_bytes: 0, line: Vec::new(), seen: Seen::default() }
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads what was added.
    pub(super) fn look(&mut self) -> Result<&Seen> {
        let mut added = Vec::new();
        let mut read = || {
            let mut file = std::fs::File::open(&self.path)?;
            file.seek(SeekFrom::Start(self.read_bytes))?;
            file.take(16 << 20).read_to_end(&mut added)
        };
        self.read_bytes += read().map_err(|error| Error::io(self.path.display(), error))? as u64;
        for byte in added {
            if byte == b'\n' {
                self.seen.take(&String::from_utf8_lossy(&self.line));
                self.line.clear();
            } else if self.line.len() < LINE_BYTES {
                self.line.push(byte);
            }
        }
        Ok(&self.seen)
    }
}

impl Seen {
    fn take(&mut self, line: &str) {
        let after = |mark: &str| line.split_once(mark).map(|(_, rest)| rest);
        if let Some(rest) = after("redo done at ") {
            self.is_replayed = true;
            self.last_record = rest.split_whitespace().next().and_then(|lsn| lsn.parse().ok());
        }
        self.is_replayed |= line.contains("redo is not required");
        if let Some(rest) = after("last completed transaction was at log time ") {
            self.last_transaction = time(rest);
        }
        self.is_not_reached |= line.contains("recovery ended before configured recovery target was reached");
        self.is_too_early |=
            line.contains("requested recovery stop point is before consistent recovery point");
    }
}

/// `2026-11-22 10:00:00.123456+00`, as the server prints times in UTC.
pub(super) fn time(text: &str) -> Option<Timestamp> {
    let text = text.trim();
    let text = text.strip_suffix("+00").or_else(|| text.strip_suffix(" UTC")).unwrap_or(text);
    format!("{}Z", text.replacen(' ', "T", 1)).parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_read_as_it_grows_by_whole_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let mut log = Log::new(&path);
        assert!(log.look().is_err());
        let first = "2026-11-22 10:00:00.1 GMT [7] LOG:  redo starts at 0/1\nLOG:  redo done at 0/30000";
        std::fs::write(&path, first).unwrap();
        assert_eq!(log.look().unwrap(), &Seen::default());
        let rest = "A0 system usage: CPU\nLOG:  last completed transaction was at log time 2026-11-22 10:00:00.123456+00\n";
        std::fs::write(&path, format!("{first}{rest}")).unwrap();
        let seen = log.look().unwrap();
        assert!(seen.is_replayed && !seen.is_not_reached && !seen.is_too_early);
        assert_eq!(seen.last_record, Some(Lsn(0x0300_00A0)));
        assert_eq!(seen.last_transaction, Some("2026-11-22T10:00:00.123456Z".parse().unwrap()));
        let end = "FATAL:  recovery ended before configured recovery target was reached\n\
                   FATAL:  requested recovery stop point is before consistent recovery point\n";
        std::fs::write(&path, format!("{first}{rest}{end}")).unwrap();
        let seen = log.look().unwrap();
        assert!(seen.is_not_reached && seen.is_too_early);
    }

    #[test]
    fn times_are_those_of_the_server() {
        assert_eq!(time("2026-11-22 10:00:00+00"), Some("2026-11-22T10:00:00Z".parse().unwrap()));
        assert_eq!(time(" 2026-11-22 10:00:00.5 UTC"), Some("2026-11-22T10:00:00.5Z".parse().unwrap()));
        for wrong in ["", "yesterday", "2026-11-22 10:00:00+01"] {
            assert_eq!(time(wrong), None, "{wrong}");
        }
    }
}

//! What a server must not replay where we recover it: that a tablespace was made. It would take over the folder where the
//! original's tablespace is, which may be in use, and write into it.

use retoma_core::postgres::{Lsn, SegmentName, SegmentSize};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_sources::postgres::wal_records::{Meaning, RecordReader};
use retoma_sources::postgres::{PostgresFacts, Recovery, Target};
use std::ops::Range;
use std::path::Path;

/// Looks at segments before a server gets them, in the order in which it asks.
#[derive(Debug)]
pub struct Guard {
    reader: Option<RecordReader>,
    /// What begins in this range is replayed, as far as that is known before.
    replayed: Range<Lsn>,
}

impl Guard {
    /// Of a server that is recovered so.
    ///
    /// # Errors
    /// `Corrupt` with `R0408` for facts without a start.
    pub fn new(facts: &PostgresFacts, recovery: &Recovery) -> Result<Self> {
        let start = facts.start_lsn.parse().map_err(|_| {
            Error::new(ErrorKind::Corrupt, codes::CAPTURE_FACTS_MALFORMED, "a backup has no start")
        })?;
        let end = match recovery.target {
            Target::Lsn(lsn) if !recovery.inclusive => lsn,
            _ => Lsn(u64::MAX),
        };
        Ok(Self { reader: None, replayed: start..end })
    }

    /// Looks at one. Segments that follow each other are read as one stretch; records of which the beginning was not seen are
    /// passed over.
    ///
    /// # Errors
    /// `Unsupported` with `R0508` when a tablespace is made in it.
    pub fn look(&mut self, name: SegmentName, bytes: &[u8], system_identifier: u64) -> Result<()> {
        let Ok(size) = SegmentSize::new(bytes.len() as u64) else { return Ok(()) };
        let Some(start) = name.start(size) else { return Ok(()) };
        let follows = self.reader.as_ref().is_some_and(|reader| reader.position() == start);
        if !follows {
            self.reader = None;
        }
        let reader = self.reader.get_or_insert_with(|| RecordReader::new(start, size, system_identifier));
        let mut found = None;
        reader.read(bytes, &mut |record| {
            if let Meaning::Tablespace { location, .. } = record.meaning
                && self.replayed.contains(&record.start)
            {
                found.get_or_insert((record.start, location));
            }
        });
        found.map_or(Ok(()), |(at, location)| Err(refused(at, &location)))
    }

    /// Looks at the segments that lie in a data directory.
    ///
    /// # Errors
    /// As [`Guard::look`]; what the file system says.
    pub fn look_in(mut self, folder: &Path, system_identifier: u64) -> Result<Self> {
        let failed = |error| Error::io(folder.display(), error);
        let mut names = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let name = entry.map_err(failed)?.file_name();
            names.extend(name.to_str().and_then(|name| name.parse::<SegmentName>().ok()));
        }
        names.sort_unstable();
        for name in names {
            let bytes = std::fs::read(folder.join(name.to_string())).map_err(failed)?;
            self.look(name, &bytes, system_identifier)?;
        }
        Ok(self)
    }
}

fn refused(at: Lsn, location: &str) -> Error {
    let message = format!(
        "the WAL makes a tablespace in `{}` at `{at}`, behind the backup, and to replay that would write into this folder",
        location.escape_debug()
    );
    Error::new(ErrorKind::Unsupported, codes::RECOVERY_TABLESPACE, message).with_hint(format!(
        "recover from a snapshot that was made after it, or to a point before it (`--lsn {at} --exclusive`); make a backup after each \
         `CREATE TABLESPACE`"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_wal_is_left_to_the_server() {
        let name: SegmentName = "000000010000000000000007".parse().unwrap();
        let mut guard = Guard { reader: None, replayed: Lsn::ZERO..Lsn(u64::MAX) };
        guard.look(name, b"short", 7).unwrap();
        guard.look(name, &vec![0; 1 << 20], 7).unwrap();
        let whole = retoma_testkit::wal::segment(&name.to_string(), 7, 1);
        guard.look(name, &whole, 7).unwrap();
    }
}

//! What a scratch copy holds right before the disaster: the source that restored files and rows are compared with.

use crate::check::ran;
use crate::interrupt::Interrupt;
use retoma_core::drill::CheckResult;
use retoma_core::manifest::{Component, Source};
use retoma_core::units::counted;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// So many files of a component are noted at the most.
const FILES_LIMIT: usize = 50_000;

/// One component before the disaster.
#[derive(Debug, Default)]
pub struct Inventory {
    /// Bytes of its files.
    pub bytes: u64,
    /// Its rows, where it has any.
    pub rows: Option<u64>,
    /// Its files, by their path in it.
    files: BTreeMap<PathBuf, Noted>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Noted {
    bytes: u64,
    modified: SystemTime,
    hash: [u8; 32],
}

impl Inventory {
    /// Looks at a component of a scratch copy whose service may be running.
    ///
    /// # Errors
    /// It cannot be read; `Cancelled`.
    pub fn take(component: &Component, interrupt: &Interrupt) -> Result<Self> {
        match &component.source {
            Source::Files { path, .. } => Self::of_files(path, interrupt),
            Source::Sqlite { path, .. } => Self::of_database(path),
            Source::Postgres { .. } | Source::Redis { .. } => Ok(Self::default()),
        }
    }

    fn of_files(root: &Path, interrupt: &Interrupt) -> Result<Self> {
        let mut inventory = Self::default();
        let mut waiting = vec![root.to_owned()];
        while let Some(path) = waiting.pop() {
            interrupt.check()?;
            // What vanishes while we look is not unchanged, so it need not be compared.
            let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
            if metadata.is_dir() {
                let entries = std::fs::read_dir(&path).map_err(|error| Error::io(path.display(), error))?;
                for entry in entries {
                    waiting.push(entry.map_err(|error| Error::io(path.display(), error))?.path());
                }
            } else if metadata.is_file() {
                inventory.bytes += metadata.len();
                if inventory.files.len() < FILES_LIMIT
                    && let Some(noted) = note(&path)
                {
                    let below = path.strip_prefix(root).unwrap_or(&path).to_owned();
                    inventory.files.insert(below, noted);
                }
            }
        }
        Ok(inventory)
    }

    fn of_database(path: &Path) -> Result<Self> {
        let failed = |error: rusqlite::Error| {
            let message = format!("`{}`: {error}", path.display());
            Error::new(ErrorKind::Unavailable, codes::NO_EVIDENCE, message).with_source(error)
        };
        let count = || -> rusqlite::Result<Self> {
            let flags =
                rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
            let connection = rusqlite::Connection::open_with_flags(path, flags)?;
            connection.busy_timeout(std::time::Duration::from_secs(10))?;
            let pragma =
                |name: &str| connection.query_row(&format!("PRAGMA {name}"), (), |row| row.get::<_, i64>(0));
            let bytes = (pragma("page_size")? * pragma("page_count")?).cast_unsigned();
            let mut statement = connection.prepare(
                "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' \
                 AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\'",
            )?;
            let names: Vec<String> =
                statement.query_map((), |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
            let mut rows = 0;
            for name in names {
                let query = format!("SELECT count(*) FROM main.\"{}\"", name.replace('"', "\"\""));
                rows += connection.query_row(&query, (), |row| row.get::<_, i64>(0))?.cast_unsigned();
            }
            Ok(Self { bytes, rows: Some(rows), files: BTreeMap::new() })
        };
        count().map_err(failed)
    }

    /// Whether anything that was noted is not there as it was: how a disaster shows where no service answers.
    pub fn is_damaged(&self, root: &Path) -> bool {
        let differs = |(below, noted): (&PathBuf, &Noted)| note(&at(root, below)).as_ref() != Some(noted);
        self.files.iter().any(differs) || !root.exists()
    }

    /// Compares restored files with what was noted, as far as they did not change between the backup and the disaster
    /// (size and time of change are as then). `None` when there is nothing to compare.
    pub fn compare(&self, root: &Path) -> Option<CheckResult> {
        let (mut same, mut differing) = (0u64, Vec::new());
        for (below, before) in &self.files {
            let Some(now) = note(&at(root, below)) else { continue };
            if (now.bytes, now.modified) != (before.bytes, before.modified) {
                continue;
            }
            if now.hash == before.hash {
                same += 1;
            } else {
                differing.push(below.display().to_string());
            }
        }
        let compared = same + differing.len() as u64;
        if compared == 0 {
            return None;
        }
        let found = if differing.is_empty() {
            format!("{} the same", counted(same, "file", "files"))
        } else {
            format!(
                "{}, among them `{}`",
                counted(differing.len(), "file differs", "files differ"),
                differing[0]
            )
        };
        let name = "file hashes against the source before the disaster";
        Some(ran(
            name,
            differing.is_empty(),
            &format!("{} the same", counted(compared, "file", "files")),
            &found,
        ))
    }
}

/// For a component that is a single file, the path in it is empty.
fn at(root: &Path, below: &Path) -> PathBuf {
    if below.as_os_str().is_empty() { root.to_owned() } else { root.join(below) }
}

fn note(path: &Path) -> Option<Noted> {
    let mut file = std::fs::File::open(path).ok()?;
    let metadata = file.metadata().ok()?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 256 * 1024];
    loop {
        match file.read(&mut buffer).ok()? {
            0 => break,
            count => hasher.update(&buffer[..count]),
        }
    }
    Some(Noted { bytes: metadata.len(), modified: metadata.modified().ok()?, hash: hasher.finalize().into() })
}

#[cfg(test)]
mod tests;

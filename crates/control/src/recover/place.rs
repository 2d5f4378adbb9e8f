//! Putting restored data into the place of live ones, in one step each, and back again.
//!
//! ```text
//! X.retoma-new        restored beside X, checked there; X is not touched
//! X.retoma-journal    written before anything moves: what was there, what is to come
//! X ⇄ X.retoma-new    one atomic exchange (a plain rename where X did not exist)
//! X.retoma-previous-S what was there before, until the recovery has succeeded
//! ```
//! Killed between any two steps, the next recovery finds the journal and first brings the previous data back. Which of
//! two files is the new one is told by its inode, never by its name. `docs/recover.md` has the table for people.
//!
//! A database server with tablespaces lies in several places, which no step exchanges at once. Until all are exchanged, its new
//! data directory lacks a file without which no server starts (`held`), so that nobody starts one on a mixture.

use crate::durable;
use retoma_core::{Error, ErrorKind, Result, ResultExt, error::codes};
use rustix::fs::{CWD, RenameFlags};
use serde::{Deserialize, Serialize};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const NEW: &str = ".retoma-new";
const JOURNAL: &str = ".retoma-journal";
const PREVIOUS: &str = ".retoma-previous-";
/// Behind the name of a file that is held back.
const HELD: &str = ".retoma-held";
/// Files that SQLite keeps beside a database and that belong to it.
const BESIDE: [&str; 2] = ["-wal", "-journal"];

/// `path` with `suffix` behind its name.
fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// A file or folder that is exchanged as a whole, with the components in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    /// Its place.
    pub(super) live: PathBuf,
    /// Whether it is a folder that is restored under its own new name, and may hold other components. A file lies in a folder of its own
    /// until then; so does the folder of a tablespace, which the server finds by its name.
    pub(super) is_folder: bool,
    /// The snapshot that its outermost component comes from, for the name of what was there.
    pub(super) snapshot: String,
    /// Whether it is a database, whose journals move with it.
    pub(super) is_database: bool,
    /// Files in it that come last: without them nobody can use it.
    pub(super) held: Vec<PathBuf>,
}

impl Unit {
    /// The folder in which it is restored; for a folder it is the new one itself.
    pub(super) fn staging(&self) -> PathBuf {
        beside(&self.live, NEW)
    }

    /// Where the new one is before the exchange.
    pub(super) fn staged(&self) -> PathBuf {
        let staging = self.staging();
        match self.live.file_name() {
            Some(name) if !self.is_folder => staging.join(name),
            _ => staging,
        }
    }

    fn journal(&self) -> PathBuf {
        beside(&self.live, JOURNAL)
    }

    /// Where what was there will wait: a name that nothing has yet.
    fn previous(&self) -> Result<PathBuf> {
        let name = beside(&self.live, &format!("{PREVIOUS}{}", self.snapshot));
        let numbered = (2u32..).map(|number| beside(&name, &format!("-{number}")));
        for candidate in std::iter::once(name.clone()).chain(numbered) {
            let wal = beside(&candidate, BESIDE[0]);
            if !exists(&candidate)? && !exists(&wal)? {
                return Ok(candidate);
            }
        }
        Ok(name)
    }
}

/// What a journal says.
#[derive(Debug, Serialize, Deserialize)]
struct Journal {
    schema: String,
    /// The journal that decides, when it is another one.
    leader: Option<PathBuf>,
    units: Vec<JournalUnit>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct JournalUnit {
    live: PathBuf,
    staged: PathBuf,
    staging: PathBuf,
    previous: PathBuf,
    journal: PathBuf,
    /// Device and inode of what was restored.
    new: (u64, u64),
    /// Whether there was anything before.
    existed: bool,
    /// Files in it that come last.
    #[serde(default)]
    held: Vec<PathBuf>,
}

impl JournalUnit {
    /// Takes the files away without which nobody can use what is at `root`.
    fn hold(&self, root: &Path) -> Result<()> {
        for file in &self.held {
            let (from, to) = (root.join(file), beside(&root.join(file), HELD));
            if exists(&from)? {
                rename(&from, &to, RenameFlags::empty())?;
            }
        }
        Ok(())
    }

    /// Brings them back.
    fn release(&self, root: &Path) -> Result<()> {
        for file in &self.held {
            let (from, to) = (beside(&root.join(file), HELD), root.join(file));
            if exists(&from)? {
                rename(&from, &to, RenameFlags::NOREPLACE)?;
            }
        }
        Ok(())
    }
}

const SCHEMA: &str = "retoma.recover-journal/1";

/// Units that are being exchanged. Dropping it changes nothing: the journal stays, and the next recovery goes back.
#[derive(Debug)]
pub(super) struct Exchange {
    units: Vec<JournalUnit>,
    databases: Vec<PathBuf>,
}

// Where a test stops the exchange as a kill would.
#[cfg(test)]
thread_local! {
    pub(super) static KILL_AT: std::cell::Cell<Option<u32>> = const { std::cell::Cell::new(None) };
}

/// A place between two steps; does nothing but in tests.
#[cfg_attr(not(test), expect(clippy::unnecessary_wraps, reason = "tests stop here as a kill would"))]
fn between() -> Result<()> {
    #[cfg(test)]
    {
        let left = KILL_AT.get();
        KILL_AT.set(left.map(|left| left.saturating_sub(1)));
        if left == Some(0) {
            return Err(Error::internal("killed by a test"));
        }
    }
    Ok(())
}

fn identity(path: &Path) -> Result<Option<(u64, u64)>> {
    match std::fs::symlink_metadata(path) {
        Ok(metadata) => Ok(Some((metadata.dev(), metadata.ino()))),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(Error::io(path.display(), error)),
    }
}

fn exists(path: &Path) -> Result<bool> {
    identity(path).map(|found| found.is_some())
}

impl Exchange {
    /// Writes the journal of `units`, whose new data are staged and checked.
    pub(super) fn begin(units: &[Unit]) -> Result<Self> {
        let mut entries = Vec::new();
        for unit in units {
            let new = identity(&unit.staged())?
                .ok_or_else(|| Error::internal(format!("`{}` was not restored", unit.live.display())))?;
            entries.push(JournalUnit {
                live: unit.live.clone(),
                staged: unit.staged(),
                staging: unit.staging(),
                previous: unit.previous()?,
                journal: unit.journal(),
                new,
                existed: exists(&unit.live)?,
                held: unit.held.clone(),
            });
        }
        for entry in &entries {
            entry.hold(&entry.staged)?;
        }
        if let Some(leader) = entries.first() {
            write_journal(&leader.journal, None, &entries)?;
            for follower in &entries[1..] {
                between()?;
                write_journal(&follower.journal, Some(&leader.journal), &[])?;
            }
        }
        let databases = units.iter().filter(|unit| unit.is_database).map(|unit| unit.live.clone());
        Ok(Self { units: entries, databases: databases.collect() })
    }

    /// Puts the new data into their places. `look` gets a place, and the path at which what was there lies now; its error
    /// stops before anything of a server can be used.
    pub(super) fn forward(
        &self,
        prepare: impl Fn(&Path) -> Result<()>,
        look: impl Fn(&Path, &Path) -> Result<()>,
    ) -> Result<()> {
        for unit in &self.units {
            between()?;
            let is_database = self.databases.contains(&unit.live);
            if is_database {
                keep_journals(unit)?;
                between()?;
                prepare(&unit.live)?;
            }
            between()?;
            if unit.existed {
                rename(&unit.staged, &unit.live, RenameFlags::EXCHANGE)?;
                between()?;
                rename(&unit.staged, &unit.previous, RenameFlags::NOREPLACE)?;
                look(&unit.live, &unit.previous)?;
            } else {
                rename(&unit.staged, &unit.live, RenameFlags::NOREPLACE)?;
            }
        }
        // A server that had just begun when its folder was renamed has told so by now.
        let mut replaced = self.units.iter().filter(|unit| unit.existed);
        replaced.try_for_each(|unit| look(&unit.live, &unit.previous))?;
        for unit in &self.units {
            between()?;
            unit.release(&unit.live)?;
        }
        between()
    }

    /// Brings the previous data back and removes the new ones.
    pub(super) fn back(self) -> Result<()> {
        undo(&self.units)
    }

    /// The recovery has succeeded: what was there before goes, or stays beside when it is to be kept.
    pub(super) fn confirm(self, keep: bool) -> Result<Vec<PathBuf>> {
        let mut kept = Vec::new();
        // From here on a kill must not bring the previous data back: the leader's journal goes first.
        for unit in &self.units {
            remove(&unit.journal)?;
            between()?;
        }
        for unit in &self.units {
            remove(&unit.staging)?;
            if keep && exists(&unit.previous)? {
                kept.push(unit.previous.clone());
                continue;
            }
            for suffix in BESIDE {
                remove(&beside(&unit.previous, suffix))?;
            }
            remove(&unit.previous)?;
        }
        Ok(kept)
    }
}

/// Keeps a second name for the journals of the previous database, which preparing its place may remove.
fn keep_journals(unit: &JournalUnit) -> Result<()> {
    for suffix in BESIDE {
        let (from, to) = (beside(&unit.live, suffix), beside(&unit.previous, suffix));
        match std::fs::hard_link(&from, &to) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(Error::io(to.display(), error)),
        }
    }
    Ok(())
}

/// Goes back, from wherever the steps stopped. Can itself be killed and run again.
fn undo(units: &[JournalUnit]) -> Result<()> {
    for unit in units {
        between()?;
        if identity(&unit.live)? == Some(unit.new) {
            unit.hold(&unit.live)?;
        }
    }
    for unit in units.iter().rev() {
        between()?;
        let live = identity(&unit.live)?;
        let is_new = live == Some(unit.new);
        if is_new && unit.existed {
            let old = if exists(&unit.previous)? { &unit.previous } else { &unit.staged };
            if !exists(old)? {
                return Err(unclear(unit));
            }
            // After this `old` names the new data.
            rename(old, &unit.live, RenameFlags::EXCHANGE)?;
            between()?;
        } else if is_new {
            remove(&unit.live)?;
        } else if live.is_none() && unit.existed {
            return Err(unclear(unit));
        }
        for suffix in BESIDE {
            let (kept, at) = (beside(&unit.previous, suffix), beside(&unit.live, suffix));
            if exists(&kept)? && !exists(&at)? {
                rename(&kept, &at, RenameFlags::NOREPLACE)?;
            }
            remove(&kept)?;
        }
        between()?;
        // What is under these names now is the new data, or was never in use.
        if identity(&unit.previous)? == Some(unit.new) {
            remove(&unit.previous)?;
        }
        remove(&unit.staging)?;
    }
    for unit in units.iter().rev() {
        between()?;
        remove(&unit.journal)?;
    }
    Ok(())
}

fn unclear(unit: &JournalUnit) -> Error {
    let message = format!("what was at `{}` before cannot be found beside it", unit.live.display());
    Error::new(ErrorKind::Conflict, codes::RECOVERY_UNCLEAR, message).with_hint(format!(
        "look at `{}`, put the right data in place by hand, then remove it; see `docs/recover.md`",
        unit.journal.display()
    ))
}

/// What a recovery in place that was killed left beside `live`: the next one puts it in order.
pub fn left_beside(live: &Path) -> Vec<PathBuf> {
    let there = |path: &PathBuf| path.symlink_metadata().is_ok();
    [NEW, JOURNAL].map(|suffix| beside(live, suffix)).into_iter().filter(there).collect()
}

/// Looks beside `lives` for a recovery that was killed and undoes it. Gives the places that have their previous data
/// back.
pub(super) fn settle(lives: &[PathBuf]) -> Result<Vec<PathBuf>> {
    let mut settled = Vec::new();
    for live in lives {
        let path = beside(live, JOURNAL);
        let Some(journal) = read_journal(&path)? else {
            // Without a journal nothing was exchanged; what was restored beside is of no use.
            remove(&beside(live, NEW))?;
            continue;
        };
        let leader = journal.leader.clone().unwrap_or_else(|| path.clone());
        let decides = if journal.leader.is_some() { read_journal(&leader)? } else { Some(journal) };
        let Some(Journal { units, .. }) = decides else {
            // It had succeeded, or had not begun: the leader's journal is written first and removed first.
            remove(&path)?;
            remove(&beside(live, NEW))?;
            continue;
        };
        undo(&units).with_context(|| format!("undo the recovery of `{}`", leader.display()))?;
        settled.extend(units.into_iter().map(|unit| unit.live));
    }
    Ok(settled)
}

fn read_journal(path: &Path) -> Result<Option<Journal>> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(path.display(), error)),
    };
    let journal: Option<Journal> = serde_json::from_slice(&bytes).ok();
    if let Some(journal) = journal.filter(|journal| journal.schema == SCHEMA) {
        return Ok(Some(journal));
    }
    let message = format!("`{}` is no journal that this version understands", path.display());
    Err(Error::new(ErrorKind::Conflict, codes::RECOVERY_UNCLEAR, message)
        .with_hint("see `docs/recover.md` for what lies beside it, then remove it"))
}

fn write_journal(path: &Path, leader: Option<&Path>, units: &[JournalUnit]) -> Result<()> {
    let journal =
        Journal { schema: SCHEMA.to_owned(), leader: leader.map(Path::to_owned), units: units.to_vec() };
    let json = serde_json::to_vec_pretty(&journal)
        .map_err(|error| Error::internal("a recovery's journal cannot be written").with_source(error))?;
    durable::write(path, &json, durable::SHARED)
}

/// A durable rename.
fn rename(from: &Path, to: &Path, flags: RenameFlags) -> Result<()> {
    rustix::fs::renameat_with(CWD, from, CWD, to, flags).map_err(|errno| {
        let message = format!("`{}` cannot take the place of `{}`: {errno}", from.display(), to.display());
        Error::new(ErrorKind::Conflict, codes::RECOVERY_PLACE, message).with_source(std::io::Error::from(errno)).with_hint(
            "a mount point or another file system is in the way; recover into another folder with `--to`, and move the data by hand",
        )
    })?;
    durable::sync_folder_of(to)?;
    durable::sync_folder_of(from)
}

/// Removes a file or folder; one that is not there is fine.
pub(super) fn remove(path: &Path) -> Result<()> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Ok(()) => durable::sync_folder_of(path),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(path.display(), error)),
    }
}

#[cfg(test)]
mod tests;

//! The histories that lead to the WAL that is archived.
//!
//! PostgreSQL hands each history to `archive_command` once, when its timeline begins, and a standby that got one from its primary
//! never does (unless `archive_mode = always`). A repository that was added later, or whose commands went elsewhere at that
//! moment, would get WAL of a timeline that no recovery finds the way to. So whoever pushes WAL stores the histories beside it in
//! `pg_wal` first.

use retoma_core::postgres::{TimelineHistory, TimelineId, WalFileName};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::wal::{Archive, Pushed};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

/// A line of a history is some dozen bytes; nobody has a million timelines.
const LIMIT_BYTES: u64 = 16 << 20;

/// Makes sure that every archive has the history of `timeline`, and those before it, as far as they lie in `folder`. Before an
/// archive gets that of `timeline`, it has the earlier ones, so that later calls need only ask for this one.
///
/// A history that is damaged where it is stored is left to `wal check`: WAL that waited for its repair would fill the server's disk.
///
/// # Errors
/// `Conflict` with `R0422` when one is stored with other contents: then this is not the timeline whose WAL is there. `Corrupt`
/// with `R0421` for a file that is no history; what the file system and the stores say.
pub(super) fn store(archives: &[Archive], folder: &Path, timeline: TimelineId) -> Result<()> {
    if timeline == TimelineId::FIRST {
        return Ok(());
    }
    let Some((own, history)) = read(folder, timeline)? else { return Ok(()) };
    for archive in archives {
        if !is_there(archive, timeline, &own)? {
            store_earlier(archive, folder, &history)?;
            push(archive, timeline, &own)?;
        }
    }
    Ok(())
}

/// As [`store`], for whoever stores the history of `timeline` itself.
///
/// # Errors
/// As [`store`].
pub(super) fn store_before(archives: &[Archive], folder: &Path, timeline: TimelineId) -> Result<()> {
    let Some((_, history)) = read(folder, timeline)? else { return Ok(()) };
    archives.iter().try_for_each(|archive| store_earlier(archive, folder, &history))
}

fn store_earlier(archive: &Archive, folder: &Path, history: &TimelineHistory) -> Result<()> {
    let earlier = history.entries().iter().map(|entry| entry.timeline);
    for earlier in earlier.filter(|earlier| *earlier > TimelineId::FIRST) {
        if let Some((bytes, _)) = read(folder, earlier)?
            && !is_there(archive, earlier, &bytes)?
        {
            push(archive, earlier, &bytes)?;
        }
    }
    Ok(())
}

/// Whether it is stored already. One that is stored with other contents is not: then storing it says what is wrong.
fn is_there(archive: &Archive, timeline: TimelineId, bytes: &[u8]) -> Result<bool> {
    match archive.fetch(WalFileName::History(timeline)) {
        Ok(stored) => Ok(stored.is_some_and(|stored| stored == bytes)),
        Err(error) if error.kind() == ErrorKind::Corrupt => Ok(true),
        Err(error) => Err(error),
    }
}

fn push(archive: &Archive, timeline: TimelineId, bytes: &[u8]) -> Result<()> {
    if archive.push(WalFileName::History(timeline), bytes)? == Pushed::New {
        archive.confirm_repository()?;
    }
    Ok(())
}

/// A history in `folder`; `None` when it is not there.
fn read(folder: &Path, timeline: TimelineId) -> Result<Option<(Vec<u8>, TimelineHistory)>> {
    let path = folder.join(timeline.history_file_name());
    let mut bytes = Vec::new();
    match File::open(&path).and_then(|file| file.take(LIMIT_BYTES).read_to_end(&mut bytes)) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Error::io(path.display(), error)),
    }
    let malformed = |why: &dyn std::fmt::Display| {
        let message = format!("`{}` is no history: {why}", path.display());
        Error::new(ErrorKind::Corrupt, codes::WAL_MALFORMED, message)
            .with_hint("get this file from another server of the cluster, or from another archive")
    };
    let text = std::str::from_utf8(&bytes).map_err(|error| malformed(&error))?;
    let history = TimelineHistory::parse(timeline, text).map_err(|error| malformed(&error))?;
    Ok(Some((bytes, history)))
}

#[cfg(test)]
mod tests;

//! A Redis data set in its place: the file that a server loads, also where the server keeps a log of its own.
//!
//! A server with `appendonly yes` reads its log and not `dump.rdb`. So the log is made anew, with the restored data set as its
//! beginning: since 7.0 a folder whose base file is such a data set, before that one file that begins with it. The server is
//! started as it is configured, and nothing of its configuration is changed.

use super::{Place, as_bytes};
use crate::backup;
use crate::durable;
use retoma_core::manifest::{Component, Source};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::host;
use retoma_sources::redis::{DUMP_NAME, RedisFacts};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

/// Where a server keeps its log of writes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Log {
    /// A folder, since 7.0, and how its files' names begin.
    Folder(PathBuf, String),
    /// One file, before that.
    File(PathBuf),
}

impl Log {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Folder(path, _) | Self::File(path) => path,
        }
    }

    pub(super) fn is_folder(&self) -> bool {
        matches!(self, Self::Folder(..))
    }
}

/// Where the data set goes, and where the log is that a server would read instead; `None` where it has none.
///
/// # Errors
/// `R0502` in place, when the backup does not know where the server keeps its data; `R0408` for facts that are no names.
pub(super) fn plan(
    place: &Place,
    component: &Component,
    facts: &RedisFacts,
) -> Result<(PathBuf, Option<Log>)> {
    let setting = |name: &str| facts.server.settings.as_ref().and_then(|it| it.get(name)).map(String::as_str);
    let named = |name: &str, default: &str| {
        let value = setting(name).filter(|value| !value.is_empty()).unwrap_or(default).to_owned();
        let is_name = !value.contains(['/', '\0', '\n', '"']) && value != "." && value != "..";
        is_name.then_some(value).ok_or_else(|| {
            let message =
                format!("the snapshot of `{}` has a `{name}` that is no file's name", component.name);
            Error::new(ErrorKind::Corrupt, codes::CAPTURE_FACTS_MALFORMED, message)
        })
    };
    let folder = match (setting("dir").map(Path::new).filter(|dir| dir.is_absolute()), place) {
        (Some(dir), _) => super::placed(place, dir)?,
        (None, Place::Under(_)) => super::placed(place, &Path::new("/").join(&component.name))?,
        (None, Place::InPlace) => {
            let message =
                format!("the backup of `{}` does not know where its server keeps its data", component.name);
            return Err(Error::new(ErrorKind::Unsupported, codes::RESTORE_TARGET, message).with_hint(
                "the user of the backup needs `+config|get`; recover into another folder with `--to`, and move the data",
            ));
        }
    };
    let dump = folder.join(named("dbfilename", DUMP_NAME)?);
    let file = named("appendfilename", "appendonly.aof")?;
    let major = facts.server.version.split('.').next().and_then(|it| it.parse::<u32>().ok()).unwrap_or(7);
    let log = if major >= 7 {
        Log::Folder(folder.join(named("appenddirname", "appendonlydir")?), file)
    } else {
        Log::File(folder.join(file))
    };
    // One that was turned on after the backup would bring the state before the recovery back.
    let lies_there = *place == Place::InPlace && log.path().symlink_metadata().is_ok();
    let is_read = setting("appendonly") == Some("yes") || lies_there;
    Ok((dump, is_read.then_some(log)))
}

/// Refuses the data of a server that answers: it would write what it has in memory over them.
///
/// # Errors
/// `R0502`; a secret of its address that cannot be read.
pub(super) fn check_not_live(component: &Component) -> Result<()> {
    let Source::Redis { url } = &component.source else { return Ok(()) };
    match backup::redis_connection(url)? {
        Err(error) if error.code() == codes::REDIS_UNAVAILABLE => Ok(()),
        // Whatever it says: somebody is there.
        _ => {
            let message = format!("the Redis server of `{}` is running", component.name);
            Err(Error::new(ErrorKind::Conflict, codes::RESTORE_TARGET, message).with_hint(
                "stop it first (`redis-cli shutdown nosave`), or recover into another folder with `--to`",
            ))
        }
    }
}

/// Gives the restored and checked data set at `restored` its name `dump`, and makes the log at `log_place` of it.
/// `like` is the folder whose owner they get.
///
/// # Errors
/// What the system says.
pub(super) fn dress(restored: &Path, dump: &Path, log: Option<(&Log, &Path)>, like: &Path) -> Result<()> {
    let failed = |path: &Path| {
        let shown = path.display().to_string();
        move |error| Error::io(shown, error)
    };
    if restored != dump {
        std::fs::rename(restored, dump).map_err(failed(dump))?;
        durable::sync_folder_of(dump)?;
    }
    let mut made = vec![dump.to_owned()];
    match log {
        None => {}
        Some((Log::File(_), place)) => {
            made.push(copy_of(dump, place)?);
        }
        Some((Log::Folder(_, name), place)) => {
            // One that a recovery left before it was killed.
            super::place::remove(place)?;
            std::fs::create_dir_all(place).map_err(failed(place))?;
            let base = format!("{name}.1.base.rdb");
            let manifest = place.join(format!("{name}.manifest"));
            made.push(copy_of(dump, &place.join(&base))?);
            // The server begins the file of later writes by itself.
            durable::write(
                &manifest,
                format!("file \"{base}\" seq 1 type b\n").as_bytes(),
                durable::PRIVATE,
            )?;
            durable::sync_folder_of(place)?;
            made.extend([manifest, place.to_owned()]);
        }
    }
    let Ok(owner) = std::fs::metadata(like) else { return Ok(()) };
    if host::ids().0 == 0 {
        for path in &made {
            std::os::unix::fs::chown(path, Some(owner.uid()), Some(owner.gid())).map_err(failed(path))?;
        }
    }
    Ok(())
}

/// The same bytes under a second name: the server replaces both files, and never writes into either.
fn copy_of(dump: &Path, place: &Path) -> Result<PathBuf> {
    if let Some(parent) = place.parent() {
        std::fs::create_dir_all(parent).map_err(|error| Error::io(parent.display(), error))?;
    }
    super::place::remove(place)?;
    if std::fs::hard_link(dump, place).is_err() {
        let copy = || std::fs::copy(dump, place).and_then(|_| std::fs::File::open(place)?.sync_all());
        copy().map_err(|error| Error::io(place.display(), error))?;
    }
    durable::sync_folder_of(place)?;
    Ok(place.to_owned())
}

/// The data set's path in the snapshot.
pub(super) fn dump_in(folder: &Path) -> Vec<u8> {
    as_bytes(&folder.join(DUMP_NAME)).to_vec()
}

#[cfg(test)]
mod tests;

//! The place where a database is restored to: nobody may have it open, and no old journal may be replayed into the new
//! file.
//!
//! A `-wal` or `-journal` does not know which database file it belongs to. Left beside a restored one, SQLite would apply
//! it and spoil what was restored. So both go *before* the database file is replaced: after a crash between the two steps,
//! the old file lacks its latest commits, which is repaired by restoring again; a new file with an old WAL would be
//! silently wrong. Where the old database is sound, SQLite itself moves its WAL into it first, so that nothing is lost if
//! the restore does not happen.

use super::database::{Access, Options, beside, connect, is_open_here};
use crate::files::node::unreadable;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Flock, FlockType, fcntl_getlk};
use std::fmt;
use std::path::{Path, PathBuf};

/// The bytes of a database file that SQLite locks: pending, reserved and shared (`os.h`, `PENDING_BYTE`).
const DATABASE_LOCKS: (u64, u64) = (0x4000_0000, 512);
/// The bytes of a `-shm` file that SQLite locks (`wal.c`, `WALINDEX_LOCK_OFFSET`; the last one is held while it is open).
const SHM_LOCKS: (u64, u64) = (120, 9);

/// Files that SQLite keeps beside a database.
const BESIDE: [&str; 3] = ["-wal", "-shm", "-journal"];

/// Somebody who has a database open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Holder {
    /// The process, where the system tells: not across containers or hosts.
    pub pid: Option<i32>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.pid {
            Some(pid) => write!(f, "process {pid}"),
            None => f.write_str("a process elsewhere"),
        }
    }
}

/// Who else has the database at `path` open, as far as locks tell; nothing is changed, and no file need be there.
///
/// Seen is another process with a connection in WAL mode that has read or written once, and one within a transaction in
/// any mode, and a capture or check of this process. Not seen is an idle connection in rollback-journal mode, which holds
/// no lock, and another connection of this process.
///
/// It must not be called while this process has the database open by other means than this module: closing a file drops
/// all POSIX locks that the process has on it.
///
/// # Errors
/// The files are there and can't be looked at.
pub fn is_live(path: &Path) -> Result<Option<Holder>> {
    if is_open_here(path) {
        return Ok(Some(Holder { pid: i32::try_from(std::process::id()).ok() }));
    }
    for path in names(path) {
        for (path, locks) in [(beside(&path, "-shm"), SHM_LOCKS), (path, DATABASE_LOCKS)] {
            if let Some(holder) = holder(&path, locks)? {
                return Ok(Some(holder));
            }
        }
    }
    Ok(None)
}

fn holder(path: &Path, (start, length): (u64, u64)) -> Result<Option<Holder>> {
    let file =
        match rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT | Errno::NOTDIR) => return Ok(None),
            Err(error) => return Err(unreadable(path, error)),
        };
    let asked = Flock { start, length, ..Flock::from(FlockType::WriteLock) };
    let lock = fcntl_getlk(&file, &asked).map_err(|error| unreadable(path, error))?;
    // Another PID namespace gives 0, another host's process a negative number.
    let pid = |lock: &Flock| lock.pid.map(rustix::process::Pid::as_raw_pid).filter(|pid| *pid > 0);
    Ok(lock.filter(|lock| lock.typ != FlockType::Unlocked).map(|lock| Holder { pid: pid(&lock) }))
}

/// The path, and the file it leads to by links: SQLite keeps its other files beside that one.
fn names(path: &Path) -> Vec<PathBuf> {
    let mut names = vec![path.to_owned()];
    names.extend(std::fs::canonicalize(path).ok().filter(|real| real != path));
    names
}

/// Makes the place ready: refuses while somebody has the database open, then removes `-wal`, `-shm` and `-journal` durably.
/// Call it directly before the database file is replaced. A folder or file that is not there is fine.
///
/// # Errors
/// `Conflict` with `R0502` while the database is open or locked elsewhere; what the file system says.
pub fn prepare_target(path: &Path, options: Options) -> Result<()> {
    if let Some(holder) = is_live(path)? {
        return Err(in_use(path, &holder.to_string()));
    }
    settle(path, options)?;
    remove_beside(path)
}

/// Removes `-wal`, `-shm` and `-journal` that came up since [`prepare_target`], durably. Call it after the database file is
/// in its place and before anybody opens it.
///
/// # Errors
/// `Conflict` with `R0502` when somebody opened the database already; what the file system says.
pub fn after_restore(path: &Path) -> Result<()> {
    match is_live(path)? {
        Some(holder) => Err(in_use(path, &holder.to_string())),
        None => remove_beside(path),
    }
}

/// Lets SQLite finish what the old database has begun. A damaged one is replaced anyway, so its errors don't count.
fn settle(path: &Path, options: Options) -> Result<()> {
    if !path.exists() {
        return Ok(());
    }
    let settled = connect(path, Access::Recover, options).and_then(|connection| {
        // In this locking mode SQLite asks for the whole file, which idle connections in WAL mode refuse; closing then
        // moves the WAL into the database and removes it.
        connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT;")?;
        connection.close().map_err(|(_, error)| error)
    });
    match settled.map_err(|error| error.sqlite_error_code()) {
        Err(Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked)) => {
            Err(in_use(path, "another connection"))
        }
        _ => Ok(()),
    }
}

fn in_use(path: &Path, holder: &str) -> Error {
    let message = format!("{holder} has the database `{}` open", path.display());
    Error::new(ErrorKind::Conflict, codes::RESTORE_TARGET, message)
        .with_hint("stop the service that uses it, or restore to another place")
}

fn remove_beside(path: &Path) -> Result<()> {
    for path in names(path) {
        let mut removed = false;
        for suffix in BESIDE {
            let old = beside(&path, suffix);
            match std::fs::remove_file(&old) {
                Ok(()) => removed = true,
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(Error::io(old.display(), error)),
            }
        }
        if let Some(folder) = path.parent().filter(|_| removed) {
            sync(folder).map_err(|error| Error::io(folder.display(), error.into()))?;
        }
    }
    Ok(())
}

/// Makes removals durable.
fn sync(folder: &Path) -> rustix::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::fsync(rustix::fs::openat(CWD, folder, flags, Mode::empty())?)
}

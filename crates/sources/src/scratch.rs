//! A private folder in the temporary folder: sockets and logs of servers of ours, dumps on their way into a repository.
//!
//! Its owner holds a lock on it as long as it lives (`flock` on the folder itself): who makes one first removes those of its
//! kind that nobody holds, which SIGKILL left. The temporary folder, since the length of a socket's path is limited.

use retoma_core::{Error, Result};
use rustix::fs::{FlockOperation, Mode, OFlags};
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use tempfile::TempDir;

/// How often a folder is made anew that another run took for one that was left.
const ATTEMPTS: u32 = 10;

/// The folder; goes when it is dropped.
#[derive(Debug)]
pub struct ScratchFolder {
    folder: TempDir,
    /// Behind the folder, so that it is held until that is gone.
    _lock: File,
}

impl ScratchFolder {
    /// A new one in the temporary folder, for ourselves alone, whose name begins with `prefix`. Removes those with this beginning
    /// whose owner is dead.
    ///
    /// # Errors
    /// What the system says.
    pub fn new(prefix: &str) -> Result<Self> {
        Self::new_in(&tempfile::env::temp_dir(), prefix)
    }

    fn new_in(base: &Path, prefix: &str) -> Result<Self> {
        clean_up(base, prefix);
        for _ in 0..ATTEMPTS {
            let made = tempfile::Builder::new().prefix(prefix).tempdir_in(base);
            let folder = made.map_err(|error| Error::io("a temporary folder", error))?;
            if let Some(lock) = lock(folder.path()) {
                return Ok(Self { folder, _lock: lock });
            }
        }
        let error = std::io::Error::from(std::io::ErrorKind::WouldBlock);
        Err(Error::io("a temporary folder", error).context("lock it"))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// A lock on this very folder, as long as the file is open; `None` while another process holds it, or when it is gone.
fn lock(path: &Path) -> Option<File> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = File::from(rustix::fs::open(path, flags, Mode::empty()).ok()?);
    rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive).ok()?;
    // Somebody may have removed it before we had the lock.
    let (held, named) = (file.metadata().ok()?, path.symlink_metadata().ok()?);
    ((held.dev(), held.ino()) == (named.dev(), named.ino())).then_some(file)
}

/// Removes the folders that nobody holds. What cannot be opened or removed is somebody else's, or the next one's.
fn clean_up(base: &Path, prefix: &str) {
    for entry in std::fs::read_dir(base).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(prefix));
        if is_ours && let Some(_lock) = lock(&entry.path()) {
            std::fs::remove_dir_all(entry.path()).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_dead_owner_left_goes_and_what_is_held_or_another_s_stays() {
        let base = tempfile::tempdir().unwrap();
        let held = ScratchFolder::new_in(base.path(), "retoma-pg-").unwrap();
        std::fs::write(held.path().join("log"), "x").unwrap();
        let left = base.path().join("retoma-pg-left");
        std::fs::create_dir(&left).unwrap();
        std::fs::write(left.join("log"), "x").unwrap();
        let others = ["retoma-pg-file", "another"].map(|name| base.path().join(name));
        std::fs::write(&others[0], "x").unwrap();
        std::fs::create_dir(&others[1]).unwrap();
        let link = base.path().join("retoma-pg-link");
        std::os::unix::fs::symlink(&others[1], &link).unwrap();
        let second = ScratchFolder::new_in(base.path(), "retoma-pg-").unwrap();
        assert!(!left.exists());
        assert!(held.path().join("log").exists() && second.path() != held.path());
        assert!(others.iter().all(|path| path.exists()) && link.exists());
        let path = held.path().to_owned();
        drop(held);
        assert!(!path.exists());
    }

    #[test]
    fn many_at_once_do_not_take_each_other_s_for_left() {
        let base = tempfile::tempdir().unwrap();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20 {
                        let own = ScratchFolder::new_in(base.path(), "retoma-pg-").unwrap();
                        std::fs::write(own.path().join("log"), "x").unwrap();
                        assert!(own.path().join("log").exists());
                    }
                });
            }
        });
        assert_eq!(std::fs::read_dir(base.path()).unwrap().count(), 0);
    }
}

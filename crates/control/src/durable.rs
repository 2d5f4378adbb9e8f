//! Files that are written as a whole or not at all, and last once they are.

use retoma_core::{Error, Result};
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// For everybody to read, as far as the umask allows.
pub const SHARED: u32 = 0o644;
/// For the owner alone.
pub const PRIVATE: u32 = 0o600;

/// Writes a file with this mode under a temporary name beside it, syncs it, renames it and syncs the folder.
///
/// # Errors
/// What the file system says; then the file is as it was.
pub fn write(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    write_and(path, bytes, mode, File::sync_all)?;
    sync_folder_of(path)
}

/// As [`write`], whole or not at all for everybody who looks, but not after a crash of the machine.
///
/// # Errors
/// As [`write`].
pub(crate) fn write_unsynced(path: &Path, bytes: &[u8], mode: u32) -> Result<()> {
    write_and(path, bytes, mode, |_| Ok(()))
}

/// Has `fill` write the contents of a file, which then takes its name in one step, not synced. Where it gives `None`, there is no file.
///
/// # Errors
/// As [`write`]; what `fill` says. Then the file is as it was.
pub(crate) fn fill_unsynced<T>(
    path: &Path,
    mode: u32,
    fill: impl FnOnce(&File) -> Result<Option<T>>,
) -> Result<Option<T>> {
    let failed = |error| Error::io(path.display(), error);
    let unnamed = Unnamed::create(path, mode).map_err(failed)?;
    let filled = fill(&unnamed.file)?;
    if filled.is_some() {
        unnamed.name(path).map_err(failed)?;
    }
    Ok(filled)
}

fn write_and(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    sync: impl Fn(&File) -> std::io::Result<()>,
) -> Result<()> {
    let write = || {
        let unnamed = Unnamed::create(path, mode)?;
        (&unnamed.file).write_all(bytes)?;
        sync(&unnamed.file)?;
        unnamed.name(path)
    };
    write().map_err(|error| Error::io(path.display(), error))
}

/// A new file that nobody looks at before it gets its name; without one it goes when this is dropped.
#[derive(Debug)]
pub(crate) struct Unnamed {
    pub(crate) file: File,
    path: PathBuf,
}

impl Unnamed {
    /// Beside `path`.
    pub(crate) fn create(path: &Path, mode: u32) -> std::io::Result<Self> {
        let path = temporary(path);
        // A killed run may have left it. Made anew, so that no link is followed.
        std::fs::remove_file(&path).ok();
        let file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&path)?;
        Ok(Self { file, path })
    }

    /// Gives it its name, in place of whatever has it.
    pub(crate) fn name(mut self, path: &Path) -> std::io::Result<()> {
        std::fs::rename(&self.path, path)?;
        // What has the old name from now on is somebody else's.
        self.path = PathBuf::new();
        Ok(())
    }
}

impl Drop for Unnamed {
    fn drop(&mut self) {
        if !self.path.as_os_str().is_empty() {
            std::fs::remove_file(&self.path).ok();
        }
    }
}

/// The name under which [`write`] begins: one that nobody else gives a file.
pub(crate) fn temporary(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(".retoma-tmp");
    path.with_file_name(name)
}

/// Makes the names in the folder that holds `path` durable.
pub(crate) fn sync_folder_of(path: &Path) -> Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let sync = || File::open(folder)?.sync_all();
    sync().map_err(|error| Error::io(folder.display(), error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    fn names(folder: &Path) -> Vec<OsString> {
        let mut names: Vec<_> =
            std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    }

    #[test]
    fn the_file_is_replaced_and_files_beside_it_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        for beside in ["a.tmp", "a~", "linked"] {
            std::fs::write(folder.path().join(beside), "somebody's").unwrap();
        }
        // What a killed run left is no trap.
        std::os::unix::fs::symlink(folder.path().join("linked"), temporary(&path)).unwrap();
        for text in ["first", "second"] {
            write(&path, text.as_bytes(), PRIVATE).unwrap();
            assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
        }
        assert_eq!(path.metadata().unwrap().permissions().mode() & 0o777, PRIVATE);
        assert_eq!(names(folder.path()), ["a", "a.tmp", "a~", "linked"]);
        for beside in ["a.tmp", "a~", "linked"] {
            assert_eq!(
                std::fs::read_to_string(folder.path().join(beside)).unwrap(),
                "somebody's",
                "{beside}"
            );
        }
    }

    #[test]
    fn what_is_filled_takes_its_name_and_what_is_not_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        std::fs::write(&path, "before").unwrap();
        let write = |mut file: &File| {
            file.write_all(b"a part").unwrap();
            // Somebody who looks meanwhile.
            assert_eq!(std::fs::read_to_string(&path).unwrap(), "before");
        };
        let none: Option<()> = fill_unsynced(&path, PRIVATE, |file| {
            write(file);
            Ok(None)
        })
        .unwrap();
        assert_eq!(none, None);
        let failed: Result<Option<()>> = fill_unsynced(&path, PRIVATE, |file| {
            write(file);
            Err(Error::internal("away"))
        });
        assert!(failed.is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "before");
        assert_eq!(names(folder.path()), ["a"]);
        fill_unsynced(&path, PRIVATE, |file| {
            write(file);
            Ok(Some(()))
        })
        .unwrap()
        .unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a part");
        assert_eq!(names(folder.path()), ["a"]);
    }

    #[test]
    fn what_cannot_take_the_name_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        assert!(write(&folder.path().join("a"), b"text", SHARED).is_err());
        assert_eq!(names(folder.path()), ["a"]);
    }
}

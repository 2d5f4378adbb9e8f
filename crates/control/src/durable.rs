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
    let temporary = temporary(path);
    let failed = |error| Error::io(path.display(), error);
    let write = || {
        std::fs::remove_file(&temporary).ok();
        let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary);
        let filled = fill(&opened.map_err(failed)?)?;
        if filled.is_some() {
            std::fs::rename(&temporary, path).map_err(failed)?;
        }
        Ok(filled)
    };
    let written = write();
    if !matches!(written, Ok(Some(_))) {
        std::fs::remove_file(&temporary).ok();
    }
    written
}

fn write_and(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    sync: impl Fn(&File) -> std::io::Result<()>,
) -> Result<()> {
    let temporary = temporary(path);
    let write = || {
        // A killed run may have left it. Made anew, so that no link is followed.
        std::fs::remove_file(&temporary).ok();
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
        file.write_all(bytes)?;
        sync(&file)?;
        std::fs::rename(&temporary, path)
    };
    write().map_err(|error| {
        std::fs::remove_file(&temporary).ok();
        Error::io(path.display(), error)
    })
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
    fn what_cannot_take_the_name_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("a")).unwrap();
        assert!(write(&folder.path().join("a"), b"text", SHARED).is_err());
        assert_eq!(names(folder.path()), ["a"]);
    }
}

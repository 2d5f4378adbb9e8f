//! A copy of a folder that costs next to nothing: hard links, where the file system has them.

use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::Folder;
use std::io;
use std::path::{Path, PathBuf};

/// The folder of the archives of WAL.
pub(super) const WAL: &str = "wal";

/// Copies a repository's folder, in the reverse of the order in which a backup writes: whatever a copied snapshot needs
/// is in the copy, also while a backup runs. Locks stay behind. When a file vanishes meanwhile, since a prune or forget
/// replaced it, everything is copied once more.
///
/// # Errors
/// `Conflict` with `R0218` when a file vanishes the second time too, naming it; something can't be read or written.
pub fn copy_repository(from: &Path, to: &Path) -> Result<()> {
    copy_objects(from, to, &mut copy_file)
}

/// Copies one file; an error of the kind `NotFound` says that it is no longer there.
type CopyFile<'a> = &'a mut dyn FnMut(&Path, &Path) -> io::Result<()>;

fn copy_objects(from: &Path, to: &Path, copy: CopyFile<'_>) -> Result<()> {
    let Some(_) = try_copy(from, to, copy)? else { return Ok(()) };
    std::fs::remove_dir_all(to).map_err(io_at(to))?;
    let Some(vanished) = try_copy(from, to, copy)? else { return Ok(()) };
    let message = format!("`{}` vanished while the repository was copied, twice", vanished.display());
    Err(Error::new(ErrorKind::Conflict, codes::CHANGED_MEANWHILE, message).with_hint(
        "wait until `retoma prune` or `retoma forget` on this repository has ended, and run it again",
    ))
}

/// The file that vanished, if one did.
fn try_copy(from: &Path, to: &Path, copy: CopyFile<'_>) -> Result<Option<PathBuf>> {
    std::fs::create_dir(to).map_err(io_at(to))?;
    let folders =
        [Folder::Snapshots, Folder::Index, Folder::Recipients, Folder::Keys, Folder::Data].map(Folder::name);
    for folder in folders.into_iter().chain([WAL]) {
        let (from, to) = (from.join(folder), to.join(folder));
        match from.try_exists() {
            Ok(true) => {
                if let Some(vanished) = copy_below(&from, &to, copy)? {
                    return Ok(Some(vanished));
                }
            }
            Ok(false) => {}
            Err(error) => return Err(io_at(&from)(error)),
        }
    }
    let (config, copy) = (from.join("config"), to.join("config"));
    std::fs::copy(&config, &copy).map_err(io_at(&config))?;
    Ok(None)
}

fn copy_below(from: &Path, to: &Path, copy: CopyFile<'_>) -> Result<Option<PathBuf>> {
    std::fs::create_dir(to).map_err(io_at(to))?;
    for entry in std::fs::read_dir(from).map_err(io_at(from))? {
        let entry = entry.map_err(io_at(from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = match entry.file_type() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(source)),
            kind => kind.map_err(io_at(&source))?,
        };
        if kind.is_dir() {
            if let Some(vanished) = copy_below(&source, &target, copy)? {
                return Ok(Some(vanished));
            }
        } else if kind.is_file() {
            match copy(&source, &target) {
                Ok(()) => {}
                // A writer gave its temporary file its name: no snapshot that was copied before needs it.
                Err(error) if error.kind() == io::ErrorKind::NotFound && is_temporary(&entry) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Some(source)),
                Err(error) => return Err(io_at(&source)(error)),
            }
        }
    }
    Ok(None)
}

/// No object's name begins so.
fn is_temporary(entry: &std::fs::DirEntry) -> bool {
    entry.file_name().as_encoded_bytes().first() == Some(&b'#')
}

/// The same file under another name where that is possible: whoever changes a copy writes a new file.
fn copy_file(source: &Path, target: &Path) -> io::Result<()> {
    std::fs::hard_link(source, target).or_else(|_| std::fs::copy(source, target).map(drop))
}

fn io_at(path: &Path) -> impl Fn(io::Error) -> Error {
    move |error| Error::io(path.display(), error)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt as _;

    fn names(folder: &Path) -> Vec<String> {
        let names =
            std::fs::read_dir(folder).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }

    #[test]
    fn a_repository_is_copied_without_its_locks_and_by_links() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        for part in [
            "config",
            "keys/k",
            "index/i",
            "snapshots/s",
            "locks/l",
            "data/ab/abc",
            "evidence/w/1",
            "recipients/r",
        ] {
            let path = from.join(part);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, part).unwrap();
        }
        copy_repository(&from, &to).unwrap();
        assert_eq!(names(&to), ["config", "data", "index", "keys", "recipients", "snapshots"]);
        for part in ["config", "keys/k", "index/i", "snapshots/s", "data/ab/abc", "recipients/r"] {
            assert_eq!(std::fs::read_to_string(to.join(part)).unwrap(), part);
        }
        let inode = |path: &Path| path.metadata().unwrap().ino();
        assert_eq!(inode(&from.join("data/ab/abc")), inode(&to.join("data/ab/abc")));
        // Written in place, as some tools do; a copy must not change with it.
        assert_ne!(inode(&from.join("config")), inode(&to.join("config")));
        copy_repository(&from, &to).unwrap_err();
    }

    #[test]
    fn a_repository_without_snapshots_is_copied_and_a_folder_that_is_none_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let from = folder.path().join("from");
        std::fs::create_dir_all(from.join("keys")).unwrap();
        copy_repository(&from, &folder.path().join("no-config")).unwrap_err();
        std::fs::write(from.join("config"), "c").unwrap();
        copy_repository(&from, &folder.path().join("to")).unwrap();
        assert_eq!(names(&folder.path().join("to")), ["config", "keys"]);
        assert!(copy_repository(&folder.path().join("absent"), &folder.path().join("x")).is_err());
    }

    #[test]
    fn links_and_foreign_files_do_not_disturb_and_empty_folders_are_copied() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        std::fs::create_dir_all(from.join("data/empty")).unwrap();
        std::fs::write(from.join("config"), "c").unwrap();
        // What it leads to is not in the folder.
        std::os::unix::fs::symlink(folder.path(), from.join("data/link")).unwrap();
        copy_repository(&from, &to).unwrap();
        assert_eq!(names(&to.join("data")), ["empty"]);
    }

    /// A repository of one index file; it vanishes `times` times right before it is copied, as a prune replaces it.
    fn vanishing(times: usize, name: &str) -> (Result<()>, Vec<String>, usize) {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        for part in ["config", "snapshots/s", "index/i0"] {
            let path = from.join(part);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, part).unwrap();
        }
        let index = from.join("index");
        let first = index.join(name);
        std::fs::rename(index.join("i0"), &first).unwrap();
        let (mut left, mut attempts) = (times, 0);
        let mut current = first;
        let result = copy_objects(&from, &to, &mut |source, target| {
            attempts += usize::from(source.ends_with("snapshots/s"));
            if source == current && left > 0 {
                current = index.join(format!("i{left}"));
                std::fs::rename(source, &current).unwrap();
                left -= 1;
            }
            copy_file(source, target)
        });
        let copied = if to.join("index").is_dir() { names(&to.join("index")) } else { Vec::new() };
        (result, copied, attempts)
    }

    #[test]
    fn a_file_that_vanishes_is_copied_under_its_new_name_once_and_named_the_second_time() {
        assert_eq!(vanishing(0, "i").1, ["i"]);
        let (result, copied, _) = vanishing(1, "i");
        result.unwrap();
        assert_eq!(copied, ["i1"]);
        let error = vanishing(2, "i").0.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Conflict, codes::CHANGED_MEANWHILE));
        assert!(error.message().contains("/from/index/i2"), "{error}");
    }

    #[test]
    fn a_writers_temporary_file_may_go() {
        let (result, _, attempts) = vanishing(1, "#0123456789abcdef");
        result.unwrap();
        assert_eq!(attempts, 1, "nothing is missing");
    }
}

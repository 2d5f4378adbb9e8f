//! A copy of a folder that costs next to nothing: hard links, where the file system has them.

use retoma_core::{Error, Result};
use std::path::Path;

/// The folder of the archives of WAL.
const WAL: &str = "wal";

/// Copies a repository's folder, in the reverse of the order in which a backup writes: whatever a copied snapshot needs
/// is in the copy, also while a backup runs. Locks stay behind.
///
/// # Errors
/// Something can't be read or written.
pub fn copy_repository(from: &Path, to: &Path) -> Result<()> {
    use retoma_repo::Folder;
    std::fs::create_dir(to).map_err(|error| Error::io(to.display(), error))?;
    let folders = [Folder::Snapshots, Folder::Index, Folder::Keys, Folder::Data].map(Folder::name);
    for folder in folders.into_iter().chain([WAL]) {
        let (from, to) = (from.join(folder), to.join(folder));
        match from.try_exists() {
            Ok(true) => copy_folder(&from, &to)?,
            Ok(false) => {}
            Err(error) => return Err(Error::io(from.display(), error)),
        }
    }
    let (config, copy) = (from.join("config"), to.join("config"));
    std::fs::copy(&config, &copy).map(drop).map_err(|error| Error::io(config.display(), error))
}

/// Copies the folder `from` to `to`, which must not exist. Files are the same ones under another name where that is
/// possible: whoever changes a copy writes a new file.
///
/// # Errors
/// Something can't be read or written.
pub fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    let io = |path: &Path| {
        let shown = path.display().to_string();
        move |error| Error::io(shown, error)
    };
    std::fs::create_dir(to).map_err(io(to))?;
    for entry in std::fs::read_dir(from).map_err(io(from))? {
        let entry = entry.map_err(io(from))?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let kind = entry.file_type().map_err(io(&source))?;
        if kind.is_dir() {
            copy_folder(&source, &target)?;
        } else if kind.is_file() && std::fs::hard_link(&source, &target).is_err() {
            match std::fs::copy(&source, &target) {
                Ok(_) => {}
                // A lock or temporary file that went away meanwhile.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(io(&source)(error)),
            }
        }
    }
    Ok(())
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
        for part in ["config", "keys/k", "index/i", "snapshots/s", "locks/l", "data/ab/abc", "evidence/w/1"] {
            let path = from.join(part);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, part).unwrap();
        }
        copy_repository(&from, &to).unwrap();
        assert_eq!(names(&to), ["config", "data", "index", "keys", "snapshots"]);
        for part in ["config", "keys/k", "index/i", "snapshots/s", "data/ab/abc"] {
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
    fn a_copied_folder_has_its_files_and_folders_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        std::fs::create_dir_all(from.join("a/empty")).unwrap();
        std::fs::write(from.join("a/file"), "f").unwrap();
        // What it leads to is not in the folder.
        std::os::unix::fs::symlink(folder.path(), from.join("link")).unwrap();
        copy_folder(&from, &to).unwrap();
        assert_eq!(
            (names(&to), names(&to.join("a"))),
            (vec!["a".to_owned()], vec!["empty".to_owned(), "file".to_owned()])
        );
        copy_folder(&from, &to).unwrap_err();
    }
}

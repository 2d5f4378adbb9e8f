//! A copy of a folder that costs next to nothing: hard links, where the file system has them.

use retoma_core::{Error, Result};
use std::path::Path;

/// Copies a repository's folder, in the reverse of the order in which a backup writes: whatever a copied snapshot needs
/// is in the copy, also while a backup runs. Locks stay behind.
///
/// # Errors
/// Something can't be read or written.
pub fn copy_repository(from: &Path, to: &Path) -> Result<()> {
    use retoma_repo::Folder;
    std::fs::create_dir(to).map_err(|error| Error::io(to.display(), error))?;
    for folder in [Folder::Snapshots, Folder::Index, Folder::Keys, Folder::Data] {
        let (from, to) = (from.join(folder.name()), to.join(folder.name()));
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

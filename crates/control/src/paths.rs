//! Paths that people give: made absolute, and without `..` where that means the same place.
//!
//! No link is followed that need not be: behind a link, `..` leads to the folder above what the link names, so there and
//! only there the link is resolved.

use retoma_core::{Error, ErrorKind, Result, error::codes};
use std::path::{Component, Path, PathBuf};

/// `path` from the working directory, without `.` and `..`. What is not there is taken as written.
///
/// # Errors
/// There is no working directory; a link before a `..` leads nowhere.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    let io = |error| Error::io(path.display(), error);
    let mut found = PathBuf::new();
    for part in std::path::absolute(path).map_err(io)?.components() {
        match part {
            Component::ParentDir => {
                if found.is_symlink() {
                    found = std::fs::canonicalize(&found).map_err(io)?;
                }
                found.pop();
            }
            Component::CurDir => {}
            part => found.push(part),
        }
    }
    Ok(found)
}

/// The same for a folder to write into, which `option` names; it may be missing.
///
/// # Errors
/// `R0013` when it, or something on the way to it, is no folder; as [`absolute`].
pub fn target_folder(path: &Path, option: &str) -> Result<PathBuf> {
    let found = absolute(path)?;
    match found.ancestors().find(|part| part.exists()) {
        Some(part) if !part.is_dir() => {
            let message = format!("`{}` is a file, and a folder is needed", part.display());
            Err(Error::new(ErrorKind::Invalid, codes::IO_FAILED, message).with_hint(format!(
                "name a folder with `{option}`; one that is not there is made, for example `{option} {}.restored`",
                part.display()
            )))
        }
        _ => Ok(found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_up_are_taken_and_links_followed_only_before_them() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("far/away")).unwrap();
        std::os::unix::fs::symlink(root.join("far/away"), root.join("link")).unwrap();
        std::os::unix::fs::symlink("nowhere", root.join("broken")).unwrap();
        for (given, expected) in [
            ("a/../b", "b"),
            ("a/./b/../../c/", "c"),
            ("link/x", "link/x"),
            ("link/../x", "far/x"),
            ("link/x/../y", "link/y"),
        ] {
            assert_eq!(absolute(&root.join(given)).unwrap(), root.join(expected), "{given}");
        }
        assert_eq!(absolute(Path::new("/../../x")).unwrap(), Path::new("/x"));
        assert!(absolute(Path::new("x")).unwrap().is_absolute());
        assert_eq!(absolute(&root.join("broken/../x")).unwrap_err().code(), codes::IO_NOT_FOUND);
    }

    #[test]
    fn a_file_is_no_folder_to_write_into() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::write(root.join("file"), "").unwrap();
        for given in ["file", "file/below"] {
            let error = target_folder(&root.join(given), "--to").unwrap_err();
            assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, codes::IO_FAILED));
            assert!(error.hint().unwrap().contains("`--to`"), "{:?}", error.hint());
        }
        for given in ["", "new/folder"] {
            target_folder(&root.join(given), "--to").unwrap();
        }
    }
}

//! Gives the mutants' target folder what is built of dependencies already, so that only our own crates are built there.

use crate::sh::Result;
use std::path::Path;

/// What cargo keeps of a crate.
const FOLDERS: [&str; 3] = [".fingerprint", "build", "deps"];
/// Begins the file names of our own crates; their tests are called `it`.
const OWN: [&str; 8] = ["retoma", "libretoma", "marabet", "libmarabet", "xtask", "libxtask", "it-", "libit-"];

/// Copies from the profile's folder `from` to `to` what belongs to dependencies, with its times, by which cargo knows
/// it. Does nothing when there is something already; what is missing is built.
pub(super) fn copy_dependencies(from: &Path, to: &Path) -> Result {
    if to.exists() {
        return Ok(());
    }
    for folder in FOLDERS.iter().filter(|folder| from.join(folder).is_dir()) {
        copy(&from.join(folder), &to.join(folder)).map_err(|error| format!("`{}`: {error}", to.display()))?;
    }
    Ok(())
}

/// A copy, never a link: cargo writes into some of these files.
fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(to)?;
    for entry in std::fs::read_dir(from)? {
        let entry = entry?;
        let (name, source, target) = (entry.file_name(), entry.path(), to.join(entry.file_name()));
        let name = name.to_string_lossy().into_owned();
        if OWN.iter().any(|own| name.starts_with(own)) {
            continue;
        }
        if entry.file_type()?.is_dir() {
            copy(&source, &target)?;
        } else {
            std::fs::copy(&source, &target)?;
            let modified = entry.metadata()?.modified()?;
            std::fs::File::options().append(true).open(&target)?.set_modified(modified)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    #[test]
    fn dependencies_are_copied_with_their_times_and_our_own_crates_are_not() {
        let folder = tempfile::tempdir().unwrap();
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        std::fs::create_dir_all(from.join("deps")).unwrap();
        for name in ["libserde-1.rlib", "libretoma_core-1.rlib", "it-1"] {
            std::fs::write(from.join("deps").join(name), name).unwrap();
        }
        let old = SystemTime::now() - Duration::from_hours(1);
        let serde = from.join("deps/libserde-1.rlib");
        std::fs::File::options().append(true).open(&serde).unwrap().set_modified(old).unwrap();
        copy_dependencies(&from, &to).unwrap();
        let names: Vec<_> =
            std::fs::read_dir(to.join("deps")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["libserde-1.rlib"]);
        let modified = |path: &Path| path.metadata().unwrap().modified().unwrap();
        assert_eq!(modified(&to.join("deps/libserde-1.rlib")), modified(&serde));
        std::fs::write(from.join("deps/libnew-1.rlib"), "new").unwrap();
        copy_dependencies(&from, &to).unwrap();
        assert!(!to.join("deps/libnew-1.rlib").exists(), "what is there is left alone");
    }
}

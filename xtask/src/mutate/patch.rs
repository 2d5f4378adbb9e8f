//! Reads the patches of `xtask/mutants/`.

use crate::sh::{self, Result};
use std::path::{Path, PathBuf};

/// One patch and what it must turn red.
#[derive(Debug)]
pub(super) struct Mutant {
    pub(super) name: String,
    pub(super) path: PathBuf,
    pub(super) what: String,
    pub(super) red: Red,
}

/// Which test binaries of a package a filter can mean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Binaries {
    /// `kind(lib)`: unit tests.
    Unit,
    /// `kind(test)`: integration tests.
    Integration,
    /// It doesn't say.
    All,
}

impl Binaries {
    fn of(filter: &str) -> Self {
        match (filter.contains("kind(lib)"), filter.contains("kind(test)")) {
            (true, false) => Self::Unit,
            (false, true) => Self::Integration,
            _ => Self::All,
        }
    }

    /// The arguments that build these only.
    pub(super) fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Unit => &["--lib"],
            Self::Integration => &["--test", "*"],
            Self::All => &[],
        }
    }
}

/// What must turn red.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Red {
    /// The tests of a nextest filter; `packages` are those that it names (all when it names none), and only the test
    /// binaries in question are built.
    Tests { filter: String, packages: Vec<String>, binaries: Binaries },
    /// Arguments of `retoma`.
    Drill(Vec<String>),
}

impl Red {
    /// The packages whose tests are needed; none for all, and for a command.
    pub(super) fn packages(&self) -> &[String] {
        match self {
            Self::Tests { packages, .. } => packages,
            Self::Drill(_) => &[],
        }
    }
}

/// All mutants of a folder, by package and name; none when the folder is missing.
pub(super) fn load(folder: &Path) -> Result<Vec<Mutant>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    let entries =
        std::fs::read_dir(folder).map_err(|error| format!("cannot read `{}`: {error}", folder.display()))?;
    let mut mutants = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| error.to_string())?.path();
        if path.extension().is_some_and(|extension| extension == "patch") {
            mutants.push(parse(&path, &sh::read(&path)?)?);
        }
    }
    // Those of one package in a row: what was patched and put back is built anew for the next package.
    mutants.sort_by(|a, b| (a.red.packages(), &a.name).cmp(&(b.red.packages(), &b.name)));
    Ok(mutants)
}

fn parse(path: &Path, text: &str) -> Result<Mutant> {
    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let header = |key: &str| {
        text.lines()
            .take_while(|line| line.starts_with('#'))
            .find_map(|line| line.strip_prefix(key).map(|value| value.trim().to_owned()))
            .filter(|value| !value.is_empty())
            .ok_or_else(|| format!("`{}` has no line `{key} …` at its head", path.display()))
    };
    let (what, red) = (header("# what:")?, header("# red:")?);
    let red = match red.strip_prefix("run:") {
        None => Red::Tests { packages: packages(&red), binaries: Binaries::of(&red), filter: red },
        Some(command) => {
            let mut words = command.split_whitespace().map(str::to_owned);
            if words.next().as_deref() != Some("retoma") {
                return Err(format!("`{}`: only `retoma …` can be run", path.display()));
            }
            Red::Drill(words.collect())
        }
    };
    Ok(Mutant { name, path: path.to_owned(), what, red })
}

/// The names in `package(…)` of a filter, so that nothing else is built.
fn packages(filter: &str) -> Vec<String> {
    let after = filter.split("package(").skip(1);
    after
        .filter_map(|text| text.split(')').next())
        .map(|name| name.trim_start_matches('=').to_owned())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_and_packages_found() {
        let text = "# what: no compare\n# red: package(=retoma-repo) and kind(lib) and test(=a::b)\n--- a/x\n+++ b/x\n";
        let mutant = parse(Path::new("m/hash.patch"), text).unwrap();
        assert_eq!((mutant.name.as_str(), mutant.what.as_str()), ("hash", "no compare"));
        let filter = "package(=retoma-repo) and kind(lib) and test(=a::b)".to_owned();
        let packages = vec!["retoma-repo".into()];
        assert_eq!(mutant.red, Red::Tests { filter, packages, binaries: Binaries::Unit });
        assert_eq!(Binaries::of("package(=a) and kind(test)"), Binaries::Integration);
        assert_eq!(Binaries::of("kind(lib) or kind(test)").arguments(), Binaries::of("test(x)").arguments());
    }

    #[test]
    fn a_drill_is_a_command_of_ours_only() {
        let mutant = |red: &str| parse(Path::new("x.patch"), &format!("# what: w\n# red: {red}\n"));
        assert_eq!(
            mutant("run: retoma demo --json").unwrap().red,
            Red::Drill(vec!["demo".into(), "--json".into()])
        );
        assert!(mutant("run: rm -rf x").is_err());
    }

    #[test]
    fn a_patch_without_its_header_is_refused() {
        for text in ["", "# what: x\n", "# red: y\n", "# what:\n# red: y\n", "--- a\n# what: x\n# red: y\n"] {
            assert!(parse(Path::new("x.patch"), text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_missing_folder_has_no_mutants() {
        assert!(load(Path::new("/nowhere/at/all")).unwrap().is_empty());
    }
}

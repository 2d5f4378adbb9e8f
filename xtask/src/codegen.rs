//! `xtask codegen`: files that the program writes about itself.
//!
//! Each entry of [`GENERATED`] is a file and the arguments with which `retoma` prints its contents, so that this crate
//! need not link the ones that it documents. `--check` compares and writes nothing.

use crate::args::Args;
use crate::dist::target_dir;
use crate::sh::{self, Result};
use std::path::Path;
use std::process::Command;

/// (file, arguments of `retoma`): what the program prints is what the file holds.
const GENERATED: &[(&str, &[&str])] = &[
    ("docs/manifest.schema.json", &["codegen", "schema"]),
    ("docs/manifest.md", &["codegen", "manifest"]),
    ("docs/cli.md", &["codegen", "cli"]),
    ("docs/metrics.md", &["codegen", "metrics"]),
];

/// `xtask codegen [--check]`.
pub(crate) fn run(mut args: Args) -> Result {
    let check = args.flag("--check");
    args.finish()?;
    // As the tests have it built: another choice of packages is another choice of features, and builds nearly all again.
    sh::run(sh::cargo().args(["build", "--quiet", "--locked", "--workspace", "--tests"]))?;
    let program = Path::new(&target_dir()?).join("debug/retoma");
    let mut stale = Vec::new();
    for (path, arguments) in GENERATED {
        let wanted = sh::output(Command::new(&program).args(*arguments))?;
        match settle(&sh::root().join(path), &wanted, check)? {
            Outcome::Same => println!("codegen: {path} is up to date"),
            Outcome::Written => println!("codegen: {path} written"),
            Outcome::Stale(line) => stale.push(format!("{path}:{line} differs from what the program prints")),
        }
    }
    if stale.is_empty() {
        return Ok(());
    }
    Err(format!("{}\nrun `cargo xtask codegen` and commit the result", stale.join("\n")))
}

#[derive(Debug, PartialEq, Eq)]
enum Outcome {
    Same,
    Written,
    /// The first line that differs, from 1.
    Stale(usize),
}

/// Compares `path` with `wanted`; writes it when it differs and `check` is off.
fn settle(path: &Path, wanted: &str, check: bool) -> Result<Outcome> {
    if wanted.trim().is_empty() {
        return Err(format!("the program printed nothing for `{}`", path.display()));
    }
    let present = if path.is_file() { sh::read(path)? } else { String::new() };
    if present == wanted {
        return Ok(Outcome::Same);
    }
    if check {
        let equal = present.lines().zip(wanted.lines()).take_while(|(a, b)| a == b).count();
        return Ok(Outcome::Stale(equal + 1));
    }
    sh::write(path, wanted)?;
    Ok(Outcome::Written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stale_file_is_named_by_check_and_mended_without_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("docs/x.md");
        assert_eq!(settle(&path, "a\nb\n", true), Ok(Outcome::Stale(1)));
        assert!(!path.exists(), "--check must not write");
        assert_eq!(settle(&path, "a\nb\n", false), Ok(Outcome::Written));
        assert_eq!(settle(&path, "a\nb\n", true), Ok(Outcome::Same));
        assert_eq!(settle(&path, "a\nc\n", true), Ok(Outcome::Stale(2)));
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "a\nb\n");
    }

    #[test]
    fn a_generator_that_prints_nothing_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        assert!(settle(&dir.path().join("x"), "\n", false).is_err());
    }
}

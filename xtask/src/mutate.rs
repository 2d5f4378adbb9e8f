//! `xtask mutate`: breaks the program on purpose, one place at a time, and expects a named test to notice.
//!
//! A mutant is a patch in `xtask/mutants/` whose first lines say what it breaks and what must turn red:
//! ```text
//! # what: the hash of a pack is not compared
//! # red: package(retoma-repo) and kind(test) and test(=verify::flipped_byte)
//! ```
//! (`kind(lib)` or `kind(test)` spares building the other test binary)
//! or, instead of a test, a command of the program that must then end with exit code 4 (an objective or check missed):
//! `# red: run: retoma demo --scenario corruption`.
//! Only the last commit is mutated, in a scratch worktree; a mutant that does not compile proves nothing and counts as
//! an error, like a patch that no longer applies or a test that is red (or absent) without it.

mod patch;
mod warm;

use crate::args::Args;
use crate::dist::target_dir;
use crate::setup;
use crate::sh::{self, Result};
use patch::{Binaries, Mutant, Red};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// What `cargo nextest run` ends with when tests ran and one failed.
const NEXTEST_FAILED: i32 = 100;
/// What `retoma` ends with when an objective or a check was missed.
const RETOMA_MISSED: i32 = 4;

/// `xtask mutate [--only TEXT] [--allow-none]`.
pub(crate) fn run(mut args: Args) -> Result {
    let allow_none = args.flag("--allow-none");
    let only = args.value("--only")?;
    args.finish()?;
    let mut mutants = patch::load(&sh::root().join("xtask/mutants"))?;
    mutants.retain(|mutant| only.as_ref().is_none_or(|text| mutant.name.contains(text.as_str())));
    if mutants.is_empty() {
        println!("mutate: no mutants");
        return if allow_none { Ok(()) } else { Err("there is no mutant to try".to_owned()) };
    }
    setup::ensure("test")?;
    if !setup::has_nextest() {
        return Err(
            "mutants need cargo-nextest, whose exit codes tell a red test from a failed build".to_owned()
        );
    }
    let started = Instant::now();
    let target = PathBuf::from(target_dir()?);
    let scratch = Scratch::new(&target.join("mutate"))?;
    warm::copy_dependencies(&target.join("debug"), &scratch.target.join("debug"))?;
    // All of them before the first patch: what is patched and put back must be built again.
    let unmutated = unmutated(&scratch, &mutants)?;
    println!("mutate: without a mutant all is built and judged after {} s", started.elapsed().as_secs());
    let mut bad = 0;
    for (mutant, unmutated) in mutants.iter().zip(unmutated) {
        let began = Instant::now();
        let outcome = unmutated.and_then(|()| judge(&scratch, mutant));
        bad += usize::from(outcome.is_err());
        let text = outcome.map_or_else(|why| format!("NOT CAUGHT: {why}"), |()| "caught".to_owned());
        println!("{:<32} {text} in {} s: {}", mutant.name, began.elapsed().as_secs(), mutant.what);
    }
    scratch.remove()?;
    println!("mutate: {} mutants, {bad} not caught, {} s", mutants.len(), started.elapsed().as_secs());
    if bad == 0 { Ok(()) } else { Err(format!("{bad} of {} mutants were not caught", mutants.len())) }
}

/// Whether each mutant's check is green without it. All filters of a package are asked at once; one by one only when
/// that is red. A filter that fits no test is noticed with its mutant: nothing fails then.
fn unmutated(scratch: &Scratch, mutants: &[Mutant]) -> Result<Vec<Result>> {
    let mut results = Vec::new();
    for group in mutants.chunk_by(|a, b| a.red.packages() == b.red.packages()) {
        let filters: Option<Vec<String>> = group
            .iter()
            .map(|mutant| match &mutant.red {
                Red::Tests { filter, .. } => Some(format!("({filter})")),
                Red::Drill(_) => None,
            })
            .collect();
        let all_green = match (filters, group.first()) {
            (Some(filters), Some(first)) => {
                let packages = first.red.packages().to_vec();
                let binaries = Binaries::All;
                scratch.check(&Red::Tests { filter: filters.join(" or "), packages, binaries })? == 0
            }
            _ => false,
        };
        for mutant in group {
            results.push(if all_green { Ok(()) } else { verdict(scratch.check(&mutant.red)?, None) });
        }
    }
    Ok(results)
}

/// `Ok` when the mutant is caught; the caller knows that its check is green without it.
fn judge(scratch: &Scratch, mutant: &Mutant) -> Result {
    scratch.apply(&mutant.path, false).map_err(|error| format!("the patch does not apply: {error}"))?;
    let code = scratch.check(&mutant.red);
    scratch.apply(&mutant.path, true)?;
    let expected = match &mutant.red {
        Red::Tests { .. } => NEXTEST_FAILED,
        Red::Drill(_) => RETOMA_MISSED,
    };
    verdict(code?, Some(expected))
}

/// Judges an exit code: without the mutant (`expected` is none) it must be 0, with it exactly `expected`.
fn verdict(code: i32, expected: Option<i32>) -> Result {
    match expected {
        None if code == 0 => Ok(()),
        None if code == 4 => {
            Err("no test fits the filter (or the drill is red) without the mutant".to_owned())
        }
        None => Err(format!("the check is red without the mutant already (exit code {code})")),
        Some(expected) if code == expected => Ok(()),
        Some(NEXTEST_FAILED) if code == 4 => Err("no test fits the filter".to_owned()),
        Some(_) if code == 0 => Err("it survived: the check stayed green".to_owned()),
        Some(expected) => {
            Err(format!("the check ended with exit code {code} instead of {expected}; does it compile?"))
        }
    }
}

/// A worktree of the last commit with a target folder that all mutants share.
struct Scratch {
    tree: PathBuf,
    target: PathBuf,
}

impl Scratch {
    fn new(folder: &Path) -> Result<Self> {
        let scratch = Self { tree: folder.join("tree"), target: folder.join("target") };
        scratch.remove()?;
        let mut add = Command::new("git");
        add.args(["worktree", "add", "--quiet", "--detach"]).arg(&scratch.tree).arg("HEAD");
        sh::run(add.current_dir(sh::root()))?;
        scratch.lend_tools()?;
        Ok(scratch)
    }

    /// Tests find the servers that were installed for them below the tree that they are in.
    fn lend_tools(&self) -> Result {
        let (tools, folder) = (sh::root().join("target/tools"), self.tree.join("target"));
        std::fs::create_dir_all(&folder).map_err(|error| format!("make {}: {error}", folder.display()))?;
        let link = folder.join("tools");
        std::os::unix::fs::symlink(tools, &link).map_err(|error| format!("link {}: {error}", link.display()))
    }

    fn remove(&self) -> Result {
        sh::remove_dir(&self.tree)?;
        sh::run(Command::new("git").args(["worktree", "prune"]).current_dir(sh::root()))
    }

    fn apply(&self, patch: &Path, reverse: bool) -> Result {
        let mut git = Command::new("git");
        git.args(["apply", "--whitespace=nowarn"]).args(reverse.then_some("--reverse")).arg(patch);
        sh::output(git.current_dir(&self.tree)).map(|_| ())
    }

    /// Builds and runs what must turn red; gives its exit code.
    fn check(&self, red: &Red) -> Result<i32> {
        let mut command = match red {
            Red::Tests { filter, packages, binaries } => {
                let mut nextest = self.cargo();
                // A test that is skipped would look like one that a mutant does not touch.
                nextest.env("REQUIRE_SERVICES", "1");
                nextest.args(["nextest", "run", "--no-fail-fast", "--status-level", "none", "-E", filter]);
                nextest.args(binaries.arguments());
                match packages.as_slice() {
                    [] => nextest.arg("--workspace"),
                    packages => nextest.args(packages.iter().flat_map(|package| ["-p", package])),
                };
                nextest
            }
            Red::Drill(arguments) => {
                sh::run(self.cargo().args(["build", "--quiet", "--package", "retoma"]))?;
                let mut retoma = Command::new(self.target.join("debug/retoma"));
                retoma.args(arguments).current_dir(&self.tree);
                retoma
            }
        };
        sh::status(command.stdout(Stdio::null()).stderr(Stdio::null()))
    }

    fn cargo(&self) -> Command {
        let mut cargo = sh::cargo();
        cargo.current_dir(&self.tree).env("CARGO_TARGET_DIR", &self.target);
        // Our own crates are built again and again; dependencies keep what their own profile says.
        cargo.envs([("CARGO_PROFILE_DEV_OPT_LEVEL", "0"), ("CARGO_PROFILE_DEV_DEBUG", "0")]);
        cargo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_red_check_that_ran_catches_a_mutant() {
        assert_eq!(verdict(0, None), Ok(()));
        assert!(verdict(NEXTEST_FAILED, None).is_err(), "red before the mutant");
        assert!(verdict(4, None).unwrap_err().contains("no test fits"));
        assert_eq!(verdict(NEXTEST_FAILED, Some(NEXTEST_FAILED)), Ok(()));
        assert!(verdict(0, Some(NEXTEST_FAILED)).unwrap_err().contains("survived"));
        assert!(verdict(4, Some(NEXTEST_FAILED)).unwrap_err().contains("no test fits"));
        assert!(verdict(101, Some(NEXTEST_FAILED)).unwrap_err().contains("compile"));
        assert!(verdict(2, Some(RETOMA_MISSED)).is_err(), "a crash is no verdict");
    }
}

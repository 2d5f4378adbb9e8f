//! `xtask bench`: the same work by other tools and by us, in turns, and what it costs.

mod data;
mod files;
mod measure;
mod memory;
mod postgres;
mod report;
mod stores;
mod tools;

use crate::args::Args;
use crate::sh::{self, Result};
use report::{Report, Results};
use std::path::{Path, PathBuf};

/// `xtask bench files|postgres|stores [OPTIONS]`.
pub(crate) fn run(mut args: Args) -> Result {
    match args.word().as_deref() {
        Some("files") => files::run(args),
        Some("postgres") => postgres::run(args),
        Some("stores") => stores::run(args),
        _ => Err("the benchmarks are `files`, `postgres` and `stores`".to_owned()),
    }
}

/// Prints a report, and puts it into `docs/benchmarks.md` where there is a date for it.
fn tell(results: &Results, report: &Report<'_>, date: Option<&str>) -> Result {
    let text = report::render(results, report);
    println!("\n{text}");
    match date {
        Some(date) => report::write(&sh::root().join("docs/benchmarks.md"), report.benchmark, date, &text),
        None => Ok(()),
    }
}

/// The items with the given names (`a,b`), in the order of `known`.
fn select<T>(names: &str, known: impl Iterator<Item = (&'static str, T)> + Clone) -> Result<Vec<T>> {
    let all: Vec<&str> = known.clone().map(|(name, _)| name).collect();
    if let Some(unknown) = names.split(',').find(|name| !all.contains(name)) {
        return Err(format!("`{unknown}` is not one of {}", all.join(", ")));
    }
    Ok(known
        .filter(|(name, _)| names.split(',').any(|wanted| wanted == *name))
        .map(|(_, item)| item)
        .collect())
}

/// `tools`, beginning with another one in every round.
fn turned<'a, T>(tools: &[&'a T], round: usize) -> Vec<&'a T> {
    let mut turned = tools.to_vec();
    if !turned.is_empty() {
        turned.rotate_left(round % tools.len());
    }
    turned
}

/// The tools that can be used, of which `of` tells the name and the script that succeeds then; one that cannot is told. Ours is
/// built first.
fn ready<T>(
    tools: &[&'static T],
    of: impl Fn(&T) -> (&'static str, &'static str),
) -> Result<Vec<&'static T>> {
    if tools.iter().any(|tool| of(tool).0 == "retoma") {
        sh::run_shown(sh::cargo().args(["build", "--release", "-p", "retoma"]))?;
    }
    let is_there = |tool: &&T| {
        let (name, available) = of(tool);
        is_there(name, available)
    };
    Ok(tools.iter().copied().filter(|tool| is_there(tool)).collect())
}

/// Whether the script `available` succeeds; if not, that is said.
fn is_there(name: &str, available: &str) -> bool {
    let there = measure::succeeds(available);
    if !there {
        println!("bench: {name} is skipped: `{available}` fails");
    }
    there
}

/// Puts away what the round before left. Its files are emptied and stay, because deleting them would cost the next round: for 60 to 360 s ext4
/// passes over the inodes of deleted files, one by one, when it looks for free ones (`recently_deleted` in `fs/ext4/ialloc.c`). Whoever
/// writes files then pays for another one's deletion, up to ten times. [`remove`] deletes all in the end.
fn clear(work: &Path) -> Result {
    if !work.exists() {
        return Ok(());
    }
    empty(work)?;
    let number = spent(work)?.len();
    let away = work.with_extension(format!("{SPENT}-{number}"));
    std::fs::rename(work, &away)
        .map_err(|error| format!("rename {} to {}: {error}", work.display(), away.display()))
}

/// Deletes what all rounds left.
fn remove(work: &Path) -> Result {
    sh::remove_dir(work)?;
    spent(work)?.iter().try_for_each(|folder| sh::remove_dir(folder))
}

/// How the folders of earlier rounds end.
const SPENT: &str = "spent";

/// The folders of earlier rounds.
fn spent(work: &Path) -> Result<Vec<PathBuf>> {
    let (Some(parent), Some(stem)) = (work.parent(), work.file_stem()) else { return Ok(Vec::new()) };
    let start = format!("{}.{SPENT}-", stem.to_string_lossy());
    let found = sh::entries(parent)?;
    Ok(found
        .into_iter()
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(&start)))
        .collect())
}

/// Makes every file below `folder` an empty one; hard links to files elsewhere are none there.
fn empty(folder: &Path) -> Result {
    for path in sh::entries(folder)? {
        let failed = |error| format!("empty {}: {error}", path.display());
        let kind = std::fs::symlink_metadata(&path).map_err(failed)?.file_type();
        if kind.is_dir() {
            empty(&path)?;
        } else if kind.is_file() {
            std::fs::OpenOptions::new().write(true).truncate(true).open(&path).map_err(failed)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_is_put_away_empty_and_removed_in_the_end() {
        let folder = tempfile::tempdir().unwrap();
        let work = folder.path().join("run");
        for round in 0..3 {
            clear(&work).unwrap();
            assert!(!work.exists(), "round {round}");
            std::fs::create_dir_all(work.join("out/deep")).unwrap();
            std::fs::write(work.join("out/deep/file"), "bytes").unwrap();
        }
        let file = |name: &str| folder.path().join(name).join("out/deep/file");
        let sizes =
            ["run.spent-0", "run.spent-1", "run"].map(|name| std::fs::metadata(file(name)).unwrap().len());
        assert_eq!(sizes, [0, 0, 5]);
        std::fs::create_dir(folder.path().join("other")).unwrap();
        remove(&work).unwrap();
        assert_eq!(sh::entries(folder.path()).unwrap(), [folder.path().join("other")]);
    }
}

//! `xtask bench`: the same work by other tools and by us, in turns, and what it costs.

mod data;
mod files;
mod measure;
mod postgres;
mod report;
mod stores;
mod tools;

use crate::args::Args;
use crate::sh::{self, Result};
use report::{Report, Results};
use std::path::Path;

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

/// For so long, in seconds, ext4 passes over the inodes of deleted files, one by one, when it looks for free ones (`recently_deleted`
/// in `fs/ext4/ialloc.c`: 60, and 300 more while the inode's block is dirty). Whoever writes files then pays for
/// another one's deletion, up to ten times.
const DELETED_SECONDS: u64 = 361;

/// Removes what the round before left. Within a round nothing is deleted.
fn clear(work: &Path) -> Result {
    if work.exists() {
        sh::remove_dir(work)?;
        println!("bench: waits for {DELETED_SECONDS} s, until the deleted files cost nothing");
        std::thread::sleep(std::time::Duration::from_secs(DELETED_SECONDS));
    }
    Ok(())
}

//! `xtask bench files`: the same work by restic, borg, `tar | zstd | openssl` and by us, in turns.
//!
//! Fairness: every tool gets the same tree (read once before, so that it is in memory), its own empty repository and
//! cache on the same disk, its default options and all cores; what the previous one left in the page cache is written
//! out before the clock starts, and what it left free of the memory filled (`memory`); nothing is deleted before the last round has ended, only emptied; the order changes from round to round; medians are
//! reported. Nothing is run as a benchmark in CI.

use super::data::{self, Shape};
use super::measure::{self, Place};
use super::report::{Report, Results};
use super::tools::{Step, TOOLS, Tool};
use super::{clear, ready, select, turned};
use crate::args::{self, Args};
use crate::dist::target_dir;
use crate::setup;
use crate::sh::Result;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// What to run and how often.
struct Plan {
    shape: Shape,
    rounds: usize,
    tools: Vec<&'static Tool>,
    steps: Vec<Step>,
    /// The date for `docs/benchmarks.md`; nothing is written without it.
    write: Option<String>,
}

/// `xtask bench files [OPTIONS]`.
pub(super) fn run(args: Args) -> Result {
    let plan = Plan::from_args(args)?;
    setup::ensure("bench")?;
    let folder = PathBuf::from(target_dir()?).join("bench");
    let trees = data::ensure(&folder, &plan.shape)?;
    let work = folder.join("run");
    let tools = ready(&plan.tools, |tool| (tool.name, tool.available))?;
    let mut results = Results::default();
    for round in 0..plan.rounds {
        run_round(&plan, &trees, &work, &turned(&tools, round), &mut results)?;
        println!("bench: round {} of {} done", round + 1, plan.rounds);
    }
    super::remove(&work)?;

    let versions: Vec<_> = tools.iter().map(|tool| (tool.name, measure::version(tool.version))).collect();
    let row = |step: &Step| (step.name(), step.title());
    let is_sized = |step: &&Step| matches!(step, Step::Initial | Step::Changed);
    let report = Report {
        benchmark: "files",
        base: "restic",
        data: format!(
            "{} MiB, of these half in {} small files ({} a folder), a third in models, the rest in logs; the big file \
             has {} MiB",
            plan.shape.bytes >> 20,
            plan.shape.files,
            plan.shape.per_folder,
            plan.shape.big_bytes >> 20
        ),
        rounds: plan.rounds,
        tools: &versions,
        rows: &plan.steps.iter().map(row).collect::<Vec<_>>(),
        sized: &plan.steps.iter().filter(is_sized).map(row).collect::<Vec<_>>(),
        notes: String::new(),
    };
    super::tell(&results, &report, plan.write.as_deref())
}

impl Plan {
    fn from_args(mut args: Args) -> Result<Self> {
        let quick = args.flag("--quick");
        let mut size = |name: &str, full: &str, small: &str| {
            let default = if quick { small } else { full };
            args::bytes(args.value(name)?.as_deref().unwrap_or(default))
        };
        let shape = Shape {
            bytes: size("--size", "3G", "200M")?,
            files: size("--files", "50000", "4000")?,
            per_folder: size("--per-folder", "500", "500")?.max(1),
            big_bytes: size("--big", "4G", "256M")?,
        };
        let rounds = usize::try_from(size("--rounds", "5", "1")?).unwrap_or(1).max(1);
        let tools = match args.value("--tools")? {
            None => TOOLS.iter().collect(),
            Some(names) => select(&names, TOOLS.iter().map(|tool| (tool.name, tool)))?,
        };
        let steps = match args.value("--steps")? {
            None => Step::ALL.to_vec(),
            Some(names) => select(&names, Step::ALL.into_iter().map(|step| (step.name(), step)))?,
        };
        let write = args.value("--write")?;
        args.finish()?;
        Ok(Self { shape, rounds, tools, steps, write })
    }
}

fn run_round(
    plan: &Plan,
    trees: &data::Trees,
    work: &Path,
    tools: &[&Tool],
    results: &mut Results,
) -> Result {
    clear(work)?;
    for tool in tools {
        for (tree, repository) in [(&trees.tree, "files"), (&trees.big, "big")] {
            let place = Place::of_files(work, tool.name, tree, repository);
            place.make()?;
            measure::prepare(&place, tool.init)?;
        }
    }
    let mut round = Round { trees, work, tools, saved: BTreeMap::new() };
    let mut outcome = Ok(());
    for step in &plan.steps {
        if *step == Step::Changed {
            data::change(trees, &plan.shape)?;
        }
        outcome = outcome.and_then(|()| round.step(*step, results));
    }
    if plan.steps.contains(&Step::Changed) {
        data::revert(trees, &plan.shape)?;
    }
    outcome
}

/// All tools, once.
struct Round<'a> {
    trees: &'a data::Trees,
    work: &'a Path,
    tools: &'a [&'a Tool],
    /// Files and bytes of the tree when the tool saved it last.
    saved: BTreeMap<&'static str, (u64, u64)>,
}

impl Round<'_> {
    fn step(&mut self, step: Step, results: &mut Results) -> Result {
        for tool in self.tools {
            let Some(script) = tool.script(step) else { continue };
            let (input, name) = match step {
                Step::Big => (&self.trees.big, "big"),
                _ => (&self.trees.tree, "files"),
            };
            let place = Place::of_files(self.work, tool.name, input, name);
            let measured = measure::run(&place, step.name(), script, input)?;
            println!("  {:<10} {:<8} {measured}", step.name(), tool.name);
            results.add(step.name(), tool.name, measured);
            if matches!(step, Step::Initial | Step::Unchanged | Step::Changed) {
                self.saved.insert(tool.name, data::census(&self.trees.tree)?);
                results.add_size(step.name(), tool.name, data::census(&place.repository)?.1);
            }
            // What is not needed again is emptied, so that the trees of all tools need not fit into memory.
            if step == Step::Restore {
                self.check_restored(tool.name, &place)?;
                super::empty(&place.out)?;
            }
            if step == Step::Big {
                super::empty(&place.repository)?;
            }
        }
        Ok(())
    }

    /// A restore that left something out must not count as a fast one.
    fn check_restored(&self, tool: &'static str, place: &Place) -> Result {
        let got = data::census(&place.out)?;
        match self.saved.get(tool) {
            Some(wanted) if *wanted != got => {
                Err(format!("{tool} restored {got:?} (files, bytes) instead of {wanted:?}"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(text: &str) -> Result<Plan> {
        Plan::from_args(Args::new(text.split_whitespace().map(str::to_owned)))
    }

    #[test]
    fn quick_is_small_and_single_options_win() {
        let quick = plan("--quick --size 1G --tools borg,restic").unwrap();
        assert_eq!((quick.shape.bytes, quick.shape.files, quick.rounds), (1 << 30, 4000, 1));
        let names: Vec<_> = quick.tools.iter().map(|tool| tool.name).collect();
        assert_eq!(names, ["restic", "borg"]);
        let full = plan("").unwrap();
        assert_eq!((full.shape.bytes, full.shape.files, full.rounds), (3 << 30, 50_000, 5));
        assert_eq!(full.steps, Step::ALL);
    }

    #[test]
    fn unknown_tools_and_steps_are_refused() {
        assert!(plan("--tools restic,rsync").err().unwrap().contains("rsync"));
        assert!(plan("--steps initial,final").err().unwrap().contains("final"));
    }

    #[test]
    fn every_tool_comes_first_once() {
        let tools: Vec<&Tool> = TOOLS.iter().collect();
        let first: Vec<_> = (0..tools.len()).map(|round| turned(&tools, round)[0].name).collect();
        let names: Vec<_> = TOOLS.iter().map(|tool| tool.name).collect();
        assert_eq!(first, names);
    }
}

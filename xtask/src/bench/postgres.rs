//! `xtask bench postgres`: backups of one PostgreSQL server by pgBackRest, `pg_basebackup`, restic and by us, in turns.
//!
//! Fairness: one server (`initdb -k`, filled by `pgbench`), the same for all, idle while it is backed up and restored, also
//! without autovacuum; every tool has its own empty repository on the same disk; pgBackRest has its fastest settings with
//! encryption; what was left in the page cache is written out before the clock starts; another tool begins in every round.
//! Under load every backup comes with the WAL without which it could not be started.

mod cluster;
mod tools;

use super::measure::{self, Measured, Place};
use super::report::{Report, Results, Row};
use super::{ready, select, turned};
use crate::args::{self, Args};
use crate::setup;
use crate::sh::{self, Result};
use cluster::Cluster;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use tools::{TOOLS, Tool};

/// So many segments are pushed and fetched.
const SEGMENTS: usize = 32;
/// The row of a server that nobody backs up.
const NOTHING: &str = "nothing";
/// For so long the server's throughput is looked at.
const LOAD_SECONDS: u64 = 20;

const FULL: Row = ("full", "first backup");
const RESTORE: Row = ("restore", "restore into an empty folder");
const DELTA: Row = ("delta", "restore over it, nothing to do");
const FEW: Row = ("few", "backup after 2,000 transactions");
const MINUTE: Row = ("minute", "backup after 60 s of pgbench");
const PUSH_ALONE: Row = ("push-alone", "push 32 WAL segments, each alone");
const PUSH: Row = ("push", "push 32 WAL segments, working ahead");
const FETCH_ALONE: Row = ("fetch-alone", "fetch 32 WAL segments, each alone");
const FETCH: Row = ("fetch", "fetch 32 WAL segments, working ahead");
const ROWS: [Row; 9] = [FULL, RESTORE, DELTA, FEW, MINUTE, PUSH_ALONE, PUSH, FETCH_ALONE, FETCH];

struct Plan {
    scale: u64,
    rounds: usize,
    minute_seconds: u64,
    tools: Vec<&'static Tool>,
    write: Option<String>,
}

/// `xtask bench postgres [OPTIONS]`.
pub(super) fn run(args: Args) -> Result {
    let plan = Plan::from_args(args)?;
    setup::ensure("bench")?;
    setup::ensure("test")?;
    let tools = ready(&plan.tools, |tool| (tool.name, tool.available))?;
    // Not below the project: the server's user must be able to go there.
    let folder =
        tempfile::Builder::new().prefix("retoma-bench-").tempdir().map_err(|error| error.to_string())?;
    let cluster = Cluster::start(folder.path(), plan.scale)?;
    let mut results = Results::default();
    for round in 0..plan.rounds {
        let work = folder.path().join(format!("round-{round}"));
        let round_of = Round { work: &work, cluster: &cluster, plan: &plan, tools: turned(&tools, round) };
        round_of.run(&mut results)?;
        sh::remove_dir(&work)?;
        println!("bench: round {} of {} done", round + 1, plan.rounds);
    }
    let load = loads(&folder.path().join("load"), &cluster, &tools, plan.rounds)?;
    let versions: Vec<_> = tools.iter().map(|tool| (tool.name, measure::version(tool.version))).collect();
    let report = Report {
        benchmark: "postgres",
        base: "pgbackrest",
        data: format!(
            "PostgreSQL {}, pgbench at scale {}, {}",
            cluster.version()?,
            plan.scale,
            cluster.size()?
        ),
        rounds: plan.rounds,
        tools: &versions,
        rows: &ROWS,
        sized: &[FULL, FEW, MINUTE],
        notes: load,
    };
    super::tell(&results, &report, plan.write.as_deref())
}

impl Plan {
    fn from_args(mut args: Args) -> Result<Self> {
        let quick = args.flag("--quick");
        let mut number = |name: &str, full: &str, small: &str| {
            let default = if quick { small } else { full };
            args::bytes(args.value(name)?.as_deref().unwrap_or(default))
        };
        let scale = number("--scale", "100", "5")?.max(1);
        let rounds = usize::try_from(number("--rounds", "3", "1")?).unwrap_or(1).max(1);
        let minute_seconds = if quick { 5 } else { 60 };
        let tools = match args.value("--tools")? {
            None => TOOLS.iter().collect(),
            Some(names) => select(&names, TOOLS.iter().map(|tool| (tool.name, tool)))?,
        };
        let write = args.value("--write")?;
        args.finish()?;
        Ok(Self { scale, rounds, minute_seconds, tools, write })
    }
}

/// All tools, once.
struct Round<'a> {
    work: &'a Path,
    cluster: &'a Cluster,
    plan: &'a Plan,
    tools: Vec<&'a Tool>,
}

impl Round<'_> {
    fn run(&self, results: &mut Results) -> Result {
        for tool in &self.tools {
            let place = self.place(tool, "data");
            place.make()?;
            measure::prepare(&place, tool.init)?;
        }
        self.cluster.settle()?;
        self.step(FULL, "data", |tool| Some(tool.full), results)?;
        self.step(RESTORE, "data", |tool| tool.restore, results)?;
        self.step(DELTA, "data", |tool| tool.delta, results)?;
        self.cluster.load(&["-t", "500"])?;
        self.cluster.checkpoint()?;
        self.step(FEW, "data", |tool| tool.again, results)?;
        self.cluster.load(&["-T", &self.plan.minute_seconds.to_string()])?;
        self.cluster.checkpoint()?;
        self.step(MINUTE, "data", |tool| tool.again, results)?;
        self.wal(results)
    }

    fn place(&self, tool: &Tool, name: &str) -> Place {
        place(self.work, self.cluster, tool, name)
    }

    /// One step of all tools that have it.
    fn step(
        &self,
        row: Row,
        place: &str,
        script: impl Fn(&Tool) -> Option<&'static str>,
        results: &mut Results,
    ) -> Result {
        for tool in &self.tools {
            let Some(script) = script(tool) else { continue };
            let place = self.place(tool, place);
            let measured = measure::run(&place, row.0, script, &self.cluster.data())?;
            tell(row, tool, measured);
            results.add(row.0, tool.name, measured);
            if let FULL | FEW | MINUTE = row {
                results.add_size(row.0, tool.name, super::data::census(&place.repository)?.1);
            }
        }
        Ok(())
    }

    /// Segments that wait to be archived are pushed and fetched, as the server would ask for it.
    fn wal(&self, results: &mut Results) -> Result {
        let segments = self.cluster.waiting_segments(SEGMENTS)?;
        sh::make_dir(self.work)?;
        sh::write(&self.work.join("segments"), segments.join("\n") + "\n")?;
        for name in ["alone", "ahead"] {
            for tool in self.tools.iter().filter(|tool| tool.push.is_some()) {
                let place = self.place(tool, name);
                place.make()?;
                measure::prepare(&place, tool.init)?;
            }
        }
        self.step(PUSH_ALONE, "alone", |tool| tool.push_alone, results)?;
        self.step(PUSH, "ahead", |tool| tool.push, results)?;
        self.step(FETCH_ALONE, "alone", |tool| tool.fetch_alone, results)?;
        self.step(FETCH, "ahead", |tool| tool.fetch, results)?;
        for name in ["alone", "ahead"] {
            for tool in self.tools.iter().filter(|tool| tool.fetch.is_some()) {
                self.cluster.compare_segments(&segments, &self.place(tool, name).out)?;
            }
        }
        self.cluster.archive_away()
    }
}

fn place(work: &Path, cluster: &Cluster, tool: &Tool, name: &str) -> Place {
    let home = work.join(tool.name).join(name);
    let component = format!(
        "[[component]]\nname = \"database\"\nkind = \"postgres\"\ntier = \"low\"\nurl = \"{}\"\n\n\
         [[component]]\nname = \"seed\"\nkind = \"files\"\ntier = \"low\"\npath = \"{}\"\n",
        cluster.url(),
        home.join("seed").display()
    );
    let mut variables = cluster.variables();
    variables.push(("SEGMENTS", work.join("segments")));
    variables.push(("HOME_OF_TOOL", home));
    Place::new(work, tool.name, name, component, variables)
}

fn tell(row: Row, tool: &Tool, measured: Measured) {
    println!("  {:<12} {:<14} {measured}", row.0, tool.name);
}

/// The server's throughput alone, and while each tool makes one first backup after the other; medians.
fn loads(work: &Path, cluster: &Cluster, tools: &[&Tool], rounds: usize) -> Result<String> {
    let mut rates: BTreeMap<&str, Vec<(f64, usize)>> = BTreeMap::new();
    for round in 0..rounds {
        cluster.settle()?;
        let seconds = LOAD_SECONDS.to_string();
        rates.entry(NOTHING).or_default().push((cluster.load(&["-T", &seconds])?, 0));
        for tool in turned(tools, round) {
            cluster.settle()?;
            let running = cluster.start_load(&["-T", &seconds])?;
            let mut count = 0;
            while running.goes_on() {
                let place = place(&work.join(round.to_string()), cluster, tool, &format!("load-{count}"));
                place.make()?;
                measure::prepare(&place, tool.init)?;
                measure::run_now(&place, "load", tool.full_with_wal.unwrap_or(tool.full))?;
                count += 1;
            }
            rates.entry(tool.name).or_default().push((running.transactions_per_second()?, count));
        }
        sh::remove_dir(work)?;
    }
    let alone = median_rate(&rates[NOTHING]).0;
    let mut text = format!(
        "\n**Transactions per second of pgbench for {LOAD_SECONDS} s while first backups are made, each with the WAL that it needs**\n\n\
         | while | backups | transactions/s | lost |\n|---|--:|--:|--:|\n"
    );
    for name in std::iter::once(NOTHING).chain(tools.iter().map(|tool| tool.name)) {
        let (rate, count) = median_rate(&rates[name]);
        println!("  load         {name:<14} {rate:8.0} transactions/s, {count} backups");
        // Writing to a string cannot fail.
        let _written =
            writeln!(text, "| {name} | {count} | {rate:.0} | {:.0} % |", 100.0 * (1.0 - rate / alone));
    }
    Ok(text)
}

/// The run in the middle: transactions per second and backups.
fn median_rate(runs: &[(f64, usize)]) -> (f64, usize) {
    let mut runs = runs.to_vec();
    runs.sort_by(|a, b| a.0.total_cmp(&b.0));
    runs.get(runs.len() / 2).copied().unwrap_or((f64::NAN, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_read() {
        let plan = |text: &str| Plan::from_args(Args::new(text.split_whitespace().map(str::to_owned)));
        let quick = plan("--quick --tools retoma,pgbackrest").unwrap();
        assert_eq!((quick.scale, quick.rounds, quick.tools.len()), (5, 1, 2));
        assert_eq!(plan("--scale 300").unwrap().scale, 300);
        assert!(plan("--tools barman").err().unwrap().contains("barman"));
    }
}

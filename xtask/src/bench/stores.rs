//! `xtask bench stores`: backup, restore and copy over an S3 server that is far away, by restic and by us, in turns.
//!
//! Fairness: one server for both, behind a way that adds the same delay in each direction; the same tree, in memory; each
//! tool has its own prefix and cache, its default options and all cores; what was left in the page cache is written out
//! before the clock starts; another tool begins in every round; restores are counted before they count.

mod far;
mod server;

use super::data::{self, Shape};
use super::measure::{self, Place};
use super::report::{Report, Results, Row};
use super::{ready, select, turned};
use crate::args::{self, Args};
use crate::dist::target_dir;
use crate::setup;
use crate::sh::Result;
use far::Far;
use server::Server;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What is added to a request and its answer together.
const ADDED_MILLIS: u64 = 20;

const INITIAL: Row = ("initial", "initial backup");
const UNCHANGED: Row = ("unchanged", "nothing changed");
const RESTORE: Row = ("restore", "full restore, nothing cached");
const COPY: Row = ("copy", "copy to another prefix");
const ROWS: [Row; 4] = [INITIAL, UNCHANGED, RESTORE, COPY];

/// A tool; scripts get what `tools.rs` says, with the address of the server as `SERVER` and of two repositories as `NAME`
/// (the prefix; the second is `NAME-copy`).
struct Tool {
    name: &'static str,
    available: &'static str,
    version: &'static str,
    /// Makes both repositories.
    init: &'static str,
    backup: &'static str,
    restore: &'static str,
    copy: &'static str,
}

const TOOLS: &[Tool] = &[
    Tool {
        name: "restic",
        available: "command -v restic",
        version: "restic version",
        // With the same chunker, so that what is copied is not stored twice: as its manual says.
        init: r#"restic -q -r "s3:$SERVER/bench/$NAME" -p "$PASSWORD" --cache-dir "$CACHE" init
            restic -q -r "s3:$SERVER/bench/$NAME-copy" -p "$PASSWORD" --cache-dir "$CACHE" init --copy-chunker-params --from-repo "s3:$SERVER/bench/$NAME" --from-password-file "$PASSWORD""#,
        backup: r#"restic -q -r "s3:$SERVER/bench/$NAME" -p "$PASSWORD" --cache-dir "$CACHE" backup "$TREE""#,
        restore: r#"restic -q -r "s3:$SERVER/bench/$NAME" -p "$PASSWORD" --cache-dir "$CACHE-other" restore latest --target "$OUT""#,
        copy: r#"restic -q -r "s3:$SERVER/bench/$NAME-copy" -p "$PASSWORD" --cache-dir "$CACHE" copy --from-repo "s3:$SERVER/bench/$NAME" --from-password-file "$PASSWORD""#,
    },
    Tool {
        name: "retoma",
        available: r#""$RETOMA" backup --help | grep -q backup"#,
        version: r#""$RETOMA" --version"#,
        // The first backup makes the repository, the copy the other one.
        init: "true",
        backup: r#"XDG_CACHE_HOME="$CACHE" "$RETOMA" --manifest "$MANIFEST" backup --repository near"#,
        restore: r#"XDG_CACHE_HOME="$CACHE-other" "$RETOMA" --manifest "$MANIFEST" restore tree --repository near --target "$OUT" --yes"#,
        copy: r#"XDG_CACHE_HOME="$CACHE" "$RETOMA" --manifest "$MANIFEST" copy --from near --to far"#,
    },
];

struct Plan {
    shape: Shape,
    rounds: usize,
    tools: Vec<&'static Tool>,
    rows: Vec<Row>,
    write: Option<String>,
}

/// `xtask bench stores [OPTIONS]`.
pub(super) fn run(args: Args) -> Result {
    let plan = Plan::from_args(args)?;
    setup::ensure("bench")?;
    setup::ensure("test")?;
    let tools = ready(&plan.tools, |tool| (tool.name, tool.available))?;
    let folder = PathBuf::from(target_dir()?).join("bench");
    let trees = data::ensure(&folder, &plan.shape)?;
    let work = folder.join("stores");
    let (mut results, mut requests) = (Results::default(), BTreeMap::new());
    for round in 0..plan.rounds {
        super::clear(&work)?;
        let server = Server::start(&work.join("server"))?;
        let far = Far::start(server.port, Duration::from_millis(ADDED_MILLIS / 2))?;
        let round_of = Round { trees: &trees, work: &work, far: &far, plan: &plan };
        round_of.run(&turned(&tools, round), &mut results, &mut requests)?;
        println!("bench: round {} of {} done", round + 1, plan.rounds);
    }
    super::remove(&work)?;

    let versions: Vec<_> = tools.iter().map(|tool| (tool.name, measure::version(tool.version))).collect();
    let report = Report {
        benchmark: "stores",
        base: "restic",
        data: format!(
            "{} MiB, of these half in {} small files, a third in models, the rest in logs; SeaweedFS behind a way that adds \
             {ADDED_MILLIS} ms to each request and its answer",
            plan.shape.bytes >> 20,
            plan.shape.files
        ),
        rounds: plan.rounds,
        tools: &versions,
        rows: &plan.rows,
        sized: &[],
        notes: table(&plan, &tools, &requests),
    };
    super::tell(&results, &report, plan.write.as_deref())
}

type Requests = BTreeMap<(&'static str, &'static str), u64>;

/// Requests for each GiB of the tree.
fn table(plan: &Plan, tools: &[&Tool], requests: &Requests) -> String {
    let names: Vec<&str> = tools.iter().map(|tool| tool.name).collect();
    let mut text = format!(
        "\n**Requests for each GiB of the tree**\n\n| step | {} |\n|---|{}\n",
        names.join(" | "),
        "--:|".repeat(names.len())
    );
    let mib = (plan.shape.bytes >> 20).max(1);
    for (step, title) in &plan.rows {
        let cells: Vec<String> = names
            .iter()
            .map(|name| {
                let known = requests.iter().find(|((of, tool), _)| of == step && tool == name);
                known.map_or_else(|| "–".to_owned(), |(_, count)| (count * 1024 / mib).to_string())
            })
            .collect();
        // Writing to a string cannot fail.
        let _written = writeln!(text, "| {title} | {} |", cells.join(" | "));
    }
    text
}

/// All tools, once.
struct Round<'a> {
    trees: &'a data::Trees,
    work: &'a Path,
    far: &'a Far,
    plan: &'a Plan,
}

impl Round<'_> {
    fn run(&self, tools: &[&Tool], results: &mut Results, requests: &mut Requests) -> Result {
        let places: Vec<(&Tool, Place)> = tools.iter().map(|tool| (*tool, self.place(tool.name))).collect();
        for (tool, place) in &places {
            place.make()?;
            measure::prepare(place, tool.init)?;
        }
        for row in &self.plan.rows {
            for (tool, place) in &places {
                let script = match *row {
                    RESTORE => tool.restore,
                    COPY => tool.copy,
                    _ => tool.backup,
                };
                self.far.requests();
                let measured = measure::run(place, row.0, script, &self.trees.tree)?;
                let asked = self.far.requests();
                println!("  {:<10} {:<8} {measured} {asked:6} requests", row.0, tool.name);
                results.add(row.0, tool.name, measured);
                requests.insert((row.0, tool.name), asked);
                if *row == RESTORE && data::census(&place.out)? != data::census(&self.trees.tree)? {
                    return Err(format!("{} did not restore what it was given", tool.name));
                }
            }
        }
        Ok(())
    }

    fn place(&self, tool: &str) -> Place {
        let server = format!("http://127.0.0.1:{}", self.far.port);
        let password = self.work.join(tool).join("far/password");
        let repositories = [("near", tool.to_owned()), ("far", format!("{tool}-copy"))].map(|(name, prefix)| {
            let password = password.display();
            format!("[[repository]]\nname = \"{name}\"\nurl = \"s3://bench/{prefix}\"\npassword = \"file:{password}\"\n\n")
        });
        let variables = [
            ("SERVER", server.as_str()),
            ("NAME", tool),
            ("AWS_ENDPOINT_URL", &server),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ];
        let variables = variables.map(|(name, value)| (name, PathBuf::from(value)));
        Place::of_files(self.work, tool, &self.trees.tree, "far").with(repositories.concat(), &variables)
    }
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
            per_folder: 500,
            // As `bench files` has it, so that the data are made once.
            big_bytes: size("--big", "4G", "256M")?,
        };
        let rounds = usize::try_from(size("--rounds", "3", "1")?).unwrap_or(1).max(1);
        let tools = match args.value("--tools")? {
            None => TOOLS.iter().collect(),
            Some(names) => select(&names, TOOLS.iter().map(|tool| (tool.name, tool)))?,
        };
        let rows = match args.value("--steps")? {
            None => ROWS.to_vec(),
            Some(names) => select(&names, ROWS.into_iter().map(|row| (row.0, row)))?,
        };
        let write = args.value("--write")?;
        args.finish()?;
        Ok(Self { shape, rounds, tools, rows, write })
    }
}

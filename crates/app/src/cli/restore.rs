//! `retoma restore`.

use super::ls::{WhichArgs, inside};
use super::restore_table::{self, Asked};
use super::target::{self, TargetArgs};
use crate::context::Context;
use crate::exit::Exit;
use crate::output::progress::Display;
use crate::output::{self, table};
use retoma_control::recover::{self, Place, PlannedRecovery, Report, Request};
use retoma_control::{Interrupt, paths, postgres};
use retoma_core::decide::recovery::{Goal, Target};
use retoma_core::manifest::{Component, ComponentKind, Manifest};
use retoma_core::units::{ByteSize, counted, span};
use retoma_core::{Error, ErrorKind, Result, ResultExt as _, error::codes};
use retoma_repo::format::snapshot::Snapshot;
use retoma_repo::index::Index;
use retoma_repo::ops::find;
use retoma_repo::restore::{self, Outcome, Plan};
use retoma_repo::{Repository, SnapshotId};
use retoma_sources::postgres::facts_of;
use retoma_sources::sqlite;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// The component
    component: String,
    /// Paths in it, relative to its folder or absolute (default: everything)
    path: Vec<String>,
    /// The folder to restore into: it gets what the component's path holds. What is there already is compared and only
    /// the difference is written
    #[arg(long, short = 't', value_name = "DIR")]
    target: PathBuf,
    /// Delete what is in the target and not in the snapshot
    #[arg(long)]
    delete: bool,
    /// Take files of the same size and time for right without reading them
    #[arg(long)]
    trust_mtime: bool,
    /// PostgreSQL: bring only this table (DATABASE.SCHEMA.TABLE) or database out, as a file of SQL in the target. The whole
    /// server is restored and recovered in a scratch folder there, and removed again
    #[arg(long, value_name = "TABLE", conflicts_with_all = ["path", "delete", "trust_mtime"])]
    table: Option<String>,
    /// Say what would be done, and do nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    point: TargetArgs,
}

/// A database server that is not only laid down but recovered to a point in time.
struct Server {
    component: Component,
    planned: PlannedRecovery,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let folder = paths::target_folder(&args.target, "--target")?;
    let loaded = context.manifest()?;
    let repository = context.open(&loaded.manifest)?;
    if let Some(table) = &args.table {
        let (snapshot, at) = args.which.named();
        let asked = Asked {
            component: &args.component,
            table,
            goal: args.point.goal(at)?,
            snapshot,
            target: &args.target,
            dry_run: args.dry_run,
        };
        return restore_table::run(context, &loaded.manifest, &repository, asked);
    }
    let server = server(context, args, &loaded.manifest, &repository)?;
    let (id, snapshot) = match &server {
        Some((id, _)) => (*id, repository.snapshot(*id)?),
        None => find::snapshot(&repository, &args.which.selector(&args.component)?)?,
    };
    let server = server.map(|(_, server)| server);
    // What a damaged index file names cannot be restored; the plan knows whether this snapshot needs it.
    let index = repository.load_readable_index()?;
    let replaces = args.delete && args.path.is_empty();
    for care in postgres::check_restore(&repository, &index, &snapshot, &folder, replaces)? {
        context.printer.warning(&care);
    }
    let root = snapshot.paths.first().map_or("/", String::as_str);
    let paths = if args.path.is_empty() {
        vec![root.as_bytes().to_vec()]
    } else {
        args.path.iter().map(|path| inside(root, Some(path)).into_bytes()).collect()
    };
    let options = restore::Options {
        paths,
        strip: Some(root.as_bytes().to_vec()),
        root_metadata: true,
        trust_mtime: args.trust_mtime,
        delete_extra: args.delete,
        whole: vec![root.as_bytes().to_vec()],
        ..restore::Options::default()
    };
    let started = Instant::now();
    let plan = restore::plan(&repository, &index, snapshot.tree, &options, &folder)?;
    let (files, bytes, extra) = (plan.files(), plan.bytes(), plan.extra().len());
    let target = folder.display();
    context.printer.note(&format!(
        "snapshot {} into `{target}`: {}, {}",
        id.short(),
        counted(files, "file", "files"),
        ByteSize(bytes)
    ));
    for path in plan.extra() {
        context.printer.note(&format!("delete {}", table::printable(&path.display().to_string())));
    }
    if args.dry_run {
        let value = json!({ "component": args.component, "kind": snapshot.kind(), "snapshot": id.to_hex(), "dry_run": true,
                            "files": files, "total_bytes": bytes, "delete": extra });
        context.printer.json("retoma.restore/1", value);
        return Ok(Exit::Ok);
    }
    if extra > 0
        && !context.confirm(&format!("delete {} in `{target}`?", counted(extra, "entry", "entries")))?
    {
        return Ok(Exit::Failed);
    }
    let database = (snapshot.kind() == Some("sqlite")).then(|| folder.join(file_name(root)));
    let outcome = apply(context, plan, database.as_deref())?;
    let mut report = None;
    if let (Some(server), true) = (&server, outcome.is_complete()) {
        report = Some(recover_to_target(context, server, (&repository, &index, &snapshot), &folder)?);
    }
    let done = Done { id, kind: snapshot.kind(), outcome, report, elapsed: started.elapsed() };
    Ok(finish(context, args, done, index.unreadable()))
}

/// The server that is to be recovered, and from which snapshot; `None` where files are all that is asked for.
fn server(
    context: &Context,
    args: &Args,
    manifest: &Manifest,
    repository: &Repository,
) -> Result<Option<(SnapshotId, Server)>> {
    let (named, at) = args.which.named();
    let goal = args.point.goal(at)?;
    if goal == Goal::default() {
        return Ok(None);
    }
    let component = manifest.component(&args.component);
    let is_server = component.is_some_and(|component| component.kind() == ComponentKind::Postgres);
    // Files and embedded databases are as of a snapshot.
    let knows_times = matches!(goal.target, Target::Time(_)) && goal.inclusive && goal.timeline.is_none();
    let component = match component {
        Some(component) if is_server && args.path.is_empty() => component,
        _ if knows_times => return Ok(None),
        _ => {
            let message = "this target is for a whole PostgreSQL server";
            return Err(Error::new(ErrorKind::Invalid, codes::USAGE, message)
                .with_hint("name a component of kind `postgres`, without paths in it"));
        }
    };
    let name = context.not_alone(manifest)?;
    let request = Request {
        repository_name: name.as_deref(),
        goal,
        snapshot: named,
        ..Request::newest(repository, Place::InPlace)
    };
    let (id, planned) = recover::plan_server(&request, manifest, component)?;
    context.printer.note(&target::in_words(&component.name, &planned));
    planned.care.iter().for_each(|care| context.printer.warning(care));
    Ok(Some((id, Server { component: component.clone(), planned })))
}

fn recover_to_target(
    context: &Context,
    server: &Server,
    (repository, index, snapshot): (&Repository, &Index, &Snapshot),
    data: &Path,
) -> Result<Report> {
    let facts = facts_of(repository, index, &snapshot.tree)?
        .ok_or_else(|| Error::internal("the facts about a server are gone"))?;
    let (supervisor, interrupt) = (super::shell::supervisor()?, Interrupt::new(context.interrupt.flag()));
    let Server { component, planned } = server;
    recover::recover_restored(component, &facts, planned, data, &supervisor, &interrupt)
        .with_context(|| format!("recover the restored `{}`", component.name))
}

struct Done<'a> {
    id: SnapshotId,
    kind: Option<&'a str>,
    outcome: Outcome,
    report: Option<Report>,
    elapsed: Duration,
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Carries the plan out. What an old SQLite database left beside itself must not be taken for the restored one's.
fn apply(context: &Context, plan: Plan<'_>, database: Option<&Path>) -> Result<Outcome> {
    if let Some(database) = database {
        sqlite::prepare_target(database, sqlite::Options::default())?;
    }
    let progress = context.interrupt.progress();
    let display = Display::start(context.printer, "restore", &progress);
    let outcome = restore::apply(plan, &progress);
    drop(display);
    let outcome = outcome?;
    if let Some(database) = database {
        sqlite::after_restore(database)?;
    }
    say(context, &outcome);
    Ok(outcome)
}

/// Says what came of it.
fn finish(
    context: &Context,
    args: &Args,
    Done { id, kind, outcome, report, elapsed }: Done<'_>,
    damage: &[Error],
) -> Exit {
    let complete = outcome.is_complete();
    context.printer.data(&format!(
        "{}: {} in {}, {} written, {} there already",
        args.component,
        counted(outcome.files, "file", "files"),
        span(elapsed),
        ByteSize(outcome.bytes_written),
        ByteSize(outcome.bytes_reused)
    ));
    if let Some(report) = &report {
        context.printer.data(&target::reached_in_words(report));
    }
    let stopped = outcome.stopped.map(|error| error.context("restore"));
    let failed = outcome.failed.iter().map(|failed| {
        json!({ "path": table::path(&failed.path), "code": failed.error.code().as_str(), "message": failed.error.to_string() })
    });
    let value = json!({
        "component": args.component, "kind": kind, "snapshot": id.to_hex(), "target": args.target,
        "dry_run": false, "complete": complete, "recovery": report.as_ref().map(target::reached), "files": outcome.files,
        "written_bytes": outcome.bytes_written, "reused_bytes": outcome.bytes_reused,
        "extra_deleted": outcome.extra_deleted, "duration_seconds": elapsed.as_secs_f64(), "failed": failed.collect::<Vec<_>>(),
        "stopped": stopped.as_ref().map(output::error_object),
        "damage": damage.iter().map(output::error_object).collect::<Vec<_>>(),
    });
    context.printer.json("retoma.restore/1", value);
    for error in damage {
        context.printer.explain(error);
    }
    match stopped {
        Some(error) => {
            context.printer.explain(&error);
            Exit::of(&error)
        }
        None if complete && damage.is_empty() => Exit::Ok,
        None => Exit::Incomplete,
    }
}

fn say(context: &Context, outcome: &Outcome) {
    for failed in &outcome.failed {
        context.printer.warning(&format!("not restored: {}: {}", table::path(&failed.path), failed.error));
    }
    for path in &outcome.not_attempted {
        context.printer.warning(&format!("not restored: {}: not attempted", table::path(path)));
    }
    let notes = &outcome.notes;
    let note = |count: u64, one: &str, many: &str, what: &str| {
        if count > 0 {
            context.printer.note(&format!("note: {} {what}", counted(count, one, many)));
        }
    };
    note(notes.owners, "entry", "entries", "kept our owner: only root can give files away");
    note(notes.xattrs, "extended attribute", "extended attributes", "could not be set without root");
    note(notes.set_ids, "set-user-id bit", "set-user-id bits", "left out, since the owner could not be set");
    note(notes.skipped, "socket", "sockets", "left out");
}

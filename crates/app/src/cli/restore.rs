//! `retoma restore`.

use super::ls::{WhichArgs, inside};
use super::restore_spaces::Spaces;
use super::restore_table::{self, Asked};
use super::several;
use super::target::{self, TargetArgs};
use crate::context::{AsOfArgs, Context};
use crate::exit::Exit;
use crate::output::progress::Display;
use crate::output::{self, table};
use retoma_control::choose::{Chosen, Wanted};
use retoma_control::recover::{self, Place, PlannedRecovery, Report, Request};
use retoma_control::{Interrupt, paths, postgres};
use retoma_core::decide::recovery::{Goal, Target};
use retoma_core::manifest::{Component, ComponentKind, Manifest};
use retoma_core::units::{ByteSize, counted, span};
use retoma_core::{Error, ErrorKind, Result, ResultExt as _, error::codes};
use retoma_repo::format::snapshot::Snapshot;
use retoma_repo::index::Index;
use retoma_repo::ops::find;
use retoma_repo::restore::{self, Outcome, OwnersBy, Plan};
use retoma_repo::{Repository, SnapshotId};
use retoma_sources::postgres::PostgresFacts;
use retoma_sources::sqlite;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools)] // Flags of a command line.
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
    /// Keep the numbers of owners and groups, also where this machine gives their names other ones
    #[arg(long)]
    numeric_ids: bool,
    /// PostgreSQL: the folder for the tablespaces of a server that has some; it gets one folder for each
    #[arg(long, value_name = "DIR", conflicts_with_all = ["path", "table"])]
    tablespaces: Option<PathBuf>,
    /// PostgreSQL: bring only this table (DATABASE.SCHEMA.TABLE) or database out, as a file of SQL in the target. The whole
    /// server is restored and recovered in a scratch folder there, and removed again
    #[arg(long, value_name = "TABLE", conflicts_with_all = ["path", "delete", "trust_mtime", "numeric_ids"])]
    table: Option<String>,
    /// Say what would be done, and do nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    point: TargetArgs,
    #[command(flatten)]
    as_of: AsOfArgs,
}

/// A database server that is not only laid down but recovered to a point in time.
struct Server {
    component: Component,
    planned: PlannedRecovery,
}

impl Args {
    fn owners(&self) -> OwnersBy {
        if self.numeric_ids { OwnersBy::Number } else { OwnersBy::Name }
    }
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let folder = paths::target_folder(&args.target, "--target")?;
    let loaded = context.manifest()?;
    let chosen = choose(context, args, &loaded.manifest)?;
    let repository = chosen.repository.clone();
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
        let done = restore_table::run(context, &loaded.manifest, &repository, asked);
        several::say_taken(context, &chosen, true);
        return done;
    }
    let server = server(context, args, &loaded.manifest, &repository)?;
    let (id, snapshot) = match &server {
        Some((id, _)) => (*id, repository.snapshot(*id)?),
        None => find::snapshot(&repository, &args.which.selector(&args.component)?)?,
    };
    let server = server.map(|(_, server)| server);
    let (all, _) = repository.readable_snapshots()?;
    if let Some((suspect, found)) = find::mass_change(&all, &args.component, snapshot.time.0) {
        context.printer.warning(&target::mass_change_in_words(&args.component, (*suspect, found.time.0)));
    }
    // What a damaged index file names cannot be restored; the plan knows whether this snapshot needs it.
    let index = repository.load_readable_index()?;
    let from = (&repository, &index, &snapshot);
    let is_whole = args.path.is_empty();
    for care in postgres::check_restore(&repository, &index, &snapshot, &folder, args.delete && is_whole)? {
        context.printer.warning(&care);
    }
    let spaces = Spaces::new(from, &folder, args.tablespaces.as_deref(), (is_whole, args.delete))?;
    let started = Instant::now();
    let mut plans = vec![plan(from, args, &spaces, &folder)?];
    plans.extend(spaces.plans(from, (args.trust_mtime, args.owners()))?);
    let extra = announce(context, id, &plans, &folder);
    if args.dry_run {
        let (files, bytes) = total(&plans);
        let value = json!({ "component": args.component, "kind": snapshot.kind(), "snapshot": id.to_hex(), "dry_run": true,
                            "files": files, "total_bytes": bytes, "delete": extra, "tablespaces": spaces.json() });
        context.printer.json("retoma.restore/1", value);
        return Ok(Exit::Ok);
    }
    let question = format!("delete {} in `{}`?", counted(extra, "entry", "entries"), folder.display());
    if extra > 0 && !context.confirm(&question)? {
        return Ok(Exit::Failed);
    }
    let database = (snapshot.kind() == Some("sqlite")).then(|| folder.join(file_name(root(&snapshot))));
    let outcome = apply(context, plans, database.as_deref())?;
    if outcome.stopped.is_none() {
        spaces.link(&folder)?;
    }
    let mut report = None;
    if let (Some(server), Some(facts), true) = (&server, spaces.facts(), outcome.is_complete()) {
        report = Some(recover_to_target(context, server, facts, &folder)?);
    }
    several::say_taken(context, &chosen, true);
    let tablespaces = spaces.json();
    let elapsed = started.elapsed();
    let done = Done { id, kind: snapshot.kind(), outcome, tablespaces, report, elapsed, chosen: &chosen };
    Ok(finish(context, args, done, index.unreadable()))
}

fn root(snapshot: &Snapshot) -> &str {
    snapshot.paths.first().map_or("/", String::as_str)
}

/// What is restored into the target.
fn plan<'a>(
    (repository, index, snapshot): (&'a Repository, &'a Index, &Snapshot),
    args: &Args,
    spaces: &Spaces,
    folder: &Path,
) -> Result<Plan<'a>> {
    let root = root(snapshot);
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
        owners: args.owners(),
        delete_extra: args.delete,
        whole: vec![root.as_bytes().to_vec()],
        leave_out: spaces.leave_out(),
        ..restore::Options::default()
    };
    restore::plan(repository, index, snapshot.tree, &options, folder)
}

/// Files and bytes of all plans.
fn total(plans: &[Plan<'_>]) -> (u64, u64) {
    (plans.iter().map(Plan::files).sum(), plans.iter().map(Plan::bytes).sum())
}

/// Says what will be done; gives the number of entries that will be deleted.
fn announce(context: &Context, id: SnapshotId, plans: &[Plan<'_>], folder: &Path) -> usize {
    let (files, bytes) = total(plans);
    context.printer.note(&format!(
        "snapshot {} into `{}`: {}, {}",
        id.short(),
        folder.display(),
        counted(files, "file", "files"),
        ByteSize(bytes)
    ));
    let extra: Vec<PathBuf> = plans.iter().flat_map(Plan::extra).collect();
    for path in &extra {
        context.printer.note(&format!("delete {}", table::printable(&path.display().to_string())));
    }
    extra.len()
}

/// The repository that is read, with the component's others as its copies. One that is chosen on the command line is the only one.
fn choose(context: &Context, args: &Args, manifest: &Manifest) -> Result<Chosen> {
    let as_of = args.as_of.time()?;
    // As it was is one repository alone: what its copies have now says nothing about then.
    let is_free = context.repository.is_none() && as_of.is_none();
    let of_component = manifest.component(&args.component).filter(|_| is_free);
    let candidates = match of_component {
        Some(component) => {
            let described = component.repositories.iter().chain(&component.copies);
            let described = described.filter_map(|name| manifest.repository(name));
            described.map(|it| several::of_manifest(it, None)).collect()
        }
        None => vec![several::of_manifest(context.chosen(manifest)?, as_of)],
    };
    let selector = args.which.selector(&args.component)?;
    let wanted = move |repository: &Repository| several::selected(repository, &selector);
    several::choose_and_say(context, candidates, &(Arc::new(wanted) as Arc<Wanted>))
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
    let request = Request { goal, snapshot: named, ..Request::newest(repository, Place::InPlace) };
    let (id, planned) = recover::plan_server(&request, component)?;
    context.printer.note(&target::in_words(&component.name, &planned));
    planned.care.iter().for_each(|care| context.printer.warning(care));
    Ok(Some((id, Server { component: component.clone(), planned })))
}

fn recover_to_target(
    context: &Context,
    server: &Server,
    facts: &PostgresFacts,
    data: &Path,
) -> Result<Report> {
    let (supervisor, interrupt) = (super::shell::supervisor()?, Interrupt::new(context.interrupt.flag()));
    let Server { component, planned } = server;
    recover::recover_restored(component, facts, planned, data, &supervisor, &interrupt)
        .with_context(|| format!("recover the restored `{}`", component.name))
}

struct Done<'a> {
    id: SnapshotId,
    kind: Option<&'a str>,
    outcome: Outcome,
    tablespaces: Value,
    report: Option<Report>,
    elapsed: Duration,
    chosen: &'a Chosen,
}

fn file_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Carries the plans out, one after the other. What an old SQLite database left beside itself must not be taken for the restored one's.
fn apply(context: &Context, plans: Vec<Plan<'_>>, database: Option<&Path>) -> Result<Outcome> {
    if let Some(database) = database {
        sqlite::prepare_target(database, sqlite::Options::default())?;
    }
    let mut outcome = Outcome::default();
    for plan in plans {
        let progress = context.interrupt.progress();
        let display = Display::start(context.printer, "restore", &progress);
        let applied = restore::apply(plan, &progress);
        drop(display);
        outcome = outcome.and(applied?);
        if outcome.stopped.is_some() {
            break;
        }
    }
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
    Done { id, kind, outcome, tablespaces, report, elapsed, chosen }: Done<'_>,
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
        "dry_run": false, "complete": complete, "tablespaces": tablespaces, "recovery": report.as_ref().map(target::reached), "files": outcome.files,
        "written_bytes": outcome.bytes_written, "reused_bytes": outcome.bytes_reused,
        "extra_deleted": outcome.extra_deleted, "duration_seconds": elapsed.as_secs_f64(), "failed": failed.collect::<Vec<_>>(),
        "stopped": stopped.as_ref().map(output::error_object),
        "damage": damage.iter().map(output::error_object).collect::<Vec<_>>(), "read_from": several::object(chosen),
    });
    context.printer.json("retoma.restore/1", value);
    for error in damage {
        context.printer.explain(error);
    }
    // A copy has what the damaged index files name, or a path is missing.
    let is_made_up_for = damage.is_empty() || chosen.repository.copies().is_some();
    match stopped {
        Some(error) => {
            context.printer.explain(&error);
            Exit::of(&error)
        }
        None if complete && is_made_up_for => Exit::Ok,
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

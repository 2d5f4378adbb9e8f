//! `retoma copy`.

use crate::context::{self, Context};
use crate::exit::Exit;
use crate::output;
use crate::output::progress::Display;
use retoma_control::copy::{self as routes, Route};
use retoma_core::manifest::{Component, Manifest};
use retoma_core::units::{ByteSize, counted};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::format::snapshot::{Snapshot, TAG_MANIFEST};
use retoma_repo::ops::copy::{Choice, Copied, Copy, CopyPlan};
use retoma_repo::wal::copy::{self as wal, WalCopied, WalPlan};
use retoma_repo::{Repository, SnapshotId};
use serde_json::{Value, json};
use std::collections::BTreeMap;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Components to copy (default: all)
    component: Vec<String>,
    /// The repository to copy from (default: the one that the target is a copy of, or the first of each component)
    #[arg(long, value_name = "REPOSITORY")]
    from: Option<String>,
    /// The repository to copy into (default: all others of each component)
    #[arg(long, value_name = "REPOSITORY")]
    to: Option<String>,
    /// Copy the snapshot with this id alone
    #[arg(long, value_name = "ID", conflicts_with = "component")]
    snapshot: Option<String>,
    /// Fail when this repository is not there, instead of making it: its disk may not be mounted
    #[arg(long, value_name = "NAME")]
    existing: Vec<String>,
    /// Say what would be copied, and do nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let manifest = context.manifest()?.manifest;
    let mut results = Results::default();
    let mut sources: BTreeMap<String, Repository> = BTreeMap::new();
    for route in chosen(context, &manifest, args)? {
        match one(context, &manifest, args, &route, &mut sources) {
            Ok((exit, value)) => {
                results.incomplete |= exit == Exit::Incomplete;
                results.done.push(value);
            }
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            // One repository that is away must not keep the others from getting their copies.
            Err(error) => results.failed.push((route, error)),
        }
    }
    results.end(context, args.dry_run)
}

/// The copies to be made.
fn chosen(context: &Context, manifest: &Manifest, args: &Args) -> Result<Vec<Route>> {
    let components: Vec<&Component> = if args.component.is_empty() {
        manifest.components.iter().collect()
    } else {
        args.component.iter().map(|name| context::component(manifest, name)).collect::<Result<_>>()?
    };
    for name in args.from.iter().chain(&args.to) {
        context::repository(manifest, name)?;
    }
    // An id is one of one repository.
    let first = if args.snapshot.is_some() || context.repository.is_some() {
        Some(context.chosen(manifest)?.name.as_str())
    } else {
        None
    };
    let routes = routes::routes(manifest, &components, args.from.as_deref().or(first), args.to.as_deref());
    if routes.is_empty() {
        return Err(Error::new(
            ErrorKind::Invalid,
            codes::USAGE,
            "there is no other repository to copy into",
        )
        .with_hint("name one with `--to`, or give the component several `repositories` in the manifest"));
    }
    Ok(routes)
}

#[derive(Default)]
struct Results {
    done: Vec<Value>,
    failed: Vec<(Route, Error)>,
    incomplete: bool,
}

impl Results {
    fn end(mut self, context: &Context, dry_run: bool) -> Result<Exit> {
        if self.done.is_empty() && self.failed.len() == 1 {
            return self.failed.pop().map_or(Ok(Exit::Failed), |(_, error)| Err(error));
        }
        self.failed.iter().for_each(|(_, error)| context.printer.explain(error));
        let failed = self.failed.iter().map(|(route, error)| {
            let mut value = output::error_object(error);
            value["from"] = json!(route.from);
            value["to"] = json!(route.to);
            value
        });
        let value = json!({ "dry_run": dry_run, "copies": self.done, "failed": failed.collect::<Vec<_>>() });
        context.printer.json("retoma.copy/1", value);
        Ok(match (self.done.is_empty(), self.failed.first()) {
            (true, Some((_, first))) => Exit::of(first),
            (false, Some(_)) => Exit::Incomplete,
            _ if self.incomplete => Exit::Incomplete,
            _ => Exit::Ok,
        })
    }
}

fn one(
    context: &Context,
    manifest: &Manifest,
    args: &Args,
    route: &Route,
    sources: &mut BTreeMap<String, Repository>,
) -> Result<(Exit, Value)> {
    if !sources.contains_key(&route.from) {
        let described = context::repository(manifest, &route.from)?;
        let opened = retoma_control::open::open_repository(described, false)?;
        sources.insert(route.from.clone(), opened.repository);
    }
    let from = sources[&route.from].clone();
    let described = context::repository(manifest, &route.to)?;
    let target = if args.existing.contains(&route.to) {
        retoma_control::open::open_repository(described, false)?
    } else {
        routes::open_target(described, args.dry_run)?
    };
    if target.created && !args.dry_run {
        context.printer.warning(&format!("there was no repository at `{}`: made a new one", described.url));
    }
    let to = &target.repository;
    let copy = if args.dry_run { Copy::look(&from, to) } else { Copy::begin(&from, to)? };
    let choice = match &args.snapshot {
        Some(id) => Choice::Id(id.clone()),
        None => Choice::Components(route.components.clone()),
    };
    let progress = context.interrupt.progress();
    let display =
        Display::counting(context.printer, "look for what is missing", &progress, ("tree", "trees"));
    let components: &[String] = if args.snapshot.is_some() { &[] } else { &route.components };
    let plan = copy.plan(&choice, &progress).and_then(|plan| Ok((plan, wal::plan(&from, to, components)?)));
    drop(display);
    let (plan, wal_plan) = plan?;
    show(context, route, &plan, &wal_plan);
    let mut value = object(route, target.created, &plan, &wal_plan);
    let rows: Vec<(SnapshotId, Snapshot)> = plan.snapshots.clone();
    let mut is_whole = plan.unreadable.is_empty();
    let copied = if args.dry_run {
        None
    } else {
        let progress = context.interrupt.progress();
        let doing = format!("copy into {}", route.to);
        let display = Display::counting(context.printer, &doing, &progress, ("blob", "blobs"));
        let copied = copy.apply(plan, &progress);
        drop(display);
        Some(copied?)
    };
    if let Some(copied) = &copied {
        say(context, route, &rows, copied);
        let wal = copy_wal(context, route, (&from, to), &wal_plan)?;
        is_whole &= copied.left.is_empty() && wal.damaged.is_empty();
        value["done"] = done(copied, &wal);
    }
    value["snapshots"] =
        rows.iter().map(|(id, snapshot)| snapshot_object(*id, snapshot, copied.as_ref())).collect();
    Ok((if is_whole { Exit::Ok } else { Exit::Incomplete }, value))
}

fn copy_wal(
    context: &Context,
    route: &Route,
    (from, to): (&Repository, &Repository),
    plan: &WalPlan,
) -> Result<WalCopied> {
    let progress = context.interrupt.progress();
    let doing = format!("copy WAL into {}", route.to);
    let display = Display::counting(context.printer, &doing, &progress, ("object", "objects"));
    let copied = wal::apply(from, to, plan, &progress);
    drop(display);
    let copied = copied?;
    if copied.objects > 0 {
        context.printer.data(&format!("{} of WAL copied", counted(copied.objects, "object", "objects")));
    }
    copied.damaged.iter().for_each(|error| context.printer.explain(error));
    Ok(copied)
}

fn show(context: &Context, route: &Route, plan: &CopyPlan, wal: &WalPlan) {
    let printer = context.printer;
    let there = match plan.there {
        0 => String::new(),
        there => format!(", {there} there already"),
    };
    printer.data(&format!(
        "`{}` → `{}`: {} to copy{there}; {} missing ({})",
        route.from,
        route.to,
        counted(plan.snapshots.len(), "snapshot", "snapshots"),
        counted(plan.missing.count, "blob", "blobs"),
        ByteSize(plan.missing.size_bytes)
    ));
    if wal.objects > 0 {
        let count = counted(wal.objects, "object", "objects");
        printer.data(&format!("WAL: {count} missing ({})", ByteSize(wal.bytes)));
    }
    plan.unreadable.iter().for_each(|error| printer.explain(error));
    if !plan.lost_packs.is_empty() {
        printer.warning(&format!(
            "`{}` lacks {} that its index names; what the copied snapshots need of them is sent again. Run `retoma verify -r {}`",
            route.to,
            counted(plan.lost_packs.len(), "pack", "packs"),
            route.to
        ));
    }
}

fn what(snapshot: &Snapshot) -> &str {
    match snapshot.component() {
        Some(component) => component,
        None if snapshot.has_tag(TAG_MANIFEST) => "the manifest",
        None => "?",
    }
}

fn say(context: &Context, route: &Route, rows: &[(SnapshotId, Snapshot)], copied: &Copied) {
    let printer = context.printer;
    for (id, snapshot) in rows {
        let (name, time) =
            (output::table::printable(what(snapshot)), snapshot.time.0.strftime("%Y-%m-%dT%H:%M:%SZ"));
        if let Some(done) = copied.snapshots.iter().find(|done| done.source == *id) {
            printer.data(&format!(
                "{name} of {time}: {} is {} in `{}`",
                id.short(),
                done.target.short(),
                route.to
            ));
        }
        if let Some((_, blob)) = copied.left.iter().find(|(left, _)| left == id) {
            printer.data(&format!(
                "{name} of {time}: {} not copied: blob {} cannot be had",
                id.short(),
                blob.short()
            ));
        }
    }
    copied.lost.iter().for_each(|lost| printer.explain(&lost.error));
    if !copied.snapshots.is_empty() {
        printer.data(&format!(
            "{} copied, {} sent, {} stored",
            counted(copied.snapshots.len(), "snapshot", "snapshots"),
            counted(copied.blobs, "blob", "blobs"),
            ByteSize(copied.stored_bytes)
        ));
    }
}

fn object(route: &Route, created: bool, plan: &CopyPlan, wal: &WalPlan) -> Value {
    json!({
        "from": route.from, "to": route.to, "created": created, "components": route.components, "there": plan.there,
        "missing_blobs": plan.missing.count, "missing_bytes": plan.missing.size_bytes,
        "unreadable": plan.unreadable.iter().map(output::error_object).collect::<Vec<_>>(),
        "lost_packs": plan.lost_packs.iter().map(|pack| pack.id.to_hex()).collect::<Vec<_>>(),
        "wal": { "objects": wal.objects, "bytes": wal.bytes }, "done": null,
    })
}

fn snapshot_object(id: SnapshotId, snapshot: &Snapshot, copied: Option<&Copied>) -> Value {
    let done = copied.and_then(|copied| copied.snapshots.iter().find(|done| done.source == id));
    let lacks = copied.and_then(|copied| copied.left.iter().find(|(left, _)| *left == id));
    json!({
        "component": snapshot.component(), "time": snapshot.time.0.to_string(), "source": id.to_hex(),
        "snapshot": done.map(|done| done.target.to_hex()), "lacks": lacks.map(|(_, blob)| blob.to_hex()),
    })
}

fn done(copied: &Copied, wal: &WalCopied) -> Value {
    let lost = copied.lost.iter().map(|lost| {
        let mut value = output::error_object(&lost.error);
        value["blob"] = json!(lost.id.to_hex());
        value
    });
    json!({
        "snapshots": copied.snapshots.len(), "blobs": copied.blobs, "stored_bytes": copied.stored_bytes,
        "lost_blobs": lost.collect::<Vec<_>>(), "wal_objects": wal.objects,
        "damaged_wal": wal.damaged.iter().map(output::error_object).collect::<Vec<_>>(),
    })
}

//! `retoma prune`.

use crate::context::Context;
use crate::exit::Exit;
use crate::output::progress::Display;
use retoma_control::Interrupt;
use retoma_control::wal::keep::{self, Removed, ServerPlan};
use retoma_core::manifest;
use retoma_core::units::{ByteSize, Duration, counted};
use retoma_core::{ErrorKind, Result};
use retoma_repo::PackId;
use retoma_repo::host;
use retoma_repo::ops::prune::{self, Options, PrunePlan, Pruned};
use retoma_repo::ops::renew;
use serde_json::json;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How long a pack stays marked before it is deleted; 0s deletes at once and needs the repository for itself
    #[arg(long, value_name = "TIME", default_value = "24h", value_parser = grace)]
    grace: std::time::Duration,
    /// Copy what is needed out of packs with more waste than so many per cent
    #[arg(long, value_name = "PERCENT", default_value_t = 20, value_parser = clap::value_parser!(u8).range(0..=100))]
    max_unused: u8,
    /// Go on where there are data and not a single snapshot: all of them are deleted
    #[arg(long)]
    delete_everything: bool,
    /// Say what would be done, and do nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
}

fn grace(text: &str) -> std::result::Result<std::time::Duration, String> {
    if matches!(text, "0" | "0s") {
        return Ok(std::time::Duration::ZERO);
    }
    text.parse::<Duration>().map(Duration::to_std).map_err(|_| "write it as 24h, 30m or 0s".to_owned())
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let loaded = context.manifest()?;
    let repository = context.open(&loaded.manifest)?;
    let options = Options {
        grace: args.grace,
        repack_unused_percent: args.max_unused,
        without_snapshots: args.delete_everything,
        ..Options::new(host::now())
    };
    let progress = context.interrupt.progress();
    let display = Display::start(context.printer, "look for what is needed", &progress);
    let plan = prune::plan(&repository, &options, &progress)
        .and_then(|plan| Ok((plan, keep::plan(&repository, options.now, args.grace)?)));
    drop(display);
    let (plan, wal) = plan?;
    show(context, &plan);
    show_wal(context, &wal);
    let locked = locked(context, context.chosen(&loaded.manifest)?, &plan)?;
    let nothing = plan.is_empty() && wal.iter().all(ServerPlan::is_empty);
    if args.dry_run || nothing {
        context.printer.json("retoma.prune/1", object(&plan, &wal, &locked, args.dry_run));
        return Ok(Exit::Ok);
    }
    if !context.confirm("do this?")? {
        return Ok(Exit::Failed);
    }
    let mut value = object(&plan, &wal, &locked, false);
    let display = Display::start(context.printer, "prune", &progress);
    let pruned = prune::apply(&repository, plan, &progress).and_then(|pruned| {
        Ok((
            pruned,
            keep::apply(
                &repository,
                &wal,
                options.now,
                args.grace,
                &Interrupt::new(context.interrupt.flag()),
            )?,
        ))
    });
    drop(display);
    let (pruned, removed) = pruned?;
    context.printer.data(&format!(
        "{} deleted ({}), {} marked ({}), {} copied",
        counted(pruned.removed_packs, "pack", "packs"),
        ByteSize(pruned.removed_bytes),
        pruned.marked_packs,
        ByteSize(pruned.marked_bytes),
        pruned.repacked_packs
    ));
    if removed.objects > 0 {
        let count = counted(removed.objects, "object", "objects");
        context.printer.data(&format!("{count} of WAL deleted ({})", ByteSize(removed.bytes)));
    }
    if let Some(map) = value.as_object_mut() {
        map.insert("done".to_owned(), done(&pruned, removed));
    }
    context.printer.json("retoma.prune/1", value);
    Ok(Exit::Ok)
}

fn show(context: &Context, plan: &PrunePlan) {
    let sum = |sizes: &mut dyn Iterator<Item = u64>| ByteSize(sizes.sum());
    let removed = format!(
        "{}, {}",
        counted(plan.remove.len(), "pack", "packs"),
        sum(&mut plan.remove.iter().map(|pack| pack.size_bytes))
    );
    let copied = format!(
        "{}, {} of it needed",
        counted(plan.repack.len(), "pack", "packs"),
        sum(&mut plan.repack.iter().map(|pack| pack.used_bytes))
    );
    let swept = format!(
        "{} old enough, {}",
        counted(plan.sweep.len(), "mark", "marks"),
        sum(&mut plan.sweep.iter().map(|mark| mark.size_bytes))
    );
    // With no grace nothing is marked: what goes, goes now.
    let going = if plan.options.is_immediate() {
        vec![format!("copy:     {copied}; the old ones are deleted now"), format!("delete:   {removed}, now")]
    } else {
        vec![format!("copy:     {copied}"), format!("mark:     {removed}"), format!("delete:   {swept}")]
    };
    let shares = [
        format!(
            "needed:   {}, {}",
            counted(plan.used.count, "blob", "blobs"),
            ByteSize(plan.used.size_bytes)
        ),
        format!(
            "waste:    {}, {}",
            counted(plan.unused.count, "blob", "blobs"),
            ByteSize(plan.unused.size_bytes)
        ),
    ];
    for line in shares.iter().chain(&going) {
        context.printer.data(line);
    }
    for mark in &plan.waiting {
        context.printer.data(&format!(
            "wait:     {}, {}, until {}",
            counted(mark.packs, "pack", "packs"),
            ByteSize(mark.size_bytes),
            mark.until.0
        ));
    }
}

fn show_wal(context: &Context, plans: &[ServerPlan]) {
    for plan in plans {
        let name = format!("WAL of {}, server {}", plan.component, plan.system_identifier);
        let going = match plan {
            _ if plan.is_without_snapshot => "all stays: no snapshot of this server is there".to_owned(),
            _ if plan.is_postponed => "stays for now: a backup runs that may need it".to_owned(),
            _ => format!(
                "delete {}, {}",
                counted(plan.objects.len(), "object", "objects"),
                ByteSize(plan.bytes)
            ),
        };
        let noted = if plan.floor.is_some() { "; less is needed than before, which is noted" } else { "" };
        context.printer.data(&format!("{name}: {going}{noted}"));
    }
}

fn object(
    plan: &PrunePlan,
    wal: &[ServerPlan],
    locked: &serde_json::Value,
    dry_run: bool,
) -> serde_json::Value {
    let at_once = plan.options.is_immediate();
    json!({
        "dry_run": dry_run,
        "used_bytes": plan.used.size_bytes, "unused_bytes": plan.unused.size_bytes,
        "repack_packs": plan.repack.len(), "mark_packs": if at_once { 0 } else { plan.remove.len() },
        "delete_packs": if at_once { plan.remove.len() } else { 0 }, "sweep_marks": plan.sweep.len(),
        "waiting": plan.waiting.iter().map(|mark| json!({ "packs": mark.packs, "size_bytes": mark.size_bytes, "until": mark.until.0.to_string() })).collect::<Vec<_>>(),
        "wal": wal.iter().map(|plan| json!({
            "component": plan.component, "kind": "postgres", "system_identifier": plan.system_identifier.to_string(),
            "delete_objects": plan.objects.len(), "delete_bytes": plan.bytes, "notes_floor": plan.floor.is_some(),
            "without_snapshot": plan.is_without_snapshot, "postponed": plan.is_postponed,
        })).collect::<Vec<_>>(),
        "locked": locked, "done": null,
    })
}

/// Which of the packs that go now are locked: their names go, and their bytes stay until the lock ends. That is no failure, and is said.
fn locked(
    context: &Context,
    described: &manifest::Repository,
    plan: &PrunePlan,
) -> Result<serde_json::Value> {
    let Some(locks) = retoma_control::open::locks(described)? else { return Ok(json!(null)) };
    let packs: Vec<PackId> = if plan.options.is_immediate() {
        plan.remove.iter().map(|pack| pack.id).chain(plan.repack.iter().map(|pack| pack.id)).collect()
    } else {
        plan.sweep.iter().flat_map(|mark| mark.indexed.iter().chain(&mark.unindexed)).copied().collect()
    };
    let (count, until) = match renew::locked_packs(&locks, &packs, plan.options.now.0) {
        Ok(found) => found,
        // Who prunes need not be allowed to look at locks.
        Err(error) if error.kind() == ErrorKind::Unauthorized => {
            context.printer.warning(&format!("what is deleted may be locked and stay: {error}"));
            return Ok(json!(null));
        }
        Err(error) => return Err(error),
    };
    if let Some(until) = until {
        // Where the credentials may not ask, it is as it must be.
        let keeps_versions = locks.bucket().map_or(true, |bucket| bucket.has_versions);
        let then = if keeps_versions {
            "deleted here, they stay as old versions, and no room is given back before the bucket's lifecycle rule removes those"
        } else {
            "the bucket keeps no versions and refuses to delete them until then (docs/immutability.md)"
        };
        context.printer.data(&format!(
            "locked:   {} of them, until {} at the latest: {then}",
            counted(count, "pack", "packs"),
            until.strftime("%Y-%m-%dT%H:%M:%SZ")
        ));
    }
    Ok(json!({ "packs": count, "until": until.map(|time| time.to_string()) }))
}

fn done(pruned: &Pruned, removed: Removed) -> serde_json::Value {
    json!({
        "removed_packs": pruned.removed_packs, "removed_bytes": pruned.removed_bytes,
        "marked_packs": pruned.marked_packs, "marked_bytes": pruned.marked_bytes,
        "repacked_packs": pruned.repacked_packs, "repacked_bytes": pruned.repacked_bytes,
        "needed_again": pruned.needed_again.len(), "postponed": pruned.postponed.len(),
        "removed_wal_objects": removed.objects, "removed_wal_bytes": removed.bytes,
    })
}

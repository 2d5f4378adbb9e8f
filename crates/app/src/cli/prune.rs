//! `retoma prune`.

use crate::context::Context;
use crate::exit::Exit;
use crate::output::progress::Display;
use retoma_core::Result;
use retoma_core::units::{ByteSize, Duration, counted};
use retoma_repo::host;
use retoma_repo::ops::prune::{self, Options, PrunePlan, Pruned};
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
    let plan = prune::plan(&repository, &options, &progress);
    drop(display);
    let plan = plan?;
    show(context, &plan);
    let nothing = plan.is_empty();
    if args.dry_run || nothing {
        context.printer.json("retoma.prune/1", object(&plan, None, args.dry_run));
        return Ok(Exit::Ok);
    }
    if !context.confirm("do this?")? {
        return Ok(Exit::Failed);
    }
    let summary = object(&plan, None, false);
    let display = Display::start(context.printer, "prune", &progress);
    let pruned = prune::apply(&repository, plan, &progress);
    drop(display);
    let pruned = pruned?;
    context.printer.data(&format!(
        "{} deleted ({}), {} marked ({}), {} copied",
        counted(pruned.removed_packs, "pack", "packs"),
        ByteSize(pruned.removed_bytes),
        pruned.marked_packs,
        ByteSize(pruned.marked_bytes),
        pruned.repacked_packs
    ));
    let mut value = summary;
    if let Some(map) = value.as_object_mut() {
        map.insert("done".to_owned(), done(&pruned));
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

fn object(plan: &PrunePlan, pruned: Option<&Pruned>, dry_run: bool) -> serde_json::Value {
    let at_once = plan.options.is_immediate();
    json!({
        "dry_run": dry_run,
        "used_bytes": plan.used.size_bytes, "unused_bytes": plan.unused.size_bytes,
        "repack_packs": plan.repack.len(), "mark_packs": if at_once { 0 } else { plan.remove.len() },
        "delete_packs": if at_once { plan.remove.len() } else { 0 }, "sweep_marks": plan.sweep.len(),
        "waiting": plan.waiting.iter().map(|mark| json!({ "packs": mark.packs, "size_bytes": mark.size_bytes, "until": mark.until.0.to_string() })).collect::<Vec<_>>(),
        "done": pruned.map(done),
    })
}

fn done(pruned: &Pruned) -> serde_json::Value {
    json!({
        "removed_packs": pruned.removed_packs, "removed_bytes": pruned.removed_bytes,
        "marked_packs": pruned.marked_packs, "marked_bytes": pruned.marked_bytes,
        "repacked_packs": pruned.repacked_packs, "repacked_bytes": pruned.repacked_bytes,
        "needed_again": pruned.needed_again.len(), "postponed": pruned.postponed.len(),
    })
}

//! `retoma repair`.

use crate::context::{self, Context};
use crate::exit::Exit;
use crate::output::{self, progress::Display};
use retoma_control::open;
use retoma_core::manifest::Manifest;
use retoma_core::units::{ByteSize, counted};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::Folder;
use retoma_repo::ops::copy::heal::{Heal, Healed};
use retoma_repo::ops::repair::{self, Options, RepairPlan, Repaired, Unreadable};
use serde_json::json;

#[derive(Debug, clap::Args)]
#[allow(clippy::struct_excessive_bools)] // One for each switch of the command line.
pub(super) struct Args {
    /// Delete the snapshots that cannot be read as well: nothing can be restored from them any more
    #[arg(long)]
    forget_damaged: bool,
    /// Make the whole index again from all packs: where it can be read and is wrong, or names packs that are gone
    #[arg(long)]
    rebuild_index: bool,
    /// Fetch what snapshots need and this repository has lost from its copy in this one
    #[arg(long, value_name = "REPOSITORY", conflicts_with_all = ["forget_damaged", "rebuild_index"])]
    from: Option<String>,
    /// With `--from`: read all data first, to find what is damaged too
    #[arg(long, requires = "from")]
    read_data: bool,
    /// Say what would be done, and do nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let loaded = context.manifest()?;
    if let Some(name) = &args.from {
        return heal(context, args, &loaded.manifest, name);
    }
    let repository = context.open(&loaded.manifest)?;
    let progress = context.interrupt.progress();
    let display = Display::start(context.printer, "look at index and packs", &progress);
    let options = Options { forget_snapshots: args.forget_damaged, rebuild_index: args.rebuild_index };
    let plan = repair::plan(&repository, options, &progress);
    drop(display);
    let plan = plan?;
    show(context, &plan);
    // What stays damaged is named, whatever else was done.
    let exit = if plan.staying().next().is_some() { Exit::Incomplete } else { Exit::Ok };
    if args.dry_run || plan.is_empty() {
        context.printer.json("retoma.repair/1", object(&plan, args.dry_run, None));
        return Ok(exit);
    }
    if !context.confirm("do this?")? {
        return Ok(Exit::Failed);
    }
    let repaired = repair::apply(&repository, &plan, &progress)?;
    context.printer.data(&format!(
        "{} indexed, {} deleted",
        counted(repaired.indexed_packs, "pack", "packs"),
        counted(repaired.deleted, "object", "objects")
    ));
    context.printer.note(
        "run `retoma backup`, which stores again what the source still has, then `retoma verify --read-data`",
    );
    context.printer.json("retoma.repair/1", object(&plan, false, Some(repaired)));
    Ok(exit)
}

/// Fetches what is lost from the repository `name`.
fn heal(context: &Context, args: &Args, manifest: &Manifest, name: &str) -> Result<Exit> {
    let described = context::repository(manifest, name)?;
    let hurt = context.chosen(manifest)?;
    if hurt.name == described.name {
        let message = format!("`{name}` cannot be repaired from itself");
        return Err(Error::new(ErrorKind::Invalid, codes::USAGE, message).with_hint(
            "name the repository that is repaired with `--repository`, and its copy with `--from`",
        ));
    }
    let repository = context.open(manifest)?;
    let copy = open::open_repository(described, false)?.repository;
    let heal = if args.dry_run { Heal::look(&repository, &copy) } else { Heal::begin(&repository, &copy)? };
    let progress = context.interrupt.progress();
    let display = Display::counting(context.printer, "look for what is lost", &progress, ("blob", "blobs"));
    let plan = heal.plan(args.read_data, &progress);
    drop(display);
    let plan = plan?;
    let printer = context.printer;
    plan.unreadable.iter().for_each(|error| printer.explain(error));
    if !plan.unreadable.is_empty() {
        printer.note(&format!(
            "what cannot be read goes with `--forget-damaged`, and what `{name}` has of it comes back with `retoma copy --from {name}`"
        ));
    }
    plan.lost_packs.iter().for_each(|pack| printer.data(&format!("{pack}")));
    if plan.damaged_blobs > 0 {
        printer.data(&format!("{} damaged", counted(plan.damaged_blobs, "blob is", "blobs are")));
    }
    printer.data(&format!(
        "fetch from `{name}`: {}, {}",
        counted(plan.fetch.count, "blob", "blobs"),
        ByteSize(plan.fetch.size_bytes)
    ));
    if plan.lost_blobs > 0 {
        printer.data(&format!("in neither: {}", counted(plan.lost_blobs, "blob", "blobs")));
    }
    let mut value = json!({
        "dry_run": args.dry_run, "from": name, "damaged_blobs": plan.damaged_blobs,
        "lost_packs": plan.lost_packs.iter().map(|pack| pack.id.to_hex()).collect::<Vec<_>>(),
        "fetch_blobs": plan.fetch.count, "fetch_bytes": plan.fetch.size_bytes, "lost_blobs": plan.lost_blobs,
        "unreadable": plan.unreadable.iter().map(output::error_object).collect::<Vec<_>>(),
        "done": null,
    });
    let is_readable = plan.unreadable.is_empty();
    let mut is_whole = is_readable && plan.lost_blobs == 0;
    if !args.dry_run {
        let progress = context.interrupt.progress();
        let display = Display::counting(printer, "fetch", &progress, ("blob", "blobs"));
        let healed = heal.apply(plan, &progress);
        drop(display);
        let healed = healed?;
        is_whole = is_readable && healed.left.is_empty() && healed.lost.is_empty();
        say_healed(context, &healed);
        value["done"] = json!({
            "blobs": healed.blobs, "stored_bytes": healed.stored_bytes,
            "lost": healed.lost.iter().map(|lost| lost.id.to_hex()).collect::<Vec<_>>(),
            "left": healed.left.iter().map(|(id, _)| id.to_hex()).collect::<Vec<_>>(),
        });
    }
    printer.json("retoma.repair/1", value);
    Ok(if is_whole { Exit::Ok } else { Exit::Incomplete })
}

fn say_healed(context: &Context, healed: &Healed) {
    let printer = context.printer;
    let stored = ByteSize(healed.stored_bytes);
    printer.data(&format!("{} fetched and checked, {stored} stored", counted(healed.blobs, "blob", "blobs")));
    for (id, blob) in &healed.left {
        printer.data(&format!("snapshot {} still lacks blob {}", id.short(), blob.short()));
    }
    printer.note("run `retoma verify --read-data`; what names packs that are gone goes with `retoma repair --rebuild-index`");
}

fn show(context: &Context, plan: &RepairPlan) {
    let printer = context.printer;
    let tell = |what: &str, object: &Unreadable| {
        printer.data(&format!("{what}: {}: {}", object.name(), object.error.message()));
    };
    plan.going().for_each(|object| tell("delete", object));
    plan.staying().for_each(|object| tell("damaged, stays", object));
    if !plan.replaced.is_empty() {
        printer.data(&format!("replace: {}", counted(plan.replaced.len(), "index file", "index files")));
    }
    for pack in &plan.dropped {
        printer.data(&format!("leave out: pack {pack}, which is not there or too short"));
    }
    if !plan.packs.is_empty() {
        let which = if plan.replaced.is_empty() { " that no readable index file names" } else { "" };
        printer.data(&format!(
            "index: {}{which}, {} in them",
            counted(plan.packs.len(), "pack", "packs"),
            counted(plan.blobs(), "blob", "blobs")
        ));
    }
    if plan.is_empty() && plan.staying().next().is_none() {
        printer.data("there is nothing to repair");
    }
    if plan.staying().any(|object| object.folder == Folder::Snapshots) {
        printer.note(
            "a snapshot that cannot be read stops `forget` and `prune`; `--forget-damaged` deletes it, if no copy has it whole",
        );
    }
}

fn object(plan: &RepairPlan, dry_run: bool, done: Option<Repaired>) -> serde_json::Value {
    let named = |object: &Unreadable| json!({ "object": object.name(), "code": object.error.code().to_string(), "message": object.error.message() });
    json!({
        "dry_run": dry_run,
        "delete": plan.going().map(named).collect::<Vec<_>>(),
        "damaged": plan.staying().map(named).collect::<Vec<_>>(),
        "replace": plan.replaced.len(), "leave_out": plan.dropped.iter().map(|pack| pack.to_hex()).collect::<Vec<_>>(),
        "index_packs": plan.packs.len(), "index_blobs": plan.blobs(),
        "done": done.map(|done| json!({ "indexed_packs": done.indexed_packs, "deleted": done.deleted })),
    })
}

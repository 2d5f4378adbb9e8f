//! `retoma renew`: extends the locks of objects before they end.

use crate::context::Context;
use crate::exit::Exit;
use crate::output::progress::Display;
use retoma_core::manifest;
use retoma_core::units::counted;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::host;
use retoma_repo::ops::renew::{self, RenewPlan};
use serde_json::json;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Say what would be done, and do nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let loaded = context.manifest()?;
    let described = context.chosen(&loaded.manifest)?;
    let locks = retoma_control::open::locks(described)?.ok_or_else(|| without(described))?;
    let repository = context.open(&loaded.manifest)?;
    let progress = context.interrupt.progress();
    let display = Display::start(context.printer, "look at locks", &progress);
    let plan = renew::plan(&repository, &locks, host::now().0, &progress);
    drop(display);
    let plan = plan?;
    show(context, &plan);
    let mut value = object(&plan, args.dry_run);
    if args.dry_run || plan.due.is_empty() {
        context.printer.json("retoma.renew/1", value);
        return Ok(Exit::Ok);
    }
    if !context.confirm("extend these locks? Nobody can take that back")? {
        return Ok(Exit::Failed);
    }
    let display = Display::start(context.printer, "extend locks", &progress);
    let done = renew::apply(&locks, &plan, &progress);
    drop(display);
    let done = done?;
    context.printer.data(&format!("{} extended", counted(done.renewed, "lock", "locks")));
    if let Some(map) = value.as_object_mut() {
        map.insert("done".to_owned(), json!({ "renewed": done.renewed, "gone": done.gone }));
    }
    context.printer.json("retoma.renew/1", value);
    Ok(Exit::Ok)
}

fn without(described: &manifest::Repository) -> Error {
    let message = format!(
        "the manifest has no `lock_days` for repository `{}`: nothing is locked there",
        described.name
    );
    Error::new(ErrorKind::Invalid, codes::USAGE, message)
        .with_hint("add `lock_days` (docs/immutability.md), or name another with `--repository`")
}

fn show(context: &Context, plan: &RenewPlan) {
    let found = &plan.found;
    context.printer.data(&format!(
        "locked:   {} of {}",
        found.looked_at - found.free,
        counted(found.objects, "object", "objects")
    ));
    if let Some(soonest) = found.soonest {
        context.printer.data(&format!(
            "soonest:  {} is the end of the first lock",
            soonest.strftime("%Y-%m-%dT%H:%M:%SZ")
        ));
    }
    if plan.going > 0 {
        context
            .printer
            .data(&format!("left out: {} that will be deleted", counted(plan.going, "pack", "packs")));
    }
    context.printer.data(&format!(
        "extend:   {}, until {}",
        counted(plan.due.len(), "lock", "locks"),
        plan.until.strftime("%Y-%m-%dT%H:%M:%SZ")
    ));
}

fn object(plan: &RenewPlan, dry_run: bool) -> serde_json::Value {
    json!({
        "dry_run": dry_run, "objects": plan.found.objects, "without_lock": plan.found.free,
        "soonest": plan.found.soonest.map(|time| time.to_string()), "until": plan.until.to_string(),
        "due": plan.due.len(), "going": plan.going, "done": null,
    })
}

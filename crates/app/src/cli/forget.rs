//! `retoma forget`.

use crate::context::Context;
use crate::exit::Exit;
use crate::output::table;
use jiff::tz::TimeZone;
use retoma_core::decide::retention::{Holds, KeepReason, Policy};
use retoma_core::manifest::{Manifest, Retention};
use retoma_core::units::counted;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::Repository;
use retoma_repo::format::snapshot::{TAG_HOLD, TAG_MANIFEST};
use retoma_repo::ops::find::{self, Selector, Which};
use retoma_repo::ops::forget::{self, ForgetPlan};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Components (default: all of the manifest)
    component: Vec<String>,
    /// Remove exactly this snapshot instead, by the beginning of its id
    #[arg(long, value_name = "ID", conflicts_with_all = ["component", "hold", "release", "accept"])]
    snapshot: Vec<String>,
    /// Put a legal hold on this snapshot: no rule and no `forget` removes it
    #[arg(long, value_name = "ID", conflicts_with_all = ["component", "dry_run"])]
    hold: Vec<String>,
    /// Take the hold away
    #[arg(long, value_name = "ID", conflicts_with_all = ["component", "dry_run"])]
    release: Vec<String>,
    /// Say that the mass change in this snapshot was meant: what is older may be removed again
    #[arg(long, value_name = "ID", conflicts_with_all = ["component", "dry_run"])]
    accept: Vec<String>,
    /// Say what would be removed, and remove nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let loaded = context.manifest()?;
    let repository = context.open(&loaded.manifest)?;
    if !args.hold.is_empty() || !args.release.is_empty() || !args.accept.is_empty() {
        return hold(context, &repository, args);
    }
    let now = jiff::Timestamp::now();
    let plans = if args.snapshot.is_empty() {
        by_rules(&loaded.manifest, &repository, args, now)?
    } else {
        let ids = args.snapshot.iter().map(|id| resolve(&repository, id)).collect::<Result<BTreeSet<_>>>()?;
        vec![forget::plan_removal(&repository, &ids, now)?]
    };
    let count: usize = plans.iter().map(|plan| plan.remove.len()).sum();
    show(context, &plans);
    say_held(context, &plans);
    let mut removed = Vec::new();
    if !args.dry_run && count > 0 {
        if !context.confirm(&format!("remove {}?", counted(count, "snapshot", "snapshots")))? {
            return Ok(Exit::Failed);
        }
        for plan in &plans {
            removed.extend(forget::apply(&repository, plan)?);
        }
        let count = counted(removed.len(), "snapshot", "snapshots");
        context.printer.data(&format!("{count} removed; `retoma prune` gives the space back"));
    }
    let decisions: Vec<Value> =
        plans.iter().flat_map(|plan| &plan.decisions.decisions).map(|decision| json!(decision)).collect();
    let value = json!({ "dry_run": args.dry_run, "decisions": decisions,
                        "removed": removed.iter().map(|id| id.to_hex()).collect::<Vec<_>>() });
    context.printer.json("retoma.forget/1", value);
    Ok(Exit::Ok)
}

fn resolve(repository: &Repository, prefix: &str) -> Result<retoma_repo::SnapshotId> {
    let selector = Selector { which: Which::Id(prefix.to_owned()), ..Selector::default() };
    Ok(find::snapshot(repository, &selector)?.0)
}

fn hold(context: &Context, repository: &Repository, args: &Args) -> Result<Exit> {
    let mut changed = Vec::new();
    for (ids, on) in [(&args.hold, true), (&args.release, false)] {
        for id in ids {
            let new = forget::hold(repository, resolve(repository, id)?, on)?;
            let what = if on { "held" } else { "no longer held" };
            context.printer.data(&format!("snapshot {id} is {what}; its id is {} now", new.short()));
            changed.push(json!({ "id": new.to_hex(), "held": on }));
        }
    }
    let mut accepted = Vec::new();
    for id in &args.accept {
        let new = forget::accept(repository, resolve(repository, id)?)?;
        let short = new.short();
        context.printer.data(&format!("the change in snapshot {id} is accepted; its id is {short} now"));
        accepted.push(json!({ "id": new.to_hex() }));
    }
    context.printer.json("retoma.forget/1", json!({ "holds": changed, "accepted": accepted }));
    Ok(Exit::Ok)
}

fn by_rules(
    manifest: &Manifest,
    repository: &Repository,
    args: &Args,
    now: jiff::Timestamp,
) -> Result<Vec<ForgetPlan>> {
    let mut plans = Vec::new();
    for name in &args.component {
        crate::context::component(manifest, name)?;
    }
    for component in &manifest.components {
        if !args.component.is_empty() && !args.component.contains(&component.name) {
            continue;
        }
        let holds = holds(&component.retention);
        let wanted = |facts: &retoma_core::decide::retention::SnapshotFacts| {
            facts.group.component.as_deref() == Some(component.name.as_str())
                && !facts.tags.contains(TAG_MANIFEST)
        };
        let policy = policy(&component.retention)?;
        plans.push(forget::plan(repository, &policy, &holds, &wanted, now, &TimeZone::system())?);
    }
    Ok(plans)
}

fn holds(rules: &Retention) -> Holds {
    let tags = rules.holds.iter().cloned().chain([TAG_HOLD.to_owned()]).collect();
    Holds { ids: BTreeSet::new(), tags }
}

fn policy(rules: &Retention) -> Result<Policy> {
    let seconds = i64::try_from(rules.keep_within.as_seconds())
        .map_err(|_| Error::new(ErrorKind::Invalid, codes::USAGE, "`keep_within` is too long"))?;
    let within = (seconds > 0).then(|| jiff::Span::new().seconds(seconds));
    Ok(Policy {
        last: rules.keep_last,
        hourly: rules.hourly,
        daily: rules.daily,
        weekly: rules.weekly,
        monthly: rules.monthly,
        yearly: rules.yearly,
        within,
        tags: Vec::new(),
    })
}

/// Which snapshots hold others as long as nobody says that their change was meant.
fn say_held(context: &Context, plans: &[ForgetPlan]) {
    let mut held: BTreeMap<(String, String), u64> = BTreeMap::new();
    for decision in plans.iter().flat_map(|plan| &plan.decisions.decisions) {
        for reason in decision.keep_reasons() {
            if let KeepReason::MassChange { snapshot } = reason {
                let component = decision.group.component.clone().unwrap_or_default();
                *held.entry((component, snapshot.chars().take(8).collect())).or_default() += 1;
            }
        }
    }
    for ((component, snapshot), count) in held {
        context.printer.warning(&format!(
            "{}: {} whatever the rules say, not newer than the mass change in snapshot {snapshot}: look at what changed there \
             (docs/mass-change.md), and if it was meant, say so with `retoma forget --accept {snapshot}`",
            table::printable(&component),
            counted(count, "snapshot stays", "snapshots stay"),
        ));
    }
}

fn show(context: &Context, plans: &[ForgetPlan]) {
    let decisions = plans.iter().flat_map(|plan| &plan.decisions.decisions);
    let rows = decisions.map(|decision| {
        let time = decision.time.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string();
        let reasons: Vec<String> = decision.keep_reasons().iter().map(ToString::to_string).collect();
        let (action, why) =
            if decision.is_kept() { ("keep", reasons.join(", ")) } else { ("remove", String::new()) };
        let component = decision.group.component.as_deref().unwrap_or("-");
        let id = decision.id.chars().take(8).collect();
        vec![id, time, table::printable(component), action.to_owned(), why]
    });
    let rows: Vec<_> = rows.collect();
    context.printer.data(&table::table(&["id", "time", "component", "plan", "because"], &rows));
}

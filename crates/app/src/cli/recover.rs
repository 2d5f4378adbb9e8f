//! `retoma recover`.

use super::record;
use super::several::{self, Way};
use super::target;
use crate::context::{AsOfArgs, Context};
use crate::exit::Exit;
use crate::output::{self, table};
use retoma_control::choose::{Chosen, Wanted};
use retoma_control::recover::{self, Options, Place, Plan, Recovered, Request};
use retoma_control::timeline::Timeline;
use retoma_control::{Interrupt, Stopwatch, open, paths, unlock};
use retoma_core::decide::recovery::{Goal, Target};
use retoma_core::drill::{CheckOutcome, CheckResult, StepName, Waterfall};
use retoma_core::manifest::SecretRef;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::Repository;
use retoma_repo::evidence::{Outcome, SubjectComponent, What};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Debug, clap::Args)]
#[command(group(clap::ArgGroup::new("place").required(true).args(["to", "in_place"])))]
#[allow(clippy::struct_excessive_bools)] // Flags of a command line.
pub(super) struct Args {
    /// The repository's address, on a machine without a manifest; may be given several times, and what one lacks comes from
    /// the others
    #[arg(long, value_name = "URL")]
    repository_url: Vec<String>,
    /// The file with its password; one for each address, in the same order; none with `--share`
    #[arg(long, value_name = "FILE", requires = "repository_url")]
    password_file: Vec<PathBuf>,
    /// The key of a transit engine that opens the repository, in place of passwords; the token is in `VAULT_TOKEN`
    #[arg(long, value_name = "URL", requires = "repository_url", conflicts_with = "password_file")]
    transit: Option<String>,
    /// A folder that stands for `/`: /srv/shop comes back as DIR/srv/shop
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Where the data were; what is there comes back when a check fails
    #[arg(long)]
    in_place: bool,
    /// The state of this time
    #[arg(long, value_name = "TIME")]
    at: Option<String>,
    #[command(flatten)]
    target: target::TargetArgs,
    #[command(flatten)]
    as_of: AsOfArgs,
    /// The snapshot that a PostgreSQL server is recovered from, by the beginning of its id (default: the newest before
    /// the target)
    #[arg(long, value_name = "ID")]
    snapshot: Option<String>,
    /// Only these components
    #[arg(long, value_name = "COMPONENT")]
    only: Vec<String>,
    /// Say what would be done, and do nothing
    #[arg(long, short = 'n')]
    dry_run: bool,
    /// Restore and check, and leave the service as it is
    #[arg(long)]
    no_start: bool,
    /// Keep what was there before, beside
    #[arg(long, requires = "in_place")]
    keep_previous: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit> {
    let goal = args.target.goal(args.at.as_deref())?;
    let place = match &args.to {
        Some(folder) => Place::Under(paths::target_folder(folder, "--to")?),
        None => Place::InPlace,
    };
    let chosen = choose(context, args, &goal)?;
    let repository = chosen.repository.clone();
    // The manifest comes from the repository: what was backed up says how it comes back.
    let request = Request {
        goal,
        snapshot: args.snapshot.as_deref(),
        only: &args.only,
        ..Request::newest(&repository, place)
    };
    let plan = recover::plan(&request)?;
    show(context, &plan);
    if args.dry_run {
        context.printer.json("retoma.recover/1", json!({ "dry_run": true, "components": planned(&plan) }));
        return Ok(Exit::Ok);
    }
    if args.in_place && !context.confirm("replace the data where they are?")? {
        return Ok(Exit::Failed);
    }
    let supervisor = super::shell::supervisor()?;
    let log = plan.manifest.dir().join("retoma-service.log");
    let options = Options {
        supervisor: &supervisor,
        starts_service: !args.no_start,
        log: &log,
        keep_previous: args.keep_previous,
        runs_stop: true,
    };
    let interrupt = Interrupt::new(context.interrupt.flag());
    let clock = Stopwatch::start();
    let mut timeline = Timeline::start(clock, StepName::Decide);
    let watch = output::watch::Lines::new(context.printer);
    let applied = recover::apply(&plan, &repository, &options, &mut timeline, &watch, &interrupt);
    let mut recovered = match applied {
        Ok(recovered) => recovered,
        Err(error) => {
            several::say_taken(context, &chosen, args.repository_url.is_empty());
            // What was refused before anything was restored, or stopped by hand, shows nothing about the backups.
            if timeline.has_begun(StepName::Fetch) && error.kind() != ErrorKind::Cancelled {
                keep_failure(context, &plan, &repository, timeline, &error);
            }
            return Err(error);
        }
    };
    let pid = recovered.service.take().map(retoma_control::Service::release).transpose()?;
    let passed = recovered.passed();
    let waterfall = timeline.finish()?;
    tell(context, &recovered, pid);
    several::say_taken(context, &chosen, args.repository_url.is_empty());
    let read_from = several::object(&chosen);
    keep_record(context, &plan, &repository, &recovered, &waterfall, &read_from);
    let value = json!({
        "dry_run": false, "passed": passed, "components": components(&recovered), "waterfall": waterfall,
        "recovery_set": recovered.set(),
        "service": { "pid": pid, "checks": recovered.service_checks },
        "rolled_back": recovered.rolled_back.as_ref().map(output::error_object), "previous": recovered.previous,
        "damage": recovered.damage.iter().map(output::error_object).collect::<Vec<_>>(), "read_from": read_from,
    });
    context.printer.json("retoma.recover/1", value);
    Ok(if passed { Exit::Ok } else { Exit::Missed })
}

/// The repository that is read, with the others as its copies. One that is chosen on the command line is the only one.
fn choose(context: &Context, args: &Args, goal: &Goal) -> Result<Chosen> {
    let as_of = args.as_of.time()?;
    let candidates = if args.repository_url.is_empty() {
        let manifest = context.manifest()?.manifest;
        if context.repository.is_some() || as_of.is_some() {
            vec![several::of_manifest(context.chosen(&manifest)?, as_of)]
        } else {
            manifest.repositories.iter().map(|it| several::of_manifest(it, None)).collect()
        }
    } else {
        let of_address = |(url, way): (&String, Way)| several::of_address(url, way, as_of);
        args.repository_url.iter().zip(ways(args)?).map(of_address).collect::<Result<_>>()?
    };
    let at = match goal.target {
        Target::Time(time) => Some(time),
        _ => None,
    };
    let (id, only) = (args.snapshot.clone(), args.only.clone());
    let wanted = move |repository: &Repository| several::newest(repository, at, id.as_deref(), &only);
    several::choose_and_say(context, candidates, &(Arc::new(wanted) as Arc<Wanted>))
}

/// What opens each of the repositories that are given by their addresses.
fn ways(args: &Args) -> Result<Vec<Way>> {
    let urls = args.repository_url.len();
    if let Some(shares) = unlock::offered() {
        return Ok((0..urls).map(|_| Way::Shares(Arc::clone(&shares))).collect());
    }
    if let Some(url) = &args.transit {
        let key = super::key::new::key_of_engine(url)?;
        return Ok(vec![Way::Transit(key); urls]);
    }
    if urls != args.password_file.len() {
        let message = "each `--repository-url` needs a `--password-file`, or the shares of its key";
        return Err(Error::new(ErrorKind::Invalid, codes::USAGE, message).with_hint(
            "give both as often, in the same order; or `--share FILE` for each share that people bring",
        ));
    }
    let read = |file: &PathBuf| open::secret(&SecretRef::File(file.clone())).map(Way::Password);
    args.password_file.iter().map(read).collect()
}

fn show(context: &Context, plan: &Plan) {
    let rows = plan.components.iter().map(|planned| {
        let component = &planned.component;
        vec![
            component.name.clone(),
            component.tier.as_str().to_owned(),
            planned.snapshot.short(),
            planned.time().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            table::printable(&planned.to.display().to_string()),
        ]
    });
    let rows: Vec<_> = rows.collect();
    context.printer.data(&table::table(&["component", "tier", "snapshot", "time", "to"], &rows));
    for planned in &plan.components {
        if let Some(suspect) = planned.mass_change {
            context.printer.warning(&target::mass_change_in_words(&planned.component.name, suspect));
        }
        if let Some(recovery) = &planned.recovery {
            context.printer.note(&target::in_words(&planned.component.name, recovery));
            recovery.care.iter().for_each(|care| context.printer.warning(care));
        }
    }
}

fn planned(plan: &Plan) -> Vec<Value> {
    let component = |planned: &recover::PlannedComponent| {
        json!({ "component": planned.component.name, "kind": planned.component.kind().as_str(),
                "tier": planned.component.tier.as_str(), "snapshot": planned.snapshot.to_hex(),
                "time": planned.time().to_string(), "to": planned.to,
                "mass_change": planned.mass_change.map(|(suspect, _)| suspect.to_hex()),
                "recovery": planned.recovery.as_ref().map(target::planned) })
    };
    plan.components.iter().map(component).collect()
}

fn components(recovered: &Recovered) -> Vec<Value> {
    let component = |component: &recover::RecoveredComponent| {
        json!({ "component": component.component, "kind": component.kind.as_str(), "snapshot": component.snapshot.to_hex(),
                "path": component.path, "files": component.files, "bytes": component.checked.bytes,
                "rows": component.checked.rows, "checks": component.checked.checks,
                "recovery": component.recovery.as_ref().map(target::reached), "as_of": component.as_of.to_string(),
                "fetch_seconds": component.elapsed.as_secs_f64(), "ready_seconds": component.ready })
    };
    recovered.components.iter().map(component).collect()
}

/// What a check that did not pass says, behind its name.
fn differs(check: &CheckResult) -> String {
    let detail = table::printable(&check.detail);
    match (&check.expected, &check.found) {
        (Some(expected), Some(found)) => {
            let more = if detail.is_empty() { String::new() } else { format!(" ({detail})") };
            format!(": expected {}, found {}{more}", table::printable(expected), table::printable(found))
        }
        _ if detail.is_empty() => String::new(),
        _ => format!(": {detail}"),
    }
}

fn tell(context: &Context, recovered: &Recovered, pid: Option<u32>) {
    let line = |check: &CheckResult| {
        let why = if check.outcome == CheckOutcome::Passed { String::new() } else { differs(check) };
        let line = format!("  {:<7} {}{why}", state(check), table::printable(&check.name));
        context.printer.data(&line);
    };
    for component in &recovered.components {
        context.printer.data(&format!(
            "{}: {}",
            component.component,
            table::printable(&component.path.display().to_string())
        ));
        if let Some(report) = &component.recovery {
            context.printer.data(&format!("  {}", target::reached_in_words(report)));
        }
        component.checked.checks.iter().for_each(line);
    }
    if let Some(set) = recovered.set().filter(|set| set.points.len() > 1) {
        context.printer.data(&set.in_words());
    }
    if !recovered.service_checks.is_empty() {
        context.printer.data("service:");
        recovered.service_checks.iter().for_each(line);
    }
    if let Some(pid) = pid {
        context.printer.note(&format!("the service runs, as process {pid}"));
    }
    for path in &recovered.previous {
        context.printer.note(&format!("what was there before is kept at {}", path.display()));
    }
    if let Some(why) = &recovered.rolled_back {
        context.printer.explain(why);
        context.printer.note("the service is not started on the previous data; it was not running before");
    }
}

fn state(check: &CheckResult) -> &'static str {
    match check.outcome {
        CheckOutcome::Passed => "passed",
        CheckOutcome::Failed => "FAILED",
        CheckOutcome::NotRun => "not run",
    }
}

/// A record of a recovery that ended with an error: with what was to come back, and the steps until then.
fn keep_failure(context: &Context, plan: &Plan, repository: &Repository, timeline: Timeline, error: &Error) {
    let subject = plan.components.iter().map(|planned| SubjectComponent {
        component: planned.component.name.clone(),
        kind: planned.component.kind().as_str().to_owned(),
        snapshot: Some(planned.snapshot),
        data_bytes: 0,
    });
    let steps = timeline.finish().unwrap_or_default();
    let details = json!({ "error": output::error_object(error), "steps": steps });
    record::keep(
        context,
        &plan.manifest,
        repository,
        What::Recover,
        Outcome::Failed,
        subject.collect(),
        details,
    );
}

fn keep_record(
    context: &Context,
    plan: &Plan,
    repository: &Repository,
    recovered: &Recovered,
    waterfall: &Waterfall,
    read_from: &Value,
) {
    let subject = recovered.components.iter().map(|component| SubjectComponent {
        component: component.component.clone(),
        kind: component.kind.as_str().to_owned(),
        snapshot: Some(component.snapshot),
        data_bytes: component.checked.bytes,
    });
    let outcome = if recovered.passed() { Outcome::Passed } else { Outcome::Failed };
    let details = json!({ "recovery_set": recovered.set(), "components": components(recovered), "service_checks": recovered.service_checks,
                          "waterfall": waterfall, "read_from": read_from });
    record::keep(context, &plan.manifest, repository, What::Recover, outcome, subject.collect(), details);
}

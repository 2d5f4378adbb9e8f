//! From what a drill measured to its result, also when it ended before it had measured everything.

use super::inventory::Inventory;
use super::steps::worst_case;
use super::{Context, Scenario};
use crate::recover::{Recovered, RecoveredComponent};
use crate::timeline::Timeline;
use retoma_core::Result;
use retoma_core::decide::drill::{DrillFacts, RpoMeasured, verdict};
use retoma_core::drill::{
    CheckResult, ComponentResult, ControlResult, DrillReport, Environment, Failure, RepositoryResult, SCHEMA,
    Seconds, VerdictKind, Waterfall,
};
use retoma_core::manifest::{Component, Manifest};
use retoma_repo::Repository;
use std::collections::BTreeMap;
use std::time::Duration;

/// What a drill measured so far. `inventories` and `marks` are in the order of the manifest's components.
#[derive(Default)]
pub(super) struct Facts {
    /// How long it took until the last backup of each component lay in the repository that served, or would have at worst.
    pub(super) exposed: BTreeMap<String, Duration>,
    pub(super) inventories: Vec<Inventory>,
    /// Begins with the disaster.
    pub(super) timeline: Option<Timeline>,
    pub(super) recovered: Recovered,
    /// Ends with the first write; absent before it.
    pub(super) waterfall: Option<Waterfall>,
    pub(super) controls: Vec<ControlResult>,
    pub(super) marks: Vec<Option<RpoMeasured>>,
    /// The repository that served after the disaster, and the key that opened it, by their ids.
    pub(super) served_by: Option<(String, String)>,
    /// What became of the repositories, where the scenario loses some.
    pub(super) repositories: Vec<RepositoryResult>,
    /// What could have been lost at the worst moment, where it is not what the backups say: WAL is shipped between them.
    pub(super) worst_case: Option<Seconds>,
    /// What was left open, beside what every drill leaves open.
    pub(super) not_proven: Vec<String>,
}

/// What names the drill.
pub(super) struct Head {
    pub(super) drill: String,
    pub(super) scenario: Scenario,
    pub(super) started: jiff::Timestamp,
    pub(super) repeat: String,
    /// What it ran with.
    pub(super) environment: Environment,
}

/// What the drill ran with.
pub(super) fn ran_with(manifest: &Manifest, repository: &Repository, context: &Context<'_>) -> Environment {
    let memory = rustix::system::sysinfo();
    Environment {
        tool_version: context.tool_version.to_owned(),
        manifest_hash: manifest.hash().to_owned(),
        repository_id: repository.config().id.to_hex(),
        key_id: repository.key_id().to_hex(),
        system: format!("{} {}", std::env::consts::OS, std::env::consts::ARCH),
        cpus: std::thread::available_parallelism()
            .map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX)),
        memory_bytes: memory.totalram.saturating_mul(u64::from(memory.mem_unit)),
    }
}

/// The result with its verdict; `failure` is what ended the drill early.
///
/// # Errors
/// The clock went back.
pub(super) fn assemble(
    manifest: &Manifest,
    head: Head,
    facts: Facts,
    failure: Option<Failure>,
) -> Result<DrillReport> {
    let mut environment = head.environment;
    if let Some((repository_id, key_id)) = facts.served_by {
        (environment.repository_id, environment.key_id) = (repository_id, key_id);
    }
    // A component is back when the service is: nobody can use it before.
    let back_after = facts.waterfall.as_ref().map(Waterfall::total);
    let waterfall = match (facts.waterfall, facts.timeline) {
        (Some(whole), _) => whole,
        (None, Some(timeline)) => timeline.finish()?,
        (None, None) => Waterfall::default(),
    };
    let mut components: Vec<ComponentResult> = Vec::new();
    for (at, component) in manifest.components.iter().enumerate() {
        let recovered = facts.recovered.components.iter().find(|it| it.component == component.name);
        let exposed = facts.exposed.get(&component.name).copied();
        // What is not there leaves no result, and the verdict says so.
        let Some(recovered) = recovered else { continue };
        let inventory = facts.inventories.get(at);
        let marks = facts.marks.get(at).and_then(Option::as_ref);
        components.push(component_result(component, back_after, recovered, exposed, inventory, marks));
    }
    // The service uses all components; its answers stand with the most important one.
    if let Some(first) = manifest.recovery_order().first()
        && let Some(result) = components.iter_mut().find(|it| it.component == first.name)
    {
        result.checks.extend(facts.recovered.service_checks.iter().cloned());
    }
    for result in &mut components {
        result.rpo_worst_case_seconds = facts.worst_case.or(result.rpo_worst_case_seconds);
    }
    let mut open = not_proven(manifest, head.scenario);
    open.extend(facts.not_proven);
    let mut report = DrillReport {
        schema: SCHEMA.to_owned(),
        drill: head.drill,
        scenario: head.scenario.to_string(),
        service: manifest.service.name.clone(),
        started: head.started,
        environment,
        repeat: head.repeat,
        required_components: manifest.components.iter().map(|it| it.name.clone()).collect(),
        components,
        rto_measured_seconds: waterfall.total(),
        waterfall,
        controls: facts.controls,
        verdict: VerdictKind::Red,
        reasons: Vec::new(),
        repositories: facts.repositories,
        failure,
        not_proven: open,
    };
    let decided = verdict(&DrillFacts::from(&report));
    report.verdict = decided.kind();
    report.reasons = decided.reasons().to_vec();
    Ok(report)
}

fn component_result(
    component: &Component,
    back_after: Option<Seconds>,
    recovered: &RecoveredComponent,
    exposed: Option<Duration>,
    inventory: Option<&Inventory>,
    marks: Option<&RpoMeasured>,
) -> ComponentResult {
    let mut checks: Vec<CheckResult> = recovered.checked.checks.clone();
    checks.extend(inventory.and_then(|it| it.compare(&recovered.path)));
    ComponentResult {
        component: component.name.clone(),
        kind: component.kind().to_string(),
        tier: component.tier.to_string(),
        rto_objective_seconds: Seconds::from_duration(component.objectives.rto.to_std()),
        rto_measured_seconds: back_after,
        rpo_objective_seconds: Seconds::from_duration(component.objectives.rpo.to_std()),
        rpo_measured_seconds: marks.and_then(|marks| marks.measured_seconds),
        rpo_worst_case_seconds: exposed.map(|it| worst_case(component.schedule.every.to_std(), it)),
        markers_written: marks.map_or(0, |marks| marks.markers_written),
        markers_lost: marks.map_or(0, |marks| marks.markers_lost),
        bytes_before: inventory.map_or(0, |it| it.bytes),
        bytes: recovered.checked.bytes,
        rows_before: inventory.and_then(|it| it.rows),
        rows: recovered.checked.rows,
        snapshot: Some(recovered.snapshot.to_hex()),
        checks,
    }
}

/// What a scenario leaves open beside what all do.
fn of_scenario(scenario: Scenario) -> &'static [&'static str] {
    const FILLED: &str =
        "That your repositories get each backup, and in time: the drill filled its copies of them itself.";
    const PROGRAMS: &str =
        "That another machine has what it takes: the data and the manifest were lost, the programs were not.";
    match scenario {
        Scenario::LostKey => &[
            "That your second key is at hand: the drill made one of its own in its copy, also where it was split.",
        ],
        Scenario::NewKey => {
            &["That the new key reaches everybody who needs it: the drill made one of its own in its copy."]
        }
        Scenario::LostRepository => &[FILLED],
        Scenario::LostRegion => &[FILLED, PROGRAMS],
        Scenario::InfrastructureFailure => &[PROGRAMS],
        Scenario::Ransomware => &[
            "That nobody deletes or overwrites what is backed up: in a local copy anybody could, so the drill only added to it. \
             Locks and versions are the store's alone.",
        ],
        _ => &[],
    }
}

fn not_proven(manifest: &Manifest, scenario: Scenario) -> Vec<String> {
    let mut open = vec![
        "That it takes as long next time, or with another machine, network, storage or amount of data."
            .to_owned(),
        "That another kind of disaster ends as well.".to_owned(),
        "How long people need to notice and to decide: here probes and program did it by themselves."
            .to_owned(),
        "That the machine itself can be replaced: the copy was broken and recovered on one machine."
            .to_owned(),
    ];
    open.extend(of_scenario(scenario).iter().map(|text| (*text).to_owned()));
    match &manifest.service.start {
        None => open.push("That the service starts: the manifest has no `start`.".to_owned()),
        Some(_) if manifest.service.health.is_none() => {
            open.push("That the service works: the manifest has no `health`.".to_owned());
        }
        Some(_) => {}
    }
    if manifest.drill.markers.is_none() {
        let what =
            "That a user's write succeeds: without `marker_url` marks were written into the copy itself.";
        open.push(what.to_owned());
    }
    open
}

#[cfg(test)]
mod tests;

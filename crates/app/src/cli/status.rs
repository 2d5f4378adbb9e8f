//! `retoma status`: how old the newest snapshots are, what drills measured, and which evidence is stale.

use super::record;
use super::target;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::table;
use retoma_core::decide::staleness::{Facts, StaleReason};
use retoma_core::manifest::{Component, ComponentKind, Manifest};
use retoma_core::units::{self as core_units, ByteSize};
use retoma_core::{Result, error::codes};
use retoma_repo::evidence::{Chain, Record, What, stale};
use retoma_repo::format::snapshot::Snapshot;
use retoma_repo::ops::find::{self, Selector};
use retoma_repo::{Repository, SnapshotId};
use serde_json::{Value, json};
use std::time::Duration;

/// Evidence older than this is stale.
const MAX_AGE: Duration = Duration::from_hours(31 * 24);
/// So many records are looked through for the newest ones.
const LOOKED_AT: usize = 1000;

pub(super) fn run(context: &Context) -> Result<Exit> {
    let manifest = context.manifest()?.manifest;
    let repository = context.open(&manifest)?;
    let now = jiff::Timestamp::now();
    let (mut rows, mut objects, mut late) = (Vec::new(), Vec::new(), false);
    for component in &manifest.components {
        let newest = newest(&repository, &component.name)?;
        let age = newest.as_ref().map(|(_, snapshot)| (now.as_second() - snapshot.time.0.as_second()).max(0));
        let rpo = component.objectives.rpo.as_seconds();
        let fresh = age.is_some_and(|age| u64::try_from(age).is_ok_and(|age| age <= rpo));
        late |= !fresh;
        rows.push(row(component, newest.as_ref().map(|(id, _)| *id), age, fresh));
        objects.push(json!({
            "component": component.name, "kind": component.kind().as_str(), "tier": component.tier.as_str(),
            "snapshot": newest.as_ref().map(|(id, _)| id.to_hex()), "age_seconds": age,
            "rpo_objective_seconds": rpo, "rto_objective_seconds": component.objectives.rto.as_seconds(), "fresh": fresh,
        }));
    }
    context.printer.data(&table::table(&["component", "tier", "snapshot", ">age", ">RPO", "state"], &rows));
    let mut windows = Vec::new();
    for component in manifest.components.iter().filter(|it| it.kind() == ComponentKind::Postgres) {
        windows.append(&mut target::windows(context, &repository, &component.name));
    }
    let evidence = evidence(context, &manifest, &repository)?;
    context
        .printer
        .json("retoma.status/1", json!({ "components": objects, "windows": windows, "evidence": evidence }));
    Ok(if late { Exit::Missed } else { Exit::Ok })
}

/// The newest complete snapshot of a component; that there is none is an answer, that it can't be read is not.
fn newest(repository: &Repository, component: &str) -> Result<Option<(SnapshotId, Snapshot)>> {
    let selector = Selector { component: Some(component.to_owned()), ..Selector::default() };
    match find::snapshot(repository, &selector) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.code() == codes::SNAPSHOT_NOT_FOUND => Ok(None),
        Err(error) => Err(error),
    }
}

fn row(component: &Component, snapshot: Option<SnapshotId>, age: Option<i64>, fresh: bool) -> Vec<String> {
    vec![
        component.name.clone(),
        component.tier.as_str().to_owned(),
        snapshot.map_or_else(|| "none".to_owned(), SnapshotId::short),
        age.map_or_else(|| "-".to_owned(), |age| format!("{age} s")),
        component.objectives.rpo.to_string(),
        if fresh { "fresh" } else { "late" }.to_owned(),
    ]
}

/// The newest record of each kind, with the reasons for which it no longer counts.
fn evidence(context: &Context, manifest: &Manifest, repository: &Repository) -> Result<Vec<Value>> {
    let mut chain = Chain::open(repository, &manifest.evidence.writer)?;
    if let Some(pinned) = record::pinned(manifest)? {
        chain = chain.pin(pinned);
    }
    let mut newest: Vec<(What, Record)> = Vec::new();
    for record in chain.newest_first()?.take(LOOKED_AT) {
        let record = record?;
        let what = record.payload().what.clone();
        if !newest.iter().any(|(known, _)| *known == what) {
            newest.push((what, record));
        }
    }
    if newest.is_empty() {
        context.printer.data(
            "no evidence yet: a backup under a manifest with `[evidence] signing_key` leaves the first",
        );
    }
    let index = repository.load_index()?;
    let key_id = repository.key_id().to_hex();
    let mut objects = Vec::new();
    for (what, record) in newest {
        let reasons = stale(&record, &current(manifest, &key_id, repository, &index, &record)?, MAX_AGE);
        let payload = record.payload();
        let (name, outcome) = (json!(what), json!(payload.outcome));
        let state = if reasons.is_empty() {
            "current".to_owned()
        } else {
            format!("stale: {}", reasons.iter().map(in_words).collect::<Vec<_>>().join(", "))
        };
        let reasons: Vec<Value> = reasons.iter().map(|reason| json!(reason)).collect();
        context.printer.data(&format!(
            "{} of {}: {}, {} of data, {state}",
            name.as_str().unwrap_or("?"),
            payload.time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            outcome.as_str().unwrap_or("?"),
            ByteSize(payload.subject.data_bytes()),
        ));
        objects.push(json!({ "what": name, "outcome": outcome, "time": payload.time, "anchor": record.anchor().to_string(),
                             "stale": reasons }));
    }
    Ok(objects)
}

/// Why a record no longer counts, for people.
fn in_words(reason: &StaleReason) -> String {
    match reason {
        StaleReason::ManifestChanged { .. } => "the manifest changed".to_owned(),
        StaleReason::ToolVersionChanged { recorded, current } => {
            format!("made by version {}, this is {current}", table::printable(recorded))
        }
        StaleReason::KeyChanged { .. } => "the repository was opened with another key".to_owned(),
        StaleReason::DataSizeChanged { recorded_bytes, current_bytes } => {
            format!("the data are {} now and were {}", ByteSize(*current_bytes), ByteSize(*recorded_bytes))
        }
        StaleReason::TooOld { age_seconds, max_age_seconds } => format!(
            "{} old, {} are allowed",
            core_units::Duration::from_seconds(*age_seconds),
            core_units::Duration::from_seconds(*max_age_seconds)
        ),
        StaleReason::FromTheFuture { ahead_seconds } => {
            format!("dated {} in the future", core_units::Duration::from_seconds(*ahead_seconds))
        }
    }
}

/// The present facts about the components that a record was about.
fn current<'a>(
    manifest: &'a Manifest,
    key_id: &'a str,
    repository: &Repository,
    index: &retoma_repo::index::Index,
    record: &Record,
) -> Result<Facts<'a>> {
    let mut data_bytes = 0;
    for component in &record.payload().subject.components {
        if let Some((_, snapshot)) = newest(repository, &component.component)? {
            let path = snapshot.paths.first().cloned().unwrap_or_default();
            for entry in retoma_repo::ops::ls::list(repository, index, &snapshot, path.as_bytes(), true)? {
                data_bytes += entry?.node.size_bytes;
            }
        }
    }
    Ok(Facts {
        manifest_hash: manifest.hash(),
        tool_version: env!("CARGO_PKG_VERSION"),
        key_id,
        data_bytes,
        time: jiff::Timestamp::now(),
    })
}

//! `retoma status`: how old the newest snapshots are, what drills measured, and which evidence is stale.

use super::copies;
use super::cost;
use super::record;
use super::target;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::table;
use retoma_core::decide::staleness::{Facts, StaleReason};
use retoma_core::manifest::{Component, ComponentKind, Manifest};
use retoma_core::units::{ByteSize, span};
use retoma_core::{Error, Result, error::codes};
use retoma_repo::evidence::{Chain, Payload, Record, SubjectComponent, What, stale};
use retoma_repo::format::snapshot::Snapshot;
use retoma_repo::ops::find::{self, Selector};
use retoma_repo::{Repository, SnapshotId};
use serde_json::{Value, json};
use std::time::Duration;

/// Evidence older than this is stale.
const MAX_AGE: Duration = Duration::from_hours(31 * 24);
/// So many records are looked through for the newest ones.
const LOOKED_AT: usize = 1000;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Show instead what each repository holds and what a month of it costs, by an estimate
    #[arg(long)]
    cost: bool,
}

pub(super) fn run(context: &Context, args: &Args) -> Result<Exit> {
    if args.cost {
        return cost::run(context);
    }
    let manifest = context.manifest()?.manifest;
    let repository = context.open(&manifest)?;
    let now = jiff::Timestamp::now();
    let (records, unread) = records(&manifest, &repository)?;
    let (mut rows, mut objects, mut late) = (Vec::new(), Vec::new(), false);
    let mut failures = Vec::new();
    for component in &manifest.components {
        let newest = newest(&repository, &component.name)?;
        let age = newest.as_ref().map(|(_, snapshot)| (now.as_second() - snapshot.time.0.as_second()).max(0));
        let rpo = component.objectives.rpo.as_seconds();
        let limit = component.snapshot_age_limit().as_seconds();
        let fresh = age.is_some_and(|age| u64::try_from(age).is_ok_and(|age| age <= limit));
        late |= !fresh;
        let failure = Failure::of(&records, &component.name)
            .filter(|failure| newest.as_ref().is_none_or(|(_, snapshot)| failure.time > snapshot.time.0));
        rows.push(row(component, newest.as_ref().map(|(id, _)| *id), age, (fresh, failure.is_some())));
        objects.push(json!({
            "component": component.name, "kind": component.kind().as_str(), "tier": component.tier.as_str(),
            "snapshot": newest.as_ref().map(|(id, _)| id.to_hex()), "age_seconds": age,
            "age_limit_seconds": limit, "rpo_worst_case_seconds": component.schedule.worst_case().as_seconds(),
            "rpo_objective_seconds": rpo, "rto_objective_seconds": component.objectives.rto.as_seconds(), "fresh": fresh,
            "last_failure": failure.as_ref().map(Failure::object),
        }));
        failures.extend(failure.map(|failure| failure.in_words(&component.name)));
    }
    context.printer.data(&table::table(&["component", "tier", "snapshot", ">age", ">RPO", "state"], &rows));
    for text in &failures {
        context.printer.data(text);
    }
    let (copies, one_is_late) = copies::show(context, &manifest, &repository)?;
    late |= one_is_late;
    let mut windows = Vec::new();
    for component in manifest.components.iter().filter(|it| it.kind() == ComponentKind::Postgres) {
        windows.append(&mut target::windows(context, &repository, &component.name));
    }
    if let Some(error) = unread {
        return Err(error);
    }
    let evidence = evidence(context, &manifest, &repository, &records)?;
    context.printer.json(
        "retoma.status/1",
        json!({ "components": objects, "copies": copies, "windows": windows, "evidence": evidence }),
    );
    Ok(if late { Exit::Missed } else { Exit::Ok })
}

/// The newest complete snapshot of a component; that there is none is an answer, that it can't be read is not.
pub(super) fn newest(repository: &Repository, component: &str) -> Result<Option<(SnapshotId, Snapshot)>> {
    let selector = Selector { component: Some(component.to_owned()), ..Selector::default() };
    match find::snapshot(repository, &selector) {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.code() == codes::SNAPSHOT_NOT_FOUND => Ok(None),
        Err(error) => Err(error),
    }
}

/// The records of the manifest's writer, the newest first, as far as they can be read; and why not further.
pub(super) fn records(manifest: &Manifest, repository: &Repository) -> Result<(Vec<Record>, Option<Error>)> {
    let mut chain = Chain::open(repository, &manifest.evidence.writer)?;
    if let Some(pinned) = record::pinned(manifest)? {
        chain = chain.pin(pinned);
    }
    let mut records = Vec::new();
    for record in chain.newest_first()?.take(LOOKED_AT) {
        match record {
            Ok(record) => records.push(record),
            Err(error) => return Ok((records, Some(error))),
        }
    }
    Ok((records, None))
}

/// The last backup of a component, which gave no snapshot.
struct Failure {
    time: jiff::Timestamp,
    code: String,
    message: String,
}

impl Failure {
    /// What the newest record of a backup of this component says, when it is that.
    fn of(records: &[Record], component: &str) -> Option<Self> {
        let backups = records.iter().map(Record::payload).filter(|payload| payload.what == What::Backup);
        let about =
            |payload: &&Payload| payload.subject.components.iter().any(|it| it.component == component);
        let newest = backups.into_iter().find(about)?;
        let of_it = |failed: &&Value| failed["component"] == component;
        let failed = newest.details["failed"].as_array()?.iter().find(of_it)?;
        let text = |name: &str| failed[name].as_str().unwrap_or("?").to_owned();
        Some(Self { time: newest.time, code: text("code"), message: text("message") })
    }

    fn object(&self) -> Value {
        json!({ "time": self.time, "code": self.code, "message": self.message })
    }

    fn in_words(&self, component: &str) -> String {
        format!(
            "{component}: the last backup failed at {} [{}]: {}",
            self.time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            table::printable(&self.code),
            table::printable(&self.message)
        )
    }
}

fn row(
    component: &Component,
    snapshot: Option<SnapshotId>,
    age: Option<i64>,
    (fresh, failed): (bool, bool),
) -> Vec<String> {
    let age = age.map(|age| Duration::from_secs(u64::try_from(age).unwrap_or_default()));
    let state = match (fresh, failed) {
        (true, false) => "fresh",
        (false, false) => "late",
        (true, true) => "failed",
        (false, true) => "failed, late",
    };
    vec![
        component.name.clone(),
        component.tier.as_str().to_owned(),
        snapshot.map_or_else(|| "none".to_owned(), SnapshotId::short),
        age.map_or_else(|| "-".to_owned(), span),
        component.objectives.rpo.in_words(),
        state.to_owned(),
    ]
}

/// The newest record of each kind, with the reasons for which it no longer counts.
fn evidence(
    context: &Context,
    manifest: &Manifest,
    repository: &Repository,
    records: &[Record],
) -> Result<Vec<Value>> {
    let mut newest: Vec<(What, &Record)> = Vec::new();
    for record in records {
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
    let index = context.readable_index(repository)?;
    let key_id = repository.key_id().to_hex();
    let mut objects = Vec::new();
    for (what, record) in newest {
        let reasons = stale(record, &current(manifest, &key_id, repository, &index, record)?, MAX_AGE);
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
            span(Duration::from_secs(*age_seconds)),
            span(Duration::from_secs(*max_age_seconds))
        ),
        StaleReason::FromTheFuture { ahead_seconds } => {
            format!("dated {} in the future", span(Duration::from_secs(*ahead_seconds)))
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
    // A component without a snapshot has no size in the record; it says nothing about the size now.
    let measured = |component: &&SubjectComponent| component.snapshot.is_some() || component.data_bytes > 0;
    for component in record.payload().subject.components.iter().filter(measured) {
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

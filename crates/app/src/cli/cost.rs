//! `retoma status --cost`: what each repository holds, and an estimate of what a month of it costs. `docs/cost.md`.

use super::status;
use crate::context::Context;
use crate::exit::Exit;
use crate::output::{self, table};
use jiff::{SignedDuration, Timestamp};
use retoma_core::decide::cost::{self, Cost, Listed, MONTH_DAYS, Requests, Runs};
use retoma_core::manifest::{self, Manifest};
use retoma_core::units::ByteSize;
use retoma_core::{ErrorKind, Result, ResultExt};
use retoma_repo::Repository;
use retoma_repo::format::tree::NodeKind;
use retoma_repo::ops::ls;
use serde_json::{Value, json};

/// What was found of one repository.
struct Found {
    listed: Listed,
    requests: Requests,
    cost: Option<Cost>,
}

pub(super) fn run(context: &Context) -> Result<Exit> {
    let manifest = context.manifest()?.manifest;
    let repositories: Vec<&manifest::Repository> = match context.repository {
        Some(_) => vec![context.chosen(&manifest)?],
        None => manifest.repositories.iter().collect(),
    };
    let alone = repositories.len() == 1;
    let (mut rows, mut objects, mut unread) = (Vec::new(), Vec::new(), false);
    for configured in &repositories {
        match look(&manifest, configured) {
            Ok(found) => {
                rows.push(row(configured, &found));
                objects.push(object(configured, &found));
            }
            Err(error) if alone || error.kind() == ErrorKind::Cancelled => return Err(error),
            // One repository that is away must not hide what the others cost.
            Err(error) => {
                context.printer.explain_warning(&error);
                rows.push(
                    [configured.name.as_str(), "-", "-", "-", "-", "-", "unknown"]
                        .map(str::to_owned)
                        .to_vec(),
                );
                objects.push(json!({
                    "repository": configured.name, "objects": null, "stored_bytes": null, "requests_per_month": null,
                    "cost_per_month": null, "error": output::error_object(&error),
                }));
                unread = true;
            }
        }
    }
    let head = ["repository", ">objects", ">bytes", ">writes", ">lists", ">reads", ">a month"];
    context.printer.data(&table::table(&head, &rows));
    context
        .printer
        .data("requests in a month and what they cost are an estimate from the schedule: docs/cost.md");
    let unpriced: Vec<_> =
        repositories.iter().filter(|it| it.price.is_none()).map(|it| format!("`{}`", it.name)).collect();
    if !unpriced.is_empty() {
        let names = unpriced.join(", ");
        context
            .printer
            .data(&format!("no price is known of {names}: add a table `[repository.price]` to the manifest"));
    }
    context.printer.json("retoma.status/1", json!({ "costs": objects }));
    Ok(if unread { Exit::Incomplete } else { Exit::Ok })
}

fn look(manifest: &Manifest, configured: &manifest::Repository) -> Result<Found> {
    let repository = retoma_control::open::open_repository(configured, false)?.repository;
    let listed = listed(&repository, Timestamp::now())?;
    let runs = runs(manifest, configured, &repository)?;
    let requests = cost::requests(&listed, &runs);
    let cost = configured.price.as_ref().map(|prices| cost::cost(&listed, &requests, prices));
    Ok(Found { listed, requests, cost })
}

/// Counts every object, as seen at `now`.
fn listed(repository: &Repository, now: Timestamp) -> Result<Listed> {
    let (mut listed, mut oldest) = (Listed::default(), now);
    let month = SignedDuration::from_hours(24 * MONTH_DAYS.cast_signed());
    let count = |meta: retoma_repo::store::ObjectMeta| {
        let folder = meta.key.as_str().split('/').next().unwrap_or_default();
        listed.objects += 1;
        listed.bytes = listed.bytes.saturating_add(meta.size_bytes);
        match folder {
            "snapshots" => listed.snapshots += 1,
            "index" => listed.index_files += 1,
            "data" => listed.packs += 1,
            "keys" => listed.keys += 1,
            _ => {}
        }
        if folder != "locks" {
            listed.written += u64::from(now.duration_since(meta.modified) < month);
            oldest = oldest.min(meta.modified);
        }
    };
    repository.store().for_each("", count).context("list the repository")?;
    let age_seconds = u64::try_from(now.duration_since(oldest).as_secs()).unwrap_or(0);
    listed.age_days = age_seconds.div_ceil(24 * 3600).max(1);
    Ok(listed)
}

/// What the manifest does with this repository.
fn runs(manifest: &Manifest, configured: &manifest::Repository, repository: &Repository) -> Result<Runs> {
    let index = repository.load_readable_index()?;
    let mut runs = Runs {
        copy_seconds: configured.copy_of.as_ref().map(|_| manifest.agent.copy_every.as_seconds()),
        retention_seconds: manifest.agent.retention_every.as_seconds(),
        verify_seconds: manifest.agent.verify_every.as_seconds(),
        verify_percent: u64::from(manifest.agent.verify_sample_percent),
        has_locks: configured.lock.is_some(),
        ..Runs::default()
    };
    for component in manifest.components.iter().filter(|it| it.repositories.contains(&configured.name)) {
        let mut folders = 0;
        if let Some((_, snapshot)) = status::newest(repository, &component.name)? {
            for entry in ls::list(repository, &index, &snapshot, b"/", true)? {
                folders += u64::from(entry?.node.kind == NodeKind::Directory);
            }
        }
        runs.backups.push((component.schedule.every.as_seconds(), folders));
    }
    Ok(runs)
}

fn row(configured: &manifest::Repository, found: &Found) -> Vec<String> {
    let Requests { writes, lists, reads } = found.requests;
    let money = configured.price.as_ref().zip(found.cost);
    vec![
        configured.name.clone(),
        found.listed.objects.to_string(),
        ByteSize(found.listed.bytes).to_string(),
        writes.to_string(),
        lists.to_string(),
        reads.to_string(),
        money.map_or_else(
            || "-".to_owned(),
            |(prices, cost)| format!("{} {}", cost.total, table::printable(&prices.currency)),
        ),
    ]
}

fn object(configured: &manifest::Repository, found: &Found) -> Value {
    let money = configured.price.as_ref().zip(found.cost).map(|(prices, cost)| {
        json!({ "currency": prices.currency, "storage": cost.storage, "writes": cost.writes,
                "reads": cost.reads, "total": cost.total })
    });
    json!({
        "repository": configured.name, "objects": found.listed.objects, "stored_bytes": found.listed.bytes,
        "requests_per_month": found.requests, "cost_per_month": money, "error": Value::Null,
    })
}

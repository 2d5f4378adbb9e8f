//! `retoma status`: of components with several repositories, what each of them has, and how far it is behind.

use super::status;
use crate::context::{self, Context};
use crate::output::{self, table};
use retoma_core::manifest::{Component, Manifest};
use retoma_core::units::{self, span};
use retoma_core::{ErrorKind, Result};
use retoma_repo::format::snapshot::Snapshot;
use retoma_repo::{Repository, SnapshotId};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// What a repository has of a component: its newest complete snapshot, or why that cannot be said.
type Newest = std::result::Result<Option<(SnapshotId, Snapshot)>, Value>;

/// Looks into every repository of the components that have several, says it, and gives it; the flag tells whether one of them
/// is late or cannot be read. Nothing where one repository was asked for by name.
pub(super) fn show(
    context: &Context,
    manifest: &Manifest,
    chosen: &Repository,
) -> Result<(Vec<Value>, bool)> {
    let several: Vec<&Component> =
        manifest.components.iter().filter(|it| it.repositories.len() + it.copies.len() > 1).collect();
    let Some(name) = context.not_alone(manifest)?.filter(|_| !several.is_empty()) else {
        return Ok((Vec::new(), false));
    };
    let mut opened: BTreeMap<&str, std::result::Result<Repository, Value>> = BTreeMap::new();
    let (mut rows, mut objects, mut late) = (Vec::new(), Vec::new(), false);
    for component in several {
        let mut found: Vec<(&str, Newest)> = Vec::new();
        for repository in component.repositories.iter().chain(&component.copies) {
            if !opened.contains_key(repository.as_str()) {
                let open = if *repository == name {
                    Ok(chosen.clone())
                } else {
                    open(context, manifest, repository)?
                };
                opened.insert(repository, open);
            }
            let newest = match &opened[repository.as_str()] {
                Ok(open) => told(context, status::newest(open, &component.name))?,
                Err(why) => Err(why.clone()),
            };
            found.push((repository, newest));
        }
        let times = found.iter().filter_map(|(_, newest)| Some(time(newest.as_ref().ok()?.as_ref()?)));
        let last = times.max();
        for (repository, newest) in &found {
            let is_copy = component.copies.iter().any(|name| name == repository);
            let limit = component.snapshot_age_limit();
            let limit = if is_copy { manifest.copy_age_limit(component) } else { limit };
            let row = Row::new(limit, newest, last);
            late |= !row.fresh;
            rows.push(row.cells(component, repository, newest));
            objects.push(row.object(component, repository, newest));
        }
    }
    context.printer.data(&table::table(&["component", "repository", "snapshot", ">behind", "state"], &rows));
    Ok((objects, late))
}

fn open(
    context: &Context,
    manifest: &Manifest,
    name: &str,
) -> Result<std::result::Result<Repository, Value>> {
    let described = context::repository(manifest, name)?;
    told(context, retoma_control::open::open_repository(described, false).map(|opened| opened.repository))
}

/// One repository that is away must not hide the others: its error is told, and becomes part of the answer.
fn told<T>(context: &Context, result: Result<T>) -> Result<std::result::Result<T, Value>> {
    match result {
        Ok(value) => Ok(Ok(value)),
        Err(error) if error.kind() == ErrorKind::Cancelled => Err(error),
        Err(error) => {
            context.printer.explain_warning(&error);
            Ok(Err(output::error_object(&error)))
        }
    }
}

fn time((_, snapshot): &(SnapshotId, Snapshot)) -> i64 {
    snapshot.time.0.as_second()
}

struct Row {
    age_seconds: Option<i64>,
    behind_seconds: Option<i64>,
    fresh: bool,
}

impl Row {
    /// `limit` is how old the newest snapshot may be.
    fn new(limit: units::Duration, newest: &Newest, last: Option<i64>) -> Self {
        let at = newest.as_ref().ok().and_then(Option::as_ref).map(time);
        let now = jiff::Timestamp::now().as_second();
        let age_seconds = at.map(|at| (now - at).max(0));
        let limit = limit.as_seconds();
        Self {
            age_seconds,
            behind_seconds: last.zip(at).map(|(last, at)| last - at),
            fresh: age_seconds.is_some_and(|age| u64::try_from(age).is_ok_and(|age| age <= limit)),
        }
    }

    fn cells(&self, component: &Component, repository: &str, newest: &Newest) -> Vec<String> {
        let behind = self.behind_seconds.map(|seconds| u64::try_from(seconds).unwrap_or_default());
        let state = match newest {
            Err(_) => "cannot be read",
            Ok(_) if self.fresh => "fresh",
            Ok(_) => "late",
        };
        vec![
            component.name.clone(),
            repository.to_owned(),
            newest
                .as_ref()
                .ok()
                .and_then(Option::as_ref)
                .map_or_else(|| "none".to_owned(), |(id, _)| id.short()),
            behind.map_or_else(|| "-".to_owned(), |seconds| span(Duration::from_secs(seconds))),
            state.to_owned(),
        ]
    }

    fn object(&self, component: &Component, repository: &str, newest: &Newest) -> Value {
        let snapshot = newest.as_ref().ok().and_then(Option::as_ref).map(|(id, _)| id.to_hex());
        json!({
            "component": component.name, "repository": repository, "snapshot": snapshot, "age_seconds": self.age_seconds,
            "behind_seconds": self.behind_seconds, "fresh": self.fresh, "error": newest.as_ref().err(),
        })
    }
}

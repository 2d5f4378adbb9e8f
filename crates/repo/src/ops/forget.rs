//! Forget: removes snapshots by a policy or by name, as a plan that is then applied; holds; and mass change that is accepted.
//!
//! A snapshot is removed by one deletion; what it needed is left to prune. Held snapshots, the newest manifest and the
//! newest complete snapshot of each component are never removed, nor what a mass change holds. Which others stay is decided in
//! `retoma_core::decide::retention`.

use crate::format::lock::Holder;
use crate::format::snapshot::{Snapshot, TAG_HOLD, TAG_MASS_CHANGE, TAG_MASS_CHANGE_ACCEPTED};
use crate::id::SnapshotId;
use crate::lock;
use crate::repository::{Folder, Repository};
use jiff::{Timestamp, tz::TimeZone};
use retoma_core::decide::retention::{self, GroupKey, Holds, KeepReason, Policy, SnapshotFacts};
use retoma_core::{Error, ErrorKind, Result, ResultExt, error::codes};
use std::collections::BTreeSet;

/// Which snapshots would go and which stay, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForgetPlan {
    /// The decision about each snapshot.
    pub decisions: retention::Plan,
    /// What is removed, in the order in which it is.
    pub remove: Vec<SnapshotId>,
    /// What must still be there when the plan is applied.
    keep: Vec<SnapshotId>,
}

/// What the decision needs to know about a snapshot.
pub fn facts(id: SnapshotId, snapshot: &Snapshot) -> SnapshotFacts {
    SnapshotFacts {
        id: id.to_hex(),
        time: snapshot.time.0,
        group: GroupKey {
            host: snapshot.hostname.clone(),
            component: snapshot.component().map(str::to_owned),
            paths: snapshot.paths.clone(),
        },
        tags: snapshot.tags.iter().cloned().collect(),
        incomplete: snapshot.is_incomplete(),
    }
}

/// Decides about the snapshots that `wanted` says yes to, as seen at `now`; days and so on are those of `zone`. The
/// others are not touched.
///
/// # Errors
/// `Corrupt` when a snapshot can't be read: nothing is removed then; what the store says.
pub fn plan(
    repository: &Repository,
    policy: &Policy,
    holds: &Holds,
    wanted: &dyn Fn(&SnapshotFacts) -> bool,
    now: Timestamp,
    zone: &TimeZone,
) -> Result<ForgetPlan> {
    let all = repository.snapshots_by_id()?;
    let facts: Vec<SnapshotFacts> =
        all.iter().map(|(id, snapshot)| facts(*id, snapshot)).filter(|facts| wanted(facts)).collect();
    from_decisions(retention::plan(&facts, policy, holds, now, zone))
}

/// A plan that removes exactly `ids`.
///
/// # Errors
/// `NotFound` with `R0211` for one that is not there, `Conflict` with `R0604` for one that must stay.
pub fn plan_removal(
    repository: &Repository,
    ids: &BTreeSet<SnapshotId>,
    now: Timestamp,
) -> Result<ForgetPlan> {
    let all = repository.snapshots_by_id()?;
    if let Some(id) = ids.iter().find(|id| !all.contains_key(id)) {
        let message = format!("there is no snapshot `{}`", id.short());
        return Err(Error::new(ErrorKind::NotFound, codes::SNAPSHOT_NOT_FOUND, message)
            .with_hint("`retoma snapshots` lists those that there are"));
    }
    // A policy without rules keeps everything; what has another reason too must stay.
    let facts: Vec<SnapshotFacts> = all.iter().map(|(id, snapshot)| facts(*id, snapshot)).collect();
    let mut decisions = retention::plan(&facts, &Policy::default(), &Holds::default(), now, &TimeZone::UTC);
    for decision in &mut decisions.decisions {
        let id = SnapshotId::parse(&decision.id)?;
        if !ids.contains(&id) {
            continue;
        }
        if let Some(reason) = decision.keep_reasons().iter().find(|reason| protects(reason)) {
            let message = format!("snapshot `{}` must stay: {reason}", id.short());
            return Err(Error::new(ErrorKind::Conflict, codes::SNAPSHOT_PROTECTED, message)
                .with_hint(way_out(reason, id, all.get(&id))));
        }
        let reason = retention::RemoveReason::NoRule;
        decision.action = retention::Action::Remove { reason };
    }
    from_decisions(decisions)
}

/// What makes a protected snapshot one that may go.
fn way_out(reason: &KeepReason, id: SnapshotId, snapshot: Option<&Snapshot>) -> String {
    let component =
        snapshot.and_then(Snapshot::component).map_or_else(String::new, |name| format!(" {name}"));
    match reason {
        KeepReason::Hold { .. } => {
            format!("take the hold away with `retoma forget --release {}`", id.short())
        }
        KeepReason::MassChange { snapshot } => {
            let changed: String = snapshot.chars().take(8).collect();
            format!(
                "look at what changed there (docs/mass-change.md); if it was meant, say so with `retoma forget --accept {changed}`"
            )
        }
        KeepReason::NewestManifest => {
            "recovery needs it; after a change of the manifest `retoma backup` stores a newer one".to_owned()
        }
        _ => format!("make a newer complete one first: `retoma backup{component}`"),
    }
}

fn protects(reason: &KeepReason) -> bool {
    matches!(
        reason,
        KeepReason::Hold { .. }
            | KeepReason::MassChange { .. }
            | KeepReason::NewestComplete
            | KeepReason::OnlyComplete
            | KeepReason::NewestManifest
    )
}

fn from_decisions(decisions: retention::Plan) -> Result<ForgetPlan> {
    let remove = decisions.removed().map(SnapshotId::parse).collect::<Result<_>>()?;
    let keep = decisions.kept().map(SnapshotId::parse).collect::<Result<_>>()?;
    Ok(ForgetPlan { decisions, remove, keep })
}

/// Removes what the plan says, one by one, and gives what it removed.
///
/// # Errors
/// `Conflict` with `R0601` while somebody deletes at once, with `R0603` when a snapshot that the plan keeps is gone: it
/// was made for another repository than there is now. What the store says; what was removed until then is in no message,
/// plan again.
pub fn apply(repository: &Repository, plan: &ForgetPlan) -> Result<Vec<SnapshotId>> {
    if plan.remove.is_empty() {
        return Ok(Vec::new());
    }
    let guard = lock::acquire(repository, Holder::Backup)?;
    let there = repository.snapshots_by_id()?;
    if let Some(id) = plan.keep.iter().find(|id| !there.contains_key(id)) {
        let message = format!("snapshot `{}`, which the plan keeps, is gone", id.short());
        return Err(Error::new(ErrorKind::Conflict, codes::PLAN_OUTDATED, message)
            .with_hint("run the command again: it makes a new plan"));
    }
    let mut removed = Vec::new();
    for id in plan.remove.iter().filter(|id| there.contains_key(id)) {
        delete(repository, *id)?;
        removed.push(*id);
    }
    guard.release();
    Ok(removed)
}

/// Holds a snapshot, so that no policy removes it, or takes the hold away; gives its new id. The rewritten snapshot is
/// durable before the old one is deleted: whoever is killed in between has both.
///
/// # Errors
/// `NotFound`; `Conflict` with `R0601` while somebody deletes at once; what the store says.
pub fn hold(repository: &Repository, id: SnapshotId, on: bool) -> Result<SnapshotId> {
    retag(repository, id, |tags| {
        let is_held = tags.iter().any(|tag| tag == TAG_HOLD);
        tags.retain(|tag| tag != TAG_HOLD);
        if on {
            tags.push(TAG_HOLD.to_owned());
        }
        Ok(is_held != on)
    })
}

/// Notes that the mass change in a snapshot was meant, so that what is older may go again; gives its new id. One that was
/// accepted before stays as it is. In the same order as [`hold`]: whoever is killed in between has both, and what is older
/// still stays.
///
/// # Errors
/// `NotFound`; `Invalid` with `R0002` for a snapshot that has no such tag; `Conflict` with `R0601` while somebody deletes at
/// once; what the store says.
pub fn accept(repository: &Repository, id: SnapshotId) -> Result<SnapshotId> {
    retag(repository, id, |tags| {
        if tags.iter().any(|tag| tag == TAG_MASS_CHANGE_ACCEPTED) {
            return Ok(false);
        }
        if !tags.iter().any(|tag| tag == TAG_MASS_CHANGE) {
            let message = format!("snapshot `{}` does not look like mass change", id.short());
            return Err(Error::new(ErrorKind::Invalid, codes::USAGE, message)
                .with_hint("`retoma snapshots` lists those that do"));
        }
        tags.retain(|tag| tag != TAG_MASS_CHANGE);
        tags.push(TAG_MASS_CHANGE_ACCEPTED.to_owned());
        Ok(true)
    })
}

/// Rewrites a snapshot with other tags, when `change` says that they are others.
fn retag(
    repository: &Repository,
    id: SnapshotId,
    change: impl FnOnce(&mut Vec<String>) -> Result<bool>,
) -> Result<SnapshotId> {
    let guard = lock::acquire(repository, Holder::Backup)?;
    let mut snapshot = repository.snapshot(id)?;
    if !change(&mut snapshot.tags)? {
        return Ok(id);
    }
    snapshot.original = snapshot.original.or(Some(id));
    let new = repository.save_snapshot(&snapshot)?;
    delete(repository, id)?;
    guard.release();
    Ok(new)
}

fn delete(repository: &Repository, id: SnapshotId) -> Result<()> {
    let key = Folder::Snapshots.key(&id.to_hex())?;
    repository.store().delete(&key).with_context(|| format!("delete snapshot {}", id.short()))
}

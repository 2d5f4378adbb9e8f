//! Lets go of WAL that nobody needs: a plan, and its application. What is needed is decided in `core::decide::keep`; why the order
//! loses nothing: `docs/wal.md`, "Keeping".

use super::check::{self, ServerWal};
use crate::interrupt::Interrupt;
use retoma_core::decide::keep::{Floors, Need, floors, is_less_needed, lower};
use retoma_core::postgres::{Lsn, SegmentName, SegmentSize, WalFileName};
use retoma_core::{Result, ResultExt as _};
use retoma_repo::Repository;
use retoma_repo::format::lock::Holder;
use retoma_repo::format::time::Time;
use retoma_repo::lock;
use retoma_repo::wal::{Archive, PartName, WalObject};
use std::time::Duration;

/// How far the clocks of two hosts may be apart.
const SKEW_SECONDS: i64 = 3600;
/// The lock is looked at again after so many deletions.
const CHECK_EVERY: usize = 64;

/// What is to be done with the WAL of one server.
#[derive(Debug, Clone)]
pub struct ServerPlan {
    /// The component.
    pub component: String,
    /// The server.
    pub system_identifier: u64,
    /// What goes, in this order: nobody needs it, and nobody did a grace period ago.
    pub objects: Vec<WalObject>,
    /// Bytes of it, as stored.
    pub bytes: u64,
    /// What is no longer needed now, to be written down; `None` when nothing was added since the last time.
    pub floor: Option<Floors>,
    /// There is no snapshot of this server: all of its WAL stays.
    pub is_without_snapshot: bool,
    /// A backup runs that may need what would go: it goes another time.
    pub is_postponed: bool,
    /// Floors that are done with when that is gone; the newest of them stays, to tell what was known.
    done: Vec<Time>,
    archive: Archive,
}

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Removed {
    /// Objects that were deleted.
    pub objects: u64,
    /// Their bytes, as stored.
    pub bytes: u64,
    /// Servers of which a floor was written down.
    pub floors: u64,
}

impl ServerPlan {
    /// Whether there is nothing to be done.
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty() && self.floor.is_none() && self.done.is_empty()
    }
}

/// Looks at all WAL in the repository. Changes nothing.
///
/// # Errors
/// A snapshot or a floor that cannot be read: nobody knows what it needs. What the store says.
pub fn plan(repository: &Repository, now: Time, grace: Duration) -> Result<Vec<ServerPlan>> {
    // Before the snapshots are: what one of them commits meanwhile is seen then.
    let running = lock::running_backups(repository)?;
    let servers = check::check(repository, None).context("find what WAL is needed")?;
    let archived = servers.iter().filter(|server| !server.listing.timelines.is_empty());
    archived.map(|server| plan_server(repository, server, &running, now, grace)).collect()
}

fn plan_server(
    repository: &Repository,
    server: &ServerWal,
    running: &[Time],
    now: Time,
    grace: Duration,
) -> Result<ServerPlan> {
    let archive = Archive::new(repository, &server.component, server.system_identifier)?;
    let needs: Vec<Need> = server
        .snapshots
        .iter()
        .map(|snapshot| Need { timeline: snapshot.timeline, start: snapshot.start })
        .collect();
    let current = floors(&needs, &server.histories, server.listing.timelines.keys().copied());
    let stored = archive.floors()?;
    let is_ripe = |time: Time| now.0.duration_since(time.0).unsigned_abs() >= grace && now >= time;
    let ripe = stored.iter().rfind(|floor| is_ripe(floor.time));
    let (let_go, written) = match ripe {
        _ if grace.is_zero() => (current.clone(), now),
        Some(floor) => (lower(&current, &floor.floors), floor.time),
        None => (Floors::new(), now),
    };
    let is_postponed =
        running.iter().any(|since| since.to_unix().0 <= written.to_unix().0.saturating_add(SKEW_SECONDS));
    let let_go = if is_postponed { Floors::new() } else { let_go };
    let (objects, bytes) = going(&archive, server, &let_go)?;
    let is_new = stored.last().is_none_or(|last| is_less_needed(&current, &last.floors));
    let done = stored.iter().map(|floor| floor.time);
    let done = done.filter(|time| !is_postponed && ripe.is_some_and(|ripe| *time < ripe.time));
    Ok(ServerPlan {
        component: server.component.clone(),
        system_identifier: server.system_identifier,
        objects,
        bytes,
        floor: (is_new && !grace.is_zero() && !current.is_empty()).then_some(current),
        is_without_snapshot: needs.is_empty(),
        is_postponed,
        done: done.collect(),
        archive,
    })
}

/// What lies before the floors, and parts that a whole segment covers; by timeline, oldest first.
fn going(archive: &Archive, server: &ServerWal, let_go: &Floors) -> Result<(Vec<WalObject>, u64)> {
    let size = server.listing.size;
    let (mut found, mut bytes) = (Vec::new(), 0);
    archive.for_each(|object, stored_bytes| {
        let is_before = segment_of(object).and_then(|segment| {
            let end = end(segment, size)?;
            Some(end <= *let_go.get(&segment.timeline())?)
        });
        if is_before.unwrap_or(false) || is_covered(object, server) {
            found.push(object);
            bytes += stored_bytes;
        }
    })?;
    found.sort_by_key(|object| (segment_of(*object), matches!(object, WalObject::File(_))));
    Ok((found, bytes))
}

fn end(segment: SegmentName, size: SegmentSize) -> Option<Lsn> {
    segment.start(size)?.checked_add(size.bytes())
}

/// The segment that an object is of; a history is of none.
fn segment_of(object: WalObject) -> Option<SegmentName> {
    match object {
        WalObject::Part(PartName { segment, .. })
        | WalObject::File(
            WalFileName::Segment(segment)
            | WalFileName::Partial(segment)
            | WalFileName::Backup { segment, .. },
        ) => Some(segment),
        WalObject::File(WalFileName::History(_)) => None,
    }
}

fn is_covered(object: WalObject, server: &ServerWal) -> bool {
    let WalObject::Part(part) = object else { return false };
    let timeline = server.listing.timelines.get(&part.segment.timeline());
    let number = part.segment.number(server.listing.size);
    timeline.zip(number).is_some_and(|(timeline, number)| timeline.segments.contains(number))
}

/// Applies the plans: what they name, and nothing else.
///
/// # Errors
/// `Conflict` with `R0601` when somebody's lock forbids it, `Fenced` when ours was lost, `Cancelled`; what the store says. What
/// was done until then is consistent.
pub fn apply(
    repository: &Repository,
    plans: &[ServerPlan],
    now: Time,
    grace: Duration,
    interrupt: &Interrupt,
) -> Result<Removed> {
    let mut removed = Removed::default();
    if plans.iter().all(ServerPlan::is_empty) {
        return Ok(removed);
    }
    let holder = if grace.is_zero() { Holder::PruneNow } else { Holder::Prune };
    let guard = lock::acquire(repository, holder)?;
    for plan in plans {
        if let Some(floor) = &plan.floor {
            plan.archive.put_floor(now, floor)?;
            removed.floors += 1;
        }
        for (count, object) in plan.objects.iter().enumerate() {
            if count % CHECK_EVERY == 0 {
                interrupt.check()?;
                guard.check()?;
            }
            plan.archive.delete(*object)?;
            removed.objects += 1;
        }
        removed.bytes += plan.bytes;
        for time in &plan.done {
            plan.archive.delete_floor(*time)?;
        }
    }
    guard.release();
    Ok(removed)
}

#[cfg(test)]
mod tests;

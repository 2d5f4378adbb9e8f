//! Renewal of the locks of objects, as a plan that is then applied. `docs/immutability.md`.
//!
//! It looks at every object of the repository as it is now, but at locks, marks, and packs that a mark says will go. It is no
//! part of prune, which refuses a damaged repository: locks must not end because of damage. Nothing is deleted.

use crate::backup::Progress;
use crate::repository::{Folder, Repository};
use crate::store::cloud::{Held, Locks, is_locked};
use crate::store::{Key, ObjectMeta};
use crate::threads;
use jiff::Timestamp;
use retoma_core::manifest::LockMode;
use retoma_core::{ErrorKind, Result, ResultExt};
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// How many requests are under way at once: they wait for the network, and need no processor.
const REQUESTS: usize = 16;

/// What locks a repository's objects have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Found {
    /// Objects that were asked about.
    pub looked_at: u64,
    /// Objects that there are, but locks and marks.
    pub objects: u64,
    /// Those of them that have no lock.
    pub free: u64,
    /// When the first of the others' locks ends.
    pub soonest: Option<Timestamp>,
    /// Those with locks that somebody with a special right may take away.
    pub governed: u64,
}

impl Found {
    fn add(&mut self, held: Held) {
        match held {
            Held::Gone => return,
            Held::Free => self.free += 1,
            Held::Until(end, mode) => {
                self.soonest = Some(self.soonest.map_or(end, |soonest| soonest.min(end)));
                self.governed += u64::from(mode == LockMode::Governance);
            }
        }
        self.looked_at += 1;
    }
}

/// An object whose lock will be extended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// Its name.
    pub key: Key,
    /// The lock that it has.
    pub held: Held,
}

/// What a renewal will do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RenewPlan {
    /// Until when the objects will be locked.
    pub until: Timestamp,
    /// What has to be renewed, by name.
    pub due: Vec<Due>,
    /// Packs that are left out, since they were marked and will go.
    pub going: u64,
    /// What was found.
    pub found: Found,
}

/// What a renewal did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Renewed {
    /// Objects whose locks were extended.
    pub renewed: u64,
    /// Objects that were gone meanwhile.
    pub gone: u64,
}

/// Looks at all locks and says which ones have to be extended. Changes nothing.
///
/// # Errors
/// `Unauthorized` where these credentials may not ask; `Cancelled`; what the store says.
pub fn plan(
    repository: &Repository,
    locks: &Locks,
    now: Timestamp,
    progress: &Progress,
) -> Result<RenewPlan> {
    let marked = marked(repository);
    let mut objects = objects(repository)?;
    let all = objects.len() as u64;
    objects.retain(|meta| !meta.key.as_str().rsplit('/').next().is_some_and(|name| marked.contains(name)));
    let going = all - objects.len() as u64;
    let found = Mutex::new((Found { objects: all, ..Found::default() }, Vec::new()));
    threads::for_each("renew", REQUESTS, &objects, |meta| {
        progress.check("the renewal")?;
        let held = locks.held(&meta.key).with_context(|| format!("look at the lock of `{}`", meta.key))?;
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        found.0.add(held);
        if held != Held::Gone && locks.lock().is_due(held.end(), now) {
            found.1.push(Due { key: meta.key.clone(), held });
        }
        Ok(())
    })?;
    let (found, mut due) = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    due.sort_unstable_by(|a, b| a.key.cmp(&b.key));
    Ok(RenewPlan { until: locks.lock().until(now), due, going, found })
}

/// Extends the locks that the plan names.
///
/// # Errors
/// `Unauthorized` where these credentials may not; `Cancelled`; what the store says. What was extended until then stays so.
pub fn apply(locks: &Locks, plan: &RenewPlan, progress: &Progress) -> Result<Renewed> {
    let done = Mutex::new(Renewed::default());
    threads::for_each("renew", REQUESTS, &plan.due, |due| {
        progress.check("the renewal")?;
        let extended = locks.extend(&due.key, due.held, plan.until);
        let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
        match extended {
            Ok(()) => done.renewed += 1,
            Err(error) if error.kind() == ErrorKind::NotFound => done.gone += 1,
            Err(error) => return Err(error.context(format!("extend the lock of `{}`", due.key))),
        }
        Ok(())
    })?;
    Ok(done.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Looks at the locks of config, keys, snapshots and index, and of up to `others` more, the oldest ones.
///
/// # Errors
/// As [`plan`].
pub fn examine(repository: &Repository, locks: &Locks, others: usize) -> Result<Found> {
    let mut objects = objects(repository)?;
    let all = objects.len() as u64;
    let is_other =
        |key: &Key| ["data/", "wal/", "evidence/"].iter().any(|lane| key.as_str().starts_with(lane));
    objects.sort_by_key(|meta| (is_other(&meta.key), meta.modified));
    let vital = objects.iter().take_while(|meta| !is_other(&meta.key)).count();
    objects.truncate(vital.saturating_add(others));
    let found = Mutex::new(Found { objects: all, ..Found::default() });
    threads::for_each("locks", REQUESTS, &objects, |meta| {
        let held = locks.held(&meta.key)?;
        found.lock().unwrap_or_else(PoisonError::into_inner).add(held);
        Ok(())
    })?;
    Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// When the last lock of these packs ends, and how many of them have one that goes on after `now`.
///
/// # Errors
/// As [`plan`].
pub fn locked_packs(
    locks: &Locks,
    packs: &[crate::id::PackId],
    now: Timestamp,
) -> Result<(u64, Option<Timestamp>)> {
    let found = Mutex::new((0, None));
    threads::for_each("locks", REQUESTS, packs, |pack| {
        let end = locks.held(&Folder::Data.key(&pack.to_hex())?)?.end().filter(|end| *end > now);
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        found.0 += u64::from(end.is_some());
        found.1 = found.1.max(end);
        Ok(())
    })?;
    Ok(found.into_inner().unwrap_or_else(PoisonError::into_inner))
}

/// Everything that gets a lock.
fn objects(repository: &Repository) -> Result<Vec<ObjectMeta>> {
    let mut objects = repository.store().list("").context("list the repository")?;
    objects.retain(|meta| is_locked(meta.key.as_str()));
    Ok(objects)
}

/// The packs that marks name; a mark that cannot be read keeps none from being renewed.
fn marked(repository: &Repository) -> HashSet<String> {
    let marks = repository.marks().unwrap_or_default();
    marks.iter().flat_map(|stored| &stored.mark.packs).map(|pack| pack.id.to_hex()).collect()
}

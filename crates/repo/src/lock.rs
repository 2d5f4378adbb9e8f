//! Locks that we leave while we write, so that restic's own prune waits, and those of others that we respect.
//!
//! Backups of ours need no lock among themselves nor beside our two-phase prune. What they must not do is run beside
//! somebody who deletes at once: restic's prune, or ours with no waiting time. `docs/format.md`, "Locks".
//!
//! Two that start at the same moment: each leaves its lock first and looks at the others then, so at least one of them
//! sees the other. Not done here: waiting for a lock; whoever is refused decides whether to try again.

use crate::format::lock::{Holder, Lock, REFRESH_SECONDS, STALE_SECONDS};
use crate::format::time::Time;
use crate::host;
use crate::id::LockId;
use crate::repository::{Folder, Repository};
use crate::store::ObjectMeta;
use retoma_core::{Error, ErrorKind, Result, ResultExt, error::codes};
use std::collections::HashSet;
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A lock that is held: kept fresh by a thread, taken away by [`Guard::release`] or when dropped.
#[derive(Debug)]
pub struct Guard {
    held: Arc<Held>,
    stop: Option<SyncSender<()>>,
    refresher: Option<JoinHandle<()>>,
}

/// What the holder and its refreshing thread share.
#[derive(Debug)]
struct Held {
    repository: Repository,
    holder: Holder,
    since: Time,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// The lock as it is now.
    id: LockId,
    /// Every id that it had.
    own: HashSet<LockId>,
    /// When it was last written.
    renewed: Time,
    /// It was stale or gone for a while: others may have worked as if nobody held it.
    lapsed: bool,
}

/// Whether a holder's work goes on beside a lock of somebody else.
fn tolerates(ours: Holder, other: &Lock) -> bool {
    match (ours, other.retoma) {
        // Ours, and it waits before it deletes.
        (Holder::Backup, Some(Holder::Backup | Holder::Prune)) | (Holder::Prune, Some(Holder::Backup)) => {
            true
        }
        (Holder::Backup, _) => !other.exclusive,
        (Holder::Prune | Holder::PruneNow, _) => false,
    }
}

fn new_lock(holder: Holder, since: Time) -> Lock {
    let (uid, gid) = host::ids();
    Lock {
        time: host::now(),
        exclusive: holder != Holder::Backup,
        hostname: host::hostname(),
        username: host::username(),
        pid: host::pid(),
        uid: Some(uid),
        gid: Some(gid),
        retoma: Some(holder),
        since: Some(since),
    }
}

/// Leaves a lock, then looks whether somebody's work forbids ours; then the lock is taken away again.
///
/// Locks of dead processes of this host, and those that were not refreshed for 30 minutes, are removed on the way, where
/// the store lets us. A lock that cannot be read counts as somebody's until it is as old.
///
/// # Errors
/// `Conflict` with `R0601` naming who holds the repository; what the store says.
pub fn acquire(repository: &Repository, holder: Holder) -> Result<Guard> {
    acquire_refreshing(repository, holder, Duration::from_secs(REFRESH_SECONDS))
}

/// Like [`acquire`], with the interval at which the lock is written anew; well below 30 minutes.
///
/// # Errors
/// See [`acquire`].
pub fn acquire_refreshing(repository: &Repository, holder: Holder, interval: Duration) -> Result<Guard> {
    let lock = new_lock(holder, host::now());
    let id = repository.save_lock(&lock).context("leave a lock")?;
    let state = State { id, own: HashSet::from([id]), renewed: lock.time, lapsed: false };
    let held = Held { repository: repository.clone(), holder, since: lock.time, state: Mutex::new(state) };
    let guard = Guard::start(held, interval);
    for (id, lock) in locks(repository, |id| guard.held.state().own.contains(id))? {
        match lock.filter(|lock| !is_dead(lock)) {
            None => remove(repository, id),
            Some(lock) if tolerates(holder, &lock) => {}
            Some(lock) => return Err(refused(&lock)),
        }
    }
    Ok(guard)
}

/// When the backups of ours began that are running now.
///
/// # Errors
/// What the store says; `Conflict` with `R0601` for a lock that cannot be read and is not stale.
pub fn running_backups(repository: &Repository) -> Result<Vec<Time>> {
    let running = locks(repository, |_| false)?.into_iter().filter_map(|(_, lock)| {
        let lock = lock.filter(|lock| lock.retoma == Some(Holder::Backup) && !is_dead(lock))?;
        Some(lock.since.unwrap_or(lock.time))
    });
    Ok(running.collect())
}

/// All locks, but those that `skip` names; `None` for one that cannot be read and is stale. Called while we have a
/// lock ourselves, whose age tells what time it is by the store's clock.
///
/// A refresh writes the new lock and then deletes the old one; one listing may miss both. So it is listed until
/// nothing new appears. Empty objects are what an upload left that was cut off; restic passes over them too.
fn locks(repository: &Repository, skip: impl Fn(&LockId) -> bool) -> Result<Vec<(LockId, Option<Lock>)>> {
    let (mut seen, mut found) = (HashSet::new(), Vec::new());
    let mut newest = jiff::Timestamp::MIN;
    loop {
        let mut fresh = repository.list(Folder::Locks)?;
        fresh.retain(|(id, _)| seen.insert(LockId(*id)));
        if fresh.is_empty() {
            return Ok(found);
        }
        newest = fresh.iter().map(|(_, meta)| meta.modified).fold(newest, jiff::Timestamp::max);
        for (id, meta) in fresh.into_iter().map(|(id, meta)| (LockId(id), meta)) {
            if skip(&id) || meta.size_bytes == 0 {
                continue;
            }
            match repository.lock(id) {
                Ok(lock) => found.push((id, Some(lock))),
                // It was released or refreshed meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                // A holder that lives writes a new object every few minutes: whatever this one says, it is past.
                Err(error) if error.kind() == ErrorKind::Corrupt => {
                    if newest.duration_since(meta.modified).as_secs() <= STALE_SECONDS {
                        return Err(unreadable(&meta, error));
                    }
                    found.push((id, None));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

fn unreadable(meta: &ObjectMeta, error: Error) -> Error {
    let message =
        format!("`{}` is a lock that cannot be read, so somebody may be at work: {error}", meta.key);
    Error::new(ErrorKind::Conflict, codes::LOCKED, message).with_source(error).with_hint(format!(
        "it was written at {} and counts no more 30 minutes later; if nobody works on the repository, delete that \
         object, or all locks with `restic unlock --remove-all`",
        meta.modified
    ))
}

fn is_dead(lock: &Lock) -> bool {
    let ours = lock.hostname == host::hostname();
    lock.is_stale_at(host::now()) || ours && !host::process_runs(lock.pid)
}

fn refused(lock: &Lock) -> Error {
    let program = if lock.retoma.is_some() { "retoma" } else { "restic" };
    let (pid, host) = (lock.pid, lock.hostname.escape_debug());
    let message =
        format!("the repository is locked by {program}, process {pid} on `{host}`, since {}", lock.time.0);
    Error::new(ErrorKind::Conflict, codes::LOCKED, message)
        .with_hint("wait until it has ended; a lock whose process is dead goes stale after 30 minutes")
}

impl Held {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes the lock anew. One that fails is tried again at the next turn: the lock holds for six of them.
    fn refresh(&self) {
        // Held while the lock is written: nobody may see our new lock and take it for another's.
        let mut state = self.state();
        let removed = self.is_removed(state.id);
        let lock = new_lock(self.holder, self.since);
        let Ok(new) = self.repository.save_lock(&lock) else { return };
        state.lapsed |= removed || age_seconds(state.renewed) > STALE_SECONDS;
        state.renewed = lock.time;
        state.own.insert(new);
        let old = std::mem::replace(&mut state.id, new);
        drop(state);
        remove(&self.repository, old);
    }

    fn is_removed(&self, id: LockId) -> bool {
        let head = Folder::Locks.key(&id.to_hex()).and_then(|key| self.repository.store().head(&key));
        head.is_err_and(|error| error.kind() == ErrorKind::NotFound)
    }
}

fn age_seconds(time: Time) -> i64 {
    host::now().to_unix().0 - time.to_unix().0
}

impl Guard {
    fn start(held: Held, interval: Duration) -> Self {
        let held = Arc::new(held);
        let (stop, stopped) = sync_channel(1);
        let refreshing = Arc::clone(&held);
        let refresh = move || {
            while stopped.recv_timeout(interval) == Err(RecvTimeoutError::Timeout) {
                refreshing.refresh();
            }
        };
        let refresher = std::thread::Builder::new().name("lock".to_owned()).spawn(refresh).ok();
        Self { held, stop: Some(stop), refresher }
    }

    /// Whether the lock was stale or gone for a while, so that others may have worked as if nobody held it. Asks
    /// nobody: what the refreshing thread saw, and the clock.
    pub fn has_lapsed(&self) -> bool {
        let state = self.held.state();
        state.lapsed || age_seconds(state.renewed) > STALE_SECONDS
    }

    /// Makes sure that the lock is still ours before something is deleted.
    ///
    /// # Errors
    /// `Fenced` with `R0602` when it was or soon will be stale, or when somebody removed it.
    pub fn check(&self) -> Result<()> {
        let state = self.held.state();
        let old = age_seconds(state.renewed) > STALE_SECONDS / 2;
        if !state.lapsed && !old && !self.held.is_removed(state.id) {
            return Ok(());
        }
        let message = "the lock was lost: it could not be kept fresh, or somebody removed it";
        Err(Error::new(ErrorKind::Fenced, codes::LOCK_LOST, message)
            .with_hint("run the command again; what it had done so far is consistent"))
    }

    /// Takes the lock away.
    pub fn release(self) {
        drop(self);
    }
}

/// A store that lets nobody delete keeps the lock; it is stale in 30 minutes, and nothing depends on it.
fn remove(repository: &Repository, id: LockId) {
    if let Ok(key) = Folder::Locks.key(&id.to_hex()) {
        repository.store().delete(&key).ok();
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(refresher) = self.refresher.take() {
            refresher.join().ok();
        }
        let id = self.held.state().id;
        remove(&self.held.repository, id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{BlockingStore, ObjectStore};
    use retoma_core::Secret;

    fn held(holder: Holder) -> (Repository, Guard) {
        let store = BlockingStore::new(Arc::new(ObjectStore::memory())).unwrap();
        let repository = Repository::init(store, &Secret::new("a test".to_owned())).unwrap();
        // Only the test refreshes it.
        let guard = acquire_refreshing(&repository, holder, Duration::from_hours(1)).unwrap();
        (repository, guard)
    }

    fn minutes_ago(minutes: i64) -> Time {
        Time(host::now().0 - jiff::SignedDuration::from_mins(minutes))
    }

    /// What is deleted may take a while: the lock must not go stale meanwhile.
    #[test]
    fn a_lock_that_soon_goes_stale_lets_nobody_delete_and_lapses_when_it_is_stale() {
        let (_repository, guard) = held(Holder::Prune);
        for (minutes, may_delete, has_lapsed) in
            [(0, true, false), (14, true, false), (16, false, false), (29, false, false), (31, false, true)]
        {
            guard.held.state().renewed = minutes_ago(minutes);
            let code = guard.check().map_err(|error| (error.kind(), error.code()));
            let expected = if may_delete { Ok(()) } else { Err((ErrorKind::Fenced, codes::LOCK_LOST)) };
            assert_eq!(code, expected, "{minutes} minutes old");
            assert_eq!(guard.has_lapsed(), has_lapsed, "{minutes} minutes old");
        }
    }

    #[test]
    fn a_refresh_makes_a_lock_young_again_but_not_one_that_was_stale() {
        for (minutes, is_good) in [(29, true), (31, false)] {
            let (repository, guard) = held(Holder::Prune);
            let first = guard.held.state().id;
            guard.held.state().renewed = minutes_ago(minutes);
            guard.held.refresh();
            assert_ne!(guard.held.state().id, first);
            assert_eq!(repository.list(Folder::Locks).unwrap().len(), 1, "the old one is gone");
            assert_eq!((guard.check().is_ok(), guard.has_lapsed()), (is_good, !is_good), "{minutes}");
        }
    }

    #[test]
    fn a_backup_runs_since_it_began_and_not_since_its_lock_was_refreshed() {
        let (repository, guard) = held(Holder::Backup);
        assert_eq!(running_backups(&repository).unwrap().len(), 1);
        guard.held.refresh();
        let since = running_backups(&repository).unwrap();
        assert_eq!(since, [guard.held.since]);
        assert!(guard.held.state().renewed >= guard.held.since);
    }

    #[test]
    fn only_backups_that_live_are_running() {
        let (repository, guard) = held(Holder::Backup);
        let began = running_backups(&repository).unwrap()[0];
        assert!(began <= guard.held.since);
        let lock = |holder, hostname: &str, time| Lock {
            hostname: hostname.to_owned(),
            time,
            since: Some(time),
            ..new_lock(holder, time)
        };
        let young = minutes_ago(20);
        repository.save_lock(&lock(Holder::Backup, "elsewhere", young)).unwrap();
        repository.save_lock(&lock(Holder::Backup, "elsewhere", minutes_ago(31))).unwrap();
        repository.save_lock(&lock(Holder::Prune, "elsewhere", young)).unwrap();
        let restic = Lock { retoma: None, since: None, ..lock(Holder::Backup, "elsewhere", young) };
        repository.save_lock(&restic).unwrap();
        // As an earlier version wrote it, without the time of its beginning.
        let old = Lock { since: None, ..lock(Holder::Backup, "elsewhere", minutes_ago(10)) };
        repository.save_lock(&old).unwrap();
        let mut running = running_backups(&repository).unwrap();
        running.sort();
        assert_eq!(running, [young, old.time, began]);
    }
}

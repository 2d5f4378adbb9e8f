//! Locks that we leave while we write, so that restic's own prune waits, and those of others that we respect.
//!
//! Backups of ours need no lock among themselves nor beside our two-phase prune. What they must not do is run beside
//! somebody who deletes at once: restic's prune, or ours with no waiting time. `docs/format.md`, "Locks".

use crate::format::lock::{Holder, Lock, REFRESH_SECONDS};
use crate::host;
use crate::id::LockId;
use crate::repository::{Folder, Repository};
use retoma_core::{Error, ErrorKind, Result, ResultExt, error::codes};
use std::sync::mpsc::{RecvTimeoutError, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A lock that is held: kept fresh by a thread, taken away by [`Guard::release`] or when dropped.
#[derive(Debug)]
pub struct Guard {
    repository: Repository,
    current: Arc<Mutex<LockId>>,
    stop: Option<SyncSender<()>>,
    refresher: Option<JoinHandle<()>>,
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

fn new_lock(holder: Holder) -> Lock {
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
    }
}

/// Leaves a lock, then looks whether somebody's work forbids ours; then the lock is taken away again.
///
/// Locks of dead processes of this host, and those that were not refreshed for 30 minutes, are removed on the way.
///
/// # Errors
/// `Conflict` with `R0601` naming who holds the repository; what the store says.
pub fn acquire(repository: &Repository, holder: Holder) -> Result<Guard> {
    let id = repository.save_lock(&new_lock(holder)).context("leave a lock")?;
    let guard = Guard::start(repository.clone(), id, holder);
    for (other, _) in repository.list(Folder::Locks)? {
        let other = LockId(other);
        if other == guard.id() {
            continue;
        }
        let lock = match repository.lock(other) {
            Ok(lock) => lock,
            // It was released meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if is_dead(&lock) {
            repository.store().delete(&Folder::Locks.key(&other.to_hex())?)?;
        } else if !tolerates(holder, &lock) {
            return Err(held(&lock));
        }
    }
    Ok(guard)
}

fn is_dead(lock: &Lock) -> bool {
    let ours = lock.hostname == host::hostname();
    lock.is_stale_at(host::now()) || ours && !host::process_runs(lock.pid)
}

fn held(lock: &Lock) -> Error {
    let program = if lock.retoma.is_some() { "retoma" } else { "restic" };
    let (pid, host) = (lock.pid, lock.hostname.escape_debug());
    let message =
        format!("the repository is locked by {program}, process {pid} on `{host}`, since {}", lock.time.0);
    Error::new(ErrorKind::Conflict, codes::LOCKED, message)
        .with_hint("wait until it has ended; a lock whose process is dead goes stale after 30 minutes")
}

impl Guard {
    fn start(repository: Repository, id: LockId, holder: Holder) -> Self {
        let current = Arc::new(Mutex::new(id));
        let (stop, stopped) = sync_channel(1);
        let (shared, refreshing) = (Arc::clone(&current), repository.clone());
        let refresh = move || {
            let pause = Duration::from_secs(REFRESH_SECONDS);
            while stopped.recv_timeout(pause) == Err(RecvTimeoutError::Timeout) {
                // A refresh that fails is tried again at the next turn: the lock holds for six of them.
                let Ok(new) = refreshing.save_lock(&new_lock(holder)) else { continue };
                let old = std::mem::replace(&mut *shared.lock().unwrap_or_else(PoisonError::into_inner), new);
                remove(&refreshing, old);
            }
        };
        let refresher = std::thread::Builder::new().name("lock".to_owned()).spawn(refresh).ok();
        Self { repository, current, stop: Some(stop), refresher }
    }

    fn id(&self) -> LockId {
        *self.current.lock().unwrap_or_else(PoisonError::into_inner)
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
        remove(&self.repository, self.id());
    }
}

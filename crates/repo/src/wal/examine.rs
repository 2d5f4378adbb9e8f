//! Reads what is stored, to find damage before somebody needs it.

use super::archive::Archive;
use super::listing::servers;
use super::name::WalObject;
use crate::repository::Repository;
use retoma_core::{Error, ErrorKind, Result, ResultExt as _, error::codes};
use sha2::{Digest as _, Sha256};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// So many objects that the store does not give end the work: the rest would fail too.
const UNAVAILABLE_MAX: usize = 100;
/// More threads would hold more segments in memory and gain nothing.
const THREADS_MAX: usize = 4;
/// So many bytes of stored objects are in work at once, if that is more than one; opened they are some times as large.
const AT_ONCE_BYTES: u64 = 64 << 20;

/// How much is read.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Share {
    /// Names are counted alone.
    None,
    /// Every object.
    All,
    /// So many per cent of the objects, chosen anew by each seed; at least one.
    Sample(f64, u64),
}

/// What was found.
#[derive(Debug, Default)]
pub struct Examined {
    /// Objects that are stored.
    pub objects: u64,
    /// Those that were read.
    pub read: u64,
    /// Their stored size in bytes.
    pub read_bytes: u64,
    /// Objects that are not what was stored, by name, with what is wrong; or that the store did not give.
    pub damaged: Vec<(String, Error)>,
}

struct Stored<'a> {
    archive: &'a Archive,
    object: WalObject,
    bytes: u64,
}

/// Reads the WAL of every server in the repository, or of one component: each object must open under its name and be what its
/// name says. What is missing between them is told by [`super::coverage`].
///
/// # Errors
/// `Cancelled` when `is_cancelled` says so; what listing says; `Unauthorized`, `Unavailable` when the store keeps refusing.
pub fn examine(
    repository: &Repository,
    component: Option<&str>,
    share: Share,
    is_cancelled: &(dyn Fn() -> bool + Sync),
) -> Result<Examined> {
    let mut archives = Vec::new();
    for server in servers(repository)? {
        if component.is_none_or(|meant| meant == server.component) {
            archives.push(Archive::new(repository, &server.component, server.system_identifier)?);
        }
    }
    let mut objects = Vec::new();
    for archive in &archives {
        archive.for_each(|object, bytes| objects.push(Stored { archive, object, bytes }))?;
    }
    let mut examined = Examined { objects: objects.len() as u64, ..Examined::default() };
    let chosen = choose(objects, share);
    let work = Work {
        objects: &chosen,
        is_cancelled,
        next: AtomicUsize::new(0),
        is_over: AtomicBool::new(false),
        read: AtomicU64::new(0),
        read_bytes: AtomicU64::new(0),
        found: Mutex::default(),
    };
    std::thread::scope(|scope| {
        for _ in 1..threads(&chosen) {
            scope.spawn(|| work.run());
        }
        work.run();
    });
    let found = work.found.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = found.fatal {
        return Err(error);
    }
    examined.read = work.read.into_inner();
    examined.read_bytes = work.read_bytes.into_inner();
    examined.damaged = found.damaged;
    examined.damaged.sort_by(|(one, _), (other, _)| one.cmp(other));
    Ok(examined)
}

/// The objects to read.
fn choose(mut objects: Vec<Stored<'_>>, share: Share) -> Vec<Stored<'_>> {
    match share {
        Share::None => Vec::new(),
        Share::All => objects,
        Share::Sample(percent, seed) => {
            objects.sort_by_cached_key(|it| -> [u8; 32] {
                let name = it.object.to_string();
                Sha256::new().chain_update(seed.to_le_bytes()).chain_update(name).finalize().into()
            });
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, clippy::cast_precision_loss)]
            let count = (objects.len() as f64 * percent.clamp(0.0, 100.0) / 100.0).ceil() as usize;
            objects.truncate(count.max(1));
            objects
        }
    }
}

fn threads(objects: &[Stored<'_>]) -> usize {
    let largest = objects.iter().map(|it| it.bytes).max().unwrap_or_default();
    let fit = usize::try_from(AT_ONCE_BYTES / largest.max(1)).unwrap_or(THREADS_MAX);
    let cores = std::thread::available_parallelism().map_or(2, Into::into);
    cores.min(THREADS_MAX).min(fit).min(objects.len()).max(1)
}

#[derive(Default)]
struct Found {
    damaged: Vec<(String, Error)>,
    unavailable: usize,
    fatal: Option<Error>,
}

struct Work<'a> {
    objects: &'a [Stored<'a>],
    is_cancelled: &'a (dyn Fn() -> bool + Sync),
    next: AtomicUsize,
    is_over: AtomicBool,
    read: AtomicU64,
    read_bytes: AtomicU64,
    found: Mutex<Found>,
}

impl Work<'_> {
    fn run(&self) {
        while !self.is_over.load(Ordering::Relaxed) {
            let Some(it) = self.objects.get(self.next.fetch_add(1, Ordering::Relaxed)) else { return };
            if (self.is_cancelled)() {
                let error = Error::new(ErrorKind::Cancelled, codes::CANCELLED, "the examination was stopped");
                return self.end(error);
            }
            match it.archive.examine(it.object) {
                // A prune took it since it was listed.
                Ok(false) => {}
                Ok(true) => {
                    self.read.fetch_add(1, Ordering::Relaxed);
                    self.read_bytes.fetch_add(it.bytes, Ordering::Relaxed);
                }
                Err(error) => self.note(it, error),
            }
        }
    }

    fn note(&self, it: &Stored<'_>, error: Error) {
        let is_away = error.kind() == ErrorKind::Unavailable;
        if !is_away && error.kind() != ErrorKind::Corrupt {
            return self.end(error);
        }
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.unavailable += usize::from(is_away);
        if found.unavailable > UNAVAILABLE_MAX {
            drop(found);
            return self.end(error);
        }
        let name = it.object.key(it.archive.component(), it.archive.system_identifier());
        let name = name.map_or_else(|_| it.object.to_string(), |key| key.as_str().to_owned());
        found.damaged.push((name, error));
    }

    fn end(&self, error: Error) {
        self.is_over.store(true, Ordering::Relaxed);
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        found.fatal.get_or_insert(error);
    }
}

impl Archive {
    /// Reads one object and compares it with what its name says; `false` when it is not there.
    ///
    /// # Errors
    /// `Corrupt` with `R0203` or `R0421` when it is not what was stored; what the store says.
    pub fn examine(&self, object: WalObject) -> Result<bool> {
        let doing = || format!("read `{object}`");
        let Some(bytes) = self.read(object).with_context(doing)? else { return Ok(false) };
        match object {
            WalObject::File(name) => {
                super::archive::verify(name, &bytes, self.system_identifier()).with_context(doing)?;
            }
            WalObject::Part(part) => self.verify_part(part, &bytes).with_context(doing)?,
        }
        Ok(true)
    }
}

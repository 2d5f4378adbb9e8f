//! The bridge between plain threads and the async stores; the only one in this crate.
//!
//! Threads that chunk, hash and seal call these methods and block. They must not be called from a task of a tokio
//! runtime: it would block that runtime's worker, and tokio panics to say so.

use super::{Key, Leftovers, ObjectMeta, PutMode, Store};
use bytes::Bytes;
use futures::stream::TryStreamExt as _;
use retoma_core::{Error, Result};
use std::ops::Range;
use std::sync::{Arc, OnceLock};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

/// How many puts started by [`BlockingStore::put_later`] may run at once, where the caller says nothing else. With
/// packs of 16 MiB they hold 64 MiB.
pub const PUTS_IN_FLIGHT: usize = 4;

/// Threads of the shared runtime that poll. They wait for sockets and blocking threads, and need no more.
const WORKER_THREADS: usize = 2;
/// Threads of the shared runtime for file work. More would only queue up in the disk.
const FILE_THREADS: usize = 32;

/// A [`Store`] for plain threads. Cheap to clone; clones share the bound of puts in flight.
#[derive(Debug, Clone)]
pub struct BlockingStore {
    store: Arc<dyn Store>,
    runtime: Handle,
    in_flight: Arc<Semaphore>,
}

impl BlockingStore {
    /// Uses the process's shared runtime, which is made on the first call.
    ///
    /// # Errors
    /// `Exhausted` or `Unavailable` when the system gives no threads for it.
    pub fn new(store: Arc<dyn Store>) -> Result<Self> {
        Ok(Self::with_runtime(store, shared_runtime()?))
    }

    /// Uses a multi-thread runtime of the caller, with time enabled, which must outlive the store.
    pub fn with_runtime(store: Arc<dyn Store>, runtime: Handle) -> Self {
        Self { store, runtime, in_flight: Arc::new(Semaphore::new(PUTS_IN_FLIGHT)) }
    }

    /// Sets how many puts of [`BlockingStore::put_later`] may run at once (at least one).
    #[must_use]
    pub fn puts_in_flight(mut self, count: usize) -> Self {
        self.in_flight = Arc::new(Semaphore::new(count.max(1)));
        self
    }

    /// The async store inside.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.store
    }

    /// See [`Store::put`].
    pub fn put(&self, key: &Key, data: Bytes, mode: PutMode) -> Result<()> {
        self.runtime.block_on(self.store.put(key, data, mode))
    }

    /// See [`Store::get`].
    pub fn get(&self, key: &Key) -> Result<Bytes> {
        self.runtime.block_on(self.store.get(key))
    }

    /// See [`Store::get_range`].
    pub fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        self.runtime.block_on(self.store.get_range(key, range))
    }

    /// See [`Store::head`].
    pub fn head(&self, key: &Key) -> Result<ObjectMeta> {
        self.runtime.block_on(self.store.head(key))
    }

    /// Everything that [`Store::list`] gives, or the first error.
    pub fn list(&self, folder: &str) -> Result<Vec<ObjectMeta>> {
        self.runtime.block_on(self.store.list(folder).try_collect())
    }

    /// Shows `each` everything that [`Store::list`] gives, one by one, or ends with the first error. `each` must not use a
    /// `BlockingStore`: it runs inside one.
    pub fn for_each(&self, folder: &str, mut each: impl FnMut(ObjectMeta)) -> Result<()> {
        let objects = self.store.list(folder).try_for_each(|meta| {
            each(meta);
            futures::future::ready(Ok(()))
        });
        self.runtime.block_on(objects)
    }

    /// See [`Store::delete`].
    pub fn delete(&self, key: &Key) -> Result<()> {
        self.runtime.block_on(self.store.delete(key))
    }

    /// See [`Store::remove_leftovers`].
    pub fn remove_leftovers(&self, modified_before: jiff::Timestamp) -> Result<Leftovers> {
        self.runtime.block_on(self.store.remove_leftovers(modified_before))
    }

    /// Starts a put and returns while it runs. Blocks while as many puts as allowed are running, so that memory stays
    /// bounded however fast the caller is. Nothing is stored for sure before [`PutTicket::wait`] says so.
    pub fn put_later(&self, key: Key, data: Bytes, mode: PutMode) -> PutTicket {
        let store = self.store.clone();
        // The semaphore is never closed; without a permit the put would merely not be counted.
        let permit = self.runtime.block_on(self.in_flight.clone().acquire_owned()).ok();
        let task = self.runtime.spawn(async move {
            let stored = store.put(&key, data, mode).await;
            drop(permit);
            stored
        });
        PutTicket { task, runtime: self.runtime.clone() }
    }
}

/// A put that is under way.
///
/// Dropping the ticket gives the put up: it is not tried again, and whether it happened is unknown, as after an error.
/// So a backup that failed does not go on writing behind its caller's back.
#[derive(Debug)]
#[must_use = "a put counts only after `wait` returned `Ok`; dropping the ticket gives it up"]
pub struct PutTicket {
    task: JoinHandle<Result<()>>,
    runtime: Handle,
}

impl PutTicket {
    /// Blocks until the put has ended, and tells how.
    pub fn wait(mut self) -> Result<()> {
        let runtime = self.runtime.clone();
        match runtime.block_on(&mut self.task) {
            Ok(stored) => stored,
            Err(error) => Err(Error::internal(format!("a put did not end: {error}"))),
        }
    }

    /// Whether the put has ended, well or not.
    pub fn is_finished(&self) -> bool {
        self.task.is_finished()
    }
}

impl Drop for PutTicket {
    fn drop(&mut self) {
        self.task.abort();
    }
}

pub(super) fn shared_runtime() -> Result<Handle> {
    static SHARED: OnceLock<std::io::Result<Runtime>> = OnceLock::new();
    let made = SHARED.get_or_init(|| {
        Builder::new_multi_thread()
            .worker_threads(WORKER_THREADS)
            .max_blocking_threads(FILE_THREADS)
            .thread_name("retoma-store")
            .enable_all()
            .build()
    });
    match made {
        Ok(runtime) => Ok(runtime.handle().clone()),
        Err(error) => Err(Error::io("threads for the repository's store", error.kind().into())),
    }
}

//! Counters that a display reads while a backup or a restore runs.

use retoma_core::{Error, ErrorKind, Result, error::codes};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What is done so far; and the way to ask for a stop.
#[derive(Debug, Default)]
pub struct Progress {
    files: AtomicU64,
    bytes: AtomicU64,
    files_total: AtomicU64,
    bytes_total: AtomicU64,
    cancelled: Arc<AtomicBool>,
}

impl Progress {
    pub(crate) fn add_file(&self, bytes: u64) {
        self.files.fetch_add(1, Ordering::Relaxed);
        self.add_bytes(bytes);
    }

    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Sets what there is to do, where it is known before the end.
    pub fn set_total(&self, files: u64, bytes: u64) {
        self.files_total.store(files, Ordering::Relaxed);
        self.bytes_total.store(bytes, Ordering::Relaxed);
    }

    /// Files and bytes that are done.
    pub fn done(&self) -> (u64, u64) {
        (self.files.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed))
    }

    /// Files and bytes that there are; zeros while that is not known.
    pub fn total(&self) -> (u64, u64) {
        (self.files_total.load(Ordering::Relaxed), self.bytes_total.load(Ordering::Relaxed))
    }

    /// Asks for a stop. What was committed stays, what was not is left to prune.
    pub fn cancel(&self) {
        self.cancelled.store(true, Ordering::Relaxed);
    }

    /// # Errors
    /// `Cancelled` when a stop was asked for: `what` was stopped.
    pub(crate) fn check(&self, what: &str) -> Result<()> {
        if self.is_cancelled() {
            let message = format!("{what} was stopped");
            return Err(Error::new(ErrorKind::Cancelled, codes::CANCELLED, message));
        }
        Ok(())
    }

    /// What is set when a stop was asked for: for whoever waits for somebody else meanwhile.
    pub fn stop_flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.cancelled)
    }

    /// Whether a stop was asked for.
    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Relaxed)
    }
}

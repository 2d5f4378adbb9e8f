//! A few connections for all calls: each server process works on one request at a time, and waits for its disk.

use super::session::{Failure, Session};
use super::ssh;
use super::target::Target;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::Mutex;

/// Connections at most. A second one is opened when the first is busy, and so on; servers limit how many are at the
/// door at once (`MaxStartups`, 10).
const CONNECTIONS: usize = 4;

#[derive(Debug)]
pub(super) struct Pool {
    target: Target,
    command: Option<String>,
    places: [Place; CONNECTIONS],
}

#[derive(Debug, Default)]
struct Place {
    session: Mutex<Option<Arc<Session>>>,
    busy: Arc<AtomicUsize>,
}

/// A connection for one piece of work.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) session: Arc<Session>,
    _busy: Busy,
}

#[derive(Debug)]
struct Busy(Arc<AtomicUsize>);

impl Busy {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::Relaxed);
        Self(count.clone())
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    pub(super) fn new(target: Target, command: Option<String>) -> Self {
        Self { target, command, places: Default::default() }
    }

    /// The connection with the least to do; opened if it is not, or broke.
    pub(super) async fn lease(&self) -> Result<Lease, Failure> {
        let least = self.places.iter().min_by_key(|place| place.busy.load(Ordering::Relaxed));
        let place = least.unwrap_or(&self.places[0]);
        let busy = Busy::new(&place.busy);
        let mut session = place.session.lock().await;
        if let Some(open) = session.as_ref().filter(|open| !open.has_ended()) {
            return Ok(Lease { session: open.clone(), _busy: busy });
        }
        *session = None;
        let opened = Arc::new(ssh::connect(&self.target, self.command.as_deref()).await?);
        *session = Some(opened.clone());
        Ok(Lease { session: opened, _busy: busy })
    }
}

//! Stores around stores, and the one order in which they are stacked.
//!
//! From the outside in: dry run, cache, retry, limit, timeout, meter, store. `docs/stores.md` says why.

mod cache;
mod dry_run;
mod limit;
mod meter;
mod retry;
mod timeout;

pub use cache::{Cache, CacheSettings};
pub use dry_run::{DryRun, DryRunCounts};
pub use limit::{Limit, Limits};
pub use meter::{Meter, MeterSnapshot, VerbCounts};
pub use retry::{Retry, RetryPolicy};
pub use timeout::{TimeLimits, Timeout};

use super::Store;
use super::clock::{Clock, SystemClock};
use std::sync::Arc;

/// What the layers of [`stack`] do.
#[derive(Debug, Clone)]
pub struct Layers {
    /// Time, for back-off, bandwidth and deadlines.
    pub clock: Arc<dyn Clock>,
    /// How often and how fast failed calls are repeated.
    pub retry: RetryPolicy,
    /// How many calls and bytes at once.
    pub limits: Limits,
    /// How long one attempt may take.
    pub time_limits: TimeLimits,
    /// Where small immutable objects are kept nearer; none without.
    pub cache: Option<CacheSettings>,
    /// Whether writes and deletes are only counted.
    pub dry_run: bool,
}

impl Default for Layers {
    /// The system's clock, the defaults of each layer, no cache, and real writes.
    fn default() -> Self {
        Self {
            clock: Arc::new(SystemClock::default()),
            retry: RetryPolicy::default(),
            limits: Limits::default(),
            time_limits: TimeLimits::default(),
            cache: None,
            dry_run: false,
        }
    }
}

/// A store with its layers, and the handles that one asks afterwards.
#[derive(Debug, Clone)]
pub struct Stack {
    /// The outermost layer: the store to work with.
    pub store: Arc<dyn Store>,
    /// Counts what reaches the store itself, each attempt by itself.
    pub meter: Arc<Meter>,
    /// For [`Cache::invalidate`], where there is a cache.
    pub cache: Option<Arc<Cache>>,
    /// What was not written, in a dry run.
    pub dry_run: Option<Arc<DryRun>>,
}

/// Puts all layers around `store`.
pub fn stack(store: Arc<dyn Store>, layers: Layers) -> Stack {
    let meter = Arc::new(Meter::new(store));
    let mut outermost: Arc<dyn Store> = meter.clone();
    outermost = Arc::new(Timeout::new(outermost, layers.time_limits, layers.clock.clone()));
    outermost = Arc::new(Limit::new(outermost, layers.limits, layers.clock.clone()));
    outermost = Arc::new(Retry::new(outermost, layers.retry, layers.clock));
    let cache = layers.cache.map(|settings| Arc::new(Cache::new(outermost.clone(), settings)));
    if let Some(cache) = &cache {
        outermost = cache.clone();
    }
    let dry_run = layers.dry_run.then(|| Arc::new(DryRun::new(outermost.clone())));
    if let Some(dry_run) = &dry_run {
        outermost = dry_run.clone();
    }
    Stack { store: outermost, meter, cache, dry_run }
}

//! Time as the layers see it, so that tests need not wait.

use async_trait::async_trait;
use std::fmt::Debug;
use std::time::Duration;
use tokio::time::Instant;

/// A monotonic clock that can be waited on.
#[async_trait]
pub trait Clock: Debug + Send + Sync + 'static {
    /// Time since some fixed moment; never goes back.
    fn now(&self) -> Duration;

    /// Returns after `duration`.
    async fn sleep(&self, duration: Duration);
}

/// The system's monotonic clock. `sleep` needs a tokio runtime with time enabled.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl Default for SystemClock {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

#[async_trait]
impl Clock for SystemClock {
    fn now(&self) -> Duration {
        self.start.elapsed()
    }

    async fn sleep(&self, duration: Duration) {
        tokio::time::sleep(duration).await;
    }
}

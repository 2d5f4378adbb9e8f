//! Clocks that move only when the test says so.

use async_trait::async_trait;
use retoma_repo::store::Clock;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// A [`Clock`] that stands still until [`ManualClock::advance`], or moves on by itself whenever somebody sleeps.
#[derive(Debug)]
pub struct ManualClock {
    now: watch::Sender<Duration>,
    /// How many sleeps have begun, for [`ManualClock::wait_for_sleeps`].
    begun: watch::Sender<usize>,
    sleeps: Mutex<Vec<Duration>>,
    moves_by_itself: bool,
}

impl ManualClock {
    /// A clock that stands at zero; sleepers wait for [`ManualClock::advance`].
    pub fn standing() -> Self {
        Self {
            now: watch::Sender::new(Duration::ZERO),
            begun: watch::Sender::new(0),
            sleeps: Mutex::default(),
            moves_by_itself: false,
        }
    }

    /// A clock on which every sleep returns at once, and moves it on by as much.
    pub fn moving() -> Self {
        Self { moves_by_itself: true, ..Self::standing() }
    }

    /// Moves on by `duration` and wakes whoever slept long enough.
    pub fn advance(&self, duration: Duration) {
        self.now.send_modify(|now| *now += duration);
    }

    /// How long each sleep so far wanted to be, in order.
    pub fn sleeps(&self) -> Vec<Duration> {
        self.locked().clone()
    }

    /// Waits until `count` sleeps have begun, ended or not.
    pub async fn wait_for_sleeps(&self, count: usize) {
        // The sender lives as long as `self`.
        self.begun.subscribe().wait_for(|begun| *begun >= count).await.ok();
    }

    fn locked(&self) -> MutexGuard<'_, Vec<Duration>> {
        self.sleeps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Clock for ManualClock {
    fn now(&self) -> Duration {
        *self.now.borrow()
    }

    async fn sleep(&self, duration: Duration) {
        let mut clock = self.now.subscribe();
        let until = self.now().saturating_add(duration);
        self.locked().push(duration);
        self.begun.send_modify(|begun| *begun += 1);
        if self.moves_by_itself {
            self.advance(duration);
        }
        clock.wait_for(|now| *now >= until).await.ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::future::FutureExt as _;

    #[test]
    fn sleepers_of_a_standing_clock_wait_for_it() {
        let clock = ManualClock::standing();
        let mut sleep = clock.sleep(Duration::from_secs(2));
        assert!(sleep.as_mut().now_or_never().is_none());
        clock.advance(Duration::from_secs(1));
        assert!(sleep.as_mut().now_or_never().is_none());
        clock.advance(Duration::from_secs(1));
        assert!(sleep.as_mut().now_or_never().is_some());
    }

    #[test]
    fn a_moving_clock_never_waits_and_tells_what_was_asked() {
        let clock = ManualClock::moving();
        for seconds in [3, 4] {
            assert!(clock.sleep(Duration::from_secs(seconds)).now_or_never().is_some());
        }
        assert_eq!(clock.now(), Duration::from_secs(7));
        assert_eq!(clock.sleeps(), [Duration::from_secs(3), Duration::from_secs(4)]);
    }
}

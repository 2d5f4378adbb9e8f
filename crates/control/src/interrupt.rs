//! Time and stops: one monotonic clock for a whole run, and one flag that ends every wait.

use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::backup::Progress;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How long a wait sleeps at most before it looks at the flag again.
const POLL: Duration = Duration::from_millis(10);

/// Asks everything that has a clone of it to stop. What sets it (a signal handler) does nothing else.
#[derive(Debug, Clone, Default)]
pub struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Over a flag that a signal handler sets.
    pub fn new(flag: Arc<AtomicBool>) -> Self {
        Self(flag)
    }

    /// Asks for the stop.
    pub fn set(&self) {
        self.0.store(true, Ordering::Relaxed);
    }

    /// Whether a stop was asked for.
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    /// Goes on, or not.
    ///
    /// # Errors
    /// `Cancelled` with `R0003` when a stop was asked for.
    pub fn check(&self) -> Result<()> {
        if self.is_set() {
            let error = Error::new(ErrorKind::Cancelled, codes::CANCELLED, "stopped as asked");
            return Err(error.with_hint("run the command again; it starts anew"));
        }
        Ok(())
    }

    /// Asks `question` every few milliseconds until it has an answer; `None` when `limit` has passed without one.
    ///
    /// # Errors
    /// `Cancelled`; what `question` says.
    pub fn wait_for<T>(
        &self,
        limit: Duration,
        mut question: impl FnMut() -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let deadline = Instant::now() + limit;
        loop {
            self.check()?;
            if let Some(answer) = question()? {
                return Ok(Some(answer));
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            std::thread::sleep(left.min(POLL));
        }
    }

    /// Does `work`, whose `Progress` is cancelled when a stop is asked for.
    pub fn during<T>(&self, progress: &Progress, work: impl FnOnce() -> T) -> T {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let watcher =
                std::thread::Builder::new().name("interrupt".to_owned()).spawn_scoped(scope, || {
                    while !done.load(Ordering::Relaxed) {
                        if self.is_set() {
                            progress.cancel();
                            return;
                        }
                        std::thread::park_timeout(POLL);
                    }
                });
            let result = work();
            done.store(true, Ordering::Relaxed);
            // Without a watcher the work merely ends a little later.
            if let Ok(watcher) = watcher {
                watcher.thread().unpark();
            }
            result
        })
    }
}

/// The one monotonic clock of a run: all times are since its start.
#[derive(Debug, Clone, Copy)]
pub struct Stopwatch(Instant);

impl Stopwatch {
    /// Starts now.
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Since the start.
    pub fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_ends_by_its_answer_its_limit_or_the_flag() {
        let interrupt = Interrupt::default();
        let mut asked = 0;
        let answer = interrupt.wait_for(Duration::from_mins(1), || {
            asked += 1;
            Ok((asked == 3).then_some(asked))
        });
        assert_eq!(answer.unwrap(), Some(3));
        assert_eq!(interrupt.wait_for(Duration::ZERO, || Ok(None::<()>)).unwrap(), None);
        interrupt.set();
        let error = interrupt.wait_for(Duration::from_mins(1), || Ok(Some(()))).unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Cancelled, codes::CANCELLED));
    }

    #[test]
    fn work_is_cancelled_by_the_flag() {
        let (interrupt, progress) = (Interrupt::default(), Progress::default());
        assert_eq!(interrupt.during(&progress, || 7), 7);
        assert!(!progress.is_cancelled());
        interrupt.during(&progress, || {
            interrupt.set();
            while !progress.is_cancelled() {
                std::thread::yield_now();
            }
        });
    }
}

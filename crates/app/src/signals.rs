//! SIGINT, SIGTERM and SIGHUP ask for a stop; the second one ends the process at once.

use retoma_repo::backup::Progress;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// Whether a stop was asked for, and who is to be told.
#[derive(Debug, Clone, Default)]
pub(crate) struct Interrupt {
    asked: Arc<AtomicBool>,
    running: Arc<Mutex<Vec<Arc<Progress>>>>,
}

impl Interrupt {
    /// Listens from now on.
    pub(crate) fn install() -> Self {
        let interrupt = Self::default();
        if let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) {
            let listening = interrupt.clone();
            let listen = move || {
                for signal in signals.forever() {
                    if listening.asked.swap(true, Ordering::SeqCst) {
                        // What was committed is durable, and what was not is left to prune.
                        signal_hook::low_level::exit(128 + signal);
                    }
                    listening.running().iter().for_each(|progress| progress.cancel());
                }
            };
            std::thread::Builder::new().name("signals".to_owned()).spawn(listen).ok();
        }
        interrupt
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Vec<Arc<Progress>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The flag itself, for loops that look at it.
    pub(crate) fn flag(&self) -> Arc<AtomicBool> {
        Arc::clone(&self.asked)
    }

    /// A progress that a signal stops.
    pub(crate) fn progress(&self) -> Arc<Progress> {
        let progress = Arc::new(Progress::default());
        self.running().push(Arc::clone(&progress));
        if self.asked.load(Ordering::SeqCst) {
            progress.cancel();
        }
        progress
    }
}

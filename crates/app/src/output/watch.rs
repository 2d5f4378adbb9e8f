//! What drills and recoveries say while they run: a line each, with the seconds since the start.

use super::progress::Display;
use super::{Printer, table};
use retoma_control::{Note, Watch};
use retoma_repo::backup::Progress;
use std::any::Any;
use std::sync::Arc;
use std::time::Instant;

/// Prints each note as a line.
#[derive(Debug)]
pub(crate) struct Lines {
    printer: Printer,
    start: Instant,
}

impl Lines {
    pub(crate) fn new(printer: Printer) -> Self {
        Self { printer, start: Instant::now() }
    }
}

impl Watch for Lines {
    fn note(&self, note: &Note) {
        let seconds = self.start.elapsed().as_secs_f64();
        self.printer.note(&format!("{seconds:>6.1} s  {}", table::printable(&note.to_string())));
    }

    fn follow(&self, doing: &str, progress: &Arc<Progress>) -> Box<dyn Any> {
        Box::new(Display::start(self.printer, doing, progress))
    }
}

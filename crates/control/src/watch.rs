//! What a long run tells whoever watches it. Notes are for people; results are returned.

use crate::interrupt::Interrupt;
use retoma_core::drill::{ControlOutcome, ControlResult, Seconds};
use retoma_repo::backup::Progress;
use std::any::Any;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// Hears what is being done. Called from the thread that does it; must not block for long.
pub trait Watch: Sync {
    /// Something begins or has ended.
    fn note(&self, note: &Note);

    /// Something whose progress can be followed begins, in a few words; it is shown until what is given is dropped.
    fn follow(&self, _doing: &str, _progress: &Arc<Progress>) -> Box<dyn Any> {
        Box::new(())
    }
}

/// Hears nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silent;

impl Watch for Silent {
    fn note(&self, _note: &Note) {}
}

/// What can stop a restore, and who sees how far it is.
#[derive(Clone, Copy)]
pub(crate) struct Followed<'a> {
    pub(crate) interrupt: &'a Interrupt,
    pub(crate) watch: &'a dyn Watch,
    /// In a few words.
    pub(crate) doing: &'a str,
}

/// Seen by nobody.
impl<'a> From<&'a Interrupt> for Followed<'a> {
    fn from(interrupt: &'a Interrupt) -> Self {
        Self { interrupt, watch: &Silent, doing: "" }
    }
}

/// One thing that begins or has ended. `Display` is a line for people.
#[derive(Debug, Clone)]
pub enum Note {
    /// Something begins, in a few words.
    Doing(String),
    /// A component was backed up.
    BackedUp {
        /// Its name.
        component: String,
        /// Bytes of all its files.
        total_bytes: u64,
        /// Bytes that the repository grew by.
        stored_bytes: u64,
        /// Capture and upload.
        elapsed: Duration,
    },
    /// The service answers.
    Up {
        /// Where.
        url: String,
    },
    /// The scratch copy was broken.
    Disaster {
        /// What was done to it.
        what: String,
    },
    /// A probe from outside saw it.
    Detected {
        /// Since the disaster.
        after: Duration,
        /// What it saw.
        saw: String,
    },
    /// A component is in its place again.
    Restored {
        /// Its name.
        component: String,
        /// Bytes of all its files.
        bytes: u64,
        /// How long it took.
        elapsed: Duration,
    },
    /// The recovered service acknowledged a write from outside.
    FirstWrite {
        /// Since the disaster.
        after: Seconds,
    },
    /// The previous data are back.
    RolledBack,
    /// A control ran.
    Control(ControlResult),
    /// A file was written.
    Wrote(PathBuf),
    /// Something to look at; nothing failed.
    Warning(String),
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use retoma_core::units::{ByteSize, span};
        match self {
            Self::Doing(what) => f.write_str(what),
            Self::BackedUp { component, total_bytes, stored_bytes, elapsed } => write!(
                f,
                "backed up {component}: {}, {} new, {}",
                ByteSize(*total_bytes),
                ByteSize(*stored_bytes),
                span(*elapsed)
            ),
            Self::Up { url } => write!(f, "the service answers at {url}"),
            Self::Disaster { what } => write!(f, "disaster: {what}"),
            Self::Detected { after, saw } => write!(f, "noticed after {}: {saw}", span(*after)),
            Self::Restored { component, bytes, elapsed } => {
                write!(f, "restored {component}: {}, {}", ByteSize(*bytes), span(*elapsed))
            }
            Self::FirstWrite { after } => {
                write!(f, "first write from outside after {}", span(Duration::from_micros(after.as_micros())))
            }
            Self::RolledBack => f.write_str("the previous data are back"),
            Self::Control(control) => {
                let found = control.found_code.as_deref().unwrap_or("accepted");
                let outcome = match control.outcome {
                    ControlOutcome::AsExpected => "as expected",
                    ControlOutcome::Wrong => "WRONG",
                };
                write!(f, "control {}: {found}, {outcome}", control.name)
            }
            Self::Wrote(path) => write!(f, "wrote {}", path.display()),
            Self::Warning(what) => write!(f, "warning: {what}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_note_is_a_line_that_says_what_happened() {
        let second = Duration::from_millis(1234);
        let control = |found: Option<&'static str>| ControlResult::negative("wrong key", "R0202", found, "");
        let lines = [
            (Note::Doing("seed".to_owned()), "seed"),
            (
                Note::BackedUp {
                    component: "models".to_owned(),
                    total_bytes: 2048,
                    stored_bytes: 10,
                    elapsed: second,
                },
                "backed up models: 2.0 KiB, 10 B new, 1.23 s",
            ),
            (Note::Up { url: "http://h/".to_owned() }, "the service answers at http://h/"),
            (Note::Disaster { what: "gone".to_owned() }, "disaster: gone"),
            (Note::Detected { after: second, saw: "nobody".to_owned() }, "noticed after 1.23 s: nobody"),
            (
                Note::Restored { component: "models".to_owned(), bytes: 2048, elapsed: second },
                "restored models: 2.0 KiB, 1.23 s",
            ),
            (Note::RolledBack, "the previous data are back"),
            (Note::Control(control(Some("R0202"))), "control wrong key: R0202, as expected"),
            (Note::Control(control(Some("R0203"))), "control wrong key: R0203, WRONG"),
            (Note::Control(control(None)), "control wrong key: accepted, WRONG"),
            (Note::Wrote(PathBuf::from("/a b")), "wrote /a b"),
            (Note::Warning("look".to_owned()), "warning: look"),
        ];
        for (note, line) in lines {
            assert_eq!(note.to_string(), line, "{note:?}");
        }
    }
}

//! Drills: break a service in a scratch place, bring it back, measure, and test the verifier itself.
//!
//! ```text
//! patient: newest snapshots ─▶ scratch folder ─▶ started on a free port; the repository as a copy of hard links
//! run: marks ─▶ backup, twice ─▶ disaster ─▶ detect ─▶ decide ─▶ recover ─▶ cut over ─▶ first write ─▶ count ─▶ controls
//! ```
//! Invariants: nothing live is touched ([`live`]), and what is destroyed lies below the drill's own folder, asked for
//! again before it is. The disaster is seen by probes, never told. One monotonic clock times everything.
//! `docs/drill.md` says what a drill proves and what it does not.

pub mod controls;
pub mod copy;
mod database;
pub mod disaster;
mod fetch;
pub mod inventory;
pub mod live;
pub mod markers;
mod patient;
pub mod port;
mod ransom;
mod report;
mod run;
mod several;
mod steps;
mod ways;

pub use disaster::Scenario;
pub(crate) use patient::address_of;
pub use patient::{Patient, drill, prepare};
pub use run::run;
pub(crate) use several::needs_several;

use crate::interrupt::{Interrupt, Stopwatch};
use crate::service::Supervisor;
use crate::watch::Watch;
use std::time::Duration;

/// What every drill is told.
pub struct Context<'a> {
    /// Starts services.
    pub supervisor: &'a Supervisor,
    /// The program's version, for the result.
    pub tool_version: &'a str,
    /// The command that repeats the drill, for the result.
    pub repeat: &'a str,
    /// Hears what is done.
    pub watch: &'a dyn Watch,
    /// Ends every wait.
    pub interrupt: &'a Interrupt,
    /// The drill's clock.
    pub clock: Stopwatch,
    /// Marks that every component must have between two steps; more make the count of lost ones finer.
    pub marks: usize,
}

impl std::fmt::Debug for Context<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Context").field("repeat", &self.repeat).finish_non_exhaustive()
    }
}

/// Marks between two steps, where nothing else is asked for.
pub const MARKS: usize = 10;
/// How long marks may take to be acknowledged.
const MARKS_LIMIT: Duration = Duration::from_mins(1);
/// How long the probes may take to notice a disaster.
const DETECT_LIMIT: Duration = Duration::from_mins(1);
/// How long the first write may take after the service is ready.
const FIRST_WRITE_LIMIT: Duration = Duration::from_mins(1);

//! Pages and terminal output of fixed reports.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::assigning_clones)]

pub(crate) mod sample;

mod hostile;
mod policies;
mod report;
mod rights;
mod share;
mod sheet;
mod terminal;

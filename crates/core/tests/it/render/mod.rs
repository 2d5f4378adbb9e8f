//! Pages and terminal output of fixed reports.

pub(crate) mod sample;

mod report;
mod terminal;

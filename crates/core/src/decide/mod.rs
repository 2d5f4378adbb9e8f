//! Decisions: pure functions of what was observed. "Do nothing" has a reason too.
//!
//! Time, facts and policy come in as arguments; what comes out is a value that can be printed, tested and then
//! applied elsewhere. Nothing here acts.

pub mod alerts;
pub mod archiving;
pub mod cost;
pub mod drill;
pub mod gaps;
pub mod keep;
pub mod keys;
pub mod losses;
pub mod mass_change;
pub mod observed;
pub mod recovery;
pub mod redis;
pub mod repositories;
pub mod retention;
pub mod schedule;
pub mod staleness;
pub mod streaming;

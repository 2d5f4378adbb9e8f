//! Decisions, by tables, by all small combinations and by properties.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::assigning_clones)]

mod drill;
mod keys;
mod markers;
mod recovery;
mod result;
mod retention;
mod retention_model;
mod retention_properties;
mod staleness;

//! PostgreSQL: a physical backup of a running server. The order of everything: `docs/postgres.md`.
//!
//! ```text
//! session: start ─▶ walk: files, pages verified ─▶ settle ─▶ session: stop ─▶ WAL, label, manifest, facts
//! ```

mod facts;
pub mod manifest;
pub mod page;
mod reader;
pub mod relation;
pub mod select;
mod session;
mod source;
mod wal_files;
mod walk;
pub mod wire;

pub use facts::{Database, Extension, FACTS_PATH, PostgresFacts, Server, Tablespace, facts_of};
pub use retoma_core::postgres::SegmentHeader;
pub use source::{PostgresSource, Previous};

//! PostgreSQL: a physical backup of a running server. The order of everything: `docs/postgres.md`.
//!
//! ```text
//! session: start ─▶ walk: files, pages verified ─▶ settle ─▶ session: stop ─▶ WAL, label, manifest, facts
//! ```

mod facts;
pub mod manifest;
pub mod page;
mod programs;
mod reader;
mod recovery;
pub mod relation;
pub mod select;
mod session;
mod source;
mod wal_files;
pub mod wal_records;
mod walk;
pub mod wire;

pub use facts::{Contents, Database, Extension, FACTS_PATH, PostgresFacts, Server, Tablespace, facts_of};
pub use programs::{Here, Misfit, Programs, misfits};
pub use recovery::{Along, Recovery, Target};
pub use retoma_core::postgres::SegmentHeader;
pub use session::contents;
pub use source::{Examined, PostgresSource, Previous, examine};

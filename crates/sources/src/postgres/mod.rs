//! PostgreSQL: a physical backup of a running server. The order of everything: `docs/postgres.md`.
//!
//! ```text
//! here (PostgresSource): session: start ─▶ walk: files, pages verified ─▶ settle ─▶ session: stop ─▶ WAL, label, manifest, facts
//! by dumps (DumpSource), where a server gives nothing else: each database as of one moment, and the roles
//! from another host (StreamSource): base backup ─▶ files, pages verified ─▶ manifest compared ─▶ WAL by replication ─▶ facts
//! ```

mod damage;
mod dump;
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
mod stream;
mod wal_files;
pub mod wal_records;
mod walk;
pub mod wire;

pub use dump::{
    DATABASES, DUMP_FACTS_PATH, DumpFacts, DumpSource, DumpedDatabase, GLOBALS, dump_facts_of, examine_dump,
};
pub use facts::{Contents, Database, Extension, FACTS_PATH, PostgresFacts, Server, Tablespace, facts_of};
pub use programs::{Here, Misfit, Programs, misfits};
pub use recovery::{Along, Recovery, Target};
pub use retoma_core::postgres::SegmentHeader;
pub use session::contents;
pub use source::{Examined, PostgresSource, Previous, examine};
pub use stream::{StreamSource, examine as examine_stream};
pub use wire::quote_identifier;

//! A blocking client for PostgreSQL's protocol 3, for SQL and for physical replication.
//!
//! ```text
//! Address ─▶ Connection::connect ─▶ query, query_each, execute, copy_out, copy_in
//!   (URL and Environment)     ├───▶ start_replication ─▶ ReplicationStream: next, status_update, stop ─▶ Connection
//!                             └───▶ start_base_backup ─▶ BaseBackup: next_piece, finish ─▶ Connection
//! ```
//! Framing, SCRAM and quoting are those of the crate `postgres-protocol`; connections, TLS, time and memory limits are here,
//! since no released client for Rust opens a replication connection.
//!
//! Invariants: whatever a server sends, we never panic, never wait without a limit and never hold more than [`limits`]
//! says; a password is never printed, and never sent in the clear over a network; after an error of a *statement* the
//! connection goes on, after any other it is closed and says so.
//!
//! It does not pool, reconnect or retry, has no prepared statements and no binary values, and takes one host per address.

mod address;
mod base_backup;
mod channel;
mod connection;
mod copy;
mod environment;
mod error;
pub mod limits;
mod login;
mod pass_file;
mod replication;
mod rows;
pub(super) mod stream;
mod tls;

pub use address::{Address, ChannelBinding, Endpoint, SslMode};
pub use base_backup::{BackupPiece, BaseBackup};
pub use channel::CancelHandle;
pub use connection::{Connection, Mode, Timeouts};
pub use environment::{Environment, PassFile};
pub use error::{ServerError, sqlstate};
pub use replication::{HistoryFile, PhysicalSlot, SlotKind, SystemIdentity};
pub use rows::{Row, Rows};
pub use stream::{Progress, ReplicationMessage, ReplicationStream};

/// `text` as a string constant of SQL, right whatever `standard_conforming_strings` is.
pub fn quote_literal(text: &str) -> String {
    postgres_protocol::escape::escape_literal(text)
}

/// `name` as an identifier of SQL, with quotes.
pub fn quote_identifier(name: &str) -> String {
    postgres_protocol::escape::escape_identifier(name)
}

#[cfg(test)]
mod tests;

//! PostgreSQL, against real servers.

mod backup;
mod dump;
mod stream;
mod wal_records;
mod wire;

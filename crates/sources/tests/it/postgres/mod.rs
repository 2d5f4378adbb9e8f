//! PostgreSQL, against real servers.

mod backup;
mod wal_records;
mod wire;

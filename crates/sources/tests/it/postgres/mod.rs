//! PostgreSQL, against real servers.

mod backup;
mod wire;

//! PostgreSQL, against real servers.

mod wire;

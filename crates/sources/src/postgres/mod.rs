//! PostgreSQL: a physical backup of a running server. The order of everything: `docs/postgres.md`.

pub mod manifest;
pub mod page;
pub mod relation;
pub mod select;
pub mod wire;

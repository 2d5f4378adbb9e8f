//! The kinds of components, and which keys each has.

use std::fmt;

/// What a component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ComponentKind {
    /// A PostgreSQL server's databases.
    Postgres,
    /// A SQLite database file.
    Sqlite,
    /// A Redis server's data.
    Redis,
    /// A file, or a folder with all that is below it.
    Files,
}

/// The names of all kinds, in the order of [`ComponentKind`].
pub(super) const NAMES: [&str; 4] = ["postgres", "sqlite", "redis", "files"];
/// Kinds with the key `path`.
pub(super) const WITH_PATH: &[&str] = &["sqlite", "files"];
/// Kinds with the key `url`.
pub(super) const WITH_URL: &[&str] = &["postgres", "redis"];
/// Kinds with the key `exclude`.
pub(super) const WITH_EXCLUDE: &[&str] = &["files"];
/// Kinds with the key `backup`.
pub(super) const WITH_WAY: &[&str] = &["postgres"];
/// Kinds with the key `wal`.
pub(super) const WITH_WAL: &[&str] = &["postgres"];
/// Kinds with the key `marks`.
pub(super) const WITH_MARKS: &[&str] = &["postgres"];
/// The values of `marks`.
pub(super) const MARKS: [&str; 2] = ["on", "off"];
/// Kinds with the key `mass_change`.
pub(super) const WITH_MASS_CHANGE: &[&str] = &["sqlite", "files"];
/// Kinds with the key `may_be_empty`.
pub(super) const WITH_TABLES: &[&str] = &["sqlite"];
/// Kinds whose checks may be queries.
pub(super) const WITH_SQL: &[&str] = &["postgres", "sqlite"];

impl ComponentKind {
    /// The name in the manifest.
    pub fn as_str(self) -> &'static str {
        NAMES[self as usize]
    }
}

impl fmt::Display for ComponentKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

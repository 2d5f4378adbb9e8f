//! How a PostgreSQL server is backed up: `backup` of a component.

use std::fmt;

/// The names of [`BackupWay`]'s values, in their order.
pub(super) const WAYS: [&str; 3] = ["local", "stream", "logical"];

/// The way of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BackupWay {
    /// The data directory is read, on the database's host.
    #[default]
    Local,
    /// The server sends its data directory, from any host.
    Stream,
    /// `pg_dump` dumps each database, from any host.
    Logical,
}

impl BackupWay {
    /// The name in the manifest.
    pub fn as_str(self) -> &'static str {
        WAYS[self as usize]
    }

    /// The way of this name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::Local, Self::Stream, Self::Logical].into_iter().find(|way| way.as_str() == name)
    }
}

impl fmt::Display for BackupWay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

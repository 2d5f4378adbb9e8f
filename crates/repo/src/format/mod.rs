//! What is stored, byte by byte: one file for each kind of object, in the order of `docs/format.md`.
//!
//! Everything here turns values into bytes and back and nothing else. What is read is hostile: no length is believed
//! before it is checked, no allocation is larger than what was read allows, nothing panics.

pub mod config;
pub mod index;
pub mod key;
pub mod lock;
pub mod mark;
pub mod pack;
pub mod polynomial;
pub mod recipient;
pub mod snapshot;
pub mod time;
pub mod tree;
pub mod unpacked;

use retoma_core::{Error, ErrorKind, error::codes};

/// What is in the repository cannot be understood although it is authentic.
pub(crate) fn malformed(what: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Corrupt, codes::MALFORMED, what.to_string())
}

/// Which kind of blob: restic keeps file contents and directory trees apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BlobKind {
    /// A piece of a file.
    Data,
    /// A directory: its nodes as JSON.
    Tree,
}

#[cfg(test)]
mod tests;

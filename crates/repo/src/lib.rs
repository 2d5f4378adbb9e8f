//! The encrypted, deduplicating repository.
//!
//! Snapshots are stored in restic's repository format, version 2; beside it lie lanes of our own. `docs/format.md`
//! describes every object, the order of writes and what is not protected.

// Test data are small numbers, and a test that only must not panic ignores what it gets.
#![cfg_attr(
    test,
    allow(clippy::cast_possible_truncation, clippy::cast_precision_loss, clippy::let_underscore_must_use)
)]

mod around;
pub mod backup;
pub mod blob;
pub mod chunk;
pub mod compress;
pub mod copies;
pub mod crypto;
pub mod evidence;
pub mod format;
pub mod handover;
pub mod host;
pub mod id;
pub mod index;
pub mod lane;
pub mod lock;
pub mod memory;
pub mod ops;
pub mod recipients;
pub mod repository;
pub mod restore;
pub mod shares;
pub mod store;
pub mod threads;
pub mod wal;

pub use id::{BlobId, IndexId, KeyId, LockId, MarkId, PackId, RepositoryId, SnapshotId};
pub use repository::{Folder, Repository};
pub use retoma_core::{Code, Error, ErrorKind, Result, ResultExt};

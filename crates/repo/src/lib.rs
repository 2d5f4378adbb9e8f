//! The encrypted, deduplicating repository.
//!
//! Snapshots are stored in restic's repository format, version 2; beside it lie lanes of our own. `docs/format.md`
//! describes every object, the order of writes and what is not protected.

pub mod backup;
pub mod blob;
pub mod chunk;
pub mod compress;
pub mod crypto;
pub mod evidence;
pub mod format;
pub mod host;
pub mod id;
pub mod index;
pub mod lane;
pub mod lock;
pub mod repository;
pub mod store;

pub use id::{BlobId, IndexId, KeyId, LockId, PackId, RepositoryId, SnapshotId};
pub use repository::{Folder, Repository};
pub use retoma_core::{Code, Error, ErrorKind, Result, ResultExt};

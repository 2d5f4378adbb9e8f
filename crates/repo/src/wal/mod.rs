//! The lane `wal`: the write-ahead log of PostgreSQL servers. Names, order and limits: `docs/wal.md`.
//!
//! Invariants: an object is made once and never changed; what is not what its name says is neither stored nor handed out;
//! "not there" is said only when the repository answered. WAL records are not read here: a segment is known by its first
//! page and by the seal.

mod archive;
pub mod copy;
mod coverage;
mod end;
mod examine;
mod floor;
mod listing;
mod name;

pub use archive::{Archive, Assembled, Pushed, verify};
pub use coverage::{Coverage, Gap, coverage, ways};
pub use end::ArchiveEnd;
pub use examine::{Examined, Share, examine};
pub use floor::StoredFloor;
pub use listing::{Listing, Numbers, Server, Timeline, servers};
pub use name::{PartName, WalObject};

/// The folder, and the name of the lane.
pub const FOLDER: &str = "wal";

/// The largest object: PostgreSQL allows segments of 1 GiB.
pub const LIMIT_BYTES: usize = 1 << 30;

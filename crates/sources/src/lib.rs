//! What is protected: each kind of component reads itself as a stream of entries, and knows how to check a copy.

pub mod files;
mod memory;
mod net;
pub mod postgres;
pub mod redis;
mod scratch;
pub mod sqlite;
mod stored;

pub use retoma_core::{Error, ErrorKind, Result, ResultExt};
pub use scratch::ScratchFolder;

//! The pure core of Retoma: units, errors, the manifest, decisions and rendering.
//!
//! Nothing here reads a clock, a file, the environment or a random number: whatever a decision needs comes in as an
//! argument, so that the same view always gives the same plan. `xtask tidy` and this crate's `clippy.toml` hold it.

pub mod decide;
pub mod drill;
pub mod error;
pub mod manifest;
pub mod postgres;
pub mod render;
pub mod secret;
pub mod share;
pub mod units;

pub use error::{Code, Error, ErrorKind, Result, ResultExt};
pub use secret::Secret;

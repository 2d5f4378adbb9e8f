//! Integration tests of the pure core.

#[cfg(test)] // Always true here; Clippy allows `unwrap` in helpers only below it.
mod manifest;
//! The integration tests of the pure core.

mod decide;
mod render;

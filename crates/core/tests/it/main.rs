//! Integration tests of the pure core.

// Always true here; Clippy allows `unwrap` in helpers only below it.
#[cfg(test)]
mod decide;
#[cfg(test)]
mod manifest;
#[cfg(test)]
mod render;

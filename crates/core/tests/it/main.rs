//! The integration tests of the pure core.

mod decide;
mod render;

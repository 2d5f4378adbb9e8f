//! Integration tests of the pure core.

mod manifest;

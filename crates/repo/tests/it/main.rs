//! Integration tests of the repository, in one binary.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

#[cfg(test)]
mod evidence;
mod store;

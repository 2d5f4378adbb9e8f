//! Integration tests of the repository, in one binary.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod store;
mod restore;
mod fuzz_corpus;
mod verify;
mod crash;
mod interop;
mod locks;
mod prune;

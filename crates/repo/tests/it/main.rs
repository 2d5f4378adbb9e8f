//! Integration tests of the repository, in one binary.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod backup;
mod copy;
mod crash;
#[cfg(test)]
mod evidence;
mod fuzz_corpus;
mod index;
mod interop;
mod locks;
mod opening;
mod prune;
mod repair;
mod restore;
mod scale;
mod store;
mod successive;
mod together;
mod verify;
mod wal;
mod written;

//! Integration tests of the program: whole commands, with their exit code and what they print.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod agent;
mod backup;
mod database_drill;
mod demo_signals;
mod documented;
mod drill;
mod errors;
mod evidence;
mod exit_codes;
mod full_disk;
mod init;
mod interrupt;
mod keys;
mod kit;
mod pitr;
mod postgres;
mod recover;
mod retention;
mod service;
mod texts;
mod usage;
mod wal;
mod wal_stream;

//! Integration tests of the program: whole commands, with their exit code and what they print.

#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::print_stderr)]

mod agent;
mod backup;
mod blank_machine;
mod copy;
mod cost;
mod database_drill;
mod demo_signals;
mod documented;
mod drill;
mod dumps;
mod errors;
mod evidence;
mod exit_codes;
mod faults;
mod full_disk;
mod immutability;
mod init;
mod interrupt;
mod keys;
mod kit;
mod mass_change;
mod object_stores;
mod pitr;
mod plan;
mod postgres;
mod recover;
mod redis;
mod repair;
mod retention;
mod service;
mod several;
mod sftp;
mod shares;
mod tablespaces;
mod texts;
mod transit;
mod usage;
mod wal;
mod wal_stream;

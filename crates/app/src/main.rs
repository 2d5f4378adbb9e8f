//! `retoma`: brings a service back after a disaster, and proves it by doing it.
//!
//! This crate reads the command line, calls the other crates and prints what they return. Decisions are not made here.

mod cli;
mod context;
mod exit;
mod http;
mod output;
mod signals;

use exit::Exit;
use std::process::ExitCode;

fn main() -> ExitCode {
    output::panic::install();
    let exit = std::panic::catch_unwind(cli::run).unwrap_or(Exit::Bug);
    ExitCode::from(cli::end_for_caller(exit).code())
}

//! `retoma __wal-get`: what a server that is being recovered calls for WAL. Hidden: `recover` writes the line.

use crate::exit::Exit;
use retoma_control::wal::serve;
use retoma_core::Result;
use std::path::PathBuf;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// Where the recovery listens
    #[arg(long)]
    socket: PathBuf,
    /// The file's name
    name: String,
    /// Where PostgreSQL wants it
    path: PathBuf,
}

/// Ends with 1 for what is not in any repository, and above 125 when that cannot be known.
pub(super) fn run(args: &Args) -> Result<Exit> {
    let is_there = serve::get(&args.socket, &args.name, &args.path)?;
    Ok(if is_there { Exit::Ok } else { Exit::NotArchived })
}

/// Whether these words call it, also where they cannot be read as a command line.
pub(super) fn is_called(mut words: impl Iterator<Item = impl AsRef<std::ffi::OsStr>>) -> bool {
    words.next().is_some_and(|word| word.as_ref() == "__wal-get")
}

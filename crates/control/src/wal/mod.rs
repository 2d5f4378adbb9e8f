//! The write-ahead log of a PostgreSQL server: `archive_command`, `restore_command`, and what is missing.
//!
//! Success is said only of what is durable in every repository of the component; "not there" only when every repository has
//! said so. What is done ahead of its time lies in the [`spool`], which may be lost or deleted at any moment.

pub mod archiver;
pub mod check;
mod fetch;
pub mod guard;
mod histories;
pub mod keep;
mod push;
pub mod serve;
pub mod server;
pub mod spool;
pub mod stream;
pub mod tablespaces;

pub(crate) use fetch::look_everywhere;
pub use fetch::{Fetched, Source, fetch};
pub use push::{PushReport, Stored, push};

use crate::open::open_repository;
use retoma_core::manifest::{self, Component, Manifest};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::wal::Archive;
use sha2::{Digest as _, Sha256};
use spool::Spool;
use std::num::NonZero;
use std::path::{Path, PathBuf};

/// More threads than this do not make a push or a fetch faster: the store's disk or network is the limit then.
const THREADS: usize = 4;
/// So many bytes of segments are worked on at once, if that is more than one.
const AT_ONCE_BYTES: u64 = 256 << 20;

/// Where the WAL of a component goes to and comes from.
#[derive(Debug, Clone)]
pub struct Job {
    /// The component's name.
    pub component: String,
    /// The repositories, each with its secrets still to be read; at least one.
    pub repositories: Vec<manifest::Repository>,
    /// The folder of all spools; none when nothing is done ahead.
    pub spool: Option<PathBuf>,
    /// The server, where the user says it; otherwise it is read from the data directory.
    pub system_identifier: Option<u64>,
}

impl Job {
    /// The job of a component: in all of its repositories, or in the one that is named, with the spool beside the manifest.
    ///
    /// # Errors
    /// `Invalid` with `R0002` for a component that is no PostgreSQL server, or has no repository of this name.
    pub fn new(manifest: &Manifest, component: &Component, repository: Option<&str>) -> Result<Self> {
        if !matches!(component.source, manifest::Source::Postgres { .. }) {
            let message = format!("component `{}` is of kind `{}`", component.name, component.kind());
            return Err(Error::new(ErrorKind::Invalid, codes::USAGE, message)
                .with_hint("name a component of kind `postgres`: only these have WAL"));
        }
        let is_meant = |name: &&String| repository.is_none_or(|meant| *name == meant);
        let names = component.repositories.iter().filter(is_meant);
        let repositories: Vec<_> = names.filter_map(|name| manifest.repository(name)).cloned().collect();
        if repositories.is_empty() {
            let message = format!(
                "component `{}` is not in repository `{}`",
                component.name,
                repository.unwrap_or_default()
            );
            return Err(Error::new(ErrorKind::Invalid, codes::USAGE, message)
                .with_hint(format!("it is in: {}", component.repositories.join(", "))));
        }
        let spool = Some(manifest.dir().join(".retoma/wal"));
        Ok(Self { component: component.name.clone(), repositories, spool, system_identifier: None })
    }

    /// The spool of this server and these repositories; `None` when there can be none, which only costs time.
    fn spool(&self, system_identifier: u64) -> Option<Spool> {
        // What was done ahead for other repositories says nothing about these.
        let mut hash = Sha256::new();
        for repository in &self.repositories {
            hash.update(repository.url.as_bytes());
            hash.update([0]);
        }
        let mut name = format!("{}-{system_identifier}-", self.component);
        for byte in hash.finalize().iter().take(8) {
            name += &format!("{byte:02x}");
        }
        Spool::open(&self.spool.as_ref()?.join(name), system_identifier)
    }

    /// The archive in one of the repositories.
    fn open(&self, repository: &manifest::Repository, system_identifier: u64) -> Result<Archive> {
        let opened = open_repository(repository, false)?;
        Archive::new(&opened.repository, &self.component, system_identifier)
    }
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, NonZero::get)
}

/// How many threads work on segments of so many bytes.
fn threads(segment_bytes: u64) -> usize {
    let fit = usize::try_from(AT_ONCE_BYTES / segment_bytes.max(1)).unwrap_or(THREADS);
    cores().min(THREADS).min(fit).max(1)
}

/// The name of a file in `pg_wal`, as text.
fn file_name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

/// The error about a name that PostgreSQL gives no file of its WAL.
fn no_wal_file(name: &str) -> Error {
    let message = format!("`{}` is not the name of a WAL file", name.escape_debug());
    Error::new(ErrorKind::Invalid, codes::WAL_MALFORMED, message)
        .with_hint("call it as `wal push %p` and `wal fetch %f %p`")
}

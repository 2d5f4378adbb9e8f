//! A new cluster, for what is loaded and not restored as files.

use super::{Dressed, Instance, SOCKETS, Serve, give};
use crate::interrupt::Interrupt;
use crate::service::Supervisor;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_sources::ScratchFolder;
use retoma_sources::postgres::{PostgresFacts, Programs};
use rustix::process::geteuid;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

/// How long making a cluster, and starting it, may take.
const LIMIT: Duration = Duration::from_mins(10);
/// The system's user that runs PostgreSQL where we are root.
const SYSTEM_USER: &str = "postgres";

/// A cluster that is to be made.
#[derive(Debug)]
pub struct Cluster<'a> {
    /// Ends the server when we end.
    pub supervisor: &'a Supervisor,
    /// Its data directory; empty, or not there.
    pub data: &'a Path,
    /// As what it is started: its version and superuser.
    pub facts: &'a PostgresFacts,
    /// The encoding of its first databases …
    pub encoding: &'a str,
    /// … their order …
    pub collate: &'a str,
    /// … and their classes of characters.
    pub ctype: &'a str,
}

impl Cluster<'_> {
    /// Runs `initdb`, with checksums of pages. Gives a private folder for its socket. What a load that was stopped left is removed.
    ///
    /// # Errors
    /// `R0424` without the programs; `R0425` when it fails; `Cancelled`.
    pub fn initialise(&self, interrupt: &Interrupt) -> Result<ScratchFolder> {
        let programs = Programs::find(self.facts)?;
        let user = user()?;
        let failed = |error| Error::io(self.data.display(), error);
        if self.data.exists() {
            std::fs::remove_dir_all(self.data).map_err(failed)?;
        }
        std::fs::create_dir(self.data).map_err(failed)?;
        std::fs::set_permissions(self.data, std::fs::Permissions::from_mode(0o700)).map_err(failed)?;
        give(self.data, user)?;
        let above = self.data.parent().unwrap_or(self.data);
        // The database's user has to pass, and need not look around.
        let passable = std::fs::Permissions::from_mode(0o711);
        std::fs::set_permissions(above, passable).map_err(|error| Error::io(above.display(), error))?;
        let folder = ScratchFolder::new(SOCKETS)?;
        give(folder.path(), user)?;
        let arguments = [
            format!("--pgdata={}", self.data.display()),
            format!("--username={}", self.facts.server.superuser),
            format!("--encoding={}", self.encoding),
            format!("--lc-collate={}", self.collate),
            format!("--lc-ctype={}", self.ctype),
            "--locale=C".to_owned(),
            "--data-checksums".to_owned(),
            "--auth-local=peer".to_owned(),
            "--auth-host=scram-sha-256".to_owned(),
            "--no-instructions".to_owned(),
        ];
        let dressed = Dressed { programs: &programs, user, folder: folder.path() };
        let (status, said) = dressed.run("initdb", arguments.to_vec(), LIMIT, interrupt)?;
        if status == 0 {
            return Ok(folder);
        }
        let message = format!("no new cluster can be made in `{}`: {said}", self.data.display());
        Err(Error::new(ErrorKind::Unavailable, codes::POSTGRES_NOT_UP, message).with_hint(
            "install the locales that the original server has; let the database's user pass to the folder",
        ))
    }

    /// Starts it on a socket in the private `folder`.
    ///
    /// # Errors
    /// As [`Instance::serve`].
    pub fn serve(&self, folder: &Path, interrupt: &Interrupt) -> Result<Instance> {
        let Self { supervisor, data, facts, .. } = *self;
        Instance::serve(&Serve { supervisor, data, facts, folder, archiving: None }, LIMIT, interrupt)
    }
}

/// Whom a new cluster belongs to; `None` for ourselves.
fn user() -> Result<Option<(u32, u32)>> {
    if !geteuid().is_root() {
        return Ok(None);
    }
    let passwd = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let of = |line: &str| {
        let fields: Vec<&str> = line.split(':').collect();
        (fields.first() == Some(&SYSTEM_USER)).then_some(())?;
        Some((fields.get(2)?.parse().ok()?, fields.get(3)?.parse().ok()?))
    };
    passwd.lines().find_map(of).map(Some).ok_or_else(|| {
        let message = format!("there is no user `{SYSTEM_USER}`, and PostgreSQL refuses to run as root");
        Error::new(ErrorKind::Invalid, codes::POSTGRES_NOT_UP, message)
            .with_hint("run this as the user that the server will have, or install PostgreSQL's server")
    })
}

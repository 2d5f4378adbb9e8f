//! A scratch copy that runs as the original would: it takes writes, can be backed up, and ships its WAL. It still listens on a
//! socket in a private folder alone.

use super::{Dressed, Instance, Log, give, settings, write_private};
use crate::interrupt::Interrupt;
use crate::service::{Service, Start, Supervisor};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_sources::postgres::{PostgresFacts, Programs};
use rustix::process::geteuid;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Duration;

/// How a copy is served.
#[derive(Debug)]
pub struct Serve<'a> {
    /// Ends the server when we end.
    pub supervisor: &'a Supervisor,
    /// The data directory, as a clean shutdown left it.
    pub data: &'a Path,
    /// What was captured.
    pub facts: &'a PostgresFacts,
    /// Where its socket and its log are, with a short name; what it holds is replaced.
    pub folder: &'a Path,
    /// What it does with finished WAL; nothing where it is streamed.
    pub archiving: Option<Archiving>,
}

/// How finished WAL is archived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Archiving {
    /// As in `archive_command`.
    pub command: String,
    /// After so long a segment that is not full is finished; 0 for never.
    pub timeout_seconds: u64,
}

impl Instance {
    /// Starts a server on a copy and waits until it takes writes.
    ///
    /// # Errors
    /// `R0424` without the programs; `R0425` when it does not come up, with the end of its log; `Cancelled`.
    pub fn serve(serve: &Serve<'_>, limit: Duration, interrupt: &Interrupt) -> Result<Self> {
        let programs = Programs::find(serve.facts)?;
        let user = user_of(serve.data)?;
        let folder = serve.folder;
        give(folder, user)?;
        let superuser = serve.facts.server.superuser.clone();
        let quoted = superuser.replace('"', "\"\"");
        let hba = format!("local all \"{quoted}\" trust\nlocal replication \"{quoted}\" trust\n");
        for (name, text) in [("postgresql.conf", ""), ("pg_ident.conf", ""), ("pg_hba.conf", hba.as_str())] {
            write_private(&folder.join(name), text, user)?;
        }
        let mut dressed = Dressed { programs: &programs, user, folder };
        let control = dressed.controldata(serve.data, interrupt)?;
        let mut arguments = vec!["-D".to_owned(), serve.data.display().to_string()];
        for (name, value) in settings::serving(serve, folder, &control) {
            arguments.extend(["-c".to_owned(), format!("{name}={value}")]);
        }
        let command = dressed.words("postgres", arguments);
        let log = Log::new(&folder.join("log"));
        let start = Start { command: &command, dir: folder, log: log.path(), variables: &[] };
        let service = Service::start(serve.supervisor, &start)?;
        let folder = folder.to_owned();
        let mut instance = Self { service, programs, user, superuser, log, wal: None, folder, _own: None };
        instance.wait_promoted(limit, interrupt)?;
        Ok(instance)
    }

    /// Kills the server as a lost machine would.
    ///
    /// # Errors
    /// `R0903` when it is still there after that.
    pub fn kill(self) -> Result<()> {
        self.service.kill()
    }
}

impl Serve<'_> {
    /// Runs one of PostgreSQL's programs on the stopped server's files: `program OPTIONS -D DATA`. Gives its status and what it
    /// printed last.
    ///
    /// # Errors
    /// As [`Instance::run`].
    pub fn run_offline(
        &self,
        program: &str,
        options: &[&str],
        limit: Duration,
        interrupt: &Interrupt,
    ) -> Result<(i32, String)> {
        let programs = Programs::find(self.facts)?;
        let dressed = Dressed { programs: &programs, user: user_of(self.data)?, folder: self.folder };
        let mut arguments: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        arguments.extend(["-D".to_owned(), self.data.display().to_string()]);
        dressed.run(program, arguments, limit, interrupt)
    }
}

/// Whom a server runs as: user and group of its data directory; `None` for ourselves.
///
/// # Errors
/// `R0425` when we cannot run it as that user.
pub fn user_of(data: &Path) -> Result<Option<(u32, u32)>> {
    let metadata = std::fs::metadata(data).map_err(|error| Error::io(data.display(), error))?;
    let (owner, group, me) = (metadata.uid(), metadata.gid(), geteuid().as_raw());
    let cannot = |what: String, hint: &'static str| {
        Err(Error::new(ErrorKind::Invalid, codes::POSTGRES_NOT_UP, what).with_hint(hint))
    };
    if owner == 0 {
        let what = format!("`{}` belongs to root, and PostgreSQL refuses to run as root", data.display());
        return cannot(what, "give the folder to the database's user (`chown -R postgres`)");
    }
    if owner == me {
        return Ok(None);
    }
    if me != 0 {
        let what = format!("`{}` belongs to another user", data.display());
        return cannot(what, "run this as that user, or as root");
    }
    Ok(Some((owner, group)))
}

//! A restored PostgreSQL server: started on its own files, recovered, checked, stopped.
//!
//! ```text
//! restored files ─▶ launch with our settings: private socket, no network, no archive
//!                ─▶ replay, with WAL from the repositories (`wal::serve`) ─▶ promote ─▶ checks ─▶ clean stop
//! ```
//! What the backed-up configuration says about addresses, archives, logs and standbys is overridden on the command line, so
//! that a copy never talks to what the original talks to. No file of the configuration is changed. The socket lies in a
//! folder that only the server's user can enter, and nobody but its superuser is let in.

mod check;
mod cluster;
pub(crate) mod kept;
mod log;
mod marks;
mod serve;
mod settings;
pub mod spaces;

pub use check::check;
pub use cluster::Cluster;
pub(crate) use marks::{MarkWriter, newest_mark};
pub use serve::{Archiving, Serve, user_of};

use crate::interrupt::Interrupt;
use crate::service::{Ended, Service, Start, Supervisor, run_to_end, tail, tail_of};
use crate::wal::guard::Guard;
use crate::wal::serve::{Served, Supply, WalServer};
use jiff::Timestamp;
use log::Log;
use retoma_core::manifest::Command as Words;
use retoma_core::postgres::{Lsn, TimelineId};
use retoma_core::units::span;
use retoma_core::{Error, ErrorKind, Result, ResultExt, error::codes};
use retoma_repo::Repository;
use retoma_repo::format::snapshot::Snapshot;
use retoma_repo::index::Index;
use retoma_sources::ScratchFolder;
use retoma_sources::postgres::wire::{Address, Connection, Mode, Timeouts};
use retoma_sources::postgres::{PostgresFacts, Programs, Recovery, facts_of, misfits};
use rustix::process::{Pid, Signal};
use std::io::{Read as _, Seek as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

/// How the private folders of our servers are called: socket, log, and what only they need.
pub(crate) const SOCKETS: &str = "retoma-pg-";

/// A server listens to no network here: the number only names its socket.
const PORT: u16 = 5432;
/// How long one of PostgreSQL's small programs may take.
const PROGRAM_LIMIT: Duration = Duration::from_mins(1);
/// How long a clean stop may take: the last checkpoint writes all that is dirty.
const STOP_LIMIT: Duration = Duration::from_mins(30);

/// More than `pg_controldata` prints.
const CONTROL_DATA_BYTES: u64 = 1 << 20;

/// How a restored server is started.
#[derive(Debug)]
pub struct Launch<'a> {
    /// Ends the server when we end.
    pub supervisor: &'a Supervisor,
    /// The restored data directory.
    pub data: &'a Path,
    /// What was captured.
    pub facts: &'a PostgresFacts,
    /// How far it recovers. Its `restore_command` is replaced where there is a supply.
    pub recovery: &'a Recovery,
    /// Where WAL comes from that is not in the backup.
    pub wal: Option<&'a Supply>,
    /// Whether its files are to be used afterwards: then it writes durably, and leaves new WAL to be archived. Otherwise it is
    /// a copy that is looked at and thrown away.
    pub keep: bool,
    /// How long it may take until it is promoted.
    pub limit: Duration,
}

/// A restored server that runs. Dropping it kills it.
#[derive(Debug)]
pub struct Instance {
    service: Service,
    programs: Programs,
    user: Option<(u32, u32)>,
    superuser: String,
    log: Log,
    wal: Option<WalServer>,
    /// Of the socket and all that only this server needs.
    folder: PathBuf,
    /// The same, where it goes with the server; behind everything that uses it.
    _own: Option<ScratchFolder>,
}

/// How far a server has recovered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replayed {
    /// Everything before this position was replayed.
    pub reached: Lsn,
    /// When the last transaction that was replayed ended; `None` when there was none.
    pub last_transaction: Option<Timestamp>,
    /// The timeline on which it goes on.
    pub timeline: TimelineId,
    /// The WAL that it got beside what was in the backup.
    pub served: Served,
}

/// Says what does not fit between the backup and this machine, before anything is restored.
///
/// # Errors
/// `R0424` when the programs are missing or something forbids a restore; what only needs care is returned.
pub fn check_fit(facts: &PostgresFacts) -> Result<Vec<String>> {
    let programs = Programs::find(facts)?;
    let mut care = Vec::new();
    for misfit in misfits(facts, &programs.here()) {
        if misfit.forbids {
            return Err(Error::new(ErrorKind::Unsupported, codes::POSTGRES_PROGRAMS, misfit.what)
                .with_hint(misfit.hint));
        }
        care.push(format!("{}; {}", misfit.what, misfit.hint));
    }
    Ok(care)
}

/// Refuses a data directory that a server uses now.
///
/// # Errors
/// `R0502` when the process that its `postmaster.pid` names is alive.
pub fn check_not_live(data: &Path) -> Result<()> {
    let Ok(text) = std::fs::read_to_string(data.join("postmaster.pid")) else { return Ok(()) };
    let pid = text.lines().next().and_then(|line| line.trim().parse::<i32>().ok()).and_then(Pid::from_raw);
    // A process of another user is alive too, though it may not be signalled.
    let alive =
        pid.is_some_and(|pid| rustix::process::test_kill_process(pid) != Err(rustix::io::Errno::SRCH));
    if !alive {
        return Ok(());
    }
    let message = format!("a PostgreSQL server runs on `{}`", data.display());
    Err(Error::new(ErrorKind::Conflict, codes::RESTORE_TARGET, message)
        .with_hint("stop it first; if its `postmaster.pid` is stale, remove that file"))
}

/// Looks whether the data directory of a snapshot can be laid into `target`. Its tablespaces are for [`spaces`]. Gives what needs care. `replaces`: what
/// is not in the snapshot will be removed from the target.
///
/// # Errors
/// `R0424` when it does not fit this machine; `R0502` when a server runs there, or WAL that is left there would be replayed
/// over what is restored.
pub fn check_restore(
    repository: &Repository,
    index: &Index,
    snapshot: &Snapshot,
    target: &Path,
    replaces: bool,
) -> Result<Vec<String>> {
    let Some(facts) = facts_of(repository, index, &snapshot.tree)? else { return Ok(Vec::new()) };
    let care = check_fit(&facts)?;
    check_not_live(target)?;
    if !replaces && target.join("PG_VERSION").exists() {
        let message = format!(
            "`{}` is a data directory already: the server would replay its WAL over what is restored",
            target.display()
        );
        return Err(Error::new(ErrorKind::Conflict, codes::RESTORE_TARGET, message).with_hint(
            "use `retoma recover --in-place`, or restore all of it with `--delete`, which removes what is not in the snapshot",
        ));
    }
    Ok(care)
}

impl Instance {
    /// Starts the server and waits until it has recovered and takes writes.
    ///
    /// # Errors
    /// `R0424` without the programs; `R0425` when it does not come up, with the end of its log; `Cancelled`.
    pub fn start(launch: &Launch<'_>, interrupt: &Interrupt) -> Result<Self> {
        let mut instance = Self::launch(launch, interrupt)?;
        instance.wait_replayed(launch.limit, interrupt)?;
        instance.wait_promoted(launch.limit, interrupt)?;
        Ok(instance)
    }

    /// Starts the server, which begins to recover.
    ///
    /// # Errors
    /// `R0424` without the programs; `R0425` when it cannot be started; `Cancelled`.
    pub fn launch(launch: &Launch<'_>, interrupt: &Interrupt) -> Result<Self> {
        let programs = Programs::find(launch.facts)?;
        let server = launch.facts.server.system_identifier;
        let guard =
            Guard::new(launch.facts, launch.recovery)?.look_in(&launch.data.join("pg_wal"), server)?;
        let user = user_of(launch.data)?;
        let folder = ScratchFolder::new(SOCKETS)?;
        give(folder.path(), user)?;
        write_private(&folder.path().join("postgresql.conf"), "", user)?;
        let superuser = &launch.facts.server.superuser;
        write_private(&folder.path().join("pg_ident.conf"), "", user)?;
        let hba = format!("local all \"{}\" trust\n", superuser.replace('"', "\"\""));
        write_private(&folder.path().join("pg_hba.conf"), &hba, user)?;
        write_private(&launch.data.join("recovery.signal"), "", user)?;

        let mut instance = Dressed { programs: &programs, user, folder: folder.path() };
        let control = instance.controldata(launch.data, interrupt)?;
        let mut recovery = launch.recovery.clone();
        let mut wal = None;
        if let Some(supply) = launch.wal {
            instance.check_can_run(&supply.program, interrupt)?;
            let socket = folder.path().join("wal");
            wal = Some(WalServer::start(&supply.archives, &socket, Some(guard))?);
            give(&socket, user)?;
            recovery.restore_command = restore_command(&supply.program, &socket)?;
        }
        let settings = settings::settings(launch, &recovery, folder.path(), &control);
        let mut arguments = vec!["-D".to_owned(), launch.data.display().to_string()];
        for (name, value) in settings {
            arguments.extend(["-c".to_owned(), format!("{name}={value}")]);
        }
        let command = instance.words("postgres", arguments);
        let log = Log::new(&folder.path().join("log"));
        let start = Start { command: &command, dir: folder.path(), log: log.path(), variables: &[] };
        let service = Service::start(launch.supervisor, &start)?;
        let superuser = superuser.clone();
        let (folder, own) = (folder.path().to_owned(), Some(folder));
        Ok(Self { service, programs, user, superuser, log, wal, folder, _own: own })
    }

    /// Waits until the WAL is replayed up to the target.
    ///
    /// # Errors
    /// `R0507` when the WAL ends before the target; what a repository says about WAL that cannot be had; `R0425` when the
    /// server ends for another reason; `Cancelled`.
    pub fn wait_replayed(&mut self, limit: Duration, interrupt: &Interrupt) -> Result<()> {
        let replayed = interrupt.wait_for(limit, || {
            if let Some(status) = self.service.ended()? {
                return Err(self.ended(status));
            }
            Ok(self.log.look()?.is_replayed.then_some(()))
        })?;
        replayed.ok_or_else(|| self.not_up(&format!("has not recovered after {}", span(limit))))
    }

    /// Waits until the server takes writes.
    ///
    /// # Errors
    /// As [`Instance::wait_replayed`].
    pub fn wait_promoted(&mut self, limit: Duration, interrupt: &Interrupt) -> Result<()> {
        let address = self.address("template1");
        let up = interrupt.wait_for(limit, || {
            if let Some(status) = self.service.ended()? {
                return Err(self.ended(status));
            }
            // Until it is promoted it refuses everybody; what is wrong is in its log.
            Ok(Connection::connect(&address, Mode::Sql, Timeouts::default()).ok().map(drop))
        })?;
        up.ok_or_else(|| self.not_up(&format!("has not recovered after {}", span(limit))))
    }

    /// Why it ended before it was up.
    fn ended(&mut self, status: i32) -> Error {
        if let Some(error) = self.wal.as_ref().and_then(WalServer::take_failure) {
            return error;
        }
        let seen = self.log.look().cloned().unwrap_or_default();
        if seen.is_not_reached {
            let last = seen.last_record.map_or_else(|| "-".to_owned(), |lsn| lsn.to_string());
            let when = seen.last_transaction.map_or_else(
                || "no transaction was replayed".to_owned(),
                |time| format!("the last transaction ended at `{time}`"),
            );
            let message = format!(
                "the WAL ends before the target: the last record that was replayed is at `{last}`, and {when}"
            );
            return Error::new(ErrorKind::NotFound, codes::RECOVERY_TARGET, message).with_hint(
                "recover without a target to get all of it; a transaction or a name that is before the snapshot needs an older one: `--snapshot ID`",
            );
        }
        if seen.is_too_early {
            let message = "the target is before the end of the backup in the snapshot";
            return Error::new(ErrorKind::Invalid, codes::RECOVERY_WINDOW, message)
                .with_hint("name an older snapshot with `--snapshot ID`");
        }
        self.not_up(&format!("ended with status {status}"))
    }

    /// How far it has recovered; of a server that was promoted.
    ///
    /// # Errors
    /// What it answers.
    pub fn replayed(&self) -> Result<Replayed> {
        let mut connection = Connection::connect(&self.address("template1"), Mode::Sql, Timeouts::default())?;
        let rows = connection.query(
            "SELECT pg_last_wal_replay_lsn() AS reached, \
             to_char(pg_last_xact_replay_timestamp() AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') AS time, \
             ('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint AS timeline",
        )?;
        let row = rows.one()?;
        let timeline = TimelineId::new(row.value("timeline")?)
            .ok_or_else(|| Error::internal("a server is on no timeline"))?;
        Ok(Replayed {
            reached: row.lsn("reached")?,
            last_transaction: row.optional("time")?,
            timeline,
            served: self.wal.as_ref().map(WalServer::served).unwrap_or_default(),
        })
    }

    fn not_up(&self, what: &str) -> Error {
        let message = format!("the restored PostgreSQL server {what}");
        let log = tail(self.log.path());
        Error::new(ErrorKind::Unavailable, codes::POSTGRES_NOT_UP, message)
            .with_hint(format!("its log ends with: {log}"))
    }

    /// How one of its databases is reached, as its superuser.
    pub fn address(&self, database: &str) -> Address {
        Address::on_socket(&self.folder, PORT, &self.superuser, database)
    }

    /// Runs one of PostgreSQL's programs against the server: `program OPTIONS -h SOCKET -p PORT -U SUPERUSER`. Gives its
    /// status and the end of what it printed.
    ///
    /// # Errors
    /// `R0425` when it cannot be run or takes longer than `limit`; `Cancelled`.
    pub fn run(
        &self,
        program: &str,
        options: &[&str],
        limit: Duration,
        interrupt: &Interrupt,
    ) -> Result<(i32, String)> {
        let folder = self.folder.as_path();
        let connect = ["-h", &folder.display().to_string(), "-p", &PORT.to_string(), "-U", &self.superuser];
        let arguments = options.iter().copied().chain(connect).map(str::to_owned).collect();
        let dressed = Dressed { programs: &self.programs, user: self.user, folder };
        dressed.run(program, arguments, limit, interrupt)
    }

    /// As [`Instance::run`], where what the program prints goes into `output`, and only its messages are given.
    ///
    /// # Errors
    /// As [`Instance::run`].
    pub fn run_into(
        &self,
        program: &str,
        options: &[String],
        output: std::fs::File,
        limit: Duration,
        interrupt: &Interrupt,
    ) -> Result<(i32, String)> {
        let folder = self.folder.as_path();
        let connect = ["-h", &folder.display().to_string(), "-p", &PORT.to_string(), "-U", &self.superuser];
        let arguments = options.iter().cloned().chain(connect.map(str::to_owned)).collect();
        let dressed = Dressed { programs: &self.programs, user: self.user, folder };
        dressed.run_into(program, arguments, Some(output), limit, interrupt)
    }

    /// As [`Instance::run`], as ourselves: for a program that reads files which the server's user need not see. Gives its status and
    /// what it said.
    ///
    /// # Errors
    /// As [`Instance::run`].
    pub fn run_as_us(
        &self,
        program: &str,
        options: &[String],
        limit: Duration,
        interrupt: &Interrupt,
    ) -> Result<(i32, String)> {
        let folder = self.folder.as_path();
        let connect = ["-h", &folder.display().to_string(), "-p", &PORT.to_string(), "-U", &self.superuser];
        // Options come before operands.
        let arguments = connect.map(str::to_owned).into_iter().chain(options.iter().cloned()).collect();
        let dressed = Dressed { programs: &self.programs, user: None, folder };
        dressed.run(program, arguments, limit, interrupt)
    }

    /// Stops the server with a last checkpoint; its files are whole then.
    ///
    /// # Errors
    /// `R0425` when it does not stop cleanly.
    pub fn stop(mut self) -> Result<()> {
        if let Some(pid) = i32::try_from(self.service.pid()).ok().and_then(Pid::from_raw) {
            // Fast shutdown; one that is gone already is seen below.
            rustix::process::kill_process(pid, Signal::INT).ok();
        }
        // Not to be interrupted: the files would need recovery again.
        match Interrupt::default().wait_for(STOP_LIMIT, || self.service.ended())? {
            Some(0) => Ok(()),
            Some(status) => Err(self.not_up(&format!("ended with status {status}"))),
            None => {
                let error = self.not_up(&format!("does not stop within {}", span(STOP_LIMIT)));
                self.service.kill()?;
                Err(error)
            }
        }
    }
}

/// Programs, run as the server's user in its private folder.
struct Dressed<'a> {
    programs: &'a Programs,
    user: Option<(u32, u32)>,
    folder: &'a Path,
}

impl Dressed<'_> {
    /// The server's user must be able to run our program as `restore_command`.
    fn check_can_run(&self, program: &Path, interrupt: &Interrupt) -> Result<()> {
        let shown = program.display().to_string();
        let ran = self.run(&shown, vec!["--version".to_owned()], PROGRAM_LIMIT, interrupt);
        let why = match ran {
            Ok((0, _)) => return Ok(()),
            Ok((_, said)) => said,
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            Err(error) => error.to_string(),
        };
        let message = format!("the database's user cannot run `{shown}`, which brings the WAL: {why}");
        Err(Error::new(ErrorKind::Invalid, codes::POSTGRES_NOT_UP, message)
            .with_hint("install it where that user can read and run it, such as `/usr/local/bin`"))
    }

    fn words(&self, program: &str, mut arguments: Vec<String>) -> Words {
        let path = self.programs.path(program).display().to_string();
        match self.user {
            None => Words { program: path, arguments },
            Some((user, group)) => {
                let mut all: Vec<String> = vec![
                    format!("--reuid={user}"),
                    format!("--regid={group}"),
                    "--clear-groups".to_owned(),
                    "--".to_owned(),
                    path,
                ];
                all.append(&mut arguments);
                Words { program: "setpriv".to_owned(), arguments: all }
            }
        }
    }

    fn run(
        &self,
        program: &str,
        arguments: Vec<String>,
        limit: Duration,
        interrupt: &Interrupt,
    ) -> Result<(i32, String)> {
        self.run_into(program, arguments, None, limit, interrupt)
    }

    /// What it prints goes into `printed`, where that is given; its messages are given, or all of it.
    fn run_into(
        &self,
        program: &str,
        arguments: Vec<String>,
        printed: Option<std::fs::File>,
        limit: Duration,
        interrupt: &Interrupt,
    ) -> Result<(i32, String)> {
        let (status, mut said) = self.run_said(program, arguments, printed, limit, interrupt)?;
        Ok((status, tail_of(&mut said)))
    }

    /// As [`Dressed::run_into`]; gives what it said as a file. That has no name: the folder is the server's user's, who could
    /// put a link there for us to follow.
    fn run_said(
        &self,
        program: &str,
        arguments: Vec<String>,
        printed: Option<std::fs::File>,
        limit: Duration,
        interrupt: &Interrupt,
    ) -> Result<(i32, std::fs::File)> {
        let no_file = |error| Error::io("a temporary file", error);
        let said = tempfile::tempfile().map_err(no_file)?;
        let [file, copy] = [said.try_clone().map_err(no_file)?, said.try_clone().map_err(no_file)?];
        let words = self.words(program, arguments);
        let outputs = [Stdio::from(printed.unwrap_or(copy)), Stdio::from(file)];
        let failed = |what: String| Error::new(ErrorKind::Unavailable, codes::POSTGRES_NOT_UP, what);
        match run_to_end(&words, self.folder, outputs, limit, interrupt)? {
            Ended::With(status) => Ok((status.code().unwrap_or(128), said)),
            Ended::Killed => Err(failed(format!("`{program}` did not end within {}", span(limit)))),
            Ended::NotStarted(error) => Err(failed(format!("`{program}` cannot be run: {error}"))),
        }
    }

    /// What the control file of a data directory says.
    fn controldata(&mut self, data: &Path, interrupt: &Interrupt) -> Result<settings::Control> {
        let data = data.display().to_string();
        let (status, mut said) = self
            .run_said("pg_controldata", vec!["-D".to_owned(), data], None, PROGRAM_LIMIT, interrupt)
            .context("read the restored control file")?;
        let mut text = String::new();
        said.rewind()
            .and_then(|()| (&said).take(CONTROL_DATA_BYTES).read_to_string(&mut text))
            .map_err(|error| Error::io("what `pg_controldata` printed", error))?;
        let said = tail_of(&mut said);
        settings::Control::parse(&text).filter(|_| status == 0).ok_or_else(|| {
            let message = format!("the restored control file cannot be read: {said}");
            Error::new(ErrorKind::Corrupt, codes::POSTGRES_NOT_UP, message)
        })
    }
}

/// What PostgreSQL hands to a shell, with `%f` and `%p` replaced.
fn restore_command(program: &Path, socket: &Path) -> Result<String> {
    let quoted = |path: &Path| {
        let text = path.to_str().ok_or_else(|| {
            let message = format!("`{}` is not UTF-8, as PostgreSQL's settings must be", path.display());
            Error::new(ErrorKind::Unsupported, codes::POSTGRES_NOT_UP, message)
        })?;
        Ok(format!("'{}'", text.replace('\'', "'\\''").replace('%', "%%")))
    };
    Ok(format!("{} __wal-get --socket {} %f \"%p\"", quoted(program)?, quoted(socket)?))
}

fn give(path: &Path, user: Option<(u32, u32)>) -> Result<()> {
    let Some((user, group)) = user else { return Ok(()) };
    std::os::unix::fs::chown(path, Some(user), Some(group)).map_err(|error| Error::io(path.display(), error))
}

fn write_private(path: &PathBuf, text: &str, user: Option<(u32, u32)>) -> Result<()> {
    let write = || {
        std::fs::write(path, text)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
    };
    write().map_err(|error| Error::io(path.display(), error))?;
    give(path, user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_the_shell_and_the_server() {
        let command = restore_command(Path::new("/opt/it's 5%/retoma"), Path::new("/tmp/a b/wal")).unwrap();
        assert_eq!(command, "'/opt/it'\\''s 5%%/retoma' __wal-get --socket '/tmp/a b/wal' %f \"%p\"");
        let broken: &std::ffi::OsStr = std::os::unix::ffi::OsStrExt::from_bytes(b"/\xff");
        assert_eq!(
            restore_command(Path::new(broken), Path::new("/x")).unwrap_err().code(),
            codes::POSTGRES_NOT_UP
        );
    }
}

//! `pg_dump` and `pg_dumpall`, told by their environment where the server is: no password is ever an argument.

use crate::postgres::programs::Programs;
use crate::postgres::wire::Address;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use rustix::process::{Pid, Signal};
use std::fs::File;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

/// How often it is asked whether a program has ended.
const POLL: Duration = Duration::from_millis(20);
/// So much of what a program says is kept, in characters and lines.
const SAID_CHARS: usize = 2_000;
const SAID_LINES: usize = 20;

/// How the programs are run.
pub(super) struct Tool<'a> {
    pub(super) programs: &'a Programs,
    pub(super) address: &'a Address,
    /// For what they say.
    pub(super) scratch: &'a Path,
    pub(super) is_stopped: &'a dyn Fn() -> bool,
}

impl Tool<'_> {
    /// Dumps a database as the transaction that exported `snapshot` sees it, into a new folder. Gives the warnings.
    pub(super) fn dump(
        &self,
        database: &str,
        snapshot: &str,
        place: &Path,
        jobs: usize,
    ) -> Result<Vec<String>> {
        let arguments = [
            "--format=directory".to_owned(),
            // The repository compresses, and finds what it has only in what is not compressed.
            "--compress=0".to_owned(),
            format!("--jobs={jobs}"),
            format!("--snapshot={snapshot}"),
            "--no-password".to_owned(),
            format!("--file={}", place.display()),
        ];
        self.run("pg_dump", &arguments, &self.address.clone().with_database(database))
    }

    /// Writes roles, their memberships and settings.
    pub(super) fn globals(&self, place: &Path, with_passwords: bool) -> Result<Vec<String>> {
        let mut arguments = vec![
            "--globals-only".to_owned(),
            "--no-tablespaces".to_owned(),
            "--encoding=UTF8".to_owned(),
            "--no-password".to_owned(),
            format!("--database={}", self.address.database()),
            format!("--file={}", place.display()),
        ];
        if !with_passwords {
            arguments.push("--no-role-passwords".to_owned());
        }
        self.run("pg_dumpall", &arguments, self.address)
    }

    fn run(&self, program: &str, arguments: &[String], address: &Address) -> Result<Vec<String>> {
        let said = self.scratch.join("said");
        let output = File::create(&said).map_err(|error| Error::io(said.display(), error))?;
        // It dies with us; otherwise it would go on writing where the next backup cleans up.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--"]).arg(self.programs.path(program));
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(output);
        // What is set for other servers is not for this one; the password file is where libpq finds it.
        for (name, _) in std::env::vars_os() {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with("PG") && name != "PGPASSFILE" {
                command.env_remove(name);
            }
        }
        command.env("LC_ALL", "C").env("LC_MESSAGES", "C");
        for (name, value) in address.libpq_environment() {
            command.env(name, value.expose());
        }
        let failed = |what: String| Error::new(ErrorKind::Unavailable, codes::POSTGRES_DUMP, what);
        let mut child = command
            .process_group(0)
            .spawn()
            .map_err(|error| failed(format!("`{program}` cannot be run: {error}")))?;
        let status = loop {
            if let Some(status) = child.try_wait().map_err(|error| Error::io(program, error))? {
                break status;
            }
            if (self.is_stopped)() {
                // With its workers; it has not been waited for, so its number is still its own.
                if let Some(group) = i32::try_from(child.id()).ok().and_then(Pid::from_raw) {
                    rustix::process::kill_process_group(group, Signal::KILL).ok();
                }
                child.wait().map_err(|error| Error::io(program, error))?;
                return Err(Error::new(ErrorKind::Cancelled, codes::CANCELLED, "the backup was stopped"));
            }
            std::thread::sleep(POLL);
        };
        let text = std::fs::read(&said).map_err(|error| Error::io(said.display(), error))?;
        let lines = lines(&String::from_utf8_lossy(&text));
        if status.success() && !lines.iter().any(|line| line.contains("error:")) {
            return Ok(lines.into_iter().map(|line| format!("{program}: {line}")).collect());
        }
        let why = if lines.is_empty() { format!("it ended with {status}") } else { lines.join("; ") };
        Err(failed(format!("`{program}` failed: {why}"))
            .with_hint("the user needs `CONNECT` and `SELECT` on everything: see `postgres.md`, *By dumps*"))
    }
}

/// What a program said: short, without control characters.
fn lines(text: &str) -> Vec<String> {
    let kept: String = text.chars().take(SAID_CHARS).collect();
    let lines = kept.lines().map(str::trim).filter(|line| !line.is_empty());
    lines.take(SAID_LINES).map(|line| line.escape_debug().to_string().replace("\\\"", "\"")).collect()
}

//! A child process of the agent: this program again, with a verb. What it prints as JSON is read, with a bound.
//!
//! Keys of open repositories go to it on its standard input, so that it does not derive them again (see [`keyring`]); a drill
//! gets none.
//!
//! The kernel kills a child when the *thread* that started it ends, so only the agent's own loop starts children.

use crate::keyring;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use rustix::process::{Pid, Signal};
use serde_json::Value;
use std::io::Read as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Longer documents are not read to their end, and count as none.
const DOCUMENT_LIMIT_BYTES: u64 = 16 << 20;

/// How children are started.
#[derive(Debug, Clone)]
pub(super) struct Launch {
    /// This program.
    pub(super) program: PathBuf,
    /// The manifest, absolute.
    pub(super) manifest: PathBuf,
}

/// A child that runs.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    reader: Option<JoinHandle<Vec<u8>>>,
    deadline: Instant,
    is_overdue: bool,
}

/// How a child ended.
#[derive(Debug)]
pub(super) struct Ended {
    /// Its exit code; none when a signal ended it.
    pub(super) code: Option<i32>,
    /// What it printed, when that was one document.
    pub(super) document: Option<Value>,
    /// Whether it had to be killed since it took too long.
    pub(super) is_overdue: bool,
}

impl Launch {
    /// Starts a verb, under the lock of its task.
    ///
    /// # Errors
    /// `R0953` when the program cannot be started.
    pub(super) fn start(&self, arguments: &[String], lock: &Path, limit: Duration) -> Result<Running> {
        let mut command = Command::new(&self.program);
        command.arg("--manifest").arg(&self.manifest).args(["--json", "--quiet"]);
        command.arg("--agent-task").arg(lock).arg("--agent-process").arg(std::process::id().to_string());
        // A group of its own: Ctrl-C on a terminal is for the agent, which tells its children.
        let failed = |error: std::io::Error| {
            let message = format!("`{}` cannot be started: {error}", self.program.display());
            Error::new(ErrorKind::Unavailable, codes::AGENT_CHILD, message).with_source(error)
        };
        // A drill proves among others that the password still opens: after the disaster there is no agent with a key.
        let is_drill = arguments.first().is_some_and(|verb| verb == "drill");
        let keys = if is_drill { keyring::empty_pipe() } else { keyring::pipe() }.map_err(failed)?;
        command.args(arguments).process_group(0).stdin(keys).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(failed)?;
        let out = child.stdout.take();
        let read = move || {
            let mut bytes = Vec::new();
            if let Some(out) = out {
                out.take(DOCUMENT_LIMIT_BYTES).read_to_end(&mut bytes).ok();
            }
            bytes
        };
        match std::thread::Builder::new().name("child".to_owned()).spawn(read) {
            Ok(reader) => Ok(Running {
                child,
                reader: Some(reader),
                deadline: Instant::now() + limit,
                is_overdue: false,
            }),
            Err(error) => {
                child.kill().and_then(|()| child.wait()).map_err(failed)?;
                Err(failed(error))
            }
        }
    }
}

impl Running {
    /// Its end, when it has come. One that takes too long is killed.
    pub(super) fn poll(&mut self) -> Option<Ended> {
        if Instant::now() >= self.deadline && !self.is_overdue {
            self.is_overdue = true;
            self.signal(Signal::KILL);
        }
        // A child that cannot be waited for is nobody's any more.
        let code = match self.child.try_wait() {
            Ok(None) => return None,
            Ok(Some(status)) => status.code(),
            Err(_) => None,
        };
        // A grandchild that holds the pipe open must not hold us up.
        let reader = self.reader.take_if(|reader| reader.is_finished() || code.is_some());
        let bytes = reader.filter(|it| wait(it, Duration::from_secs(5))).and_then(|it| it.join().ok());
        let document = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Some(Ended { code, document, is_overdue: self.is_overdue })
    }

    /// Asks it to stop, or kills it; its whole group, since a drill runs a service.
    pub(super) fn signal(&self, signal: Signal) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            rustix::process::kill_process_group(group, signal).ok();
        }
    }
}

/// Whether a thread ends within `limit`.
fn wait(thread: &JoinHandle<Vec<u8>>, limit: Duration) -> bool {
    let deadline = Instant::now() + limit;
    while !thread.is_finished() {
        if Instant::now() >= deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::KILL);
            self.child.wait().ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A shell script as the program: it gets our arguments and may ignore them.
    fn run(script: &str, limit: Duration) -> Ended {
        run_as("backup", script, limit)
    }

    fn run_as(verb: &str, script: &str, limit: Duration) -> Ended {
        use std::os::unix::fs::PermissionsExt as _;
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        std::fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let launch = Launch { program, manifest: "/m.toml".into() };
        let mut running = launch.start(&[verb.to_owned()], Path::new("/lock"), limit).unwrap();
        retoma_testkit::wait_for_what("the child to end", || running.poll())
    }

    #[test]
    fn the_document_and_the_code_arrive() {
        let ended = run("printf '{\"arguments\": \"%s\"}' \"$*\"; exit 3", Duration::from_mins(1));
        let me = std::process::id();
        let expected =
            format!("--manifest /m.toml --json --quiet --agent-task /lock --agent-process {me} backup");
        assert_eq!((ended.code, ended.is_overdue), (Some(3), false));
        assert_eq!(ended.document.unwrap()["arguments"], expected);
        assert!(run("echo no document", Duration::from_mins(1)).document.is_none());
    }

    /// Also where there is no key, what is handed over has a beginning.
    #[test]
    fn a_drill_is_handed_nothing_and_others_what_is_kept() {
        for (verb, is_handed) in [("drill", false), ("backup", true), ("verify", true)] {
            let ended = run_as(verb, "printf '{\"bytes\": %d}' $(($(wc -c)))", Duration::from_mins(1));
            let bytes = ended.document.unwrap()["bytes"].as_u64().unwrap();
            assert_eq!(bytes > 0, is_handed, "{verb}: {bytes}");
        }
    }

    #[test]
    fn one_that_takes_too_long_is_killed_with_what_it_started() {
        let ended = run("sleep 600 & wait", Duration::ZERO);
        assert_eq!((ended.code, ended.is_overdue), (None, true));
    }

    #[test]
    fn a_program_that_is_not_there_is_an_error() {
        let launch = Launch { program: "/nowhere".into(), manifest: "/m".into() };
        let error = launch.start(&[], Path::new("/lock"), Duration::ZERO).unwrap_err();
        assert_eq!(error.code(), codes::AGENT_CHILD);
    }
}

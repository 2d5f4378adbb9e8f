//! A service that we start, and that never outlives what it is needed for.
//!
//! ```text
//! we ── pipe ──▶ supervisor (a hidden verb of our own binary) ──▶ the service, in a process group of its own
//! ```
//! The supervisor kills the service and everything that it started as soon as its pipe closes. So the service ends when
//! a [`Service`] is dropped, and also when we are killed without warning: the system closes the pipe. What it does not
//! survive: when supervisor and we are both killed by force at once, the service is left behind.

mod command;
mod process;
mod supervise;

pub(crate) use command::{Ended, run_to_end};
pub use process::{Identity, kill_group, kill_if, processes_in, processes_with};
pub use supervise::supervise;

use crate::interrupt::Interrupt;
use crate::probe::{self, Observation};
use retoma_core::manifest::{Command as Words, HttpCheck};
use retoma_core::units::span;
use retoma_core::{Error, ErrorKind, Result, ResultExt, error::codes};
use std::ffi::OsString;
use std::io::{BufRead as _, BufReader, Read as _, Seek as _, SeekFrom, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::time::Duration;

/// How long the supervisor may take to start the service and say so.
const START_LIMIT: Duration = Duration::from_mins(1);
/// How long everything may take to be gone after it was killed.
pub(crate) const KILL_LIMIT: Duration = Duration::from_secs(10);
/// How long one look at the service may take.
pub const PROBE_LIMIT: Duration = Duration::from_secs(2);
/// The last bytes of the log that an error quotes.
const LOG_TAIL_BYTES: u64 = 600;

/// How our own binary is called to supervise: `program arguments… COMMAND…` runs [`supervise`] on the command.
#[derive(Debug, Clone)]
pub struct Supervisor {
    /// The binary, as an absolute path.
    pub program: PathBuf,
    /// The hidden verb, and what must stand before the command.
    pub arguments: Vec<OsString>,
}

/// How a service is started.
#[derive(Debug)]
pub struct Start<'a> {
    /// The command.
    pub command: &'a Words,
    /// Where it runs.
    pub dir: &'a Path,
    /// The file that its output is appended to.
    pub log: &'a Path,
    /// Variables that are set for it, beside those that we have ourselves.
    pub variables: &'a [(String, OsString)],
}

/// A service that runs. Dropping it kills the service with everything that it started.
#[derive(Debug)]
pub struct Service {
    supervisor: Child,
    control: Option<ChildStdin>,
    pid: u32,
    /// The service's first process, while it is ours to end.
    leader: Option<Identity>,
    log: PathBuf,
}

impl Service {
    /// Starts `start.command`; on return the process exists, and need not answer yet.
    ///
    /// # Errors
    /// `R0901` when it cannot be started.
    pub fn start(supervisor: &Supervisor, start: &Start<'_>) -> Result<Self> {
        let shown = start.command.program.clone();
        let open = std::fs::OpenOptions::new().create(true).append(true).open(start.log);
        let log =
            open.map_err(|error| Error::io(start.log.display(), error)).context("open the service's log")?;
        let mut command = Command::new(&supervisor.program);
        command.args(&supervisor.arguments).arg(&start.command.program).args(&start.command.arguments);
        command.envs(start.variables.iter().map(|(name, value)| (name, value)));
        command.current_dir(start.dir).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::from(log));
        let failed = |error| {
            not_started(&shown, "cannot be started", start.log).with_source(Error::io(shown.as_str(), error))
        };
        let mut child = command.spawn().map_err(failed)?;
        let control = child.stdin.take();
        let report = child.stdout.take();
        let mut service =
            Self { supervisor: child, control, pid: 0, leader: None, log: start.log.to_owned() };
        service.pid = match report.map(read_pid).transpose()?.flatten() {
            Some(pid) => pid,
            None => return Err(not_started(&shown, service.why_silent(), start.log)),
        };
        service.leader = Identity::of(service.pid);
        Ok(service)
    }

    /// Why the supervisor has not said that the service runs.
    fn why_silent(&mut self) -> &'static str {
        // It ends right after it found that the command cannot be run; give it the moment.
        let ended = Interrupt::default().wait_for(Duration::from_secs(1), || self.ended());
        match ended {
            Ok(Some(_)) => "cannot be started",
            _ => "was not started in time",
        }
    }

    /// The service's first process, which leads its group.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The supervisor's process.
    pub fn supervisor_pid(&self) -> u32 {
        self.supervisor.id()
    }

    /// The status with which the service's first process ended; `None` while it runs. 128 and more is a signal.
    pub fn ended(&mut self) -> Result<Option<i32>> {
        let ended = self.supervisor.try_wait().map_err(|error| Error::io("the supervisor", error))?;
        Ok(ended.map(|status| status.code().unwrap_or(128 + 9)))
    }

    /// Waits until `checks` are all fulfilled, looking from outside. The last look at each is returned.
    ///
    /// # Errors
    /// `R0902` when that takes longer than `limit`, or the service ends with an error; `Cancelled`.
    pub fn wait_ready(
        &mut self,
        checks: &[HttpCheck],
        limit: Duration,
        interrupt: &Interrupt,
    ) -> Result<Vec<Observation>> {
        let mut last = String::from("it was not asked yet");
        let ready = interrupt.wait_for(limit, || {
            // One that starts something else and ends with 0 is fine.
            if let Some(status) = self.ended()?.filter(|status| *status != 0) {
                return Err(self.not_ready(&format!("ended with status {status}")));
            }
            let mut seen = Vec::new();
            for check in checks {
                let observation = probe::get(&check.url, PROBE_LIMIT.min(limit));
                if let Some(why) = probe::unfulfilled(check, &observation) {
                    last = format!("`{}`: {why}", check.url);
                    return Ok(None);
                }
                seen.push(observation);
            }
            Ok(Some(seen))
        })?;
        ready.ok_or_else(|| self.not_ready(&format!("is not ready after {}: {last}", span(limit))))
    }

    fn not_ready(&self, what: &str) -> Error {
        let message = format!("the service {what}");
        Error::new(ErrorKind::Unavailable, codes::SERVICE_NOT_READY, message)
            .with_hint(format!("its output ends with: {}", tail(&self.log)))
    }

    /// Stops the service: SIGTERM, after `grace` SIGKILL. Gives its status.
    ///
    /// # Errors
    /// `R0903` when it is still there after all that.
    pub fn stop(mut self, grace: Duration) -> Result<i32> {
        self.tell("term");
        let ended = Interrupt::default().wait_for(grace, || self.ended())?;
        match ended {
            Some(status) => Ok(status),
            None => self.kill_now(),
        }
    }

    /// Kills the service as a lost machine would: no warning, no cleaning up.
    ///
    /// # Errors
    /// `R0903` when it is still there after that.
    pub fn kill(mut self) -> Result<()> {
        self.kill_now().map(drop)
    }

    /// Lets the service go on without us; it is then not ours to stop.
    ///
    /// # Errors
    /// `R0903` when the supervisor does not let go.
    pub fn release(mut self) -> Result<u32> {
        self.tell("release");
        match Interrupt::default().wait_for(KILL_LIMIT, || self.ended())? {
            Some(_) => {
                self.leader = None;
                Ok(self.pid)
            }
            None => Err(still_there(self.pid)),
        }
    }

    fn kill_now(&mut self) -> Result<i32> {
        self.tell("kill");
        drop(self.control.take());
        let ended = Interrupt::default().wait_for(KILL_LIMIT, || self.ended())?;
        ended.ok_or_else(|| still_there(self.pid))
    }

    /// What cannot be said any more is known by the closed pipe.
    fn tell(&mut self, word: &str) {
        if let Some(control) = &mut self.control {
            writeln!(control, "{word}").and_then(|()| control.flush()).ok();
        }
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.control.take());
        let ended = Interrupt::default().wait_for(KILL_LIMIT, || self.ended());
        if !matches!(ended, Ok(Some(_))) {
            kill_group(self.pid);
            self.supervisor.kill().ok();
            self.supervisor.wait().ok();
        }
        // A supervisor that was itself killed could not do it.
        if self.leader.is_some_and(|leader| leader.runs()) {
            kill_group(self.pid);
        }
    }
}

/// The supervisor's first report. It may be silent for ever, so a thread reads.
fn read_pid(report: std::process::ChildStdout) -> Result<Option<u32>> {
    let (sender, receiver) = sync_channel(1);
    let read = move || {
        let mut lines = BufReader::new(report).lines().map_while(std::result::Result::ok);
        let pid = lines.find_map(|line| {
            line.split_once(supervise::REPORT).and_then(|(_, pid)| pid.trim().parse::<u32>().ok())
        });
        // Nobody listens any more after the time limit.
        sender.send(pid).ok();
        // Whatever else is said is read too: a closed pipe would end the supervisor.
        lines.for_each(drop);
    };
    std::thread::Builder::new()
        .name("supervisor".to_owned())
        .spawn(read)
        .map_err(|error| Error::io("a thread", error))?;
    match receiver.recv_timeout(START_LIMIT) {
        Ok(pid) => Ok(pid),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => Ok(None),
    }
}

fn not_started(program: &str, what: &str, log: &Path) -> Error {
    let message = format!("the service's command `{program}` {what}");
    Error::new(ErrorKind::Invalid, codes::SERVICE_NOT_STARTED, message)
        .with_hint(format!("check `start` in the manifest; its output ends with: {}", tail(log)))
}

pub(crate) fn still_there(pid: u32) -> Error {
    let message = format!("process {pid} is still there after it was killed");
    Error::new(ErrorKind::Unavailable, codes::SERVICE_NOT_STOPPED, message)
        .with_hint("it waits for the disk or network in the kernel; look at it, then run the command again")
}

/// The end of a log in one line.
pub(crate) fn tail(log: &Path) -> String {
    std::fs::File::open(log).map_or_else(|_| "nothing".to_owned(), |mut file| tail_of(&mut file))
}

/// The end of a file in one line.
pub(crate) fn tail_of(file: &mut std::fs::File) -> String {
    let mut read = || -> std::io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(LOG_TAIL_BYTES)))?;
        file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let text = String::from_utf8_lossy(&read().unwrap_or_default()).into_owned();
    let line: Vec<&str> = text.split_whitespace().collect();
    if line.is_empty() { "nothing".to_owned() } else { format!("`{}`", line.join(" ")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_log_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        assert_eq!(tail(&log), "nothing");
        let mut file = std::fs::File::create(&log).unwrap();
        // More than any memory holds; on disk it is a hole.
        file.set_len(1 << 40).unwrap();
        std::io::Seek::seek(&mut file, std::io::SeekFrom::End(0)).unwrap();
        writeln!(file, "\nthe last\n  words").unwrap();
        assert!(tail(&log).ends_with("the last words`"));
    }
}

//! The supervisor: a tiny process between us and a service, which ends the service when we end.

use super::process;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use rustix::process::{Pid, Signal, WaitOptions};
use std::ffi::OsString;
use std::io::{BufRead as _, Write as _};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// What the report of the service's process begins with.
pub(super) const REPORT: &str = "retoma-supervise: ";
/// How often the supervisor looks whether the service has ended.
const POLL: Duration = Duration::from_millis(5);
/// Words that wait to be heard; more are never sent.
const WORDS_WAITING: usize = 4;

enum Word {
    Term,
    Kill,
    Release,
}

/// Runs `command` and gives its exit status, 128 and more for a signal. stdin is the pipe to who needs the service: a
/// line `term` or `kill` sends that signal, `release` lets the service go on alone, and the end of the pipe kills it.
/// The process's number is reported on stdout; the service writes both of its outputs to our stderr.
///
/// A command that ends with 0 and leaves something running (as daemons do) counts as running until that has ended.
///
/// This is the whole work of a hidden verb: nothing else may run in the process, whose children are all taken as the
/// service's.
///
/// # Errors
/// `R0901` when the command cannot be started.
pub fn supervise(command: &[OsString]) -> Result<i32> {
    let Some((program, arguments)) = command.split_first() else {
        return Err(Error::new(ErrorKind::Invalid, codes::USAGE, "no command is given to supervise"));
    };
    // What the service leaves behind becomes our child instead of the system's, so that it is found.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid())).ok();
    let mut service = Command::new(program);
    service.args(arguments).process_group(0).stdin(Stdio::null());
    service.stdout(Stdio::from(std::io::stderr())).stderr(Stdio::from(std::io::stderr()));
    let child = service.spawn().map_err(|error| {
        let message = format!("`{}`: {error}", program.to_string_lossy());
        Error::new(ErrorKind::Invalid, codes::SERVICE_NOT_STARTED, message).with_source(error)
    })?;
    let group = child.id();
    let mut out = std::io::stdout();
    // Who asked may be gone already; then the pipe is closed too.
    writeln!(out, "{REPORT}{group}").and_then(|()| out.flush()).ok();
    let (sender, words) = sync_channel(WORDS_WAITING);
    let listener = std::thread::Builder::new().name("listen".to_owned()).spawn(move || listen(&sender));
    if let Err(error) = listener {
        process::kill_all(group);
        return Err(Error::io("a thread", error));
    }
    Ok(watch(group, &words))
}

/// Turns the lines of the pipe into words; its end is `Kill`.
fn listen(words: &SyncSender<Word>) {
    for line in std::io::stdin().lock().lines() {
        let word = match line.as_deref() {
            Ok("term") => Word::Term,
            Ok("release") => Word::Release,
            Ok("kill") | Err(_) => Word::Kill,
            Ok(_) => continue,
        };
        if words.send(word).is_err() {
            return;
        }
    }
    // The service may have ended already.
    words.send(Word::Kill).ok();
}

fn watch(group: u32, words: &Receiver<Word>) -> i32 {
    let mut status = None;
    let mut killing = false;
    loop {
        let any_left = reap(group, &mut status);
        if !any_left {
            return status.unwrap_or(0);
        }
        if status.is_some_and(|status| status != 0) {
            killing = true;
        }
        if killing {
            process::kill_all(group);
        }
        match words.recv_timeout(POLL) {
            Ok(Word::Term) => process::signal_group(group, Signal::TERM),
            Ok(Word::Kill) => killing = true,
            Ok(Word::Release) => return 0,
            Err(RecvTimeoutError::Timeout) => {}
            // The listener has said its last word; do not spin.
            Err(RecvTimeoutError::Disconnected) => std::thread::sleep(POLL),
        }
    }
}

/// Takes in whatever has ended; whether any child is left.
fn reap(group: u32, status: &mut Option<i32>) -> bool {
    let first = i32::try_from(group).ok().and_then(Pid::from_raw);
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(None) => return true,
            Ok(Some((pid, ended))) => {
                if Some(pid) == first {
                    *status = ended.exit_status().or(ended.terminating_signal().map(|signal| 128 + signal));
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(_) => return false,
        }
    }
}

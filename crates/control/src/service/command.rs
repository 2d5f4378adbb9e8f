//! A command of the manifest that does something and ends: a check, or `stop`.

use super::kill_group;
use crate::interrupt::Interrupt;
use retoma_core::manifest::Command as Words;
use retoma_core::{Error, Result};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

/// How a command came to its end.
#[derive(Debug)]
pub(crate) enum Ended {
    /// By itself.
    With(ExitStatus),
    /// It took too long and was killed, with what it started.
    Killed,
    /// It never began.
    NotStarted(std::io::Error),
}

/// Runs `words` in `dir`, in a process group of its own, for at most `limit`; both kinds of output go to `output`.
///
/// # Errors
/// `Cancelled` when a stop was asked for; then it was killed as well.
pub(crate) fn run_to_end(
    words: &Words,
    dir: &Path,
    output: [Stdio; 2],
    limit: Duration,
    interrupt: &Interrupt,
) -> Result<Ended> {
    let [out, errors] = output;
    let mut command = Command::new(&words.program);
    command.args(&words.arguments).current_dir(dir).process_group(0);
    let mut child = match command.stdin(Stdio::null()).stdout(out).stderr(errors).spawn() {
        Ok(child) => child,
        Err(error) => return Ok(Ended::NotStarted(error)),
    };
    let ended =
        interrupt.wait_for(limit, || child.try_wait().map_err(|error| Error::io(&words.program, error)));
    if let Ok(Some(status)) = ended {
        return Ok(Ended::With(status));
    }
    // It has not been waited for, so its number is still its own.
    kill_group(child.id());
    child.wait().map_err(|error| Error::io(&words.program, error))?;
    ended.map(|_| Ended::Killed)
}

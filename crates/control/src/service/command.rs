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

#[cfg(test)]
mod tests {
    use super::*;
    use retoma_core::ErrorKind;

    fn run(script: &str, dir: &Path, limit: Duration, interrupt: &Interrupt) -> Result<Ended> {
        let words = Words { program: "sh".to_owned(), arguments: vec!["-c".to_owned(), script.to_owned()] };
        run_to_end(&words, dir, [Stdio::null(), Stdio::null()], limit, interrupt)
    }

    #[test]
    fn a_command_ends_by_itself_is_killed_or_never_begins() {
        let folder = tempfile::tempdir().unwrap();
        let (none, patient) = (Interrupt::default(), Duration::from_mins(1));
        let ended = run("pwd > here; exit 3", folder.path(), patient, &none).unwrap();
        assert!(matches!(ended, Ended::With(status) if status.code() == Some(3)), "{ended:?}");
        let here = std::fs::read_to_string(folder.path().join("here")).unwrap();
        assert_eq!(Path::new(here.trim()), folder.path().canonicalize().unwrap());
        // Nobody writes into the pipe: by itself it would never end.
        let ended = run("mkfifo p; cat p", folder.path(), Duration::ZERO, &none).unwrap();
        assert!(matches!(ended, Ended::Killed), "{ended:?}");
        let words = Words { program: "/nowhere/at/all".to_owned(), arguments: Vec::new() };
        let silent = [Stdio::null(), Stdio::null()];
        let ended = run_to_end(&words, folder.path(), silent, patient, &none).unwrap();
        assert!(matches!(ended, Ended::NotStarted(_)), "{ended:?}");
    }

    #[test]
    fn after_a_stop_nothing_is_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let interrupt = Interrupt::default();
        interrupt.set();
        let stopped = run("mkfifo p; cat p", folder.path(), Duration::from_mins(1), &interrupt);
        assert_eq!(stopped.unwrap_err().kind(), ErrorKind::Cancelled);
    }

    #[test]
    fn both_outputs_go_where_they_are_sent_and_nothing_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let log = || Stdio::from(std::fs::File::create_new(folder.path().join("out")).unwrap());
        let errors = || Stdio::from(std::fs::File::create_new(folder.path().join("errors")).unwrap());
        let script = "cat; echo one; echo two >&2";
        let words = Words { program: "sh".to_owned(), arguments: vec!["-c".to_owned(), script.to_owned()] };
        let limit = Duration::from_mins(1);
        run_to_end(&words, folder.path(), [log(), errors()], limit, &Interrupt::default()).unwrap();
        let text = |name: &str| std::fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!((text("out").as_str(), text("errors").as_str()), ("one\n", "two\n"));
    }
}

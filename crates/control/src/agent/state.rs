//! The agent's folder, and the one lock that makes it the only agent there.

use retoma_core::{Error, ErrorKind, Result, error::codes};
use rustix::fs::FlockOperation;
use std::fs::{DirBuilder, File, OpenOptions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long a run of a task is waited for that an agent left behind which was killed.
const TASK_PATIENCE: Duration = Duration::from_secs(30);

/// The folder, as long as we are the only agent in it.
#[derive(Debug)]
pub struct State {
    folder: PathBuf,
    _lock: File,
}

impl State {
    /// Takes the folder, which is made when it is not there.
    ///
    /// # Errors
    /// `Conflict` with `R0950` when another agent has it; `R0951` when it cannot be used.
    pub fn take(folder: &Path) -> Result<Self> {
        let unusable = |error: std::io::Error| {
            let message = format!("the agent's folder `{}` cannot be used: {error}", folder.display());
            Error::new(ErrorKind::Invalid, codes::AGENT_STATE, message)
                .with_hint("give this user the right to it, or name another with `--state DIR`")
                .with_source(error)
        };
        DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unusable)?;
        let lock = lock_file(&folder.join("lock")).map_err(unusable)?;
        if !try_lock(&lock).map_err(unusable)? {
            let message = format!("another agent runs with the folder `{}`", folder.display());
            return Err(Error::new(ErrorKind::Conflict, codes::AGENT_RUNS, message).with_hint(
                "stop it first; for another manifest in the same folder name another one with `--state DIR`",
            ));
        }
        Ok(Self { folder: folder.to_owned(), _lock: lock })
    }

    /// The folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The file whose lock says that a run of this task lives.
    pub fn task_lock(&self, task: &str) -> PathBuf {
        self.folder.join(format!("task-{}.lock", task.replace('/', "-")))
    }
}

/// A run of a task, as its process sees itself. The lock ends with the process.
#[derive(Debug)]
pub struct TaskLock(#[allow(dead_code)] File);

/// What a child of the agent does first: it makes the kernel kill it when the agent dies, and waits until no other run of its
/// task is left. To be called from a process whose parent must be `agent`.
///
/// # Errors
/// `Cancelled` when the agent is gone already; `R0952` when another run does not end; `R0951` about the lock's file.
pub fn begin_task(lock: &Path, agent: u32) -> Result<TaskLock> {
    let unusable = |error: std::io::Error| {
        Error::new(ErrorKind::Invalid, codes::AGENT_STATE, format!("`{}`: {error}", lock.display()))
            .with_source(error)
    };
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))
        .map_err(|errno| unusable(errno.into()))?;
    // The agent may have died before that.
    if rustix::process::getppid().is_none_or(|parent| parent.as_raw_nonzero().get().cast_unsigned() != agent)
    {
        return Err(Error::new(ErrorKind::Cancelled, codes::CANCELLED, "the agent is gone"));
    }
    let file = lock_file(lock).map_err(unusable)?;
    let deadline = Instant::now() + TASK_PATIENCE;
    while !try_lock(&file).map_err(unusable)? {
        if Instant::now() >= deadline {
            let message = format!("another run of this task holds `{}`", lock.display());
            return Err(Error::new(ErrorKind::Conflict, codes::AGENT_TASK_BUSY, message)
                .with_hint("find its process with `fuser` on that file, and look at what it waits for"));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(TaskLock(file))
}

fn lock_file(path: &Path) -> std::io::Result<File> {
    OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path)
}

/// Whether the lock is ours now.
fn try_lock(file: &File) -> std::io::Result<bool> {
    match rustix::fs::flock(file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(true),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_has_one_agent() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        let first = State::take(&path).unwrap();
        let error = State::take(&path).unwrap_err();
        assert_eq!((error.code(), error.kind()), (codes::AGENT_RUNS, ErrorKind::Conflict));
        assert_eq!(first.task_lock("backup/db"), path.join("task-backup-db.lock"));
        drop(first);
        assert!(State::take(&path).is_ok());
        std::fs::write(folder.path().join("file"), "").unwrap();
        assert_eq!(State::take(&folder.path().join("file")).unwrap_err().code(), codes::AGENT_STATE);
    }
}

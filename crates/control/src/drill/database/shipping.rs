//! How a scratch server's WAL gets into the drill's repository, in the way that the manifest names.
//!
//! Streamed, as `retoma wal stream` does. Or archived: the server's `archive_command` puts a finished segment into a folder and
//! waits until it is gone from there, which it is when the repository has it. So success means durable, as with `wal push`.
//! Both end with the disaster: what is not in the repository then is lost.

use crate::interrupt::Interrupt;
use crate::postgres::Archiving;
use crate::wal::stream::{StreamEvent, StreamJob, stream};
use retoma_core::manifest::{Manifest, WalMode};
use retoma_core::postgres::{Lsn, WalFileName};
use retoma_core::{Error, ErrorKind, Result, ResultExt, error::codes};
use retoma_repo::Repository;
use retoma_repo::wal::Archive;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the folder is looked at.
const PAUSE: Duration = Duration::from_millis(20);
/// How long WAL may take to get into the repository.
const SHIP_LIMIT: Duration = Duration::from_mins(5);

/// What was shipped.
#[derive(Debug, Default)]
struct Shipped {
    /// Everything before it, where WAL is streamed.
    until: Option<Lsn>,
    /// The newest segment, where it is archived.
    last: String,
    /// The longest time that bytes waited.
    longest: Duration,
    error: Option<Error>,
}

/// Ships in a thread of its own until it is stopped.
#[derive(Debug)]
pub(super) struct Shipping {
    mode: WalMode,
    stop: Interrupt,
    shipped: Arc<Mutex<Shipped>>,
    thread: Option<JoinHandle<()>>,
}

fn lock(shipped: &Mutex<Shipped>) -> MutexGuard<'_, Shipped> {
    shipped.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the server does with finished segments: `folder` is where they go, and belongs to the server's user.
pub(super) fn archiving(folder: &Path, timeout_seconds: u64) -> Archiving {
    let place = folder.display().to_string().replace('\'', "'\\''").replace('%', "%%");
    let command = format!(
        "cp \"%p\" '{place}/%f.tmp' && mv '{place}/%f.tmp' '{place}/%f' && \
         while [ -e '{place}/%f' ]; do [ -d /proc/{} ] || exit 1; sleep 0.02; done",
        // Without us nobody takes it away any more.
        std::process::id()
    );
    Archiving { command, timeout_seconds }
}

impl Shipping {
    /// Begins to ship the WAL of the only component of `manifest`, a scratch copy's.
    ///
    /// # Errors
    /// What the stream's settings or the repository say.
    pub(super) fn start(
        manifest: &Manifest,
        system_identifier: u64,
        repository: &Repository,
        spool: &Path,
    ) -> Result<Self> {
        let component = manifest.components.first().ok_or_else(|| Error::internal("no component"))?;
        let mode = component.wal.mode;
        let (stop, shipped) = (Interrupt::default(), Arc::<Mutex<Shipped>>::default());
        let (is_over, told) = (stop.clone(), Arc::clone(&shipped));
        let work: Box<dyn FnOnce() + Send> = if mode == WalMode::Archive {
            let archive = Archive::new(repository, &component.name, system_identifier)?;
            let spool = spool.to_owned();
            Box::new(move || push_all(&archive, &spool, &is_over, &told))
        } else {
            let job = StreamJob::new(manifest, component)?;
            Box::new(move || {
                let mut hear = |event: &StreamEvent<'_>| {
                    if let StreamEvent::Shipped { position, lag, .. } = event {
                        let mut told = lock(&told);
                        told.until = Some(position.lsn);
                        told.longest = told.longest.max(*lag);
                    }
                };
                if let Err(error) = stream(&job, &is_over, &mut hear) {
                    lock(&told).error = Some(error);
                }
            })
        };
        let thread = std::thread::Builder::new().name("shipping".to_owned()).spawn(work);
        let thread = Some(thread.map_err(|error| Error::io("a thread", error))?);
        Ok(Self { mode, stop, shipped, thread })
    }

    /// Waits until everything before `until` is in the repository; `segment` is the finished one that it ends in.
    ///
    /// # Errors
    /// What kept it from getting there; `R0714` when it takes too long; `Cancelled`.
    pub(super) fn wait(&self, until: Lsn, segment: &str, interrupt: &Interrupt) -> Result<()> {
        let there = interrupt.wait_for(SHIP_LIMIT, || {
            let mut shipped = lock(&self.shipped);
            if let Some(error) = shipped.error.take() {
                return Err(error.context("ship the WAL of the scratch server"));
            }
            let is_there = match self.mode {
                WalMode::Archive => shipped.last.as_str() >= segment,
                WalMode::Stream | WalMode::Synchronous => shipped.until.is_some_and(|it| it >= until),
            };
            Ok(is_there.then_some(()))
        })?;
        there.ok_or_else(|| {
            let message =
                format!("the WAL before `{until}` did not get into the repository within {SHIP_LIMIT:?}");
            Error::new(ErrorKind::Unavailable, codes::DRILL_TIMEOUT, message)
        })
    }

    /// Nothing more is taken from the server from now on.
    pub(super) fn cut(&self) {
        self.stop.set();
    }

    /// Ends the thread; gives how long bytes waited at the longest: for a stream until they were in the repository, with an archive
    /// from the end of a segment on.
    pub(super) fn end(mut self) -> Duration {
        self.join();
        lock(&self.shipped).longest
    }

    fn join(&mut self) {
        self.stop.set();
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so.
            thread.join().ok();
        }
    }
}

impl Drop for Shipping {
    fn drop(&mut self) {
        self.join();
    }
}

fn push_all(archive: &Archive, spool: &Path, stop: &Interrupt, told: &Mutex<Shipped>) {
    while !stop.is_set() {
        match waiting(spool).first().map(|path| push(archive, path)) {
            None => std::thread::sleep(PAUSE),
            Some(Ok((name, took))) => {
                let mut told = lock(told);
                told.longest = told.longest.max(took);
                if name.len() == SEGMENT_CHARS {
                    told.last = name.max(std::mem::take(&mut told.last));
                }
            }
            Some(Err(error)) => {
                lock(told).error = Some(error);
                return;
            }
        }
    }
}

/// The length of a segment's name.
const SEGMENT_CHARS: usize = 24;

/// Files that are complete, oldest name first.
fn waiting(spool: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(spool).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut paths: Vec<PathBuf> =
        entries.filter(|path| path.extension().is_none_or(|extension| extension != "tmp")).collect();
    paths.sort();
    paths
}

/// Stores one file and lets the server go on. Gives its name and how long it waited.
fn push(archive: &Archive, path: &Path) -> Result<(String, Duration)> {
    let io = |error| Error::io(path.display(), error);
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
    let parsed: WalFileName =
        name.parse().map_err(|_| Error::internal(format!("`{name}` is no file of WAL")))?;
    let since = path.metadata().and_then(|metadata| metadata.modified()).map_err(io)?;
    let bytes = std::fs::read(path).map_err(io)?;
    archive.push(parsed, &bytes).with_context(|| format!("archive `{name}`"))?;
    std::fs::remove_file(path).map_err(io)?;
    Ok((name, since.elapsed().unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_ends_well_only_when_the_file_was_taken_and_badly_without_us() {
        let folder = tempfile::tempdir().unwrap();
        let spool = folder.path().join("it's");
        std::fs::create_dir(&spool).unwrap();
        std::fs::write(folder.path().join("segment"), "wal").unwrap();
        let command = archiving(&spool, 0).command;
        let run = |command: String| {
            let command = command.replace("%p", "segment").replace("%f", "000");
            std::process::Command::new("sh")
                .args(["-c", &command])
                .current_dir(folder.path())
                .spawn()
                .unwrap()
        };
        let mut child = run(command.clone());
        let taken = retoma_testkit::wait_for(|| waiting(&spool).pop());
        assert_eq!(std::fs::read_to_string(&taken).unwrap(), "wal");
        assert!(child.try_wait().unwrap().is_none(), "it waits until the file is gone");
        std::fs::remove_file(taken).unwrap();
        assert!(child.wait().unwrap().success());
        let own = format!("/proc/{}", std::process::id());
        assert!(command.contains(&own));
        assert!(!run(command.replace(&own, "/proc/0")).wait().unwrap().success());
    }
}

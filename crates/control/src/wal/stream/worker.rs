//! The hands that store: two threads for each repository, one for parts and one for whole segments, so that neither waits for
//! the other. A job is tried again until it succeeds, and refused at once when it would change what is stored.

use crate::wal::Job as Target;
use retoma_core::decide::streaming::Position;
use retoma_core::manifest;
use retoma_core::postgres::{Lsn, SegmentName, SegmentSize, WalFileName};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::wal::{Archive, ArchiveEnd};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// The first wait before a job is tried again, and the longest one; the store's own layer has tried before.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Which of a repository's two threads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hand {
    /// Parts, histories and partial segments: what must be there soon.
    Parts,
    /// Whole segments.
    Wholes,
}

/// What is to be done.
#[derive(Debug)]
pub(super) enum Job {
    /// Open the repository, and look where its archive ends.
    Open { system_identifier: u64, size: SegmentSize },
    /// Store a file.
    File { archive: Archive, name: WalFileName, bytes: Arc<Vec<u8>> },
    /// Store a part, whose first byte is at `start`.
    Part {
        archive: Archive,
        segment: SegmentName,
        size: SegmentSize,
        start: Position,
        from: u32,
        bytes: Vec<u8>,
    },
    /// Store a whole segment.
    Whole { archive: Archive, segment: SegmentName, start: Position, bytes: Arc<Vec<u8>> },
    /// Store a whole segment whose parts are all there.
    Join { archive: Archive, segment: SegmentName, start: Position },
    /// Compare the beginning of a segment with what is stored of it.
    Compare { archive: Archive, segment: SegmentName, bytes: Vec<u8> },
}

/// What became of it.
#[derive(Debug)]
pub(super) enum Outcome {
    /// The repository is open.
    Opened(Box<Archive>, Option<ArchiveEnd>),
    /// A file is durable.
    Filed,
    /// This stretch is durable.
    Stored(Position, Lsn),
    /// The beginning is the same.
    Compared,
    /// It did not work, and will be tried again.
    Failed(Error),
    /// It must not be done.
    Refused(Error),
}

/// What a thread tells the stream.
#[derive(Debug)]
pub(super) enum News {
    /// Of a repository, by its number.
    Lane(usize, Hand, Outcome),
    /// Of the slot.
    Slot(super::slot::SlotState),
    /// The server does not answer to whoever looks at the slot.
    NoServer(Error),
}

/// Ends the waits of all threads.
#[derive(Debug, Clone, Default)]
pub(super) struct Stop(Arc<(Mutex<bool>, Condvar)>);

impl Stop {
    pub(super) fn set(&self) {
        *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.0.1.notify_all();
    }

    /// Waits; `true` when it is time to end.
    pub(super) fn wait(&self, time: Duration) -> bool {
        let guard = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.0.1.wait_timeout_while(guard, time, |is_set| !*is_set);
        *waited.unwrap_or_else(PoisonError::into_inner).0
    }
}

/// Starts a hand of the repository `number`. It ends when nobody gives it jobs, or listens, any more.
pub(super) fn start(
    number: usize,
    hand: Hand,
    target: &Target,
    repository: &manifest::Repository,
    news: &SyncSender<News>,
    stop: &Stop,
) -> Result<SyncSender<Job>> {
    let (give, take) = sync_channel(1);
    let (target, repository) = (target.clone(), repository.clone());
    let (news, stop) = (news.clone(), stop.clone());
    let name = format!("wal-{}-{number}", if hand == Hand::Parts { "part" } else { "whole" });
    let work = move || {
        let open = |system_identifier| target.open(&repository, system_identifier);
        work(&take, &open, &|outcome| news.send(News::Lane(number, hand, outcome)).is_ok(), &stop);
    };
    std::thread::Builder::new()
        .name(name)
        .spawn(work)
        .map_err(|error| Error::io("a thread that stores WAL", error))?;
    Ok(give)
}

/// Does jobs until nobody gives any more.
fn work(
    jobs: &Receiver<Job>,
    open: &dyn Fn(u64) -> Result<Archive>,
    tell: &dyn Fn(Outcome) -> bool,
    stop: &Stop,
) {
    while let Ok(job) = jobs.recv() {
        let mut pause = FIRST_PAUSE;
        let outcome = loop {
            match perform(&job, open) {
                Ok(outcome) => break outcome,
                Err(error) if is_refusal(&error) => break Outcome::Refused(error),
                Err(error) => {
                    if !tell(Outcome::Failed(error)) || stop.wait(pause) {
                        return;
                    }
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        };
        // Its memory goes before the next one comes.
        drop(job);
        if !tell(outcome) {
            return;
        }
    }
}

/// Whether to try again would be wrong: what the server has is not what the archive has.
fn is_refusal(error: &Error) -> bool {
    [codes::WAL_CONFLICT, codes::WAL_DIVERGED, codes::WAL_MALFORMED].contains(&error.code())
}

fn perform(job: &Job, open: &dyn Fn(u64) -> Result<Archive>) -> Result<Outcome> {
    match job {
        Job::Open { system_identifier, size } => {
            let archive = open(*system_identifier)?;
            let end = archive.end(*size)?;
            Ok(Outcome::Opened(Box::new(archive), end))
        }
        Job::File { archive, name, bytes } => {
            archive.push(*name, bytes)?;
            archive.confirm_repository()?;
            Ok(Outcome::Filed)
        }
        Job::Part { archive, segment, size, start, from, bytes } => {
            archive.push_part(*segment, *size, *from, bytes)?;
            archive.confirm_repository()?;
            Ok(Outcome::Stored(*start, behind(*start, bytes.len())))
        }
        Job::Whole { archive, segment, start, bytes } => {
            archive.push(WalFileName::Segment(*segment), bytes)?;
            archive.confirm_repository()?;
            Ok(Outcome::Stored(*start, behind(*start, bytes.len())))
        }
        Job::Join { archive, segment, start } => {
            let bytes = join(archive, *segment)?;
            archive.push(WalFileName::Segment(*segment), &bytes)?;
            archive.confirm_repository()?;
            Ok(Outcome::Stored(*start, behind(*start, bytes.len())))
        }
        Job::Compare { archive, segment, bytes } => compare(archive, *segment, bytes),
    }
}

fn behind(start: Position, length: usize) -> Lsn {
    Lsn(start.lsn.0.saturating_add(length as u64))
}

/// A whole segment from its parts, or as it is stored already.
fn join(archive: &Archive, segment: SegmentName) -> Result<Vec<u8>> {
    if let Some(stored) = archive.fetch(WalFileName::Segment(segment))? {
        return Ok(stored);
    }
    match archive.assemble(segment)? {
        Some(joined) if joined.known_bytes == joined.bytes.len() => Ok(joined.bytes),
        _ => {
            let message = format!("parts of `{segment}` that were stored are gone");
            let error = Error::new(ErrorKind::NotFound, codes::WAL_MISSING, message);
            Err(error.with_hint("make a backup now: recovery to a time before it may end in this segment"))
        }
    }
}

fn compare(archive: &Archive, segment: SegmentName, bytes: &[u8]) -> Result<Outcome> {
    let stored = match archive.fetch(WalFileName::Segment(segment))? {
        Some(whole) => Some((whole.len(), whole)),
        None => archive.assemble(segment)?.map(|joined| (joined.known_bytes, joined.bytes)),
    };
    // Less than a segment's header says nothing.
    let Some((known, stored)) = stored else { return Ok(Outcome::Compared) };
    let length = known.min(bytes.len());
    match stored[..length].iter().zip(bytes).position(|(stored, sent)| stored != sent) {
        None => Ok(Outcome::Compared),
        Some(at) => {
            let message = format!("the server's `{segment}` differs from the stored one at byte `{at}`");
            Err(Error::new(ErrorKind::Conflict, codes::WAL_DIVERGED, message).with_hint(
                "find out which server is the right one; one that was rewound or restored must begin a timeline of \
                 its own",
            ))
        }
    }
}

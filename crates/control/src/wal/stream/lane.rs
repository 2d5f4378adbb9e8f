//! One repository: how far it is, and what its hands get to do next.

use super::frontier::Frontier;
use super::window::{Held, Window};
use super::worker::{Hand, Job, Outcome};
use retoma_core::decide::streaming::Position;
use retoma_core::postgres::{Lsn, SegmentName, SegmentSize, TimelineId, WalFileName};
use retoma_core::{Error, Result};
use retoma_repo::wal::{Archive, ArchiveEnd};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::SyncSender;
use std::time::{Duration, Instant};

/// How long the first byte that is not stored waits for others. With the time to store a part, less than 250 ms.
pub(super) const LINGER: Duration = Duration::from_millis(200);
/// A job that takes longer than this is an alarm.
const SLOW: Duration = Duration::from_secs(5);

/// How far a repository has the WAL of one timeline.
#[derive(Debug, Clone)]
pub(super) struct Track {
    /// The timeline.
    pub(super) timeline: TimelineId,
    /// What is durable.
    pub(super) frontier: Frontier,
    /// The first segment that is not stored whole.
    pub(super) whole: Lsn,
    /// Parts were given away up to here.
    sent: Lsn,
    /// Whether the server's bytes are known to continue the stored ones.
    is_compared: bool,
}

impl Track {
    pub(super) fn new(timeline: TimelineId, whole: Lsn, durable: Lsn) -> Self {
        Self { timeline, frontier: Frontier::new(durable), whole, sent: durable, is_compared: false }
    }

    /// Its end.
    pub(super) fn position(&self) -> Position {
        Position { timeline: self.timeline, lsn: self.frontier.durable() }
    }
}

impl From<ArchiveEnd> for Track {
    fn from(end: ArchiveEnd) -> Self {
        Self::new(end.timeline, end.whole, end.joined)
    }
}

/// A thread that stores, and since when it does.
#[derive(Debug)]
struct Worker {
    jobs: SyncSender<Job>,
    busy_since: Option<Instant>,
}

impl Worker {
    fn give(&mut self, job: Job) -> Result<()> {
        self.busy_since = Some(Instant::now());
        // One job at a time: the channel has room.
        self.jobs.send(job).map_err(|_| Error::internal("a thread that stores WAL has ended"))
    }

    fn is_idle(&self) -> bool {
        self.busy_since.is_none()
    }
}

/// A repository.
#[derive(Debug)]
pub(super) struct Lane {
    /// Its name in the manifest.
    pub(super) name: String,
    /// Its archive, once it is open.
    pub(super) archive: Option<Archive>,
    /// How far it is; `None` until it has something, or was told where to begin.
    pub(super) track: Option<Track>,
    /// Whether its next bytes are in the window, or will come into it.
    pub(super) is_attached: bool,
    /// Whether its last attempt failed.
    pub(super) is_failing: bool,
    /// Files that must be stored before anything else.
    files: VecDeque<(WalFileName, Arc<Vec<u8>>)>,
    /// Since when bytes wait that were not given away.
    waiting: Option<Instant>,
    parts: Worker,
    wholes: Worker,
}

impl Lane {
    pub(super) fn new(name: String, parts: SyncSender<Job>, wholes: SyncSender<Job>) -> Self {
        let worker = |jobs| Worker { jobs, busy_since: None };
        Self {
            name,
            archive: None,
            track: None,
            is_attached: false,
            is_failing: false,
            files: VecDeque::new(),
            waiting: None,
            parts: worker(parts),
            wholes: worker(wholes),
        }
    }

    /// Begins to open the repository.
    pub(super) fn open(&mut self, system_identifier: u64, size: SegmentSize) -> Result<()> {
        self.parts.give(Job::Open { system_identifier, size })
    }

    /// Whether opening it has neither worked nor failed yet.
    pub(super) fn is_opening(&self) -> bool {
        self.archive.is_none() && !self.is_failing
    }

    /// Hears what became of a job. An error is one that must end the stream.
    pub(super) fn hear(&mut self, hand: Hand, outcome: Outcome, size: SegmentSize) -> Result<Option<Error>> {
        let worker = if hand == Hand::Parts { &mut self.parts } else { &mut self.wholes };
        match outcome {
            Outcome::Failed(error) => {
                self.is_failing = true;
                return Ok(Some(error));
            }
            Outcome::Refused(error) => return Err(error),
            Outcome::Opened(archive, end) => {
                self.archive = Some(*archive);
                self.track = end.map(Track::from);
            }
            Outcome::Filed => {
                self.files.pop_front();
            }
            Outcome::Compared => {
                if let Some(track) = &mut self.track {
                    track.is_compared = true;
                }
            }
            Outcome::Stored(start, end) => {
                if let Some(track) = &mut self.track
                    && track.timeline == start.timeline
                {
                    track.frontier.add(start.lsn, end);
                    if hand == Hand::Wholes && track.whole == start.lsn {
                        track.whole = Lsn(start.lsn.0 + size.bytes());
                    }
                }
            }
        }
        worker.busy_since = None;
        self.is_failing = false;
        Ok(None)
    }

    /// Begins anew with what was not stored of `timeline`: what a broken stream had given away may have got lost.
    pub(super) fn attach(&mut self, timeline: TimelineId) {
        self.waiting = None;
        self.is_attached = false;
        if let Some(track) = &mut self.track
            && track.timeline == timeline
            && self.archive.is_some()
        {
            track.sent = track.frontier.durable();
            track.is_compared = false;
            self.is_attached = true;
        }
    }

    /// Stores a file before anything else.
    pub(super) fn file(&mut self, name: WalFileName, bytes: &Arc<Vec<u8>>) {
        if self.files.iter().all(|(other, _)| *other != name) {
            self.files.push_back((name, bytes.clone()));
        }
    }

    /// Whether one of its hands has been at the same job for long.
    pub(super) fn is_slow(&self, now: Instant) -> bool {
        let slow = |worker: &Worker| worker.busy_since.is_some_and(|since| now - since >= SLOW);
        slow(&self.parts) || slow(&self.wholes)
    }

    /// Whether something is under way.
    pub(super) fn is_busy(&self) -> bool {
        !(self.parts.is_idle() && self.wholes.is_idle())
    }

    /// When the bytes that wait go; `None` when none do.
    pub(super) fn due(&self) -> Option<Instant> {
        self.waiting.filter(|_| self.is_attached).map(|since| since + LINGER)
    }

    /// Whether it has all that came, and its files.
    pub(super) fn has_all(&self, window: &Window) -> bool {
        let is_there = |track: &Track| {
            track.timeline == window.timeline && track.frontier.durable() >= window.received()
        };
        self.files.is_empty() && self.track.as_ref().is_some_and(is_there)
    }

    /// Whether the bytes that came can leave memory: all are stored, and what was stored before is known to be the same.
    pub(super) fn is_done_with(&self, window: &Window) -> bool {
        let is_compared = |track: &Track| {
            let durable = track.frontier.durable();
            track.is_compared || window.size.start_of(durable) == durable
        };
        self.has_all(window) && !self.is_busy() && self.track.as_ref().is_some_and(is_compared)
    }

    /// Gives idle hands what is next; with `urgent`, at once.
    pub(super) fn hand_out(&mut self, window: &Window, urgent: bool, now: Instant) -> Result<()> {
        let Some(archive) = self.archive.clone().filter(|_| self.is_attached) else { return Ok(()) };
        if self.parts.is_idle()
            && let Some(job) = self.next_part(&archive, window, urgent, now)
        {
            self.parts.give(job)?;
        }
        if self.wholes.is_idle()
            && let Some(job) = self.next_whole(archive, window)
        {
            self.wholes.give(job)?;
        }
        Ok(())
    }

    fn next_part(&mut self, archive: &Archive, window: &Window, urgent: bool, now: Instant) -> Option<Job> {
        let archive = archive.clone();
        if let Some((name, bytes)) = self.files.front() {
            return Some(Job::File { archive, name: *name, bytes: bytes.clone() });
        }
        let track = self.track.as_mut()?;
        if !track.is_compared {
            let durable = track.frontier.durable();
            let start = window.size.start_of(durable);
            if start < durable {
                let held = window.at(start).filter(|held| held.received() >= durable)?;
                let (_, bytes) = held.copy(start..durable)?;
                return Some(Job::Compare { archive, segment: held.name, bytes });
            }
            track.is_compared = true;
        }
        // What was stored whole meanwhile may have left the window.
        track.sent = track.sent.max(track.frontier.durable());
        if let Some(held) = window.at(track.sent)
            && goes_whole(held, track, window)
        {
            track.sent = held.received();
        }
        if track.sent >= window.received() {
            self.waiting = None;
            return None;
        }
        let since = *self.waiting.get_or_insert(now);
        let held = window.at(track.sent)?;
        if !(urgent || window.is_finished(held) || now - since >= LINGER) {
            return None;
        }
        let start = Position { timeline: track.timeline, lsn: track.sent };
        let (from, bytes) = held.copy(track.sent..held.received())?;
        track.sent = held.received();
        self.waiting = None;
        Some(Job::Part { archive, segment: held.name, size: window.size, start, from, bytes })
    }

    fn next_whole(&self, archive: Archive, window: &Window) -> Option<Job> {
        let track = self.track.as_ref().filter(|track| track.is_compared && self.files.is_empty())?;
        let start = Position { timeline: track.timeline, lsn: track.whole };
        let segment = SegmentName::at(track.timeline, track.whole, window.size);
        let held = window.at(track.whole).filter(|held| window.is_finished(held));
        if let Some(bytes) = held.and_then(|held| held.whole(window.size)) {
            return Some(Job::Whole { archive, segment, start, bytes });
        }
        let end = Lsn(track.whole.0 + window.size.bytes());
        (track.frontier.durable() >= end).then_some(Job::Join { archive, segment, start })
    }
}

/// Whether a finished segment, of which little went out as parts, goes only whole: that is under way, or next.
fn goes_whole(held: &Held, track: &Track, window: &Window) -> bool {
    let sent = track.sent.bytes_since(held.start);
    track.whole == held.start && held.whole(window.size).is_some() && 2 * sent <= window.size.bytes()
}

#[cfg(test)]
mod tests;

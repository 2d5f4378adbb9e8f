//! Streaming: a server's WAL into every repository of its component, as it is written. `docs/wal.md`, "Streaming".
//!
//! ```text
//! server ─▶ session (receives, decides, answers) ─▶ window ─▶ lane ─▶ two hands ─▶ repository
//!                 ▲                                                      │ (for each repository)
//!                 └───────────────── news: what is durable ◀─────────────┘
//! ```
//! Invariants: the server hears as flushed only what is durable in *all* repositories; nothing is written before the server's
//! bytes are known to continue the stored ones; memory is bounded by the window, whoever is slow; every wait ends.
//!
//! It does not read records, does not replay, and never changes a setting of the server.

mod event;
mod examine;
mod frontier;
mod lane;
mod session;
mod slot;
mod window;
mod worker;

pub use event::{Alarm, StreamEvent};
pub use examine::{WalExamined, examine};
pub use slot::{SlotState, SlotUse, SlotWatch, slot_name};

use super::Job;
use crate::{Interrupt, backup};
use event::Alarms;
use lane::Lane;
use retoma_core::decide::streaming::{Position, SlotLevel, slot_level};
use retoma_core::manifest::{Component, Manifest, SlotPolicy, Source, WalMode, WalSettings};
use retoma_core::postgres::{Lsn, SegmentSize};
use retoma_core::units::ByteSize;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_sources::postgres::wire::{Address, sqlstate};
use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TryRecvError, sync_channel};
use std::time::{Duration, Instant};
use worker::{Hand, News, Stop};

/// The first wait before a connection is made again, and the longest one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// How long a slot that somebody else reads is waited for: longer than a server believes in a receiver that died
/// (`wal_sender_timeout`, 60 s).
const BUSY_PATIENCE: Duration = Duration::from_secs(90);
/// How much news may wait; threads wait for room.
const NEWS: usize = 64;
/// How long a server that shuts down is let wait for repositories.
const SHUTDOWN_PATIENCE: Duration = Duration::from_secs(3);

/// What is streamed, from where, to where.
#[derive(Debug, Clone)]
pub struct StreamJob {
    target: Job,
    address: Address,
    slot: String,
    settings: WalSettings,
}

impl StreamJob {
    /// The stream of a component, into all of its repositories.
    ///
    /// # Errors
    /// `Invalid` with `R0002` for a component that is no PostgreSQL server; `R0410` about its address; `R0102` about a secret.
    pub fn new(manifest: &Manifest, component: &Component) -> Result<Self> {
        let target = Job::new(manifest, component, None)?;
        let Source::Postgres { url } = &component.source else {
            return Err(Error::internal("a job of WAL for something that has none"));
        };
        let slot = slot_name(&component.name);
        let address = backup::server_address(url)?.with_application_name(&slot);
        Ok(Self { target, address, slot, settings: component.wal })
    }

    /// The name of the slot.
    pub fn slot(&self) -> &str {
        &self.slot
    }
}

/// How a session ended without an error.
enum End {
    /// It has to begin anew, elsewhere.
    Again,
    /// It was asked to stop.
    Stopped,
}

/// The state of a stream that outlives its connections.
#[derive(Debug)]
struct Streamer<'a> {
    job: &'a StreamJob,
    interrupt: &'a Interrupt,
    alarms: Alarms<'a>,
    lanes: Vec<Lane>,
    news: Receiver<News>,
    /// Which server, and how large its segments are.
    server: Option<(u64, SegmentSize)>,
    /// What the server was told is flushed.
    reported: Lsn,
    /// How often it hears from us.
    status: Duration,
    /// How far back the server was found to have no WAL: 0 not at all, 1 to the slot's beginning, 2 to its own end.
    missing: u8,
    /// Since when the server has been shutting down, or not answering.
    stopping_since: Option<Instant>,
    /// Whether the slot has to be given up.
    must_drop: bool,
    /// What the slot kept when it was last looked at, in bytes.
    retained: Option<u64>,
    /// When which positions came, the oldest first, to tell how long bytes wait.
    arrivals: VecDeque<(Lsn, Instant)>,
    told_shipped: Option<(Position, Instant)>,
}

/// Streams until `interrupt` is set. `tell` hears each change, from this thread.
///
/// # Errors
/// What no further attempt would change: `R0441`, `R0422`, `R0421` when the server's WAL does not continue the archive's;
/// `R0442` when somebody else keeps reading from the slot; wrong settings, rights, passwords.
pub fn stream(job: &StreamJob, interrupt: &Interrupt, tell: &mut dyn FnMut(&StreamEvent<'_>)) -> Result<()> {
    let (give, news) = sync_channel(NEWS);
    let stop = Stop::default();
    let mut streamer = Streamer {
        job,
        interrupt,
        alarms: Alarms::new(tell),
        lanes: lanes(&job.target, &give, &stop)?,
        news,
        server: None,
        reported: Lsn::ZERO,
        status: session::STATUS,
        missing: 0,
        stopping_since: None,
        must_drop: false,
        retained: None,
        arrivals: VecDeque::new(),
        told_shipped: None,
    };
    slot::watch(job.address.clone(), job.slot.clone(), give, stop.clone())?;
    let done = streamer.run();
    // The threads end by themselves, also one that hangs in a store: nobody waits for it.
    stop.set();
    done
}

fn lanes(target: &Job, news: &SyncSender<News>, stop: &Stop) -> Result<Vec<Lane>> {
    let lane = |(number, repository): (usize, &retoma_core::manifest::Repository)| {
        let hand = |hand| worker::start(number, hand, target, repository, news, stop);
        Ok(Lane::new(repository.name.clone(), hand(Hand::Parts)?, hand(Hand::Wholes)?))
    };
    target.repositories.iter().enumerate().map(lane).collect()
}

impl Streamer<'_> {
    fn run(&mut self) -> Result<()> {
        let mut pause = FIRST_PAUSE;
        let mut busy_since = None;
        while !self.interrupt.is_set() {
            if self.must_drop {
                self.give_up_slot()?;
                continue;
            }
            let begun = Instant::now();
            let error = match self.session() {
                Ok(End::Stopped) => break,
                Ok(End::Again) => continue,
                Err(error) => error,
            };
            if is_removed(&error) && self.missing < 2 {
                self.missing += 1;
                continue;
            }
            let is_busy = error.code() == codes::WAL_SLOT_BUSY;
            let since = *busy_since.get_or_insert(begun);
            if !is_busy {
                busy_since = None;
            }
            if !may_pass(&error) || (is_busy && since.elapsed() >= BUSY_PATIENCE) {
                return Err(error);
            }
            self.alarms.raise(Alarm::Connection, &error);
            // One that held for a while is worth an attempt at once.
            if begun.elapsed() >= LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            }
            self.wait(pause)?;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.alarms.tell(&StreamEvent::Stopped);
        Ok(())
    }

    /// Waits, and hears news meanwhile; ends when it is time to stop or to drop the slot.
    fn wait(&mut self, time: Duration) -> Result<()> {
        let deadline = Instant::now() + time;
        while !self.interrupt.is_set() && !self.must_drop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            match self.news.recv_timeout(left.min(Duration::from_millis(100))) {
                Ok(news) => self.hear(news)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(nobody()),
            }
            self.look_at_lanes();
        }
        Ok(())
    }

    /// Hears what is there without waiting.
    fn hear_all(&mut self) -> Result<()> {
        loop {
            match self.news.try_recv() {
                Ok(news) => self.hear(news)?,
                Err(TryRecvError::Empty) => break,
                Err(TryRecvError::Disconnected) => return Err(nobody()),
            }
        }
        self.look_at_lanes();
        Ok(())
    }

    fn hear(&mut self, news: News) -> Result<()> {
        match news {
            News::Lane(number, hand, outcome) => {
                let size = self.server.map_or_else(SegmentSize::default, |(_, size)| size);
                let Some(lane) = self.lanes.get_mut(number) else { return Ok(()) };
                if let Some(error) = lane.hear(hand, outcome, size)? {
                    // A wrong password, or none, will not get right while nothing was ever stored.
                    if lane.archive.is_none() && !may_pass(&error) {
                        return Err(error);
                    }
                    self.alarms.raise(Alarm::Repository(lane.name.clone()), &error);
                } else if !lane.is_slow(Instant::now()) {
                    self.alarms.clear(&Alarm::Repository(lane.name.clone()));
                }
            }
            News::Slot(state) => {
                self.stopping_since = None;
                self.measure(state);
            }
            News::NoServer(error) => {
                // It shuts down, or has ended sessions.
                if matches!(sqlstate(&error), Some("57P01" | "57P03")) {
                    self.stopping_since.get_or_insert_with(Instant::now);
                }
            }
        }
        Ok(())
    }

    /// Raises the alarm about repositories that take long.
    fn look_at_lanes(&mut self) {
        let now = Instant::now();
        for lane in self.lanes.iter().filter(|lane| lane.is_slow(now) && !lane.is_failing) {
            let message = format!("repository `{}` has not stored WAL for some seconds", lane.name);
            let error = Error::new(ErrorKind::Unavailable, codes::STORE_UNAVAILABLE, message);
            let error = error.with_hint("look at its disk, or at the network to it");
            self.alarms.raise(Alarm::Repository(lane.name.clone()), &error);
        }
    }

    /// Compares what the slot keeps with what it may.
    fn measure(&mut self, state: SlotState) {
        let WalSettings { slot_limit_bytes: limit, at_slot_limit, .. } = self.job.settings;
        let level = slot_level(state.retained_bytes, limit);
        for (alarm, from) in [
            (Alarm::SlotWarning, SlotLevel::Warning),
            (Alarm::SlotAlarm, SlotLevel::Alarm),
            (Alarm::SlotLimit, SlotLevel::Full),
        ] {
            if level >= from {
                self.alarms.raise(alarm, &self.full(state.retained_bytes));
            } else if state.usage != SlotUse::Missing {
                self.alarms.clear(&alarm);
            }
        }
        // A stream that catches up is let do so.
        let before = self.retained.replace(state.retained_bytes);
        let shrinks = before.is_none_or(|before| state.retained_bytes < before);
        if level == SlotLevel::Full && at_slot_limit == SlotPolicy::Drop && !shrinks {
            self.must_drop = true;
        }
    }

    fn full(&self, retained_bytes: u64) -> Error {
        let limit = ByteSize(self.job.settings.slot_limit_bytes);
        let slot = &self.job.slot;
        let message =
            format!("slot `{slot}` keeps {} of WAL, and may keep {limit}", ByteSize(retained_bytes));
        let hint = match self.job.settings.at_slot_limit {
            SlotPolicy::Drop => {
                "find out why the repository does not take it; at the limit the slot is dropped"
            }
            SlotPolicy::Keep => "find out why the repository does not take it; the server's disk may fill up",
        };
        Error::new(ErrorKind::Exhausted, codes::WAL_SLOT_LIMIT, message).with_hint(hint)
    }

    /// Drops the slot, and waits until every repository takes something again.
    fn give_up_slot(&mut self) -> Result<()> {
        match slot::give_up(&self.job.address, &self.job.slot) {
            Ok(()) => self.must_drop = false,
            Err(error) if may_pass(&error) || error.kind() == ErrorKind::Conflict => {
                self.alarms.raise(Alarm::Connection, &error);
                self.must_drop = false;
                // Not before it was looked at again.
                return self.wait(LONGEST_PAUSE);
            }
            Err(error) => return Err(error),
        }
        while self.lanes.iter().any(|lane| lane.is_failing || lane.is_slow(Instant::now()))
            && !self.interrupt.is_set()
        {
            self.wait(Duration::from_millis(200))?;
            self.must_drop = false;
        }
        Ok(())
    }
}

/// Whether trying again may help.
fn may_pass(error: &Error) -> bool {
    error.kind().is_retryable()
        || matches!(
            error.code(),
            codes::POSTGRES_UNAVAILABLE
                | codes::POSTGRES_EXHAUSTED
                | codes::POSTGRES_PROTOCOL
                | codes::WAL_SLOT_BUSY
                | codes::NO_REPOSITORY
                | codes::IO_NOT_FOUND
                | codes::OBJECT_NOT_FOUND
        )
}

/// Whether the server says that it no longer has what comes next.
fn is_removed(error: &Error) -> bool {
    sqlstate(error) == Some("58P01")
}

fn nobody() -> Error {
    Error::internal("the threads that store WAL have ended")
}

/// Whether commits wait for us.
fn is_synchronous(job: &StreamJob) -> bool {
    job.settings.mode == WalMode::Synchronous
}

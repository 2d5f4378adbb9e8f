//! One connection: where it begins, what comes, what the server hears.

use super::event::{Alarm, StreamEvent};
use super::lane::Track;
use super::slot::{self, SlotState, SlotUse};
use super::window::Window;
use super::{End, SHUTDOWN_PATIENCE, Streamer, is_synchronous, nobody};
use retoma_core::decide::streaming::{Diverged, Position, start};
use retoma_core::postgres::{Lsn, SegmentSize, TimelineHistory, TimelineId, WalFileName};
use retoma_core::{Error, ErrorKind, Result, ResultExt as _, error::codes};
use retoma_sources::postgres::wire::{
    Connection, Mode, Progress, ReplicationMessage, ReplicationStream, SystemIdentity, Timeouts, sqlstate,
};
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

/// How long the server may take to answer a command.
const ANSWER: Duration = Duration::from_secs(30);
/// After this silence the server is asked; after that one, it is gone.
const ASK: Duration = Duration::from_secs(20);
const GONE: Duration = Duration::from_secs(45);
/// How often the server hears from us at least, unless its `wal_sender_timeout` asks for more: we do not hear it ask while the
/// window is full.
pub(super) const STATUS: Duration = Duration::from_secs(10);
const STATUS_OFTEN: Duration = Duration::from_millis(100);
/// How long the first message is waited for before the server counts as streaming.
const FIRST: Duration = Duration::from_millis(100);
/// The longest sleep when nothing happens: a stop is noticed then.
const IDLE: Duration = Duration::from_secs(1);
/// How soon it is noticed that a job is done: commits wait for it, or only the slot does.
const DONE: Duration = Duration::from_millis(2);
const DONE_UNHURRIED: Duration = Duration::from_millis(20);
/// After this quiet time, what is stored everywhere is no longer kept in memory.
const QUIET: Duration = Duration::from_secs(10);
/// How long the repositories may take for the rest when we are asked to stop.
const LAST: Duration = Duration::from_secs(10);
/// How long to wait for the repositories that open, once one is open.
const OPENING: Duration = Duration::from_mins(1);
/// How often it is told how far we are.
const TELL: Duration = Duration::from_secs(1);
/// How finely it is known when bytes came, and how many such times are kept.
const ARRIVAL: Duration = Duration::from_millis(20);
const ARRIVALS: usize = 4096;

/// What a run over one timeline ended with.
enum Ran {
    /// The timeline has ended; every attached repository has all of it.
    Switched(Box<Connection>, TimelineId, Lsn),
    Ended(End),
}

/// Times within one run.
struct Clock {
    heard: Instant,
    asked: bool,
    status: Instant,
    received: Instant,
    server_end: Lsn,
}

impl Streamer<'_> {
    /// Connects, streams until something ends it.
    pub(super) fn session(&mut self) -> Result<End> {
        let job = self.job;
        let mut sql = slot::connect(&job.address)?;
        self.status = status(&mut sql)?;
        let timeouts = Timeouts { connect: None, silence: ANSWER };
        let mut connection = Connection::connect(&job.address, Mode::Replication, timeouts)?;
        let identity = connection.identify_system()?;
        let size = segment_size(&mut connection)?;
        self.same_server(&identity, size)?;
        self.open_lanes(identity.system_id, size)?;
        if self.interrupt.is_set() {
            return Ok(End::Stopped);
        }
        if self.must_drop {
            return Ok(End::Again);
        }
        let state = self.slot(&mut connection, &mut sql)?;
        drop(sql);
        let server = Position { timeline: identity.timeline, lsn: identity.flushed };
        let history = history(&mut connection, identity.timeline)?;
        let mut at = self.place(server, &history, &state)?;
        // It may be another server than before, which was promoted before the first one's end: at the same position it has
        // other WAL, and none of that is durable yet.
        self.reported = Lsn::ZERO;
        loop {
            self.file_histories(&mut connection, at.timeline)?;
            let stream = connection
                .start_replication(Some(&job.slot), at.lsn, Some(at.timeline))
                .map_err(|error| self.busy(error))?;
            self.lanes.iter_mut().for_each(|lane| lane.attach(at.timeline));
            match self.receive(stream, Window::new(at.timeline, at.lsn, size), identity.system_id)? {
                Ran::Ended(end) => return Ok(end),
                Ran::Switched(ready, next, switch) => {
                    connection = *ready;
                    at = self.switch(Position { timeline: next, lsn: switch }, size);
                }
            }
        }
    }

    fn busy(&self, error: Error) -> Error {
        if sqlstate(&error) != Some("55006") {
            return error;
        }
        let message = format!("somebody else streams through slot `{}`", self.job.slot);
        Error::new(ErrorKind::Conflict, codes::WAL_SLOT_BUSY, message)
            .with_hint("stop the other `wal stream` or agent of this component; `pg_stat_replication` shows from where it comes")
            .with_source(error)
    }

    fn same_server(&mut self, identity: &SystemIdentity, size: SegmentSize) -> Result<()> {
        let (known, _) = *self.server.get_or_insert((identity.system_id, size));
        if known == identity.system_id {
            return Ok(());
        }
        let message = format!("server `{}` answers where `{known}` did", identity.system_id);
        Err(Error::new(ErrorKind::Conflict, codes::WAL_DIVERGED, message)
            .with_hint("if it is the new one on purpose, start the stream again and make a backup"))
    }

    /// Opens the repositories that are not open, and waits until each has answered or failed once.
    fn open_lanes(&mut self, system_identifier: u64, size: SegmentSize) -> Result<()> {
        for lane in self.lanes.iter_mut().filter(|lane| lane.archive.is_none() && !lane.is_busy()) {
            lane.open(system_identifier, size)?;
        }
        let deadline = Instant::now() + OPENING;
        while self.lanes.iter().any(super::Lane::is_opening) && Instant::now() < deadline {
            if self.interrupt.is_set() || self.must_drop {
                return Ok(());
            }
            self.wait(Duration::from_millis(20))?;
        }
        if self.lanes.iter().all(|lane| lane.archive.is_none()) {
            let error = Error::new(
                ErrorKind::Unavailable,
                codes::STORE_UNAVAILABLE,
                "no repository of the component can be opened",
            );
            return Err(error.with_hint("see the alarms of its repositories"));
        }
        Ok(())
    }

    /// Makes sure that there is a slot that keeps WAL.
    fn slot(&mut self, connection: &mut Connection, sql: &mut Connection) -> Result<SlotState> {
        let name = &self.job.slot;
        let mut state = slot::look(sql, name)?;
        if state.usage == SlotUse::Lost || (state.usage == SlotUse::Idle && state.restart.is_none()) {
            connection.drop_slot(name)?;
            state.usage = SlotUse::Missing;
        }
        if state.usage == SlotUse::Missing {
            connection.ensure_physical_slot(name)?;
            state = slot::look(sql, name)?;
        }
        self.measure(state);
        Ok(state)
    }

    /// Decides where each repository goes on, and gives the first of these positions.
    fn place(&mut self, server: Position, history: &TimelineHistory, state: &SlotState) -> Result<Position> {
        let size = self.server.map_or_else(SegmentSize::default, |(_, size)| size);
        let position = |lsn| Position { timeline: history.timeline_at(lsn), lsn: size.start_of(lsn) };
        let kept = state.restart.map_or_else(|| position(server.lsn), position);
        let floor = match self.missing {
            0 => None,
            1 => Some(kept),
            _ => Some(position(server.lsn)),
        };
        let mut gap: Option<Position> = None;
        for lane in self.lanes.iter_mut().filter(|lane| lane.archive.is_some()) {
            let placed = match &lane.track {
                None => kept,
                Some(track) => {
                    let end = track.position();
                    start(end, server, history).map_err(|why| diverged(why, end, server, state))?
                }
            };
            let is_new = lane.track.as_ref().is_none_or(|track| track.timeline != placed.timeline);
            if let Some(floor) = floor.filter(|floor| placed < *floor) {
                if lane.track.is_some() {
                    gap = Some(gap.map_or(placed, |gap| gap.min(placed)));
                }
                lane.track = Some(Track::new(floor.timeline, floor.lsn, floor.lsn));
            } else if is_new {
                let begin = size.start_of(placed.lsn);
                lane.track = Some(Track::new(placed.timeline, begin, begin));
            }
        }
        if let (Some(from), Some(to)) = (gap, floor) {
            let message = format!("the server no longer has its WAL from {from} to {to}");
            let error = Error::new(ErrorKind::NotFound, codes::WAL_GAP, message)
                .with_hint("make a backup now: what comes after it can be recovered again");
            self.alarms.tell(&StreamEvent::Gap { from, to, error: &error });
        }
        let ends =
            self.lanes.iter().filter(|lane| lane.archive.is_some()).filter_map(|lane| lane.track.as_ref());
        let first = ends.map(Track::position).min().unwrap_or(kept);
        Ok(Position { lsn: size.start_of(first.lsn), ..first })
    }

    /// Lets the repositories that begin on `timeline` store the histories that lead to it first.
    fn file_histories(&mut self, connection: &mut Connection, timeline: TimelineId) -> Result<()> {
        let history = history(connection, timeline)?;
        let earlier = history.entries().iter().map(|entry| entry.timeline);
        for own in earlier.chain([timeline]).filter(|own| *own > TimelineId::FIRST) {
            let file = match connection.timeline_history(own) {
                Ok(file) => Arc::new(file.contents.to_vec()),
                // Of earlier ones, the newest history says all that a recovery needs.
                Err(error) if own < timeline && error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let is_there =
                |lane: &&mut super::Lane| lane.track.as_ref().is_some_and(|track| track.timeline == timeline);
            for lane in self.lanes.iter_mut().filter(is_there) {
                lane.file(WalFileName::History(own), &file);
            }
        }
        Ok(())
    }

    /// Moves the repositories that have all of a timeline to the next one.
    fn switch(&mut self, to: Position, size: SegmentSize) -> Position {
        let begin = size.start_of(to.lsn);
        for lane in self.lanes.iter_mut().filter(|lane| lane.is_attached) {
            lane.track = Some(Track::new(to.timeline, begin, begin));
        }
        self.alarms.tell(&StreamEvent::Timeline { start: to });
        Position { lsn: begin, ..to }
    }

    /// Receives and ships one timeline.
    fn receive(&mut self, mut stream: ReplicationStream, mut window: Window, server: u64) -> Result<Ran> {
        let now = Instant::now();
        let mut clock =
            Clock { heard: now, asked: false, status: now, received: now, server_end: window.received() };
        let mut is_connected = false;
        self.stopping_since = None;
        loop {
            self.hear_all()?;
            let now = Instant::now();
            self.hand_out(&mut window, now, false)?;
            self.answer(&mut stream, &mut clock, false)?;
            self.tell_shipped(&window, &clock);
            if self.interrupt.is_set() {
                self.finish(&mut stream, &mut window, &mut clock)?;
                return Ok(Ran::Ended(End::Stopped));
            }
            if self.must_drop || self.is_someone_back(&window) {
                return Ok(Ran::Ended(End::Again));
            }
            self.let_go(&window)?;
            if self.is_full(&mut window) {
                self.wait_for_room()?;
                clock.heard = Instant::now();
                continue;
            }
            // An error about what was asked for comes at once; whoever waits wants to know that there is none.
            let patience = self.patience(&window, now);
            let message = stream.next(if is_connected { patience } else { patience.min(FIRST) })?;
            if message.is_some() {
                clock.heard = Instant::now();
                clock.asked = false;
            }
            if !is_connected {
                is_connected = true;
                self.connected(&window, server);
            }
            match message {
                Some(ReplicationMessage::XLogData { server_end, bytes, .. }) => {
                    self.missing = 0;
                    clock.server_end = server_end;
                    clock.received = clock.heard;
                    window.push(&bytes);
                    self.arrived(window.received(), clock.heard);
                }
                Some(ReplicationMessage::Keepalive { server_end, reply_requested, .. }) => {
                    clock.server_end = server_end;
                    self.answer(&mut stream, &mut clock, reply_requested)?;
                }
                Some(ReplicationMessage::EndOfTimeline { next, switch }) => {
                    self.end_of_timeline(&mut window, switch)?;
                    return Ok(Ran::Switched(Box::new(stream.stop()?), next, switch));
                }
                Some(ReplicationMessage::ServerStopped) => {
                    return Err(unavailable("the server has shut down"));
                }
                None => self.silence(&mut stream, &mut window, &mut clock)?,
            }
        }
    }

    fn connected(&mut self, window: &Window, system_identifier: u64) {
        let start = Position { timeline: window.timeline, lsn: window.received() };
        self.alarms.clear(&Alarm::Connection);
        self.alarms.tell(&StreamEvent::Connected { system_identifier, start, slot: &self.job.slot });
    }

    fn hand_out(&mut self, window: &mut Window, now: Instant, is_last: bool) -> Result<()> {
        let urgent = is_last || is_synchronous(self.job);
        for lane in &mut self.lanes {
            lane.hand_out(window, urgent, now)?;
        }
        let attached = self.lanes.iter().filter(|lane| lane.is_attached);
        let whole = attached.filter_map(|lane| lane.track.as_ref()).map(|track| track.whole).min();
        window.release(whole.unwrap_or(window.received()));
        Ok(())
    }

    /// Before this position everything is durable in all repositories of the component, also those that cannot be opened.
    fn durable(&self, timeline: TimelineId) -> Option<Lsn> {
        let end =
            |lane: &super::Lane| lane.track.as_ref().filter(|_| lane.archive.is_some()).map(Track::position);
        let ends = self.lanes.iter().map(end).collect::<Option<Vec<_>>>()?;
        ends.into_iter().min().filter(|end| end.timeline == timeline).map(|end| end.lsn)
    }

    /// Tells the server what is durable: when that changed, when it asks, and now and then.
    fn answer(&mut self, stream: &mut ReplicationStream, clock: &mut Clock, is_asked: bool) -> Result<()> {
        let timeline =
            self.lanes.iter().filter_map(|lane| lane.track.as_ref()).map(|track| track.timeline).min();
        let durable = timeline.and_then(|timeline| self.durable(timeline)).unwrap_or_default();
        // It begins a new timeline at the beginning of a segment of which the old one has the first bytes.
        let flushed = self.reported.max(durable);
        let now = Instant::now();
        if flushed == self.reported && !is_asked && now - clock.status < self.status {
            return Ok(());
        }
        self.reported = flushed;
        clock.status = now;
        let progress = Progress { written: flushed, flushed, applied: Lsn::ZERO };
        stream.status_update(progress, false)
    }

    fn tell_shipped(&mut self, window: &Window, clock: &Clock) {
        let Some(durable) = self.durable(window.timeline) else { return };
        while self.arrivals.front().is_some_and(|(lsn, _)| *lsn <= durable) {
            self.arrivals.pop_front();
        }
        let now = Instant::now();
        let position = Position { timeline: window.timeline, lsn: durable };
        let is_due = self.told_shipped.is_none_or(|(told, at)| told != position && now - at >= TELL);
        if is_due {
            self.told_shipped = Some((position, now));
            let lag = self.arrivals.front().map_or(Duration::ZERO, |(_, since)| now - *since);
            let lag_bytes = clock.server_end.max(window.received()).bytes_since(durable);
            self.alarms.tell(&StreamEvent::Shipped { position, lag_bytes, lag });
        }
    }

    /// Bytes before `lsn` came now.
    fn arrived(&mut self, lsn: Lsn, now: Instant) {
        let is_later = self.arrivals.back().is_none_or(|(_, last)| now - *last >= ARRIVAL);
        if is_later && self.arrivals.len() < ARRIVALS {
            self.arrivals.push_back((lsn, now));
        }
    }

    /// Whether a repository that was left behind takes something again: the stream begins again at its end.
    fn is_someone_back(&self, window: &Window) -> bool {
        let is_back = |lane: &super::Lane| {
            lane.archive.is_some() && !lane.is_attached && !is_stuck(lane) && {
                let later = |track: &Track| track.timeline > window.timeline;
                !lane.track.as_ref().is_some_and(later)
            }
        };
        self.lanes.iter().any(is_back)
    }

    /// Whether nothing more can be received now. Repositories that fail are left behind by those that do not.
    fn is_full(&mut self, window: &mut Window) -> bool {
        if !window.is_full() {
            return false;
        }
        let Some(first) = window.first().map(|held| held.start) else { return false };
        let needs = |lane: &super::Lane| {
            lane.is_attached && lane.track.as_ref().is_some_and(|track| track.whole <= first)
        };
        let is_held_up = |lane: &super::Lane| needs(lane) && !is_stuck(lane);
        let has_other = self.lanes.iter().any(|lane| lane.is_attached && !needs(lane));
        if has_other && !self.lanes.iter().any(is_held_up) {
            self.lanes.iter_mut().filter(|lane| needs(lane)).for_each(|lane| lane.is_attached = false);
            return false;
        }
        true
    }

    fn wait_for_room(&mut self) -> Result<()> {
        match self.news.recv_timeout(Duration::from_millis(100)) {
            Ok(news) => self.hear(news),
            Err(RecvTimeoutError::Timeout) => Ok(()),
            Err(RecvTimeoutError::Disconnected) => Err(nobody()),
        }
    }

    /// How long the next message may take before there is something else to do.
    fn patience(&self, window: &Window, now: Instant) -> Duration {
        if self.lanes.iter().any(|lane| lane.is_busy() && !lane.is_failing) {
            return if is_synchronous(self.job) { DONE } else { DONE_UNHURRIED };
        }
        let due = self.lanes.iter().filter_map(super::Lane::due).min();
        let left = due.map_or(IDLE, |due| due.saturating_duration_since(now));
        // What fails is not due before it works.
        let is_held_up = self.lanes.iter().any(|lane| lane.is_failing) || window.is_full();
        left.min(IDLE).max(if is_held_up { DONE_UNHURRIED } else { Duration::from_millis(1) })
    }

    /// Nothing came.
    fn silence(
        &mut self,
        stream: &mut ReplicationStream,
        window: &mut Window,
        clock: &mut Clock,
    ) -> Result<()> {
        let quiet = clock.heard.elapsed();
        if quiet >= GONE {
            return Err(unavailable("the server has been silent for 45 s"));
        }
        if quiet >= ASK && !clock.asked {
            clock.asked = true;
            let progress = Progress { written: self.reported, flushed: self.reported, applied: Lsn::ZERO };
            stream.status_update(progress, true)?;
        }
        let is_done = self.lanes.iter().all(|lane| lane.is_done_with(window));
        if is_done && clock.received.elapsed() >= QUIET {
            window.shrink();
        }
        Ok(())
    }

    /// A server that shuts down waits until we have everything; it must not wait for a repository that is away.
    fn let_go(&self, window: &Window) -> Result<()> {
        let is_waiting = self.lanes.iter().any(|lane| !lane.has_all(window));
        match self.stopping_since {
            Some(since) if is_waiting && since.elapsed() >= SHUTDOWN_PATIENCE => Err(unavailable(
                "the server shuts down, and the repositories do not take its last WAL in time",
            )),
            _ => Ok(()),
        }
    }

    /// Ships the end of a timeline, and its last segment as a partial one.
    fn end_of_timeline(&mut self, window: &mut Window, switch: Lsn) -> Result<()> {
        let start = window.size.start_of(switch);
        if let Some(held) = window.at(start).filter(|_| switch > start)
            && let Some((_, mut bytes)) = held.copy(start..switch)
        {
            let name = WalFileName::Partial(held.name);
            bytes.resize(usize::try_from(window.size.bytes()).unwrap_or(bytes.len()), 0);
            let bytes = Arc::new(bytes);
            self.settle(window)?;
            self.lanes.iter_mut().filter(|lane| lane.is_attached).for_each(|lane| lane.file(name, &bytes));
        }
        self.settle(window)
    }

    /// Waits until every attached repository has all that came; leaves those behind that fail while others do not.
    fn settle(&mut self, window: &mut Window) -> Result<()> {
        loop {
            self.hear_all()?;
            self.hand_out(window, Instant::now(), true)?;
            let is_done = |lane: &super::Lane| lane.has_all(window) && !lane.is_busy();
            let mut attached = self.lanes.iter().filter(|lane| lane.is_attached);
            if attached.clone().all(is_done) {
                return Ok(());
            }
            if attached.clone().all(|lane| is_done(lane) || lane.is_failing) && attached.any(is_done) {
                for lane in &mut self.lanes {
                    lane.is_attached &= !lane.is_failing;
                }
                continue;
            }
            if self.interrupt.is_set() || self.must_drop {
                return Err(unavailable("the stream ends before the end of the timeline is stored"));
            }
            self.wait_for_room()?;
        }
    }

    /// Stores what has come, tells the server, and ends.
    fn finish(
        &mut self,
        stream: &mut ReplicationStream,
        window: &mut Window,
        clock: &mut Clock,
    ) -> Result<()> {
        let deadline = Instant::now() + LAST;
        while Instant::now() < deadline
            && self.lanes.iter().any(|lane| lane.is_attached && !lane.is_failing && !lane.has_all(window))
        {
            self.wait_for_room()?;
            self.hand_out(window, Instant::now(), true)?;
        }
        self.answer(stream, clock, true)
    }
}

/// Whether a repository fails, or does not get done.
fn is_stuck(lane: &super::Lane) -> bool {
    lane.is_failing || lane.is_slow(Instant::now())
}

fn diverged(why: Diverged, archive: Position, server: Position, state: &SlotState) -> Error {
    if why == Diverged::EndsBefore && state.is_standby {
        return unavailable("the standby does not have yet what its primary had");
    }
    why.into_error(archive, server)
}

fn unavailable(what: &str) -> Error {
    Error::new(ErrorKind::Unavailable, codes::POSTGRES_UNAVAILABLE, what)
        .with_hint("the stream goes on where it was as soon as the server answers")
}

fn history(connection: &mut Connection, timeline: TimelineId) -> Result<TimelineHistory> {
    if timeline == TimelineId::FIRST {
        return Ok(TimelineHistory::first());
    }
    connection.timeline_history(timeline)?.parse(timeline)
}

/// How often the server has to hear from us: four times within its patience.
fn status(sql: &mut Connection) -> Result<Duration> {
    let rows = sql.query("SELECT setting::bigint AS ms FROM pg_settings WHERE name = 'wal_sender_timeout'");
    let rows = rows.context("ask for the patience of the server")?;
    let milliseconds: u64 = rows.one()?.value("ms")?;
    let often = Duration::from_millis(milliseconds / 4).clamp(STATUS_OFTEN, STATUS);
    Ok(if milliseconds == 0 { STATUS } else { often })
}

/// The size of the server's segments: `SHOW` says `16MB`, `1GB`.
fn segment_size(connection: &mut Connection) -> Result<SegmentSize> {
    let rows = connection.query("SHOW wal_segment_size").context("ask for the size of WAL segments")?;
    let text = rows.one()?.text("wal_segment_size")?.to_owned();
    let digits = text.trim_end_matches(char::is_alphabetic);
    let unit = match &text[digits.len()..] {
        "kB" => Some(1 << 10),
        "MB" => Some(1 << 20),
        "GB" => Some(1 << 30),
        _ => None,
    };
    let bytes = digits.parse::<u64>().ok().zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    bytes.and_then(|bytes| SegmentSize::new(bytes).ok()).ok_or_else(|| {
        let message = format!("the server says that its WAL segments have `{}`", text.escape_debug());
        Error::new(ErrorKind::Corrupt, codes::POSTGRES_ANSWER, message)
    })
}

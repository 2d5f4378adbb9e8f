//! WAL as the server writes it: the physical replication stream.
//!
//! Bytes come without a gap from the position that was asked for; one that does not follow its predecessor ends the
//! stream. What was received counts as nothing for the server until [`ReplicationStream::status_update`] says so.

use super::channel::{Frame, Wait, copy_data};
use super::connection::{Connection, Part};
use super::error::{ServerError, protocol};
use super::{CancelHandle, quote_identifier};
use bytes::{Buf, BufMut, Bytes};
use jiff::{SignedDuration, Timestamp};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend::{self, CopyData};
use retoma_core::postgres::{Lsn, TimelineId};
use retoma_core::{Error, Result, ResultExt};
use std::time::{Duration, Instant};

/// What comes out of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReplicationMessage {
    /// A piece of WAL.
    XLogData {
        /// The position of its first byte.
        start: Lsn,
        /// Up to where the server's WAL went when it sent this.
        server_end: Lsn,
        /// When that was, by the server's clock.
        server_time: Timestamp,
        /// The bytes.
        bytes: Bytes,
    },
    /// A sign of life.
    Keepalive {
        /// Up to where the server's WAL goes.
        server_end: Lsn,
        /// When that was, by the server's clock.
        server_time: Timestamp,
        /// Whether the server wants a status update at once, and closes the connection if none comes.
        reply_requested: bool,
    },
    /// The timeline ends here; [`ReplicationStream::stop`] gives the connection back for the next one.
    EndOfTimeline {
        /// The timeline that follows.
        next: TimelineId,
        /// The first position that is on it.
        switch: Lsn,
    },
    /// The server has sent everything and shuts down.
    ServerStopped,
}

/// How far the receiver is. Each position is the first one that is *not* covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    /// What was written.
    pub written: Lsn,
    /// What is durable: the server lets go of WAL before it, and synchronous commits wait for it.
    pub flushed: Lsn,
    /// What was replayed; a receiver that replays nothing leaves it at zero.
    pub applied: Lsn,
}

#[derive(Debug, PartialEq, Eq)]
enum State {
    Streaming,
    /// The timeline has ended; the message that says so may be still to be given.
    AtEnd(Option<ReplicationMessage>),
    Stopped,
}

/// A stream of WAL. Dropping it ends the connection.
#[derive(Debug)]
pub struct ReplicationStream {
    connection: Connection,
    /// Where the next byte of WAL is.
    expected: Lsn,
    state: State,
}

impl Connection {
    /// Begins to stream WAL from `start` on, of `timeline` or of the one that the server is on.
    ///
    /// # Errors
    /// `R0413`: of kind `NotFound` when there is no such slot; `Conflict` when somebody else reads from it. That the WAL was
    /// removed (`NotFound`), or is not written yet, comes with the first [`ReplicationStream::next`].
    pub fn start_replication(
        mut self,
        slot: Option<&str>,
        start: Lsn,
        timeline: Option<TimelineId>,
    ) -> Result<ReplicationStream> {
        self.need_replication()?;
        let slot = slot.map(|name| format!("SLOT {} ", quote_identifier(name))).unwrap_or_default();
        let timeline = timeline.map(|timeline| format!(" TIMELINE {timeline}")).unwrap_or_default();
        self.send_query(&format!("START_REPLICATION {slot}PHYSICAL {start}{timeline}"))?;
        let state = begin(&mut self).context("start replication")?;
        Ok(ReplicationStream { connection: self, expected: start, state })
    }
}

/// Reads the answer to `START_REPLICATION`.
fn begin(connection: &mut Connection) -> Result<State> {
    match connection.next_message(Wait::Silence(connection.silence))? {
        Frame::CopyBoth => Ok(State::Streaming),
        // An old timeline that ends at the very position: there is nothing to stream.
        Frame::Known(Message::RowDescription(_)) => Ok(State::AtEnd(Some(read_end(connection)?))),
        Frame::Known(Message::ErrorResponse(body)) => {
            let error = ServerError::read(body.fields()).into_error(connection.channel.who(), false);
            Err(connection.break_off(error))
        }
        Frame::Known(_) => Err(connection.odd("no stream")),
    }
}

impl ReplicationStream {
    /// The next message; `None` when none comes within `timeout`.
    ///
    /// After [`ReplicationMessage::EndOfTimeline`] and [`ReplicationMessage::ServerStopped`] nothing comes any more.
    ///
    /// # Errors
    /// Those of the server, and `R0411` when the connection breaks. The stream is over then.
    pub fn next(&mut self, timeout: Duration) -> Result<Option<ReplicationMessage>> {
        match &mut self.state {
            State::Streaming => {}
            State::AtEnd(message) => return Ok(message.take()),
            State::Stopped => return Ok(None),
        }
        let wait = Wait::Until(Instant::now() + timeout);
        let Some(frame) = self.connection.poll_message(wait)? else { return Ok(None) };
        match copy_data(frame) {
            Ok(data) => self.read(data).map(Some),
            Err(Frame::Known(Message::CopyDone)) => {
                self.send(frontend::copy_done)?;
                let end = read_end_with_columns(&mut self.connection)?;
                self.state = State::AtEnd(None);
                Ok(Some(end))
            }
            Err(Frame::Known(Message::CommandComplete(_))) => {
                self.state = State::Stopped;
                Ok(Some(ReplicationMessage::ServerStopped))
            }
            Err(Frame::Known(Message::ErrorResponse(body))) => {
                let error = ServerError::read(body.fields()).into_error(self.connection.channel.who(), false);
                Err(self.connection.break_off(error))
            }
            Err(_) => Err(self.connection.odd("a message that belongs into no stream")),
        }
    }

    /// Where the next byte of WAL will be.
    pub fn position(&self) -> Lsn {
        self.expected
    }

    /// Tells the server how far we are; with `wants_reply` it answers with a keepalive at once.
    pub fn status_update(&mut self, progress: Progress, wants_reply: bool) -> Result<()> {
        let mut update = Vec::with_capacity(34);
        update.put_u8(b'r');
        update.put_u64(progress.written.0);
        update.put_u64(progress.flushed.0);
        update.put_u64(progress.applied.0);
        update.put_i64(microseconds(Timestamp::now()));
        update.put_u8(u8::from(wants_reply));
        let channel = &mut self.connection.channel;
        let sent = channel
            .put(|buffer| {
                CopyData::new(&update[..])?.write(buffer);
                Ok(())
            })
            .and_then(|()| channel.send());
        sent.map_err(|error| self.connection.break_off(error))
    }

    /// A handle that ends the connection from another thread, so that a call that waits for the server ends.
    pub fn cancel_handle(&self) -> Result<CancelHandle> {
        self.connection.cancel_handle()
    }

    /// Ends the stream and gives the connection back. WAL that is still under way is thrown away.
    ///
    /// # Errors
    /// `R0411` when the server does not end it in time, or has stopped itself.
    pub fn stop(mut self) -> Result<Connection> {
        match self.state {
            State::AtEnd(_) => return Ok(self.connection),
            State::Stopped => {
                let error = super::error::unavailable(self.connection.channel.who(), "has shut down");
                return Err(self.connection.break_off(error));
            }
            State::Streaming => {}
        }
        self.send(frontend::copy_done)?;
        let deadline = Wait::Until(Instant::now() + self.connection.silence);
        loop {
            match self.connection.next_message(deadline)? {
                Frame::Known(Message::CopyData(_)) => {}
                Frame::Known(Message::CopyDone) => break,
                _ => return Err(self.connection.odd("a message that belongs into no stream")),
            }
        }
        // The timeline may have ended at the same moment; its row means nothing to who stops anyway.
        self.connection.finish(|_, _| Ok(()))?;
        Ok(self.connection)
    }

    fn send(&mut self, message: impl FnOnce(&mut bytes::BytesMut)) -> Result<()> {
        let channel = &mut self.connection.channel;
        let sent = channel
            .put(|buffer| {
                message(buffer);
                Ok(())
            })
            .and_then(|()| channel.send());
        sent.map_err(|error| self.connection.break_off(error))
    }

    /// Reads one piece of the stream and checks that it follows what came before.
    fn read(&mut self, data: Bytes) -> Result<ReplicationMessage> {
        let message = decode(data).map_err(|what| self.connection.odd(what))?;
        if let ReplicationMessage::XLogData { start, bytes, .. } = &message {
            let end = start.checked_add(bytes.len() as u64).filter(|_| *start == self.expected);
            let Some(end) = end else {
                let what = format!("WAL from `{start}` on, where `{}` must follow", self.expected);
                return Err(self.connection.odd(what));
            };
            self.expected = end;
        }
        Ok(message)
    }
}

/// The message inside copy data of a physical stream.
fn decode(mut data: Bytes) -> Result<ReplicationMessage, &'static str> {
    const SHORT: &str = "a message of the stream that is too short";
    let tag = data.try_get_u8().map_err(|_| SHORT)?;
    match tag {
        b'w' => {
            let start = Lsn(data.try_get_u64().map_err(|_| SHORT)?);
            let server_end = Lsn(data.try_get_u64().map_err(|_| SHORT)?);
            let server_time = time(data.try_get_i64().map_err(|_| SHORT)?)?;
            Ok(ReplicationMessage::XLogData { start, server_end, server_time, bytes: data })
        }
        b'k' => {
            let server_end = Lsn(data.try_get_u64().map_err(|_| SHORT)?);
            let server_time = time(data.try_get_i64().map_err(|_| SHORT)?)?;
            let reply_requested = data.try_get_u8().map_err(|_| SHORT)? != 0;
            Ok(ReplicationMessage::Keepalive { server_end, server_time, reply_requested })
        }
        _ => Err("a message of the stream of an unknown kind"),
    }
}

/// PostgreSQL counts microseconds from the year 2000 on; in seconds since 1970.
const YEAR_2000_SECONDS: i64 = 946_684_800;

/// The time that the server's `microseconds` mean.
///
/// # Errors
/// What is wrong with them.
pub(in crate::postgres) fn time(microseconds: i64) -> Result<Timestamp, &'static str> {
    let epoch = SignedDuration::from_secs(YEAR_2000_SECONDS);
    epoch
        .checked_add(SignedDuration::from_micros(microseconds))
        .and_then(|since| Timestamp::from_duration(since).ok())
        .ok_or("a time that no calendar has")
}

fn microseconds(time: Timestamp) -> i64 {
    // Both are within some thousand years: far from the limits of 64 bits.
    time.as_microsecond() - YEAR_2000_SECONDS * 1_000_000
}

/// The result that follows the end of a timeline, from its description on.
fn read_end_with_columns(connection: &mut Connection) -> Result<ReplicationMessage> {
    match connection.next_message(Wait::Silence(connection.silence))? {
        Frame::Known(Message::RowDescription(_)) => read_end(connection),
        Frame::Known(Message::ErrorResponse(body)) => {
            let error = ServerError::read(body.fields()).into_error(connection.channel.who(), false);
            Err(connection.break_off(error))
        }
        _ => Err(connection.odd("the end of a stream without a reason")),
    }
}

/// The row behind that description: the next timeline and where it begins.
fn read_end(connection: &mut Connection) -> Result<ReplicationMessage> {
    let mut end: Option<(TimelineId, Lsn)> = None;
    let columns: std::sync::Arc<[String]> = ["next_tli".to_owned(), "next_tli_startpos".to_owned()].into();
    connection.finish_with(columns, |_, part| {
        if let Part::Row(row) = part {
            end = Some((row.value("next_tli")?, row.lsn("next_tli_startpos")?));
        }
        Ok(())
    })?;
    let (next, switch) = end.ok_or_else(|| -> Error {
        protocol(connection.channel.who(), "the end of a timeline without the next one")
    })?;
    Ok(ReplicationMessage::EndOfTimeline { next, switch })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn keepalive(time: i64) -> Bytes {
        let mut data = vec![b'k'];
        data.put_u64(7);
        data.put_i64(time);
        data.put_u8(1);
        data.into()
    }

    #[test]
    fn times_count_from_the_year_2000() {
        let Ok(ReplicationMessage::Keepalive { server_end, server_time, reply_requested }) =
            decode(keepalive(0))
        else {
            panic!("no keepalive");
        };
        assert_eq!(server_time, "2000-01-01T00:00:00Z".parse().unwrap());
        assert_eq!((server_end, reply_requested), (Lsn(7), true));
        assert!(decode(keepalive(i64::MAX)).is_err());
        assert!(decode(keepalive(i64::MIN)).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_or_refused(tag in "[wkx]", bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            let _message = decode([tag.as_bytes(), &bytes].concat().into());
        }

        #[test]
        fn a_time_comes_back(microseconds in -1_000_000_000_000_000_000i64..1_000_000_000_000_000) {
            if let Ok(time) = time(microseconds) {
                prop_assert_eq!(super::microseconds(time), microseconds);
            }
        }
    }
}

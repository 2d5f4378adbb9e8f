//! Messages over a connection: cut out of the stream, bounded in length and time.

use super::error::{protocol, unavailable};
use super::{limits, tls};
use crate::net::Transport;
use crate::net::socket::{Socket, is_timeout};
use bytes::{Buf as _, Bytes, BytesMut};
use postgres_protocol::message::backend::Message;
use retoma_core::error::codes;
use retoma_core::{Error, ErrorKind, Result};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// A message from the server.
pub(super) enum Frame {
    /// One that `postgres-protocol` knows.
    Known(Message),
    /// Both sides send copy data from now on; that crate does not know it.
    CopyBoth,
}

/// How long a message may take to come.
#[derive(Debug, Clone, Copy)]
pub(super) enum Wait {
    /// Until then, whatever happens.
    Until(Instant),
    /// As long as something comes at least this often.
    Silence(Duration),
}

/// A connection that carries messages.
pub(super) struct Channel {
    transport: Transport,
    /// What was read and not taken yet.
    input: BytesMut,
    /// What is to be sent.
    output: BytesMut,
    /// The server, for messages.
    who: String,
    /// The largest message that is taken, in bytes.
    limit: usize,
    /// The read timeout that the socket has, so that it is not set anew for each read.
    timeout: Option<Duration>,
    is_cancelled: Arc<AtomicBool>,
    /// Set by somebody who does not know this connection.
    stop: Option<Arc<AtomicBool>>,
}

/// How often it is looked whether a stop was asked for.
const LOOK: Duration = Duration::from_millis(250);

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("who", &self.who).finish_non_exhaustive()
    }
}

impl Channel {
    /// Messages over a plain socket.
    pub(super) fn plain(socket: Socket, who: String) -> Self {
        Self::over(Transport::Plain(socket), who)
    }

    /// Messages over TLS.
    pub(super) fn tls(stream: tls::TlsStream, who: String) -> Self {
        Self::over(Transport::Tls(Box::new(stream)), who)
    }

    fn over(transport: Transport, who: String) -> Self {
        let (input, output) = (BytesMut::new(), BytesMut::new());
        let is_cancelled = Arc::new(AtomicBool::new(false));
        Self {
            transport,
            input,
            output,
            who,
            limit: limits::LOGIN_MESSAGE_BYTES,
            timeout: None,
            is_cancelled,
            stop: None,
        }
    }

    /// Takes larger messages from now on.
    pub(super) fn set_limit(&mut self, bytes: usize) {
        self.limit = bytes;
    }

    /// Nothing comes any more once this is set.
    pub(super) fn stop_when(&mut self, stop: Arc<AtomicBool>) {
        self.stop = Some(stop);
    }

    /// The server, for messages.
    pub(super) fn who(&self) -> &str {
        &self.who
    }

    /// Whether what is sent is encrypted.
    pub(super) fn tls_stream(&self) -> Option<&tls::TlsStream> {
        if let Transport::Tls(stream) = &self.transport { Some(stream) } else { None }
    }

    /// Whether nobody on a network sees what is sent.
    pub(super) fn is_private(&self) -> bool {
        self.tls_stream().is_some() || self.transport.socket().is_local()
    }

    /// A handle that ends the connection from another thread.
    pub(super) fn cancel_handle(&self) -> Result<CancelHandle> {
        let socket = self.transport.socket().try_clone().map_err(|error| self.broken(error))?;
        Ok(CancelHandle { socket: Arc::new(socket), is_cancelled: self.is_cancelled.clone() })
    }

    /// Ends the connection.
    pub(super) fn close(&self) {
        // One that is closed already needs no closing.
        let _was_open = self.transport.socket().shutdown().is_ok();
    }

    /// Puts a message behind those that wait to be sent.
    pub(super) fn put(&mut self, message: impl FnOnce(&mut BytesMut) -> io::Result<()>) -> Result<()> {
        let before = self.output.len();
        message(&mut self.output).map_err(|error| {
            self.output.truncate(before);
            let message = format!("what is to be sent to PostgreSQL is malformed: {error}");
            Error::new(ErrorKind::Invalid, codes::POSTGRES_REFUSED, message)
                .with_hint("texts for PostgreSQL hold no zero byte and are shorter than 1 GiB")
        })
    }

    /// Sends what waits.
    pub(super) fn send(&mut self) -> Result<()> {
        let result = self.transport.write_all(&self.output);
        // A password may have been in it; and a long statement's memory is given back.
        self.output.fill(0);
        if self.output.capacity() > 4 * limits::COPY_BYTES {
            self.output = BytesMut::new();
        }
        self.output.clear();
        result.map_err(|error| self.broken(error))
    }

    /// The next message; `None` when the time is over before it is there.
    pub(super) fn receive(&mut self, wait: Wait) -> Result<Option<Frame>> {
        let mut silent = Duration::ZERO;
        loop {
            // Before what has come already: a server that sends without an end is stopped too.
            if self.stop.as_ref().is_some_and(|stop| stop.load(Ordering::SeqCst)) {
                return Err(cancelled(&self.who));
            }
            if let Some(frame) = self.take()? {
                return Ok(Some(frame));
            }
            let left = match wait {
                Wait::Silence(timeout) => timeout.saturating_sub(silent),
                Wait::Until(deadline) => deadline.saturating_duration_since(Instant::now()),
            };
            let timeout = if self.stop.is_some() { left.min(LOOK) } else { left };
            if !timeout.is_zero() && self.fill(timeout)? {
                silent = Duration::ZERO;
            } else if timeout < left {
                silent += timeout;
            } else {
                return if self.is_cancelled() { Err(cancelled(&self.who)) } else { Ok(None) };
            }
        }
    }

    /// Whether a whole message, or its beginning, has been read already.
    #[cfg(test)]
    fn buffered(&self) -> usize {
        self.input.capacity()
    }

    /// A message that has been read as a whole.
    fn take(&mut self) -> Result<Option<Frame>> {
        const COPY_BOTH: u8 = b'W';
        let Some((head, _)) = self.input.split_first_chunk::<5>() else { return Ok(None) };
        let [tag, length @ ..] = *head;
        let length = u32::from_be_bytes(length);
        let whole = usize::try_from(length).ok().and_then(|length| length.checked_add(1));
        let Some(whole) = whole.filter(|whole| length >= 4 && *whole <= self.limit) else {
            let tag = char::from(tag).escape_default();
            let what = format!("a message `{tag}` of {length} bytes, where at most {} are taken", self.limit);
            return Err(protocol(&self.who, what));
        };
        if self.input.len() < whole {
            return Ok(None);
        }
        if tag == COPY_BOTH {
            self.input.advance(whole);
            return Ok(Some(Frame::CopyBoth));
        }
        // A buffer of its own, so that the parser sees this message alone.
        let mut message = self.input.split_to(whole);
        let parsed = Message::parse(&mut message).map_err(|error| protocol(&self.who, error))?;
        parsed.map(|message| Some(Frame::Known(message))).ok_or_else(|| protocol(&self.who, "half a message"))
    }

    /// Reads what is there; `false` when nothing came in time. Memory grows with what came, not with what was announced.
    fn fill(&mut self, timeout: Duration) -> Result<bool> {
        if self.timeout != Some(timeout) {
            self.transport.socket().set_read_timeout(timeout).map_err(|error| self.broken(error))?;
            self.timeout = Some(timeout);
        }
        let before = self.input.len();
        self.input.resize(before + limits::READ_BYTES, 0);
        let result = self.transport.read(&mut self.input[before..]);
        self.input.truncate(before + result.as_ref().map_or(0, |read| *read));
        match result {
            Ok(0) => Err(self.closed()),
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(true),
            Err(error) if is_timeout(&error) => Ok(false),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(self.closed()),
            Err(error) => Err(self.broken(error)),
        }
    }

    fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::SeqCst)
    }

    fn closed(&self) -> Error {
        if self.is_cancelled() {
            cancelled(&self.who)
        } else {
            unavailable(&self.who, "has closed the connection")
        }
    }

    fn broken(&self, error: io::Error) -> Error {
        if self.is_cancelled() {
            return cancelled(&self.who);
        }
        let what = if is_timeout(&error) {
            "does not take what we send".to_owned()
        } else {
            format!("is no longer reached: {error}")
        };
        unavailable(&self.who, what).with_source(error)
    }
}

fn cancelled(who: &str) -> Error {
    let message = format!("the connection with PostgreSQL at `{who}` was ended by us");
    Error::new(ErrorKind::Cancelled, codes::CANCELLED, message)
}

/// Ends a connection from another thread: who waits for the server stops with an error of kind `Cancelled`.
///
/// The server notices when it next sends or receives; a statement that it computes may go on until then.
#[derive(Debug, Clone)]
pub struct CancelHandle {
    socket: Arc<Socket>,
    is_cancelled: Arc<AtomicBool>,
}

impl CancelHandle {
    /// Ends the connection. Doing it again, or when it is closed already, changes nothing.
    pub fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::SeqCst);
        let _was_open = self.socket.shutdown().is_ok();
    }
}

/// Copy data as they came: `Bytes` share the buffer that was read into.
pub(super) fn copy_data(frame: Frame) -> Result<Bytes, Frame> {
    match frame {
        Frame::Known(Message::CopyData(body)) => Ok(body.into_bytes()),
        other => Err(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream;

    fn channel() -> (Channel, UnixStream) {
        let (ours, theirs) = UnixStream::pair().unwrap();
        (Channel::plain(Socket::Unix(ours), "test".into()), theirs)
    }

    const SHORT: Wait = Wait::Silence(Duration::from_millis(20));

    #[test]
    fn an_announced_length_takes_no_memory() {
        let (mut channel, mut server) = channel();
        channel.set_limit(limits::MESSAGE_BYTES);
        server.write_all(b"d\x03\xff\xff\xff12345").unwrap();
        assert!(channel.receive(SHORT).unwrap().is_none());
        assert!(channel.buffered() < 4 * limits::READ_BYTES, "{}", channel.buffered());
    }

    #[test]
    fn lengths_outside_the_limits_are_refused_at_once() {
        for length in [0u32, 3, 65_536, i32::MAX as u32, u32::MAX] {
            let (mut channel, mut server) = channel();
            server.write_all(b"d").unwrap();
            server.write_all(&length.to_be_bytes()).unwrap();
            let error = channel.receive(SHORT).err().unwrap();
            assert_eq!(error.code(), codes::POSTGRES_PROTOCOL, "{length}");
        }
    }

    #[test]
    fn messages_that_come_in_pieces_or_together_are_the_same() {
        let (mut channel, mut server) = channel();
        server.write_all(b"d\0\0\0\x07ab").unwrap();
        assert!(channel.receive(SHORT).unwrap().is_none());
        server.write_all(b"cW\0\0\0\x07\0\0\0c\0\0\0\x04").unwrap();
        let data = channel.receive(SHORT).unwrap().map(copy_data).unwrap().ok().unwrap();
        assert_eq!(&data[..], b"abc");
        assert!(matches!(channel.receive(SHORT).unwrap(), Some(Frame::CopyBoth)));
        assert!(matches!(channel.receive(SHORT).unwrap(), Some(Frame::Known(Message::CopyDone))));
        drop(server);
        assert_eq!(channel.receive(SHORT).err().unwrap().code(), codes::POSTGRES_UNAVAILABLE);
    }

    #[test]
    fn a_handle_wakes_who_waits() {
        let (mut channel, server) = channel();
        let handle = channel.cancel_handle().unwrap();
        let waiting =
            std::thread::spawn(move || channel.receive(Wait::Silence(Duration::from_mins(1))).err().unwrap());
        handle.cancel();
        assert_eq!(waiting.join().unwrap().kind(), ErrorKind::Cancelled);
        handle.cancel();
        drop(server);
    }

    #[test]
    fn a_stop_ends_a_wait_and_a_stream_of_messages() {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut channel, mut server) = channel();
        channel.stop_when(Arc::clone(&stop));
        server.write_all(&b"d\0\0\0\x05a".repeat(100)).unwrap();
        assert!(channel.receive(SHORT).unwrap().is_some());
        stop.store(true, Ordering::SeqCst);
        // 99 more have been read already.
        assert_eq!(channel.receive(SHORT).err().unwrap().kind(), ErrorKind::Cancelled);
        stop.store(false, Ordering::SeqCst);
        for _ in 0..99 {
            assert!(channel.receive(SHORT).unwrap().is_some());
        }
        assert!(channel.receive(Wait::Silence(2 * LOOK)).unwrap().is_none());
        let waiting =
            std::thread::spawn(move || channel.receive(Wait::Silence(Duration::from_mins(1))).err().unwrap());
        // The wait has begun by then, most of the time; it ends well whether it has or not.
        std::thread::sleep(LOOK / 2);
        stop.store(true, Ordering::SeqCst);
        assert_eq!(waiting.join().unwrap().kind(), ErrorKind::Cancelled);
        drop(server);
    }

    /// Whoever looks for a stop adds short waits up; what comes in between begins a new silence.
    #[test]
    fn a_message_that_comes_in_pieces_is_waited_for_as_long_as_pieces_come() {
        const MESSAGE: &[u8] = b"d\0\0\0\x07abc";
        let (mut channel, mut server) = channel();
        channel.stop_when(Arc::default());
        // All pieces together take longer than the silence may last; each of them takes far less.
        let pause = LOOK * 2 + LOOK / 2;
        let writing = std::thread::spawn(move || {
            for byte in MESSAGE {
                std::thread::sleep(pause);
                server.write_all(&[*byte]).unwrap();
            }
            server
        });
        assert!(channel.receive(Wait::Silence(LOOK * 12)).unwrap().is_some());
        drop(writing.join().unwrap());
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200), tag in "[A-Za-z0-9]") {
            let (mut channel, mut server) = channel();
            let length = u32::try_from(bytes.len() + 4).unwrap();
            server.write_all(&[tag.as_bytes(), &length.to_be_bytes(), &bytes].concat()).unwrap();
            server.write_all(&bytes).unwrap();
            drop(server);
            // Ends: each turn takes bytes or gives an error.
            while channel.receive(SHORT).is_ok() {}
        }
    }
}

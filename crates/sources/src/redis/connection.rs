//! A blocking connection: log in, ask, and take the bytes of a transfer. RESP 2, which every server speaks, is enough.
//!
//! Invariants: whatever a server sends, we never panic, never wait without a limit and never hold more than the limits of
//! [`super::resp`]; a password is never printed.

use super::address::{Address, Endpoint};
use super::error::{protocol, refused, unavailable};
use super::resp::{self, Value};
use crate::net::Transport;
use crate::net::socket::{self, Place, Socket, is_timeout};
use crate::net::tls::{self, Check, Trust, Trusted};
use bytes::{Buf as _, BytesMut};
use retoma_core::error::codes;
use retoma_core::{Result, ResultExt};
use std::io;
use std::time::{Duration, Instant};

/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// How long an answer may take. A server that is busy saves, or runs a script.
const ANSWER: Duration = Duration::from_mins(1);
/// How much is read at once, in bytes.
const READ_BYTES: usize = 64 << 10;

/// A connection that is logged in.
pub struct Connection {
    transport: Transport,
    /// What was read and not taken yet.
    input: BytesMut,
    /// The server, for messages.
    who: String,
    /// The read timeout that the socket has, so that it is not set anew for each read.
    timeout: Option<Duration>,
    is_private: bool,
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("who", &self.who).finish_non_exhaustive()
    }
}

impl Connection {
    /// Connects and logs in.
    ///
    /// # Errors
    /// `R0431` when nobody answers, `R0432` for a wrong login, `R0434` for TLS, `R0435` for another protocol.
    pub fn connect(address: &Address) -> Result<Self> {
        let deadline = Instant::now() + CONNECT;
        let who = address.endpoint().to_string();
        let (place, host) = match address.endpoint() {
            Endpoint::Tcp { host, port } => (Place::Tcp(host, *port), host.as_str()),
            Endpoint::Unix(path) => (Place::Unix(path), "localhost"),
        };
        let socket = Socket::connect(place, deadline)
            .map_err(|error| unavailable(&who, socket::reason(&error)).with_source(error))?;
        let is_local = socket.is_local();
        let transport = match address.tls() {
            None => Transport::Plain(socket),
            Some(with) => {
                let trust = Trust {
                    check: Check::ChainAndName,
                    trusted: with.authority.as_deref().map_or(Trusted::System, Trusted::File),
                    identity: with.identity.as_ref().map(|(own, key)| (own.as_path(), key.as_path())),
                    parameter: "cacert",
                    code: codes::REDIS_TLS,
                };
                Transport::Tls(Box::new(tls::handshake(&trust, host, socket, deadline)?))
            }
        };
        let is_private = is_local || address.tls().is_some();
        let mut connection = Self { transport, input: BytesMut::new(), who, timeout: None, is_private };
        connection.log_in(address)?;
        Ok(connection)
    }

    fn log_in(&mut self, address: &Address) -> Result<()> {
        if let Some(password) = address.password() {
            let password = password.expose().as_bytes();
            match address.user() {
                Some(user) => self.call(&[b"AUTH", user.as_bytes(), password])?,
                None => self.call(&[b"AUTH", password])?,
            };
        }
        self.call(&[b"PING"]).map(drop)
    }

    /// Whether nobody on a network sees what is sent.
    pub fn is_private(&self) -> bool {
        self.is_private
    }

    /// The server, for messages.
    pub(super) fn who(&self) -> &str {
        &self.who
    }

    /// Sends a command and gives its answer.
    ///
    /// # Errors
    /// What the server complains about: `R0432` for logins, `R0433` for other commands; `R0431`, `R0435`.
    pub fn call(&mut self, words: &[&[u8]]) -> Result<Value> {
        self.send(words)?;
        let deadline = Instant::now() + ANSWER;
        let value = loop {
            let taken = resp::take(&mut self.input).map_err(|what| protocol(&self.who, what))?;
            if let Some(value) = taken {
                break value;
            }
            self.fill(deadline.saturating_duration_since(Instant::now()))?;
        };
        let command = words.first().map(|word| String::from_utf8_lossy(word)).unwrap_or_default();
        match value {
            Value::Error(said) => Err(refused(&self.who, &command, &said)),
            value => Ok(value),
        }
    }

    /// Sends a command and gives its answer, which must be bytes.
    pub(super) fn bytes(&mut self, words: &[&[u8]]) -> Result<Vec<u8>> {
        match self.call(words)? {
            Value::Text(bytes) | Value::Bulk(bytes) => Ok(bytes),
            _ => Err(protocol(&self.who, "an answer of another kind than was asked for")),
        }
    }

    /// Sends a command and gives its answer, which must be a number.
    pub(super) fn number(&mut self, words: &[&[u8]]) -> Result<i64> {
        match self.call(words)? {
            Value::Integer(number) => Ok(number),
            _ => Err(protocol(&self.who, "an answer of another kind than was asked for")),
        }
    }

    /// Sends a command.
    pub(super) fn send(&mut self, words: &[&[u8]]) -> Result<()> {
        let mut output = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            output.extend(format!("${}\r\n", word.len()).into_bytes());
            output.extend(*word);
            output.extend(b"\r\n");
        }
        let sent = self.transport.write_all(&output);
        // A password may have been in it.
        output.fill(0);
        sent.map_err(|error| self.broken(&error)).context("send a command")
    }

    /// A line that the server sends outside of answers, without its end; empty lines are signs of life. `silence` is how
    /// long nothing may come, and `deadline` ends it all.
    pub(super) fn line(&mut self, silence: Duration, deadline: Instant) -> Result<Vec<u8>> {
        loop {
            let found = resp::line(&self.input).map_err(|what| protocol(&self.who, what))?;
            if let Some((line, rest)) = found {
                let (line, left) = (line.to_vec(), rest.len());
                self.input.advance(self.input.len() - left);
                if !line.is_empty() {
                    return Ok(line);
                }
                continue;
            }
            self.fill(silence.min(deadline.saturating_duration_since(Instant::now())))?;
        }
    }

    /// What was read and not taken yet.
    pub(super) fn input(&mut self) -> &mut BytesMut {
        &mut self.input
    }

    /// Reads what is there into the input. Memory grows with what came, not with what was announced.
    pub(super) fn fill(&mut self, silence: Duration) -> Result<()> {
        let before = self.input.len();
        self.input.resize(before + READ_BYTES, 0);
        let mut input = std::mem::take(&mut self.input);
        let read = self.read(&mut input[before..], silence);
        input.truncate(before + read.as_ref().map_or(0, |read| *read));
        self.input = input;
        read.map(drop)
    }

    /// Reads what is there past the input, which must be empty; at least one byte.
    pub(super) fn read(&mut self, buffer: &mut [u8], silence: Duration) -> Result<usize> {
        if silence.is_zero() {
            return Err(unavailable(&self.who, "does not answer in time"));
        }
        if self.timeout != Some(silence) {
            let set = self.transport.socket().set_read_timeout(silence);
            set.map_err(|error| self.broken(&error))?;
            self.timeout = Some(silence);
        }
        loop {
            return match self.transport.read(buffer) {
                Ok(0) => Err(unavailable(&self.who, "has closed the connection")),
                Ok(count) => Ok(count),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    Err(unavailable(&self.who, "has closed the connection"))
                }
                Err(error) if is_timeout(&error) => Err(unavailable(&self.who, "does not answer in time")),
                Err(error) => Err(self.broken(&error)),
            };
        }
    }

    fn broken(&self, error: &io::Error) -> retoma_core::Error {
        unavailable(&self.who, format!("is no longer reached: {error}"))
    }
}

//! The data set as a replica gets it: `PSYNC ? -1`, then the RDB with its length before it, or a mark behind it.
//!
//! The server forks and sends the state of one moment; with `rdb-only` (7.0) it keeps no stream of later writes for us,
//! so that a slow repository costs it nothing but the fork. We read as fast as the repository takes it.

use super::connection::Connection;
use super::error::{protocol, shown, unavailable};
use bytes::Buf as _;
use retoma_core::error::codes;
use retoma_core::{Error, ErrorKind, Result};
use std::time::{Duration, Instant};

/// How long the server may be silent. It sends a sign of life at least every ten seconds before the data.
const SILENCE: Duration = Duration::from_mins(2);
/// How long the server may take before the data come: it waits for a save that is under way, or saves to its disk first.
const PREPARE: Duration = Duration::from_hours(6);
/// Length of the mark behind a transfer of unknown length, in bytes.
const MARK_BYTES: usize = 40;

/// The position in the stream of writes that a transfer is the state at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Position {
    pub(super) replication_id: String,
    pub(super) offset: u64,
}

/// A transfer under way.
#[derive(Debug)]
pub(super) struct Transfer {
    connection: Connection,
    position: Position,
    length: Option<u64>,
    /// Bytes to come, where they are known.
    end: End,
    given_bytes: u64,
}

#[derive(Debug)]
enum End {
    After(u64),
    Mark([u8; MARK_BYTES]),
}

impl Transfer {
    /// Asks for the data set, and waits until it begins to come.
    pub(super) fn begin(mut connection: Connection) -> Result<Self> {
        // Older servers do not know the first; all can do without.
        for words in [
            &[b"REPLCONF" as &[u8], b"rdb-only", b"1"][..],
            &[b"REPLCONF", b"capa", b"eof", b"capa", b"psync2"],
        ] {
            if let Err(error) = connection.call(words)
                && (error.code() != codes::REDIS_REFUSED || error.kind() == ErrorKind::Unauthorized)
            {
                return Err(no_replication(error));
            }
        }
        connection.send(&[b"PSYNC", b"?", b"-1"])?;
        let deadline = Instant::now() + PREPARE;
        let said = connection.line(SILENCE, deadline).map_err(not_begun)?;
        let position = position(connection.who(), &said)?;
        let head = connection.line(SILENCE, deadline).map_err(not_begun)?;
        let end = end_of(connection.who(), &head)?;
        let length = if let End::After(length) = end { Some(length) } else { None };
        Ok(Self { connection, position, length, end, given_bytes: 0 })
    }

    /// What it is the state at.
    pub(super) fn position(&self) -> &Position {
        &self.position
    }

    /// Its length in bytes, where the server told it.
    pub(super) fn length(&self) -> Option<u64> {
        self.length
    }

    /// Fills the front of `buffer`; 0 at the end.
    ///
    /// # Errors
    /// `R0436` when it ends before its end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let count = loop {
            match &self.end {
                End::After(0) => return Ok(0),
                End::After(left) => {
                    let room = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
                    let count = if self.connection.input().is_empty() {
                        let read = self.connection.read(&mut buffer[..room], SILENCE);
                        read.map_err(|error| self.cut_short(&error))?
                    } else {
                        take(self.connection.input(), &mut buffer[..room])
                    };
                    self.end = End::After(left.saturating_sub(count as u64));
                    break count;
                }
                End::Mark(mark) => {
                    // The server falls silent behind the mark, so it is the end of what came.
                    let ready = self.connection.input().len().saturating_sub(MARK_BYTES);
                    if self.connection.input().ends_with(mark) {
                        self.connection.input().truncate(ready);
                        self.end = End::After(ready as u64);
                    } else if ready > 0 {
                        let room = ready.min(buffer.len());
                        break take(self.connection.input(), &mut buffer[..room]);
                    } else {
                        self.connection.fill(SILENCE).map_err(|error| self.cut_short(&error))?;
                    }
                }
            }
        };
        self.given_bytes += count as u64;
        Ok(count)
    }

    fn cut_short(&self, error: &Error) -> Error {
        let of = match self.length {
            Some(length) => format!("of {length} "),
            None => String::new(),
        };
        let message = format!(
            "the transfer from Redis at `{}` ended after {} {of}bytes, before its end: {}",
            self.connection.who(),
            self.given_bytes,
            error.message()
        );
        Error::new(ErrorKind::Unavailable, codes::REDIS_TRANSFER, message).with_hint(
            "see the server's log: it may have been stopped, run out of memory, or waited longer than `repl-timeout` for us",
        )
    }
}

fn take(input: &mut bytes::BytesMut, buffer: &mut [u8]) -> usize {
    let count = input.len().min(buffer.len());
    input.copy_to_slice(&mut buffer[..count]);
    count
}

/// `+FULLRESYNC id offset`.
fn position(who: &str, said: &[u8]) -> Result<Position> {
    if let Some(complaint) = said.strip_prefix(b"-") {
        return Err(no_replication(super::error::refused(who, "PSYNC", complaint)));
    }
    let odd = || protocol(who, format!("`{}` to PSYNC", shown(said)));
    let text = std::str::from_utf8(said).map_err(|_| odd())?;
    let mut words = text.strip_prefix("+FULLRESYNC ").ok_or_else(odd)?.split(' ');
    let (Some(id), Some(offset), None) = (words.next(), words.next(), words.next()) else {
        return Err(odd());
    };
    let is_id = id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    // Servers without any replica before may count from -1 or 0.
    let offset: i64 = offset.parse().map_err(|_| odd())?;
    if !is_id {
        return Err(odd());
    }
    Ok(Position { replication_id: id.to_owned(), offset: u64::try_from(offset).unwrap_or(0) })
}

/// `$length` or `$EOF:mark`.
fn end_of(who: &str, head: &[u8]) -> Result<End> {
    if let Some(complaint) = head.strip_prefix(b"-") {
        return Err(not_begun(unavailable(who, format!("gives up: `{}`", shown(complaint)))));
    }
    let odd = || protocol(who, format!("`{}` where the data set begins", shown(head)));
    let head = head.strip_prefix(b"$").ok_or_else(odd)?;
    if let Some(mark) = head.strip_prefix(b"EOF:") {
        return mark.try_into().map(End::Mark).map_err(|_| odd());
    }
    let length = std::str::from_utf8(head).ok().and_then(|text| text.parse().ok());
    length.map(End::After).ok_or_else(odd)
}

fn not_begun(error: Error) -> Error {
    if error.code() != codes::REDIS_UNAVAILABLE {
        return error;
    }
    let message = format!("the transfer did not begin: {}", error.message());
    Error::new(error.kind(), codes::REDIS_TRANSFER, message).with_hint(
        "see the server's log: it must be able to fork, and without `repl-diskless-sync` to write its data set to disk",
    )
}

/// Refused as a command, so there is no way; what passes by itself stays as it is.
fn no_replication(error: Error) -> Error {
    if error.code() != codes::REDIS_REFUSED {
        return error;
    }
    let kind = if error.kind() == ErrorKind::Invalid { ErrorKind::Unsupported } else { error.kind() };
    Error::new(kind, codes::REDIS_NO_REPLICATION, error.message().to_owned()).with_hint(
        "give the user `+psync +replconf`; a managed service that forbids `PSYNC` has exports of its own: put its RDB into \
         a folder that is a `files` component",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answers_to_psync_are_read_strictly() {
        let id = "0123456789abcdef0123456789abcdef01234567";
        let found = position("h", format!("+FULLRESYNC {id} 42").as_bytes()).unwrap();
        assert_eq!(found, Position { replication_id: id.to_owned(), offset: 42 });
        assert_eq!(position("h", format!("+FULLRESYNC {id} -1").as_bytes()).unwrap().offset, 0);
        for (said, code) in [
            ("+CONTINUE", codes::REDIS_PROTOCOL),
            ("+FULLRESYNC x 1", codes::REDIS_PROTOCOL),
            (&format!("+FULLRESYNC {id} 1 2"), codes::REDIS_PROTOCOL),
            (&format!("+FULLRESYNC {id}"), codes::REDIS_PROTOCOL),
            ("-ERR unknown command 'PSYNC'", codes::REDIS_NO_REPLICATION),
            ("-NOPERM no permissions", codes::REDIS_NO_REPLICATION),
            ("-NOMASTERLINK wait", codes::REDIS_UNAVAILABLE),
        ] {
            assert_eq!(position("h", said.as_bytes()).unwrap_err().code(), code, "{said}");
        }
    }

    #[test]
    fn the_end_is_a_length_or_a_mark() {
        assert!(matches!(end_of("h", b"$17"), Ok(End::After(17))));
        assert!(matches!(end_of("h", &[b"$EOF:", &[b'm'; 40][..]].concat()), Ok(End::Mark(_))));
        for head in ["$", "$-1", "$EOF:short", "$99999999999999999999", "*1", ""] {
            assert_eq!(end_of("h", head.as_bytes()).unwrap_err().code(), codes::REDIS_PROTOCOL, "{head}");
        }
        assert_eq!(end_of("h", b"-ERR no fork").unwrap_err().code(), codes::REDIS_TRANSFER);
    }
}

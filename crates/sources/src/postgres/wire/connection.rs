//! A connection that is logged in: statements and their answers.

use super::address::Address;
use super::channel::{CancelHandle, Channel, Frame, Wait};
use super::error::{ServerError, answer, protocol, unavailable};
use super::limits;
use super::login::log_in;
use super::rows::{self, Row, Rows};
use postgres_protocol::message::backend::Message;
use postgres_protocol::message::frontend;
use retoma_core::error::codes;
use retoma_core::{Error, ErrorKind, Result};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// SQL.
    Sql,
    /// Physical replication: commands of the replication protocol, no SQL.
    Replication,
    /// Both kinds of commands.
    ReplicationAndSql,
}

impl Mode {
    pub(super) fn parameter(self) -> Option<&'static str> {
        match self {
            Self::Sql => None,
            Self::Replication => Some("true"),
            Self::ReplicationAndSql => Some("database"),
        }
    }
}

/// Time limits. Nothing waits longer, whatever the server does.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For the whole login; `None` takes the address's.
    pub connect: Option<Duration>,
    /// How long the server may be silent while we wait for its answer. A checkpoint or a long query is silent.
    pub silence: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: None, silence: limits::SILENCE }
    }
}

/// A connection to a server. Dropping it ends the session; the server then rolls back an open transaction.
#[derive(Debug)]
pub struct Connection {
    pub(super) channel: Channel,
    mode: Mode,
    parameters: BTreeMap<String, String>,
    notices: Vec<ServerError>,
    pub(super) silence: Duration,
    is_in_transaction: bool,
    /// The server expects something else than a statement, or is gone: nothing more can be done here.
    is_broken: bool,
}

/// A part of the answer to a statement.
pub(super) enum Part {
    /// A row.
    Row(Row),
    /// A piece of `COPY … TO STDOUT`.
    Copy(bytes::Bytes),
    /// The end of a statement, with what it did: `INSERT 0 5`.
    Done(String),
    /// The server wants the data of `COPY … FROM STDIN`.
    WantsCopy,
}

impl Connection {
    /// Connects and logs in.
    ///
    /// # Errors
    /// `R0411` (not there), `R0412` (login refused), `R0415` (TLS), `R0416` (no PostgreSQL), `R0418` (no connection free).
    pub fn connect(address: &Address, mode: Mode, timeouts: Timeouts) -> Result<Self> {
        let timeout = timeouts.connect.unwrap_or_else(|| address.connect_timeout());
        let login = log_in(address, mode, Instant::now() + timeout)?;
        Ok(Self {
            channel: login.channel,
            mode,
            parameters: login.parameters,
            notices: Vec::new(),
            silence: timeouts.silence,
            is_in_transaction: false,
            is_broken: false,
        })
    }

    /// What the connection is for.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// A parameter that the server reports, as it is now: `server_version`, `TimeZone`, `in_hot_standby` and others.
    pub fn parameter(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }

    /// The server's version as `server_version_num` has it: 150018 for 15.18.
    ///
    /// # Errors
    /// `R0417` when the server reports none.
    pub fn server_version_num(&self) -> Result<u32> {
        let text = self.parameter("server_version").unwrap_or_default();
        version_num(text).ok_or_else(|| {
            answer(format!("the server's version is `{}`", super::error::shown(text.as_bytes())))
        })
    }

    /// Whether the connection is encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.channel.tls_stream().is_some()
    }

    /// Whether a transaction is open, also one that has failed.
    pub fn is_in_transaction(&self) -> bool {
        self.is_in_transaction
    }

    /// Whether nothing more can be done on this connection.
    pub fn is_broken(&self) -> bool {
        self.is_broken
    }

    /// How long the server may be silent from now on; see [`Timeouts::silence`].
    pub fn set_silence(&mut self, silence: Duration) {
        self.silence = silence;
    }

    /// A handle that ends the connection from another thread, so that a call that waits for the server ends.
    pub fn cancel_handle(&self) -> Result<CancelHandle> {
        self.channel.cancel_handle()
    }

    /// Once `stop` is set, from whichever thread, nothing is waited for or taken any more: calls end with an error of kind
    /// `Cancelled`.
    pub fn stop_when(&mut self, stop: Arc<AtomicBool>) {
        self.channel.stop_when(stop);
    }

    /// The notices that came since this was last called: the first [`limits::NOTICES`] of them.
    pub fn take_notices(&mut self) -> Vec<ServerError> {
        std::mem::take(&mut self.notices)
    }

    /// Runs `sql` and collects its rows. With several statements the rows of all are collected.
    ///
    /// # Errors
    /// `R0413` and others for the server's own errors, after which the connection goes on; `R0417` when the result is larger
    /// than [`limits::RESULT_BYTES`].
    pub fn query(&mut self, sql: &str) -> Result<Rows> {
        let mut rows = Vec::new();
        let mut bytes = 0;
        self.query_each(sql, |row| {
            bytes += row.size_bytes() + limits::ROW_COST_BYTES * (1 + row.columns().len());
            if bytes > limits::RESULT_BYTES {
                return Err(answer("the result is too large to be collected"));
            }
            rows.push(row.clone());
            Ok(())
        })?;
        Ok(Rows(rows))
    }

    /// Runs `sql` and hands each row to `each`, one at a time. Gives the number of rows.
    ///
    /// An error of `each` is given back at once, and closes the connection: what the server still sends is not waited for.
    pub fn query_each(&mut self, sql: &str, mut each: impl FnMut(&Row) -> Result<()>) -> Result<u64> {
        let mut rows = 0;
        self.run(sql, |_, part| match part {
            Part::Row(row) => {
                rows += 1;
                each(&row)
            }
            Part::Done(_) => Ok(()),
            Part::Copy(_) | Part::WantsCopy => {
                Err(answer("the statement copies; use `copy_out` or `copy_in`"))
            }
        })?;
        Ok(rows)
    }

    /// Runs `sql`, whose rows do not matter. Gives how many rows the last statement changed or read.
    pub fn execute(&mut self, sql: &str) -> Result<u64> {
        let mut tag = String::new();
        self.run(sql, |_, part| {
            match part {
                Part::Done(done) => tag = done,
                Part::Row(_) => {}
                Part::Copy(_) | Part::WantsCopy => {
                    return Err(answer("the statement copies; use `copy_out` or `copy_in`"));
                }
            }
            Ok(())
        })?;
        Ok(affected(&tag))
    }

    /// Sends `sql` and hands on its answer, to the end. After an error of the server the connection is ready again; after
    /// any other it is broken.
    pub(super) fn run(&mut self, sql: &str, each: impl FnMut(&mut Self, Part) -> Result<()>) -> Result<()> {
        self.send_query(sql)?;
        self.finish(each)
    }

    /// Sends `sql`; its answer must be read next.
    pub(super) fn send_query(&mut self, sql: &str) -> Result<()> {
        if self.is_broken {
            return Err(unavailable(self.channel.who(), "is no longer connected: an earlier error ended it"));
        }
        self.channel.put(|buffer| frontend::query(sql, buffer))?;
        self.channel.send().map_err(|error| self.break_off(error))
    }

    /// Reads answers until the server waits for the next statement.
    pub(super) fn finish(&mut self, each: impl FnMut(&mut Self, Part) -> Result<()>) -> Result<()> {
        self.finish_with(Arc::new([]), each)
    }

    /// As [`Connection::finish`], where the description of `columns` has been read already.
    pub(super) fn finish_with(
        &mut self,
        mut columns: Arc<[String]>,
        mut each: impl FnMut(&mut Self, Part) -> Result<()>,
    ) -> Result<()> {
        let mut refused: Option<Error> = None;
        // Messages that bring nothing: a server may send a few for each statement, and not without an end.
        let mut empty = 0;
        loop {
            let message = match self.next_message(Wait::Silence(self.silence)) {
                Ok(Frame::Known(message)) => message,
                Ok(Frame::CopyBoth) => {
                    let error = answer("the statement begins a stream; use `start_replication`");
                    return Err(self.break_off(error));
                }
                // A fatal error says why the connection is gone.
                Err(error) => return Err(refused.unwrap_or(error)),
            };
            if !matches!(message, Message::DataRow(_) | Message::CopyData(_)) {
                empty += 1;
                if empty > limits::ASIDES {
                    return Err(self.odd("an answer without an end"));
                }
            }
            let part = match message {
                Message::ReadyForQuery(body) => {
                    self.is_in_transaction = body.status() != b'I';
                    return refused.map_or(Ok(()), Err);
                }
                Message::ErrorResponse(body) => {
                    let error = ServerError::read(body.fields());
                    let is_fatal = error.is_fatal();
                    let error = error.into_error(self.channel.who(), false);
                    if is_fatal {
                        return Err(self.break_off(error));
                    }
                    refused.get_or_insert(error);
                    continue;
                }
                Message::RowDescription(body) => {
                    columns = rows::columns(&body).map_err(|error| self.odd(error))?;
                    continue;
                }
                Message::EmptyQueryResponse | Message::CopyDone | Message::CopyOutResponse(_) => continue,
                Message::DataRow(body) => Part::Row(
                    Row::read(&columns, &body).ok_or_else(|| self.odd("a row without its columns"))?,
                ),
                Message::CopyData(body) => Part::Copy(body.into_bytes()),
                Message::CommandComplete(body) => Part::Done(body.tag().unwrap_or_default().to_owned()),
                Message::CopyInResponse(_) => Part::WantsCopy,
                _ => return Err(self.odd("a message that belongs into no answer")),
            };
            each(self, part).map_err(|error| self.break_off(error))?;
        }
    }

    /// The next message that belongs to the answer; notices, notifications and parameters are put aside.
    pub(super) fn next_message(&mut self, wait: Wait) -> Result<Frame> {
        if let Some(frame) = self.poll_message(wait)? {
            return Ok(frame);
        }
        let error = unavailable(self.channel.who(), "does not answer in time");
        Err(self.break_off(error))
    }

    /// As [`Connection::next_message`]; `None` when the time is over, and the connection goes on.
    pub(super) fn poll_message(&mut self, wait: Wait) -> Result<Option<Frame>> {
        for _ in 0..limits::ASIDES {
            let frame = self.channel.receive(wait).map_err(|error| self.break_off(error))?;
            match frame {
                Some(Frame::Known(Message::NoticeResponse(body))) => {
                    if self.notices.len() < limits::NOTICES {
                        self.notices.push(ServerError::read(body.fields()));
                    }
                }
                Some(Frame::Known(Message::ParameterStatus(body))) => {
                    let (Ok(name), Ok(value)) = (body.name(), body.value()) else { continue };
                    if self.parameters.len() < limits::PARAMETERS || self.parameters.contains_key(name) {
                        self.parameters.insert(name.to_owned(), value.to_owned());
                    }
                }
                Some(Frame::Known(Message::NotificationResponse(_))) => {}
                other => return Ok(other),
            }
        }
        Err(self.odd("notices without an end"))
    }

    /// Marks the connection as unusable and closes it.
    pub(super) fn break_off(&mut self, error: Error) -> Error {
        self.is_broken = true;
        self.channel.close();
        error
    }

    pub(super) fn odd(&mut self, what: impl std::fmt::Display) -> Error {
        let error = protocol(self.channel.who(), what);
        self.break_off(error)
    }

    /// That this connection was opened for something else.
    pub(super) fn need_replication(&self) -> Result<()> {
        if self.mode == Mode::Sql {
            return Err(Error::internal(
                "a command of the replication protocol needs a connection in such a mode",
            ));
        }
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        if !self.is_broken {
            let terminate = self.channel.put(|buffer| {
                frontend::terminate(buffer);
                Ok(())
            });
            // The server also ends the session when the connection just closes.
            let _told = terminate.and_then(|()| self.channel.send()).is_ok();
        }
        self.channel.close();
    }
}

/// `15.18 (Debian 15.18-0+deb12u1)`, `17beta1`, `9.6.24` → as `server_version_num`; unreleased ones count as `.0`.
fn version_num(text: &str) -> Option<u32> {
    let number = |text: &str| {
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        text[..digits].parse::<u32>().ok()
    };
    let mut parts = text.split('.');
    let major = number(parts.next()?)?;
    let minor = parts.next().and_then(number).unwrap_or(0);
    if major >= 10 {
        return major.checked_mul(10_000)?.checked_add(minor);
    }
    Some(major * 10_000 + minor.checked_mul(100)? + parts.next().and_then(number).unwrap_or(0))
}

/// `INSERT 0 5`, `COPY 7`, `CREATE TABLE` → the number at the end, or 0.
fn affected(tag: &str) -> u64 {
    tag.rsplit(' ').next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// Something of ours failed while the server was sending or receiving.
pub(super) fn local_failure(error: std::io::Error) -> Error {
    Error::new(
        ErrorKind::Unavailable,
        codes::IO_FAILED,
        format!("the copied data cannot be handed on: {error}"),
    )
    .with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_of_every_form_are_read() {
        assert_eq!(version_num("15.18 (Debian 15.18-0+deb12u1)"), Some(150_018));
        assert_eq!(version_num("17beta1"), Some(170_000));
        assert_eq!(version_num("19devel"), Some(190_000));
        assert_eq!(version_num("9.6.24"), Some(90_624));
        for wrong in ["", "x", ".1", "99999999999.1", "4294967.1"] {
            assert_eq!(version_num(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn counts_are_read_from_the_servers_words() {
        assert_eq!(["INSERT 0 5", "COPY 7", "SELECT 0", "CREATE TABLE", ""].map(affected), [5, 7, 0, 0, 0]);
    }
}

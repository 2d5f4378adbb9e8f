//! A base backup over the replication protocol: archives in tar's format, then the server's own list of what is in them.
//!
//! Servers before version 15 send every archive, and the list, as a copy of its own; later ones send one copy whose messages
//! say what they are. Both come out the same here. What is in an archive is not looked at.

use super::channel::{Frame, Wait};
use super::connection::Connection;
use super::error::ServerError;
use super::rows::{self, Row};
use super::{limits, quote_literal};
use bytes::{Buf as _, Bytes};
use postgres_protocol::message::backend::Message;
use retoma_core::postgres::{Lsn, TimelineId};
use retoma_core::{Error, Result, ResultExt};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

/// From this version on there is one copy, and options stand in parentheses.
const ONE_COPY_FROM: u32 = 150_000;
/// The server's condition for pages whose checksums do not fit.
const DATA_CORRUPTED: &str = "XX001";

/// What comes out of a base backup, in this order: archives with their data, the manifest with its data, the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BackupPiece {
    /// An archive begins: of the tablespace of this number, or of the data directory.
    Archive(Option<u32>),
    /// The server's list of files begins.
    Manifest,
    /// Bytes of what has begun.
    Data(Bytes),
    /// Everything was sent; the data are consistent at this position of this timeline.
    End(Lsn, TimelineId),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    BetweenCopies,
    InCopy,
    AfterCopies,
    Ended,
}

/// A base backup that the server sends. Dropping it ends the connection, and with it the server's backup mode.
#[derive(Debug)]
pub struct BaseBackup {
    connection: Connection,
    start: (Lsn, TimelineId),
    tablespaces: Vec<(u32, String)>,
    is_one_copy: bool,
    /// The archives that are still to begin, where each is a copy.
    archives: VecDeque<Option<u32>>,
    has_manifest_begun: bool,
    phase: Phase,
}

impl Connection {
    /// Begins a base backup with a checkpoint, for which the server may take `checkpoint`. Without WAL; with a manifest of CRC-32C;
    /// the server verifies checksums of pages where it has them.
    ///
    /// # Errors
    /// `R0413` and others of the server.
    pub fn start_base_backup(mut self, label: &str, checkpoint: Duration) -> Result<BaseBackup> {
        self.need_replication()?;
        let is_one_copy = self.server_version_num()? >= ONE_COPY_FROM;
        let silence = std::mem::replace(&mut self.silence, checkpoint);
        self.send_query(&command(label, is_one_copy))?;
        let start = position(&mut self).context("begin a base backup")?;
        self.silence = silence;
        let mut tablespaces = Vec::new();
        let mut archives = VecDeque::new();
        for row in result(&mut self).context("read which tablespaces there are")? {
            let oid: Option<u32> = row.optional("spcoid")?;
            archives.push_back(oid);
            if let Some(oid) = oid {
                tablespaces.push((oid, row.text("spclocation")?.to_owned()));
            }
        }
        Ok(BaseBackup {
            connection: self,
            start,
            tablespaces,
            is_one_copy,
            archives,
            has_manifest_begun: false,
            phase: Phase::BetweenCopies,
        })
    }
}

/// The statement, in the form that the server knows.
fn command(label: &str, is_one_copy: bool) -> String {
    let label = quote_literal(label);
    if is_one_copy {
        format!(
            "BASE_BACKUP (LABEL {label}, CHECKPOINT 'fast', WAIT 0, WAL 0, TABLESPACE_MAP 1, VERIFY_CHECKSUMS 1, \
             MANIFEST 'yes', MANIFEST_CHECKSUMS 'CRC32C')"
        )
    } else {
        format!(
            "BASE_BACKUP LABEL {label} FAST NOWAIT TABLESPACE_MAP MANIFEST 'yes' MANIFEST_CHECKSUMS 'CRC32C'"
        )
    }
}

/// The rows of one result among several.
fn result(connection: &mut Connection) -> Result<Vec<Row>> {
    let (mut columns, mut rows, mut bytes): (Option<Arc<[String]>>, _, _) = (None, Vec::new(), 0);
    loop {
        match message(connection)? {
            Message::RowDescription(body) if columns.is_none() => {
                columns = Some(rows::columns(&body).map_err(|error| connection.odd(error))?);
            }
            Message::DataRow(body) => {
                let row = columns.as_ref().and_then(|columns| Row::read(columns, &body));
                let row = row.ok_or_else(|| connection.odd("a row without its columns"))?;
                bytes += row.size_bytes() + limits::ROW_COST_BYTES;
                if bytes > limits::RESULT_BYTES {
                    return Err(connection.odd("a result that is too large"));
                }
                rows.push(row);
            }
            Message::CommandComplete(_) => return Ok(rows),
            _ => return Err(connection.odd("a message that belongs into no result")),
        }
    }
}

/// A result that is one position.
fn position(connection: &mut Connection) -> Result<(Lsn, TimelineId)> {
    let rows = result(connection)?;
    let [row] = rows.as_slice() else { return Err(connection.odd("no position of a backup")) };
    Ok((row.lsn("recptr")?, row.value("tli")?))
}

/// The next message of the answer; an error of the server ends the connection.
fn message(connection: &mut Connection) -> Result<Message> {
    match connection.next_message(Wait::Silence(connection.silence))? {
        Frame::Known(Message::ErrorResponse(body)) => {
            let error = ServerError::read(body.fields()).into_error(connection.channel.who(), false);
            Err(connection.break_off(error))
        }
        Frame::Known(message) => Ok(message),
        Frame::CopyBoth => Err(connection.odd("a stream instead of a base backup")),
    }
}

impl BaseBackup {
    /// From where on WAL is needed, and its timeline.
    pub fn start(&self) -> (Lsn, TimelineId) {
        self.start
    }

    /// The tablespaces beside the two that every server has: number and place.
    pub fn tablespaces(&self) -> &[(u32, String)] {
        &self.tablespaces
    }

    /// The next piece. After [`BackupPiece::End`] only [`BaseBackup::finish`] is left.
    ///
    /// # Errors
    /// Those of the server, and `R0411` when the connection breaks. The backup is over then.
    pub fn next_piece(&mut self) -> Result<BackupPiece> {
        for _ in 0..limits::ASIDES {
            match self.phase {
                Phase::BetweenCopies => {
                    let Message::CopyOutResponse(_) = message(&mut self.connection)? else {
                        return Err(self.connection.odd("something else than a copy in a base backup"));
                    };
                    self.phase = Phase::InCopy;
                    if !self.is_one_copy {
                        let archive = self.archives.pop_front();
                        self.has_manifest_begun = archive.is_none();
                        return Ok(archive.map_or(BackupPiece::Manifest, BackupPiece::Archive));
                    }
                }
                Phase::InCopy => match message(&mut self.connection)? {
                    Message::CopyData(body) if !self.is_one_copy => {
                        return Ok(BackupPiece::Data(body.into_bytes()));
                    }
                    Message::CopyData(body) => {
                        let piece = decode(body.into_bytes()).map_err(|what| self.connection.odd(what))?;
                        if let Some(piece) = piece {
                            return Ok(piece);
                        }
                    }
                    Message::CopyDone if self.is_one_copy || self.has_manifest_begun => {
                        self.phase = Phase::AfterCopies;
                    }
                    Message::CopyDone => self.phase = Phase::BetweenCopies,
                    _ => return Err(self.connection.odd("a message that belongs into no base backup")),
                },
                Phase::AfterCopies => {
                    let (lsn, timeline) = position(&mut self.connection)?;
                    self.phase = Phase::Ended;
                    return Ok(BackupPiece::End(lsn, timeline));
                }
                Phase::Ended => return Err(Error::internal("a base backup is read beyond its end")),
            }
        }
        Err(self.connection.odd("news of a base backup's progress without an end"))
    }

    /// After the end: gives the connection back, for the WAL; and the server's complaint, if it found pages whose checksums do
    /// not fit.
    ///
    /// # Errors
    /// Any other error of the server.
    pub fn finish(mut self) -> Result<(Connection, Option<Error>)> {
        if self.phase != Phase::Ended {
            return Err(Error::internal("a base backup is finished before its end"));
        }
        match self.connection.finish(|_, _| Ok(())) {
            Ok(()) => Ok((self.connection, None)),
            Err(error) if !self.connection.is_broken() && super::sqlstate(&error) == Some(DATA_CORRUPTED) => {
                Ok((self.connection, Some(error)))
            }
            Err(error) => Err(error),
        }
    }
}

/// The piece in a message of the one copy; `None` for one that only tells the progress.
fn decode(mut data: Bytes) -> Result<Option<BackupPiece>, &'static str> {
    match data.try_get_u8() {
        Ok(b'd') => Ok(Some(BackupPiece::Data(data))),
        Ok(b'm') => Ok(Some(BackupPiece::Manifest)),
        Ok(b'p') => Ok(None),
        Ok(b'n') => {
            let name = data.split(|byte| *byte == 0).next().unwrap_or_default();
            let stem = name.strip_suffix(b".tar").and_then(|stem| std::str::from_utf8(stem).ok());
            let archive = match stem {
                Some("base") => Some(None),
                Some(number) => number.parse().ok().map(Some),
                None => None,
            };
            archive.map(|it| Some(BackupPiece::Archive(it))).ok_or("an archive of an unknown name")
        }
        _ => Err("a message of a base backup of an unknown kind"),
    }
}

#[cfg(test)]
mod tests;

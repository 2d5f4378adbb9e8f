//! The archives of a base backup as they come: cut into entries, contents summed up and their pages looked at on the way.
//!
//! Nothing is held but the piece that came last, and the server's list of files. Whoever takes an entry reads all of it before
//! the next one.

use super::tar::{self, BLOCK_BYTES, Entry, Kind};
use crate::postgres::page::{self, PAGE_BYTES, Verdict};
use crate::postgres::wire::{BackupPiece, BaseBackup};
use bytes::{Buf as _, Bytes};
use retoma_core::postgres::{Lsn, TimelineId};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The list of a server with a million files stays below.
const MANIFEST_LIMIT_BYTES: usize = 512 << 20;
/// So many messages without a byte come in a row at most.
const EMPTY_MAX: u32 = 10_000;
/// So many zeros an archive ends with at most; servers send two blocks.
const END_BYTES_MAX: usize = 1 << 20;
/// So many bad pages of one file are remembered.
const BAD_PAGES_MAX: usize = 64;

/// Where the pieces come from.
pub(super) trait Pieces: Send {
    fn next(&mut self) -> Result<BackupPiece>;
}

impl Pieces for BaseBackup {
    fn next(&mut self) -> Result<BackupPiece> {
        self.next_piece()
    }
}

/// What comes next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The archive of the data directory, or of the tablespace of this number.
    Archive(Option<u32>),
    /// An entry of it; a file's contents are to be read now.
    Entry(Entry),
    /// The server's list.
    Manifest(Vec<u8>),
    /// All has come.
    End(Lsn, TimelineId),
}

/// What is known of a file that was read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) size_bytes: u64,
    pub(super) crc: u32,
    /// Wrong pages, by block and LSN.
    pub(super) wrong_pages: Vec<(u32, u64)>,
    /// Wrong pages beyond those that are remembered.
    pub(super) wrong_more: u64,
}

/// See the module.
#[derive(Debug)]
pub(super) struct Incoming<P> {
    pieces: Option<P>,
    /// What came of the current archive or list and was not taken.
    data: Bytes,
    /// What came behind it.
    ahead: Option<BackupPiece>,
    in_archive: bool,
    /// Of the current file.
    left_bytes: u64,
    padding_bytes: usize,
    sum: Sum,
    pages: Option<Pages>,
    /// Why nothing more comes.
    broken: Option<Error>,
}

pub(super) fn lock<P>(incoming: &Mutex<Incoming<P>>) -> MutexGuard<'_, Incoming<P>> {
    incoming.lock().unwrap_or_else(PoisonError::into_inner)
}

fn malformed(what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, codes::POSTGRES_PROTOCOL, format!("PostgreSQL sends {what}"))
        .with_hint("see that the address is that of a PostgreSQL server; then report this")
}

impl<P: Pieces> Incoming<P> {
    pub(super) fn new(pieces: P) -> Self {
        Self {
            pieces: Some(pieces),
            data: Bytes::new(),
            ahead: None,
            in_archive: false,
            left_bytes: 0,
            padding_bytes: 0,
            sum: Sum::default(),
            pages: None,
            broken: None,
        }
    }

    /// Where the pieces came from, once; nothing comes after that.
    pub(super) fn take_pieces(&mut self) -> Option<P> {
        self.pieces.take()
    }

    /// The next step.
    ///
    /// # Errors
    /// What the server says; `R0416` for what is no archive. Nothing comes after that.
    pub(super) fn next(&mut self) -> Result<Step> {
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        if self.left_bytes > 0 {
            return Err(Error::internal("a file of a base backup was not read to its end"));
        }
        self.skip_padding()?;
        if self.in_archive {
            if let Some(entry) = self.header()? {
                self.begin(&entry);
                return Ok(Step::Entry(entry));
            }
            self.rest_is_zeros()?;
            self.in_archive = false;
        }
        match self.take_ahead()? {
            BackupPiece::Archive(tablespace) => {
                self.in_archive = true;
                Ok(Step::Archive(tablespace))
            }
            BackupPiece::Manifest => self.manifest().map(Step::Manifest),
            BackupPiece::End(lsn, timeline) => Ok(Step::End(lsn, timeline)),
            BackupPiece::Data(_) => Err(malformed("data outside of an archive")),
        }
    }

    /// The pages of the current file are looked at, from this block on.
    pub(super) fn look_at_pages(&mut self, first_block: u32) {
        self.pages = Some(Pages { next_block: first_block, held: Vec::new() });
    }

    /// Fills the front of `buffer` with what comes of the current file; 0 at its end.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.left_bytes == 0 || buffer.is_empty() {
            return Ok(0);
        }
        match self.fill() {
            Ok(true) => {}
            Ok(false) => return Err(self.fail(malformed("an archive that ends within a file"))),
            Err(error) => return Err(self.fail(error)),
        }
        let left = usize::try_from(self.left_bytes).unwrap_or(usize::MAX);
        let count = buffer.len().min(self.data.len()).min(left);
        buffer[..count].copy_from_slice(&self.data[..count]);
        self.data.advance(count);
        self.left_bytes -= count as u64;
        self.sum.crc = crc32c::crc32c_append(self.sum.crc, &buffer[..count]);
        if let Some(pages) = &mut self.pages {
            pages.look(&buffer[..count], &mut self.sum);
        }
        Ok(count)
    }

    /// What the file that was read last is; once.
    pub(super) fn take_sum(&mut self) -> Sum {
        self.pages = None;
        std::mem::take(&mut self.sum)
    }

    /// A reader's errors make a file unreadable; here one ends the backup, with the next step.
    fn fail(&mut self, error: Error) -> Error {
        let shown = Error::new(error.kind(), error.code(), error.message().to_owned());
        self.broken = Some(error);
        shown
    }

    fn begin(&mut self, entry: &Entry) {
        if entry.kind == Kind::File {
            self.left_bytes = entry.size_bytes;
            self.padding_bytes = tar::padding_bytes(entry.size_bytes);
            self.sum = Sum { size_bytes: entry.size_bytes, ..Sum::default() };
        }
    }

    /// The next header; `None` at the archive's end, with or without zeros.
    fn header(&mut self) -> Result<Option<Entry>> {
        let mut block = [0; BLOCK_BYTES];
        let mut filled = 0;
        while filled < BLOCK_BYTES {
            if !self.fill()? {
                let is_end = filled == 0;
                return if is_end {
                    Ok(None)
                } else {
                    Err(malformed("an archive that ends within a header"))
                };
            }
            let count = self.data.len().min(BLOCK_BYTES - filled);
            block[filled..filled + count].copy_from_slice(&self.data[..count]);
            self.data.advance(count);
            filled += count;
        }
        tar::header(&block).map_err(malformed)
    }

    fn skip_padding(&mut self) -> Result<()> {
        while self.padding_bytes > 0 {
            if !self.fill()? {
                return Err(malformed("an archive that ends behind a file"));
            }
            let count = self.data.len().min(self.padding_bytes);
            self.data.advance(count);
            self.padding_bytes -= count;
        }
        Ok(())
    }

    fn rest_is_zeros(&mut self) -> Result<()> {
        let mut zeros = 0;
        while self.fill()? {
            zeros += self.data.len();
            if zeros > END_BYTES_MAX || self.data.iter().any(|byte| *byte != 0) {
                return Err(malformed("something behind the end of an archive"));
            }
            self.data.clear();
        }
        Ok(())
    }

    fn manifest(&mut self) -> Result<Vec<u8>> {
        let mut manifest = Vec::new();
        while self.fill()? {
            manifest.extend_from_slice(&self.data);
            self.data.clear();
            if manifest.len() > MANIFEST_LIMIT_BYTES {
                return Err(malformed("a manifest that is too long"));
            }
        }
        Ok(manifest)
    }

    /// Whether there are data of what has begun.
    fn fill(&mut self) -> Result<bool> {
        let mut empty = 0;
        while self.data.is_empty() {
            if empty > EMPTY_MAX {
                return Err(malformed("pieces of a base backup without a byte, and no end of them"));
            }
            empty += 1;
            match self.take_ahead()? {
                BackupPiece::Data(data) => self.data = data,
                other => {
                    self.ahead = Some(other);
                    return Ok(false);
                }
            }
        }
        Ok(true)
    }

    fn take_ahead(&mut self) -> Result<BackupPiece> {
        if let Some(piece) = self.ahead.take() {
            return Ok(piece);
        }
        let pieces = self.pieces.as_mut();
        pieces.ok_or_else(|| Error::internal("a base backup is read beyond its end"))?.next()
    }
}

/// The pages of one file.
#[derive(Debug)]
struct Pages {
    next_block: u32,
    /// The beginning of a page whose rest has not come.
    held: Vec<u8>,
}

impl Pages {
    fn look(&mut self, mut bytes: &[u8], sum: &mut Sum) {
        if !self.held.is_empty() {
            let (front, rest) = bytes.split_at(bytes.len().min(PAGE_BYTES - self.held.len()));
            self.held.extend_from_slice(front);
            bytes = rest;
            if self.held.len() < PAGE_BYTES {
                return;
            }
            let held = std::mem::take(&mut self.held);
            self.page(&held, sum);
        }
        let mut pages = bytes.chunks_exact(PAGE_BYTES);
        for page in &mut pages {
            self.page(page, sum);
        }
        self.held.extend_from_slice(pages.remainder());
    }

    fn page(&mut self, page: &[u8], sum: &mut Sum) {
        let block = self.next_block;
        self.next_block = block.saturating_add(1);
        let Ok(page) = <&[u8; PAGE_BYTES]>::try_from(page) else { return };
        if page::verdict(page, block) != Verdict::Wrong {
            return;
        }
        if sum.wrong_pages.len() < BAD_PAGES_MAX {
            sum.wrong_pages.push((block, page::lsn(page)));
        } else {
            sum.wrong_more += 1;
        }
    }
}

#[cfg(test)]
mod tests;

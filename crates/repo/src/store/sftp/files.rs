//! What a store does with the files of a server, each in one or a few requests.

use super::session::{Failure, Session, status};
use super::wire::{self, Answer, Attributes, Entry, Request, Room};
use bytes::Bytes;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use std::ops::Range;

/// How much one request reads or writes, in bytes: what every server understands (section 3 of the draft).
pub(super) const PIECE_BYTES: usize = 32 * 1024;
/// Requests under way for one file: 2 MiB, which is 100 MB/s over a way of 20 ms.
const PIECES_AT_ONCE: usize = 64;
/// How much is set aside before any of it has come, in bytes: the server may name any size.
const ASIDE_BYTES: u64 = 32 << 20;
/// How many names one folder may have. More fit into memory, but a server may go on for ever.
const MAX_ENTRIES: usize = 1 << 22;

/// A file or folder that is open on the server. Close it with [`Session::close`].
#[derive(Debug, Clone)]
pub(super) struct Handle(Bytes);

impl Session {
    pub(super) async fn open(&self, path: Bytes, flags: u32) -> Result<Handle, Failure> {
        self.handle(Request::Open { path, flags, mode: 0o600 }).await
    }

    async fn handle(&self, request: Request) -> Result<Handle, Failure> {
        match self.ask(request).await? {
            Answer::Handle(handle) => Ok(Handle(handle)),
            _ => Err(Failure::Nonsense("it answers with something else than a handle")),
        }
    }

    /// Nobody waits for it: what matters was synced before.
    pub(super) async fn close(&self, handle: Handle) {
        self.leave(Request::Close { handle: handle.0 }).await;
    }

    pub(super) async fn fsync(&self, handle: &Handle) -> Result<(), Failure> {
        self.tell(Request::Fsync { handle: handle.0.clone() }).await
    }

    /// About what a link points to.
    pub(super) async fn status(&self, path: Bytes) -> Result<Attributes, Failure> {
        self.attributes(Request::Status { path }).await
    }

    /// About a link itself.
    pub(super) async fn link_status(&self, path: Bytes) -> Result<Attributes, Failure> {
        self.attributes(Request::LinkStatus { path }).await
    }

    pub(super) async fn file_status(&self, handle: &Handle) -> Result<Attributes, Failure> {
        self.attributes(Request::FileStatus { handle: handle.0.clone() }).await
    }

    async fn attributes(&self, request: Request) -> Result<Attributes, Failure> {
        match self.ask(request).await? {
            Answer::Attributes(attributes) => Ok(attributes),
            _ => Err(Failure::Nonsense("it answers with something else than attributes")),
        }
    }

    pub(super) async fn remove(&self, path: Bytes) -> Result<(), Failure> {
        self.tell(Request::Remove { path }).await
    }

    pub(super) async fn make_folder(&self, path: Bytes) -> Result<(), Failure> {
        self.tell(Request::MakeFolder { path, mode: 0o700 }).await
    }

    /// Never replaces what has the name `to`.
    pub(super) async fn hard_link(&self, from: Bytes, to: Bytes) -> Result<(), Failure> {
        self.tell(Request::HardLink { from, to }).await
    }

    /// Replaces what has the name `to`.
    pub(super) async fn posix_rename(&self, from: Bytes, to: Bytes) -> Result<(), Failure> {
        self.tell(Request::PosixRename { from, to }).await
    }

    /// `None` where the server cannot tell.
    pub(super) async fn room(&self, path: Bytes) -> Option<Room> {
        if !self.offers(wire::STATVFS) {
            return None;
        }
        match self.ask(Request::Statvfs { path }).await {
            Ok(Answer::Extended(bytes)) => wire::room(bytes).ok(),
            _ => None,
        }
    }

    /// Writes all of `data` to a new file. Pieces arrive in any order, all before it returns.
    pub(super) async fn write(&self, handle: &Handle, data: &Bytes) -> Result<(), Failure> {
        let pieces = (0..data.len()).step_by(PIECE_BYTES).map(|start| {
            let piece = data.slice(start..data.len().min(start + PIECE_BYTES));
            self.tell(Request::Write { handle: handle.0.clone(), offset: start as u64, data: piece })
        });
        stream::iter(pieces).buffer_unordered(PIECES_AT_ONCE).try_collect().await
    }

    /// Reads bytes `range` of a file; `None` when it ends before.
    pub(super) async fn read(&self, handle: &Handle, range: Range<u64>) -> Result<Option<Bytes>, Failure> {
        let length = range.end.saturating_sub(range.start);
        let pieces = range.clone().step_by(PIECE_BYTES).map(|start| {
            let end = range.end.min(start.saturating_add(PIECE_BYTES as u64));
            self.piece(handle, start..end)
        });
        let mut pieces = stream::iter(pieces).buffered(PIECES_AT_ONCE);
        let mut all = Vec::with_capacity(usize::try_from(length.min(ASIDE_BYTES)).unwrap_or_default());
        while let Some(piece) = pieces.try_next().await? {
            match piece {
                Some(parts) => parts.iter().for_each(|part| all.extend_from_slice(part)),
                None => return Ok(None),
            }
        }
        Ok(Some(all.into()))
    }

    /// A server may give less than was asked for, as often as it likes, but never nothing.
    async fn piece(&self, handle: &Handle, range: Range<u64>) -> Result<Option<Vec<Bytes>>, Failure> {
        let mut parts = Vec::with_capacity(1);
        let mut offset = range.start;
        while offset < range.end {
            let missing = range.end - offset;
            let length = u32::try_from(missing).unwrap_or(u32::MAX);
            match self.ask(Request::Read { handle: handle.0.clone(), offset, length }).await {
                Ok(Answer::Data(part)) if !part.is_empty() && part.len() as u64 <= missing => {
                    offset += part.len() as u64;
                    parts.push(part);
                }
                Ok(_) => return Err(Failure::Nonsense("it gives other data than was asked for")),
                Err(failure) if failure.is(status::END) => return Ok(None),
                Err(failure) => return Err(failure),
            }
        }
        Ok(Some(parts))
    }

    /// All that is in a folder, without `.` and `..`.
    pub(super) async fn entries(&self, path: Bytes) -> Result<Vec<Entry>, Failure> {
        let handle = self.handle(Request::OpenFolder { path }).await?;
        let mut found = Vec::new();
        let outcome = loop {
            match self.ask(Request::ReadFolder { handle: handle.0.clone() }).await {
                Ok(Answer::Names(entries)) if !entries.is_empty() => {
                    found
                        .extend(entries.into_iter().filter(|entry| !matches!(&entry.name[..], b"." | b"..")));
                }
                Ok(_) => break Err(Failure::Nonsense("it gives something else than names")),
                Err(failure) if failure.is(status::END) => break Ok(found),
                Err(failure) => break Err(failure),
            }
            if found.len() > MAX_ENTRIES {
                break Err(Failure::Nonsense("its folder does not end"));
            }
        };
        self.close(handle).await;
        outcome
    }
}

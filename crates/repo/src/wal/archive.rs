//! One server's WAL: put and get.

use super::name::{PartName, Place, WalObject};
use super::{FOLDER, LIMIT_BYTES};
use crate::lane::{Lane, Opened};
use crate::repository::Repository;
use crate::store::{BlockingStore, Key, PutMode};
use bytes::Bytes;
use retoma_core::postgres::{SegmentHeader, SegmentName, SegmentSize, TimelineHistory, WalFileName};
use retoma_core::{Error, ErrorKind, Result, ResultExt as _, error::codes};
use std::cmp::Reverse;

/// A history file or a backup's history file is some hundred bytes; nothing larger is one.
const TEXT_LIMIT_BYTES: usize = 16 << 20;

/// What a push found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pushed {
    /// It is stored now.
    New,
    /// It was stored before, with the same contents.
    Same,
}

/// A segment that is laid together from parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assembled {
    /// The whole segment, zeros behind what is known.
    pub bytes: Vec<u8>,
    /// So many bytes at its beginning are known.
    pub known_bytes: usize,
}

/// The WAL of one server, as one component of a repository. Cheap to clone; makes no calls until asked.
#[derive(Debug, Clone)]
pub struct Archive {
    store: BlockingStore,
    lane: Lane,
    component: String,
    system_identifier: u64,
}

impl Archive {
    /// The archive of the server with this system identifier. It need not have an object yet.
    ///
    /// # Errors
    /// `Invalid` with `R0304` for a component that cannot be part of a name.
    pub fn new(repository: &Repository, component: &str, system_identifier: u64) -> Result<Self> {
        Place { component, system_identifier }.check()?;
        Ok(Self {
            store: repository.store().clone(),
            lane: Lane::new(repository.key(), FOLDER, LIMIT_BYTES),
            component: component.to_owned(),
            system_identifier,
        })
    }

    /// The server.
    pub fn system_identifier(&self) -> u64 {
        self.system_identifier
    }

    /// The component.
    pub fn component(&self) -> &str {
        &self.component
    }

    pub(super) fn place(&self) -> Place<'_> {
        Place { component: &self.component, system_identifier: self.system_identifier }
    }

    pub(super) fn lane(&self) -> &Lane {
        &self.lane
    }

    pub(super) fn store(&self) -> &BlockingStore {
        &self.store
    }

    /// Stores a file. Durable on return; nothing is ever written over.
    ///
    /// # Errors
    /// `Corrupt` with `R0421` when it is not what its name says, with `R0203` when what is stored there is damaged;
    /// `Conflict` with `R0422` when it is stored with other contents; what the store says, after which it may be stored.
    pub fn push(&self, name: WalFileName, bytes: &[u8]) -> Result<Pushed> {
        self.push_on(1, name, bytes)
    }

    /// As [`Archive::push`], on up to `threads` threads.
    ///
    /// # Errors
    /// As [`Archive::push`].
    pub fn push_on(&self, threads: usize, name: WalFileName, bytes: &[u8]) -> Result<Pushed> {
        let doing = || format!("store `{name}`");
        verify(name, bytes, self.system_identifier).with_context(doing)?;
        self.create_on(threads, WalObject::File(name), bytes).with_context(doing)
    }

    /// Reads and checks a file; `None` when it is not there. Parts are not looked at.
    ///
    /// # Errors
    /// `Corrupt` with `R0203` or `R0421` when it is not what was stored; what the store says.
    pub fn fetch(&self, name: WalFileName) -> Result<Option<Vec<u8>>> {
        let doing = || format!("fetch `{name}`");
        let found = self.read(WalObject::File(name)).with_context(doing)?;
        match &found {
            Some(bytes) => verify(name, bytes, self.system_identifier).with_context(doing)?,
            None => self.confirm_repository().with_context(doing)?,
        }
        Ok(found)
    }

    /// As [`Archive::fetch`], on up to `threads` threads: `take` gets the contents in parts, each with its offset, the first one checked and
    /// before all others; with one thread all are in order. Gives the length in bytes.
    ///
    /// # Errors
    /// As [`Archive::fetch`]; what `take` says. Then what it got is worth nothing.
    pub fn fetch_in_parts(
        &self,
        name: WalFileName,
        threads: usize,
        take: &(dyn Fn(u64, &[u8]) -> Result<()> + Sync),
    ) -> Result<Option<u64>> {
        let doing = || format!("fetch `{name}`");
        let Some(opened) = self.read_packed(WalObject::File(name)).with_context(doing)? else {
            self.confirm_repository().with_context(doing)?;
            return Ok(None);
        };
        let (WalFileName::Segment(segment) | WalFileName::Partial(segment), Some(length)) =
            (name, opened.length_bytes().map(|length| length as u64))
        else {
            let bytes = opened.into_plaintext().with_context(doing)?;
            verify(name, &bytes, self.system_identifier).with_context(doing)?;
            take(0, &bytes)?;
            return Ok(Some(bytes.len() as u64));
        };
        let checked = |at: usize, part: &[u8]| {
            if at == 0 {
                SegmentHeader::check_itself(part, length, segment, self.system_identifier)?;
            }
            take(at as u64, part)
        };
        opened.in_parts(threads, &checked).with_context(doing)?;
        Ok(Some(length))
    }

    /// Stores the bytes of a segment that begin at `from`, of a server whose segments have `size`. Durable on return.
    ///
    /// # Errors
    /// As [`Archive::push`]; `Corrupt` with `R0421` also for a part that is empty or beyond the segment.
    pub fn push_part(
        &self,
        segment: SegmentName,
        size: SegmentSize,
        from: u32,
        bytes: &[u8],
    ) -> Result<Pushed> {
        let doing = || format!("store a part of `{segment}`");
        let end = u32::try_from(bytes.len()).ok().and_then(|length| from.checked_add(length));
        let part = end.filter(|end| u64::from(*end) <= size.bytes());
        let Some(part) = part.and_then(|end| PartName::new(segment, from, end)) else {
            let what = format!("has no `{}` bytes at `{from}`", bytes.len());
            return Err(malformed(segment, &what)).with_context(doing);
        };
        if from == 0 && bytes.len() >= SegmentHeader::BYTES {
            SegmentHeader::check(bytes, size.bytes(), segment, size, self.system_identifier)
                .with_context(doing)?;
        }
        self.create(WalObject::Part(part), bytes).with_context(doing)
    }

    /// A segment that is not stored whole, from those of its parts that join from its beginning on; `None` when there are
    /// none. Parts may overlap; they end at the first gap.
    ///
    /// # Errors
    /// `Corrupt` with `R0203` for a damaged part, with `R0421` for parts that are no WAL or contradict each other;
    /// `NotFound` when a part went while we read: the whole segment is stored then. What the store says.
    pub fn assemble(&self, segment: SegmentName) -> Result<Option<Assembled>> {
        self.join_parts(segment).with_context(|| format!("join the parts of `{segment}`"))
    }

    /// As [`Archive::fetch`]; where there is no whole segment, what its parts give.
    ///
    /// # Errors
    /// As [`Archive::fetch`] and [`Archive::assemble`].
    pub fn fetch_or_assemble(&self, name: WalFileName) -> Result<Option<Vec<u8>>> {
        let whole = self.fetch(name)?;
        let WalFileName::Segment(segment) = name else { return Ok(whole) };
        if whole.is_some() {
            return Ok(whole);
        }
        match self.assemble(segment) {
            Ok(assembled) => Ok(assembled.map(|assembled| assembled.bytes)),
            // Parts go only when the whole is there.
            Err(error) if error.kind() == ErrorKind::NotFound => self.fetch(name)?.ok_or(error).map(Some),
            Err(error) => Err(error),
        }
    }

    fn join_parts(&self, segment: SegmentName) -> Result<Option<Assembled>> {
        let mut parts = Vec::new();
        self.store.for_each(&self.place().parts_folder(segment), |meta| {
            if let Some((_, _, WalObject::Part(part))) = WalObject::parse(meta.key.as_str())
                && part.segment == segment
            {
                parts.push(part);
            }
        })?;
        parts.sort_unstable_by_key(|part| (part.from, Reverse(part.to)));
        let (mut bytes, mut size) = (Vec::new(), None);
        for part in parts {
            let (from, to) = (part.from as usize, part.to as usize);
            if from > bytes.len() {
                break;
            }
            if to <= bytes.len() {
                continue;
            }
            self.append_part(part, &mut bytes)?;
            if size.is_none() && bytes.len() >= SegmentHeader::BYTES {
                let own = SegmentHeader::check_beginning(&bytes, segment, self.system_identifier)?;
                size = Some(length(own));
            }
            if size.is_some_and(|size| bytes.len() > size) {
                return Err(malformed(segment, &format!("has a part that ends at `{to}`")));
            }
        }
        // Less than a header is nothing that recovery could use.
        Ok(size.map(|size| {
            let known_bytes = bytes.len();
            bytes.resize(size, 0);
            Assembled { bytes, known_bytes }
        }))
    }

    /// Puts what a part adds behind `bytes`, which reach at least to its beginning.
    fn append_part(&self, part: PartName, bytes: &mut Vec<u8>) -> Result<()> {
        let gone = || {
            let message = format!("`{part}` is gone");
            Error::new(ErrorKind::NotFound, codes::OBJECT_NOT_FOUND, message)
        };
        let found = self.read(WalObject::Part(part))?.ok_or_else(gone)?;
        self.verify_part(part, &found)?;
        let (again, new) = found.split_at(bytes.len() - part.from as usize);
        if bytes[part.from as usize..] != *again {
            let what = format!("has parts that contradict each other, such as `{part}`");
            return Err(malformed(part.segment, &what));
        }
        bytes.extend_from_slice(new);
        Ok(())
    }

    /// Whether a part is what its name says.
    pub(super) fn verify_part(&self, part: PartName, bytes: &[u8]) -> Result<()> {
        if bytes.len() != part.length() {
            return Err(malformed(part.segment, &format!("has a part of `{}` bytes", bytes.len())));
        }
        if part.from == 0 && bytes.len() >= SegmentHeader::BYTES {
            SegmentHeader::check_beginning(bytes, part.segment, self.system_identifier)?;
        }
        Ok(())
    }

    /// What is stored under a name, opened; `None` when there is nothing.
    pub(super) fn read(&self, object: WalObject) -> Result<Option<Vec<u8>>> {
        self.read_packed(object)?.map(Opened::into_plaintext).transpose()
    }

    /// The same, not yet expanded.
    fn read_packed(&self, object: WalObject) -> Result<Option<Opened>> {
        let name = self.place().key(object)?;
        match self.store.get(&name) {
            Ok(sealed) => self.lane.open_packed(&name, sealed.into()).map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// That this is still the repository: a disk that is not mounted has no objects, and takes new ones that nobody will find.
    /// Whoever hears "not there" may end a recovery, and whoever hears "durable" may acknowledge a commit.
    ///
    /// # Errors
    /// `Unavailable` with `R0303` when its `config` is not there.
    pub fn confirm_repository(&self) -> Result<()> {
        self.store.head(&Key::new("config")?).map(drop).map_err(|error| {
            let message = format!("the repository went away while it was asked: {error}");
            Error::new(ErrorKind::Unavailable, codes::STORE_UNAVAILABLE, message)
        })
    }

    pub(super) fn create(&self, object: WalObject, bytes: &[u8]) -> Result<Pushed> {
        self.create_on(1, object, bytes)
    }

    fn create_on(&self, threads: usize, object: WalObject, bytes: &[u8]) -> Result<Pushed> {
        let name = self.place().key(object)?;
        let is_atomic = self.store.store().capabilities().conditional_create;
        if !is_atomic && let Some(stored) = self.read(object).map_err(damaged)? {
            return same(object, &stored, bytes);
        }
        let sealed = Bytes::from(self.lane.seal_on(threads, &name, bytes)?);
        match self.store.put(&name, sealed, PutMode::Create) {
            Ok(()) if is_atomic => Ok(Pushed::New),
            // Somebody may have written over it.
            Ok(()) => match self.read(object)? {
                Some(stored) => same(object, &stored, bytes).map(|_| Pushed::New),
                None => Err(Error::internal(format!("`{name}` is gone after it was stored"))),
            },
            // Also our own, when an answer was lost.
            Err(error) if error.kind() == ErrorKind::Conflict => match self.read(object).map_err(damaged)? {
                Some(stored) => same(object, &stored, bytes),
                None => Err(error),
            },
            Err(error) => Err(error),
        }
    }
}

/// Whether a file is what its name says, of the server: a segment begins as one and has the length that it says; a history
/// can be read.
///
/// # Errors
/// `Corrupt` with `R0421`.
pub fn verify(name: WalFileName, bytes: &[u8], system_identifier: u64) -> Result<()> {
    match name {
        WalFileName::Segment(segment) | WalFileName::Partial(segment) => {
            SegmentHeader::check_itself(bytes, bytes.len() as u64, segment, system_identifier).map(drop)
        }
        WalFileName::History(timeline) => {
            let text = std::str::from_utf8(bytes).ok().filter(|text| text.len() <= TEXT_LIMIT_BYTES);
            let wrong = |why: &dyn std::fmt::Display| {
                Error::new(ErrorKind::Corrupt, codes::WAL_MALFORMED, format!("`{name}` is no history: {why}"))
            };
            let text = text.ok_or_else(|| wrong(&"it is not a short text"))?;
            TimelineHistory::parse(timeline, text).map(drop).map_err(|error| wrong(&error))
        }
        WalFileName::Backup { .. } if bytes.len() > TEXT_LIMIT_BYTES => {
            let message = format!("`{name}` has `{}` bytes, too many for a backup's history", bytes.len());
            Err(Error::new(ErrorKind::Corrupt, codes::WAL_MALFORMED, message))
        }
        WalFileName::Backup { .. } => Ok(()),
    }
}

fn same(object: WalObject, stored: &[u8], bytes: &[u8]) -> Result<Pushed> {
    let is_partial = matches!(object, WalObject::File(WalFileName::Partial(_)));
    if stored == bytes || (is_partial && says_less(stored, bytes)) {
        return Ok(Pushed::Same);
    }
    let message = format!("`{object}` is stored already, with other contents");
    Err(Error::new(ErrorKind::Conflict, codes::WAL_CONFLICT, message).with_hint(
        "see whether two servers archive as this component, or a restored one writes on its old timeline",
    ))
}

/// Whether two partial segments differ only behind the end of one of them, where it has zeros. A server's own copy has there
/// what was in the file before; nobody reads it.
fn says_less(one: &[u8], other: &[u8]) -> bool {
    let end = |bytes: &[u8]| bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let known = end(one).min(end(other));
    one.len() == other.len() && one[..known] == other[..known]
}

/// What is stored cannot be compared, and is not written over.
fn damaged(error: Error) -> Error {
    if error.kind() != ErrorKind::Corrupt {
        return error;
    }
    error.with_hint("delete this damaged object from the store; it is then stored anew")
}

fn malformed(segment: SegmentName, what: &str) -> Error {
    Error::new(ErrorKind::Corrupt, codes::WAL_MALFORMED, format!("WAL segment `{segment}` {what}"))
}

fn length(size: SegmentSize) -> usize {
    // At most 2^30.
    usize::try_from(size.bytes()).unwrap_or(usize::MAX)
}

//! WAL segments in a server's `pg_wal`: read for a backup, each known to be what its name says.

use crate::files::node::{self, Owners, unreadable};
use retoma_core::postgres::{Lsn, SegmentName, SegmentSize};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::backup::{Content, Event, Found, Reader};
use retoma_repo::format::tree::Node;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The part of a segment's first page that says what it is (`XLogLongPageHeaderData` in `xlog_internal.h`).
const HEADER_BYTES: usize = 40;
/// In `xlp_info`: the header is a long one.
const LONG_HEADER: u16 = 2;

/// What the beginning of a segment says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// The timeline of the first page.
    pub timeline: u32,
    /// The position of the first byte.
    pub start: Lsn,
    /// The server.
    pub system_identifier: u64,
    /// The size of the server's segments in bytes.
    pub segment_bytes: u32,
}

impl SegmentHeader {
    /// Reads it; `None` when these bytes do not begin a segment. Written by a machine of the same byte order.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let part = |at: usize, length: usize| bytes.get(at..at + length);
        let info = u16::from_ne_bytes(part(2, 2)?.try_into().ok()?);
        let magic = u16::from_ne_bytes(part(0, 2)?.try_into().ok()?);
        // The high byte of `XLOG_PAGE_MAGIC` has been the same in every version.
        if magic >> 8 != 0xD1 || info & LONG_HEADER == 0 {
            return None;
        }
        Some(Self {
            timeline: u32::from_ne_bytes(part(4, 4)?.try_into().ok()?),
            start: Lsn(u64::from_ne_bytes(part(8, 8)?.try_into().ok()?)),
            system_identifier: u64::from_ne_bytes(part(24, 8)?.try_into().ok()?),
            segment_bytes: u32::from_ne_bytes(part(32, 4)?.try_into().ok()?),
        })
    }

    /// Whether a segment that begins so, and has `size_bytes`, is the one that `name` says, of the server.
    ///
    /// # Errors
    /// `R0421` with what is wrong.
    pub fn check(
        bytes: &[u8],
        size_bytes: u64,
        name: SegmentName,
        size: SegmentSize,
        system_identifier: u64,
    ) -> Result<()> {
        let wrong = |what: String| {
            let message = format!("WAL segment `{name}` {what}");
            Err(Error::new(ErrorKind::Corrupt, codes::WAL_MALFORMED, message))
        };
        let Some(header) = Self::parse(bytes) else {
            return wrong("does not begin like WAL".to_owned());
        };
        if size_bytes != size.bytes() || u64::from(header.segment_bytes) != size.bytes() {
            return wrong(format!("has `{size_bytes}` bytes, where the server has `{}`", size.bytes()));
        }
        if header.system_identifier != system_identifier {
            return wrong(format!("is of server `{}`, not `{system_identifier}`", header.system_identifier));
        }
        if Some(header.start) != name.start(size) {
            return wrong(format!("begins at `{}`", header.start));
        }
        if header.timeline > name.timeline().get() {
            return wrong(format!("is of timeline `{}`", header.timeline));
        }
        Ok(())
    }
}

/// A segment as an entry of a backup. Looked at now; read when it is its turn, and meanwhile the server keeps it.
pub(super) fn entry(
    folder: &Path,
    name: SegmentName,
    size: SegmentSize,
    system_identifier: u64,
) -> Result<Event> {
    let path = folder.join(name.to_string());
    let mut file = File::open(&path).map_err(|error| {
        let message = format!(
            "WAL segment `{name}`, which the backup needs, is not in `{}`: {error}",
            folder.display()
        );
        Error::new(ErrorKind::Unavailable, codes::WAL_MISSING, message).with_hint("run the backup again")
    })?;
    let mut begin = [0; HEADER_BYTES];
    file.read_exact(&mut begin).map_err(|error| unreadable(&path, error))?;
    let stat = rustix::fs::fstat(&file).map_err(|error| unreadable(&path, error))?;
    let node = node::from_stat(name.to_string().as_bytes(), &stat, &mut Owners::read());
    SegmentHeader::check(&begin, node.size_bytes, name, size, system_identifier)?;
    Ok(Event::Entry(Box::new(node), Box::new(Segment { path, size_bytes: size.bytes() })))
}

/// The node of a folder under another name.
pub(super) fn folder_node(path: &Path, name: &str) -> Result<Node> {
    let mut node = node::folder_above(path, &mut Owners::read())?;
    node.name = name.into();
    Ok(node)
}

struct Segment {
    path: PathBuf,
    size_bytes: u64,
}

impl Content for Segment {
    fn describe(&mut self, _node: &mut Node) -> Result<Found> {
        Ok(Found::There)
    }

    fn open(&mut self) -> Result<Box<dyn Reader>> {
        let file = File::open(&self.path).map_err(|error| unreadable(&self.path, error))?;
        Ok(Box::new(SegmentReader {
            path: std::mem::take(&mut self.path),
            file,
            size_bytes: self.size_bytes,
        }))
    }
}

struct SegmentReader {
    path: PathBuf,
    file: File,
    size_bytes: u64,
}

impl Reader for SegmentReader {
    fn size_bytes(&self) -> Option<u64> {
        Some(self.size_bytes)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        self.file.read(buffer).map_err(|error| unreadable(&self.path, error))
    }

    fn finish(&mut self, read_bytes: u64) -> Result<()> {
        if read_bytes == self.size_bytes {
            return Ok(());
        }
        let name = self.path.file_name().unwrap_or_default().as_bytes().escape_ascii().to_string();
        let message = format!("WAL segment `{name}` gave `{read_bytes}` bytes");
        Err(Error::new(ErrorKind::Corrupt, codes::WAL_MALFORMED, message))
    }
}

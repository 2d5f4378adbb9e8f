//! WAL segments in a server's `pg_wal`: read for a backup, each known to be what its name says.

use crate::files::node::{self, Owners, unreadable};
use retoma_core::postgres::{SegmentHeader, SegmentName, SegmentSize};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::backup::{Content, Event, Found, Reader};
use retoma_repo::format::tree::Node;
use std::fs::File;
use std::io::Read;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

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
    let mut begin = [0; SegmentHeader::BYTES];
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

//! One file that is in memory, as a source.

use retoma_core::{Error, Result};
use retoma_repo::backup::{Content, Event, Found, Reader, Source};
use retoma_repo::format::tree::{Node, NodeKind};
use retoma_repo::host;

/// The name of the manifest in its snapshot.
pub const MANIFEST_NAME: &str = "retoma.toml";

/// A snapshot of one file at the root.
#[derive(Debug)]
pub(super) struct MemorySource(Option<(Node, Vec<u8>)>);

impl MemorySource {
    /// A file `name` of this user, with mode 0600, as of now.
    pub(super) fn new(name: &str, bytes: &[u8]) -> Self {
        let mut node = Node::new(name, NodeKind::File);
        let now = host::now();
        (node.uid, node.gid) = host::ids();
        (node.mode, node.size_bytes) = (0o600, bytes.len() as u64);
        (node.mtime, node.atime, node.ctime) = (now, now, now);
        Self(Some((node, bytes.to_vec())))
    }
}

impl Source for MemorySource {
    fn next(&mut self) -> Result<Option<Event>> {
        Ok(self.0.take().map(|(node, bytes)| Event::Entry(Box::new(node), Box::new(Bytes(Some(bytes))))))
    }
}

struct Bytes(Option<Vec<u8>>);

impl Content for Bytes {
    fn describe(&mut self, _node: &mut Node) -> Result<Found> {
        Ok(Found::There)
    }

    fn open(&mut self) -> Result<Box<dyn Reader>> {
        let bytes = self.0.take().ok_or_else(|| Error::internal("a file in memory is read twice"))?;
        Ok(Box::new(BytesReader { bytes, position: 0 }))
    }
}

struct BytesReader {
    bytes: Vec<u8>,
    position: usize,
}

impl Reader for BytesReader {
    fn size_bytes(&self) -> Option<u64> {
        Some(self.bytes.len() as u64)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let rest = &self.bytes[self.position..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        self.position += count;
        Ok(count)
    }

    fn finish(&mut self, _read_bytes: u64) -> Result<()> {
        Ok(())
    }
}

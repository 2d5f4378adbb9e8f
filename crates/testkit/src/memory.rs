//! Files in memory, as a source of backups.

use crate::data::bytes;
use retoma_repo::Result;
use retoma_repo::backup::{Content, Event, Found, Reader, Source};
use retoma_repo::format::tree::{Node, NodeKind};
use std::collections::VecDeque;

/// Gives events one after the other.
#[derive(Debug, Default)]
pub struct MemorySource(VecDeque<Event>);

impl MemorySource {
    /// A directory begins, until [`MemorySource::leave`].
    pub fn enter(&mut self, directory: Node) {
        self.0.push_back(Event::Enter(Box::new(directory)));
    }

    /// The directory ends.
    pub fn leave(&mut self) {
        self.0.push_back(Event::Leave);
    }

    /// Anything but a directory; `contents` are those of a file.
    pub fn entry(&mut self, node: Node, contents: &[u8]) {
        self.0.push_back(Event::Entry(Box::new(node), Box::new(Bytes(contents.to_vec()))));
    }

    /// A file with nothing but a name and contents.
    pub fn file(&mut self, name: &[u8], contents: &[u8]) {
        let node = Node { size_bytes: contents.len() as u64, ..Node::new(name, NodeKind::File) };
        self.entry(node, contents);
    }

    /// Whatever else may happen.
    pub fn event(&mut self, event: Event) {
        self.0.push_back(event);
    }
}

impl Source for MemorySource {
    fn next(&mut self) -> Result<Option<Event>> {
        Ok(self.0.pop_front())
    }
}

struct Bytes(Vec<u8>);

impl Content for Bytes {
    fn describe(&mut self, _node: &mut Node) -> Result<Found> {
        Ok(Found::There)
    }

    fn open(&mut self) -> Result<Box<dyn Reader>> {
        Ok(Box::new(BytesReader { left: std::mem::take(&mut self.0).into(), read_bytes: 0 }))
    }
}

struct BytesReader {
    left: VecDeque<u8>,
    read_bytes: u64,
}

impl Reader for BytesReader {
    fn size_bytes(&self) -> Option<u64> {
        Some(self.read_bytes + self.left.len() as u64)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let count = std::io::Read::read(&mut self.left, buffer).unwrap_or_default();
        self.read_bytes += count as u64;
        Ok(count)
    }

    fn finish(&mut self, read_bytes: u64) -> Result<()> {
        assert_eq!((read_bytes, self.left.len()), (self.read_bytes, 0), "the engine reads all there is");
        Ok(())
    }
}

/// `length` bytes that don't compress, as [`bytes`], in a vector.
pub fn noise(seed: u64, length: usize) -> Vec<u8> {
    bytes(seed, length).into()
}

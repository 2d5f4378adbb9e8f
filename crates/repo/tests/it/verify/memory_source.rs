//! A source whose files are in memory.

use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::backup::{Content, Event, Reader, Source};
use retoma_repo::format::tree::{Node, NodeKind};
use std::collections::{BTreeMap, VecDeque};

/// Contents by path.
pub(super) type Files = BTreeMap<Vec<u8>, Vec<u8>>;

/// The parts of a path that are left, and the contents.
type File<'a> = (Vec<&'a [u8]>, &'a Vec<u8>);

pub(super) struct MemorySource(VecDeque<Event>);

impl MemorySource {
    pub(super) fn new(files: &Files, unreadable: &[&str]) -> Self {
        let mut events = VecDeque::new();
        let files: Vec<File<'_>> =
            files.iter().map(|(path, contents)| (path.split(|b| *b == b'/').collect(), contents)).collect();
        add(&mut events, files);
        for path in unreadable {
            let error = Error::new(ErrorKind::Unauthorized, codes::SOURCE_UNREADABLE, "not for us");
            events.push_back(Event::Unreadable(path.as_bytes().to_vec(), error));
        }
        Self(events)
    }
}

/// One directory; names ascend.
fn add(events: &mut VecDeque<Event>, files: Vec<File<'_>>) {
    let mut names: BTreeMap<&[u8], Vec<File<'_>>> = BTreeMap::new();
    for (path, contents) in files {
        names.entry(path[0]).or_default().push((path[1..].to_vec(), contents));
    }
    for (name, below) in names {
        if let [(rest, contents)] = below.as_slice()
            && rest.is_empty()
        {
            let mut node = Node::new(name, NodeKind::File);
            node.size_bytes = contents.len() as u64;
            events.push_back(Event::Entry(Box::new(node), Box::new(Bytes((*contents).clone()))));
            continue;
        }
        events.push_back(Event::Enter(Box::new(Node::new(name, NodeKind::Directory))));
        add(events, below);
        events.push_back(Event::Leave);
    }
}

impl Source for MemorySource {
    fn next(&mut self) -> Result<Option<Event>> {
        Ok(self.0.pop_front())
    }
}

struct Bytes(Vec<u8>);

impl Content for Bytes {
    fn describe(&mut self, _node: &mut Node) -> Result<()> {
        Ok(())
    }

    fn open(&mut self) -> Result<Box<dyn Reader>> {
        Ok(Box::new(BytesReader { bytes: std::mem::take(&mut self.0), read: 0 }))
    }
}

struct BytesReader {
    bytes: Vec<u8>,
    read: usize,
}

impl Reader for BytesReader {
    fn size_bytes(&self) -> Option<u64> {
        Some(self.bytes.len() as u64)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let count = buffer.len().min(self.bytes.len() - self.read);
        buffer[..count].copy_from_slice(&self.bytes[self.read..self.read + count]);
        self.read += count;
        Ok(count)
    }

    fn finish(&mut self, read_bytes: u64) -> Result<()> {
        assert_eq!(read_bytes, self.bytes.len() as u64);
        Ok(())
    }
}

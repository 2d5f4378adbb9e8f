//! The walk: follows the source, compares each entry with the parent snapshot, and hands the rest to the workers.

use super::directory::{Before, Child, Directory};
use super::is_unchanged;
use super::source::{Content, Event, Source};
use super::worker::{Shared, Task};
use crate::format::BlobKind;
use crate::format::time::Time;
use crate::format::tree::{Node, NodeKind};
use crate::repository::Repository;
use retoma_core::{Error, Result};
use std::sync::{Arc, PoisonError};

/// The parent snapshot.
pub(super) struct Parent {
    pub(super) repository: Repository,
    pub(super) root: Before,
    pub(super) time: Time,
}

/// What the walk counted.
#[derive(Debug, Default)]
pub(super) struct Walked {
    pub(super) files_queued: u64,
    pub(super) files_unchanged: u64,
    pub(super) unchanged_bytes: u64,
    pub(super) directories: u64,
}

/// A batch ends with so many entries …
const BATCH_ENTRIES: usize = 64;
/// … or so many bytes.
const BATCH_BYTES: u64 = 4 << 20;

struct Walk<'a, 'b> {
    shared: &'a Shared<'b>,
    parent: Option<&'a Parent>,
    stack: Vec<Frame>,
    path: Vec<u8>,
    batch: Vec<Task>,
    batch_bytes: u64,
    walked: Walked,
}

struct Frame {
    directory: Arc<Directory>,
    /// How far the parent's nodes were passed: both are sorted by name.
    passed: usize,
    /// Length of the path without this directory.
    outer_path: usize,
}

/// Follows `source` to its end.
pub(super) fn walk(shared: &Shared<'_>, source: &mut dyn Source, parent: Option<&Parent>) -> Result<Walked> {
    let root = Node::new("root", NodeKind::Directory);
    let directory = Directory::new(root, None, parent.map(|parent| parent.root.clone()));
    let frame = Frame { directory, passed: 0, outer_path: 0 };
    let mut walk = Walk {
        shared,
        parent,
        stack: vec![frame],
        path: Vec::new(),
        batch: Vec::new(),
        batch_bytes: 0,
        walked: Walked::default(),
    };
    while let Some(event) = source.next()? {
        shared.stop_if_asked()?;
        if shared.queue.is_aborted() {
            return Ok(walk.walked);
        }
        match event {
            Event::Enter(node) => walk.enter(*node)?,
            Event::Leave => walk.leave()?,
            Event::Entry(node, content) => walk.entry(node, content)?,
            Event::Unreadable(path, error) => shared.note_unreadable(path, error),
        }
    }
    if walk.stack.len() != 1 {
        return Err(Error::internal("the source entered a directory and did not leave it"));
    }
    walk.leave()?;
    Ok(walk.walked)
}

impl Walk<'_, '_> {
    fn top(&mut self) -> Result<&mut Frame> {
        self.stack
            .last_mut()
            .ok_or_else(|| Error::internal("the source left more directories than it entered"))
    }

    /// The node of this name in the same directory of the parent, and its position.
    fn before(frame: &mut Frame, name: &[u8]) -> Option<usize> {
        let nodes = &frame.directory.before()?.nodes;
        while nodes.get(frame.passed).is_some_and(|node| node.name.as_slice() < name) {
            frame.passed += 1;
        }
        nodes.get(frame.passed).is_some_and(|node| node.name == name).then_some(frame.passed)
    }

    fn enter(&mut self, node: Node) -> Result<()> {
        let outer_path = self.path.len();
        self.path.push(b'/');
        self.path.extend_from_slice(&node.name);
        let parent = self.parent;
        let shared = self.shared;
        let frame = self.top()?;
        let position = Self::before(frame, &node.name);
        let before = position.and_then(|position| {
            let tree = frame.directory.before()?.nodes.get(position)?.subtree?;
            let index = shared.index.read().unwrap_or_else(PoisonError::into_inner);
            let nodes = parent?.repository.read_tree(&index, &tree).ok()?;
            Some(Before { nodes: Arc::new(nodes), tree, position: Some(position) })
        });
        let place = frame.directory.reserve();
        let directory = Directory::new(node, Some((Arc::clone(&frame.directory), place)), before);
        self.stack.push(Frame { directory, passed: 0, outer_path });
        self.walked.directories += 1;
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        let frame = self.stack.pop().ok_or_else(|| Error::internal("the source left a directory twice"))?;
        self.path.truncate(frame.outer_path);
        if self.stack.is_empty() {
            self.flush();
        }
        frame.directory.close(self.shared)
    }

    fn entry(&mut self, node: Box<Node>, content: Box<dyn Content>) -> Result<()> {
        let parent = self.parent;
        let frame = self.top()?;
        let position = Self::before(frame, &node.name);
        let directory = Arc::clone(&frame.directory);
        let place = directory.reserve();
        if let (Some(position), Some(parent)) = (position, parent) {
            let known = directory.before().and_then(|before| before.nodes.get(position));
            if let Some(known) = known
                && is_unchanged(&node, known, parent.time)
                && self.is_stored(known)
            {
                if known.kind == NodeKind::File {
                    self.walked.files_unchanged += 1;
                    self.walked.unchanged_bytes += known.size_bytes;
                }
                return directory.fill(self.shared, place, Child::Same(position));
            }
        }
        let mut path = self.path.clone();
        path.push(b'/');
        path.extend_from_slice(&node.name);
        self.batch_bytes += node.size_bytes;
        self.walked.files_queued += u64::from(node.kind == NodeKind::File);
        self.batch.push(Task { node, content, directory, place, path });
        if self.batch.len() >= BATCH_ENTRIES || self.batch_bytes >= BATCH_BYTES {
            self.flush();
        }
        Ok(())
    }

    fn is_stored(&self, node: &Node) -> bool {
        let index = self.shared.index.read().unwrap_or_else(PoisonError::into_inner);
        node.content.iter().all(|id| index.contains(BlobKind::Data, id))
    }

    fn flush(&mut self) {
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        if !batch.is_empty() {
            self.shared.queue.push_batch(batch);
        }
    }
}

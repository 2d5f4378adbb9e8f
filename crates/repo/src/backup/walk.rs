//! The walk: follows the source, compares each entry with the parent snapshot, and hands the rest to the workers.

use super::directory::{Before, Child, Directory};
use super::goal::{Goal, Kept};
use super::is_unchanged;
use super::source::{Content, Event, Source};
use super::worker::{Scratch, Shared, Task, do_task};
use crate::format::BlobKind;
use crate::format::time::Time;
use crate::format::tree::{Node, NodeKind};
use crate::repository::Repository;
use retoma_core::{Error, Result};
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::{Arc, PoisonError};

/// The parent snapshot.
pub(super) struct Parent {
    pub(super) repository: Repository,
    pub(super) root: Before,
    pub(super) time: Time,
    pub(super) paths: Vec<String>,
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

/// So many directories that are gone are looked into, so that a tree that somebody made to have no end has one.
const GONE_TREES: u32 = 1_000_000;

struct Walk<'a, 'b> {
    shared: &'a Shared<'b>,
    parent: Option<&'a Parent>,
    stack: Vec<Frame>,
    reserved: BTreeMap<u32, Reserved>,
    /// Files that were read ahead, with their names.
    ahead: HashMap<u64, (Vec<u8>, Arc<Kept>)>,
    /// For reading them on this thread: the source gives nothing else meanwhile.
    scratch: Scratch,
    path: Vec<u8>,
    batch: Vec<Task>,
    batch_bytes: u64,
    walked: Walked,
}

struct Frame {
    directory: Arc<Directory>,
    /// How far the parent's nodes were passed: both are sorted by name.
    passed: usize,
    /// The last name: the next one must be behind it.
    last: Vec<u8>,
    /// The path of the directory that was left for this one.
    outer_path: Vec<u8>,
}

/// Where an entry goes.
struct Spot {
    directory: Arc<Directory>,
    place: usize,
    /// The node of the same name in the same directory of the parent, by position.
    before: Option<usize>,
}

impl Spot {
    /// What the parent has at this path.
    fn kind_before(&self) -> Option<NodeKind> {
        Some(self.directory.before()?.nodes.get(self.before?)?.kind)
    }
}

/// A place that is kept for later.
struct Reserved {
    spot: Spot,
    name: Vec<u8>,
    /// The path of its directory.
    folder: Vec<u8>,
}

/// Follows `source` to its end.
pub(super) fn walk(shared: &Shared<'_>, source: &mut dyn Source, parent: Option<&Parent>) -> Result<Walked> {
    let root = Node::new("root", NodeKind::Directory);
    let directory = Directory::new(root, None, parent.map(|parent| parent.root.clone()));
    let frame = Frame { directory, passed: 0, last: Vec::new(), outer_path: Vec::new() };
    let mut walk = Walk {
        shared,
        parent,
        stack: vec![frame],
        reserved: BTreeMap::new(),
        ahead: HashMap::new(),
        scratch: Scratch::default(),
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
        if !walk.event(event)? {
            return Ok(walk.walked);
        }
    }
    if walk.stack.len() != 1 {
        return Err(Error::internal("the source entered a directory and did not leave it"));
    }
    if !walk.ahead.is_empty() {
        return Err(Error::internal("the source read files ahead that it did not place"));
    }
    for Reserved { spot, .. } in std::mem::take(&mut walk.reserved).into_values() {
        spot.directory.fill(shared, spot.place, Child::Absent)?;
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

    /// The position of the node of this name in the same directory of the parent, and those of the nodes that were passed
    /// over on the way to it: the source has none of their names.
    fn before(frame: &mut Frame, name: &[u8]) -> (Option<usize>, Range<usize>) {
        let Some(before) = frame.directory.before() else { return (None, 0..0) };
        let (nodes, first) = (&before.nodes, frame.passed);
        while nodes.get(frame.passed).is_some_and(|node| node.name.as_slice() < name) {
            frame.passed += 1;
        }
        let passed = first..frame.passed;
        let is_there = nodes.get(frame.passed).is_some_and(|node| node.name == name);
        let found = is_there.then_some(frame.passed);
        frame.passed += usize::from(is_there);
        (found, passed)
    }

    /// Nodes of the parent are not in this snapshot, and neither is what lies below them.
    fn gone(&self, directory: &Directory, nodes: Range<usize>) -> Result<()> {
        let (Some(changes), Some(parent)) = (self.shared.changes, self.parent) else { return Ok(()) };
        let known = directory.before().and_then(|before| before.nodes.get(nodes)).unwrap_or_default();
        let (mut left, mut trees) = (known.to_vec(), 0);
        while let Some(node) = left.pop() {
            if node.kind == NodeKind::File {
                changes.before(&node);
                changes.gone(self.shared.index, &node);
            }
            if let Some(tree) = node.subtree.filter(|_| trees < GONE_TREES) {
                trees += 1;
                self.shared.stop_if_asked()?;
                let index = self.shared.index.read().unwrap_or_else(PoisonError::into_inner);
                // What cannot be read is not counted, as a directory that is still there is not compared.
                left.extend(parent.repository.read_tree(&index, &tree).unwrap_or_default());
            }
        }
        Ok(())
    }

    /// One event; `false` when everybody stops.
    fn event(&mut self, event: Event) -> Result<bool> {
        match event {
            Event::Enter(node) => {
                let spot = self.spot(&node.name)?;
                let folder = self.path.clone();
                self.enter(*node, spot, &folder)?;
            }
            Event::Leave => self.leave()?,
            Event::Entry(node, content) => {
                let spot = self.spot(&node.name)?;
                self.entry(node, content, spot, None)?;
            }
            Event::Unreadable(path, error) => self.shared.note_unreadable(path, error),
            Event::Reserve(number, name) => {
                let spot = self.spot(&name)?;
                let reserved = Reserved { spot, name, folder: self.path.clone() };
                if self.reserved.insert(number, reserved).is_some() {
                    return Err(Error::internal("the source reserved two places with one number"));
                }
            }
            Event::Settle => {
                self.flush();
                return Ok(self.shared.queue.settle());
            }
            Event::Late(number, event) => self.late(number, *event)?,
            Event::Ahead(number, node, content) => self.ahead(number, node, content)?,
            Event::Place(number) => {
                let ahead = self.ahead.remove(&number);
                let (name, kept) =
                    ahead.ok_or_else(|| Error::internal("no file was read ahead as this number"))?;
                let spot = self.spot(&name)?;
                kept.place(self.shared, &spot.directory, spot.place)?;
            }
        }
        Ok(true)
    }

    /// Reads a file whose place is not known yet, and leaves its chunks to the workers.
    fn ahead(&mut self, number: u64, node: Box<Node>, content: Box<dyn Content>) -> Result<()> {
        let kept = Arc::new(Kept::default());
        if self.ahead.insert(number, (node.name.clone(), Arc::clone(&kept))).is_some() {
            return Err(Error::internal("the source read two files ahead with one number"));
        }
        self.walked.files_queued += 1;
        let path = node.name.clone();
        let task = Task { node, content, goal: Goal::Kept(kept), path };
        do_task(self.shared, task, &mut self.scratch)
    }

    /// What comes at a place that was reserved.
    fn late(&mut self, number: u32, event: Event) -> Result<()> {
        let reserved = self.reserved.remove(&number);
        let Reserved { spot, name, folder } =
            reserved.ok_or_else(|| Error::internal("the source reserved no place of this number"))?;
        match event {
            Event::Enter(node) if node.name == name && self.stack.len() == 1 => {
                self.enter(*node, spot, &folder)
            }
            Event::Entry(node, content) if node.name == name => {
                self.entry(node, content, spot, Some(&folder))
            }
            _ => Err(Error::internal("the source put something else into a place that it reserved")),
        }
    }

    /// The next place in the current directory, for `name`.
    fn spot(&mut self, name: &[u8]) -> Result<Spot> {
        let frame = self.top()?;
        // Readers of trees look names up by their order.
        if name <= frame.last.as_slice() {
            let message = format!("the source gave `{}` out of order", name.escape_ascii());
            return Err(Error::internal(message));
        }
        frame.last.clear();
        frame.last.extend_from_slice(name);
        let (before, passed) = Self::before(frame, name);
        let directory = Arc::clone(&frame.directory);
        self.gone(&directory, passed)?;
        Ok(Spot { place: directory.reserve(), directory, before })
    }

    fn enter(&mut self, node: Node, spot: Spot, folder: &[u8]) -> Result<()> {
        if let Some(position) = spot.before.filter(|_| spot.kind_before() != Some(NodeKind::Directory)) {
            self.gone(&spot.directory, position..position + 1)?;
        }
        let (parent, shared) = (self.parent, self.shared);
        let before = spot.before.and_then(|position| {
            let tree = spot.directory.before()?.nodes.get(position)?.subtree?;
            let index = shared.index.read().unwrap_or_else(PoisonError::into_inner);
            let nodes = parent?.repository.read_tree(&index, &tree).ok()?;
            Some(Before { nodes: Arc::new(nodes), tree, position: Some(position) })
        });
        let path = [folder, b"/", &node.name].concat();
        let directory = Directory::new(node, Some((spot.directory, spot.place)), before);
        let outer_path = std::mem::replace(&mut self.path, path);
        self.stack.push(Frame { directory, passed: 0, last: Vec::new(), outer_path });
        self.walked.directories += 1;
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        let frame = self.stack.pop().ok_or_else(|| Error::internal("the source left a directory twice"))?;
        let rest = frame.directory.before().map_or(0, |before| before.nodes.len());
        self.gone(&frame.directory, frame.passed..rest)?;
        self.path = frame.outer_path;
        if self.stack.is_empty() {
            self.flush();
        }
        frame.directory.close(self.shared)
    }

    /// `folder`: the path of the directory, when it is not the current one.
    fn entry(
        &mut self,
        node: Box<Node>,
        content: Box<dyn Content>,
        spot: Spot,
        folder: Option<&[u8]>,
    ) -> Result<()> {
        let is_file = node.kind == NodeKind::File && spot.kind_before() == Some(NodeKind::File);
        let Spot { directory, place, before } = spot;
        match (self.shared.changes, before) {
            (Some(changes), Some(position)) if is_file => {
                let known = directory.before().and_then(|before| before.nodes.get(position));
                if let Some(known) = known {
                    changes.before(known);
                }
            }
            (Some(_), Some(position)) => self.gone(&directory, position..position + 1)?,
            _ => {}
        }
        if let (Some(position), Some(parent)) = (before, self.parent) {
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
        let path = [folder.unwrap_or(&self.path), b"/", &node.name].concat();
        self.batch_bytes += node.size_bytes;
        self.walked.files_queued += u64::from(node.kind == NodeKind::File);
        self.batch.push(Task {
            node,
            content,
            goal: Goal::Place(directory, place, before.filter(|_| is_file)),
            path,
        });
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

//! Directories under way: places are reserved in the order of names, filled in any order, and leave as JSON.
//!
//! A directory whose nodes are all the same as in the parent snapshot is not serialised at all: its tree is known. A
//! very large one is compressed while it grows, so that a million files in one folder cost their compressed JSON.

use super::packer::lock;
use super::store_blob;
use super::worker::Shared;
use crate::blob;
use crate::compress;
use crate::crypto::NONCE_BYTES;
use crate::format::BlobKind;
use crate::format::tree::{CLOSING, Node, OPENING};
use crate::id::BlobId;
use crate::index::Claim;
use retoma_core::{Error, Result};
use sha2::{Digest, Sha256};
use std::collections::VecDeque;
use std::io::Write;
use std::sync::{Arc, Mutex};

/// What becomes of a place in a directory.
#[derive(Debug)]
pub(super) enum Child {
    /// The node at this position of the parent snapshot's tree, unchanged.
    Same(usize),
    /// A node that is new or changed.
    Changed(Box<Node>),
    /// Left out: it could not be read.
    Absent,
}

/// A directory that is being filled.
#[derive(Debug)]
pub(super) struct Directory {
    /// Its own node; the subtree is filled in at the end.
    node: Node,
    /// The directory around it, and the place there. None for the root.
    outer: Option<(Arc<Directory>, usize)>,
    /// The same directory in the parent snapshot, and its node's position there.
    before: Option<Before>,
    state: Mutex<State>,
}

/// A directory in the parent snapshot.
#[derive(Debug, Clone)]
pub(super) struct Before {
    /// Its nodes.
    pub(super) nodes: Arc<Vec<Node>>,
    /// Its tree.
    pub(super) tree: BlobId,
    /// Its position among the nodes of the directory around it; none for the root.
    pub(super) position: Option<usize>,
}

#[derive(Debug)]
struct State {
    /// Places from `first` on; `None` while a worker has it.
    places: VecDeque<Option<Child>>,
    first: usize,
    closed: bool,
    /// So many nodes, from the first on, are the same as before and not yet written.
    same: usize,
    json: TreeJson,
}

impl Directory {
    pub(super) fn new(
        node: Node,
        outer: Option<(Arc<Directory>, usize)>,
        before: Option<Before>,
    ) -> Arc<Self> {
        let state =
            State { places: VecDeque::new(), first: 0, closed: false, same: 0, json: TreeJson::default() };
        Arc::new(Self { node, outer, before, state: Mutex::new(state) })
    }

    /// The nodes of the same directory in the parent snapshot.
    pub(super) fn before(&self) -> Option<&Before> {
        self.before.as_ref()
    }

    /// A place for the next entry by name.
    pub(super) fn reserve(&self) -> usize {
        let mut state = lock(&self.state);
        state.places.push_back(None);
        state.first + state.places.len() - 1
    }

    /// Fills a place. Fills the directories around it too when this was the last of each.
    pub(super) fn fill(self: &Arc<Self>, shared: &Shared<'_>, place: usize, child: Child) -> Result<()> {
        self.update(shared, |state| {
            let slot = place - state.first;
            state.places[slot] = Some(child);
        })
    }

    /// No more entries come.
    pub(super) fn close(self: &Arc<Self>, shared: &Shared<'_>) -> Result<()> {
        self.update(shared, |state| state.closed = true)
    }

    fn update(self: &Arc<Self>, shared: &Shared<'_>, change: impl FnOnce(&mut State)) -> Result<()> {
        let mut state = lock(&self.state);
        change(&mut state);
        while matches!(state.places.front(), Some(Some(_))) {
            let Some(Some(child)) = state.places.pop_front() else { break };
            state.first += 1;
            self.append(&mut state, child)?;
        }
        if !state.closed || !state.places.is_empty() {
            return Ok(());
        }
        let tree = self.finish(&mut state, shared)?;
        drop(state);
        let mut node = self.node.clone();
        node.subtree = Some(tree);
        let Some((outer, place)) = &self.outer else {
            shared.root_done(tree);
            return Ok(());
        };
        let position = self.before.as_ref().and_then(|before| before.position);
        let known = position.and_then(|at| Some((at, outer.before.as_ref()?.nodes.get(at)?)));
        let child = match known {
            Some((at, known)) if *known == node => Child::Same(at),
            _ => Child::Changed(Box::new(node)),
        };
        outer.fill(shared, *place, child)
    }

    fn append(&self, state: &mut State, child: Child) -> Result<()> {
        match child {
            Child::Absent => Ok(()),
            Child::Changed(node) => {
                self.write_same(state)?;
                state.json.push(&node)
            }
            Child::Same(position) if position == state.same && state.json.is_empty() => {
                state.same += 1;
                Ok(())
            }
            Child::Same(position) => {
                self.write_same(state)?;
                state.json.push(self.known(position)?)
            }
        }
    }

    fn known(&self, position: usize) -> Result<&Node> {
        let known = self.before.as_ref().and_then(|before| before.nodes.get(position));
        known.ok_or_else(|| Error::internal("a node is the same as one that is not there"))
    }

    /// Writes what was only counted so far.
    fn write_same(&self, state: &mut State) -> Result<()> {
        for position in 0..std::mem::take(&mut state.same) {
            state.json.push(self.known(position)?)?;
        }
        Ok(())
    }

    /// Stores the tree, unless it is there already.
    fn finish(&self, state: &mut State, shared: &Shared<'_>) -> Result<BlobId> {
        if let Some(before) = &self.before
            && state.json.is_empty()
            && state.same == before.nodes.len()
        {
            return Ok(before.tree);
        }
        self.write_same(state)?;
        std::mem::take(&mut state.json).store(shared)
    }
}

/// From this size on the JSON is compressed while it grows.
const STREAM_BYTES: usize = 4 << 20;

/// The JSON of a tree, growing.
#[derive(Default)]
struct TreeJson {
    plain: Vec<u8>,
    stream: Option<Box<Stream>>,
}

struct Stream {
    hash: Sha256,
    length: u64,
    encoder: zstd::stream::write::Encoder<'static, Vec<u8>>,
}

impl std::fmt::Debug for TreeJson {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TreeJson").field("plain_bytes", &self.plain.len()).finish_non_exhaustive()
    }
}

impl TreeJson {
    fn is_empty(&self) -> bool {
        self.plain.is_empty() && self.stream.is_none()
    }

    fn push(&mut self, node: &Node) -> Result<()> {
        let first = self.is_empty();
        self.plain.extend_from_slice(if first { OPENING } else { b"," });
        node.append_json(&mut self.plain)?;
        if self.plain.len() >= STREAM_BYTES { self.drain() } else { Ok(()) }
    }

    fn drain(&mut self) -> Result<()> {
        let failed = |error| Error::io("zstd", error);
        let stream = if let Some(stream) = &mut self.stream {
            stream
        } else {
            // Room for the nonce in front, as in every sealed blob.
            let output = vec![0; NONCE_BYTES];
            let encoder = zstd::stream::write::Encoder::new(output, compress::LEVEL).map_err(failed)?;
            self.stream.insert(Box::new(Stream { hash: Sha256::new(), length: 0, encoder }))
        };
        stream.hash.update(&self.plain);
        stream.length += self.plain.len() as u64;
        stream.encoder.write_all(&self.plain).map_err(failed)?;
        self.plain.clear();
        Ok(())
    }

    fn store(mut self, shared: &Shared<'_>) -> Result<BlobId> {
        if self.is_empty() {
            self.plain.extend_from_slice(OPENING);
        }
        self.plain.extend_from_slice(CLOSING);
        if self.stream.is_none() {
            return store_blob(shared, BlobKind::Tree, &self.plain, &mut Vec::new());
        }
        self.drain()?;
        let Some(stream) = self.stream else { return Err(Error::internal("a tree lost its stream")) };
        let id = BlobId(stream.hash.finalize().into());
        if shared.claim(BlobKind::Tree, id) == Claim::Known {
            return Ok(id);
        }
        let length = u32::try_from(stream.length)
            .map_err(|_| Error::internal("a directory's list is longer than the format allows (4 GiB)"))?;
        let mut sealed = stream.encoder.finish().map_err(|error| Error::io("zstd", error))?;
        shared.packer.key().seal_in_place(&mut sealed)?;
        shared.packer.add(shared.index, BlobKind::Tree, id, &sealed, Some(length))?;
        Ok(id)
    }
}

/// Seals and stores a blob unless it is known; `buffer` is scratch space.
pub(super) fn store_new(
    shared: &Shared<'_>,
    kind: BlobKind,
    id: BlobId,
    plaintext: &[u8],
    buffer: &mut Vec<u8>,
) -> Result<()> {
    let uncompressed = blob::seal(shared.packer.repository(), plaintext, buffer)?;
    shared.packer.add(shared.index, kind, id, buffer, uncompressed)
}

//! Workers: read, cut, hash, look up, compress, seal, pack. As many as there are cores.
//!
//! What is hashed, is hashed in groups, side by side (`retoma_sha256`): small files of a batch here, chunks of large ones in `large`.

use super::changes::{Changes, Weight};
use super::directory::Child;
use super::goal::Goal;
use super::large::{ChunkTask, do_chunks, large};
use super::packer::{Packer, lock};
use super::progress::Progress;
use super::queue::{Job, Queue};
use super::source::{Content, Found, Reader};
use super::{Unreadable, store_contents};
use crate::chunk::Chunker;
use crate::format::BlobKind;
use crate::format::tree::{Node, NodeKind};
use crate::id::BlobId;
use crate::index::{Claim, Index};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_sha256::LANES;
use std::ops::Range;
use std::sync::{Mutex, PoisonError, RwLock};

/// What all threads of one backup share.
pub(super) struct Shared<'a> {
    pub(super) packer: &'a Packer,
    pub(super) index: &'a RwLock<Index>,
    pub(super) chunker: &'a Chunker,
    pub(super) progress: &'a Progress,
    /// Where changes are counted; `None` when they are not.
    pub(super) changes: Option<&'a Changes>,
    pub(super) queue: &'a Queue<Vec<Task>, ChunkTask>,
    pub(super) unreadable: &'a Mutex<Vec<Unreadable>>,
    pub(super) failed: &'a Mutex<Option<Error>>,
    pub(super) root: &'a Mutex<Option<BlobId>>,
    /// The blob of zeros that stands for a stretch of a hole.
    pub(super) zeros: &'a Zeros,
}

/// A chunk of zeros, as long as chunks get.
pub(super) struct Zeros {
    pub(super) bytes: u64,
    pub(super) id: BlobId,
}

/// One entry for a worker.
pub(super) struct Task {
    pub(super) node: Box<Node>,
    pub(super) content: Box<dyn Content>,
    pub(super) goal: Goal,
    /// The path as shown to people.
    pub(super) path: Vec<u8>,
}

impl Shared<'_> {
    pub(super) fn claim(&self, kind: BlobKind, id: BlobId) -> Claim {
        // Most blobs of a second backup are known: readers don't wait for each other.
        if self.index.read().unwrap_or_else(PoisonError::into_inner).contains(kind, &id) {
            return Claim::Known;
        }
        self.index.write().unwrap_or_else(PoisonError::into_inner).claim(kind, id)
    }

    pub(super) fn root_done(&self, tree: BlobId) {
        *lock(self.root) = Some(tree);
    }

    pub(super) fn fail(&self, error: Error) {
        lock(self.failed).get_or_insert(error);
        self.queue.abort();
    }

    /// Looked at between files and, in a large one, between chunks: a single file may take hours.
    pub(super) fn stop_if_asked(&self) -> Result<()> {
        if self.progress.is_cancelled() {
            return Err(Error::new(ErrorKind::Cancelled, codes::CANCELLED, "the backup was stopped"));
        }
        Ok(())
    }

    pub(super) fn note_unreadable(&self, path: Vec<u8>, error: Error) {
        lock(self.unreadable).push(Unreadable { path, error });
    }
}

/// Works until there is nothing left to do.
pub(super) fn work(shared: &Shared<'_>) {
    let mut scratch = Scratch::default();
    while let Some(job) = shared.queue.next() {
        let done = match job {
            Job::Batch(tasks) => {
                let done = tasks.into_iter().try_for_each(|task| do_task(shared, task, &mut scratch));
                let done = done.and_then(|()| scratch.small.store(shared, &mut scratch.sealed));
                shared.queue.batch_done();
                done
            }
            Job::Chunks(chunks) => do_chunks(shared, chunks, &mut scratch),
        };
        if let Err(error) = done {
            shared.fail(error);
        }
    }
}

/// Buffers that a worker uses again and again.
#[derive(Default)]
pub(super) struct Scratch {
    small: SmallFiles,
    pub(super) sealed: Vec<u8>,
}

/// Small files that wait to be hashed together, at most: more than lanes, so that none is empty while others have work.
const SMALL_FILES: usize = 4 * LANES;
/// Their bytes from which on no more are added: the processor's cache still holds them.
const SMALL_BYTES: usize = 512 << 10;

/// Small files of one batch that were read and wait to be hashed together.
#[derive(Default)]
struct SmallFiles {
    /// Their contents, up to `used`.
    plain: Vec<u8>,
    used: usize,
    files: Vec<SmallFile>,
}

struct SmallFile {
    node: Box<Node>,
    goal: Goal,
    plain: Range<usize>,
}

/// Errors about the entry itself make it unreadable; others end the backup. A small file may wait in `scratch` for others of its batch.
pub(super) fn do_task(shared: &Shared<'_>, mut task: Task, scratch: &mut Scratch) -> Result<()> {
    if shared.queue.is_aborted() {
        return Ok(());
    }
    shared.stop_if_asked()?;
    let described = task.content.describe(&mut task.node);
    if matches!(described, Ok(Found::Gone)) {
        return task.goal.fill_absent(shared);
    }
    if task.node.kind != NodeKind::File {
        let Task { node, goal, path, .. } = task;
        return match described {
            Ok(_) => goal.fill(shared, Child::Changed(node)),
            Err(error) => unreadable(shared, goal, path, error),
        };
    }
    match described.and_then(|_| task.content.open()) {
        Ok(reader)
            if task.goal.is_place()
                && reader
                    .size_bytes()
                    .is_some_and(|size| size <= shared.chunker.sizes().min_bytes as u64) =>
        {
            small(shared, task, reader, scratch)
        }
        Ok(reader) => large(shared, task, reader, scratch),
        Err(error) => unreadable(shared, task.goal, task.path, error),
    }
}

pub(super) fn unreadable(shared: &Shared<'_>, goal: Goal, path: Vec<u8>, error: Error) -> Result<()> {
    shared.note_unreadable(path, error);
    goal.fill_absent(shared)
}

/// Reads a file that is one chunk, and stores those that wait when they are enough.
fn small(shared: &Shared<'_>, task: Task, mut reader: Box<dyn Reader>, scratch: &mut Scratch) -> Result<()> {
    let small = &mut scratch.small;
    let start = small.used;
    let end = start + usize::try_from(reader.size_bytes().unwrap_or(0)).unwrap_or(0);
    small.plain.resize(small.plain.len().max(end), 0);
    let mut filled = start;
    let read = loop {
        if filled == end {
            break Ok(());
        }
        match reader.read(&mut small.plain[filled..end]) {
            Ok(0) => break Ok(()),
            Ok(count) => filled += count,
            Err(error) => break Err(error),
        }
    };
    let Task { mut node, goal, path, .. } = task;
    let size = (filled - start) as u64;
    if let Err(error) = read.and_then(|()| reader.finish(size)) {
        return unreadable(shared, goal, path, error);
    }
    node.size_bytes = size;
    node.content.clear();
    small.used = filled;
    small.files.push(SmallFile { node, goal, plain: start..filled });
    if small.files.len() < SMALL_FILES && small.used < SMALL_BYTES {
        return Ok(());
    }
    small.store(shared, &mut scratch.sealed)
}

impl SmallFiles {
    /// Hashes the files that wait side by side and stores each.
    fn store(&mut self, shared: &Shared<'_>, sealed: &mut Vec<u8>) -> Result<()> {
        self.used = 0;
        let contents: Vec<&[u8]> = self.files.iter().map(|file| &self.plain[file.plain.clone()]).collect();
        let ids = BlobId::of_each(&contents);
        for (SmallFile { mut node, goal, plain }, id) in self.files.drain(..).zip(ids) {
            let mut weight = Weight::default();
            if !plain.is_empty() {
                weight = store_contents(shared, id, &self.plain[plain], sealed)?;
                node.content.push(id);
            }
            shared.progress.add_file(node.size_bytes);
            goal.fill_read(shared, node, weight)?;
        }
        Ok(())
    }
}

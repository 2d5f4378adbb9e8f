//! Workers: read, cut, hash, look up, compress, seal, pack. As many as there are cores.

use super::changes::{Changes, Weight};
use super::directory::Child;
use super::goal::Goal;
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
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

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

/// A chunk of a large file.
pub(super) struct ChunkTask {
    file: Arc<LargeFile>,
    position: usize,
    bytes: Vec<u8>,
}

/// A file whose chunks are under way.
struct LargeFile {
    /// Blobs in order; zeros where one is under way.
    content: Mutex<Vec<Option<BlobId>>>,
    /// Of all chunks that are done.
    weight: Mutex<Weight>,
    /// Chunks under way, and one for the reader.
    left: AtomicUsize,
    task: Mutex<Option<Task>>,
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
                shared.queue.batch_done();
                done
            }
            Job::Chunk(chunk) => do_chunk(shared, &chunk, &mut scratch.sealed),
        };
        if let Err(error) = done {
            shared.fail(error);
        }
    }
}

/// Buffers that a worker uses again and again.
#[derive(Default)]
pub(super) struct Scratch {
    plain: Vec<u8>,
    sealed: Vec<u8>,
}

/// Errors about the entry itself make it unreadable; others end the backup.
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

fn unreadable(shared: &Shared<'_>, goal: Goal, path: Vec<u8>, error: Error) -> Result<()> {
    shared.note_unreadable(path, error);
    goal.fill_absent(shared)
}

/// A file that is one chunk.
fn small(shared: &Shared<'_>, task: Task, mut reader: Box<dyn Reader>, scratch: &mut Scratch) -> Result<()> {
    let size = usize::try_from(reader.size_bytes().unwrap_or(0)).unwrap_or(0);
    scratch.plain.resize(size, 0);
    let mut filled = 0;
    let read = loop {
        if filled == size {
            break Ok(());
        }
        match reader.read(&mut scratch.plain[filled..]) {
            Ok(0) => break Ok(()),
            Ok(count) => filled += count,
            Err(error) => break Err(error),
        }
    };
    let Task { mut node, goal, path, .. } = task;
    if let Err(error) = read.and_then(|()| reader.finish(filled as u64)) {
        return unreadable(shared, goal, path, error);
    }
    node.size_bytes = filled as u64;
    node.content.clear();
    let mut weight = Weight::default();
    if filled > 0 {
        let (id, stored) = store_contents(shared, &scratch.plain[..filled], &mut scratch.sealed)?;
        node.content.push(id);
        weight = stored;
    }
    shared.progress.add_file(filled as u64);
    goal.fill_read(shared, node, weight)
}

/// A file of several chunks, cut here and stored by whoever is free.
fn large(shared: &Shared<'_>, task: Task, mut reader: Box<dyn Reader>, scratch: &mut Scratch) -> Result<()> {
    let file = Arc::new(LargeFile {
        content: Mutex::default(),
        weight: Mutex::default(),
        left: AtomicUsize::new(1),
        task: Mutex::new(Some(task)),
    });
    let read = cut(shared, &file, reader.as_mut(), scratch)?;
    match read.and_then(|total| reader.finish(total).map(|()| total)) {
        Ok(total) => {
            if let Some(task) = lock(&file.task).as_mut() {
                task.node.size_bytes = total;
            }
        }
        Err(error) => {
            // The chunks that are under way are stored and left to prune.
            if let Some(task) = lock(&file.task).take() {
                unreadable(shared, task.goal, task.path, error)?;
            }
        }
    }
    chunk_done(shared, &file)
}

/// Cuts the whole file. The outer error ends the backup, the inner one makes the file unreadable.
fn cut(
    shared: &Shared<'_>,
    file: &Arc<LargeFile>,
    reader: &mut dyn Reader,
    scratch: &mut Scratch,
) -> Result<Result<u64>> {
    let max = shared.chunker.sizes().max_bytes;
    let limit = reader.size_bytes().unwrap_or(u64::MAX);
    let block = reader.block_bytes().map(|bytes| bytes.clamp(1, max));
    // So much must be seen to know the next cut.
    let ahead = block.unwrap_or(max);
    let mut buffer = vec![0; usize::try_from(limit).unwrap_or(usize::MAX).min(2 * max)];
    // What was read and not yet cut is `buffer[start..end]`; `total` counts what was read.
    let (mut start, mut end, mut total, mut ended) = (0, 0, 0u64, false);
    loop {
        if start == end && !ended {
            match skip_zeros(shared, file, reader, limit - total, scratch)? {
                Ok(skipped) => total += skipped,
                Err(error) => return Ok(Err(error)),
            }
        }
        while end - start < ahead && !ended {
            if end == buffer.len() {
                buffer.copy_within(start..end, 0);
                (start, end) = (0, end - start);
            }
            let room = usize::try_from(limit - total).unwrap_or(usize::MAX).min(buffer.len() - end);
            match if room == 0 { Ok(0) } else { reader.read(&mut buffer[end..end + room]) } {
                Ok(0) => ended = true,
                Ok(count) => (end, total) = (end + count, total + count as u64),
                Err(error) => return Ok(Err(error)),
            }
        }
        if start == end {
            return Ok(Ok(total));
        }
        if shared.queue.is_aborted() {
            return Ok(Ok(total));
        }
        shared.stop_if_asked()?;
        let ready = &buffer[start..end];
        let length = block.map_or_else(|| shared.chunker.cut(ready), |bytes| bytes.min(ready.len()));
        add_chunk(shared, file, &buffer[start..start + length], scratch)?;
        start += length;
    }
}

/// Stands in for a hole with as many chunks of zeros as fit.
fn skip_zeros(
    shared: &Shared<'_>,
    file: &LargeFile,
    reader: &mut dyn Reader,
    limit: u64,
    scratch: &mut Scratch,
) -> Result<Result<u64>> {
    let zeros = shared.zeros;
    let ahead = match reader.zeros_ahead_bytes() {
        Ok(ahead) => ahead.min(limit) / zeros.bytes,
        Err(error) => return Ok(Err(error)),
    };
    if ahead == 0 {
        return Ok(Ok(0));
    }
    if shared.claim(BlobKind::Data, zeros.id) == Claim::New {
        let plain = vec![0; usize::try_from(zeros.bytes).unwrap_or(0)];
        super::directory::store_new(shared, BlobKind::Data, zeros.id, &plain, &mut scratch.sealed)?;
    }
    lock(&file.weight).add(Weight::zeros(ahead * zeros.bytes));
    let mut content = lock(&file.content);
    content.extend(std::iter::repeat_n(Some(zeros.id), usize::try_from(ahead).unwrap_or(0)));
    shared.progress.add_bytes(ahead * zeros.bytes);
    Ok(reader.skip(ahead * zeros.bytes).map(|()| ahead * zeros.bytes))
}

fn add_chunk(shared: &Shared<'_>, file: &Arc<LargeFile>, chunk: &[u8], scratch: &mut Scratch) -> Result<()> {
    let position = {
        let mut content = lock(&file.content);
        content.push(None);
        content.len() - 1
    };
    file.left.fetch_add(1, Ordering::AcqRel);
    let chunk = ChunkTask { file: Arc::clone(file), position, bytes: chunk.to_vec() };
    match shared.queue.offer_chunk(chunk) {
        Ok(()) => Ok(()),
        Err(chunk) => do_chunk(shared, &chunk, &mut scratch.sealed),
    }
}

fn do_chunk(shared: &Shared<'_>, chunk: &ChunkTask, sealed: &mut Vec<u8>) -> Result<()> {
    let (id, weight) = store_contents(shared, &chunk.bytes, sealed)?;
    lock(&chunk.file.weight).add(weight);
    shared.progress.add_bytes(chunk.bytes.len() as u64);
    lock(&chunk.file.content)[chunk.position] = Some(id);
    chunk_done(shared, &chunk.file)
}

/// The last to be done puts the file into its directory.
fn chunk_done(shared: &Shared<'_>, file: &LargeFile) -> Result<()> {
    if file.left.fetch_sub(1, Ordering::AcqRel) > 1 || shared.queue.is_aborted() {
        return Ok(());
    }
    let Some(Task { mut node, goal, .. }) = lock(&file.task).take() else { return Ok(()) };
    let content: Option<Vec<BlobId>> = std::mem::take(&mut *lock(&file.content)).into_iter().collect();
    node.content = content.ok_or_else(|| Error::internal("a file is done before its chunks"))?;
    shared.progress.add_file(0);
    let weight = *lock(&file.weight);
    goal.fill_read(shared, node, weight)
}

//! Files of several chunks: one worker cuts them, whoever is free hashes and stores the chunks.

use super::changes::Weight;
use super::packer::lock;
use super::source::Reader;
use super::store_contents;
use super::worker::{Scratch, Shared, Task, unreadable};
use crate::format::BlobKind;
use crate::id::BlobId;
use crate::index::Claim;
use retoma_core::{Error, Result};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

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

/// A file of several chunks, cut here and stored by whoever is free.
pub(super) fn large(
    shared: &Shared<'_>,
    task: Task,
    mut reader: Box<dyn Reader>,
    scratch: &mut Scratch,
) -> Result<()> {
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
    shared.queue.offer_chunk(chunk).or_else(|chunks| do_chunks(shared, chunks, scratch))
}

/// Hashes chunks side by side and stores each.
pub(super) fn do_chunks(shared: &Shared<'_>, chunks: Vec<ChunkTask>, scratch: &mut Scratch) -> Result<()> {
    let plaintexts: Vec<&[u8]> = chunks.iter().map(|chunk| chunk.bytes.as_slice()).collect();
    let ids = BlobId::of_each(&plaintexts);
    for (chunk, id) in chunks.into_iter().zip(ids) {
        let weight = store_contents(shared, id, &chunk.bytes, &mut scratch.sealed)?;
        lock(&chunk.file.weight).add(weight);
        shared.progress.add_bytes(chunk.bytes.len() as u64);
        lock(&chunk.file.content)[chunk.position] = Some(id);
        chunk_done(shared, &chunk.file)?;
    }
    Ok(())
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

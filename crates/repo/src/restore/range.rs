//! Ranges of files, read without restoring them: for what has to be there at once.

use crate::blob;
use crate::format::BlobKind;
use crate::format::tree::{Node, NodeKind};
use crate::id::BlobId;
use crate::index::{Index, Location};
use crate::repository::Repository;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use std::ops::Range;

/// Where a file's chunks lie in it: made once, it finds each range in a few steps. 40 bytes a chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileMap {
    ids: Vec<BlobId>,
    /// Where each chunk ends, in bytes.
    ends: Vec<u64>,
}

impl FileMap {
    /// The map of a file's node.
    ///
    /// # Errors
    /// `Invalid` when it is no file, `Corrupt` with `R0208` when the index lacks one of its blobs.
    pub fn new(index: &Index, node: &Node) -> Result<Self> {
        if node.kind != NodeKind::File {
            let message = format!("`{}` is not a regular file", node.name.escape_ascii());
            return Err(Error::new(ErrorKind::Invalid, codes::RESTORE_PATH, message));
        }
        let mut end = 0u64;
        let add = |id: &BlobId| {
            end += index.plaintext_bytes(BlobKind::Data, id).ok_or_else(|| super::plan::missing(id))?;
            Ok(end)
        };
        let ends = node.content.iter().map(add).collect::<Result<_>>()?;
        Ok(Self { ids: node.content.clone(), ends })
    }

    /// The file's size in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.ends.last().copied().unwrap_or(0)
    }

    /// Where a chunk lies in the file.
    fn bytes(&self, chunk: usize) -> Range<u64> {
        let start = chunk.checked_sub(1).map_or(0, |before| self.ends[before]);
        start..self.ends[chunk]
    }

    /// The chunks that hold bytes `range`.
    fn chunks(&self, range: &Range<u64>) -> Range<usize> {
        let first = self.ends.partition_point(|end| *end <= range.start);
        let last = self.ends.partition_point(|end| *end < range.end);
        first..if range.is_empty() { first } else { last + 1 }
    }
}

/// Neighbours in a pack are read at once up to so many bytes.
const RANGE_BYTES: u32 = 8 << 20;

impl Repository {
    /// Reads `length` bytes of a file at `offset`; fewer where the file ends before. For many ranges of one file, see
    /// [`Repository::read_mapped`].
    ///
    /// # Errors
    /// See [`FileMap::new`] and [`Repository::read_mapped`].
    pub fn read_range(&self, index: &Index, node: &Node, offset: u64, length: u64) -> Result<Vec<u8>> {
        self.read_mapped(index, &FileMap::new(index, node)?, offset, length)
    }

    /// Reads `length` bytes at `offset` of the file with this map; fewer where the file ends before. Only the chunks
    /// that hold them are read, neighbours at once; all of them are checked.
    ///
    /// # Errors
    /// `Corrupt` when no good copy of a chunk is left; what the store says.
    pub fn read_mapped(&self, index: &Index, file: &FileMap, offset: u64, length: u64) -> Result<Vec<u8>> {
        let end = offset.saturating_add(length).min(file.size_bytes());
        let range = offset.min(end)..end;
        let mut output = Vec::new();
        let mut chunks = file.chunks(&range);
        while !chunks.is_empty() {
            let together = together(index, &file.ids[chunks.clone()]);
            let plaintexts = self.read_together(index, &file.ids[chunks.start..], &together)?;
            for plaintext in plaintexts {
                let bytes = file.bytes(chunks.start);
                let from = range.start.saturating_sub(bytes.start);
                let to = range.end.min(bytes.end) - bytes.start;
                let part = usize::try_from(from).ok().zip(usize::try_from(to).ok());
                let part = part.and_then(|(from, to)| plaintext.get(from..to));
                output.extend_from_slice(part.ok_or_else(|| Error::internal("a chunk has another length"))?);
                chunks.start += 1;
            }
        }
        Ok(output)
    }

    /// The first blobs of `ids`, as many as `together` has places; at least one.
    fn read_together(&self, index: &Index, ids: &[BlobId], together: &[Location]) -> Result<Vec<Vec<u8>>> {
        if let [first, .., last] = together {
            let start = u64::from(first.blob.offset_bytes);
            let end = u64::from(last.blob.offset_bytes) + u64::from(last.blob.length_bytes);
            if let Ok(bytes) = self.store().get_range(&self.pack_key(first.pack)?, start..end) {
                let mut rest = &bytes[..];
                let open = |location: &Location| {
                    let sealed = rest.split_off(..location.blob.length_bytes as usize)?;
                    blob::open(self.key(), &location.blob, sealed.to_vec()).ok()
                };
                if let Some(plaintexts) = together.iter().map(open).collect() {
                    return Ok(plaintexts);
                }
            }
        }
        // One alone, or something is damaged: each from wherever it is good.
        let count = together.len().max(1);
        ids.iter().take(count).map(|id| self.read_blob(index, BlobKind::Data, id)).collect()
    }
}

/// The places of the first blobs that lie one after another in one pack.
fn together(index: &Index, ids: &[BlobId]) -> Vec<Location> {
    let mut places: Vec<Location> = Vec::new();
    for id in ids {
        let Some(next) = index.get(BlobKind::Data, id) else { break };
        if let (Some(first), Some(last)) = (places.first(), places.last()) {
            let end = last.blob.offset_bytes.checked_add(last.blob.length_bytes);
            let long = next.blob.offset_bytes.saturating_sub(first.blob.offset_bytes) > RANGE_BYTES;
            if next.pack != last.pack || Some(next.blob.offset_bytes) != end || long {
                break;
            }
        }
        places.push(next);
    }
    places
}

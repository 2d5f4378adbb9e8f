//! Collects sealed blobs into packs, stores the packs, and then writes the index: packs durable → index durable.

use crate::crypto::MasterKey;
use crate::format::BlobKind;
use crate::format::index::{IndexFile, IndexPack};
use crate::format::pack::{self, PackedBlob};
use crate::id::{BlobId, PackId};
use crate::index::Index;
use crate::repository::Repository;
use crate::store::{PutMode, PutTicket};
use bytes::Bytes;
use retoma_core::{Error, Result, ResultExt};
use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, RwLock};
use std::time::{Duration, Instant};

/// A pack is closed when its blobs reach this size. restic's default.
pub(crate) const PACK_BYTES: usize = 16 << 20;
/// A header must stay readable: at most so many blobs a pack.
const PACK_BLOBS: usize = 100_000;
/// Packs that are being stored while others are filled.
const PACKS_IN_FLIGHT: usize = 4;
/// An index file is written after so many blobs …
const INDEX_BLOBS: usize = 50_000;
/// … or so long, so that an interrupted backup does not start from nothing.
const INDEX_INTERVAL: Duration = Duration::from_mins(5);

pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug, Default)]
struct OpenPack {
    bytes: Vec<u8>,
    blobs: Vec<PackedBlob>,
}

#[derive(Debug)]
struct Unindexed {
    packs: Vec<IndexPack>,
    blobs: usize,
    since: Instant,
}

/// Shared by all workers of one backup.
#[derive(Debug)]
pub(crate) struct Packer {
    repository: Repository,
    data: Mutex<OpenPack>,
    trees: Mutex<OpenPack>,
    stored: Mutex<VecDeque<(PutTicket, IndexPack)>>,
    unindexed: Mutex<Unindexed>,
    /// Bytes of finished packs.
    stored_bytes: AtomicU64,
}

impl Packer {
    pub(crate) fn new(repository: Repository) -> Self {
        let unindexed = Unindexed { packs: Vec::new(), blobs: 0, since: Instant::now() };
        Self {
            repository,
            data: Mutex::default(),
            trees: Mutex::default(),
            stored: Mutex::default(),
            unindexed: Mutex::new(unindexed),
            stored_bytes: AtomicU64::new(0),
        }
    }

    pub(crate) fn repository(&self) -> &Repository {
        &self.repository
    }

    pub(crate) fn key(&self) -> &MasterKey {
        self.repository.key()
    }

    /// Adds a sealed blob, and stores the pack when it is full.
    pub(crate) fn add(
        &self,
        index: &RwLock<Index>,
        kind: BlobKind,
        id: BlobId,
        sealed: &[u8],
        uncompressed_bytes: Option<u32>,
    ) -> Result<()> {
        let too_large = |_| Error::internal(format!("blob {id} does not fit into a pack"));
        let slot = match kind {
            BlobKind::Data => &self.data,
            BlobKind::Tree => &self.trees,
        };
        let full = {
            let mut open = lock(slot);
            if open.bytes.capacity() == 0 {
                open.bytes.reserve(PACK_BYTES + sealed.len().max(PACK_BYTES / 8));
            }
            let blob = PackedBlob {
                id,
                kind,
                offset_bytes: u32::try_from(open.bytes.len()).map_err(too_large)?,
                length_bytes: u32::try_from(sealed.len()).map_err(too_large)?,
                uncompressed_bytes,
            };
            open.bytes.extend_from_slice(sealed);
            open.blobs.push(blob);
            let full = open.bytes.len() >= PACK_BYTES || open.blobs.len() >= PACK_BLOBS;
            full.then(|| std::mem::take(&mut *open))
        };
        full.map_or(Ok(()), |full| self.store(index, full))
    }

    fn store(&self, index: &RwLock<Index>, full: OpenPack) -> Result<()> {
        let OpenPack { mut bytes, blobs } = full;
        bytes.extend_from_slice(&pack::seal_header(self.key(), &blobs)?);
        let id = PackId::of(&bytes);
        self.stored_bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        let key = self.repository.pack_key(id)?;
        if blobs.first().is_some_and(|blob| blob.kind == BlobKind::Tree) {
            self.repository.store().store().keep(&key);
        }
        let ticket = self.repository.store().put_later(key, Bytes::from(bytes), PutMode::Create);
        lock(&self.stored).push_back((ticket, IndexPack { id, blobs }));
        self.reap(index, PACKS_IN_FLIGHT)?;
        self.write_index_when_due()
    }

    /// Waits until at most `left` packs are still being stored.
    fn reap(&self, index: &RwLock<Index>, left: usize) -> Result<()> {
        loop {
            let oldest = {
                let mut stored = lock(&self.stored);
                if stored.len() <= left {
                    return Ok(());
                }
                stored.pop_front()
            };
            let Some((ticket, pack)) = oldest else { return Ok(()) };
            ticket.wait().with_context(|| format!("store pack {}", pack.id))?;
            index.write().unwrap_or_else(PoisonError::into_inner).add_pack(&pack);
            let mut unindexed = lock(&self.unindexed);
            unindexed.blobs += pack.blobs.len();
            unindexed.packs.push(pack);
        }
    }

    fn write_index_when_due(&self) -> Result<()> {
        let packs = {
            let mut unindexed = lock(&self.unindexed);
            if unindexed.blobs < INDEX_BLOBS && unindexed.since.elapsed() < INDEX_INTERVAL {
                return Ok(());
            }
            unindexed.since = Instant::now();
            unindexed.blobs = 0;
            std::mem::take(&mut unindexed.packs)
        };
        self.write_index(packs)
    }

    fn write_index(&self, packs: Vec<IndexPack>) -> Result<()> {
        if packs.is_empty() {
            return Ok(());
        }
        self.repository.save_index_file(&IndexFile { supersedes: Vec::new(), packs }).map(drop)
    }

    /// Stores what is open, waits for all packs and writes the index. All workers have ended.
    pub(crate) fn finish(&self, index: &RwLock<Index>) -> Result<()> {
        for slot in [&self.data, &self.trees] {
            let rest = std::mem::take(&mut *lock(slot));
            if !rest.blobs.is_empty() {
                self.store(index, rest)?;
            }
        }
        self.reap(index, 0)?;
        let packs = std::mem::take(&mut lock(&self.unindexed).packs);
        self.write_index(packs)
    }

    /// Bytes of all packs that this backup stored.
    pub(crate) fn stored_bytes(&self) -> u64 {
        self.stored_bytes.load(Ordering::Relaxed)
    }
}

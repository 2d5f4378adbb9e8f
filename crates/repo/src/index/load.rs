//! Loading all index files, several at a time.

use super::Index;
use crate::id::IndexId;
use crate::repository::{Folder, Repository};
use retoma_core::{Error, Result};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Index files that are read at the same time.
const READERS: usize = 4;

impl Repository {
    /// Reads every index file. Whoever reads snapshots lists them *before*: a snapshot is written after its index.
    ///
    /// # Errors
    /// The first index file that can't be read stops: without it, blobs would seem to be missing.
    pub fn load_index(&self) -> Result<Index> {
        let ids: Vec<IndexId> = self.list(Folder::Index)?.into_iter().map(|(id, _)| IndexId(id)).collect();
        let (next, index, failed) = (AtomicUsize::new(0), Mutex::new(Index::default()), Mutex::new(None));
        let read = || {
            while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
                match self.index_file(*id) {
                    Ok(file) => {
                        let mut index = index.lock().unwrap_or_else(PoisonError::into_inner);
                        file.packs.iter().for_each(|pack| index.add_pack(pack));
                    }
                    Err(error) => {
                        failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                        next.store(ids.len(), Ordering::Relaxed);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..READERS.min(ids.len()) {
                scope.spawn(read);
            }
        });
        let failed: Option<Error> = failed.into_inner().unwrap_or_else(PoisonError::into_inner);
        match failed {
            Some(error) => Err(error),
            None => Ok(index.into_inner().unwrap_or_else(PoisonError::into_inner)),
        }
    }
}

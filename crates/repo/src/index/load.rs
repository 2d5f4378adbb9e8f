//! Loading all index files, several at a time.

use super::Index;
use crate::format::index::IndexPack;
use crate::id::IndexId;
use crate::repository::{Folder, Repository};
use retoma_core::{Error, ErrorKind, Result};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Index files that are read at the same time.
const READERS: usize = 4;

/// How often the list is read again when prune replaces index files meanwhile. One turn is enough unless prunes follow
/// each other without a pause.
const ATTEMPTS: usize = 10;

/// Which packs of the index are taken in.
type Wanted<'a> = dyn Fn(&IndexPack) -> bool + Sync + 'a;

impl Repository {
    /// Reads every index file. Whoever reads snapshots lists them *before*: a snapshot is written after its index.
    ///
    /// # Errors
    /// The first index file that can't be read stops: without it, blobs would seem to be missing.
    pub fn load_index(&self) -> Result<Index> {
        self.load_index_where(&|_| true)
    }

    /// Reads every index file that can be read; [`Index::unreadable`] tells of the others, and whoever gets this index
    /// must pass that on. Only for those who read: in a snapshot that needs blobs of a damaged index file they are
    /// missing, every other one is whole. A backup would store again what is there, and a prune delete it.
    ///
    /// # Errors
    /// What the store says.
    pub fn load_readable_index(&self) -> Result<Index> {
        self.load_again(&|_| true, true)
    }

    /// Reads every index file and takes the packs in that `wanted` says yes to.
    ///
    /// # Errors
    /// See [`Repository::load_index`].
    pub fn load_index_where(&self, wanted: &Wanted<'_>) -> Result<Index> {
        self.load_again(wanted, false)
    }

    fn load_again(&self, wanted: &Wanted<'_>, passing_over_damage: bool) -> Result<Index> {
        let mut attempt = 1;
        loop {
            match self.load_index_once(wanted, passing_over_damage) {
                // Prune writes the new index files before it deletes the old ones: listing again finds them.
                Err(error) if error.kind() == ErrorKind::NotFound && attempt < ATTEMPTS => attempt += 1,
                done => return done,
            }
        }
    }

    fn load_index_once(&self, wanted: &Wanted<'_>, passing_over_damage: bool) -> Result<Index> {
        let ids: Vec<IndexId> = self.list(Folder::Index)?.into_iter().map(|(id, _)| IndexId(id)).collect();
        let (next, index, failed) = (AtomicUsize::new(0), Mutex::new(Index::default()), Mutex::new(None));
        let read = || {
            while let Some(id) = ids.get(next.fetch_add(1, Ordering::Relaxed)) {
                match self.index_file(*id) {
                    Ok(file) => {
                        let mut index = index.lock().unwrap_or_else(PoisonError::into_inner);
                        file.packs.iter().filter(|pack| wanted(pack)).for_each(|pack| index.add_pack(pack));
                    }
                    Err(error) if passing_over_damage && error.kind() == ErrorKind::Corrupt => {
                        index.lock().unwrap_or_else(PoisonError::into_inner).unreadable.push(error);
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

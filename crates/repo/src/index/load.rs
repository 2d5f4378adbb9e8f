//! Loading all index files, several at a time.

use super::Index;
use crate::copies::is_away;
use crate::format::BlobKind;
use crate::format::index::IndexPack;
use crate::id::IndexId;
use crate::repository::{Folder, Repository};
use crate::threads;
use retoma_core::{ErrorKind, Result};
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
    /// missing, every other one is whole. A backup would store again what is there, and a prune delete it. With
    /// [copies](Repository::with_copies), a store that is away gives an empty index, and everything comes from them.
    ///
    /// # Errors
    /// What the store says.
    pub fn load_readable_index(&self) -> Result<Index> {
        match (self.load_again(&|_| true, true), self.copies()) {
            (Err(error), Some(copies)) => {
                if is_away(&error) {
                    copies.give_up(None);
                }
                Ok(Index { unreadable: vec![error], ..Index::default() })
            }
            (loaded, _) => loaded,
        }
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

    /// Packs of trees are read again and again, a tree at a time.
    fn keep_trees(&self, packs: &[IndexPack]) -> Result<()> {
        // A pack holds blobs of one kind.
        let is_of_trees =
            |pack: &&IndexPack| pack.blobs.first().is_some_and(|blob| blob.kind == BlobKind::Tree);
        for pack in packs.iter().filter(is_of_trees) {
            self.store().store().keep(&self.pack_key(pack.id)?);
        }
        Ok(())
    }

    fn load_index_once(&self, wanted: &Wanted<'_>, passing_over_damage: bool) -> Result<Index> {
        let ids: Vec<IndexId> = self.list(Folder::Index)?.into_iter().map(|(id, _)| IndexId(id)).collect();
        let index = Mutex::new(Index::default());
        threads::for_each("index", READERS, &ids, |id| {
            let file = self.index_file(*id);
            let mut index = index.lock().unwrap_or_else(PoisonError::into_inner);
            match file {
                Ok(file) => {
                    self.keep_trees(&file.packs)?;
                    file.packs.iter().filter(|pack| wanted(pack)).for_each(|pack| index.add_pack(pack));
                }
                Err(error) if passing_over_damage && error.kind() == ErrorKind::Corrupt => {
                    index.unreadable.push(error);
                }
                Err(error) => return Err(error),
            }
            Ok(())
        })?;
        Ok(index.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

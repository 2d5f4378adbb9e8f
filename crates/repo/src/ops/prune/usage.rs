//! Which blobs snapshots need: every tree is read once, several at a time.

use super::choose::Known;
use super::state::Current;
use crate::backup::Progress;
use crate::id::BlobId;
use crate::repository::Repository;
use crate::threads;
use retoma_core::Result;
use std::collections::HashSet;
use std::sync::{Mutex, PoisonError};

/// Trees that are read at the same time.
const READERS: usize = 4;

/// Adds to `known` what the snapshots of `current` need. Trees that are known already are not read again.
pub(super) fn extend(
    repository: &Repository,
    current: &Current,
    known: &mut Known,
    progress: &Progress,
) -> Result<()> {
    let roots: HashSet<BlobId> = current.roots.iter().copied().collect();
    let first: Vec<BlobId> = roots.into_iter().filter(|root| known.trees.insert(*root)).collect();
    let known = Mutex::new(known);
    threads::explore("prune-trees", READERS, first, |tree| {
        progress.check("the prune")?;
        let (mut trees, mut data) = (Vec::new(), Vec::new());
        for node in repository.read_tree(&current.index, &tree)? {
            trees.extend(node.subtree);
            data.extend(node.content);
        }
        let mut known = known.lock().unwrap_or_else(PoisonError::into_inner);
        known.data.extend(data);
        trees.retain(|tree| known.trees.insert(*tree));
        Ok(trees)
    })
}

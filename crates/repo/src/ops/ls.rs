//! What is in a snapshot: its nodes with their paths.

use super::find::{self, Entry, Walk};
use crate::format::snapshot::Snapshot;
use crate::index::Index;
use crate::repository::Repository;
use retoma_core::Result;

/// The nodes at `path` of a snapshot, in the order of a walk.
///
/// A directory gives what is in it (everything below when `recursive`), anything else itself. `path` as in
/// [`find::node`]; the paths that come out start with a slash.
///
/// # Errors
/// `NotFound` with `R0217`; `Corrupt`. Directories further down that can't be read are errors among the items.
pub fn list<'a>(
    repository: &'a Repository,
    index: &'a Index,
    snapshot: &Snapshot,
    path: &[u8],
    recursive: bool,
) -> Result<impl Iterator<Item = Result<Entry>> + use<'a>> {
    let node = find::node(repository, index, &snapshot.tree, path)?;
    let mut clean = Vec::with_capacity(path.len() + 1);
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        clean.push(b'/');
        clean.extend_from_slice(name);
    }
    let walk = node.subtree.map(|tree| {
        let walk = Walk::new(repository, index, tree, &clean);
        if recursive { walk } else { walk.shallow() }
    });
    let alone = if walk.is_none() { Some(Ok(Entry { path: clean, node })) } else { None };
    Ok(alone.into_iter().chain(walk.into_iter().flatten()))
}

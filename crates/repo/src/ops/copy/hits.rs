//! Which snapshots need a blob that cannot be had. Only looked at where there is one: every tree is read once more.

use super::Failed;
use super::walk::is_damage;
use crate::format::BlobKind;
use crate::id::{BlobId, SnapshotId};
use crate::repository::{Found, Repository};
use retoma_core::{Result, ResultExt};
use std::collections::{HashMap, HashSet};

/// Each snapshot that is hit, with one of the blobs that it lacks.
pub(super) fn find(
    repository: &Repository,
    snapshots: &[Found],
    failed: &Failed,
) -> Result<HashMap<SnapshotId, BlobId>> {
    if failed.is_empty() {
        return Ok(HashMap::new());
    }
    // Anew: what prune has moved meanwhile is found.
    let index = repository.load_readable_index().context("load the source's index")?;
    // From a tree to those that it lies in.
    let mut parents: HashMap<BlobId, Vec<BlobId>> = HashMap::new();
    let mut hit: HashMap<BlobId, BlobId> = HashMap::new();
    let mut seen: HashSet<BlobId> = HashSet::new();
    let mut waiting: Vec<BlobId> = snapshots.iter().map(|(_, snapshot)| snapshot.tree).collect();
    while let Some(tree) = waiting.pop() {
        if !seen.insert(tree) {
            continue;
        }
        if failed.contains_key(&(BlobKind::Tree, tree)) {
            hit.insert(tree, tree);
        }
        let nodes = match repository.read_tree(&index, &tree) {
            Ok(nodes) => nodes,
            // It may have been read before; whatever it holds, it cannot be had now.
            Err(error) if is_damage(&error) => {
                hit.insert(tree, tree);
                continue;
            }
            Err(error) => return Err(error),
        };
        for node in nodes {
            if let Some(child) = node.subtree {
                parents.entry(child).or_default().push(tree);
                waiting.push(child);
            }
            if let Some(blob) = node.content.iter().find(|id| failed.contains_key(&(BlobKind::Data, **id))) {
                hit.entry(tree).or_insert(*blob);
            }
        }
    }
    let mut rising: Vec<(BlobId, BlobId)> = hit.iter().map(|(tree, blob)| (*tree, *blob)).collect();
    while let Some((tree, blob)) = rising.pop() {
        for parent in parents.remove(&tree).unwrap_or_default() {
            if hit.insert(parent, blob).is_none() {
                rising.push((parent, blob));
            }
        }
    }
    let lacks = |(id, snapshot): &Found| Some((*id, *hit.get(&snapshot.tree)?));
    Ok(snapshots.iter().filter_map(lacks).collect())
}

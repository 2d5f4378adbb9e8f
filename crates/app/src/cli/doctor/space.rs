//! How much the next backup may store: an upper bound, since compression and what is stored already are not known before.

use retoma_core::Result;
use retoma_core::manifest::{Component, Source};
use retoma_repo::Repository;
use retoma_repo::format::snapshot::Snapshot;
use retoma_repo::ops::diff;
use std::path::Path;

/// What the next backup of some components may store.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Need {
    /// Of the components whose size is known.
    pub(super) bytes: u64,
    /// The others.
    pub(super) unknown: Vec<String>,
}

/// As much as was new between the last two complete snapshots; where there are not two, the size of the source.
pub(super) fn need(repository: Option<&Repository>, components: &[&Component]) -> Need {
    let mut need = Need::default();
    for component in components {
        let new = repository.and_then(|repository| new_bytes(repository, &component.name).ok().flatten());
        match new.or_else(|| source_bytes(component)) {
            Some(bytes) => need.bytes = need.bytes.saturating_add(bytes),
            None => need.unknown.push(component.name.clone()),
        }
    }
    need
}

fn new_bytes(repository: &Repository, component: &str) -> Result<Option<u64>> {
    let (mut snapshots, _) = repository.readable_snapshots()?;
    let is_one = |snapshot: &Snapshot| snapshot.component() == Some(component) && !snapshot.is_incomplete();
    snapshots.retain(|(_, snapshot)| is_one(snapshot));
    let [.., (_, before), (_, after)] = snapshots.as_slice() else { return Ok(None) };
    let index = repository.load_readable_index()?;
    let mut bytes = 0u64;
    for change in diff::diff(repository, &index, before.tree, after.tree) {
        bytes = bytes.saturating_add(change?.added_bytes);
    }
    Ok(Some(bytes))
}

fn source_bytes(component: &Component) -> Option<u64> {
    match &component.source {
        Source::Files { path, .. } | Source::Sqlite { path, .. } => size(path),
        Source::Postgres { .. } | Source::Redis { .. } => None,
    }
}

/// The size of a file or of all files in a folder; what can't be read is another finding.
fn size(path: &Path) -> Option<u64> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    if !metadata.is_dir() {
        return Some(metadata.len());
    }
    let entries = std::fs::read_dir(path).ok()?;
    Some(entries.flatten().filter_map(|entry| size(&entry.path())).fold(0, u64::saturating_add))
}

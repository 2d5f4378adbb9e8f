//! What changed from one snapshot to another.
//!
//! Directories whose trees have the same id are the same and are not read, so that the work grows with what changed.

use super::find::Nesting;
use crate::format::BlobKind;
use crate::format::tree::{Node, NodeKind};
use crate::id::BlobId;
use crate::index::Index;
use crate::repository::Repository;
use retoma_core::{Result, ResultExt};
use std::cmp::Ordering;
use std::collections::HashSet;
use std::iter::Peekable;
use std::vec::IntoIter;

/// How an entry changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// It was not there before.
    Added,
    /// It is no longer there.
    Removed,
    /// A file's contents, a link's target or a device's number differ.
    Content,
    /// Only mode, owner, time of change or extended attributes differ.
    Metadata,
    /// It is another kind of thing now. What was or is below it follows as removed or added.
    Type,
}

/// One entry that changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Its path, with a slash in front.
    pub path: Vec<u8>,
    /// How it changed.
    pub kind: ChangeKind,
    /// What it was.
    pub before: Option<Node>,
    /// What it is.
    pub after: Option<Node>,
    /// Plaintext bytes of the blobs that only the new contents have, each blob once; sizes before deduplication with the
    /// rest of the repository.
    pub added_bytes: u64,
    /// Plaintext bytes of the blobs that only the old contents have.
    pub removed_bytes: u64,
}

/// The changes from one tree to another, in the order of a walk. Memory: the directories on the way down.
///
/// A directory that can't be read gives an error in its place; what is beside it follows.
#[derive(Debug)]
pub struct Diff<'a> {
    repository: &'a Repository,
    index: &'a Index,
    levels: Vec<Level>,
    path: Vec<u8>,
    below: Option<(Option<BlobId>, Option<BlobId>)>,
    nesting: Nesting,
}

#[derive(Debug)]
struct Level {
    before: Peekable<IntoIter<Node>>,
    after: Peekable<IntoIter<Node>>,
    path_bytes: usize,
}

/// Compares two root trees.
pub fn diff<'a>(repository: &'a Repository, index: &'a Index, before: BlobId, after: BlobId) -> Diff<'a> {
    let below = (before != after).then_some((Some(before), Some(after)));
    Diff { repository, index, levels: Vec::new(), path: Vec::new(), below, nesting: Nesting::of(index) }
}

impl Diff<'_> {
    fn descend(&mut self, before: Option<BlobId>, after: Option<BlobId>) -> Result<()> {
        let read = |tree: Option<BlobId>| match tree {
            Some(tree) => self
                .repository
                .read_tree(self.index, &tree)
                .with_context(|| format!("look into `{}`", self.path.escape_ascii())),
            None => Ok(Vec::new()),
        };
        let (before, after) = (read(before)?, read(after)?);
        for nodes in [&before, &after] {
            if let Err(error) = self.nesting.enter(nodes) {
                // Nothing follows.
                self.levels.clear();
                return Err(error);
            }
        }
        self.levels.push(Level {
            before: before.into_iter().peekable(),
            after: after.into_iter().peekable(),
            path_bytes: self.path.len(),
        });
        Ok(())
    }

    fn compare(&mut self, before: Option<Node>, after: Option<Node>) -> Option<Change> {
        let subtree = |node: &Option<Node>| node.as_ref().and_then(|node| node.subtree);
        let (old_tree, new_tree) = (subtree(&before), subtree(&after));
        if old_tree != new_tree {
            self.below = Some((old_tree, new_tree));
        }
        let kind = match (&before, &after) {
            (None, _) => ChangeKind::Added,
            (_, None) => ChangeKind::Removed,
            (Some(old), Some(new)) if old.kind != new.kind => ChangeKind::Type,
            (Some(old), Some(new)) if content_differs(old, new) => ChangeKind::Content,
            (Some(old), Some(new)) if metadata_differs(old, new) => ChangeKind::Metadata,
            _ => return None,
        };
        let added_bytes = self.only_in(after.as_ref(), before.as_ref());
        let removed_bytes = self.only_in(before.as_ref(), after.as_ref());
        Some(Change { path: self.path.clone(), kind, before, after, added_bytes, removed_bytes })
    }

    fn only_in(&self, node: Option<&Node>, other: Option<&Node>) -> u64 {
        let content = |node: Option<&Node>| -> HashSet<BlobId> {
            node.filter(|node| node.kind == NodeKind::File)
                .map(|node| node.content.iter().copied().collect())
                .unwrap_or_default()
        };
        let (mine, theirs) = (content(node), content(other));
        let bytes = |id: &BlobId| self.index.plaintext_bytes(BlobKind::Data, id).unwrap_or(0);
        mine.difference(&theirs).map(bytes).fold(0, u64::saturating_add)
    }
}

fn content_differs(old: &Node, new: &Node) -> bool {
    match old.kind {
        NodeKind::File => old.content != new.content || old.size_bytes != new.size_bytes,
        NodeKind::Symlink => old.link_target != new.link_target,
        NodeKind::BlockDevice | NodeKind::CharDevice => old.device != new.device,
        _ => false,
    }
}

/// Only what a restore would set: a copy of the same files on another disk is no change.
fn metadata_differs(old: &Node, new: &Node) -> bool {
    (old.mode, old.mtime, old.uid, old.gid) != (new.mode, new.mtime, new.uid, new.gid)
        || old.user != new.user
        || old.group != new.group
        || old.xattrs != new.xattrs
}

impl Iterator for Diff<'_> {
    type Item = Result<Change>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some((before, after)) = self.below.take()
                && let Err(error) = self.descend(before, after)
            {
                return Some(Err(error));
            }
            let level = self.levels.last_mut()?;
            self.path.truncate(level.path_bytes);
            let order = match (level.before.peek(), level.after.peek()) {
                (Some(old), Some(new)) => old.name.cmp(&new.name),
                (Some(_), None) => Ordering::Less,
                (None, Some(_)) => Ordering::Greater,
                (None, None) => {
                    self.levels.pop();
                    continue;
                }
            };
            let before = if order == Ordering::Greater { None } else { level.before.next() };
            let after = if order == Ordering::Less { None } else { level.after.next() };
            let name =
                before.as_ref().or(after.as_ref()).map(|node| node.name.as_slice()).unwrap_or_default();
            self.path.push(b'/');
            self.path.extend_from_slice(name);
            if let Some(change) = self.compare(before, after) {
                return Some(Ok(change));
            }
        }
    }
}

//! Which blobs of the source the target lacks: every tree is read once, several at a time.

use super::{Failed, WHAT};
use crate::backup::Progress;
use crate::format::BlobKind;
use crate::format::pack::PackedBlob;
use crate::format::tree::Node;
use crate::id::{BlobId, PackId};
use crate::index::{Claim, Index};
use crate::repository::Repository;
use crate::threads;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

/// Trees that are read at the same time.
const READERS: usize = 4;

/// Blobs to be sent, and where they lie in the source.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// The packs that hold them.
    pub(super) packs: Vec<PackId>,
    /// Each with its pack's place in `packs`; sorted by pack and offset. 56 bytes each.
    pub(super) blobs: Vec<(u32, PackedBlob)>,
    /// Their bytes as stored.
    pub(super) bytes: u64,
    /// What cannot be had: trees that cannot be read, and blobs that no index names.
    pub(super) failed: Failed,
}

/// Where trees are read.
pub(super) trait Trees: Sync {
    /// The entries of a tree, and whether it has to be sent though the target's index names it.
    fn read(&self, id: &BlobId) -> Result<(Vec<Node>, bool)>;
}

/// The trees of a repository, by its index.
pub(super) struct Source<'a>(pub(super) &'a Repository, pub(super) &'a Index);

impl Trees for Source<'_> {
    fn read(&self, id: &BlobId) -> Result<(Vec<Node>, bool)> {
        Ok((self.0.read_tree(self.1, id)?, false))
    }
}

/// The target's index, and the blobs that it names and that are to be sent nevertheless.
pub(super) type Target<'a> = (&'a mut Index, HashSet<(BlobKind, BlobId)>);

/// What was found so far.
struct Found<'a> {
    source: &'a Index,
    target: &'a mut Index,
    /// What the target's index names and is to be sent nevertheless.
    bad: HashSet<(BlobKind, BlobId)>,
    seen: HashSet<BlobId>,
    positions: HashMap<PackId, u32>,
    wanted: Wanted,
}

/// A tree to be read, and whether it is wanted.
type Waiting = (BlobId, bool);

/// Finds what the trees below `roots` need and `target` lacks; it is claimed there.
pub(super) fn walk(
    trees: &dyn Trees,
    source: &Index,
    (target, bad): Target<'_>,
    roots: impl Iterator<Item = BlobId>,
    progress: &Progress,
) -> Result<Wanted> {
    let (seen, positions, wanted) = (HashSet::new(), HashMap::new(), Wanted::default());
    let mut found = Found { source, target, bad, seen, positions, wanted };
    let first = roots.filter_map(|root| found.tree(root)).collect();
    let found = Mutex::new(found);
    threads::explore("copy-trees", READERS, first, |(tree, is_wanted)| {
        progress.check(WHAT)?;
        let read = trees.read(&tree);
        progress.add_file(0);
        found.lock().unwrap_or_else(PoisonError::into_inner).add(tree, is_wanted, read)
    })?;
    let mut wanted = found.into_inner().unwrap_or_else(PoisonError::into_inner).wanted;
    wanted.blobs.sort_unstable_by_key(|(pack, blob)| (*pack, blob.offset_bytes));
    Ok(wanted)
}

impl Found<'_> {
    /// Takes in what a tree holds, and gives the trees in it that were not seen yet.
    fn add(
        &mut self,
        tree: BlobId,
        is_wanted: bool,
        read: Result<(Vec<Node>, bool)>,
    ) -> Result<Vec<Waiting>> {
        let (nodes, is_bad) = match read {
            Ok(read) => read,
            Err(error) if is_damage(&error) => {
                self.wanted.failed.insert((BlobKind::Tree, tree), error);
                return Ok(Vec::new());
            }
            Err(error) => return Err(error),
        };
        if is_bad && !is_wanted && self.bad.insert((BlobKind::Tree, tree)) {
            self.want(BlobKind::Tree, tree);
        }
        let mut more = Vec::new();
        for node in nodes {
            more.extend(node.subtree.and_then(|tree| self.tree(tree)));
            for blob in node.content {
                self.want(BlobKind::Data, blob);
            }
        }
        Ok(more)
    }

    /// A tree that is named; `None` when it was seen before.
    fn tree(&mut self, id: BlobId) -> Option<Waiting> {
        self.seen.insert(id).then(|| (id, self.want(BlobKind::Tree, id)))
    }

    /// Puts a blob on the list, unless the target has it or it is there already; tells whether it did.
    fn want(&mut self, kind: BlobKind, id: BlobId) -> bool {
        // Each is wanted once: a claim is new once, and what is bad is taken off here.
        if self.target.claim(kind, id) == Claim::Known && !self.bad.remove(&(kind, id)) {
            return false;
        }
        let Some(place) = self.source.get(kind, &id) else {
            self.wanted.failed.insert((kind, id), missing(&id));
            return true;
        };
        let Wanted { packs, blobs, bytes, .. } = &mut self.wanted;
        let next = u32::try_from(packs.len()).unwrap_or(u32::MAX);
        let position = *self.positions.entry(place.pack).or_insert_with(|| {
            packs.push(place.pack);
            next
        });
        *bytes += u64::from(place.blob.length_bytes);
        blobs.push((position, place.blob));
        true
    }
}

/// Whether an object is damaged or gone, rather than the store away.
pub(super) fn is_damage(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound)
}

fn missing(id: &BlobId) -> Error {
    Error::new(ErrorKind::Corrupt, codes::BLOB_MISSING, format!("blob {id} is in no index"))
        .with_hint("run `retoma verify` to see which snapshots are hit")
}

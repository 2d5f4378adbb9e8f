//! Reading the trees of several directories at once.

use super::run::{into_inner, lock};
use super::{Options, readers};
use crate::blob;
use crate::format::BlobKind;
use crate::format::tree::{self, Node};
use crate::id::BlobId;
use crate::index::{Index, Location};
use crate::repository::Repository;
use crate::store::REQUEST_BYTES;
use retoma_core::{Error, Result};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// From a store that is far, trees are read at once that lie in one pack within so many bytes, with gaps that cost less than another request.
const TOGETHER_BYTES: u64 = 4 << 20;
const GAP_BYTES: u64 = REQUEST_BYTES as u64;

/// Trees that are read at once: their places in what was asked for, and in a pack, where that is known.
type Group = Vec<(usize, Option<Location>)>;

/// Reads `trees`, in this order.
pub(super) fn read(
    repository: &Repository,
    index: &Index,
    options: &Options,
    trees: &[BlobId],
) -> Vec<Result<Vec<Node>>> {
    let done: Vec<Mutex<Option<Result<Vec<Node>>>>> = trees.iter().map(|_| Mutex::default()).collect();
    let groups = groups(index, trees, repository.store().store().capabilities().far);
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut together = read_together(repository, group).unwrap_or_default().into_iter();
            for (at, _) in group {
                let read = together.next().unwrap_or_else(|| repository.read_tree(index, &trees[*at]));
                *lock(&done[*at]) = Some(read);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..readers(options, repository).min(groups.len()) {
            let builder = std::thread::Builder::new().name("restore-plan".to_owned());
            // Without more threads this one does it all.
            builder.spawn_scoped(scope, work).ok();
        }
        work();
    });
    let lost = || Err(Error::internal("a tree was not read"));
    done.into_iter().map(|slot| into_inner(slot).unwrap_or_else(lost)).collect()
}

fn groups(index: &Index, trees: &[BlobId], is_far: bool) -> Vec<Group> {
    let place = |(at, id): (usize, &BlobId)| (at, index.get(BlobKind::Tree, id));
    let mut places: Vec<_> = trees.iter().enumerate().map(place).collect();
    if is_far {
        places.sort_unstable_by_key(|(_, place)| place.map(|it| (it.pack, it.blob.offset_bytes)));
    }
    let mut groups: Vec<Group> = Vec::new();
    for place in places {
        match groups.last_mut().filter(|group| is_far && belongs(group, place.1)) {
            Some(group) => group.push(place),
            None => groups.push(vec![place]),
        }
    }
    groups
}

/// Whether what lies at `place` is read with the group, behind which it lies.
fn belongs(group: &Group, place: Option<Location>) -> bool {
    let (Some((_, Some(first))), Some((_, Some(last))), Some(place)) = (group.first(), group.last(), place)
    else {
        return false;
    };
    let (start, end) = (u64::from(place.blob.offset_bytes), end(last));
    let is_near = start <= end + GAP_BYTES && start < u64::from(first.blob.offset_bytes) + TOGETHER_BYTES;
    last.pack == place.pack && is_near
}

fn end(location: &Location) -> u64 {
    u64::from(location.blob.offset_bytes) + u64::from(location.blob.length_bytes)
}

/// The trees of a group with one request; `None` for a single one, or when anything about it is wrong: each is then read by itself, from
/// wherever it is good.
fn read_together(repository: &Repository, group: &Group) -> Option<Vec<Result<Vec<Node>>>> {
    let [(_, Some(first)), .., (_, Some(last))] = &group[..] else { return None };
    let start = u64::from(first.blob.offset_bytes);
    let key = repository.pack_key(first.pack).ok()?;
    let bytes = repository.store().get_range(&key, start..end(last)).ok()?;
    let open = |(_, location): &(usize, Option<Location>)| {
        let blob = &location.as_ref()?.blob;
        let from = usize::try_from(u64::from(blob.offset_bytes) - start).ok()?;
        let sealed = bytes.get(from..from.checked_add(blob.length_bytes as usize)?)?;
        let json = blob::open(repository.key(), blob, sealed.to_vec()).ok()?;
        tree::from_json(&json).ok().map(Ok)
    };
    group.iter().map(open).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::index::IndexPack;
    use crate::format::pack::PackedBlob;
    use crate::id::PackId;

    /// Trees of these lengths, one after the other, in one pack.
    fn index(lengths: &[u32]) -> (Index, Vec<BlobId>) {
        let (mut offset_bytes, mut blobs) = (0, Vec::new());
        for (number, length_bytes) in (0u32..).zip(lengths) {
            let id = BlobId::of(&number.to_le_bytes());
            let length_bytes = *length_bytes;
            blobs.push(PackedBlob {
                id,
                kind: BlobKind::Tree,
                offset_bytes,
                length_bytes,
                uncompressed_bytes: None,
            });
            offset_bytes += length_bytes;
        }
        let mut index = Index::default();
        let ids = blobs.iter().map(|blob| blob.id).collect();
        index.add_pack(&IndexPack { id: PackId([1; 32]), blobs });
        (index, ids)
    }

    fn sizes(groups: &[Group]) -> Vec<usize> {
        groups.iter().map(Vec::len).collect()
    }

    #[test]
    fn from_far_neighbours_are_read_together_and_from_near_each_alone() {
        let (index, mut ids) = index(&[1000; 5]);
        ids.swap(0, 4);
        let far = groups(&index, &ids, true);
        assert_eq!(
            far[0].iter().map(|(at, _)| *at).collect::<Vec<_>>(),
            [4, 1, 2, 3, 0],
            "in the pack's order"
        );
        assert_eq!(sizes(&far), [5]);
        assert_eq!(sizes(&groups(&index, &ids, false)), [1; 5]);
    }

    #[test]
    fn groups_end_at_long_gaps_and_are_not_too_long() {
        let gap = u32::try_from(GAP_BYTES).unwrap();
        let (close, ids) = index(&[100, gap, 100]);
        assert_eq!(sizes(&groups(&close, &[ids[0], ids[2]], true)), [2]);
        let (wide, ids) = index(&[100, gap + 1, 100]);
        assert_eq!(sizes(&groups(&wide, &[ids[0], ids[2]], true)), [1, 1]);
        let (long, ids) = index(&[1 << 20; 9]);
        assert_eq!(sizes(&groups(&long, &ids, true)), [4, 4, 1]);
    }

    #[test]
    fn what_no_index_names_is_a_group_of_its_own() {
        let (index, mut ids) = index(&[100; 2]);
        ids.insert(1, BlobId([9; 32]));
        assert_eq!(sizes(&groups(&index, &ids, true)), [1, 2]);
    }
}

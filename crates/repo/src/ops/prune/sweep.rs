//! Phase two: deletes what was marked long enough ago and is still not needed.
//!
//! The order of writes: new index files without the dead packs; old index files that name them; the packs; the marks.
//! Whoever is killed in between leaves packs that two index files name, or packs that none names, and the marks.

use super::choose::PrunePlan;
use super::repack::Copies;
use super::state::Current;
use super::{Pruned, usage};
use crate::backup::Progress;
use crate::format::index::IndexFile;
use crate::format::time::Time;
use crate::id::{IndexId, MarkId, PackId};
use crate::lock::{self, Guard};
use crate::ops::repair;
use crate::repository::{Folder, Repository};
use retoma_core::{Result, ResultExt};
use std::collections::{HashMap, HashSet};

/// How far the clocks of two hosts may be apart.
const SKEW_SECONDS: i64 = 3600;

/// Sweeps the plan's ripe marks, those excepted that a running backup may not have seen.
pub(super) fn sweep(
    repository: &Repository,
    guard: &Guard,
    plan: &mut PrunePlan,
    pruned: &mut Pruned,
    progress: &Progress,
) -> Result<()> {
    // After our lock was left: a backup that is not running now sees the marks when it starts.
    let running = lock::running_backups(repository)?;
    let stored: HashSet<MarkId> =
        repository.list(Folder::Marks)?.into_iter().map(|(id, _)| MarkId(id)).collect();
    let (mut indexed, mut unindexed, mut marks) = (HashSet::new(), Vec::new(), Vec::new());
    for mark in plan.sweep.iter().filter(|mark| stored.contains(&mark.id)) {
        if running.iter().any(|since| may_predate(*since, mark.time)) {
            pruned.postponed.push(mark.id);
            continue;
        }
        marks.push(mark.id);
        indexed.extend(mark.indexed.iter().copied());
        unindexed.extend(mark.unindexed.iter().copied());
        pruned.needed_again.extend(mark.needed_again.iter().copied());
    }
    // After the backups were looked at: what one of them committed is seen here.
    let current = Current::load(repository)?;
    usage::extend(repository, &current, &mut plan.known, progress).context("find what snapshots need")?;
    let known_packs: HashSet<PackId> = current.index.packs().iter().copied().collect();
    let (returned, unindexed) = unindexed.into_iter().partition(|pack| known_packs.contains(pack));
    pruned.needed_again.extend::<Vec<PackId>>(returned);
    let mut doomed = indexed;
    Copies::find(&current, &plan.known, &mut doomed, &HashSet::new(), &mut pruned.needed_again)?;
    let deletion = Deletion { doomed, unindexed, marks, sizes: &current.sizes };
    deletion.run(repository, guard, pruned, progress)
}

/// Whether a backup that began at `since` may have read the marks before this one was written.
fn may_predate(since: Time, marked: Time) -> bool {
    since.to_unix().0 <= marked.to_unix().0.saturating_add(SKEW_SECONDS)
}

/// What is deleted: nobody needs it.
pub(super) struct Deletion<'a> {
    /// Packs that an index may name.
    pub(super) doomed: HashSet<PackId>,
    /// Packs in no index.
    pub(super) unindexed: Vec<PackId>,
    /// The marks that are done with.
    pub(super) marks: Vec<MarkId>,
    /// Sizes of packs in bytes.
    pub(super) sizes: &'a HashMap<PackId, u64>,
}

impl Deletion<'_> {
    pub(super) fn run(
        self,
        repository: &Repository,
        guard: &Guard,
        pruned: &mut Pruned,
        progress: &Progress,
    ) -> Result<()> {
        guard.check()?;
        let outdated = write_index_without(repository, &self.doomed).context("write the new index")?;
        progress.check("the prune")?;
        guard.check()?;
        for id in outdated {
            delete(repository, Folder::Index, &id.to_hex())?;
        }
        let mut packs: Vec<PackId> = self.doomed.into_iter().chain(self.unindexed).collect();
        packs.sort_unstable();
        packs.dedup();
        for (count, pack) in packs.into_iter().enumerate() {
            if count % CHECK_EVERY == 0 {
                progress.check("the prune")?;
                guard.check()?;
            }
            delete(repository, Folder::Data, &pack.to_hex())?;
            if let Some(size) = self.sizes.get(&pack) {
                pruned.removed_packs += 1;
                pruned.removed_bytes += size;
            }
        }
        for mark in self.marks {
            delete(repository, Folder::Marks, &mark.to_hex())?;
        }
        Ok(())
    }
}

/// The lock is looked at again after so many deletions.
const CHECK_EVERY: usize = 64;

fn delete(repository: &Repository, folder: Folder, id: &str) -> Result<()> {
    let doing = || format!("delete {}/{}", folder.name(), id.get(..8).unwrap_or_default());
    repository.store().delete(&folder.key(id)?).with_context(doing)
}

/// Writes what the index files that name a doomed pack say about the others, and gives those files: they may go.
fn write_index_without(repository: &Repository, doomed: &HashSet<PackId>) -> Result<Vec<IndexId>> {
    let mut outdated: Vec<(IndexId, IndexFile)> = Vec::new();
    let mut kept: HashSet<PackId> = HashSet::new();
    for (id, _) in repository.list(Folder::Index)? {
        let file = repository.index_file(IndexId(id))?;
        if file.packs.iter().any(|pack| doomed.contains(&pack.id)) {
            outdated.push((IndexId(id), file));
        } else {
            kept.extend(file.packs.iter().map(|pack| pack.id));
        }
    }
    outdated.sort_unstable_by_key(|(id, _)| *id);
    let ids: Vec<IndexId> = outdated.iter().map(|(id, _)| *id).collect();
    let packs = outdated.into_iter().flat_map(|(_, file)| file.packs);
    repair::write_index(repository, packs.filter(|pack| !doomed.contains(&pack.id) && kept.insert(pack.id)))?;
    Ok(ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::BlobKind;
    use crate::format::index::IndexPack;
    use crate::format::pack::PackedBlob;
    use crate::id::BlobId;
    use crate::store::{BlockingStore, ObjectStore};
    use retoma_core::Secret;

    #[test]
    fn a_backup_of_a_host_whose_clock_is_an_hour_ahead_may_have_begun_before_the_mark() {
        let at = |seconds: i64| Time::from_unix(100_000 + seconds, 0);
        for (since, may) in [
            (-1_000_000, true),
            (-1, true),
            (0, true),
            (1, true),
            (3600, true),
            (3601, false),
            (90_000, false),
        ] {
            assert_eq!(may_predate(at(since), at(0)), may, "{since} s after the mark");
        }
    }

    fn pack(number: u8) -> IndexPack {
        let blob = PackedBlob {
            id: BlobId::of(&[number]),
            kind: BlobKind::Data,
            offset_bytes: 0,
            length_bytes: 100,
            uncompressed_bytes: None,
        };
        IndexPack { id: PackId([number; 32]), blobs: vec![blob] }
    }

    /// Every index file, as the numbers of its packs.
    fn files(repository: &Repository) -> Vec<Vec<u8>> {
        let read = |(id, _)| {
            let file = repository.index_file(IndexId(id)).unwrap();
            assert!(file.supersedes.is_empty(), "an old file must count until it is deleted");
            file.packs.iter().map(|pack| pack.id.0[0]).collect()
        };
        let mut files: Vec<Vec<u8>> = repository.list(Folder::Index).unwrap().into_iter().map(read).collect();
        files.sort();
        files
    }

    #[test]
    fn the_new_index_says_of_each_pack_that_stays_what_the_old_said_and_no_file_is_deleted_yet() {
        type Files<'a> = &'a [&'a [u8]];
        let cases: [(Files<'_>, &[u8], Files<'_>, usize); 6] = [
            (&[&[1, 2], &[3]], &[], &[&[1, 2], &[3]], 0),
            (&[&[1, 2], &[3]], &[4], &[&[1, 2], &[3]], 0),
            (&[&[1, 2], &[3]], &[1], &[&[1, 2], &[2], &[3]], 1),
            // Nothing is left of a file, so nothing takes its place.
            (&[&[1, 2], &[3]], &[3], &[&[1, 2], &[3]], 1),
            // A prune was killed: another file has the pack already.
            (&[&[1, 2], &[2, 3]], &[1], &[&[1, 2], &[2, 3]], 1),
            // What two files say that both go is written once.
            (&[&[1, 2, 4], &[1, 2, 5]], &[1], &[&[1, 2, 4], &[1, 2, 5], &[2, 4, 5]], 2),
        ];
        for (before, doomed, after, outdated) in cases {
            let store = BlockingStore::new(std::sync::Arc::new(ObjectStore::memory())).unwrap();
            let repository = Repository::init(store, &Secret::new("a test".to_owned())).unwrap();
            for numbers in before {
                repair::write_index(&repository, numbers.iter().map(|number| pack(*number))).unwrap();
            }
            let doomed = doomed.iter().map(|number| PackId([*number; 32])).collect();
            let gone = write_index_without(&repository, &doomed).unwrap();
            assert_eq!(gone.len(), outdated, "{before:?} without {doomed:?}");
            let found: Vec<Vec<u8>> = files(&repository)
                .into_iter()
                .map(|mut packs| {
                    packs.sort_unstable();
                    packs
                })
                .collect();
            let expected: Vec<Vec<u8>> = after.iter().map(|packs| packs.to_vec()).collect();
            assert_eq!(found, expected, "{before:?} without {doomed:?}");
        }
    }
}

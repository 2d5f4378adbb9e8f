//! From what is damaged up to the snapshots that need it.
//!
//! Only what is damaged costs anything here: the way up goes over the numbers that the walk kept, and the way down, for
//! the paths, reads only directories that lead to damage.

use super::report::{Draft, Finding, Scope, SnapshotHit};
use super::trees::Walked;
use super::{Damaged, Snapshots};
use crate::format::BlobKind;
use crate::format::tree::Node;
use crate::id::{BlobId, SnapshotId};
use crate::index::Index;
use crate::repository::Repository;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// What is needed to find out.
pub(super) struct Finder<'a> {
    pub(super) repository: &'a Repository,
    pub(super) index: &'a Index,
    pub(super) snapshots: &'a Snapshots,
    pub(super) damaged: &'a Damaged,
    pub(super) walked: &'a Walked,
    pub(super) paths: usize,
}

/// Directories that are read for the sake of paths, in all: beyond them snapshots are named without paths.
const READS_MAX: usize = 20_000;

/// Gives every finding the snapshots that it hits.
pub(super) fn resolve(finder: &Finder<'_>, drafts: Vec<Draft>) -> Vec<Finding> {
    let mut reads = READS_MAX;
    let mut findings = Vec::with_capacity(drafts.len());
    let infos: Vec<SnapshotHit> = finder
        .snapshots
        .iter()
        .map(|(id, snapshot)| SnapshotHit {
            id: *id,
            component: snapshot.component().map(Arc::from),
            time: Some(snapshot.time),
            paths: Vec::new(),
        })
        .collect();
    for (number, draft) in drafts.into_iter().enumerate() {
        let snapshots = match &draft.scope {
            Scope::Nothing => Vec::new(),
            Scope::AllSnapshots => infos.clone(),
            Scope::Snapshot(id) => vec![unreadable(*id)],
            Scope::Blobs => finder.hits(&[number], &infos, &mut reads),
            Scope::Missing => {
                let causes: Vec<usize> = finder.walked.missing.iter().flatten().copied().collect();
                finder.hits(&causes, &infos, &mut reads)
            }
        };
        findings.push(draft.finish(snapshots));
    }
    findings.sort_by(|a, b| {
        (a.severity, &a.object, a.offset_bytes, a.code).cmp(&(b.severity, &b.object, b.offset_bytes, b.code))
    });
    findings
}

fn unreadable(id: SnapshotId) -> SnapshotHit {
    SnapshotHit { id, component: None, time: None, paths: Vec::new() }
}

impl Finder<'_> {
    /// The snapshots that need what one of `causes` is about.
    fn hits(&self, causes: &[usize], infos: &[SnapshotHit], reads: &mut usize) -> Vec<SnapshotHit> {
        let direct = |cause: &usize| {
            let all = &self.walked.direct;
            let from = all.partition_point(|(known, _)| known < cause);
            let to = all.partition_point(|(known, _)| known <= cause);
            all[from..to].iter().map(|(_, tree)| *tree)
        };
        let direct: HashSet<u32> = causes.iter().flat_map(direct).collect();
        let reached = self.way_up(&direct);
        let search = Search { finder: self, causes, direct: &direct, reached: &reached };
        let mut known: HashMap<u32, Vec<Vec<u8>>> = HashMap::new();
        let mut hits = Vec::new();
        // Newest first, since those are what people want back; then oldest first again, as everywhere.
        for ((_, snapshot), info) in self.snapshots.iter().zip(infos).rev() {
            let Some(root) = self.walked.numbers.get(&snapshot.tree).filter(|root| reached.contains(root))
            else {
                continue;
            };
            let paths = known.entry(*root).or_insert_with(|| search.paths(snapshot.tree, reads));
            hits.push(SnapshotHit { paths: paths.clone(), ..info.clone() });
        }
        hits.reverse();
        hits
    }

    /// All trees that lead to one of `direct`, those too.
    fn way_up(&self, direct: &HashSet<u32>) -> HashSet<u32> {
        let mut reached = direct.clone();
        let mut waiting: Vec<u32> = direct.iter().copied().collect();
        let edges = &self.walked.edges;
        while let Some(child) = waiting.pop() {
            let from = edges.partition_point(|(known, _)| *known < child);
            for (_, parent) in edges[from..].iter().take_while(|(known, _)| *known == child) {
                if reached.insert(*parent) {
                    waiting.push(*parent);
                }
            }
        }
        reached
    }
}

struct Search<'a> {
    finder: &'a Finder<'a>,
    causes: &'a [usize],
    direct: &'a HashSet<u32>,
    reached: &'a HashSet<u32>,
}

impl Search<'_> {
    /// Some paths below `root` that can't be restored. A directory that can't be read ends with a slash.
    fn paths(&self, root: BlobId, reads: &mut usize) -> Vec<Vec<u8>> {
        let mut found = Vec::new();
        let mut waiting = vec![(root, Vec::new())];
        while let Some((tree, path)) = waiting.pop() {
            if found.len() >= self.finder.paths || *reads == 0 {
                break;
            }
            *reads -= 1;
            let number = self.finder.walked.numbers.get(&tree);
            let is_direct = number.is_some_and(|number| self.direct.contains(number));
            let Ok(nodes) = self.finder.repository.read_tree(self.finder.index, &tree) else {
                found.push([path.as_slice(), b"/"].concat());
                continue;
            };
            let mut below = Vec::new();
            for node in nodes {
                let path = || [path.as_slice(), b"/", &node.name].concat();
                if is_direct && self.is_hit(&node) && found.len() < self.finder.paths {
                    found.push(path());
                }
                let subtree = node.subtree.and_then(|id| Some((id, self.finder.walked.numbers.get(&id)?)));
                if let Some((id, number)) = subtree
                    && self.reached.contains(number)
                {
                    below.push((id, path()));
                }
            }
            waiting.extend(below.into_iter().rev());
        }
        found
    }

    fn is_hit(&self, node: &Node) -> bool {
        let by_name =
            |cause: &usize| self.finder.walked.named.get(cause).is_some_and(|name| *name == node.name);
        let missing = self.finder.walked.missing[0].is_some_and(|cause| self.causes.contains(&cause));
        let by_blob = |id: &BlobId| {
            let causes = self.finder.damaged.get(&(BlobKind::Data, *id));
            causes.is_some_and(|causes| causes.iter().any(|cause| self.causes.contains(cause)))
                || missing && !self.finder.index.contains(BlobKind::Data, id)
        };
        self.causes.iter().any(by_name) || node.content.iter().any(by_blob)
    }
}

//! Trees: each directory of every snapshot once, and what its nodes need.
//!
//! While it goes through them it numbers the trees and keeps which lies in which (8 bytes for each), so that later the
//! way from what is damaged up to the snapshots is found without reading again.

use super::objects::LoadedIndex;
use super::report::{Draft, Scope, Severity};
use super::{Damaged, Run, Snapshots, object_name};
use crate::format::BlobKind;
use crate::format::tree::{Node, NodeKind};
use crate::id::BlobId;
use crate::index::Index;
use crate::repository::Folder;
use crate::threads;
use retoma_core::{Error, ErrorKind, Result, error::codes, units::counted};
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

/// The trees of all snapshots and where damage shows in them.
#[derive(Default)]
pub(super) struct Walked {
    /// Number of each tree.
    pub(super) numbers: HashMap<BlobId, u32>,
    /// (child, parent), sorted.
    pub(super) edges: Vec<(u32, u32)>,
    /// (finding, tree): the tree can't be read, or holds a file that can't be restored; sorted.
    pub(super) direct: Vec<(usize, u32)>,
    /// (finding, tree, name): the one node that a finding is about.
    pub(super) named: HashMap<usize, Vec<u8>>,
    /// The finding about files' blobs that are in no index, and the one about directories'.
    pub(super) missing: [Option<usize>; 2],
}

struct Shared<'a, 'b> {
    run: &'a Run<'b>,
    index: &'a Index,
    damaged: &'a Damaged,
    found: Mutex<Found>,
}

#[derive(Default)]
struct Found {
    walked: Walked,
    /// Blobs that are in no index, to count each once.
    missing: HashSet<(BlobKind, BlobId)>,
}

/// What one tree showed, put together without a lock.
#[derive(Default)]
struct Seen {
    children: Vec<BlobId>,
    causes: Vec<usize>,
    missing: Vec<(BlobKind, BlobId)>,
    named: Option<(usize, Vec<u8>)>,
    files: u64,
}

/// Reads every tree of every snapshot once.
pub(super) fn check(run: &Run<'_>, loaded: &LoadedIndex, snapshots: &Snapshots) -> Result<Walked> {
    let damaged = run.state().damaged.clone();
    let mut found = Found::default();
    let first = snapshots.iter().filter_map(|(_, snapshot)| found.number(snapshot.tree).1).collect();
    let shared = Shared { run, index: &loaded.index, damaged: &damaged, found: Mutex::new(found) };
    threads::explore("verify", run.workers(), first, |(tree, number)| {
        run.check_not_cancelled()?;
        let seen = shared.look_at(&tree)?;
        Ok(shared.add(number, seen))
    })?;
    let found = shared.found.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut walked = found.walked;
    run.state().counts.trees = walked.numbers.len() as u64;
    walked.edges.sort_unstable();
    walked.edges.dedup();
    walked.direct.sort_unstable();
    walked.direct.dedup();
    Ok(walked)
}

/// A tree to be read, and its number.
type Waiting = (BlobId, u32);

impl Found {
    /// The number of a tree, and the tree when it is new.
    fn number(&mut self, tree: BlobId) -> (u32, Option<Waiting>) {
        let next = u32::try_from(self.walked.numbers.len()).unwrap_or(u32::MAX);
        let number = *self.walked.numbers.entry(tree).or_insert(next);
        (number, (number == next).then_some((tree, number)))
    }
}

impl Shared<'_, '_> {
    /// Takes in what a tree showed, and gives the trees in it that are new.
    fn add(&self, number: u32, seen: Seen) -> Vec<Waiting> {
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let mut more = Vec::new();
        for child in seen.children {
            let (child, waiting) = found.number(child);
            found.walked.edges.push((child, number));
            more.extend(waiting);
        }
        for (kind, id) in seen.missing {
            let slot = usize::from(kind == BlobKind::Tree);
            let cause = *found.walked.missing[slot].get_or_insert_with(|| self.run.add(missing(kind)));
            found.walked.direct.push((cause, number));
            if found.missing.insert((kind, id)) {
                self.run.state().drafts[cause].add_blob(id);
            }
        }
        found.walked.direct.extend(seen.causes.into_iter().map(|cause| (cause, number)));
        found.walked.named.extend(seen.named);
        drop(found);
        self.run.state().counts.files += seen.files;
        more
    }

    fn look_at(&self, tree: &BlobId) -> Result<Seen> {
        let mut seen = Seen::default();
        match self.run.repository.read_tree(self.index, tree) {
            Ok(nodes) => {
                for node in &nodes {
                    self.check_node(tree, node, &mut seen);
                }
            }
            Err(_) if self.damaged.contains_key(&(BlobKind::Tree, *tree)) => {
                seen.causes.extend(&self.damaged[&(BlobKind::Tree, *tree)]);
            }
            Err(error) if error.code() == codes::BLOB_MISSING => seen.missing.push((BlobKind::Tree, *tree)),
            Err(error) => {
                let error = self.run.is_finding(error)?;
                let mut draft = self.draft(tree, &error);
                draft.add_blob(*tree);
                seen.causes.push(self.run.add(draft));
            }
        }
        Ok(seen)
    }

    fn check_node(&self, tree: &BlobId, node: &Node, seen: &mut Seen) {
        seen.children.extend(node.subtree);
        if node.kind != NodeKind::File {
            return;
        }
        seen.files += 1;
        let (mut sum_bytes, mut known) = (0u64, true);
        for id in &node.content {
            if let Some(causes) = self.damaged.get(&(BlobKind::Data, *id)) {
                seen.causes.extend(causes);
            }
            if let Some(bytes) = self.index.plaintext_bytes(BlobKind::Data, id) {
                sum_bytes = sum_bytes.saturating_add(bytes);
            } else {
                known = false;
                seen.missing.push((BlobKind::Data, *id));
            }
        }
        // One for each directory: a tree that is wrong in every node is one thing to look at.
        if known && sum_bytes != node.size_bytes && seen.named.is_none() {
            let message = format!(
                "file `{}` should have {}, and its blobs have {sum_bytes}",
                node.name.escape_ascii(),
                counted(node.size_bytes, "byte", "bytes")
            );
            let error = Error::new(ErrorKind::Corrupt, codes::SIZE_MISMATCH, message);
            let cause = self.run.add(self.draft(tree, &error));
            seen.causes.push(cause);
            seen.named = Some((cause, node.name.clone()));
        }
    }

    /// A finding about a tree: the object is the pack that it lies in.
    fn draft(&self, tree: &BlobId, error: &Error) -> Draft {
        let message = format!("directory {}: {}", tree.short(), error.message());
        let location = self.index.get(BlobKind::Tree, tree);
        let object = location.map_or_else(|| "data".to_owned(), |at| object_name(Folder::Data, at.pack.0));
        let draft = Draft::new(Severity::Damage, error.code(), object, message).scope(Scope::Blobs);
        match location {
            Some(at) => draft.at(u64::from(at.blob.offset_bytes)),
            None => draft,
        }
    }
}

fn missing(kind: BlobKind) -> Draft {
    let what = match kind {
        BlobKind::Data => "pieces of files",
        BlobKind::Tree => "directories",
    };
    let message = format!("{what} that snapshots need are in no index that can be read");
    Draft::new(Severity::Damage, codes::BLOB_MISSING, Folder::Index.name(), message).scope(Scope::Blobs)
}

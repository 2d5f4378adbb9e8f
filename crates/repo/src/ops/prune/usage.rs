//! Which blobs snapshots need: every tree is read once, several at a time.

use super::choose::Known;
use super::state::Current;
use super::stop_when_asked;
use crate::backup::Progress;
use crate::id::BlobId;
use crate::index::Index;
use crate::repository::Repository;
use retoma_core::{Error, Result};
use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Trees that are read at the same time.
const READERS: usize = 4;

/// Trees that were found and not read, and what was found so far.
struct Walk<'a> {
    state: Mutex<State<'a>>,
    changed: Condvar,
}

struct State<'a> {
    waiting: Vec<BlobId>,
    reading: usize,
    known: &'a mut Known,
    failed: Option<Error>,
}

/// Adds to `known` what the snapshots of `current` need. Trees that are known already are not read again.
pub(super) fn extend(
    repository: &Repository,
    current: &Current,
    known: &mut Known,
    progress: &Progress,
) -> Result<()> {
    let roots: HashSet<BlobId> = current.roots.iter().copied().collect();
    let waiting: Vec<BlobId> = roots.into_iter().filter(|root| known.trees.insert(*root)).collect();
    let state = State { waiting, reading: 0, known, failed: None };
    let walk = Walk { state: Mutex::new(state), changed: Condvar::new() };
    std::thread::scope(|scope| {
        for _ in 1..READERS {
            scope.spawn(|| walk.work(repository, &current.index, progress));
        }
        walk.work(repository, &current.index, progress);
    });
    let state = walk.state.into_inner().unwrap_or_else(PoisonError::into_inner);
    state.failed.map_or(Ok(()), Err)
}

impl<'a> Walk<'a> {
    fn lock(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self, repository: &Repository, index: &Index, progress: &Progress) {
        while let Some(tree) = self.next() {
            let read = stop_when_asked(progress).and_then(|()| children(repository, index, &tree));
            self.done(read);
        }
    }

    /// The next tree; waits while others may still find some.
    fn next(&self) -> Option<BlobId> {
        let mut state = self.lock();
        loop {
            if state.failed.is_some() {
                return None;
            }
            if let Some(tree) = state.waiting.pop() {
                state.reading += 1;
                return Some(tree);
            }
            if state.reading == 0 {
                return None;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn done(&self, read: Result<Children>) {
        let mut state = self.lock();
        state.reading -= 1;
        match read {
            Ok(Children { trees, data }) => {
                state.known.data.extend(data);
                for tree in trees {
                    if state.known.trees.insert(tree) {
                        state.waiting.push(tree);
                    }
                }
            }
            Err(error) => drop(state.failed.get_or_insert(error)),
        }
        self.changed.notify_all();
    }
}

#[derive(Default)]
struct Children {
    trees: Vec<BlobId>,
    data: Vec<BlobId>,
}

fn children(repository: &Repository, index: &Index, tree: &BlobId) -> Result<Children> {
    let mut found = Children::default();
    for node in repository.read_tree(index, tree)? {
        found.trees.extend(node.subtree);
        found.data.extend(node.content);
    }
    Ok(found)
}

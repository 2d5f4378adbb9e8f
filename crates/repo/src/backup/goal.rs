//! Where what a worker makes of an entry goes.

use super::changes::Weight;
use super::directory::{Child, Directory};
use super::packer::lock;
use super::worker::Shared;
use crate::format::tree::{Node, NodeKind};
use retoma_core::{Error, Result};
use std::sync::{Arc, Mutex};

/// Where an entry goes when it is done.
pub(super) enum Goal {
    /// Into this place of a directory; the file that the parent has at this path, by its position in the same directory there.
    Place(Arc<Directory>, usize, Option<usize>),
    /// It is kept until its place is known.
    Kept(Arc<Kept>),
}

/// A file that is read before its place is known.
#[derive(Debug, Default)]
pub(super) struct Kept(Mutex<State>);

/// Which of the two came first.
#[derive(Debug, Default)]
enum State {
    #[default]
    Neither,
    Done(Child),
    Wanted(Arc<Directory>, usize),
    Both,
}

impl Goal {
    /// Whether the place is known.
    pub(super) fn is_place(&self) -> bool {
        matches!(self, Self::Place(..))
    }

    /// The file that the parent has at this path.
    fn known(&self) -> Option<&Node> {
        let Self::Place(directory, _, Some(position)) = self else { return None };
        directory.before()?.nodes.get(*position).filter(|node| node.kind == NodeKind::File)
    }

    /// A file was read.
    pub(super) fn fill_read(self, shared: &Shared<'_>, node: Box<Node>, weight: Weight) -> Result<()> {
        if let Some(changes) = shared.changes {
            changes.read(shared.index, self.known(), &node, weight);
        }
        self.fill(shared, Child::Changed(node))
    }

    /// The entry is left out.
    pub(super) fn fill_absent(self, shared: &Shared<'_>) -> Result<()> {
        if let Some((changes, known)) = shared.changes.zip(self.known()) {
            changes.gone(shared.index, known);
        }
        self.fill(shared, Child::Absent)
    }

    /// The entry is done.
    pub(super) fn fill(self, shared: &Shared<'_>, child: Child) -> Result<()> {
        let kept = match self {
            Self::Place(directory, place, _) => return directory.fill(shared, place, child),
            Self::Kept(kept) => kept,
        };
        let mut state = lock(&kept.0);
        match std::mem::replace(&mut *state, State::Both) {
            State::Wanted(directory, place) => {
                drop(state);
                directory.fill(shared, place, child)
            }
            State::Neither => {
                *state = State::Done(child);
                Ok(())
            }
            State::Done(_) | State::Both => Err(Error::internal("a file was read twice")),
        }
    }
}

impl Kept {
    /// Its place is known.
    pub(super) fn place(&self, shared: &Shared<'_>, directory: &Arc<Directory>, place: usize) -> Result<()> {
        let mut state = lock(&self.0);
        match std::mem::replace(&mut *state, State::Both) {
            State::Done(child) => {
                drop(state);
                directory.fill(shared, place, child)
            }
            State::Neither => {
                *state = State::Wanted(Arc::clone(directory), place);
                Ok(())
            }
            State::Wanted(..) | State::Both => Err(Error::internal("a file has two places")),
        }
    }
}

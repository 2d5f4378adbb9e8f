//! Where what a worker makes of an entry goes.

use super::directory::{Child, Directory};
use super::packer::lock;
use super::worker::Shared;
use retoma_core::{Error, Result};
use std::sync::{Arc, Mutex};

/// Where an entry goes when it is done.
pub(super) enum Goal {
    /// Into this place of a directory.
    Place(Arc<Directory>, usize),
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

    /// The entry is done.
    pub(super) fn fill(self, shared: &Shared<'_>, child: Child) -> Result<()> {
        let kept = match self {
            Self::Place(directory, place) => return directory.fill(shared, place, child),
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

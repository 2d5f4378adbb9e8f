//! What a round of reading could not get: the next round asks a copy for it, and what is left at the end is missing.

use super::plan::missing;
use super::run::{Run, into_inner, lock, state};
use retoma_core::Error;
use std::collections::HashMap;
use std::sync::Mutex;

/// Chunks that the rounds so far did not get.
#[derive(Debug, Default)]
pub(super) struct Lost(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Those of the round under way.
    chunks: Vec<u32>,
    /// The first reason for each file.
    why: HashMap<u32, Error>,
    /// Why the repository itself was given up.
    away: Option<Error>,
}

impl Lost {
    /// Chunks that could not be read for the reason `why`.
    pub(super) fn add(&self, run: &Run<'_>, chunks: &[u32], why: &Error) {
        let mut state = lock(&self.0);
        state.chunks.extend_from_slice(chunks);
        for chunk in chunks {
            let (file, _) = run.plan.layout.place(*chunk);
            state.why.entry(file).or_insert_with(|| same_error(why));
        }
    }

    /// The repository itself does not answer.
    pub(super) fn give_own_up(&self, error: Error) {
        lock(&self.0).away.get_or_insert(error);
    }

    /// Those of the round that has ended.
    pub(super) fn take(&self) -> Vec<u32> {
        std::mem::take(&mut lock(&self.0).chunks)
    }

    /// After the last round: files that wait for one of the chunks `left` fail. Where the repository is away, the restore stops:
    /// it may go on when it is back.
    pub(super) fn settle(self, run: &Run<'_>, left: &[u32]) {
        let State { mut why, away, .. } = into_inner(self.0);
        for chunk in left {
            let (file, _) = run.plan.layout.place(*chunk);
            if run.has(file, state::FAILED) {
                continue;
            }
            match why.remove(&file) {
                Some(error) => run.fail(file, error),
                None if away.is_none() => run.fail(file, missing(&run.plan.layout.chunk(*chunk).id)),
                None => {}
            }
        }
        if let Some(error) = away.filter(|_| !left.is_empty()) {
            run.stop(error.context("read from the repository's store"));
        }
    }
}

/// Several files can fail for one reason.
pub(super) fn same_error(error: &Error) -> Error {
    let copy = Error::new(error.kind(), error.code(), error.to_string());
    match error.hint() {
        Some(hint) => copy.with_hint(hint.to_owned()),
        None => copy,
    }
}

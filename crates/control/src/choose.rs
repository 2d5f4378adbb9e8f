//! Which of several repositories is read, with the others as its copies. `docs/repositories.md`.
//!
//! ```text
//! open all, list their snapshots (a thread each) ─▶ decide the order ─▶ the first that is complete, the others as its copies
//! ```
//! One that cannot be used stops nothing while another can.

use jiff::Timestamp;
use retoma_core::decide::repositories::{self, newer_elsewhere, order};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::copies::{Copies, Opener};
use retoma_repo::format::snapshot::Snapshot;
use retoma_repo::{Repository, SnapshotId};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::{Duration, Instant};

/// While another repository can be used, none is waited for longer.
const LOOK_LIMIT: Duration = Duration::from_secs(30);

/// A repository that may be read.
pub struct Candidate {
    /// Its name.
    pub name: String,
    /// Whether it lies on this machine.
    pub is_local: bool,
    /// Opens it.
    pub open: Opener,
}

impl std::fmt::Debug for Candidate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Candidate").field("name", &self.name).finish_non_exhaustive()
    }
}

/// When the newest snapshot that is wanted of each component began, in one repository.
pub type Wanted = dyn Fn(&Repository) -> Result<BTreeMap<String, Timestamp>> + Send + Sync;

/// The repository that is read.
#[derive(Debug)]
pub struct Chosen {
    /// Its name.
    pub name: String,
    /// It, with the others that can be opened as its copies.
    pub repository: Repository,
    /// What somebody should know about the choice, one sentence each.
    pub care: Vec<String>,
    /// Those that cannot be used, and why.
    pub unusable: Vec<(String, Error)>,
}

/// When the newest of `snapshots` (oldest first) of each component began, of those that are meant.
pub fn newest(
    snapshots: &[(SnapshotId, Snapshot)],
    is_meant: impl Fn(&SnapshotId, &Snapshot) -> bool,
) -> BTreeMap<String, Timestamp> {
    let meant = snapshots.iter().filter(|(id, snapshot)| is_meant(id, snapshot));
    meant.filter_map(|(_, snapshot)| Some((snapshot.component()?.to_owned(), snapshot.time.0))).collect()
}

/// What a look at a repository found.
struct Looked {
    repository: Repository,
    newest: Result<BTreeMap<String, Timestamp>>,
}

/// Opens the one that is to be read. A single candidate is only opened.
///
/// # Errors
/// That of the first, where none can be used.
pub fn choose(candidates: Vec<Candidate>, wanted: &Arc<Wanted>) -> Result<Chosen> {
    if let [only] = &candidates[..] {
        let (name, repository) = (only.name.clone(), (only.open)()?);
        return Ok(Chosen { name, repository, care: Vec::new(), unusable: Vec::new() });
    }
    let (mut usable, mut unusable, mut copies) = (Vec::new(), Vec::new(), Vec::new());
    for (Candidate { name, is_local, open }, looked) in look(candidates, wanted) {
        match looked {
            Some(Ok(Looked { repository, newest: Ok(newest) })) => {
                usable.push((name, repository, repositories::Candidate { is_local, newest }));
            }
            // What it holds besides may be whole.
            Some(Ok(Looked { repository, newest: Err(error) })) => {
                copies.push((name.clone(), opened(repository)));
                unusable.push((name, error));
            }
            Some(Err(error)) => unusable.push((name, error)),
            // Where something is missing there is time for it.
            None => {
                copies.push((name.clone(), open));
                unusable.push((name, silent()));
            }
        }
    }
    let known: Vec<repositories::Candidate> = usable.iter().map(|(_, _, known)| known.clone()).collect();
    let (at, mut care) = match first_complete(&order(&known), &usable) {
        Some(found) => found,
        None if unusable.is_empty() => return Err(Error::internal("a choice without repositories")),
        None => return Err(unusable.swap_remove(0).1),
    };
    for (component, other) in newer_elsewhere(&known, at) {
        let (chosen, other) = (&usable[at].0, &usable[other].0);
        care.push(format!(
            "`{other}` has a newer snapshot of `{component}` than `{chosen}`, which is read; `--repository {other}` reads that one"
        ));
    }
    let (name, repository, _) = usable.remove(at);
    let mut others: Vec<(String, Opener)> =
        usable.into_iter().map(|(name, repository, _)| (name, opened(repository))).collect();
    others.append(&mut copies);
    let repository =
        if others.is_empty() { repository } else { repository.with_copies(Arc::new(Copies::new(others))) };
    Ok(Chosen { name, repository, care, unusable })
}

/// Opens what is open.
fn opened(repository: Repository) -> Opener {
    Arc::new(move || Ok(repository.clone()))
}

/// The first of `order` that has all its packs, and what to say about those before it; the first of all where none has.
fn first_complete(
    order: &[usize],
    usable: &[(String, Repository, repositories::Candidate)],
) -> Option<(usize, Vec<String>)> {
    let mut care = Vec::new();
    for at in order {
        let (name, repository, _) = &usable[*at];
        let why = match repository.lost_packs() {
            Ok(lost) if lost.is_empty() => return Some((*at, care)),
            Ok(lost) => format!("lacks {} of its packs", lost.len()),
            Err(error) => format!("cannot be looked at as a whole: {error}"),
        };
        care.push(format!("repository `{name}` {why}; run `retoma verify --repository {name}`"));
    }
    order.first().map(|at| (*at, care))
}

/// What a look gave; none where it did not end in time.
type Answer = Option<Result<Looked>>;

/// Looks at all of them at once; in their order.
fn look(candidates: Vec<Candidate>, wanted: &Arc<Wanted>) -> Vec<(Candidate, Answer)> {
    let (sender, receiver) = sync_channel(candidates.len());
    let mut answers: Vec<Answer> = candidates.iter().map(|_| None).collect();
    for (at, candidate) in candidates.iter().enumerate() {
        let (sender, open, wanted) = (sender.clone(), Arc::clone(&candidate.open), Arc::clone(wanted));
        let work = move || {
            let looked = open().map(|repository| {
                let newest = wanted(&repository);
                Looked { repository, newest }
            });
            // Nobody may wait any more.
            sender.send((at, looked)).ok();
        };
        let spawned = std::thread::Builder::new().name(format!("look-{at}")).spawn(work);
        if let Err(error) = spawned {
            answers[at] = Some(Err(Error::io("a thread", error)));
        }
    }
    drop(sender);
    wait(&receiver, &mut answers);
    candidates.into_iter().zip(answers).collect()
}

/// Until all have answered, or until [`LOOK_LIMIT`] where one that can be used has. Each store gives up by itself.
fn wait(receiver: &Receiver<(usize, Result<Looked>)>, answers: &mut [Answer]) {
    let deadline = Instant::now() + LOOK_LIMIT;
    let is_usable = |answer: &Answer| matches!(answer, Some(Ok(Looked { newest: Ok(_), .. })));
    loop {
        match receiver.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok((at, looked)) => answers[at] = Some(looked),
            Err(RecvTimeoutError::Timeout) if answers.iter().any(is_usable) => return,
            Err(RecvTimeoutError::Timeout) => match receiver.recv() {
                Ok((at, looked)) => answers[at] = Some(looked),
                Err(_) => return,
            },
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn silent() -> Error {
    let message = format!("the repository did not answer within {} s", LOOK_LIMIT.as_secs());
    Error::new(ErrorKind::Unavailable, codes::STORE_TIMEOUT, message)
}

#[cfg(test)]
mod tests;

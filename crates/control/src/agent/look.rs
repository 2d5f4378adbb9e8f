//! Looks at repositories: whether each answers, and when the newest and oldest complete snapshots of components began.
//!
//! One thread for each repository, so that one that hangs hides no other. A snapshot is read once and then known by its id.

use crate::Interrupt;
use crate::open::open_repository;
use jiff::Timestamp;
use retoma_core::decide::observed::LOOK_SECONDS;
use retoma_core::manifest;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::format::snapshot::TAG_MASS_CHANGE;
use retoma_repo::store::Key;
use retoma_repo::{Folder, Repository, SnapshotId};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// From one look to the next, when it was well and when it was not.
const PAUSE: Duration = Duration::from_secs(LOOK_SECONDS);
const SHORT_PAUSE: Duration = Duration::from_secs(3);

/// What the last look found.
#[derive(Debug, Clone, Default)]
pub(super) struct Look {
    /// When it ended.
    pub(super) looked: Option<Timestamp>,
    /// What it said, when it was not well.
    pub(super) error_code: Option<String>,
    /// How many snapshots there are.
    pub(super) snapshots: Option<u64>,
    /// When the oldest and the newest complete snapshot of each component began.
    pub(super) ages: BTreeMap<String, (Timestamp, Timestamp)>,
    /// The newest snapshot of each component that looks like mass change.
    pub(super) mass_changes: BTreeMap<String, (Timestamp, SnapshotId)>,
    /// Whether there was ever a repository at this address while we looked.
    pub(super) was_there: bool,
}

/// The looks at one repository.
#[derive(Debug, Clone)]
pub(super) struct Looker {
    pub(super) name: String,
    look: Arc<Mutex<Look>>,
    again: Arc<AtomicBool>,
}

impl Looker {
    /// Looks from now on, in a thread of its own, until `interrupt`.
    pub(super) fn start(described: manifest::Repository, interrupt: Interrupt) -> Result<Self> {
        let looker = Self { name: described.name.clone(), look: Arc::default(), again: Arc::default() };
        let own = looker.clone();
        let work = move || {
            let mut eyes = Eyes { described, repository: None, known: BTreeMap::new() };
            while !interrupt.is_set() {
                let found = eyes.look();
                let is_well = found.is_ok();
                own.note(found);
                let pause = if is_well { PAUSE } else { SHORT_PAUSE };
                let asked = || own.again.swap(false, Ordering::Relaxed);
                // Ends early when it is to stop, and then so does the loop.
                super::pause(&interrupt, pause, asked);
            }
        };
        std::thread::Builder::new()
            .name("look".to_owned())
            .spawn(work)
            .map_err(|error| Error::io("a thread that looks at a repository", error))?;
        Ok(looker)
    }

    /// Looks soon: something has changed.
    pub(super) fn again(&self) {
        self.again.store(true, Ordering::Relaxed);
    }

    /// What the last look found.
    pub(super) fn last(&self) -> Look {
        self.look.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn note(&self, found: Result<Look>) {
        let now = Some(Timestamp::now());
        let mut look = self.look.lock().unwrap_or_else(PoisonError::into_inner);
        match found {
            Ok(found) => *look = Look { looked: now, was_there: true, ..found },
            // What was known stays known: snapshots do not get younger.
            Err(error) => {
                (look.looked, look.error_code) = (now, Some(error.code().to_string()));
            }
        }
    }
}

/// What is known of a snapshot.
#[derive(Debug, Clone)]
struct Known {
    component: Option<Arc<str>>,
    time: Timestamp,
    is_complete: bool,
    is_mass_change: bool,
}

#[derive(Debug)]
struct Eyes {
    described: manifest::Repository,
    repository: Option<Repository>,
    known: BTreeMap<SnapshotId, Known>,
}

impl Eyes {
    fn look(&mut self) -> Result<Look> {
        let repository = match self.repository.take() {
            Some(repository) => repository,
            None => open_repository(&self.described, false)?.repository,
        };
        // An empty place where a disk was has no snapshots either.
        repository.store().head(&Key::new("config")?).map_err(|error| {
            if error.kind() == ErrorKind::NotFound {
                let message = format!("there is no longer a repository at `{}`", self.described.url);
                return Error::new(ErrorKind::NotFound, codes::NO_REPOSITORY, message);
            }
            error
        })?;
        let listed: Vec<SnapshotId> =
            repository.list(Folder::Snapshots)?.into_iter().map(|(id, _)| SnapshotId(id)).collect();
        let mut known = BTreeMap::new();
        for id in listed {
            let known_one = match self.known.remove(&id) {
                Some(known) => known,
                None => match repository.snapshot(id) {
                    Ok(snapshot) => Known {
                        component: snapshot.component().map(Arc::from),
                        time: snapshot.time.0,
                        is_complete: !snapshot.is_incomplete(),
                        is_mass_change: snapshot.has_tag(TAG_MASS_CHANGE),
                    },
                    // Forgotten meanwhile.
                    Err(error) if error.kind() == ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                },
            };
            known.insert(id, known_one);
        }
        let mut look = Look { snapshots: Some(known.len() as u64), ..Look::default() };
        for (id, it) in &known {
            let Some(component) = &it.component else { continue };
            if it.is_mass_change {
                let newest = look.mass_changes.entry(component.to_string()).or_insert((it.time, *id));
                *newest = (*newest).max((it.time, *id));
            }
            if !it.is_complete {
                continue;
            }
            let ages = look.ages.entry(component.to_string()).or_insert((it.time, it.time));
            *ages = (ages.0.min(it.time), ages.1.max(it.time));
        }
        self.known = known;
        self.repository = Some(repository);
        Ok(look)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use retoma_core::Secret;
    use retoma_testkit::wait_for_what;

    #[test]
    fn a_repository_that_goes_away_is_noticed_and_so_is_its_return() {
        let folder = tempfile::tempdir().unwrap();
        let (here, away) = (folder.path().join("repository"), folder.path().join("away"));
        let url = format!("file://{}", here.display());
        let secret = folder.path().join("password");
        crate::durable::write(&secret, b"one", crate::durable::PRIVATE).unwrap();
        crate::open::open_address(&url, &Secret::new("one".to_owned()), true).unwrap();
        let described = manifest::Repository {
            name: "r".to_owned(),
            url,
            scheme: manifest::Scheme::File,
            password: manifest::SecretRef::File(secret),
            copy_of: None,
            region: None,
            lock: None,
            price: None,
        };
        let mut eyes = Eyes { described: described.clone(), repository: None, known: BTreeMap::new() };
        assert_eq!(eyes.look().unwrap().snapshots, Some(0));
        std::fs::rename(&here, &away).unwrap();
        assert_eq!(eyes.look().unwrap_err().code(), codes::NO_REPOSITORY);
        std::fs::create_dir(&here).unwrap();
        assert_eq!(eyes.look().unwrap_err().code(), codes::NO_REPOSITORY, "an empty folder is none");
        std::fs::remove_dir(&here).unwrap();
        std::fs::rename(&away, &here).unwrap();
        let interrupt = Interrupt::default();
        let looker = Looker::start(described, interrupt.clone()).unwrap();
        wait_for_what("a look", || looker.last().looked);
        assert!(looker.last().was_there && looker.last().error_code.is_none());
        std::fs::rename(&here, &away).unwrap();
        looker.again();
        let code = wait_for_what("a look that fails", || looker.last().error_code);
        assert_eq!(code, "R0201");
        assert_eq!(looker.last().snapshots, Some(0), "what was known stays known");
        interrupt.set();
    }
}

//! Drills that lose repositories: copies of all that the manifest names, filled as it says. `docs/drill.md`, "Lost repositories".

use super::patient::copy_into;
use super::ways::Ways;
use super::{Context, address_of};
use crate::choose::{self, Candidate, Chosen, Wanted};
use crate::copy::routes;
use crate::open::{open_address, open_repository};
use crate::watch::Note;
use retoma_core::decide::losses::{Losses, losses};
use retoma_core::drill::RepositoryResult;
use retoma_core::manifest::{self, Component, Manifest, Scheme};
use retoma_core::{Error, ErrorKind, Result, ResultExt, Secret, error::codes};
use retoma_repo::backup::Progress;
use retoma_repo::format::snapshot::Snapshot;
use retoma_repo::ops::copy::{Choice, Copy};
use retoma_repo::{Repository, SnapshotId};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A repository of the manifest, as a copy in the drill's folder.
#[derive(Debug)]
struct Copied {
    described: manifest::Repository,
    dir: PathBuf,
    password: Secret<String>,
    is_lost: bool,
}

impl Copied {
    fn open(&self) -> Result<Repository> {
        Ok(open_address(&address_of(&self.dir)?, &self.password, false)?.repository)
    }
}

/// All repositories of the manifest, in its order, and which of them the disaster takes.
#[derive(Debug)]
pub struct Several {
    all: Vec<Copied>,
    is_doubtful: bool,
}

/// The one that served after the disaster.
pub(super) struct Served {
    pub(super) name: String,
    pub(super) dir: PathBuf,
    pub(super) password: Secret<String>,
    pub(super) repository: Repository,
}

/// How long it took until what was backed up of each component lay in each repository, by their names.
pub(super) type Exposed = BTreeMap<String, BTreeMap<String, Duration>>;

impl Several {
    /// Copies all repositories but `first`, which lies in `folder` already, beside it.
    ///
    /// # Errors
    /// What copying says; a repository that cannot be opened. `Cancelled`.
    pub(super) fn copy(
        manifest: &Manifest,
        losses: &Losses<'_>,
        (first, dir, password): (&str, &Path, &Secret<String>),
        folder: &Path,
        context: &Context<'_>,
    ) -> Result<Self> {
        let mut all = Vec::new();
        for (at, described) in manifest.repositories.iter().enumerate() {
            let is_lost = losses.lost.contains(&described.name.as_str());
            let (dir, password) = if described.name == first {
                (dir.to_owned(), password.clone())
            } else {
                // Says what is wrong with the real one, before anything is copied.
                drop(open_repository(described, false)?);
                let dir = folder.join(format!("repository-{at}"));
                let password = copy_into(described, &dir, context)
                    .with_context(|| format!("copy repository `{}`", described.name))?;
                (dir, password)
            };
            all.push(Copied { described: described.clone(), dir, password, is_lost });
        }
        Ok(Self { all, is_doubtful: losses.is_doubtful })
    }

    /// Where the copies of the lost ones are.
    pub(super) fn lost_dirs(&self) -> impl Iterator<Item = &Path> {
        self.all.iter().filter(|it| it.is_lost).map(|it| it.dir.as_path())
    }

    /// What stays open when only addresses tell that repositories lie apart.
    pub(super) fn doubt(&self) -> Option<String> {
        let text = "That what was left lies in another region: not every repository has a `region`, and addresses were compared.";
        self.is_doubtful.then(|| text.to_owned())
    }

    /// What becomes of them, before any is read.
    pub(super) fn results(&self) -> Vec<RepositoryResult> {
        let result = |it: &Copied| RepositoryResult {
            repository: it.described.name.clone(),
            lost: it.is_lost,
            read: false,
        };
        self.all.iter().map(result).collect()
    }

    /// Backs up as the manifest says: `back_up` puts components into a repository that backups go into, and what is a copy is
    /// filled from there.
    ///
    /// # Errors
    /// What backups and copies say; why a blob that a copy needs cannot be had.
    pub(super) fn fill(
        &self,
        manifest: &Manifest,
        context: &Context<'_>,
        mut back_up: impl FnMut(&Repository, &[&Component]) -> Result<BTreeMap<String, Duration>>,
    ) -> Result<Exposed> {
        let mut exposed = Exposed::new();
        for copied in self.all.iter().filter(|it| it.described.copy_of.is_none()) {
            let name = &copied.described.name;
            let goes_there = |component: &&Component| component.repositories.contains(name);
            let components: Vec<&Component> =
                manifest.recovery_order().into_iter().filter(goes_there).collect();
            exposed.insert(name.clone(), back_up(&copied.open()?, &components)?);
        }
        for copied in self.all.iter().filter(|it| it.described.copy_of.is_some()) {
            let took = self.fill_copy(manifest, copied, context, &exposed)?;
            exposed.insert(copied.described.name.clone(), took);
        }
        Ok(exposed)
    }

    fn fill_copy(
        &self,
        manifest: &Manifest,
        target: &Copied,
        context: &Context<'_>,
        exposed: &Exposed,
    ) -> Result<BTreeMap<String, Duration>> {
        let name = target.described.name.as_str();
        let held = |component: &&Component| component.copies.iter().any(|copy| copy == name);
        let components: Vec<&Component> = manifest.components.iter().filter(held).collect();
        let mut filled = BTreeMap::new();
        for route in routes(manifest, &components, None, Some(name)) {
            let Some(source) = self.all.iter().find(|it| it.described.name == route.from) else { continue };
            let begun = context.clock.elapsed();
            let progress = Progress::default();
            let choice = Choice::Components(route.components.clone());
            let done = context.interrupt.during(&progress, || {
                let copy = Copy::begin(&source.open()?, &target.open()?)?;
                let plan = copy.plan(&choice, &progress)?;
                copy.apply(plan, &progress)
            });
            let doing = || format!("copy into `{name}`");
            if let Some(lost) = done.with_context(doing)?.lost.into_iter().next() {
                return Err(lost.error.context(format!("copy blob {} into `{name}`", lost.id.short())));
            }
            // At worst a copy has just begun, and does not bring what came since.
            let took = context.clock.elapsed().saturating_sub(begun) + manifest.agent.copy_every.to_std();
            let before = exposed.get(&route.from);
            filled.extend(route.components.into_iter().map(|component| {
                let until = before.and_then(|of| of.get(&component)).copied().unwrap_or_default();
                (component, until + took)
            }));
        }
        Ok(filled)
    }

    /// The one that a recovery reads, as `retoma recover` chooses it, with the others as its copies. The lost ones are asked too,
    /// and must not open; `ways` hears of them.
    ///
    /// # Errors
    /// As [`choose`].
    pub(super) fn choose(
        &self,
        manifest: &Manifest,
        ways: &mut Ways,
        context: &Context<'_>,
    ) -> Result<Served> {
        let candidate = |copied: &Copied| {
            let (dir, password) = (copied.dir.clone(), copied.password.clone());
            let open = move || Ok(open_address(&address_of(&dir)?, &password, false)?.repository);
            Candidate {
                name: copied.described.name.clone(),
                is_local: copied.described.scheme == Scheme::File,
                open: Arc::new(open),
            }
        };
        for copied in self.all.iter().filter(|it| it.is_lost) {
            ways.bar_lost(&copied.described.name, &copied.dir, &copied.password);
        }
        let names: Vec<String> = manifest.components.iter().map(|it| it.name.clone()).collect();
        let is_wanted = move |_: &SnapshotId, snapshot: &Snapshot| {
            let component = snapshot.component();
            !snapshot.is_incomplete() && names.iter().any(|name| Some(name.as_str()) == component)
        };
        let wanted: Arc<Wanted> =
            Arc::new(move |repository: &Repository| Ok(choose::newest(&repository.snapshots()?, &is_wanted)));
        let Chosen { name, repository, care, unusable } =
            choose::choose(self.all.iter().map(candidate).collect(), &wanted)?;
        for (unusable, error) in &unusable {
            context.watch.note(&Note::Doing(format!("repository `{unusable}` is not used: {error}")));
        }
        for care in care {
            context.watch.note(&Note::Warning(care));
        }
        context.watch.note(&Note::Doing(format!("repository `{name}` is read")));
        let served = self.all.iter().find(|it| it.described.name == name);
        let served =
            served.ok_or_else(|| Error::internal("a repository was chosen that is none of the manifest"))?;
        Ok(Served { name, dir: served.dir.clone(), password: served.password.clone(), repository })
    }
}

impl Served {
    /// Marks who gave data in `results`.
    pub(super) fn tell(&self, results: &mut [RepositoryResult]) {
        let gave: Vec<&str> = self
            .repository
            .copies()
            .map(|copies| copies.taken().filter(|taken| taken.blobs > 0).map(|taken| taken.name).collect())
            .unwrap_or_default();
        for result in results {
            result.read = result.repository == self.name || gave.contains(&result.repository.as_str());
        }
    }
}

/// What the scenario takes of the manifest's repositories; none where it takes none.
///
/// # Errors
/// `Invalid` with `R0713` where nothing would be left.
pub(super) fn lost<'m>(
    manifest: &'m Manifest,
    first: &str,
    scenario: super::Scenario,
) -> Result<Option<Losses<'m>>> {
    scenario.extent().map(|extent| losses(&manifest.repositories, first, extent)).transpose()
}

/// A scenario that needs several repositories, for what has one.
pub(crate) fn needs_several(scenario: super::Scenario) -> Error {
    let message = format!("`{scenario}` needs a service with at least two repositories");
    Error::new(ErrorKind::Invalid, codes::DRILL_UNSUITED, message)
        .with_hint(format!("name two in the manifest of a service, and run `retoma drill {scenario}`"))
}

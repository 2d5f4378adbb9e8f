//! Carries a plan out.

use super::place::{self, Exchange};
use super::{Place, Plan, PlannedComponent, as_bytes};
use super::{cache, dump, server};
use crate::backup::{MANIFEST_NAME, Point, RecoverySet};
use crate::check::{self, Checked};
use crate::durable;
use crate::interrupt::Interrupt;
use crate::postgres;
use crate::probe;
use crate::service::{self, Ended, PROBE_LIMIT, Service, Start, Supervisor};
use crate::timeline::Timeline;
use crate::watch::{Followed, Note, Watch};
use jiff::Timestamp;
use retoma_core::drill::{CheckOutcome, CheckResult, StepName};
use retoma_core::manifest::{Command, ComponentKind, Source};
use retoma_core::units::span;
use retoma_core::{Error, ErrorKind, Result, ResultExt, error::codes};
use retoma_repo::backup::Progress;
use retoma_repo::index::Index;
use retoma_repo::{Repository, SnapshotId, restore};
use retoma_sources::{redis, sqlite};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is said when everything is restored and checked, before anything live is touched.
pub const EXCHANGE: &str = "put what was restored into its place";

/// A file in a target folder while a recovery into it is not complete.
const UNFINISHED: &str = ".retoma-recovering";
/// How long a service may take to end after SIGTERM.
pub(crate) const STOP_GRACE: Duration = Duration::from_secs(10);

/// How a plan is carried out.
#[derive(Debug)]
pub struct Options<'a> {
    /// Ends what we start when we end.
    pub supervisor: &'a Supervisor,
    /// Starts the service at the end. A database server is started for its checks in any case, and stopped.
    pub starts_service: bool,
    /// The file that the service's output is appended to.
    pub log: &'a Path,
    /// Keeps what was there before, beside, also when all went well.
    pub keep_previous: bool,
    /// Runs the manifest's `stop` when the recovery is undone. Not in drills: it may stop the live service.
    pub runs_stop: bool,
}

/// A component that came back.
#[derive(Debug)]
pub struct RecoveredComponent {
    /// Its name.
    pub component: String,
    /// What it is.
    pub kind: ComponentKind,
    /// The snapshot that it came from.
    pub snapshot: SnapshotId,
    /// Where it is.
    pub path: PathBuf,
    /// Its files.
    pub files: u64,
    /// What its checks found; those of the service are not among them.
    pub checked: Checked,
    /// How far a database server came.
    pub recovery: Option<server::Report>,
    /// Its data are as of this time.
    pub as_of: Timestamp,
    /// How long fetching took.
    pub elapsed: Duration,
    /// Since the disaster, when it was restored and checked.
    pub ready: retoma_core::drill::Seconds,
}

/// What a recovery did.
#[derive(Debug, Default)]
pub struct Recovered {
    /// The components, in the order in which they came back.
    pub components: Vec<RecoveredComponent>,
    /// What the started service answered; empty when none was started.
    pub service_checks: Vec<CheckResult>,
    /// The running service; dropping it stops it, [`Service::release`] lets it go on.
    pub service: Option<Service>,
    /// Why the previous data are back. `None` when the new ones are in place.
    pub rolled_back: Option<Error>,
    /// What was there before and is kept beside.
    pub previous: Vec<PathBuf>,
    /// Index files of the repository that cannot be read, and that these components did not need; with copies, those have what
    /// these components needed of them.
    pub damage: Vec<Error>,
    /// Whether the repository has copies to make up for damage.
    pub has_copies: bool,
}

impl Recovered {
    /// The components with the moments that they show; `None` without any.
    pub fn set(&self) -> Option<RecoverySet> {
        let point = |it: &RecoveredComponent| Point { component: it.component.clone(), time: it.as_of };
        RecoverySet::of(self.components.iter().map(point).collect())
    }

    /// Whether every check ran and passed, nothing was rolled back, and the repository showed no damage that no copy made up for.
    /// Otherwise the exit code is 4.
    pub fn passed(&self) -> bool {
        let of_components = self.components.iter().flat_map(|component| &component.checked.checks);
        let mut checks = of_components.chain(&self.service_checks);
        self.rolled_back.is_none()
            && (self.damage.is_empty() || self.has_copies)
            && checks.all(|check| check.outcome == CheckOutcome::Passed)
    }
}

/// Carries `plan` out. Steps are noted on `timeline`.
///
/// # Errors
/// `R0904` when the service still answers; `R0502` for a folder with something in it; what was restored only in part,
/// with the code of the first path's error; a copy that fails its checks in place (nothing live was touched). A
/// recovery that was undone is no error but [`Recovered::rolled_back`].
pub fn apply(
    plan: &Plan,
    repository: &Repository,
    options: &Options<'_>,
    timeline: &mut Timeline,
    watch: &dyn Watch,
    interrupt: &Interrupt,
) -> Result<Recovered> {
    let mut run = Run { plan, repository, options, timeline, watch, interrupt };
    run.check_nobody_answers()?;
    run.check_not_live()?;
    let index = repository.load_readable_index()?;
    for error in index.unreadable() {
        watch.note(&Note::Warning(format!(
            "a part of the repository is damaged: {error}; run `retoma verify`"
        )));
    }
    let recovered = match &plan.place {
        Place::InPlace => run.in_place(&index),
        Place::Under(root) => run.under(root, &index),
    };
    let has_copies = repository.copies().is_some();
    Ok(Recovered { damage: index.into_unreadable(), has_copies, ..recovered? })
}

/// The running service, and what it answered.
type Answered = (Option<Service>, Vec<CheckResult>);

struct Run<'a> {
    plan: &'a Plan,
    repository: &'a Repository,
    options: &'a Options<'a>,
    timeline: &'a mut Timeline,
    watch: &'a dyn Watch,
    interrupt: &'a Interrupt,
}

impl Run<'_> {
    /// A service that still runs would write into what is replaced, or hold the port that the new one needs.
    fn check_nobody_answers(&self) -> Result<()> {
        let service = &self.plan.manifest.service;
        let starts = service.start.is_some() && self.options.starts_service;
        let Some(url) = service.health.as_ref().filter(|_| starts || self.plan.place == Place::InPlace)
        else {
            return Ok(());
        };
        let seen = probe::get(url, PROBE_LIMIT);
        if !seen.is_anybody_there() {
            return Ok(());
        }
        let message = format!("the service still answers at `{url}`: {}", seen.outcome);
        Err(Error::new(ErrorKind::Conflict, codes::SERVICE_RUNS, message)
            .with_hint("stop it first; a recovery does not stop what it did not start"))
    }

    /// Nor is a database server's or a cache's data exchanged while it runs.
    fn check_not_live(&self) -> Result<()> {
        data_directories(self.plan).try_for_each(postgres::check_not_live)?;
        if self.plan.place == Place::InPlace {
            self.plan.components.iter().try_for_each(|planned| cache::check_not_live(&planned.component))?;
        }
        Ok(())
    }

    fn under(&mut self, root: &Path, index: &Index) -> Result<Recovered> {
        let unfinished = root.join(UNFINISHED);
        check_folder_is_free(root, &unfinished)?;
        std::fs::create_dir_all(root).map_err(|error| Error::io(root.display(), error))?;
        let begun = b"a recovery into this folder was begun; run it again to go on\n";
        durable::write(&unfinished, begun, durable::SHARED)?;
        let mut components = Vec::new();
        for planned in outer_first(&self.plan.components) {
            components.push(self.component(planned, &planned.to, index)?);
        }
        self.write_manifest()?;
        let (service, service_checks) = self.start()?;
        place::remove(&unfinished)?;
        Ok(Recovered { components, service_checks, service, ..Recovered::default() })
    }

    fn in_place(&mut self, index: &Index) -> Result<Recovered> {
        let lives: Vec<PathBuf> = self.plan.units.iter().map(|unit| unit.live.clone()).collect();
        for settled in place::settle(&lives)? {
            let what = format!("`{}` has the data from before a recovery that was killed", settled.display());
            self.watch.note(&Note::Warning(what));
        }
        // To restore may take hours, and whoever starts servers may have done so meanwhile.
        let staged = self.stage(index).and_then(|staged| self.check_not_live().map(|()| staged));
        let components = match staged {
            Ok(components) => components,
            Err(error) => {
                // Nothing live was touched; what was restored beside is of no use.
                for unit in &self.plan.units {
                    place::remove(&unit.staging())?;
                }
                return Err(error);
            }
        };
        self.watch.note(&Note::Doing(EXCHANGE.to_owned()));
        let exchange = Exchange::begin(&self.plan.units)?;
        let forward = exchange.forward(
            |live| sqlite::prepare_target(live, sqlite::Options::default()),
            |live, previous| check_not_live_in(data_directories(self.plan), live, previous),
        );
        let is_forward = forward.is_ok();
        let exchanged = forward.map_err(|error| (error, Vec::new())).and_then(|()| self.after_exchange());
        match exchanged {
            Ok((service, service_checks)) => {
                // What a pattern left out is not in the snapshot; it must not vanish with the previous data.
                let leaves_out = |planned: &PlannedComponent| matches!(&planned.component.source, Source::Files { exclude, .. } if !exclude.is_empty());
                let keep = self.options.keep_previous || self.plan.components.iter().any(leaves_out);
                let previous = exchange.confirm(keep)?;
                Ok(Recovered { components, service_checks, service, previous, ..Recovered::default() })
            }
            Err((error, service_checks)) => {
                // Before that nothing of ours was started, and a server of somebody else may run.
                if is_forward {
                    self.stop_what_is_left();
                }
                exchange.back().context("bring the previous data back")?;
                self.watch.note(&Note::RolledBack);
                if error.kind() == ErrorKind::Cancelled {
                    return Err(error);
                }
                let message = format!("the recovery was undone, and the previous data are back: {error}");
                let hint = error.hint().unwrap_or("look at the service's output").to_owned();
                let undone = Error::new(error.kind(), codes::ROLLED_BACK, message);
                let rolled_back = Some(undone.with_hint(hint).with_source(error));
                Ok(Recovered { components, service_checks, rolled_back, ..Recovered::default() })
            }
        }
    }

    /// Where what lies `below` in a unit is restored.
    fn staged(&self, unit: usize, below: &Path) -> PathBuf {
        let staged = self.plan.units[unit].staged();
        if below.as_os_str().is_empty() { staged } else { staged.join(below) }
    }

    /// Restores everything beside its place and checks it there.
    fn stage(&mut self, index: &Index) -> Result<Vec<RecoveredComponent>> {
        let mut done = Vec::new();
        for planned in outer_first(&self.plan.components) {
            let Some((unit, below)) = &planned.unit else {
                return Err(Error::internal("a component has no place in the exchange"));
            };
            let staged = self.staged(*unit, below);
            let mut restored = self.component(planned, &staged, index)?;
            check::require_all(&planned.component.name, &restored.checked.checks)?;
            restored.path.clone_from(&planned.to);
            done.push(restored);
        }
        let position = |name: &str| self.plan.components.iter().position(|it| it.component.name == name);
        done.sort_by_key(|restored| position(&restored.component));
        Ok(done)
    }

    /// After the exchange: the service is started and asked. An error means that the previous data come back; the
    /// service has been stopped then.
    fn after_exchange(&mut self) -> Result<Answered, (Error, Vec<CheckResult>)> {
        let mut started = || {
            for planned in &self.plan.components {
                if planned.component.kind() == ComponentKind::Sqlite {
                    sqlite::after_restore(&planned.to)?;
                }
            }
            self.write_manifest()?;
            self.start()
        };
        let (service, checks) = started().map_err(|error| (error, Vec::new()))?;
        match check::require_all("the service", &checks) {
            Ok(()) => Ok((service, checks)),
            Err(error) => {
                let stopped = service.map_or(Ok(0), |service| service.stop(STOP_GRACE));
                Err((stopped.err().unwrap_or(error), checks))
            }
        }
    }

    /// What another program started for `start` is not ours to signal, and must not go on with data that are taken
    /// away: the manifest's `stop` ends it. The previous data come back in any case; what went wrong is a warning.
    fn stop_what_is_left(&self) {
        let described = &self.plan.manifest.service;
        if described.start.is_none() || !self.options.starts_service {
            return;
        }
        let dir = self.plan.manifest.dir();
        if let Some(command) = described.stop.as_ref().filter(|_| self.options.runs_stop)
            && let Err(why) = self.stop(command, dir)
        {
            self.watch.note(&Note::Warning(why));
        }
        let still = described.health.as_ref().filter(|url| probe::get(url, PROBE_LIMIT).is_anybody_there());
        if let Some(url) = still {
            self.watch.note(&Note::Warning(format!("the service still answers at `{url}`; stop it by hand")));
        }
    }

    /// Not to be interrupted: it is part of bringing the previous data back.
    fn stop(&self, command: &Command, dir: &Path) -> std::result::Result<(), String> {
        let shown = &command.program;
        let failed = |error: std::io::Error| format!("`{shown}` cannot be run: {error}");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(self.options.log);
        let log = log.map_err(failed)?;
        let output = [Stdio::from(log.try_clone().map_err(failed)?), Stdio::from(log)];
        match service::run_to_end(command, dir, output, STOP_GRACE, &Interrupt::default()) {
            Ok(Ended::With(status)) if status.success() => Ok(()),
            Ok(Ended::With(status)) => Err(format!("`{shown}` ended with {status}")),
            Ok(Ended::NotStarted(error)) => Err(failed(error)),
            Ok(Ended::Killed) => {
                Err(format!("`{shown}` did not end within {} and was killed", span(STOP_GRACE)))
            }
            Err(error) => Err(error.to_string()),
        }
    }

    /// Restores one component to `place` and checks it.
    fn component(
        &mut self,
        planned: &PlannedComponent,
        place: &Path,
        index: &Index,
    ) -> Result<RecoveredComponent> {
        let name = planned.component.name.as_str();
        let (named, is_redis) = (place, planned.component.kind() == ComponentKind::Redis);
        // Its check looks for this name.
        let dump = place.with_file_name(redis::DUMP_NAME);
        let place = if is_redis { dump.as_path() } else { place };
        self.timeline.begin(StepName::Fetch, Some(name))?;
        let started = Instant::now();
        let doing = format!("restoring {name}");
        let followed = Followed { interrupt: self.interrupt, watch: self.watch, doing: &doing };
        let outcome = fetch(self.repository, index, planned, place, followed)
            .with_context(|| format!("restore `{name}` from snapshot {}", planned.snapshot.short()))?;
        let mut spaces = Vec::new();
        for space in &planned.spaces {
            let staged = space.unit.as_ref().map(|(unit, below)| self.staged(*unit, below));
            let staged = staged.as_deref();
            spaces.push(server::tablespace(self.repository, index, planned, space, staged, followed)?);
        }
        let elapsed = started.elapsed();
        if planned.component.kind() == ComponentKind::Sqlite {
            self.timeline.begin(StepName::Replay, Some(name))?;
            sqlite::after_restore(place)?;
        }
        self.timeline.begin(StepName::Check, Some(name))?;
        let copy = check::Copy {
            repository: self.repository,
            index,
            snapshot: (planned.snapshot, &planned.recorded),
            path: as_bytes(&planned.from),
            place,
        };
        let mut checked = check::component(&copy, &planned.component, self.interrupt)
            .with_context(|| format!("check the restored `{name}`"))?;
        for space in &spaces {
            let copy = check::Copy { path: as_bytes(&space.from), place: &space.place, ..copy };
            let files = check::files(&copy, self.interrupt);
            checked.checks.push(files.with_context(|| format!("check `{}`", space.place.display()))?);
        }
        server::relink(place, &spaces)?;
        let mut recovery = None;
        if let (Some(facts), Some(how)) = (&planned.server, &planned.recovery) {
            let (described, program) = (&planned.component, self.options.supervisor.program.as_path());
            let server = server::Server { described, facts, planned: how, data: place, program, keep: true };
            let tried = server.try_out(self.options.supervisor, self.timeline, self.interrupt);
            let (report, results) = tried.with_context(|| format!("recover the restored `{name}`"))?;
            checked.checks.extend(results);
            recovery = Some(report);
            if self.plan.place == Place::InPlace {
                server::relink_in_place(place, &spaces)?;
            }
        }
        if let Some(facts) = &planned.dump {
            self.timeline.begin(StepName::Replay, Some(name))?;
            let (described, supervisor) = (&planned.component, self.options.supervisor);
            let database = server::database_of(described);
            let loaded = dump::load(place, facts, described, supervisor, &database, self.interrupt);
            checked.checks.extend(loaded.with_context(|| format!("load the dumps of `{name}`"))?);
        }
        if is_redis {
            self.dress(planned, place, named).with_context(|| format!("put `{name}` into its place"))?;
        }
        self.watch.note(&Note::Restored { component: name.to_owned(), bytes: checked.bytes, elapsed });
        let stopped = planned.server.as_ref().and_then(|facts| facts.stop_time);
        let stopped = stopped.or_else(|| planned.dump.as_ref().map(|facts| facts.time));
        let replayed = recovery.as_ref().and_then(|report| report.last_transaction);
        Ok(RecoveredComponent {
            component: name.to_owned(),
            kind: planned.component.kind(),
            snapshot: planned.snapshot,
            path: if planned.dump.is_some() { dump::data_in(place) } else { named.to_owned() },
            files: outcome.files,
            checked,
            recovery,
            as_of: replayed.max(stopped).unwrap_or_else(|| planned.time()),
            elapsed,
            ready: self.timeline.elapsed(),
        })
    }

    /// Names a restored data set as the server does, and makes its log of it.
    fn dress(&self, planned: &PlannedComponent, restored: &Path, named: &Path) -> Result<()> {
        let place = planned.log.as_ref().map(|(log, unit)| match unit {
            Some((unit, below)) => (log, self.staged(*unit, below)),
            None => (log, log.path().to_owned()),
        });
        let log = place.as_ref().map(|(log, place)| (*log, place.as_path()));
        cache::dress(restored, named, log, planned.to.parent().unwrap_or(&planned.to))
    }

    /// On a blank machine the manifest is not there either.
    fn write_manifest(&self) -> Result<()> {
        let path = self.plan.manifest.dir().join(MANIFEST_NAME);
        let exists = path.try_exists().map_err(|error| Error::io(path.display(), error))?;
        if exists {
            return Ok(());
        }
        let dir = self.plan.manifest.dir();
        std::fs::create_dir_all(dir).map_err(|error| Error::io(dir.display(), error))?;
        durable::write(&path, self.plan.manifest_text.as_bytes(), durable::SHARED)
    }

    /// Starts the service and asks it from outside.
    fn start(&mut self) -> Result<Answered> {
        let described = &self.plan.manifest.service;
        let Some(command) = described.start.as_ref().filter(|_| self.options.starts_service) else {
            return Ok((None, Vec::new()));
        };
        self.timeline.begin(StepName::Start, None)?;
        let root = match &self.plan.place {
            Place::InPlace => OsString::from("/"),
            Place::Under(root) => root.clone().into_os_string(),
        };
        let start = Start {
            command,
            dir: self.plan.manifest.dir(),
            log: self.options.log,
            variables: &[("RETOMA_ROOT".to_owned(), root)],
        };
        let mut service = Service::start(self.options.supervisor, &start)?;
        let limit = Duration::from_secs(described.ready_seconds);
        service.wait_ready(&check::of_service(described), limit, self.interrupt)?;
        if let Some(url) = &described.health {
            self.watch.note(&Note::Up { url: url.clone() });
        }
        self.timeline.begin(StepName::Check, None)?;
        let checks = check::service(described);
        Ok((Some(service), checks))
    }
}

/// The places of the database servers.
fn data_directories(plan: &Plan) -> impl Iterator<Item = &Path> {
    plan.components.iter().filter(|planned| planned.server.is_some()).map(|planned| planned.to.as_path())
}

/// Looks for a server that was started just before `live` was renamed to `previous`: it goes on there, and would reach the new
/// tablespaces through its links.
fn check_not_live_in<'a>(
    mut directories: impl Iterator<Item = &'a Path>,
    live: &Path,
    previous: &Path,
) -> Result<()> {
    directories.try_for_each(|data| match data.strip_prefix(live) {
        Err(_) => Ok(()),
        Ok(below) => postgres::check_not_live(&previous.join(below))
            .with_context(|| format!("look whether a server was started on `{}` meanwhile", data.display())),
    })
}

/// In the order of the plan, but what contains another one before it: that is restored into it.
fn outer_first(components: &[PlannedComponent]) -> Vec<&PlannedComponent> {
    let mut order: Vec<usize> = Vec::new();
    for (at, inner) in components.iter().enumerate() {
        let holds_it = |outer: &PlannedComponent| outer.is_folder && inner.to.starts_with(&outer.to);
        let mut chain: Vec<usize> = (0..components.len()).filter(|it| holds_it(&components[*it])).collect();
        chain.push(at);
        chain.sort_by_key(|it| components[*it].to.components().count());
        for it in chain {
            if !order.contains(&it) {
                order.push(it);
            }
        }
    }
    order.into_iter().map(|at| &components[at]).collect()
}

/// A folder that is recovered into has nothing in it, or a recovery that was stopped.
fn check_folder_is_free(root: &Path, unfinished: &Path) -> Result<()> {
    let entries = match std::fs::read_dir(root) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(Error::io(root.display(), error)),
    };
    // Killed before the first file had its name.
    let begun = durable::temporary(unfinished);
    let others = entries.filter(|entry| !entry.as_ref().is_ok_and(|entry| entry.path() == begun));
    if others.count() == 0 || unfinished.exists() {
        return Ok(());
    }
    let message = format!("`{}` is not empty", root.display());
    Err(Error::new(ErrorKind::Conflict, codes::RESTORE_TARGET, message)
        .with_hint("recover into an empty folder, or in place"))
}

/// Restores a component's path to `place`, through the same engine as `retoma restore`.
///
/// # Errors
/// The first path's error when not everything could be restored: part of a component is no component.
pub(crate) fn fetch(
    repository: &Repository,
    index: &Index,
    planned: &PlannedComponent,
    place: &Path,
    followed: Followed<'_>,
) -> Result<restore::Outcome> {
    let target = if planned.is_folder { place } else { place.parent().unwrap_or(place) };
    let from = as_bytes(&planned.from).to_vec();
    let options = restore::Options {
        strip: Some(from.clone()),
        root_metadata: planned.is_folder,
        // What a recovery that was killed left in it, such as WAL of its own timeline, would be replayed.
        delete_extra: planned.server.is_some() || planned.dump.is_some(),
        whole: vec![from],
        ..restore::Options::default()
    };
    run_restore(repository, index, planned.recorded.tree, &options, target, followed)
}

/// Plans and applies a restore that must be complete.
///
/// # Errors
/// See [`fetch`].
pub(crate) fn run_restore<'a>(
    repository: &Repository,
    index: &Index,
    tree: retoma_repo::BlobId,
    options: &restore::Options,
    target: &Path,
    followed: impl Into<Followed<'a>>,
) -> Result<restore::Outcome> {
    let Followed { interrupt, watch, doing } = followed.into();
    let plan = restore::plan(repository, index, tree, options, target)?;
    let progress = Arc::new(Progress::default());
    let shown = watch.follow(doing, &progress);
    let mut outcome = interrupt.during(&progress, || restore::apply(plan, &progress))?;
    drop(shown);
    if let Some(error) = outcome.stopped.take() {
        return Err(error);
    }
    if !outcome.failed.is_empty() {
        let first = outcome.failed.swap_remove(0);
        return Err(first.error.context(format!("restore `{}`", first.path.escape_ascii())));
    }
    if !outcome.is_complete() {
        let message = "some entries were not restored, and no reason is known";
        return Err(Error::new(ErrorKind::Internal, codes::RESTORE_INCOMPLETE, message));
    }
    Ok(outcome)
}

#[cfg(test)]
mod tests;

//! One drill, from the first mark to the result.

use super::disaster::strike;
use super::inventory::Inventory;
use super::markers::{Markers, Which};
use super::patient::address_of;
use super::report::{Facts, Head, ran_with};
use super::{Context, DETECT_LIMIT, FIRST_WRITE_LIMIT, MARKS_LIMIT, Patient, Scenario, controls, report};
use crate::backup::{self, ComponentBackup};
use crate::check;
use crate::open::open_address;
use crate::probe;
use crate::recover::{self, Place, Recovered, Request, STOP_GRACE};
use crate::service::{PROBE_LIMIT, Service, Start};
use crate::timeline::Timeline;
use crate::watch::Note;
use retoma_core::drill::{DrillReport, Failure, Seconds, StepName};
use retoma_core::manifest::Manifest;
use retoma_core::{Error, ErrorKind, Result, ResultExt, Secret, error::codes};
use retoma_repo::backup::Progress;
use retoma_repo::{Folder, Repository, SnapshotId};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Runs `scenario` on `patient` and gives the result with its verdict. What went wrong in the drill is in the result,
/// which is red then: `R0712` when no probe noticed the disaster, `R0714` after the manifest's time limit, `R0716` when
/// no write succeeded in the end, and what backup and recovery say.
///
/// # Errors
/// The repository cannot be opened, so that nothing was begun; `Cancelled`.
pub fn run(patient: &Patient, scenario: Scenario, context: &Context<'_>) -> Result<DrillReport> {
    let repository =
        open_address(&address_of(&patient.repository_dir)?, &patient.password, false)?.repository;
    let head = head(&patient.manifest, scenario, &repository, context);
    let mut facts = Facts::default();
    let ended = within_limit(&patient.manifest, context, |context| {
        Drill::new(patient, scenario, context, &head.drill)?.run(repository, &mut facts)
    });
    let failure = match ended {
        Ok(()) => None,
        Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
        Err(error) => Some(Failure::from(&error)),
    };
    report::assemble(&patient.manifest, head, facts, failure)
}

/// What names a drill that begins now.
pub(super) fn head(
    manifest: &Manifest,
    scenario: Scenario,
    repository: &Repository,
    context: &Context<'_>,
) -> Head {
    let started = jiff::Timestamp::now();
    Head {
        drill: format!("{}-{}", started.strftime("%Y%m%dT%H%M%S"), std::process::id()),
        scenario,
        started,
        repeat: context.repeat.to_owned(),
        environment: ran_with(manifest, repository, context),
    }
}

/// Does `work` until the manifest's time limit, with an interrupt of its own.
pub(super) fn within_limit(
    manifest: &Manifest,
    context: &Context<'_>,
    work: impl FnOnce(&Context<'_>) -> Result<()>,
) -> Result<()> {
    let limit = Duration::from_secs(manifest.drill.timeout_seconds);
    let (done, timed_out) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // The limit works as a stop that somebody asked for, on a flag of its own.
        let own = crate::interrupt::Interrupt::default();
        let (stop, outer, finished, late) = (own.clone(), context.interrupt.clone(), &done, &timed_out);
        let deadline = context.clock.elapsed() + limit;
        let clock = context.clock;
        scope.spawn(move || {
            while !finished.load(Ordering::Relaxed) && !stop.is_set() {
                let is_late = clock.elapsed() > deadline;
                if is_late || outer.is_set() {
                    late.store(is_late && !outer.is_set(), Ordering::Relaxed);
                    stop.set();
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let context = Context { interrupt: &own, ..*context };
        let result = work(&context);
        done.store(true, Ordering::Relaxed);
        match result {
            Err(error) if timed_out.load(Ordering::Relaxed) => {
                let message = format!("the drill did not end within {} s", limit.as_secs());
                let error =
                    Error::new(ErrorKind::Unavailable, codes::DRILL_TIMEOUT, message).with_source(error);
                Err(error
                    .with_hint("look at where it stopped; `timeout_seconds` in `[drill]` gives it more time"))
            }
            other => other,
        }
    })
}

struct Drill<'a> {
    patient: &'a Patient,
    scenario: Scenario,
    context: &'a Context<'a>,
    id: &'a str,
    markers: Markers,
    log: PathBuf,
}

impl<'a> Drill<'a> {
    fn new(patient: &'a Patient, scenario: Scenario, context: &'a Context<'a>, id: &'a str) -> Result<Self> {
        if patient.manifest.components.is_empty() {
            return Err(Error::internal("a drill has no component"));
        }
        Ok(Self {
            patient,
            scenario,
            context,
            markers: Markers::new(&patient.manifest, &format!("drill-{id}"), context.clock),
            id,
            log: patient.scratch.join("service.log"),
        })
    }

    /// Fills `facts`, as far as it comes.
    fn run(self, repository: Repository, facts: &mut Facts) -> Result<()> {
        let service = self.start()?;
        let interrupt = self.context.interrupt;
        std::thread::scope(|scope| {
            scope.spawn(|| self.markers.write(interrupt));
            let result = self.under_marks(repository, service, facts);
            self.markers.stop();
            result
        })
    }

    fn note(&self, what: &str) {
        self.context.watch.note(&Note::Doing(what.to_owned()));
    }

    fn start(&self) -> Result<Option<Service>> {
        let described = &self.patient.manifest.service;
        let Some(command) = &described.start else { return Ok(None) };
        self.note("start the service in its scratch place");
        let dir = self.patient.manifest.dir();
        let root = self.patient.scratch.join("root").into_os_string();
        let variables = [("RETOMA_ROOT".to_owned(), root)];
        let start = Start { command, dir, log: &self.log, variables: &variables };
        let mut service = Service::start(self.context.supervisor, &start)?;
        let limit = Duration::from_secs(described.ready_seconds);
        service.wait_ready(&check::of_service(described), limit, self.context.interrupt)?;
        if let Some(url) = &described.health {
            self.context.watch.note(&Note::Up { url: url.clone() });
        }
        Ok(Some(service))
    }

    /// Everything that happens while marks are written.
    fn under_marks(&self, repository: Repository, service: Option<Service>, facts: &mut Facts) -> Result<()> {
        self.markers.open(Which::All);
        self.more_marks()?;
        self.note("back up, twice, while writes go on");
        self.back_up(&repository)?;
        self.more_marks()?;
        facts.backups = self.back_up(&repository)?;
        self.more_marks()?;
        facts.inventories = self.take_inventories()?;
        let other_key = self.other_key(&repository)?;
        drop(repository);

        let timeline = facts.timeline.insert(Timeline::start(self.context.clock, StepName::Detect));
        // The copy's host is lost with it: what is written directly ends now. What goes through the service goes on.
        self.markers.close(Which::All);
        self.markers.open(Which::Service);
        let (what, service) = strike(self.scenario, self.patient, service)?;
        self.context.watch.note(&Note::Disaster { what });
        let saw = self.detect(&facts.inventories)?;
        let after = self.context.clock.elapsed().saturating_sub(timeline.disaster_at());
        self.context.watch.note(&Note::Detected { after, saw });

        timeline.begin(StepName::Decide, None)?;
        self.markers.close(Which::All);
        if let Some(service) = service {
            service.stop(STOP_GRACE).context("stop the damaged service")?;
        }
        let repository = self.open_after(other_key.as_ref())?;
        facts.key_id = Some(repository.key_id().to_hex());
        facts.recovered = self.recover(&repository, timeline)?;
        if let Some(error) = facts.recovered.rolled_back.take() {
            return Err(error.context("recover the scratch copy"));
        }
        let recovered_at = self.cut_over(timeline)?;
        let disaster_at = timeline.disaster_at();
        let waterfall = timeline.clone().finish()?;
        self.context.watch.note(&Note::FirstWrite { after: waterfall.total() });
        facts.waterfall = Some(waterfall);
        for component in &self.patient.manifest.components {
            facts.marks.push(self.markers.count(&component.name, disaster_at, recovered_at)?);
        }
        self.markers.stop();
        facts.controls = self.controls(&facts.recovered, other_key.as_ref())?;
        if let Some(service) = facts.recovered.service.take() {
            service.stop(STOP_GRACE)?;
        }
        Ok(())
    }

    fn open(&self, password: &Secret<String>) -> Result<Repository> {
        Ok(open_address(&address_of(&self.patient.repository_dir)?, password, false)?.repository)
    }

    fn more_marks(&self) -> Result<()> {
        self.markers.wait_for(self.context.marks, MARKS_LIMIT, self.context.interrupt)
    }

    /// Each backup has counters of its own: they add up over what shares them.
    fn counted<T>(&self, work: impl FnOnce(&Progress) -> Result<T>) -> Result<T> {
        let progress = Progress::default();
        self.context.interrupt.during(&progress, || work(&progress))
    }

    fn back_up(&self, repository: &Repository) -> Result<Vec<ComponentBackup>> {
        let manifest = &self.patient.manifest;
        if self.patient.manifest_is_stored {
            let text = &self.patient.manifest_text;
            self.counted(|progress| backup::backup_manifest(manifest, text, repository, progress))?;
        }
        let mut backups = Vec::new();
        for component in manifest.recovery_order() {
            let done = self.counted(|progress| backup::backup(manifest, component, repository, progress))?;
            complete(&done, self.context)?;
            backups.push(done);
        }
        Ok(backups)
    }

    fn take_inventories(&self) -> Result<Vec<Inventory>> {
        self.note("note what is there before the disaster");
        let components = self.patient.manifest.components.iter();
        components.map(|component| Inventory::take(component, self.context.interrupt)).collect()
    }

    /// For the scenario that loses a key: another one, made while the first still opened.
    fn other_key(&self, repository: &Repository) -> Result<Option<Secret<String>>> {
        if self.scenario != Scenario::LostKey {
            return Ok(None);
        }
        let other = Secret::new(format!("{}-other-{}", self.patient.password.expose(), self.id));
        repository.add_key(&other).context("add another key")?;
        let lost = Folder::Keys.key(&repository.key_id().to_hex())?;
        repository.store().delete(&lost).context("lose the key in use")?;
        Ok(Some(other))
    }

    /// The repository as it is after the disaster. A lost key must not open it any more.
    fn open_after(&self, other_key: Option<&Secret<String>>) -> Result<Repository> {
        let Some(other) = other_key else { return self.open(&self.patient.password) };
        match self.open(&self.patient.password) {
            Err(error) if error.code() == codes::WRONG_KEY => {
                self.open(other).context("open with the other key")
            }
            Err(error) => Err(error),
            Ok(_) => Err(Error::internal("a key that was removed still opens the repository")),
        }
    }

    /// Looks from outside until something is wrong.
    fn detect(&self, inventories: &[Inventory]) -> Result<String> {
        let manifest = &self.patient.manifest;
        let checks = check::of_service(&manifest.service);
        let look = || {
            if manifest.service.start.is_none() || checks.is_empty() {
                let paths = manifest.components.iter().filter_map(|component| component.path());
                let mut damaged = paths.zip(inventories).filter(|(path, before)| before.is_damaged(path));
                return damaged.next().map(|(path, _)| format!("`{}` is not as it was", path.display()));
            }
            checks.iter().find_map(|check| {
                let seen = probe::get(&check.url, PROBE_LIMIT);
                probe::unfulfilled(check, &seen).map(|why| format!("`{}`: {why}", check.url))
            })
        };
        noticed(self.context, look).map_err(|error| match error.code() {
            codes::NOT_DETECTED => error.with_hint(
                "let `health` or a `[[service.check]]` look at the data too, so that such a loss is seen",
            ),
            _ => error,
        })
    }

    fn recover(&self, repository: &Repository, timeline: &mut Timeline) -> Result<Recovered> {
        let manifest = &self.patient.manifest;
        let told =
            (!self.patient.manifest_is_stored).then_some((manifest, self.patient.manifest_text.as_str()));
        let request = Request { manifest: told, ..Request::newest(repository, Place::InPlace) };
        let plan = recover::plan(&request)?;
        let options = recover::Options {
            supervisor: self.context.supervisor,
            starts_service: true,
            log: &self.log,
            keep_previous: false,
            runs_stop: false,
        };
        let (watch, interrupt) = (self.context.watch, self.context.interrupt);
        recover::apply(&plan, repository, &options, timeline, watch, interrupt)
    }

    /// Sends writes to the recovered service and waits for the first that it acknowledges. Gives the time before which
    /// marks could be lost.
    fn cut_over(&self, timeline: &mut Timeline) -> Result<Duration> {
        timeline.begin(StepName::CutOver, None)?;
        let recovered_at = self.context.clock.elapsed();
        self.markers.open(Which::Service);
        timeline.begin(StepName::FirstWrite, None)?;
        if !self.markers.has_service() {
            self.markers.write_one()?;
            return Ok(recovered_at);
        }
        let first = self
            .context
            .interrupt
            .wait_for(FIRST_WRITE_LIMIT, || Ok(self.markers.first_through_service(recovered_at)))?;
        first.map(|_| recovered_at).ok_or_else(|| {
            let why = self.markers.service_error().unwrap_or_else(|| "no reason is known".to_owned());
            let message =
                format!("no write succeeded within {} s of the recovery", FIRST_WRITE_LIMIT.as_secs());
            Error::new(ErrorKind::Unavailable, codes::NO_FIRST_WRITE, message)
                .with_hint(format!("the service's last answer: {why}"))
        })
    }

    fn controls(
        &self,
        recovered: &Recovered,
        other_key: Option<&Secret<String>>,
    ) -> Result<Vec<retoma_core::drill::ControlResult>> {
        self.note("test the verifier");
        let scratch = tempfile::Builder::new()
            .prefix("controls-")
            .tempdir_in(&self.patient.scratch)
            .map_err(|error| Error::io("the controls' folder", error))?;
        let snapshots: Vec<(String, SnapshotId)> =
            recovered.components.iter().map(|it| (it.component.clone(), it.snapshot)).collect();
        let bench = controls::Bench {
            repository_dir: &self.patient.repository_dir,
            password: other_key.unwrap_or(&self.patient.password),
            manifest: &self.patient.manifest,
            snapshots: &snapshots,
            scratch: scratch.path(),
        };
        controls::run(&bench, self.context.watch, self.context.interrupt)
    }
}

/// A backup that a drill can build on: it is told, and must not lack anything.
///
/// # Errors
/// `Unavailable` with the first path that could not be read.
pub(super) fn complete(done: &ComponentBackup, context: &Context<'_>) -> Result<()> {
    if let Some(unreadable) = done.summary.unreadable.first() {
        let path = unreadable.path.escape_ascii();
        let message = format!("the backup of `{}` is incomplete: `{path}`", done.component);
        return Err(Error::new(ErrorKind::Unavailable, codes::SOURCE_UNREADABLE, message)
            .with_source(unreadable.error.to_string()));
    }
    context.watch.note(&Note::BackedUp {
        component: done.component.clone(),
        total_bytes: done.summary.total_bytes,
        stored_bytes: done.summary.stored_bytes,
        elapsed: done.elapsed,
    });
    Ok(())
}

/// What a component could lose at the worst moment: the interval, and what the last backup took.
pub(super) fn worst_case(interval: Duration, backup: &ComponentBackup) -> Seconds {
    Seconds::from_duration(interval + backup.elapsed)
}

/// Looks until something is wrong, twice in a row, so that a hiccup is no disaster. Gives what it saw.
///
/// # Errors
/// `Unavailable` with `R0705` (`NOT_DETECTED`) when nothing is seen in time; `Cancelled`.
pub(super) fn noticed(context: &Context<'_>, look: impl Fn() -> Option<String>) -> Result<String> {
    let mut in_a_row = 0;
    let saw = context.interrupt.wait_for(DETECT_LIMIT, || {
        let saw = look();
        in_a_row = if saw.is_some() { in_a_row + 1 } else { 0 };
        Ok(saw.filter(|_| in_a_row >= 2))
    })?;
    saw.ok_or_else(|| {
        let message = format!("no probe noticed the disaster within {} s", DETECT_LIMIT.as_secs());
        Error::new(ErrorKind::Unavailable, codes::NOT_DETECTED, message)
    })
}

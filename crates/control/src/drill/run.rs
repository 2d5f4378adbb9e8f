//! One drill, from the first mark to the result.

use super::disaster::strike;
use super::inventory::Inventory;
use super::markers::{Markers, Which};
use super::patient::address_of;
use super::ransom::Attack;
use super::report::Facts;
use super::several::{self, Exposed, Served};
use super::steps::{complete, head, noticed, within_limit};
use super::ways::Ways;
use super::{Context, FIRST_WRITE_LIMIT, MARKS_LIMIT, Patient, Scenario, controls, port, report};
use crate::backup;
use crate::check;
use crate::open::open_address;
use crate::probe;
use crate::recover::{self, Place, Recovered, Request, STOP_GRACE};
use crate::service::{PROBE_LIMIT, Service, Start};
use crate::timeline::Timeline;
use crate::watch::Note;
use retoma_core::decide::recovery::{Goal, Target};
use retoma_core::drill::{ControlResult, DrillReport, Failure, StepName};
use retoma_core::manifest::Component;
use retoma_core::{Error, ErrorKind, Result, ResultExt, error::codes};
use retoma_repo::backup::Progress;
use retoma_repo::{Repository, SnapshotId};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Runs `scenario` on `patient` and gives the result with its verdict. What went wrong in the drill is in the result,
/// which is red then: `R0712` when no probe noticed the disaster, `R0714` after the manifest's time limit, `R0716` when
/// no write succeeded in the end, and what backup and recovery say.
///
/// # Errors
/// The repository cannot be opened, so that nothing was begun; `Cancelled`.
pub fn run(patient: &Patient, scenario: Scenario, context: &Context<'_>) -> Result<DrillReport> {
    if scenario.extent().is_some() && patient.several.is_none() {
        return Err(several::needs_several(scenario));
    }
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

/// What stands for a repository's name where there is one.
const ALONE: &str = "";

struct Drill<'a> {
    patient: &'a Patient,
    scenario: Scenario,
    context: &'a Context<'a>,
    markers: Markers,
    log: PathBuf,
}

impl<'a> Drill<'a> {
    fn new(patient: &'a Patient, scenario: Scenario, context: &'a Context<'a>, id: &str) -> Result<Self> {
        if patient.manifest.components.is_empty() {
            return Err(Error::internal("a drill has no component"));
        }
        Ok(Self {
            patient,
            scenario,
            context,
            markers: Markers::new(&patient.manifest, &format!("drill-{id}"), context.clock),
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
        let mut ways = Ways::new(&self.patient.repository_dir, &self.patient.password);
        self.back_up(&repository)?;
        let repository = ways.replace(self.scenario, repository)?;
        self.more_marks()?;
        let exposed = self.back_up(&repository)?;
        self.more_marks()?;
        facts.inventories = self.take_inventories()?;
        ways.lose(self.scenario, &repository)?;
        drop(repository);
        if let Some(several) = &self.patient.several {
            facts.repositories = several.results();
            facts.not_proven.extend(several.doubt());
        }

        let timeline = facts.timeline.insert(Timeline::start(self.context.clock, StepName::Detect));
        // The copy's host is lost with it: what is written directly ends now. What goes through the service goes on.
        self.markers.close(Which::All);
        self.markers.open(Which::Service);
        let sound_until = jiff::Timestamp::now();
        let (what, service) = strike(self.scenario, self.patient, service)?;
        self.context.watch.note(&Note::Disaster { what });
        let attack = match self.scenario {
            Scenario::Ransomware => {
                Some(Attack::run(sound_until, self.patient, &ways.open()?, self.context)?)
            }
            _ => None,
        };
        let saw = self.detect(&facts.inventories)?;
        let after = self.context.clock.elapsed().saturating_sub(timeline.disaster_at());
        self.context.watch.note(&Note::Detected { after, saw });

        timeline.begin(StepName::Decide, None)?;
        self.markers.close(Which::All);
        if let Some(service) = service {
            service.stop(STOP_GRACE).context("stop the damaged service")?;
        }
        let served = self.open_after(&mut ways)?;
        let ids = (served.repository.config().id.to_hex(), served.repository.key_id().to_hex());
        facts.served_by = Some(ids);
        facts.exposed = exposed.get(&served.name).cloned().unwrap_or_default();
        let recovered = self.recover(&served.repository, attack.as_ref(), timeline);
        served.tell(&mut facts.repositories);
        facts.recovered = recovered?;
        if let Some(attack) = &attack {
            attack.judge(&served.repository, &mut facts.recovered.components)?;
        }
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
        facts.controls = self.controls(&facts.recovered, &served, &ways, attack.as_ref())?;
        if let Some(service) = facts.recovered.service.take() {
            service.stop(STOP_GRACE)?;
        }
        Ok(())
    }

    fn more_marks(&self) -> Result<()> {
        self.markers.wait_for(self.context.marks, MARKS_LIMIT, self.context.interrupt)
    }

    /// Each backup has counters of its own: they add up over what shares them.
    fn counted<T>(&self, work: impl FnOnce(&Progress) -> Result<T>) -> Result<T> {
        let progress = Progress::default();
        self.context.interrupt.during(&progress, || work(&progress))
    }

    /// Into the repository, or where the manifest says when there are several; how long each component took, by repository.
    fn back_up(&self, repository: &Repository) -> Result<Exposed> {
        let manifest = &self.patient.manifest;
        if let Some(several) = &self.patient.several {
            return several
                .fill(manifest, self.context, |into, components| self.back_up_into(into, components));
        }
        if self.patient.manifest_is_stored {
            let text = &self.patient.manifest_text;
            self.counted(|progress| backup::backup_manifest(manifest, text, repository, progress))?;
        }
        let took = self.back_up_into(repository, &manifest.recovery_order())?;
        Ok(Exposed::from([(ALONE.to_owned(), took)]))
    }

    fn back_up_into(
        &self,
        repository: &Repository,
        components: &[&Component],
    ) -> Result<BTreeMap<String, Duration>> {
        let mut took = BTreeMap::new();
        for component in components {
            let manifest = &self.patient.manifest;
            let done = self.counted(|progress| backup::backup(manifest, component, repository, progress))?;
            complete(&done, self.context)?;
            took.insert(done.component, done.elapsed);
        }
        Ok(took)
    }

    fn take_inventories(&self) -> Result<Vec<Inventory>> {
        self.note("note what is there before the disaster");
        let components = self.patient.manifest.components.iter();
        components.map(|component| Inventory::take(component, self.context.interrupt)).collect()
    }

    /// The repository that serves after the disaster.
    fn open_after(&self, ways: &mut Ways) -> Result<Served> {
        if let Some(several) = &self.patient.several {
            return several.choose(&self.patient.manifest, ways, self.context);
        }
        Ok(Served {
            name: ALONE.to_owned(),
            dir: self.patient.repository_dir.clone(),
            password: ways.password().clone(),
            repository: ways.open().context("open the repository after the disaster")?,
        })
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

    fn recover(
        &self,
        repository: &Repository,
        attack: Option<&Attack>,
        timeline: &mut Timeline,
    ) -> Result<Recovered> {
        let plan = self.plan(repository, attack)?;
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

    /// In place, after an attack as of the moment before it; on a blank machine, into the empty folder that stands for it, from what the repository alone tells.
    fn plan(&self, repository: &Repository, attack: Option<&Attack>) -> Result<recover::Plan> {
        let (manifest, text) = (&self.patient.manifest, self.patient.manifest_text.as_str());
        if !self.scenario.loses_machine() {
            let told = (!self.patient.manifest_is_stored).then_some((manifest, text));
            let target = attack.map_or(Target::Latest, |attack| Target::Time(attack.at));
            let goal = Goal { target, ..Goal::default() };
            let request = Request { manifest: told, goal, ..Request::newest(repository, Place::InPlace) };
            return recover::plan(&request);
        }
        // It names the command that is started, on the machine of the live service.
        if recover::stored_manifest(repository, None)?.2 != text {
            let message = "the manifest in the repository is not the one of this drill: a blank machine would get another service";
            return Err(Error::new(ErrorKind::Conflict, codes::CHECK_FAILED, message)
                .with_hint("run `retoma backup`, which stores the manifest, and the drill again"));
        }
        let place = self.patient.root.clone().map_or(Place::InPlace, Place::Under);
        let mut plan = recover::plan(&Request::newest(repository, place))?;
        port::move_to(&mut plan.manifest, manifest);
        Ok(plan)
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
        served: &Served,
        ways: &Ways,
        attack: Option<&Attack>,
    ) -> Result<Vec<ControlResult>> {
        self.note("test the verifier");
        let scratch = tempfile::Builder::new()
            .prefix("controls-")
            .tempdir_in(&self.patient.scratch)
            .map_err(|error| Error::io("the controls' folder", error))?;
        let snapshots: Vec<(String, SnapshotId)> =
            recovered.components.iter().map(|it| (it.component.clone(), it.snapshot)).collect();
        let bench = controls::Bench {
            repository_dir: &served.dir,
            password: &served.password,
            manifest: &self.patient.manifest,
            snapshots: &snapshots,
            scratch: scratch.path(),
        };
        let mut results = controls::run(&bench, self.context.watch, self.context.interrupt)?;
        let mut more = ways.controls();
        if let Some(attack) = attack {
            let (repository, components) = (&served.repository, &recovered.components);
            more.extend(attack.controls(repository, components, scratch.path(), self.context)?);
        }
        for result in more {
            self.context.watch.note(&Note::Control(result.clone()));
            results.push(result);
        }
        Ok(results)
    }
}

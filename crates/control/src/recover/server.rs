//! A restored database server: recovered to its target, asked, and stopped cleanly, so that its files can go on.

use super::apply::run_restore;
use super::{Place, PlannedComponent, PlannedRecovery, as_bytes};
use crate::backup;
use crate::durable;
use crate::interrupt::{Interrupt, Stopwatch};
use crate::postgres::{self, Instance, Launch, Replayed};
use crate::service::Supervisor;
use crate::timeline::Timeline;
use crate::wal::serve::{Served, Supply};
use jiff::Timestamp;
use retoma_core::decide::recovery::Goal;
use retoma_core::drill::{CheckResult, StepName};
use retoma_core::manifest::{Component, Source};
use retoma_core::postgres::{Lsn, TimelineId};
use retoma_core::{Error, ErrorKind, Result, ResultExt, error::codes};
use retoma_repo::index::Index;
use retoma_repo::{Repository, restore};
use retoma_sources::postgres::PostgresFacts;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A tablespace that was restored.
pub(super) struct Space {
    oid: u32,
    /// Where it was.
    pub(super) original: PathBuf,
    /// Where it is.
    pub(super) place: PathBuf,
}

/// Restores the tablespaces of a server to their places. The links still lead to where they were: see [`relink`].
///
/// # Errors
/// As a restore; `R0502` when a tablespace would have to go where one lies.
pub(super) fn tablespaces(
    repository: &Repository,
    index: &Index,
    planned: &PlannedComponent,
    place: &Place,
    interrupt: &Interrupt,
) -> Result<Vec<Space>> {
    let spaces = planned.server.iter().flat_map(|facts| &facts.tablespaces);
    let mut restored = Vec::new();
    for space in spaces {
        if *place == Place::InPlace {
            let message = format!("the tablespace `{}` lies outside of the data directory", space.name);
            return Err(Error::new(ErrorKind::Unsupported, codes::RESTORE_TARGET, message).with_hint(
                "recover into another folder with `--to`, and move it when the server is stopped",
            ));
        }
        let original = Path::new(&space.location);
        let target = super::placed(place, original)?;
        let options = restore::Options {
            paths: vec![as_bytes(original).to_vec()],
            strip: Some(as_bytes(original).to_vec()),
            root_metadata: true,
            ..restore::Options::default()
        };
        run_restore(repository, index, planned.recorded.tree, &options, &target, interrupt)
            .with_context(|| format!("restore the tablespace `{}`", space.name))?;
        restored.push(Space { oid: space.oid, original: original.to_owned(), place: target });
    }
    Ok(restored)
}

/// Leads the links of a data directory to where its tablespaces are, and says so in `tablespace_map`, by which the server
/// makes the links anew.
pub(super) fn relink(data: &Path, spaces: &[Space]) -> Result<()> {
    if spaces.is_empty() {
        return Ok(());
    }
    let mut map = String::new();
    for Space { oid, place, .. } in spaces {
        let link = data.join(format!("pg_tblspc/{oid}"));
        let failed = |error| Error::io(link.display(), error);
        std::fs::remove_file(&link).map_err(failed)?;
        std::os::unix::fs::symlink(place, &link).map_err(failed)?;
        let shown = place.to_string_lossy();
        // As the server writes it: a backslash before what would end the line.
        let escaped = shown.replace('\\', "\\\\").replace('\n', "\\\n").replace('\r', "\\\r");
        map.push_str(&format!("{oid} {escaped}\n"));
    }
    let path = data.join("tablespace_map");
    let metadata = std::fs::metadata(&path).map_err(|error| Error::io(path.display(), error))?;
    durable::write(&path, map.as_bytes(), durable::PRIVATE)?;
    std::os::unix::fs::chown(&path, Some(metadata.uid()), Some(metadata.gid()))
        .map_err(|error| Error::io(path.display(), error))
}

/// How long replaying the WAL may take.
const REPLAY_LIMIT: Duration = Duration::from_hours(24);

pub(super) struct Server<'a> {
    pub(super) described: &'a Component,
    pub(super) facts: &'a PostgresFacts,
    pub(super) planned: &'a PlannedRecovery,
    /// The restored data directory.
    pub(super) data: &'a Path,
    /// This program, which brings WAL to the server.
    pub(super) program: &'a Path,
    /// Whether its files are to be used afterwards.
    pub(super) keep: bool,
}

/// How far a server came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// What was asked for.
    pub goal: Goal,
    /// Everything before this position was replayed.
    pub reached: Lsn,
    /// When the last transaction that was replayed ended; `None` when there was none.
    pub last_transaction: Option<Timestamp>,
    /// The timeline of the last record …
    pub timeline_before: TimelineId,
    /// … and the one that began behind it.
    pub timeline_after: TimelineId,
    /// The WAL that came from the repositories.
    pub fetched: Served,
    /// How long the server replayed, from its start on.
    pub replay: Duration,
}

/// Recovers a data directory that `retoma restore` laid down, of the component `described`, to what was planned, and stops the
/// server. Nothing is checked but that it comes up.
///
/// # Errors
/// As [`crate::recover::apply`] has them of a server.
pub fn recover_restored(
    described: &Component,
    facts: &PostgresFacts,
    planned: &PlannedRecovery,
    data: &Path,
    supervisor: &Supervisor,
    interrupt: &Interrupt,
) -> Result<Report> {
    let server = Server { described, facts, planned, data, program: &supervisor.program, keep: true };
    let mut timeline = Timeline::start(Stopwatch::start(), StepName::Replay);
    let (instance, report) = server.come_up(supervisor, &mut timeline, interrupt)?;
    instance.stop()?;
    Ok(report)
}

impl Server<'_> {
    /// Starts the server, waits until it has recovered to its goal, checks it and stops it. Afterwards the data directory is as
    /// after a clean shutdown, on a timeline of its own.
    ///
    /// # Errors
    /// `R0507` when the WAL ends before the goal; what a repository says about WAL that cannot be had; `R0425` when the server
    /// does not come up or does not stop; `Cancelled`. What is wrong with its data is in the results.
    pub(super) fn try_out(
        &self,
        supervisor: &Supervisor,
        timeline: &mut Timeline,
        interrupt: &Interrupt,
    ) -> Result<(Report, Vec<CheckResult>)> {
        let (instance, report) = self.come_up(supervisor, timeline, interrupt)?;
        timeline.begin(StepName::Check, Some(&self.described.name))?;
        let checks =
            postgres::check(&instance, self.facts, &self.database(), &self.described.checks, interrupt)?;
        instance.stop()?;
        Ok((report, checks))
    }

    /// Starts the server and waits until it has recovered.
    pub(super) fn come_up(
        &self,
        supervisor: &Supervisor,
        timeline: &mut Timeline,
        interrupt: &Interrupt,
    ) -> Result<(Instance, Report)> {
        let name = Some(self.described.name.as_str());
        timeline.begin(StepName::Replay, name)?;
        let supply = Supply { archives: self.planned.archives.clone(), program: self.program.to_owned() };
        let launch = Launch {
            supervisor,
            data: self.data,
            facts: self.facts,
            recovery: &self.planned.recovery,
            wal: (!supply.archives.is_empty()).then_some(&supply),
            keep: self.keep,
            limit: REPLAY_LIMIT,
        };
        let clock = Stopwatch::start();
        let mut instance = Instance::launch(&launch, interrupt)?;
        instance.wait_replayed(launch.limit, interrupt)?;
        let replay = clock.elapsed();
        timeline.begin(StepName::Start, name)?;
        instance.wait_promoted(launch.limit, interrupt)?;
        let report = self.report(&instance.replayed()?, replay);
        Ok((instance, report))
    }

    fn report(&self, replayed: &Replayed, replay: Duration) -> Report {
        Report {
            goal: self.planned.goal.clone(),
            reached: replayed.reached,
            last_transaction: replayed.last_transaction,
            timeline_before: self.planned.timeline_before(replayed.reached),
            timeline_after: replayed.timeline,
            fetched: replayed.served,
            replay,
        }
    }

    /// The database that the user's queries are for.
    fn database(&self) -> String {
        let Source::Postgres { url } = &self.described.source else { return String::new() };
        // On another machine its secret may be out of reach.
        backup::server_address(url)
            .map_or_else(|_| "postgres".to_owned(), |address| address.database().to_owned())
    }
}

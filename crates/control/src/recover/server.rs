//! A restored database server: recovered to its target, asked, and stopped cleanly, so that its files can go on.

use super::apply::run_restore;
use super::{PlannedComponent, PlannedRecovery, as_bytes};
use crate::backup;
use crate::interrupt::{Interrupt, Stopwatch};
use crate::postgres::{self, Instance, Launch, Replayed, spaces};
use crate::service::Supervisor;
use crate::timeline::Timeline;
use crate::wal::serve::{Served, Supply};
use crate::watch::Followed;
use jiff::Timestamp;
use retoma_core::decide::observed::Mark;
use retoma_core::decide::recovery::Goal;
use retoma_core::drill::{CheckResult, StepName};
use retoma_core::manifest::{Component, Source};
use retoma_core::postgres::{Lsn, TimelineId};
use retoma_core::{Error, Result, ResultExt};
use retoma_repo::index::Index;
use retoma_repo::{Repository, restore};
use retoma_sources::postgres::PostgresFacts;
use retoma_sources::postgres::wire::{Connection, Mode, Timeouts};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A tablespace of a planned server.
#[derive(Debug)]
pub(super) struct Space {
    pub(super) oid: u32,
    pub(super) name: String,
    /// The folder in it that is the server's.
    pub(super) version: String,
    /// Where it was.
    pub(super) original: PathBuf,
    /// Where it goes.
    pub(super) to: PathBuf,
    /// In place, the unit that the server's folder is exchanged with, and its path in the unit's folder.
    pub(super) unit: Option<(usize, PathBuf)>,
}

/// A tablespace that was restored.
pub(super) struct Restored<'a> {
    space: &'a Space,
    /// What was restored, in the snapshot …
    pub(super) from: PathBuf,
    /// … and where it is.
    pub(super) place: PathBuf,
    /// Where the server finds it until it is in its place.
    link: PathBuf,
}

/// Restores a tablespace: to its place, or in place beside the server's folder in it, which is not touched. The links still lead to
/// where they were: see [`relink`].
///
/// # Errors
/// As a restore.
pub(super) fn tablespace<'a>(
    repository: &Repository,
    index: &Index,
    planned: &PlannedComponent,
    space: &'a Space,
    staged: Option<&Path>,
    followed: Followed<'_>,
) -> Result<Restored<'a>> {
    let (from, place) = match staged {
        Some(staged) => (space.original.join(&space.version), staged.to_owned()),
        None => (space.original.clone(), space.to.clone()),
    };
    let link = match staged {
        Some(staged) => staged.parent().unwrap_or(staged).to_owned(),
        None => space.to.clone(),
    };
    let is_new = staged.is_some() && !space.to.exists();
    let bytes = as_bytes(&from).to_vec();
    let options = restore::Options {
        paths: vec![bytes.clone()],
        strip: Some(bytes.clone()),
        root_metadata: true,
        // What a recovery that was killed left in it.
        delete_extra: true,
        whole: vec![bytes],
        ..restore::Options::default()
    };
    run_restore(repository, index, planned.recorded.tree, &options, &place, followed)
        .with_context(|| format!("restore the tablespace `{}`", space.name))?;
    if is_new {
        let failed = |error| Error::io(space.to.display(), error);
        let owner = std::fs::metadata(&place).map_err(failed)?;
        std::os::unix::fs::chown(&space.to, Some(owner.uid()), Some(owner.gid())).map_err(failed)?;
        let private = std::fs::Permissions::from_mode(0o700);
        std::fs::set_permissions(&space.to, private).map_err(failed)?;
    }
    Ok(Restored { space, from, place, link })
}

/// Leads the links of a data directory to where its tablespaces are.
pub(super) fn relink(data: &Path, restored: &[Restored<'_>]) -> Result<()> {
    spaces::link(data, restored.iter().map(|restored| (restored.space.oid, restored.link.as_path())))
}

/// After the server has recovered beside its place: its links lead to where its tablespaces will be.
pub(super) fn relink_in_place(data: &Path, restored: &[Restored<'_>]) -> Result<()> {
    for Restored { space, place, .. } in restored {
        if data.join(format!("pg_tblspc/{}", space.oid)).symlink_metadata().is_ok() {
            spaces::lead(data, space.oid, &space.to)?;
        } else {
            // Dropped in the WAL. What was there before makes room, and comes back when the recovery is undone.
            std::fs::create_dir_all(place).map_err(|error| Error::io(place.display(), error))?;
        }
    }
    Ok(())
}

/// How long the question for the newest mark may take.
const MARK_LIMIT: Duration = Duration::from_secs(10);
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
    /// The newest of the agent's marks that came back; `None` without marks.
    pub last_mark: Option<Mark>,
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
        let checks = postgres::check(
            &instance,
            self.facts,
            &database_of(self.described),
            &self.described.checks,
            interrupt,
        )?;
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
        // A table that cannot be read is for the checks to name.
        let last_mark = self.last_mark(&instance).ok().flatten();
        let report = self.report(&instance.replayed()?, replay, last_mark);
        Ok((instance, report))
    }

    fn last_mark(&self, instance: &Instance) -> Result<Option<Mark>> {
        let address = instance.address(&database_of(self.described));
        let timeouts = Timeouts { silence: MARK_LIMIT, ..Timeouts::default() };
        let mut connection = Connection::connect(&address, Mode::Sql, timeouts)?;
        postgres::newest_mark(&mut connection, &self.described.name)
    }

    fn report(&self, replayed: &Replayed, replay: Duration, last_mark: Option<Mark>) -> Report {
        Report {
            goal: self.planned.goal.clone(),
            reached: replayed.reached,
            last_transaction: replayed.last_transaction,
            timeline_before: self.planned.timeline_before(replayed.reached),
            timeline_after: replayed.timeline,
            fetched: replayed.served,
            replay,
            last_mark,
        }
    }
}

/// The database that the user's queries are for.
pub(super) fn database_of(described: &Component) -> String {
    let Source::Postgres { url } = &described.source else { return String::new() };
    // On another machine its secret may be out of reach.
    backup::server_address(url)
        .map_or_else(|_| "postgres".to_owned(), |address| address.database().to_owned())
}

//! Recovery: from a repository and its key back to a running service.
//!
//! ```text
//! plan: manifest of that time ─▶ a snapshot for each component, in tier order ─▶ where each goes
//! apply: restore ─▶ check the copy ─▶ (in place: exchange) ─▶ start ─▶ look from outside
//!                     in place, anything wrong: stop, the previous data are back
//! ```
//! Under another folder, `/srv/app` becomes `FOLDER/srv/app`, for the manifest's directory too, so that relative paths
//! hold. In place, what is live is not touched before the copy beside it has passed its checks. Crashes between the
//! steps: `docs/recover.md`.

mod apply;
mod cache;
mod dump;
pub mod extract;
mod locate;
mod pitr;
mod place;
mod server;

pub use apply::{EXCHANGE, Options, Recovered, RecoveredComponent, apply};
pub(crate) use apply::{STOP_GRACE, run_restore};
pub use pitr::{PlannedRecovery, plan as plan_server};
pub use place::left_beside;
pub use server::{Report, recover_restored};

use crate::backup::{self, MANIFEST_NAME};
use crate::paths;
use crate::postgres;
use jiff::Timestamp;
use place::Unit;
use retoma_core::decide::recovery::{Goal, Target};
use retoma_core::manifest::{self, Component, ComponentKind, Manifest, Origin};
use retoma_core::{Error, ErrorKind, Result, ResultExt, error::codes};
use retoma_repo::format::snapshot::{Snapshot, TAG_MANIFEST};
use retoma_repo::format::tree::NodeKind;
use retoma_repo::index::Index;
use retoma_repo::ops::find::{self, Which};
use retoma_repo::{Repository, SnapshotId};
use retoma_sources::postgres::{self as postgres_source, DumpFacts, PostgresFacts};
use retoma_sources::redis;
use server::Space;
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};

/// Where the data go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// Where they were; what is there now comes back when the recovery fails.
    InPlace,
    /// Below this folder, which stands for `/`. It must be empty, or left by a recovery that was stopped.
    Under(PathBuf),
}

/// What is to be recovered.
#[derive(Debug, Clone)]
pub struct Request<'a> {
    /// Where from; its copies are asked for what it lacks, and for WAL.
    pub repository: &'a Repository,
    /// As of when. Files and embedded databases know times only: the newest snapshot, or the newest not after a time.
    pub goal: Goal,
    /// The snapshot of the one database server that is recovered, by the beginning of its id; chosen when there is none.
    pub snapshot: Option<&'a str>,
    /// Only these components; all when there is none.
    pub only: &'a [String],
    /// Where to.
    pub place: Place,
    /// The manifest, already resolved, with its text; read from the repository when there is none.
    pub manifest: Option<(&'a Manifest, &'a str)>,
}

impl<'a> Request<'a> {
    /// Everything, as new as one repository has it.
    pub fn newest(repository: &'a Repository, place: Place) -> Self {
        let goal = Goal::default();
        Self { repository, goal, snapshot: None, only: &[], place, manifest: None }
    }
}

/// What a recovery will do. A value: a dry run prints it, and [`apply`] does exactly this.
#[derive(Debug)]
pub struct Plan {
    /// The manifest as it will hold at the new place.
    pub manifest: Manifest,
    /// Its text.
    pub manifest_text: String,
    /// The snapshot that it was read from; none when it was given.
    pub manifest_snapshot: Option<SnapshotId>,
    /// Where the data go.
    pub place: Place,
    /// The components, in the order in which they come back.
    pub components: Vec<PlannedComponent>,
    units: Vec<Unit>,
}

/// A component in a plan.
#[derive(Debug)]
pub struct PlannedComponent {
    /// The component as it will be at its place.
    pub component: Component,
    /// The snapshot.
    pub snapshot: SnapshotId,
    /// Its contents.
    pub recorded: Snapshot,
    /// The oldest snapshot, this one or an older one, in which too much had changed at once and that nobody accepted, and its time.
    pub mass_change: Option<(SnapshotId, Timestamp)>,
    /// The path in the snapshot.
    pub from: PathBuf,
    /// Where it goes.
    pub to: PathBuf,
    /// Whether it is a folder.
    pub is_folder: bool,
    /// What was captured of a PostgreSQL server.
    pub server: Option<PostgresFacts>,
    /// Its tablespaces.
    spaces: Vec<Space>,
    /// How that server recovers.
    pub recovery: Option<PlannedRecovery>,
    /// What was captured of a server that was dumped.
    pub dump: Option<DumpFacts>,
    /// The unit that it is exchanged with, by position, and its path in the unit's folder.
    unit: Option<(usize, PathBuf)>,
    /// The log that a Redis server would read instead of what is restored, and its unit.
    log: Option<(cache::Log, Option<(usize, PathBuf)>)>,
}

impl PlannedComponent {
    /// Where the tablespaces of a server go.
    pub(crate) fn spaces(&self) -> impl Iterator<Item = &Path> {
        self.spaces.iter().map(|space| space.to.as_path())
    }

    /// When its backup began.
    pub fn time(&self) -> Timestamp {
        self.recorded.time.0
    }
}

/// Plans a recovery. Reads the repository and looks at the target; changes nothing.
///
/// # Errors
/// `NotFound` with `R0211` when there is no manifest or no complete snapshot of a component; `Invalid` for a manifest
/// with problems, an unknown component or a place that does not fit, and with `R0506` for a goal outside of what can be
/// recovered; `R0423` for one behind missing WAL; what the repositories say.
pub fn plan(request: &Request<'_>) -> Result<Plan> {
    let at = match request.goal.target {
        Target::Time(time) => Some(time),
        _ => None,
    };
    let which = at.map_or(Which::Latest, Which::At);
    let (original, text, manifest_snapshot) = if let Some((manifest, text)) = request.manifest {
        (manifest.clone(), text.to_owned(), None)
    } else {
        let (id, manifest, text) = stored_manifest(request.repository, at)?;
        (manifest, text, Some(id))
    };
    if let Some(unknown) = request.only.iter().find(|name| original.component(name).is_none()) {
        let known: Vec<&str> = original.components.iter().map(|it| it.name.as_str()).collect();
        let message = format!("the manifest has no component `{unknown}`");
        return Err(Error::new(ErrorKind::Invalid, codes::USAGE, message)
            .with_hint(format!("it has {}", known.join(", "))));
    }
    let is_wanted =
        |component: &&Component| request.only.is_empty() || request.only.contains(&component.name);
    let wanted: Vec<&Component> = original.components.iter().filter(is_wanted).collect();
    pitr::check_fits(&request.goal, request.snapshot, &wanted)?;
    for component in wanted.iter().filter(|component| dump::is_dumped(component)) {
        dump::check_goal(&request.goal, &component.name)?;
    }
    let manifest = at_place(&original, &wanted, &request.place)?;
    let mut components = Vec::new();
    let index = request.repository.load_readable_index()?;
    // Damaged ones are no reason to stop here: which snapshot is taken is decided elsewhere.
    let (all, _) = request.repository.readable_snapshots()?;
    for component in manifest.recovery_order().into_iter().filter(is_wanted) {
        let is_dumped = dump::is_dumped(component);
        let (snapshot, recorded, recovery) = if component.kind() == ComponentKind::Postgres && !is_dumped {
            let (id, recovery) = pitr::plan(request, component)?;
            (id, request.repository.snapshot(id)?, Some(recovery))
        } else {
            let (id, recorded) = backup::snapshot_of(request.repository, &component.name, &which)?;
            (id, recorded, None)
        };
        let mut from = PathBuf::from(recorded.paths.first().cloned().unwrap_or_default());
        let mut log = None;
        let dump = dump_facts(request, &index, component, &recorded)?;
        let server = server_facts(request.repository, &index, component, &recorded)?;
        let to = match (component.path(), &server) {
            _ if dump.is_some() => placed(&request.place, &from)?,
            (Some(path), _) => path.to_owned(),
            (None, Some(_)) => placed(&request.place, &from)?,
            (None, None) => {
                let facts = redis_facts(request.repository, &index, component, &recorded)?;
                let (dump, read) = cache::plan(&request.place, component, &facts)?;
                from = PathBuf::from(std::ffi::OsString::from_vec(cache::dump_in(&from)));
                log = read.map(|log| (log, None));
                dump
            }
        };
        let node = find::node(request.repository, &index, &recorded.tree, as_bytes(&from))
            .with_context(|| format!("look for `{}` in snapshot {}", component.name, snapshot.short()))?;
        components.push(PlannedComponent {
            to,
            spaces: server.as_ref().map_or_else(|| Ok(Vec::new()), |facts| spaces(&request.place, facts))?,
            server,
            recovery,
            dump,
            is_folder: node.kind == NodeKind::Directory,
            component: component.clone(),
            snapshot,
            mass_change: find::mass_change(&all, &component.name, recorded.time.0)
                .map(|(id, snapshot)| (*id, snapshot.time.0)),
            recorded,
            from,
            unit: None,
            log,
        });
    }
    let units = if request.place == Place::InPlace { units(&mut components) } else { Vec::new() };
    let place = request.place.clone();
    Ok(Plan { manifest_text: text, manifest_snapshot, place, components, units, manifest })
}

/// What was captured of a PostgreSQL server; it must fit this machine before anything is touched.
fn server_facts(
    repository: &Repository,
    index: &Index,
    component: &Component,
    recorded: &Snapshot,
) -> Result<Option<PostgresFacts>> {
    if component.kind() != ComponentKind::Postgres || dump::is_dumped(component) {
        return Ok(None);
    }
    let doing = || format!("look at what was backed up of `{}`", component.name);
    let facts = postgres_source::facts_of(repository, index, &recorded.tree).with_context(doing)?;
    let facts = facts.ok_or_else(|| {
        let message = format!("the snapshot of `{}` is no backup of a server", component.name);
        Error::new(ErrorKind::Corrupt, codes::CAPTURE_FACTS_MALFORMED, message)
    })?;
    postgres::check_fit(&facts)?;
    Ok(Some(facts))
}

/// What was captured of a server that was dumped; its programs must be here before anything is touched.
fn dump_facts(
    request: &Request<'_>,
    index: &Index,
    component: &Component,
    recorded: &Snapshot,
) -> Result<Option<DumpFacts>> {
    if !dump::is_dumped(component) {
        return Ok(None);
    }
    let name = &component.name;
    if request.place == Place::InPlace {
        let message = format!("`{name}` is backed up by dumps, which are loaded into a new cluster");
        return Err(Error::new(ErrorKind::Unsupported, codes::RESTORE_TARGET, message).with_hint(
            "use `--to DIR`; or `retoma restore`, and `pg_restore` into the server of your choice",
        ));
    }
    let facts = postgres_source::dump_facts_of(request.repository, index, &recorded.tree)
        .with_context(|| format!("look at what was backed up of `{name}`"))?;
    let facts = facts.ok_or_else(|| {
        let message = format!("the snapshot of `{name}` holds no dumps: it was backed up in another way");
        Error::new(ErrorKind::Invalid, codes::CAPTURE_FACTS_MALFORMED, message).with_hint(
            "set `backup` of the component to the way of that time, or name a later time with `--at`",
        )
    })?;
    postgres::check_fit(&facts.as_server(""))?;
    Ok(Some(facts))
}

/// What was captured of a Redis server.
fn redis_facts(
    repository: &Repository,
    index: &Index,
    component: &Component,
    recorded: &Snapshot,
) -> Result<redis::RedisFacts> {
    if component.kind() != ComponentKind::Redis {
        return Err(backup::later(component.kind()));
    }
    let doing = || format!("look at what was backed up of `{}`", component.name);
    let facts = redis::facts_of(repository, index, &recorded.tree).with_context(doing)?;
    facts.ok_or_else(|| {
        let message = format!("the snapshot of `{}` is no backup of a server", component.name);
        Error::new(ErrorKind::Corrupt, codes::CAPTURE_FACTS_MALFORMED, message)
    })
}

/// Where the tablespaces of a server go.
fn spaces(place: &Place, facts: &PostgresFacts) -> Result<Vec<Space>> {
    let version = facts.version_folder();
    let space = |space: &postgres_source::Tablespace| {
        let original = PathBuf::from(&space.location);
        let to = placed(place, &original)?;
        Ok(Space {
            oid: space.oid,
            name: space.name.clone(),
            version: version.clone(),
            original,
            to,
            unit: None,
        })
    };
    facts.tablespaces.iter().map(space).collect()
}

/// The manifest as it will hold at the place; as [`placed`] for the paths in it.
fn at_place(original: &Manifest, wanted: &[&Component], place: &Place) -> Result<Manifest> {
    let Place::Under(root) = place else { return Ok(original.clone()) };
    let of_data = wanted.iter().filter_map(|component| component.path());
    for path in of_data.chain([original.dir()]) {
        placed(place, path)?;
    }
    Ok(original.below(&paths::absolute(root)?))
}

/// Where a path of the original machine goes.
///
/// # Errors
/// `R0502` for one with more steps up than down, which would lead out of the folder that stands for `/`.
fn placed(place: &Place, original: &Path) -> Result<PathBuf> {
    let Place::Under(root) = place else { return Ok(original.to_owned()) };
    let mut depth = 0_usize;
    for part in original.components() {
        depth = match part {
            std::path::Component::Normal(_) => depth + 1,
            std::path::Component::ParentDir => depth.checked_sub(1).ok_or_else(|| leads_out(original))?,
            _ => depth,
        };
    }
    Ok(paths::absolute(root)?.join(original.strip_prefix("/").unwrap_or(original)))
}

fn leads_out(original: &Path) -> Error {
    let message = format!("`{}` leads out of the folder that stands for `/`", original.display());
    Error::new(ErrorKind::Invalid, codes::RESTORE_TARGET, message)
        .with_hint("write the path in the manifest without `..`, back it up again, or recover in place")
}

/// What lies in another component's folder is exchanged together with that.
fn units(components: &mut [PlannedComponent]) -> Vec<Unit> {
    let mut order: Vec<usize> = (0..components.len()).collect();
    order.sort_by_key(|at| components[*at].to.components().count());
    let mut units: Vec<Unit> = Vec::new();
    for at in order {
        let planned = &mut components[at];
        let is_database = planned.component.kind() == manifest::ComponentKind::Sqlite;
        let snapshot = planned.snapshot.short();
        let unit = |live: &Path, is_folder| Unit {
            live: live.to_owned(),
            is_folder,
            snapshot: snapshot.clone(),
            is_database,
            held: Vec::new(),
        };
        planned.unit = Some(join(&mut units, unit(&planned.to, planned.is_folder)));
        if let Some((log, of_log)) = &mut planned.log {
            *of_log = Some(join(&mut units, unit(log.path(), log.is_folder())));
        }
    }
    // Behind all components: one of them may hold them.
    for planned in components.iter_mut().filter(|planned| !planned.spaces.is_empty()) {
        for space in &mut planned.spaces {
            let unit = Unit {
                live: space.to.join(&space.version),
                is_folder: false,
                snapshot: planned.snapshot.short(),
                is_database: false,
                held: Vec::new(),
            };
            space.unit = Some(join(&mut units, unit));
        }
        if let Some((at, below)) = &planned.unit {
            units[*at].held.push(below.join("global/pg_control"));
        }
    }
    units
}

/// The unit that `wanted` is in, and its path there: one that holds it, or itself.
fn join(units: &mut Vec<Unit>, wanted: Unit) -> (usize, PathBuf) {
    let outer = units.iter().position(|unit| unit.is_folder && wanted.live.starts_with(&unit.live));
    let live = wanted.live.clone();
    let at = outer.unwrap_or_else(|| {
        units.push(wanted);
        units.len() - 1
    });
    let below = live.strip_prefix(&units[at].live).unwrap_or(Path::new("")).to_owned();
    (at, below)
}

/// The manifest in the repository: the newest, or the newest not after a time.
///
/// # Errors
/// `NotFound` with `R0211`; `Invalid` with `R0101` when this version does not understand it.
pub fn stored_manifest(
    repository: &Repository,
    at: Option<Timestamp>,
) -> Result<(SnapshotId, Manifest, String)> {
    let in_time = |snapshot: &Snapshot| at.is_none_or(|at| snapshot.time.0 <= at);
    let all = repository.snapshots()?;
    let fits = |(_, snapshot): &&(SnapshotId, Snapshot)| snapshot.has_tag(TAG_MANIFEST) && in_time(snapshot);
    let Some((id, snapshot)) = all.iter().rev().find(fits) else {
        return Err(no_manifest(at));
    };
    let text = backup::read_manifest(repository, snapshot)
        .with_context(|| format!("read the manifest in snapshot {}", id.short()))?;
    let place = PathBuf::from(snapshot.paths.first().cloned().unwrap_or_default());
    let dir = place.parent().unwrap_or(Path::new("/")).to_owned();
    let origin = Origin { file_name: format!("{MANIFEST_NAME} of snapshot {}", id.short()), dir };
    let manifest = manifest::parse(&text, &origin).map_err(|problems| {
        let first = problems.first().map(|problem| problem.message.clone()).unwrap_or_default();
        let message = format!("the manifest in snapshot {} has problems: {first}", id.short());
        Error::new(ErrorKind::Invalid, codes::MANIFEST_INVALID, message)
            .with_hint("use the version of the program that wrote it, or name an older one with `--at`")
    })?;
    Ok((*id, manifest, text))
}

/// There is nothing that says what the service is made of.
pub fn no_manifest(at: Option<Timestamp>) -> Error {
    let when = at.map_or_else(String::new, |at| format!(" at or before `{at}`"));
    let message = format!("the repository holds no manifest{when}");
    Error::new(ErrorKind::NotFound, codes::SNAPSHOT_NOT_FOUND, message).with_hint(
        "single snapshots can be restored with `retoma restore`; `retoma backup` stores the manifest too",
    )
}

fn as_bytes(path: &Path) -> &[u8] {
    std::os::unix::ffi::OsStrExt::as_bytes(path.as_os_str())
}

#[cfg(test)]
mod tests;

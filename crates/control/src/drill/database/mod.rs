//! Drills of a PostgreSQL server: on a scratch copy that takes writes and ships its WAL, which is then broken and recovered.
//!
//! ```text
//! newest snapshot + WAL ─▶ scratch folder ─▶ server on a private socket, under load, shipping into a copy of the repository
//! run: marks ─▶ backup, twice ─▶ disaster ─▶ detect ─▶ decide ─▶ recover ─▶ start ─▶ first write ─▶ count ─▶ controls
//! ```
//! The service itself is not started: nothing tells it to use the copy instead of the live server.

mod controls;
mod run;
mod shipping;
mod tables;

use super::patient::{ScratchRepository, address_of, is_a_result, recover_below};
use super::steps::{head, within_limit};
use super::{Context, Scenario, report};
use crate::backup;
use crate::postgres::SOCKETS;
use crate::watch::Note;
use retoma_core::drill::{DrillReport, Failure};
use retoma_core::manifest::{self, BackupWay, Component, ComponentKind, Manifest, ServerUrl, Source};
use retoma_core::{Error, ErrorKind, Result, Secret, error::codes};
use retoma_repo::Repository;
use retoma_sources::ScratchFolder;
use retoma_sources::postgres::PostgresFacts;
use retoma_sources::postgres::wire::Address;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// The port that names the sockets of our servers.
const PORT: u16 = 5432;

/// A scratch copy of a server.
#[derive(Debug)]
struct Scene {
    /// With this server as the only component, at the drill's own address, and the drill's repository.
    manifest: Manifest,
    text: String,
    repository_dir: PathBuf,
    password: Secret<String>,
    /// All that may be destroyed lies below it; without links.
    scratch: PathBuf,
    /// The data directory in it.
    data: PathBuf,
    /// The tablespaces in it.
    spaces: Vec<PathBuf>,
    /// Of the snapshot that it came from.
    facts: PostgresFacts,
    /// The socket.
    sockets: ScratchFolder,
    _folder: TempDir,
}

impl Scene {
    fn component(&self) -> Result<&Component> {
        self.manifest.components.first().ok_or_else(|| Error::internal("a drill has no component"))
    }

    /// Where the scratch server is, with the database that the manifest names.
    fn address(&self) -> Result<Address> {
        match &self.component()?.source {
            Source::Postgres { url } => backup::server_address(url),
            _ => Err(Error::internal("a drill of a server has none")),
        }
    }
}

/// A drill of the one PostgreSQL server among `only`, or among all components.
///
/// # Errors
/// Nothing was begun: `R0713` when there is not exactly one server, or the repository is none in a folder; `R0711`, `R0211`; the
/// repository cannot be opened. `Cancelled` at any time.
pub(super) fn drill(
    manifest: &Manifest,
    manifest_text: &str,
    described: &manifest::Repository,
    only: &[String],
    scenario: Scenario,
    context: &Context<'_>,
) -> Result<DrillReport> {
    let component = chosen(manifest, only, scenario)?;
    let ScratchRepository { folder, dir: repository_dir, password, repository } =
        ScratchRepository::copy(manifest, described, context)?;
    let mut scratch_manifest = alone(manifest, component);
    let head = head(&scratch_manifest, scenario, &repository, context);
    let mut facts = report::Facts::default();
    let failure = {
        let facts = &mut facts;
        let scratch_manifest = &mut scratch_manifest;
        let id = head.drill.clone();
        let ended = within_limit(manifest, context, move |context| {
            context.watch.note(&Note::Doing("restore the newest snapshot into a scratch folder".to_owned()));
            let found = restore(scratch_manifest, manifest_text, &repository, folder.path(), context)?;
            let scene = Scene {
                manifest: scratch_manifest.clone(),
                text: manifest_text.to_owned(),
                repository_dir,
                password,
                scratch: found.scratch,
                data: found.data,
                spaces: found.spaces,
                facts: found.facts,
                sockets: ScratchFolder::new(SOCKETS)?,
                _folder: folder,
            };
            let scene = at_its_address(scene, described)?;
            *scratch_manifest = scene.manifest.clone();
            run::Drill::new(&scene, scenario, context, &id)?.run(repository, facts)
        });
        match ended {
            Ok(()) => None,
            Err(error) if is_a_result(&error) => Some(Failure::from(&error)),
            Err(error) => return Err(error),
        }
    };
    facts.not_proven.push(
        "That the service works with the recovered server: it was not started, since it would have used the live one."
            .to_owned(),
    );
    report::assemble(&scratch_manifest, head, facts, failure)
}

/// The server that is drilled.
fn chosen<'m>(manifest: &'m Manifest, only: &[String], scenario: Scenario) -> Result<&'m Component> {
    let is_meant = |component: &&Component| only.is_empty() || only.contains(&component.name);
    let all: Vec<&Component> = manifest.components.iter().filter(is_meant).collect();
    let servers: Vec<&&Component> =
        all.iter().filter(|component| component.kind() == ComponentKind::Postgres).collect();
    let others_named = !only.is_empty() && servers.len() != all.len();
    match servers[..] {
        [one] if !others_named && one.backup == BackupWay::Logical => {
            let message =
                format!("`{}` is backed up by dumps, and `{scenario}` breaks a server's files", one.name);
            Err(Error::new(ErrorKind::Unsupported, codes::DRILL_UNSUITED, message).with_hint(
                "`retoma recover --only NAME --to DIR` loads the dumps into a new server and checks it",
            ))
        }
        [one] if !others_named => Ok(one),
        _ => {
            let message =
                format!("`{scenario}` breaks one PostgreSQL server, and {} are meant", servers.len());
            Err(Error::new(ErrorKind::Unsupported, codes::DRILL_UNSUITED, message)
                .with_hint("name one component of kind `postgres` with `--component NAME`"))
        }
    }
}

/// The manifest with this component alone, and without the service: that would use what is live.
fn alone(manifest: &Manifest, component: &Component) -> Manifest {
    let mut alone = manifest.clone();
    alone.components = vec![component.clone()];
    alone.service.start = None;
    alone.service.stop = None;
    alone.service.health = None;
    alone.service.checks.clear();
    alone.drill.markers = None;
    alone
}

struct Found {
    scratch: PathBuf,
    data: PathBuf,
    spaces: Vec<PathBuf>,
    facts: PostgresFacts,
}

/// Restores and checks the server below `folder`, as it is in the repository now, with all WAL that is there.
fn restore(
    manifest: &Manifest,
    text: &str,
    repository: &Repository,
    folder: &Path,
    context: &Context<'_>,
) -> Result<Found> {
    let scratch = std::fs::canonicalize(folder).map_err(|error| Error::io(folder.display(), error))?;
    // The database's user has to pass, and need not look around.
    let passable = std::fs::Permissions::from_mode(0o711);
    std::fs::set_permissions(&scratch, passable).map_err(|error| Error::io(scratch.display(), error))?;
    let plan = recover_below(&scratch, (manifest, text), repository, context)?;
    let planned = plan.components.into_iter().next();
    let (data, spaces, facts) = planned
        .and_then(|planned| {
            let spaces = planned.spaces().map(Path::to_owned).collect();
            Some((planned.to, spaces, planned.server?))
        })
        .ok_or_else(|| Error::internal("a server was restored and is not there"))?;
    Ok(Found { scratch, data, spaces, facts })
}

/// Leads the manifest to the scratch server and to the drill's repository.
fn at_its_address(mut scene: Scene, described: &manifest::Repository) -> Result<Scene> {
    let database = scene.address().map_or_else(|_| "postgres".to_owned(), |it| it.database().to_owned());
    let superuser = &scene.facts.server.superuser;
    let address = Address::on_socket(scene.sockets.path(), PORT, superuser, &database);
    let url = ServerUrl::Literal(address.to_string());
    let repository = manifest::Repository { url: address_of(&scene.repository_dir)?, ..described.clone() };
    for component in &mut scene.manifest.components {
        component.source = Source::Postgres { url: url.clone() };
        component.repositories = vec![repository.name.clone()];
    }
    scene.manifest.repositories = vec![repository];
    Ok(scene)
}

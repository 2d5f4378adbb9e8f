//! The scratch copy that a drill breaks.

use super::copy::copy_repository;
use super::fetch::fetch_repository;
use super::several::{self, Several};
use super::{Context, Scenario, live, port, report, steps};
use crate::check;
use crate::open::{self, open_address};
use crate::recover::{self, Place, Plan, Request};
use crate::timeline::Timeline;
use crate::watch::Note;
use retoma_core::drill::{DrillReport, Failure, StepName};
use retoma_core::manifest::{self, ComponentKind, Manifest};
use retoma_core::{Error, ErrorKind, Result, ResultExt, Secret, error::codes};
use retoma_repo::Repository;
use retoma_repo::store::Address;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A service in a scratch place, with a repository of its own.
#[derive(Debug)]
pub struct Patient {
    /// The manifest as it holds in the scratch place.
    pub manifest: Manifest,
    /// Its text, as stored.
    pub manifest_text: String,
    /// Whether a recovery reads the manifest from the repository, as a blank machine does. Otherwise it is told: a
    /// copy's manifest names other paths than the stored one.
    pub manifest_is_stored: bool,
    /// Whether `manifest` has only some of the service's components; the others lie beside them and stay.
    pub is_part: bool,
    /// The folder of the repository that the drill backs up into and recovers from.
    pub repository_dir: PathBuf,
    /// Opens it.
    pub password: Secret<String>,
    /// All repositories of the manifest, where the scenario loses some of them.
    pub several: Option<Several>,
    /// The drill's own folder: all that it may destroy lies below it.
    pub scratch: PathBuf,
    /// The folder in it that stands for `/`; none where the service's paths are its own, as in a demo.
    pub root: Option<PathBuf>,
    /// Removes the folder when dropped; none where the caller does.
    pub folder: Option<TempDir>,
}

/// A drill that breaks nothing of a database server, and counts none of its rows, would prove nothing about it.
fn refuse_servers(manifest: &Manifest) -> Result<()> {
    let is_server = |kind| matches!(kind, ComponentKind::Postgres | ComponentKind::Redis);
    let Some(server) = manifest.components.iter().find(|component| is_server(component.kind())) else {
        return Ok(());
    };
    let message =
        format!("drills of a service with components of kind `{}` come with a later version", server.kind());
    Err(Error::new(ErrorKind::Unsupported, codes::DRILL_UNSUITED, message).with_hint(
        "a PostgreSQL server has scenarios of its own: database-failure, drop-table, wal-gap, bad-page; \
             `retoma recover --to DIR` restores and checks any component",
    ))
}

fn whole_machine(scenario: Scenario) -> Error {
    let message =
        format!("`{scenario}` loses the whole machine, so it is not drilled for some components alone");
    Error::new(ErrorKind::Invalid, codes::DRILL_UNSUITED, message)
        .with_hint("leave `--component` away, or choose `application-failure` or `lost-repository`")
}

/// A drill of a copy of a service, from the newest snapshots in `described` to the result. With `only`, just these
/// components are broken and brought back. A backup that can't be restored makes the result red, as everything does that
/// goes wrong once the drill has begun.
///
/// # Errors
/// Nothing was begun: `R0711` when the scratch folder or the port is live; `R0713` when the service cannot be drilled;
/// `R0211` without a snapshot of each component; the repository cannot be opened. `Cancelled` at any time.
pub fn drill(
    manifest: &Manifest,
    manifest_text: &str,
    described: &manifest::Repository,
    only: &[String],
    scenario: Scenario,
    context: &Context<'_>,
) -> Result<DrillReport> {
    if scenario.is_of_server() {
        return super::database::drill(manifest, manifest_text, described, only, scenario, context);
    }
    let losses = several::lost(manifest, &described.name, scenario)?;
    if scenario.loses_machine() && !only.is_empty() {
        return Err(whole_machine(scenario));
    }
    let copy = ScratchCopy::make(manifest, described, only, context)?;
    let scratch_manifest = copy.manifest.clone();
    let head = steps::head(&scratch_manifest, scenario, &copy.repository, context);
    let first = (described.name.as_str(), copy.repository_dir.as_path(), &copy.password);
    let several = losses
        .map(|losses| Several::copy(manifest, &losses, first, copy.folder.path(), context))
        .transpose()?;
    match copy.restore(manifest, manifest_text, context) {
        Ok(patient) => super::run(&Patient { several, ..patient }, scenario, context),
        Err(error) if is_a_result(&error) => {
            let failure = Some(Failure::from(&error));
            report::assemble(&scratch_manifest, head, report::Facts::default(), failure)
        }
        Err(error) => Err(error),
    }
}

/// Whether an error on the way to a patient tells something about the backups, and not about what was asked for.
pub(super) fn is_a_result(error: &Error) -> bool {
    let asked = [codes::SNAPSHOT_NOT_FOUND, codes::TARGET_IS_LIVE, codes::DRILL_UNSUITED];
    error.kind() != ErrorKind::Cancelled && !asked.contains(&error.code())
}

/// Restores the newest snapshots of a manifest's components from `described` into a scratch folder, and gives that copy
/// for a drill. With `only`, just these components are broken and brought back.
///
/// # Errors
/// See [`drill`]; what the recovery says: a backup that can't be restored ends the drill here.
pub fn prepare(
    manifest: &Manifest,
    manifest_text: &str,
    described: &manifest::Repository,
    only: &[String],
    context: &Context<'_>,
) -> Result<Patient> {
    ScratchCopy::make(manifest, described, only, context)?.restore(manifest, manifest_text, context)
}

/// Copies what `described` names into the new folder `dir`, and gives the password that opens it. One that lies elsewhere is
/// fetched.
///
/// # Errors
/// `R0713` for a repository in memory; its password cannot be had; what reading it says; `Cancelled`.
pub(super) fn copy_into(
    described: &manifest::Repository,
    dir: &Path,
    context: &Context<'_>,
) -> Result<Secret<String>> {
    let password = open::password(described)?;
    match open::address(described)? {
        Address::Local(real_dir) => copy_repository(&real_dir, dir),
        Address::Memory => {
            let message = format!("repository `{}` is in the memory of another process", described.name);
            Err(Error::new(ErrorKind::Unsupported, codes::DRILL_UNSUITED, message))
        }
        elsewhere @ Address::Remote(_) => {
            context.watch.note(&Note::Doing("fetch the repository into a scratch folder".to_owned()));
            open::open_store(&elsewhere).and_then(|store| fetch_repository(&store, dir, context.interrupt))
        }
    }?;
    Ok(password)
}

/// A copy of a repository, in a folder that is removed with it.
pub(super) struct ScratchRepository {
    pub(super) folder: TempDir,
    /// Where in it the copy is.
    pub(super) dir: PathBuf,
    pub(super) password: Secret<String>,
    pub(super) repository: Repository,
}

impl ScratchRepository {
    /// Copies what `described` names, for a drill of `manifest`'s components. One that lies elsewhere is fetched.
    ///
    /// # Errors
    /// `R0713` for a repository in memory; a live folder; what reading and opening it says; `Cancelled`.
    pub(super) fn copy(
        manifest: &Manifest,
        described: &manifest::Repository,
        context: &Context<'_>,
    ) -> Result<Self> {
        let folder = scratch_folder(manifest)?;
        live::refuse_live(folder.path(), manifest)?;
        let dir = folder.path().join("repository");
        let password = copy_into(described, &dir, context).context("copy the repository for the drill")?;
        let repository = open_address(&address_of(&dir)?, &password, false)?.repository;
        Ok(Self { folder, dir, password, repository })
    }
}

/// A scratch folder with a copy of the repository, and nothing restored yet.
struct ScratchCopy {
    folder: TempDir,
    repository_dir: PathBuf,
    repository: Repository,
    password: Secret<String>,
    /// As it will hold in the folder, with the components of the drill.
    manifest: Manifest,
}

impl ScratchCopy {
    fn make(
        manifest: &Manifest,
        described: &manifest::Repository,
        only: &[String],
        context: &Context<'_>,
    ) -> Result<Self> {
        refuse_servers(manifest)?;
        live::refuse_live_arguments(manifest)?;
        let ScratchRepository { folder, dir: repository_dir, password, repository } =
            ScratchRepository::copy(manifest, described, context)?;
        context.watch.note(&Note::Doing("restore the newest snapshots into a scratch folder".to_owned()));
        let mut scratch_manifest = manifest.below(&folder.path().join("root"));
        if !only.is_empty() {
            scratch_manifest.components.retain(|component| only.contains(&component.name));
        }
        Ok(Self { folder, repository_dir, repository, password, manifest: scratch_manifest })
    }

    /// Restores `manifest`'s components, of the live service, below the folder.
    fn restore(self, manifest: &Manifest, manifest_text: &str, context: &Context<'_>) -> Result<Patient> {
        // The service needs all of them, also when only some are broken.
        recover_below(self.folder.path(), (manifest, manifest_text), &self.repository, context)?;
        let mut scratch_manifest = self.manifest;
        port::move_service(&mut scratch_manifest, port::free()?);
        let health = scratch_manifest.service.health.as_ref();
        if let Some(url) = health.filter(|_| manifest.service.start.is_some()) {
            live::refuse_answering(url)?;
        }
        Ok(Patient {
            is_part: scratch_manifest.components.len() < manifest.components.len(),
            manifest: scratch_manifest,
            manifest_text: manifest_text.to_owned(),
            manifest_is_stored: false,
            repository_dir: self.repository_dir,
            password: self.password,
            several: None,
            scratch: self.folder.path().to_owned(),
            root: Some(self.folder.path().join("root")),
            folder: Some(self.folder),
        })
    }
}

/// Recovers a manifest's components, given with its text, into `root` in a drill's folder, and wants every check to pass. Nothing
/// is started. Gives what was planned.
pub(super) fn recover_below(
    folder: &Path,
    manifest: (&Manifest, &str),
    repository: &Repository,
    context: &Context<'_>,
) -> Result<Plan> {
    let place = Place::Under(folder.join("root"));
    let request = Request { manifest: Some(manifest), ..Request::newest(repository, place) };
    let plan = recover::plan(&request)?;
    let log = folder.join("service.log");
    let options = recover::Options {
        supervisor: context.supervisor,
        starts_service: false,
        log: &log,
        keep_previous: false,
        runs_stop: false,
    };
    let mut timeline = Timeline::start(context.clock, StepName::Decide);
    let recovered =
        recover::apply(&plan, repository, &options, &mut timeline, context.watch, context.interrupt)?;
    for component in &recovered.components {
        check::require_all(&component.component, &component.checked.checks)?;
    }
    Ok(plan)
}

pub(super) fn scratch_folder(manifest: &Manifest) -> Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("retoma-drill-");
    let made = match &manifest.drill.scratch_dir {
        Some(dir) => {
            live::refuse_live(&dir.join("retoma-drill"), manifest)?;
            std::fs::create_dir_all(dir).map_err(|error| Error::io(dir.display(), error))?;
            builder.tempdir_in(dir)
        }
        None => builder.tempdir(),
    };
    made.map_err(|error| Error::io("the drill's folder", error))
}

/// A folder as a repository's address.
pub(crate) fn address_of(dir: &Path) -> Result<String> {
    let url = url::Url::from_file_path(dir)
        .map_err(|()| Error::internal(format!("`{}` is no absolute path", dir.display())))?;
    Ok(url.to_string())
}

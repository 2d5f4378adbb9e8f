//! What breaks in each scenario. Everything here destroys, and only below the drill's own scratch folder.

use super::Patient;
use super::ransom::encrypt;
use super::several::Several;
use crate::service::Service;
use retoma_core::decide::losses::Extent;
use retoma_core::manifest::{Manifest, Source};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use std::fmt;
use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

/// What breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scenario {
    /// The process is killed and its folder is lost.
    ApplicationFailure,
    /// The largest table is dropped and the largest file of each folder is deleted, while the service runs.
    Deletion,
    /// Bytes are flipped in the live data, while the service runs.
    Corruption,
    /// As an application failure, and the key in use is lost too; another one opens the repository.
    LostKey,
    /// As an application failure, and the key was replaced before; the new one opens the repository, the old one does not.
    NewKey,
    /// As an application failure, and a repository is lost too; another one serves.
    LostRepository,
    /// The whole machine is lost, and a repository with all that lie where it does or on this host.
    LostRegion,
    /// The whole machine is lost, with the manifest.
    InfrastructureFailure,
    /// All data are encrypted in place, backed up like that, and the repository is attacked.
    Ransomware,
    /// A PostgreSQL server is killed under load, and its data directory is lost.
    DatabaseFailure,
    /// The largest table of a PostgreSQL server is dropped; it comes back as it was just before.
    DropTable,
    /// As a database failure, and a segment of WAL in the middle is missing.
    WalGap,
    /// A page of the largest table goes bad on disk.
    BadPage,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 13] = [
        Self::ApplicationFailure,
        Self::Deletion,
        Self::Corruption,
        Self::LostKey,
        Self::NewKey,
        Self::LostRepository,
        Self::LostRegion,
        Self::InfrastructureFailure,
        Self::Ransomware,
        Self::DatabaseFailure,
        Self::DropTable,
        Self::WalGap,
        Self::BadPage,
    ];

    /// Whether a PostgreSQL server is broken, and nothing else.
    pub fn is_of_server(self) -> bool {
        matches!(self, Self::DatabaseFailure | Self::DropTable | Self::WalGap | Self::BadPage)
    }

    /// How far it reaches into the repositories, where it loses some.
    pub fn extent(self) -> Option<Extent> {
        match self {
            Self::LostRepository => Some(Extent::Repository),
            Self::LostRegion => Some(Extent::Region),
            _ => None,
        }
    }

    /// Whether everything on this host is lost, so that a blank machine is what recovers.
    pub fn loses_machine(self) -> bool {
        matches!(self, Self::InfrastructureFailure | Self::LostRegion)
    }

    /// What breaks, in a few words.
    pub fn about(self) -> &'static str {
        match self {
            Self::ApplicationFailure => "the service and its folder",
            Self::Deletion => "the largest table and files, under the running service",
            Self::Corruption => "bytes all over the data, under the running service",
            Self::LostKey => "the service, and the key in use",
            Self::NewKey => "the service, after its key was replaced",
            Self::LostRepository => "the service, and the first repository",
            Self::LostRegion => "the whole machine, and every repository where the first one lies",
            Self::InfrastructureFailure => "the whole machine, with the manifest",
            Self::Ransomware => "all data, encrypted in place, and what is backed up after that",
            Self::DatabaseFailure => "a PostgreSQL server and its data directory",
            Self::DropTable => "the largest table of a PostgreSQL server",
            Self::WalGap => "a PostgreSQL server, and a segment of its WAL",
            Self::BadPage => "a page of a PostgreSQL server's largest table",
        }
    }

    /// The name on the command line and in results.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::ApplicationFailure => "application-failure",
            Self::Deletion => "deletion",
            Self::Corruption => "corruption",
            Self::LostKey => "lost-key",
            Self::NewKey => "new-key",
            Self::LostRepository => "lost-repository",
            Self::LostRegion => "lost-region",
            Self::InfrastructureFailure => "infrastructure-failure",
            Self::Ransomware => "ransomware",
            Self::DatabaseFailure => "database-failure",
            Self::DropTable => "drop-table",
            Self::WalGap => "wal-gap",
            Self::BadPage => "bad-page",
        }
    }

    /// The scenario of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scenario| scenario.as_str() == name)
    }
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Lets the disaster happen to the patient, all of which lies below its scratch folder. Gives what was done, and the service if it still runs.
///
/// # Errors
/// `R0711` for anything that does not lie there; nothing was destroyed then.
pub(super) fn strike(
    scenario: Scenario,
    patient: &Patient,
    service: Option<Service>,
) -> Result<(String, Option<Service>)> {
    let (manifest, scratch) = (&patient.manifest, &patient.scratch);
    let lost_repositories = patient.several.iter().flat_map(Several::lost_dirs);
    let paths = manifest.components.iter().filter_map(|component| component.path());
    for path in paths.chain([manifest.dir()]).chain(patient.root.as_deref()).chain(lost_repositories) {
        require_below(path, scratch)?;
    }
    let what = match scenario {
        Scenario::ApplicationFailure | Scenario::NewKey => "folder lost",
        Scenario::LostKey => "folder lost, the key in use lost",
        Scenario::LostRepository => "folder and repository lost",
        Scenario::LostRegion => "machine lost, and every repository of the region",
        Scenario::InfrastructureFailure => "machine lost",
        Scenario::Deletion => {
            return each_component(manifest, service, drop_table, |path| {
                std::fs::remove_file(path).map_err(|error| Error::io(path.display(), error))
            });
        }
        Scenario::Corruption => return each_component(manifest, service, flip_bytes, flip_bytes),
        Scenario::Ransomware => {
            for path in component_paths(patient) {
                encrypt(&path)?;
            }
            return Ok(("every file encrypted under the running service".to_owned(), service));
        }
        Scenario::DatabaseFailure | Scenario::DropTable | Scenario::WalGap | Scenario::BadPage => {
            return Err(Error::internal("a server's scenario for what is no server"));
        }
    };
    if let Some(service) = service {
        service.kill()?;
    }
    let root = patient.root.clone().filter(|_| scenario.loses_machine());
    let repositories = patient.several.iter().flat_map(Several::lost_dirs).map(Path::to_owned);
    for path in lost_paths(patient).into_iter().chain(root).chain(repositories) {
        remove(&path)?;
    }
    Ok((format!("process killed, {what}"), None))
}

/// A file that is asked for its real place must lie below the scratch folder's real place.
fn require_below(path: &Path, scratch: &Path) -> Result<()> {
    let real = |path: &Path| std::fs::canonicalize(path).map_err(|error| Error::io(path.display(), error));
    let (path, scratch) = (real(path)?, real(scratch)?);
    if path.starts_with(&scratch) && path != scratch {
        return Ok(());
    }
    let message = format!("`{}` does not lie in the drill's own folder", path.display());
    Err(Error::new(ErrorKind::Conflict, codes::TARGET_IS_LIVE, message).with_hint(
        "a drill destroys nothing but its own scratch copy; this is a bug in Retoma, please report it",
    ))
}

/// The manifest's folder (unless only a part of the service is drilled), and each component with what SQLite keeps
/// beside it.
fn lost_paths(patient: &Patient) -> Vec<PathBuf> {
    let whole = (!patient.is_part).then(|| patient.manifest.dir().to_owned());
    whole.into_iter().chain(component_paths(patient)).collect()
}

/// Each component with what SQLite keeps beside it.
fn component_paths(patient: &Patient) -> Vec<PathBuf> {
    let mut paths = Vec::new();
    for component in &patient.manifest.components {
        let Some(path) = component.path() else { continue };
        for suffix in ["", "-wal", "-shm", "-journal"] {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            paths.push(name.into());
        }
    }
    paths
}

fn remove(path: &Path) -> Result<()> {
    let removed = match std::fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => std::fs::remove_dir_all(path),
        Ok(_) => std::fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io(path.display(), error)),
        _ => Ok(()),
    }
}

fn each_component(
    manifest: &Manifest,
    service: Option<Service>,
    database: impl Fn(&Path) -> Result<()>,
    file: impl Fn(&Path) -> Result<()>,
) -> Result<(String, Option<Service>)> {
    let mut hit = Vec::new();
    for component in &manifest.components {
        match &component.source {
            Source::Sqlite { path, .. } => database(path)?,
            Source::Files { path, .. } => match largest_file(path) {
                Some(largest) => file(&largest)?,
                None => continue,
            },
            Source::Postgres { .. } | Source::Redis { .. } => continue,
        }
        hit.push(component.name.as_str());
    }
    let what = if hit.is_empty() { "nothing".to_owned() } else { format!("data of {}", hit.join(", ")) };
    Ok((format!("{what} spoilt under the running service"), service))
}

fn largest_file(root: &Path) -> Option<PathBuf> {
    let mut largest: Option<(u64, PathBuf)> = None;
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            waiting
                .extend(std::fs::read_dir(&path).into_iter().flatten().flatten().map(|entry| entry.path()));
        } else if metadata.is_file() && largest.as_ref().is_none_or(|(bytes, _)| metadata.len() > *bytes) {
            largest = Some((metadata.len(), path));
        }
    }
    largest.map(|(_, path)| path)
}

/// Drops the table with the most rows, as a wrong migration would.
fn drop_table(path: &Path) -> Result<()> {
    let drop_it = || -> rusqlite::Result<()> {
        let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE | rusqlite::OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = rusqlite::Connection::open_with_flags(path, flags)?;
        connection.busy_timeout(std::time::Duration::from_secs(10))?;
        let mut statement = connection.prepare(
            "SELECT name FROM pragma_table_list WHERE schema = 'main' AND type = 'table' \
             AND name NOT LIKE 'sqlite\\_%' ESCAPE '\\' AND name <> 'retoma_markers'",
        )?;
        let names: Vec<String> =
            statement.query_map((), |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        let quoted = |name: &str| format!("main.\"{}\"", name.replace('"', "\"\""));
        let mut most = (-1, None);
        for name in &names {
            let query = format!("SELECT count(*) FROM {}", quoted(name));
            let rows = connection.query_row(&query, (), |row| row.get::<_, i64>(0))?;
            if rows > most.0 {
                most = (rows, Some(name));
            }
        }
        match most.1 {
            Some(name) => {
                connection.execute_batch(&format!("PRAGMA foreign_keys = OFF; DROP TABLE {}", quoted(name)))
            }
            None => Ok(()),
        }
    };
    drop_it().map_err(|error| {
        let message = format!("`{}`: {error}", path.display());
        Error::new(ErrorKind::Unavailable, codes::DRILL_UNSUITED, message).with_source(error)
    })
}

/// Flips bytes all over a file, the first ones too, as a dying disk or an attacker would.
fn flip_bytes(path: &Path) -> Result<()> {
    const STEP_BYTES: u64 = 64 * 1024;
    const SPAN_BYTES: usize = 16;
    let flip = || {
        let mut file = std::fs::File::options().read(true).write(true).open(path)?;
        let bytes = file.metadata()?.len();
        let mut at = 0;
        while at < bytes {
            let mut span = vec![0; SPAN_BYTES.min(usize::try_from(bytes - at).unwrap_or(SPAN_BYTES))];
            file.seek(SeekFrom::Start(at))?;
            file.read_exact(&mut span)?;
            for byte in &mut span {
                *byte ^= 0xff;
            }
            file.seek(SeekFrom::Start(at))?;
            file.write_all(&span)?;
            at += STEP_BYTES;
        }
        file.sync_all()
    };
    flip().map_err(|error| Error::io(path.display(), error))
}

#[cfg(test)]
mod tests;

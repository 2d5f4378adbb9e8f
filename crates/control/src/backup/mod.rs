//! Backs components and the manifest up, each into a snapshot that says what it is.
//!
//! What holds: a database that lost all rows of a table since its last good snapshot gives no snapshot. The manifest is
//! a snapshot too, so that a blank machine needs the repository and its password alone.

mod memory;
mod set;

pub use memory::MANIFEST_NAME;
pub use set::{Point, RecoverySet};

use crate::open;
use jiff::Timestamp;
use memory::MemorySource;
use retoma_core::decide::redis::{Doubt, Observed, Promise};
use retoma_core::manifest::{BackupWay, Component, ComponentKind, Manifest, ServerUrl, Source};
use retoma_core::{Error, ErrorKind, Result, ResultExt, decide, error::codes};
use retoma_repo::backup::{self, Options, Progress, Summary};
use retoma_repo::format::BlobKind;
use retoma_repo::format::snapshot::{Snapshot, TAG_COMPONENT, TAG_KIND, TAG_MANIFEST, TAG_MANIFEST_HASH};
use retoma_repo::ops::find::{self, Selector};
use retoma_repo::repository::Found;
use retoma_repo::{Repository, SnapshotId, host};
use retoma_sources::files::{Excludes, FilesSource};
use retoma_sources::postgres::wire::Address;
use retoma_sources::postgres::{
    self as postgres, DumpFacts, DumpSource, PostgresFacts, PostgresSource, Previous, StreamSource,
};
use retoma_sources::redis::{self, RedisFacts, RedisSource};
use retoma_sources::sqlite::{self, CaptureFacts, SqliteSource};
use std::path::Path;
use std::time::{Duration, Instant};

/// What one component's backup did.
#[derive(Debug)]
pub struct ComponentBackup {
    /// Its name.
    pub component: String,
    /// What it is.
    pub kind: ComponentKind,
    /// What the engine did. Its `unreadable` tells whether the snapshot is incomplete.
    pub summary: Summary,
    /// What was captured, for a database.
    pub facts: Option<CaptureFacts>,
    /// The snapshot that it was compared with.
    pub parent: Option<SnapshotId>,
    /// Why the server's settings may lose more than the component promises.
    pub warnings: Vec<Doubt>,
    /// What the backup does not hold of a server that is dumped, and what its programs warned of, each as a sentence.
    pub left_out: Vec<String>,
    /// Why this backup was not compared with the last good one, where it should have been.
    pub not_compared: Option<Error>,
    /// Snapshots that cannot be read, one error each: the newest of the others stood for the last good one.
    pub damaged_snapshots: Vec<Error>,
    /// What was captured is as of this time: when a database was opened, a server gave its data set away or a physical backup
    /// ended; of files, when all of them had been read: from then on `--at` takes the snapshot.
    pub consistent_at: Timestamp,
    /// From the beginning until the snapshot was durable: capture and upload together, since they overlap.
    pub elapsed: Duration,
}

impl ComponentBackup {
    /// The snapshot.
    pub fn snapshot(&self) -> SnapshotId {
        self.summary.snapshot
    }

    /// Its place in a recovery set.
    pub fn point(&self) -> Point {
        Point { component: self.component.clone(), time: self.consistent_at }
    }

    /// Whether everything could be read.
    pub fn is_complete(&self) -> bool {
        self.summary.unreadable.is_empty()
    }
}

/// Backs one component up.
///
/// # Errors
/// `R0403` for a database that is empty or has lost rows, `R0404` for a damaged one; `R041x` and `R043x` for servers;
/// otherwise as [`backup::backup`]. None of these leaves a snapshot.
pub fn backup(
    manifest: &Manifest,
    component: &Component,
    repository: &Repository,
    progress: &Progress,
) -> Result<ComponentBackup> {
    let doing = || format!("back up `{}`", component.name);
    backup_component(manifest, component, repository, progress).with_context(doing)
}

fn backup_component(
    manifest: &Manifest,
    component: &Component,
    repository: &Repository,
    progress: &Progress,
) -> Result<ComponentBackup> {
    let started = Instant::now();
    let (parent, damaged_snapshots) = newest(repository, &component.name)?;
    let mut options = Options {
        tags: vec![
            format!("{TAG_COMPONENT}{}", component.name),
            format!("{TAG_KIND}{}", component.kind()),
            format!("{TAG_MANIFEST_HASH}{}", manifest.hash()),
        ],
        parent: parent.as_ref().map(|(id, _)| *id),
        ..Options::default()
    };
    let (mut warnings, mut not_compared) = (Vec::new(), None);
    let mut left_out = Vec::new();
    let consistent_at;
    let (summary, facts) = match &component.source {
        Source::Files { path, exclude } => {
            options.paths = vec![path.to_string_lossy().into_owned()];
            options.excludes.clone_from(exclude);
            options.mass_change = Some(component.mass_change);
            let mut source = FilesSource::new(path, Excludes::new(exclude)?)?;
            let summary = backup::backup(repository, &mut source, &options, progress)?;
            consistent_at = Timestamp::now();
            (summary, None)
        }
        Source::Sqlite { path, may_be_empty } => {
            options.paths = vec![path.to_string_lossy().into_owned()];
            options.mass_change = Some(component.mass_change);
            let mut source = SqliteSource::open(path)?;
            consistent_at = Timestamp::now();
            let facts = source.facts().clone();
            not_compared = check_nothing_is_gone(repository, parent.as_ref(), &facts, may_be_empty)?;
            (backup::backup(repository, &mut source, &options, progress)?, Some(facts))
        }
        Source::Postgres { url } => {
            let done = backup_server(component, url, repository, parent.as_ref(), &mut options, progress)?;
            (consistent_at, not_compared) = (done.consistent_at, done.not_compared);
            left_out = done.left_out;
            (done.summary, None)
        }
        Source::Redis { url } => {
            let previous = known_of_redis(repository, parent.as_ref());
            let previous = lost(previous, &mut not_compared)?;
            let mut source = RedisSource::begin(&redis_address(url)?, &component.name, previous)?;
            consistent_at = Timestamp::now();
            options.paths = source.paths();
            warnings = redis_doubts(component, source.server(), source.is_private());
            (backup::backup(repository, &mut source, &options, progress)?, None)
        }
    };
    Ok(ComponentBackup {
        component: component.name.clone(),
        kind: component.kind(),
        summary,
        facts,
        parent: options.parent,
        warnings,
        left_out,
        not_compared,
        damaged_snapshots,
        consistent_at,
        elapsed: started.elapsed(),
    })
}

struct ServerDone {
    summary: Summary,
    consistent_at: Timestamp,
    not_compared: Option<Error>,
    left_out: Vec<String>,
}

/// Backs a PostgreSQL server up in the component's way.
fn backup_server(
    component: &Component,
    url: &ServerUrl,
    repository: &Repository,
    parent: Option<&(SnapshotId, Snapshot)>,
    options: &mut Options,
    progress: &Progress,
) -> Result<ServerDone> {
    let address = server_address(url)?;
    let (mut not_compared, mut left_out) = (None, Vec::new());
    let (summary, stopped) = match component.backup {
        BackupWay::Local => {
            let mut source = PostgresSource::begin(&address, previous_of_server(repository, parent))?;
            options.paths = source.paths();
            // Of what another server had, nothing is the same.
            options.parent = options.parent.filter(|_| source.continues_parent());
            let summary = backup::backup(repository, &mut source, options, progress)?;
            (summary, source.facts().stop_time)
        }
        BackupWay::Stream => {
            let known = facts_of_server(repository, parent);
            let mut source = StreamSource::begin(&address, known, &progress.stop_flag())?;
            options.paths = source.paths();
            options.parent = options.parent.filter(|_| source.continues_parent());
            let summary = backup::backup(repository, &mut source, options, progress)?;
            (summary, source.facts().stop_time)
        }
        BackupWay::Logical => {
            let previous = lost(known_of_dumps(repository, parent), &mut not_compared)?;
            let is_stopped = || progress.is_cancelled();
            let mut source = DumpSource::begin(&address, &component.name, previous.as_ref(), &is_stopped)?;
            options.paths = source.paths();
            let summary = backup::backup(repository, &mut source, options, progress)?;
            left_out = source.facts().left_out();
            left_out.extend(source.facts().said.iter().cloned());
            (summary, Some(source.facts().time))
        }
    };
    Ok(ServerDone { summary, consistent_at: stopped.unwrap_or_else(Timestamp::now), not_compared, left_out })
}

/// What the parent knows of the server. It is a help, not a need: without it everything is read.
fn previous_of_server(repository: &Repository, parent: Option<&(SnapshotId, Snapshot)>) -> Option<Previous> {
    let index = repository.load_index().ok()?;
    Previous::of(repository, &index, &parent?.1.tree).ok().flatten()
}

/// What the parent says of the server; a help too.
fn facts_of_server(
    repository: &Repository,
    parent: Option<&(SnapshotId, Snapshot)>,
) -> Option<PostgresFacts> {
    let index = repository.load_index().ok()?;
    postgres::facts_of(repository, &index, &parent?.1.tree).ok().flatten()
}

/// What the last good snapshot says of a server that was dumped.
fn known_of_dumps(
    repository: &Repository,
    parent: Option<&(SnapshotId, Snapshot)>,
) -> Result<Option<DumpFacts>> {
    let Some((id, snapshot)) = parent else { return Ok(None) };
    let index = repository.load_index()?;
    postgres::dump_facts_of(repository, &index, &snapshot.tree)
        .with_context(|| format!("read what snapshot {} captured", id.short()))
}

/// What the last good snapshot knows of a Redis server.
fn known_of_redis(
    repository: &Repository,
    parent: Option<&(SnapshotId, Snapshot)>,
) -> Result<Option<RedisFacts>> {
    let Some((id, snapshot)) = parent else { return Ok(None) };
    let index = repository.load_index()?;
    redis::facts_of(repository, &index, &snapshot.tree)
        .with_context(|| format!("read what snapshot {} captured", id.short()))
}

/// Connects to a component's Redis server and looks whether its settings fit the component; none for other kinds.
///
/// # Errors
/// `R0430` to `R0435`; a secret that cannot be read.
pub fn doubts(component: &Component) -> Result<Vec<Doubt>> {
    let Source::Redis { url } = &component.source else { return Ok(Vec::new()) };
    let mut connection = redis::Connection::connect(&redis_address(url)?)?;
    let server = redis::Server::ask(&mut connection)?;
    Ok(redis_doubts(component, &server, connection.is_private()))
}

fn redis_doubts(component: &Component, server: &redis::Server, is_private: bool) -> Vec<Doubt> {
    let observed = Observed { settings: server.settings.as_ref(), is_private };
    let promise =
        Promise { rpo: component.objectives.rpo, backup_worst_case: component.schedule.worst_case() };
    decide::redis::doubts(observed, promise)
}

/// Where a Redis server is, with its secret.
fn redis_address(url: &ServerUrl) -> Result<redis::Address> {
    match url {
        ServerUrl::Literal(text) => redis::Address::of_process(text),
        ServerUrl::Reference(reference) => redis::Address::of_process(open::secret(reference)?.expose()),
    }
}

/// A connection with a Redis server, or why there is none.
///
/// # Errors
/// `R0430` for an address that cannot be understood; a secret that cannot be read.
pub(crate) fn redis_connection(url: &ServerUrl) -> Result<Result<redis::Connection>> {
    Ok(redis::Connection::connect(&redis_address(url)?))
}

/// Where a server is, with its secret.
///
/// # Errors
/// `R0410` for an address that cannot be understood; a secret that cannot be read.
pub fn server_address(url: &ServerUrl) -> Result<Address> {
    match url {
        ServerUrl::Literal(text) => Address::of_process(text),
        ServerUrl::Reference(reference) => Address::of_process(open::secret(reference)?.expose()),
    }
}

/// The error about a kind that this version does not know how to handle.
pub(crate) fn later(kind: ComponentKind) -> Error {
    let message = format!("components of kind `{kind}` come with a later version");
    Error::new(ErrorKind::Unsupported, codes::KIND_LATER, message)
        .with_hint("leave the component out for now, or dump it into a folder that is a `files` component")
}

/// Compares what was captured with the last good snapshot's facts; gives why it could not.
fn check_nothing_is_gone(
    repository: &Repository,
    previous: Option<&(SnapshotId, Snapshot)>,
    facts: &CaptureFacts,
    may_be_empty: &[String],
) -> Result<Option<Error>> {
    let Some((id, snapshot)) = previous else { return Ok(None) };
    let index = repository.load_index()?;
    let known = sqlite::facts_of(repository, &index, &snapshot.tree)
        .with_context(|| format!("read what snapshot {} captured", id.short()));
    let mut not_compared = None;
    let known = lost(known, &mut not_compared)?;
    sqlite::compare(known.as_ref(), facts, may_be_empty)?;
    Ok(not_compared)
}

/// What the last good snapshot says, or nothing where the repository has lost it or holds it damaged: a repository that
/// is damaged needs a new backup more than any other.
fn lost<T>(known: Result<Option<T>>, why: &mut Option<Error>) -> Result<Option<T>> {
    match known {
        Err(error) if error.kind() == ErrorKind::Corrupt => {
            *why = Some(error);
            Ok(None)
        }
        known => known,
    }
}

/// The newest complete snapshot of a component of this host; of any where this one has none yet: a container has a new
/// name each time, and so has the machine that a service was recovered on. With an error for each snapshot that cannot
/// be read, of whichever component: that is no reason to make no new one.
fn newest(repository: &Repository, component: &str) -> Result<(Option<Found>, Vec<Error>)> {
    let (host, (mut all, damaged)) = (host::hostname(), repository.readable_snapshots()?);
    all.retain(|(_, snapshot)| snapshot.component() == Some(component) && !snapshot.is_incomplete());
    let own = all.iter().rposition(|(_, snapshot)| snapshot.hostname == host);
    Ok((own.or(all.len().checked_sub(1)).map(|at| all.swap_remove(at)), damaged))
}

/// The newest snapshot of the manifest of this host that can be read.
fn newest_manifest(repository: &Repository) -> Result<Option<Snapshot>> {
    let (host, (all, _)) = (host::hostname(), repository.readable_snapshots()?);
    let fits = |snapshot: &Snapshot| {
        snapshot.hostname == host && snapshot.has_tag(TAG_MANIFEST) && !snapshot.is_incomplete()
    };
    Ok(all.into_iter().rev().map(|(_, snapshot)| snapshot).find(fits))
}

/// Stores the manifest's text as a snapshot of its own; nothing when the newest one holds the same bytes at the same
/// place. `dir` is the manifest's directory, where recovery takes relative paths from.
///
/// # Errors
/// As [`backup::backup`].
pub fn backup_manifest(
    manifest: &Manifest,
    text: &str,
    repository: &Repository,
    progress: &Progress,
) -> Result<Option<SnapshotId>> {
    let place = manifest_place(manifest.dir());
    if let Some(snapshot) = newest_manifest(repository)?
        && snapshot.paths == [place.clone()]
        && lost(read_manifest(repository, &snapshot).map(Some), &mut None)?.as_deref() == Some(text)
    {
        return Ok(None);
    }
    let options = Options {
        paths: vec![place],
        tags: vec![TAG_MANIFEST.to_owned(), format!("{TAG_MANIFEST_HASH}{}", manifest.hash())],
        ..Options::default()
    };
    let mut source = MemorySource::new(MANIFEST_NAME, text.as_bytes());
    let summary =
        backup::backup(repository, &mut source, &options, progress).context("back up the manifest")?;
    Ok(Some(summary.snapshot))
}

fn manifest_place(dir: &Path) -> String {
    dir.join(MANIFEST_NAME).to_string_lossy().into_owned()
}

/// The largest manifest that is read back, in bytes.
const MANIFEST_LIMIT_BYTES: u64 = 1 << 20;

/// The manifest's text in a snapshot of it.
///
/// # Errors
/// `Corrupt` when it is damaged, not text or not there.
pub fn read_manifest(repository: &Repository, snapshot: &Snapshot) -> Result<String> {
    let index = repository.load_readable_index()?;
    let node = find::node(repository, &index, &snapshot.tree, MANIFEST_NAME.as_bytes())?;
    let damaged = |what: &str| {
        let message = format!("the manifest in the repository {what}");
        Error::new(ErrorKind::Corrupt, codes::MALFORMED, message)
            .with_hint("recover with an older one: name a time before it with `--at`")
    };
    if node.size_bytes > MANIFEST_LIMIT_BYTES {
        return Err(damaged("is too long"));
    }
    let mut bytes = Vec::new();
    for id in &node.content {
        bytes.extend(repository.read_blob(&index, BlobKind::Data, id).context("read the manifest")?);
    }
    String::from_utf8(bytes).map_err(|_| damaged("is not text"))
}

/// The snapshot of `component` that `selector` asks for, of whichever host.
pub(crate) fn snapshot_of(
    repository: &Repository,
    component: &str,
    which: &find::Which,
) -> Result<(SnapshotId, Snapshot)> {
    let selector =
        Selector { component: Some(component.to_owned()), which: which.clone(), ..Selector::default() };
    find::snapshot(repository, &selector)
}

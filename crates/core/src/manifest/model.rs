//! The resolved manifest: defaults filled in, references checked, relative paths joined to the manifest's directory.
//!
//! An `Option` here means that the thing may be absent, never that a default has still to be looked up.

use super::address::Scheme;
use super::agent::{AgentOptions, AlertOptions};
use super::backup_way::BackupWay;
use super::component_kind::ComponentKind;
use super::object_lock::ObjectLock;
use super::problem::Problem;
use super::secret_ref::SecretRef;
use super::tier::{Objectives, Tier};
use super::wal::WalSettings;
use crate::decide::cost::Prices;
use crate::decide::mass_change;
use crate::units::Duration;
use std::path::{Path, PathBuf};

/// How much later than its interval a backup may be stored that no RPO depends on.
const BACKUP_GRACE: Duration = Duration::HOUR;

/// Everything that a manifest says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// The version of the format; 1.
    pub version: u32,
    /// The service as a whole.
    pub service: Service,
    /// Where backups are stored; at least one, in the order of the file.
    pub repositories: Vec<Repository>,
    /// What is backed up; at least one, in the order of the file.
    pub components: Vec<Component>,
    /// How records are signed.
    pub evidence: Evidence,
    /// How drills run.
    pub drill: DrillOptions,
    /// What the agent does besides backups.
    pub agent: AgentOptions,
    /// Where the agent sends alerts.
    pub alerts: AlertOptions,
    /// What the user should look at; each has the severity `Warning`.
    pub warnings: Vec<Problem>,
    pub(super) dir: PathBuf,
    pub(super) hash: String,
}

/// The service that is protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its name.
    pub name: String,
    /// The address that answers with 200 when it works.
    pub health: Option<String>,
    /// Starts it, in [`Manifest::dir`].
    pub start: Option<Command>,
    /// Stops it; without one, what `start` started gets SIGTERM.
    pub stop: Option<Command>,
    /// How long after `start` it may take until it answers, in seconds.
    pub ready_seconds: u64,
    /// Checks of the running service.
    pub checks: Vec<HttpCheck>,
}

/// A program and its arguments; run without a shell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Command {
    /// The program, as written: a name that is looked up in `PATH`, or a path.
    pub program: String,
    /// Its arguments.
    pub arguments: Vec<String>,
}

/// A check of the service over HTTP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCheck {
    /// What is fetched.
    pub url: String,
    /// The status that must come back.
    pub expect_status: u16,
    /// A text that the body must contain.
    pub expect_body: Option<String>,
}

/// A store for snapshots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repository {
    /// Its name.
    pub name: String,
    /// Its address, without credentials.
    pub url: String,
    /// What sort of store it is.
    pub scheme: Scheme,
    /// The password that opens it.
    pub password: SecretRef,
    /// The repository that it is a copy of: `retoma copy` fills it, and no backup.
    pub copy_of: Option<String>,
    /// Where it lies: what is lost together has the same.
    pub region: Option<String>,
    /// How long its objects are locked in the bucket.
    pub lock: Option<ObjectLock>,
    /// What its provider asks for.
    pub price: Option<Prices>,
}

/// A part of the service that is backed up and restored by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Component {
    /// Its name.
    pub name: String,
    /// What it is and where.
    pub source: Source,
    /// How important it is.
    pub tier: Tier,
    /// What is promised: the tier's objectives, with the manifest's overrides.
    pub objectives: Objectives,
    /// The names of the repositories it is backed up into; at least one.
    pub repositories: Vec<String>,
    /// The names of those that are copies of one of these.
    pub copies: Vec<String>,
    /// How often it is backed up.
    pub schedule: Schedule,
    /// Which of its snapshots are kept.
    pub retention: Retention,
    /// How it is backed up; of no meaning for what is no PostgreSQL server.
    pub backup: BackupWay,
    /// Whether the agent writes marks into it.
    pub has_marks: bool,
    /// How its WAL gets into the repositories; of no meaning for what is no PostgreSQL server.
    pub wal: WalSettings,
    /// What of its changes is a mass change; of no meaning for servers.
    pub mass_change: mass_change::Limits,
    /// The user's checks of a restored copy.
    pub checks: Vec<Check>,
}

/// What a component is and where it is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A PostgreSQL server.
    Postgres {
        /// Its address.
        url: ServerUrl,
    },
    /// A SQLite database.
    Sqlite {
        /// The database file.
        path: PathBuf,
        /// Tables that may lose all their rows between two backups.
        may_be_empty: Vec<String>,
    },
    /// A Redis server.
    Redis {
        /// Its address.
        url: ServerUrl,
    },
    /// A file or a folder.
    Files {
        /// The file or folder.
        path: PathBuf,
        /// Patterns of paths below it that are left out, as written.
        exclude: Vec<String>,
    },
}

/// The address of a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ServerUrl {
    /// As written; it holds no password.
    Literal(String),
    /// Found elsewhere; it may hold a password, so it is a secret.
    Reference(SecretRef),
}

/// How often a component is backed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Schedule {
    /// From the start of one backup to the start of the next.
    pub every: Duration,
    /// What is set aside for capture and upload.
    pub capture_allowance: Duration,
    /// How long after it was written everything is in the repositories at the latest, whenever backups are made: by WAL
    /// that ships by itself and meets the RPO. `None` where only backups bring it there.
    pub shipped_within: Option<Duration>,
}

/// Which snapshots are kept: what any rule keeps, stays. A rule with zero is off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Retention {
    /// The newest ones, in number.
    pub keep_last: u32,
    /// The last one of so many hours.
    pub hourly: u32,
    /// The last one of so many days.
    pub daily: u32,
    /// The last one of so many weeks.
    pub weekly: u32,
    /// The last one of so many months.
    pub monthly: u32,
    /// The last one of so many years.
    pub yearly: u32,
    /// All that are younger.
    pub keep_within: Duration,
    /// Tags; a snapshot with one of them is never forgotten.
    pub holds: Vec<String>,
}

/// A user's check of a restored copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Check {
    /// A query.
    Sql {
        /// The query, as written.
        sql: String,
        /// What it must give.
        expectation: SqlExpectation,
    },
    /// A program that must end with 0.
    Command(Command),
}

/// What a query must give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SqlExpectation {
    /// This text in the first column of the first row.
    Text(String),
    /// At least so many rows; one or more.
    MinRows(u64),
}

/// How records of backups and drills are signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The Ed25519 key that signs.
    pub signing_key: Option<SecretRef>,
    /// The pinned key that verifies.
    pub public_key: Option<[u8; 32]>,
    /// The name of this host's chain of records.
    pub writer: String,
}

/// How drills run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillOptions {
    /// The folder in which drills make their own folders; the system's folder for temporary files when absent.
    pub scratch_dir: Option<PathBuf>,
    /// After so many seconds a drill is stopped and has failed.
    pub timeout_seconds: u64,
    /// How numbered writes reach the service; absent when it takes none.
    pub markers: Option<Markers>,
}

/// How a drill writes numbered marks through the service, and counts them afterwards.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Markers {
    /// Takes one mark.
    pub write_url: String,
    /// Tells which marks there are.
    pub read_url: String,
    /// The component that holds them; absent when it is not known.
    pub component: Option<String>,
}

impl Manifest {
    /// SHA-256 over the bytes of the manifest's text, in hex. Any change counts, also one in a comment.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The manifest's directory: where commands run, and where relative paths start.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The same manifest with its directory and every component's path moved below `root`, as on a machine whose `/` is
    /// `root`. Secrets, addresses and commands stay as they are, and so do checks.
    #[must_use]
    pub fn below(&self, root: &Path) -> Self {
        let moved = |path: &Path| root.join(path.strip_prefix("/").unwrap_or(path));
        let mut manifest = self.clone();
        manifest.dir = moved(&self.dir);
        for component in &mut manifest.components {
            if let Source::Sqlite { path, .. } | Source::Files { path, .. } = &mut component.source {
                *path = moved(path);
            }
        }
        manifest
    }

    /// The component of this name.
    pub fn component(&self, name: &str) -> Option<&Component> {
        self.components.iter().find(|component| component.name == name)
    }

    /// How old the newest snapshot of `component` in a copy may be: two copies later than where it is backed up.
    pub fn copy_age_limit(&self, component: &Component) -> Duration {
        let late = self.agent.copy_every.as_seconds().saturating_mul(2);
        Duration::from_seconds(component.snapshot_age_limit().as_seconds().saturating_add(late))
    }

    /// The repository of this name.
    pub fn repository(&self, name: &str) -> Option<&Repository> {
        self.repositories.iter().find(|repository| repository.name == name)
    }

    /// All components in the order of recovery: by tier, most important first, then as in the file.
    pub fn recovery_order(&self) -> Vec<&Component> {
        let mut components: Vec<_> = self.components.iter().collect();
        components.sort_by_key(|component| component.tier);
        components
    }
}

impl Repository {
    /// The folder, for `file://`: what follows the scheme, taken as it is.
    pub fn folder(&self) -> Option<&Path> {
        self.url.strip_prefix("file://").map(Path::new)
    }
}

impl Component {
    /// What the component is.
    pub fn kind(&self) -> ComponentKind {
        match self.source {
            Source::Postgres { .. } => ComponentKind::Postgres,
            Source::Sqlite { .. } => ComponentKind::Sqlite,
            Source::Redis { .. } => ComponentKind::Redis,
            Source::Files { .. } => ComponentKind::Files,
        }
    }

    /// The file or folder, for kinds that have one.
    pub fn path(&self) -> Option<&Path> {
        match &self.source {
            Source::Sqlite { path, .. } | Source::Files { path, .. } => Some(path),
            Source::Postgres { .. } | Source::Redis { .. } => None,
        }
    }

    /// How old the newest complete snapshot may be: the RPO; where WAL meets that, a snapshot is only where a recovery
    /// begins, and may be an interval and the time of a long backup old.
    pub fn snapshot_age_limit(&self) -> Duration {
        match self.schedule.shipped_within {
            Some(_) => self.objectives.rpo.max(self.schedule.every.saturating_add(BACKUP_GRACE)),
            None => self.objectives.rpo,
        }
    }
}

impl Schedule {
    /// The longest stretch that can be lost: what WAL has not brought yet; without it, everything since the start of the
    /// last backup, while the next one is not yet stored.
    pub fn worst_case(&self) -> Duration {
        self.shipped_within.unwrap_or_else(|| self.every.saturating_add(self.capture_allowance))
    }
}

impl Retention {
    /// What holds when the manifest has no rule: everything of the last 30 days.
    pub fn default_rules() -> Self {
        Self { keep_within: Duration::from_minutes(30 * 24 * 60), ..Self::nothing() }
    }

    /// All rules off.
    pub(super) fn nothing() -> Self {
        Self {
            keep_last: 0,
            hourly: 0,
            daily: 0,
            weekly: 0,
            monthly: 0,
            yearly: 0,
            keep_within: Duration::ZERO,
            holds: Vec::new(),
        }
    }

    /// Whether any rule keeps a snapshot; holds are no rule.
    pub fn keeps_something(&self) -> bool {
        let counts = [self.keep_last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly];
        counts.iter().any(|count| *count > 0) || !self.keep_within.is_zero()
    }
}

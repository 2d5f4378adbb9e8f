//! What the agent observed, as values: what alerts are decided from and metrics are written from.
//!
//! An `Option` that is `None` was not observed, which is never the same as "well".

use crate::decide::archiving::Archive;
use crate::manifest::{ComponentKind, Objectives, Tier};
use crate::postgres::TimelineId;
use crate::units::Duration;
use jiff::Timestamp;

/// The agent looks at each repository so often, in seconds, when it is well.
pub const LOOK_SECONDS: u64 = 30;

/// Everything that is known at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// Version of the program.
    pub version: String,
    /// When the agent started.
    pub started: Timestamp,
    /// Since when there is an agent with this journal.
    pub since: Timestamp,
    /// When it last decided what to do.
    pub decided: Timestamp,
    /// How many lines of the journal could not be written since the start.
    pub journal_errors: u64,
    /// In the order of the manifest.
    pub components: Vec<ObservedComponent>,
    /// All tasks.
    pub tasks: Vec<ObservedTask>,
    /// In the order of the manifest.
    pub repositories: Vec<ObservedRepository>,
    /// PostgreSQL servers.
    pub streams: Vec<Stream>,
    /// Whether the last verification found damage; `None` before the first.
    pub damaged: Option<bool>,
    /// How often there is a drill; `None` when none is wanted.
    pub drill_every: Option<Duration>,
    /// The last drill.
    pub drill: Option<ObservedDrill>,
    /// When the last green one began.
    pub drill_good: Option<Timestamp>,
    /// What lies in the spools of WAL, in bytes.
    pub spool_bytes: u64,
}

/// A component.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedComponent {
    /// Its name.
    pub name: String,
    /// What it is.
    pub kind: ComponentKind,
    /// How important it is.
    pub tier: Tier,
    /// What is promised.
    pub objectives: Objectives,
    /// How old its newest complete snapshot may be.
    pub age_limit: Duration,
    /// When its newest complete snapshot began, for each of its repositories by name.
    pub newest: Vec<(String, Option<Timestamp>)>,
    /// The same of those that are copies.
    pub copies: Vec<(String, Option<Timestamp>)>,
    /// How old it may be in a copy.
    pub copy_age_limit: Duration,
    /// When its oldest complete snapshot began.
    pub oldest: Option<Timestamp>,
    /// The last backup that was good.
    pub backup: Option<ObservedBackup>,
}

impl ObservedComponent {
    /// When the newest snapshot began that every one of its repositories has the like of.
    pub fn newest_everywhere(&self) -> Option<Timestamp> {
        let all: Option<Vec<Timestamp>> = self.newest.iter().map(|(_, time)| *time).collect();
        all?.into_iter().min()
    }
}

/// What a backup took.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ObservedBackup {
    /// From the start of the process to its end.
    pub duration_seconds: f64,
    /// Bytes that the repositories grew by.
    pub stored_bytes: u64,
    /// Bytes of all files.
    pub total_bytes: u64,
}

/// A task.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedTask {
    /// Its name: `backup/models`, `verify`.
    pub name: String,
    /// Whether it runs.
    pub is_running: bool,
    /// When its last good run began.
    pub last_good: Option<Timestamp>,
    /// When it is due.
    pub next: Timestamp,
    /// How many runs failed since the last good one.
    pub failures: u32,
    /// Why the last one failed.
    pub error_code: Option<String>,
}

/// A repository.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedRepository {
    /// Its name.
    pub name: String,
    /// When a look at it last ended, well or not.
    pub looked: Option<Timestamp>,
    /// What that look said, when it was not well.
    pub error_code: Option<String>,
    /// How many snapshots it has.
    pub snapshots: Option<u64>,
    /// The newest snapshot of each component that looks like mass change and was not accepted.
    pub mass_changes: Vec<ObservedMassChange>,
}

/// A snapshot that looks like mass change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedMassChange {
    /// The component.
    pub component: String,
    /// The beginning of the snapshot's id.
    pub snapshot: String,
    /// When it began.
    pub time: Timestamp,
}

/// The WAL of a PostgreSQL server.
#[expect(clippy::struct_excessive_bools, reason = "they are independent of each other")]
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Stream {
    /// The component.
    pub component: String,
    /// Whether the manifest wants it streamed.
    pub is_wanted: bool,
    /// Why it is not streamed now; `None` when it is, or need not be.
    pub down: Option<String>,
    /// Repositories that do not take WAL.
    pub stuck_repositories: Vec<String>,
    /// What the server has beyond what is stored.
    pub lag_bytes: Option<u64>,
    /// How long the oldest received byte waits.
    pub lag_seconds: Option<f64>,
    /// The slot, when it could be looked at.
    pub slot: Option<Slot>,
    /// Whether a look at the slot failed.
    pub slot_unknown: bool,
    /// The `archive_timeout` that the manifest promises.
    pub archive_promised: Option<Duration>,
    /// What the server's archiver does, when it is to archive and could be looked at.
    pub archive: Option<Archive>,
    /// Whether a look at an archiver failed that is to archive.
    pub archive_unknown: bool,
    /// How many gaps there are behind the oldest snapshot.
    pub gaps: Option<u64>,
    /// How many of them lie behind the newest one, so that what is written now cannot be recovered.
    pub open_gaps: Option<u64>,
    /// Whether a tablespace was made behind the newest snapshot, which no recovery goes past.
    pub has_new_tablespace: bool,
    /// The newest timeline in the archive of the server that archives here.
    pub newest_timeline: Option<TimelineId>,
    /// How many histories of timelines are not stored that have WAL.
    pub missing_histories: Option<u64>,
    /// When the oldest snapshot that WAL follows began.
    pub window_start: Option<Timestamp>,
    /// How far WAL follows without a gap.
    pub window_end_lsn: Option<u64>,
    /// The marks that are written into the server; `None` where none are wanted, and on a standby.
    pub marks: Option<Marks>,
}

/// What became of the marks of a server.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Marks {
    /// The last one that the server acknowledged since the agent started.
    pub last: Option<Mark>,
    /// Why the last try failed; `None` when it did not.
    pub trouble: Option<MarkTrouble>,
}

/// A numbered write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Each is one higher than the one before.
    pub number: u64,
    /// When it was written, by the server's clock.
    pub written: Timestamp,
}

/// Why there is no new mark.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MarkTrouble {
    /// The user may not write it.
    MayNot(String),
    /// The server did not take it.
    NotTaken(String),
}

/// A replication slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Slot {
    /// Whether somebody reads from it.
    pub is_read: bool,
    /// What it keeps.
    pub retained_bytes: u64,
    /// What it may keep.
    pub limit_bytes: u64,
}

/// A drill.
#[derive(Debug, Clone, PartialEq)]
pub struct ObservedDrill {
    /// What was broken.
    pub scenario: String,
    /// When it began.
    pub started: Timestamp,
    /// Whether it was green.
    pub is_green: bool,
    /// From the disaster to the first write; `None` when it did not come so far.
    pub rto_measured_seconds: Option<f64>,
    /// What each component lost, as far as it was counted.
    pub rpo_measured_seconds: Vec<(String, f64)>,
}

//! When the agent runs what: which tasks are due now, and when the next one is. `docs/agent.md`, "When something is due".
//!
//! Invariants: a task that runs is never started again; after downtime a task is started once; a task is due at most one
//! interval after the start of its last good run, since jitter only ever brings it forward; what failed is tried again with
//! pauses that grow and are never longer than the interval. Nothing here knows how a task is run.

use crate::units::Duration;
use jiff::{SignedDuration, Timestamp};

/// The first pause after a failure is at least and at most so long.
const FIRST_PAUSE: (SignedDuration, SignedDuration) =
    (SignedDuration::from_secs(1), SignedDuration::from_secs(30));
/// No pause after a failure is longer.
const LONGEST_PAUSE: SignedDuration = SignedDuration::from_mins(15);
/// Maintenance that has never run waits no longer than this.
const LONGEST_FIRST_WAIT: SignedDuration = SignedDuration::from_hours(1);

/// Nor does a copy that was never made, longer than this.
const FIRST_COPY_WAIT: SignedDuration = SignedDuration::from_mins(1);

/// What shares the places in which tasks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// A backup: due at once when there was none.
    Backup,
    /// A copy: no verification that takes a day holds it up.
    Copy,
    /// Everything else.
    Maintenance,
}

/// Something that is run again and again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// From the start of one run to the start of the next.
    pub every: Duration,
    /// Where it runs.
    pub class: Class,
    /// What goes first when there are not enough places: the lower number.
    pub rank: u8,
    /// Where its jitter comes from: see [`seed`].
    pub seed: u64,
}

/// How a run ended, as far as the schedule is concerned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// All was done.
    Good,
    /// It has to be tried again.
    Failed,
    /// It was asked to stop; that says nothing about it.
    Stopped,
}

/// What is known of a task's runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// Since when there is such a task.
    pub since: Timestamp,
    /// When the newest good run began.
    pub last_good: Option<Timestamp>,
    /// How many runs failed since then.
    pub failures: u32,
    /// When the last of these ended.
    pub failed_at: Option<Timestamp>,
    /// Whether it runs now.
    pub is_running: bool,
    /// A run counts only if it began after this.
    pub needed_since: Option<Timestamp>,
}

impl Known {
    /// Of a task that has never run.
    pub fn new(since: Timestamp) -> Self {
        Self { since, last_good: None, failures: 0, failed_at: None, is_running: false, needed_since: None }
    }

    /// A run begins.
    pub fn begin(&mut self) {
        self.is_running = true;
    }

    /// A run that began at `started` ended at `ended`.
    pub fn end(&mut self, started: Timestamp, ended: Timestamp, how: Ended) {
        self.is_running = false;
        match how {
            Ended::Good => {
                self.last_good = Some(started);
                (self.failures, self.failed_at) = (0, None);
            }
            Ended::Failed => {
                self.failures = self.failures.saturating_add(1);
                self.failed_at = Some(ended);
            }
            Ended::Stopped => {}
        }
    }

    /// Somebody else saw a good run that began at `started`.
    pub fn saw_good(&mut self, started: Timestamp, now: Timestamp) {
        let newer = self.last_good.is_none_or(|known| known < started || known > now);
        if newer && started <= now {
            self.last_good = Some(started);
            if self.failed_at.is_some_and(|failed| failed < started) {
                (self.failures, self.failed_at) = (0, None);
            }
        }
    }
}

/// How many tasks of each class may run at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Places {
    /// Backups.
    pub backups: usize,
    /// Copies.
    pub copies: usize,
    /// Pieces of maintenance.
    pub maintenance: usize,
}

/// What to do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The tasks to start, by their place in the list, most important first.
    pub start: Vec<usize>,
    /// When the next task becomes due, of those that do not run and are not due; `None` when there is none.
    pub wake: Option<Timestamp>,
}

/// What to start at `now`. `tasks` and `known` have the same order.
pub fn plan(tasks: &[Task], known: &[Known], places: Places, now: Timestamp) -> Plan {
    let running =
        |class| tasks.iter().zip(known).filter(|(task, it)| it.is_running && task.class == class).count();
    let mut free = [
        (Class::Backup, places.backups.saturating_sub(running(Class::Backup))),
        (Class::Copy, places.copies.saturating_sub(running(Class::Copy))),
        (Class::Maintenance, places.maintenance.saturating_sub(running(Class::Maintenance))),
    ];
    let mut due_now = Vec::new();
    let mut wake: Option<Timestamp> = None;
    for (number, (task, it)) in tasks.iter().zip(known).enumerate().filter(|(_, (_, it))| !it.is_running) {
        let due = due(task, it, now);
        if due <= now {
            due_now.push((task.rank, due, number));
        } else {
            wake = Some(wake.map_or(due, |wake| wake.min(due)));
        }
    }
    due_now.sort_unstable();
    let mut start = Vec::new();
    for (_, _, number) in due_now {
        let class = tasks.get(number).map(|task| task.class);
        if let Some((_, places)) = free.iter_mut().find(|(of, places)| Some(*of) == class && *places > 0) {
            *places -= 1;
            start.push(number);
        }
    }
    Plan { start, wake }
}

/// When a task is due, or was. What is dated after `now` is not believed.
pub fn due(task: &Task, known: &Known, now: Timestamp) -> Timestamp {
    let every = length(task.every);
    let regular = match known.last_good.filter(|good| *good <= now) {
        Some(good) if known.needed_since.is_some_and(|needed| needed <= now && good < needed) => {
            Timestamp::MIN
        }
        Some(good) => later(good, every - jitter(task, good)),
        None if task.class == Class::Backup => Timestamp::MIN,
        None => {
            // The first backup comes before, and may take a moment.
            let longest = if task.class == Class::Copy { FIRST_COPY_WAIT } else { LONGEST_FIRST_WAIT };
            later(known.since.min(now), (every / 10).min(longest))
        }
    };
    match known.failed_at.filter(|failed| known.failures > 0 && *failed <= now) {
        Some(failed) => regular.max(later(failed, pause(every, known.failures))),
        None => regular,
    }
}

/// The seed of a task's jitter: the same for ever on this host, another one on the next.
pub fn seed(task: &str, host: &str) -> u64 {
    // FNV-1a; the zero byte keeps "a" on "bc" from being "ab" on "c".
    task.bytes().chain([0]).chain(host.bytes()).fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// How much earlier than its interval says a task is run: less than a tenth of it.
fn jitter(task: &Task, last: Timestamp) -> SignedDuration {
    let span = u64::try_from(length(task.every).as_millis() / 10).unwrap_or(0).max(1);
    // splitmix64, so that one second more gives another jitter.
    let mut mixed = task.seed ^ last.as_second().cast_unsigned().wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    SignedDuration::from_millis(i64::try_from((mixed ^ (mixed >> 31)) % span).unwrap_or(0))
}

/// How long is waited after so many failures.
fn pause(every: SignedDuration, failures: u32) -> SignedDuration {
    let first = (every / 10).clamp(FIRST_PAUSE.0, FIRST_PAUSE.1);
    let doubled = first.saturating_mul(1 << failures.saturating_sub(1).min(16));
    doubled.min(every).min(LONGEST_PAUSE)
}

fn length(duration: Duration) -> SignedDuration {
    SignedDuration::from_secs(i64::try_from(duration.as_seconds()).unwrap_or(i64::MAX))
}

fn later(time: Timestamp, by: SignedDuration) -> Timestamp {
    time.checked_add(by).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests;

//! What somebody has to look at: from what the agent observed to the alerts that are active. `docs/agent.md`, "Alerts".
//!
//! A signal that stopped coming counts as failure: what was not observed is never taken for well. [`conditions`] says what is
//! wrong now; [`Alerts`] raises what lasts and clears what has been gone for a while, so that nothing flickers.

use super::observed::{MarkTrouble, Observed, ObservedComponent, ObservedRepository, Stream};
use crate::decide::streaming::{SlotLevel, slot_level};
use crate::units::{ByteSize, Duration};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;

/// How long a condition must be gone until its alert is cleared.
pub const CLEAR_AFTER: SignedDuration = SignedDuration::from_secs(10);
/// A look at a repository that is older than this is none.
const LOOK_LASTS: SignedDuration = SignedDuration::from_mins(5);
/// WAL that waits longer than this is an alert.
const WAL_WAITS_SECONDS: f64 = 30.0;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Somebody should look at it.
    Warning,
    /// A promise is broken, or about to be.
    Critical,
}

impl Severity {
    /// Its name in labels.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Which alert, about what.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct AlertKey {
    /// Its name, such as `backup_late`.
    pub alert: String,
    /// The component, or the task for `task_failing`.
    pub component: Option<String>,
    /// The repository.
    pub repository: Option<String>,
}

/// Something that is wrong now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    /// Which alert.
    pub key: AlertKey,
    /// How bad.
    pub severity: Severity,
    /// One sentence for people.
    pub summary: String,
    /// How long it must last until the alert is raised.
    pub lasting: SignedDuration,
}

/// An alert that is active.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    /// How bad.
    pub severity: Severity,
    /// One sentence for people.
    pub summary: String,
    /// Since when its condition has lasted.
    pub since: Timestamp,
}

#[derive(Debug, Clone)]
struct Entry {
    alert: Alert,
    is_active: bool,
    good_since: Option<Timestamp>,
}

/// The alerts, with their past.
#[derive(Debug, Clone, Default)]
pub struct Alerts(BTreeMap<AlertKey, Entry>);

impl Alerts {
    /// Takes in what is wrong at `now`. Times that go backwards begin anew.
    pub fn observe(&mut self, conditions: Vec<Condition>, now: Timestamp) {
        let mut bad = std::collections::BTreeSet::new();
        for Condition { key, severity, summary, lasting } in conditions {
            let entry = self.0.entry(key.clone()).or_insert_with(|| Entry {
                alert: Alert { severity, summary: summary.clone(), since: now },
                is_active: false,
                good_since: None,
            });
            (entry.alert.severity, entry.alert.summary, entry.good_since) = (severity, summary, None);
            entry.alert.since = entry.alert.since.min(now);
            entry.is_active |= now.duration_since(entry.alert.since) >= lasting;
            bad.insert(key);
        }
        self.0.retain(|key, entry| {
            if bad.contains(key) {
                return true;
            }
            let since = entry.good_since.map_or(now, |since| since.min(now));
            entry.good_since = Some(since);
            // What was never raised needs no end.
            entry.is_active && now.duration_since(since) < CLEAR_AFTER
        });
    }

    /// The active ones.
    pub fn active(&self) -> impl Iterator<Item = (&AlertKey, &Alert)> {
        self.0.iter().filter(|(_, entry)| entry.is_active).map(|(key, entry)| (key, &entry.alert))
    }

    /// Whether none of the active ones is critical.
    pub fn is_healthy(&self) -> bool {
        self.active().all(|(_, alert)| alert.severity < Severity::Critical)
    }
}

/// Collects conditions.
#[derive(Debug, Default)]
struct Found(Vec<Condition>);

impl Found {
    fn add(
        &mut self,
        alert: &str,
        about: About<'_>,
        severity: Severity,
        lasting_seconds: i64,
        summary: String,
    ) {
        let (component, repository) = match about {
            About::Nothing => (None, None),
            About::Component(name) => (Some(name.to_owned()), None),
            About::Repository(name) => (None, Some(name.to_owned())),
            About::Both(component, repository) => (Some(component.to_owned()), Some(repository.to_owned())),
        };
        let key = AlertKey { alert: alert.to_owned(), component, repository };
        self.0.push(Condition {
            key,
            severity,
            summary,
            lasting: SignedDuration::from_secs(lasting_seconds),
        });
    }
}

#[derive(Debug, Clone, Copy)]
enum About<'a> {
    Nothing,
    Component(&'a str),
    Repository(&'a str),
    Both(&'a str, &'a str),
}

/// What is wrong at `now`.
pub fn conditions(observed: &Observed, now: Timestamp) -> Vec<Condition> {
    let mut found = Found::default();
    components(observed, now, &mut found);
    for task in observed.tasks.iter().filter(|task| task.failures > 0) {
        let why = task.error_code.as_deref().map_or_else(String::new, |code| format!(" ({code})"));
        let summary = format!("`{}` failed {} times in a row{why}", task.name, task.failures);
        found.add("task_failing", About::Component(&task.name), Severity::Warning, 0, summary);
    }
    for repository in &observed.repositories {
        mass_changes(repository, &mut found);
        let is_old =
            |looked: Option<Timestamp>| now.duration_since(looked.unwrap_or(observed.started)) > LOOK_LASTS;
        let why = match &repository.error_code {
            Some(code) => format!("did not answer ({code})"),
            None if is_old(repository.looked) => "was not looked at for five minutes".to_owned(),
            None => continue,
        };
        let name = &repository.name;
        let summary = format!("repository `{name}` {why}");
        found.add("repository_unavailable", About::Repository(name), Severity::Critical, 10, summary);
    }
    for stream in &observed.streams {
        self::stream(stream, &mut found);
        archive(stream, now, &mut found);
        marks(stream, &mut found);
    }
    if observed.damaged == Some(true) {
        let summary = "the last verification found damage in a repository".to_owned();
        found.add("damage_found", About::Nothing, Severity::Critical, 0, summary);
    }
    drill(observed, now, &mut found);
    found.0
}

fn components(observed: &Observed, now: Timestamp, found: &mut Found) {
    for component in &observed.components {
        let allowed = component.age_limit;
        for (repository, newest) in &component.newest {
            let age = now.duration_since(newest.unwrap_or(observed.started)).as_secs();
            if u64::try_from(age).is_ok_and(|age| age > allowed.as_seconds()) {
                let age = Duration::from_seconds(age.unsigned_abs());
                let summary = match newest {
                    Some(_) => format!(
                        "the newest complete snapshot of `{}` is {age} old, {allowed} are allowed",
                        component.name
                    ),
                    None => format!("there is no complete snapshot of `{}`", component.name),
                };
                let about = About::Both(&component.name, repository);
                found.add("backup_late", about, Severity::Critical, 0, summary);
            }
        }
        copies(component, observed.started, now, found);
    }
}

/// Copies that are behind: where there is nothing newer to copy, `backup_late` says what is wrong.
fn copies(component: &ObservedComponent, started: Timestamp, now: Timestamp, found: &mut Found) {
    let allowed = component.copy_age_limit;
    let source = component.newest.iter().filter_map(|(_, time)| *time).max();
    for (repository, newest) in &component.copies {
        let age = now.duration_since(newest.unwrap_or(started)).as_secs();
        let is_old = u64::try_from(age).is_ok_and(|age| age > allowed.as_seconds());
        if is_old && *newest < source {
            let (name, age) = (&component.name, Duration::from_seconds(age.unsigned_abs()));
            let summary = match newest {
                Some(_) => format!(
                    "the newest copy of `{name}` in `{repository}` is {age} old, {allowed} are allowed"
                ),
                None => format!("there is no copy of `{name}` in `{repository}`"),
            };
            found.add("copy_late", About::Both(name, repository), Severity::Critical, 0, summary);
        }
    }
}

fn mass_changes(repository: &ObservedRepository, found: &mut Found) {
    for change in &repository.mass_changes {
        let (component, snapshot, name) = (&change.component, &change.snapshot, &repository.name);
        let summary = format!(
            "much of `{component}` changed at once, as seen in snapshot {snapshot} of {}; nothing older is removed from `{name}` until \
             `retoma forget --accept {snapshot} --repository {name}` says that it was meant",
            change.time.strftime("%Y-%m-%dT%H:%M:%SZ")
        );
        found.add("mass_change", About::Both(component, name), Severity::Critical, 0, summary);
    }
}

fn stream(stream: &Stream, found: &mut Found) {
    let name = &stream.component;
    let about = About::Component(name);
    let down = match (&stream.down, stream.slot.as_ref().map(|slot| slot.is_read)) {
        (Some(why), _) => Some(why.as_str()),
        (None, Some(false)) => Some("nobody reads from its slot"),
        (None, None) if stream.slot_unknown => Some("its server does not say what the slot keeps"),
        _ => None,
    };
    if let Some(why) = down {
        let summary = format!("the WAL of `{name}` is not streamed: {why}");
        found.add("wal_stream_down", about, Severity::Critical, 20, summary);
    }
    for repository in &stream.stuck_repositories {
        let summary = format!("repository `{repository}` does not take the WAL of `{name}`");
        found.add("wal_stream_repository", About::Both(name, repository), Severity::Critical, 0, summary);
    }
    if stream.lag_seconds.is_some_and(|lag| lag > WAL_WAITS_SECONDS) {
        let summary = format!("the WAL of `{name}` waits for more than {WAL_WAITS_SECONDS} s");
        found.add("wal_lag", about, Severity::Critical, 10, summary);
    }
    if stream.has_new_tablespace {
        let summary = format!(
            "`{name}` got a tablespace behind its newest snapshot, and no recovery goes past that; the next backup closes the gap"
        );
        found.add("wal_gap", about, Severity::Critical, 0, summary);
    } else if stream.open_gaps.is_some_and(|gaps| gaps > 0) {
        let summary =
            format!("WAL of `{name}` is missing behind its newest snapshot; the next backup closes the gap");
        found.add("wal_gap", about, Severity::Critical, 0, summary);
    }
    if stream.missing_histories.is_some_and(|histories| histories > 0) {
        let summary = format!(
            "the history of a timeline of `{name}` is not stored, so no older snapshot leads to its WAL; \
             no server that archives has it: give it to `retoma wal push`, from wherever it is"
        );
        found.add("wal_history_missing", about, Severity::Critical, 0, summary);
    }
    if let Some(slot) = &stream.slot {
        let severity = match slot_level(slot.retained_bytes, slot.limit_bytes) {
            SlotLevel::Fine => return,
            SlotLevel::Warning => Severity::Warning,
            SlotLevel::Alarm | SlotLevel::Full => Severity::Critical,
        };
        let (kept, limit) = (ByteSize(slot.retained_bytes), ByteSize(slot.limit_bytes));
        let summary = format!("the slot of `{name}` keeps {kept} of at most {limit}");
        found.add("slot_filling", about, severity, 0, summary);
    }
}

fn archive(stream: &Stream, now: Timestamp, found: &mut Found) {
    let why = match &stream.archive {
        Some(archive) => archive.trouble(stream.archive_promised, now),
        None => stream.archive_unknown.then(|| "its server does not say whether it archives".to_owned()),
    };
    if let Some(why) = why {
        let name = &stream.component;
        let summary = format!("the WAL of `{name}` is not archived: {why}");
        found.add("wal_archive_down", About::Component(name), Severity::Critical, 10, summary);
    }
    let left = stream.archive.as_ref().and_then(|archive| archive.left_behind_on(stream.newest_timeline));
    if let Some((own, newest)) = left.zip(stream.newest_timeline) {
        let name = &stream.component;
        let summary = format!(
            "`{name}` writes on timeline {own}, and its archive has timeline {newest} of another server that was promoted or \
             recovered from it: `recover` brings that one's data back; stop one of the two"
        );
        found.add("wal_split", About::Component(name), Severity::Critical, 10, summary);
    }
}

fn marks(stream: &Stream, found: &mut Found) {
    let name = &stream.component;
    match stream.marks.as_ref().and_then(|marks| marks.trouble.as_ref()) {
        None => {}
        Some(MarkTrouble::MayNot(why)) => {
            let summary = format!(
                "no marks can be written into `{name}`: {why}; give its user the right to (`docs/agent.md`), or set `marks = \"off\"`"
            );
            found.add("marks_not_allowed", About::Component(name), Severity::Warning, 20, summary);
        }
        Some(MarkTrouble::NotTaken(why)) => {
            let summary = format!("`{name}` takes no writes: {why}");
            found.add("marks_stopped", About::Component(name), Severity::Critical, 20, summary);
        }
    }
}

fn drill(observed: &Observed, now: Timestamp, found: &mut Found) {
    let Some(every) = observed.drill_every else { return };
    let drill = observed.drill.as_ref();
    if let Some(drill) = drill.filter(|drill| !drill.is_green) {
        let summary = format!("the last drill `{}` was not green", drill.scenario);
        found.add("drill_failed", About::Nothing, Severity::Critical, 0, summary);
    }
    let last = observed.drill_good.unwrap_or(observed.since);
    let allowed = every.as_seconds().saturating_mul(2);
    if u64::try_from(now.duration_since(last).as_secs()).is_ok_and(|age| age > allowed) {
        let summary = format!("no drill was green for {}", Duration::from_seconds(allowed));
        found.add("drill_late", About::Nothing, Severity::Warning, 0, summary);
    }
}

#[cfg(test)]
mod tests;

//! Which snapshots stay: grandfather-father-son and windows, as a plan with a reason for each snapshot.
//!
//! The rules `last`, `hourly` … `yearly`, `within` and `tags` mean what restic's `forget --keep-…` means: snapshots
//! are looked at per group, newest first; each rule keeps the newest snapshot of a period and counts only periods that
//! have one; while a rule has counts left, the oldest snapshot of the group stays too; `within` looks back from the
//! group's newest snapshot, not from now; a policy without rules keeps everything.
//!
//! Beyond restic, and always on the side of keeping:
//! * A complete snapshot is preferred: an incomplete one stands for a period only where no complete one exists, and
//!   the two are counted apart, so that a month of incomplete snapshots cannot push the complete ones out.
//! * The newest complete snapshot of a group stays, and an incomplete one that is newer than it.
//! * Held snapshots stay. So do snapshots from the future, which count for nothing and are reported.
//! * A snapshot that looks like mass change stays, and so does every one of its component that is not newer, until somebody
//!   says that the change was meant.
//! * The newest snapshot of a manifest stays, since without it nothing can be recovered from nothing.
//!
//! Applying the plan and planning again removes nothing more; a larger policy never removes more. Nothing is deleted
//! here.

mod period;

use jiff::{Span, Timestamp, tz::TimeZone};
use period::{Period, Rule};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The tag of a snapshot that must never be removed.
pub const HOLD_TAG: &str = "retoma:hold";
/// The tag of a snapshot of a manifest.
pub const MANIFEST_TAG: &str = "retoma:manifest";
/// The tag of a snapshot that looks like mass change, which nobody has said was meant.
pub const MASS_CHANGE_TAG: &str = "retoma:mass-change";
/// The count of a rule that keeps every period.
pub const ALL: u32 = u32::MAX;

/// What shall stay. A count of 0 turns its rule off; [`ALL`] has no limit.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Newest snapshots.
    pub last: u32,
    /// Hours with a snapshot.
    pub hourly: u32,
    /// Days with a snapshot.
    pub daily: u32,
    /// ISO weeks with a snapshot.
    pub weekly: u32,
    /// Months with a snapshot.
    pub monthly: u32,
    /// Years with a snapshot.
    pub yearly: u32,
    /// Everything that is younger than this, seen from the group's newest snapshot.
    pub within: Option<Span>,
    /// Snapshots with one of these tags.
    pub tags: Vec<String>,
}

impl Policy {
    /// Whether it has no rule at all; it then keeps everything.
    pub fn is_empty(&self) -> bool {
        Rule::ALL.iter().all(|rule| self.count(*rule) == 0) && self.within.is_none() && self.tags.is_empty()
    }

    fn count(&self, rule: Rule) -> u32 {
        match rule {
            Rule::Last => self.last,
            Rule::Hourly => self.hourly,
            Rule::Daily => self.daily,
            Rule::Weekly => self.weekly,
            Rule::Monthly => self.monthly,
            Rule::Yearly => self.yearly,
        }
    }
}

/// Snapshots that must stay, beside those with [`HOLD_TAG`].
#[derive(Debug, Clone, Default)]
pub struct Holds {
    /// Ids, or beginnings of ids. A beginning that fits several snapshots holds all of them.
    pub ids: BTreeSet<String>,
    /// Tags.
    pub tags: BTreeSet<String>,
}

/// The snapshots that are looked at together: one component of one host, with the same paths.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize)]
pub struct GroupKey {
    /// The host that wrote them.
    pub host: String,
    /// The component, where it is known.
    pub component: Option<String>,
    /// What was backed up.
    pub paths: Vec<String>,
}

/// What the plan needs to know about a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotFacts {
    /// Its full id.
    pub id: String,
    /// When it was made, by the clock of its host.
    pub time: Timestamp,
    /// Its group.
    pub group: GroupKey,
    /// Its tags.
    pub tags: BTreeSet<String>,
    /// Whether a source could not be read completely.
    pub incomplete: bool,
}

impl SnapshotFacts {
    fn has_tag(&self, tag: &str) -> bool {
        self.tags.contains(tag)
    }
}

/// What to do with each snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Plan {
    /// One decision per snapshot: by group, then newest first.
    pub decisions: Vec<Decision>,
    /// Holds that fit no snapshot: perhaps a typing error, perhaps a snapshot that is gone already.
    pub unmatched_holds: Vec<String>,
}

impl Plan {
    /// Ids to remove.
    pub fn removed(&self) -> impl Iterator<Item = &str> {
        self.decisions.iter().filter(|decision| !decision.is_kept()).map(|decision| decision.id.as_str())
    }

    /// Ids that stay.
    pub fn kept(&self) -> impl Iterator<Item = &str> {
        self.decisions.iter().filter(|decision| decision.is_kept()).map(|decision| decision.id.as_str())
    }

    /// Ids of snapshots whose time is later than now: a clock is wrong.
    pub fn from_the_future(&self) -> impl Iterator<Item = &str> {
        let future = |decision: &&Decision| decision.keep_reasons().contains(&KeepReason::FromTheFuture);
        self.decisions.iter().filter(future).map(|decision| decision.id.as_str())
    }
}

/// What to do with one snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Decision {
    /// The snapshot.
    pub id: String,
    /// Its time.
    pub time: Timestamp,
    /// Its group.
    pub group: GroupKey,
    /// Keep or remove, and why.
    #[serde(flatten)]
    pub action: Action,
}

impl Decision {
    /// Whether the snapshot stays.
    pub fn is_kept(&self) -> bool {
        matches!(self.action, Action::Keep { .. })
    }

    /// Why it stays; empty when it does not.
    pub fn keep_reasons(&self) -> &[KeepReason] {
        match &self.action {
            Action::Keep { reasons } => reasons,
            Action::Remove { .. } => &[],
        }
    }
}

/// Keep or remove, and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// It stays, for all these reasons; there is at least one.
    Keep {
        /// The reasons.
        reasons: Vec<KeepReason>,
    },
    /// It goes.
    Remove {
        /// The reason.
        reason: RemoveReason,
    },
}

/// Why a snapshot stays. `Display` gives the words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum KeepReason {
    /// The policy has no rule.
    NoPolicy,
    /// One of the newest.
    Last {
        /// Its place, 1 being the newest.
        place: u32,
        /// How many stay.
        of: u32,
    },
    /// The newest of its period.
    Newest {
        /// For example `daily 2026-11-21`.
        period: String,
        /// Whether it stands for the period only because no complete snapshot does.
        incomplete: bool,
    },
    /// The oldest of its group, while a rule has counts left.
    Oldest {
        /// The rule, for example `daily`.
        rule: String,
    },
    /// Younger than the window.
    Within {
        /// The window, for example `30d`.
        window: String,
    },
    /// Has a tag that the policy keeps.
    Tag {
        /// The tag.
        tag: String,
    },
    /// Held.
    Hold {
        /// The tag or the beginning of the id that holds it.
        by: String,
    },
    /// It looks like mass change, or is not newer than one of its component that does.
    MassChange {
        /// The full id of the newest such one.
        snapshot: String,
    },
    /// The newest complete one of its group, and there are older ones.
    NewestComplete,
    /// The only complete one of its group.
    OnlyComplete,
    /// Incomplete, and nothing newer is complete.
    NewestIncomplete,
    /// The newest snapshot of a manifest.
    NewestManifest,
    /// Its time is later than now.
    FromTheFuture,
}

impl fmt::Display for KeepReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoPolicy => f.write_str("no rule is set, so everything stays"),
            Self::Last { of: ALL, .. } => f.write_str("last, without limit"),
            Self::Last { place, of } => write!(f, "last {place} of {of}"),
            Self::Newest { period, incomplete: false } => f.write_str(period),
            Self::Newest { period, incomplete: true } => write!(f, "{period}, incomplete"),
            Self::Oldest { rule } => write!(f, "oldest, {rule} has counts left"),
            Self::Within { window } => write!(f, "within {window}"),
            Self::Tag { tag } => write!(f, "tag {tag}"),
            Self::Hold { by } => write!(f, "hold {by}"),
            Self::MassChange { snapshot } => {
                let short: String = snapshot.chars().take(8).collect();
                write!(f, "not newer than the mass change in {short}")
            }
            Self::NewestComplete => f.write_str("the newest complete snapshot of its component"),
            Self::OnlyComplete => f.write_str("the only complete snapshot of its component"),
            Self::NewestIncomplete => f.write_str("incomplete, and nothing newer is complete"),
            Self::NewestManifest => f.write_str("the newest manifest"),
            Self::FromTheFuture => f.write_str("its time lies in the future: check the clocks"),
        }
    }
}

/// Why a snapshot goes. `Display` gives the words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RemoveReason {
    /// It is complete, and no rule keeps it.
    NoRule,
    /// It is incomplete, and no rule keeps it or complete ones stand for its periods.
    Incomplete,
}

impl fmt::Display for RemoveReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoRule => "no rule keeps it",
            Self::Incomplete => "incomplete, and no rule keeps it",
        })
    }
}

/// Decides about all `snapshots`, as seen at `now`; hours, days and so on are those of `zone`.
pub fn plan(
    snapshots: &[SnapshotFacts],
    policy: &Policy,
    holds: &Holds,
    now: Timestamp,
    zone: &TimeZone,
) -> Plan {
    let mut groups: BTreeMap<&GroupKey, Vec<Candidate<'_>>> = BTreeMap::new();
    for facts in snapshots {
        groups.entry(&facts.group).or_default().push(Candidate { facts, reasons: Vec::new() });
    }
    let newest_manifest = newest_manifest(snapshots, now);
    let mass_changes = mass_changes(snapshots);
    let mut decisions = Vec::with_capacity(snapshots.len());
    for group in groups.values_mut() {
        group.sort_by(|a, b| newest_first(a.facts, b.facts));
        for candidate in &mut *group {
            keep_regardless(candidate, holds, newest_manifest, now);
            let newest = mass_changes.get(&candidate.facts.group.component.as_deref());
            if let Some(newest) = newest.filter(|newest| candidate.facts.time <= newest.time) {
                candidate.reasons.push(KeepReason::MassChange { snapshot: newest.id.clone() });
            }
        }
        let (mut future, mut past): (Vec<_>, Vec<_>) =
            std::mem::take(group).into_iter().partition(|candidate| candidate.facts.time > now);
        apply_policy(&mut past, policy, zone);
        keep_last_good(&mut past);
        future.append(&mut past);
        decisions.extend(future.into_iter().map(Candidate::decide));
    }
    Plan { decisions, unmatched_holds: unmatched(holds, snapshots) }
}

/// A snapshot and why it stays, as far as that is known.
struct Candidate<'a> {
    facts: &'a SnapshotFacts,
    reasons: Vec<KeepReason>,
}

impl Candidate<'_> {
    fn decide(self) -> Decision {
        let action = if !self.reasons.is_empty() {
            Action::Keep { reasons: self.reasons }
        } else if self.facts.incomplete {
            Action::Remove { reason: RemoveReason::Incomplete }
        } else {
            Action::Remove { reason: RemoveReason::NoRule }
        };
        let facts = self.facts;
        Decision { id: facts.id.clone(), time: facts.time, group: facts.group.clone(), action }
    }
}

/// Ids break ties, so that the order of the input never matters.
fn newest_first(a: &SnapshotFacts, b: &SnapshotFacts) -> std::cmp::Ordering {
    b.time.cmp(&a.time).then_with(|| a.id.cmp(&b.id))
}

/// The reasons that no policy can overrule.
fn keep_regardless(
    candidate: &mut Candidate<'_>,
    holds: &Holds,
    newest_manifest: Option<&str>,
    now: Timestamp,
) {
    let facts = candidate.facts;
    if facts.time > now {
        candidate.reasons.push(KeepReason::FromTheFuture);
    }
    let tags = std::iter::once(HOLD_TAG).chain(holds.tags.iter().map(String::as_str));
    let by_tag = tags.filter(|tag| facts.has_tag(tag));
    let by_id = holds.ids.iter().filter(|id| holds_id(id, &facts.id)).map(String::as_str);
    let by: BTreeSet<&str> = by_tag.chain(by_id).collect();
    candidate.reasons.extend(by.into_iter().map(|by| KeepReason::Hold { by: by.to_owned() }));
    if newest_manifest == Some(facts.id.as_str()) {
        candidate.reasons.push(KeepReason::NewestManifest);
    }
}

fn holds_id(hold: &str, id: &str) -> bool {
    !hold.is_empty() && id.starts_with(hold)
}

fn unmatched(holds: &Holds, snapshots: &[SnapshotFacts]) -> Vec<String> {
    let ids = holds.ids.iter().filter(|hold| !snapshots.iter().any(|facts| holds_id(hold, &facts.id)));
    let tags = holds.tags.iter().filter(|tag| !snapshots.iter().any(|facts| facts.has_tag(tag)));
    ids.chain(tags).cloned().collect()
}

/// The newest complete manifest that is not from the future, or else the newest incomplete one.
fn newest_manifest(snapshots: &[SnapshotFacts], now: Timestamp) -> Option<&str> {
    let manifests = snapshots.iter().filter(|facts| facts.has_tag(MANIFEST_TAG) && facts.time <= now);
    manifests
        .min_by(|a, b| a.incomplete.cmp(&b.incomplete).then_with(|| newest_first(a, b)))
        .map(|facts| facts.id.as_str())
}

/// The newest snapshot of each component that looks like mass change. By component and not by group: whoever changed the
/// data may have changed the host's name, too.
fn mass_changes(snapshots: &[SnapshotFacts]) -> BTreeMap<Option<&str>, &SnapshotFacts> {
    let mut newest: BTreeMap<Option<&str>, &SnapshotFacts> = BTreeMap::new();
    for facts in snapshots.iter().filter(|facts| facts.has_tag(MASS_CHANGE_TAG)) {
        let known = newest.entry(facts.group.component.as_deref()).or_insert(facts);
        if newest_first(facts, known).is_lt() {
            *known = facts;
        }
    }
    newest
}

/// Adds the policy's reasons to one group's snapshots, newest first.
fn apply_policy(group: &mut [Candidate<'_>], policy: &Policy, zone: &TimeZone) {
    if policy.is_empty() {
        for candidate in group {
            candidate.reasons.push(KeepReason::NoPolicy);
        }
        return;
    }
    for candidate in &mut *group {
        let tags = policy.tags.iter().filter(|tag| candidate.facts.has_tag(tag));
        candidate.reasons.extend(tags.map(|tag| KeepReason::Tag { tag: tag.clone() }));
    }
    if let Some(within) = policy.within {
        keep_within(group, within, zone);
    }
    for rule in Rule::ALL {
        keep_periods(group, rule, policy.count(rule), zone);
    }
}

fn keep_within(group: &mut [Candidate<'_>], within: Span, zone: &TimeZone) {
    let Some(newest) = group.first().map(|candidate| candidate.facts.time) else { return };
    // A window too long for the calendar reaches back to the beginning of time.
    let since = newest.to_zoned(zone.clone()).checked_sub(within.abs());
    let since = since.map_or(Timestamp::MIN, |zoned| zoned.timestamp());
    for candidate in group {
        if candidate.facts.time > since {
            candidate.reasons.push(KeepReason::Within { window: format!("{:#}", within.abs()) });
        }
    }
}

/// One rule: the newest of each period, complete ones and incomplete ones counted apart.
fn keep_periods(group: &mut [Candidate<'_>], rule: Rule, count: u32, zone: &TimeZone) {
    let complete_periods = keep_complete(group, rule, count, zone);
    let mut left = count;
    let mut previous: Option<Period> = None;
    let incomplete = group.iter_mut().filter(|candidate| candidate.facts.incomplete);
    for (place, candidate) in incomplete.enumerate() {
        let period = rule.period(candidate.facts.time, place, zone);
        if left == 0 || previous.as_ref() == Some(&period) {
            continue;
        }
        left = spend(left);
        // It counts also where a complete one stands for the period: were it not counted, removing that complete one
        // would free a place and push an older snapshot out in the next plan.
        let covered = match rule {
            Rule::Last => !complete_periods.is_empty(),
            _ => complete_periods.contains(&period),
        };
        if !covered {
            candidate.reasons.push(newest_of(rule, &period, place, count, true));
        }
        previous = Some(period);
    }
}

/// The complete snapshots of [`keep_periods`]; gives all periods that have one, kept or not.
fn keep_complete(group: &mut [Candidate<'_>], rule: Rule, count: u32, zone: &TimeZone) -> BTreeSet<Period> {
    let mut periods = BTreeSet::new();
    let mut left = count;
    let mut complete: Vec<_> = group.iter_mut().filter(|candidate| !candidate.facts.incomplete).collect();
    let oldest = complete.len().saturating_sub(1);
    for (place, candidate) in complete.iter_mut().enumerate() {
        let period = rule.period(candidate.facts.time, place, zone);
        let is_new = periods.insert(period.clone());
        if left == 0 {
            continue;
        }
        if is_new {
            left = spend(left);
            candidate.reasons.push(newest_of(rule, &period, place, count, false));
        } else if place == oldest {
            candidate.reasons.push(KeepReason::Oldest { rule: rule.name().to_owned() });
        }
    }
    periods
}

fn spend(left: u32) -> u32 {
    if left == ALL { ALL } else { left.saturating_sub(1) }
}

fn newest_of(rule: Rule, period: &Period, place: usize, count: u32, incomplete: bool) -> KeepReason {
    if rule == Rule::Last {
        let place = u32::try_from(place).unwrap_or(ALL).saturating_add(1);
        return KeepReason::Last { place, of: count };
    }
    KeepReason::Newest { period: format!("{} {period}", rule.name()), incomplete }
}

/// What can be restored stays restorable: the newest complete snapshot, and a newer incomplete one.
fn keep_last_good(group: &mut [Candidate<'_>]) {
    let complete = group.iter().filter(|candidate| !candidate.facts.incomplete).count();
    if let Some(newest) = group.iter_mut().find(|candidate| !candidate.facts.incomplete) {
        let reason = if complete == 1 { KeepReason::OnlyComplete } else { KeepReason::NewestComplete };
        newest.reasons.push(reason);
    }
    if let Some(newest) = group.first_mut().filter(|candidate| candidate.facts.incomplete) {
        newest.reasons.push(KeepReason::NewestIncomplete);
    }
}

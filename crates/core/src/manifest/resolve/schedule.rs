//! Schedules from tiers, and the rule that a schedule must meet its RPO.
//!
//! Lost in the worst case is what was written since the *start* of the last stored backup. The next one starts `every`
//! later and counts only when it is captured and uploaded. So `every` + the time for that must not pass the RPO. How long
//! it takes is not known before the first backup; an allowance is declared instead (by default a tenth of the RPO), and
//! drills compare it with what they measure.
//!
//! Where WAL ships by itself and meets the RPO, a backup is only where a recovery begins: its interval decides how much WAL
//! has to be replayed, not what is lost.

use super::view::View;
use crate::error::codes;
use crate::manifest::model::{Retention, Schedule};
use crate::manifest::problem::{Draft, quoted};
use crate::manifest::tier::{Objectives, Tier};
use crate::manifest::wal::WalSettings;
use crate::units::Duration;

/// Backups are at least hourly, also where the RPO would allow less.
const LONGEST_DEFAULT: Duration = Duration::HOUR;
/// How often a server is backed up whose WAL meets the RPO.
const WITH_WAL_DEFAULT: Duration = Duration::DAY;

/// The schedule that a tier has when the manifest says nothing.
pub(in crate::manifest) fn default_schedule(objectives: Objectives) -> Schedule {
    let capture_allowance = default_allowance(objectives);
    let longest = objectives.rpo.saturating_sub(capture_allowance);
    Schedule { every: longest.min(LONGEST_DEFAULT), capture_allowance, shipped_within: None }
}

/// How long after it was written WAL is in the repositories at the latest, if that is promised and meets the RPO. A segment
/// has a tenth of the RPO to get there.
pub(super) fn shipped_within(wal: &WalSettings, objectives: Objectives) -> Option<Duration> {
    wal.shipped_within(default_allowance(objectives)).filter(|within| *within <= objectives.rpo)
}

fn default_allowance(objectives: Objectives) -> Duration {
    Duration::from_seconds(objectives.rpo.as_seconds().div_ceil(10))
}

/// What the schedule of a component depends on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scheduled<'a> {
    pub(super) name: &'a str,
    pub(super) tier: Tier,
    pub(super) objectives: Objectives,
    /// Whether the component can ship WAL.
    pub(super) has_wal: bool,
    /// See [`shipped_within`].
    pub(super) shipped_within: Option<Duration>,
}

/// The schedule of a component: its own `[component.schedule]`, then the global one, then the tier's.
pub(super) fn schedule(
    of: Scheduled<'_>,
    own: Option<View<'_>>,
    global: Option<View<'_>>,
    found: &mut Vec<Draft>,
) -> Option<Schedule> {
    const EVERY: &str = "every";
    const ALLOWANCE: &str = "capture_allowance_seconds";
    let Scheduled { name, tier, objectives, has_wal, shipped_within } = of;
    let holder = |key| [own, global].into_iter().flatten().find(|view: &View<'_>| view.has(key));
    let rpo = objectives.rpo;
    let capture_allowance = match holder(ALLOWANCE) {
        Some(view) => Duration::from_seconds(view.number(ALLOWANCE)?),
        None => default_allowance(objectives),
    };
    if shipped_within.is_some() {
        let every = holder(EVERY).map_or(Some(WITH_WAL_DEFAULT), |view| view.duration(EVERY))?;
        return Some(Schedule { every, capture_allowance, shipped_within });
    }
    let or_wal = if has_wal { "ship its WAL with `mode = \"stream\"` in `[component.wal]`, " } else { "" };
    let longest = rpo.saturating_sub(capture_allowance);
    if longest.is_zero() {
        let span = holder(ALLOWANCE).map_or(0..0, |view| view.span_of(ALLOWANCE).clone());
        let message = format!(
            "component {} (tier `{tier}`, RPO {rpo}) has no time left between backups: {capture_allowance} are set aside \
             for capture and upload",
            quoted(name)
        );
        let hint = format!(
            "set `{ALLOWANCE}` below {}, {or_wal}or choose a tier with a longer RPO",
            rpo.as_seconds()
        );
        found.push(Draft::error(codes::MANIFEST_RPO, &span, message).hint(hint));
        return None;
    }
    let Some(view) = holder(EVERY) else {
        return Some(Schedule { every: longest.min(LONGEST_DEFAULT), capture_allowance, shipped_within });
    };
    let every = view.duration(EVERY)?;
    let schedule = Schedule { every, capture_allowance, shipped_within };
    if every > longest {
        let message = format!(
            "component {} (tier `{tier}`) cannot meet its RPO of {rpo}: a backup every {every} and {capture_allowance} to \
             capture and upload it may lose {}",
            quoted(name),
            schedule.worst_case()
        );
        let is_own = own.is_some_and(|own| own.has(EVERY));
        let place = if is_own { "" } else { " in a `[component.schedule]` of its own" };
        let hint =
            format!("set `every` to `{longest}` or less{place}, {or_wal}or choose a tier with a longer RPO");
        found.push(Draft::error(codes::MANIFEST_RPO, view.span_of(EVERY), message).hint(hint));
        return None;
    }
    Some(schedule)
}

/// The rules of one `[retention]` table; `None` when it has none. `holds` are no rule.
pub(super) fn retention(view: Option<View<'_>>, found: &mut Vec<Draft>) -> Option<Retention> {
    const RULES: [&str; 7] = ["keep_last", "hourly", "daily", "weekly", "monthly", "yearly", "keep_within"];
    let view = view?;
    if !RULES.iter().any(|rule| view.has(rule)) {
        return None;
    }
    let count = |key| view.number(key).unwrap_or(0);
    let rules = Retention {
        keep_last: count("keep_last"),
        hourly: count("hourly"),
        daily: count("daily"),
        weekly: count("weekly"),
        monthly: count("monthly"),
        yearly: count("yearly"),
        keep_within: view.duration("keep_within").unwrap_or(Duration::ZERO),
        holds: Vec::new(),
    };
    // A rule that is malformed would have kept something; it is reported already.
    if RULES.iter().all(|rule| !view.has(rule) || view.number(rule) == Some(0u32)) {
        let draft = Draft::error(codes::MANIFEST_RETENTION, view.span, "this retention keeps nothing");
        found.push(draft.hint("give at least one rule a number above 0, or remove them all to keep 30 days"));
    }
    Some(rules)
}

/// The held tags of one `[retention]` table.
pub(super) fn holds(view: Option<View<'_>>) -> Vec<String> {
    let texts = view.and_then(|view| view.texts("holds")).unwrap_or_default();
    texts.into_iter().map(|(tag, _)| tag.to_owned()).collect()
}

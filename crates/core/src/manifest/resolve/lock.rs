//! Locks of objects: only where the store has them, and never for longer than snapshots are kept.

use super::view::View;
use crate::error::codes;
use crate::manifest::model::{Component, Retention, Schedule};
use crate::manifest::problem::{Draft, quoted};

const DAYS: &str = "lock_days";
const MODE: &str = "lock_mode";

/// Reports what does not fit of `lock_days` and `lock_mode`.
pub(super) fn check(views: &[View<'_>], components: &[Component], found: &mut Vec<Draft>) {
    for view in views {
        if view.has(MODE) && !view.has(DAYS) {
            found.push(
                Draft::error(
                    codes::MANIFEST_CONFLICT,
                    view.span_of(MODE),
                    "`lock_mode` without `lock_days` locks nothing",
                )
                .hint("add `lock_days`, or remove `lock_mode`"),
            );
        }
        let Some((days, name)) = view.number::<u32>(DAYS).zip(view.text("name")) else { continue };
        let has_locks = |url: &str| ["s3://", "gs://", "az://"].iter().any(|scheme| url.starts_with(scheme));
        if !view.text("url").is_some_and(has_locks) {
            found.push(
                Draft::error(
                    codes::MANIFEST_CONFLICT,
                    view.span_of(DAYS),
                    "only objects in `s3://`, `gs://` and `az://` can be locked",
                )
                .hint("remove `lock_days`; docs/immutability.md says what helps elsewhere"),
            );
        }
        let lies_there = |component: &&Component| {
            component.repositories.iter().chain(&component.copies).any(|repository| repository == name)
        };
        for component in components.iter().filter(lies_there) {
            let kept_days = reach_days(&component.retention, component.schedule);
            if kept_days < u64::from(days) {
                let message = format!(
                    "objects are locked for {days} days, and component {} keeps its snapshots for {kept_days}",
                    quoted(&component.name)
                );
                found.push(Draft::error(codes::MANIFEST_CONFLICT, view.span_of(DAYS), message).hint(
                    format!(
                        "keep more, as with `keep_within = \"{days}d\"` in `[retention]`, or lock for less"
                    ),
                ));
            }
        }
    }
}

/// How many whole days back the rules keep a snapshot.
fn reach_days(retention: &Retention, schedule: Schedule) -> u64 {
    let last = u64::from(retention.keep_last).saturating_mul(schedule.every.as_seconds()) / 86_400;
    let counted = [
        (retention.hourly, 1, 24),
        (retention.daily, 1, 1),
        (retention.weekly, 7, 1),
        (retention.monthly, 28, 1),
        (retention.yearly, 365, 1),
    ];
    let counted = counted.into_iter().map(|(count, days, of)| u64::from(count) * days / of);
    counted.chain([last, retention.keep_within.as_seconds() / 86_400]).max().unwrap_or(0)
}

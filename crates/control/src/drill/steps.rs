//! Steps that drills of services and of servers share.

use super::report::{Head, ran_with};
use super::{Context, DETECT_LIMIT, Scenario};
use crate::backup::ComponentBackup;
use crate::watch::Note;
use retoma_core::drill::Seconds;
use retoma_core::manifest::Manifest;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::Repository;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What names a drill that begins now.
pub(super) fn head(
    manifest: &Manifest,
    scenario: Scenario,
    repository: &Repository,
    context: &Context<'_>,
) -> Head {
    let started = jiff::Timestamp::now();
    Head {
        drill: format!("{}-{}", started.strftime("%Y%m%dT%H%M%S"), std::process::id()),
        scenario,
        started,
        repeat: context.repeat.to_owned(),
        environment: ran_with(manifest, repository, context),
    }
}

/// Does `work` until the manifest's time limit, with an interrupt of its own.
pub(super) fn within_limit(
    manifest: &Manifest,
    context: &Context<'_>,
    work: impl FnOnce(&Context<'_>) -> Result<()>,
) -> Result<()> {
    let limit = Duration::from_secs(manifest.drill.timeout_seconds);
    let (done, timed_out) = (AtomicBool::new(false), AtomicBool::new(false));
    std::thread::scope(|scope| {
        // The limit works as a stop that somebody asked for, on a flag of its own.
        let own = crate::interrupt::Interrupt::default();
        let (stop, outer, finished, late) = (own.clone(), context.interrupt.clone(), &done, &timed_out);
        let deadline = context.clock.elapsed() + limit;
        let clock = context.clock;
        scope.spawn(move || {
            while !finished.load(Ordering::Relaxed) && !stop.is_set() {
                let is_late = clock.elapsed() > deadline;
                if is_late || outer.is_set() {
                    late.store(is_late && !outer.is_set(), Ordering::Relaxed);
                    stop.set();
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let context = Context { interrupt: &own, ..*context };
        let result = work(&context);
        done.store(true, Ordering::Relaxed);
        match result {
            Err(error) if timed_out.load(Ordering::Relaxed) => {
                let message = format!("the drill did not end within {} s", limit.as_secs());
                let error =
                    Error::new(ErrorKind::Unavailable, codes::DRILL_TIMEOUT, message).with_source(error);
                Err(error
                    .with_hint("look at where it stopped; `timeout_seconds` in `[drill]` gives it more time"))
            }
            other => other,
        }
    })
}

/// A backup that a drill can build on: it is told, and must not lack anything.
///
/// # Errors
/// `Unavailable` with the first path that could not be read.
pub(super) fn complete(done: &ComponentBackup, context: &Context<'_>) -> Result<()> {
    if let Some(unreadable) = done.summary.unreadable.first() {
        let path = unreadable.path.escape_ascii();
        let message = format!("the backup of `{}` is incomplete: `{path}`", done.component);
        return Err(Error::new(ErrorKind::Unavailable, codes::SOURCE_UNREADABLE, message)
            .with_source(unreadable.error.to_string()));
    }
    context.watch.note(&Note::BackedUp {
        component: done.component.clone(),
        total_bytes: done.summary.total_bytes,
        stored_bytes: done.summary.stored_bytes,
        elapsed: done.elapsed,
    });
    Ok(())
}

/// What a component could lose at the worst moment: the interval, and what bringing it into the repository takes.
pub(super) fn worst_case(interval: Duration, exposed: Duration) -> Seconds {
    Seconds::from_duration(interval.saturating_add(exposed))
}

/// Looks until something is wrong, twice in a row, so that a hiccup is no disaster. Gives what it saw.
///
/// # Errors
/// `Unavailable` with `R0705` (`NOT_DETECTED`) when nothing is seen in time; `Cancelled`.
pub(super) fn noticed(context: &Context<'_>, look: impl Fn() -> Option<String>) -> Result<String> {
    let mut in_a_row = 0;
    let saw = context.interrupt.wait_for(DETECT_LIMIT, || {
        let saw = look();
        in_a_row = if saw.is_some() { in_a_row + 1 } else { 0 };
        Ok(saw.filter(|_| in_a_row >= 2))
    })?;
    saw.ok_or_else(|| {
        let message = format!("no probe noticed the disaster within {} s", DETECT_LIMIT.as_secs());
        Error::new(ErrorKind::Unavailable, codes::NOT_DETECTED, message)
    })
}

#[cfg(test)]
mod tests;

//! The waterfall in whole milliseconds, for people.

use super::Language;
use super::language::step_label;
use crate::drill::Waterfall;

/// One bar.
pub(super) struct Bar {
    /// The step's name, as it came: not yet clean, not escaped.
    pub(super) label: String,
    pub(super) start_millis: u64,
    pub(super) duration_millis: u64,
    /// Where the bar starts, from 0 to 1.
    pub(super) start_share: f64,
    /// How long the bar is, from 0 to 1.
    pub(super) share: f64,
    /// Whether it belongs to the step that takes the most.
    pub(super) dominates: bool,
}

/// The bars. Boundaries are rounded, not durations: what is printed adds up to the printed total, and each bar starts
/// where the one before ends.
pub(super) fn bars(waterfall: &Waterfall, language: Language) -> Vec<Bar> {
    let total = waterfall.total();
    let dominating = waterfall.dominating().map(|(name, _)| name);
    let bar = |step| {
        let step: &crate::drill::Step = step;
        let start_millis = step.start_seconds.as_millis_rounded();
        Bar {
            label: step_label(step, language),
            start_millis,
            duration_millis: step.end_seconds().as_millis_rounded().saturating_sub(start_millis),
            start_share: step.start_seconds.share_of(total),
            share: step.duration_seconds.share_of(total),
            dominates: dominating == Some(step.name),
        }
    };
    waterfall.steps().iter().map(bar).collect()
}

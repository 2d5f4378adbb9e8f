//! What a drill's facts say: the verdict, and the RPO counted from markers.
//!
//! Invariants: a verdict is green only when every required component has a result with at least one check, all of
//! them passed, both its RTO and the larger of its two RPOs were measured and meet their objectives, and the verifier
//! was shown to refuse something broken and to accept something sound. Missing evidence is red, never green. A broken
//! verifier outweighs everything else, since then no other answer counts.

use crate::drill::{
    CheckOutcome, ComponentResult, Contradiction, ControlKind, ControlOutcome, ControlResult, DrillReport,
    Evidence, Failure, Reason, RpoBasis, Seconds, VerdictKind, Waterfall,
};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

/// What the verdict looks at.
#[derive(Debug, Clone, Copy)]
pub struct DrillFacts<'a> {
    /// The components that had to come back.
    pub required_components: &'a [String],
    /// What came back.
    pub components: &'a [ComponentResult],
    /// How long each step took.
    pub waterfall: &'a Waterfall,
    /// The tests of the verifier.
    pub controls: &'a [ControlResult],
    /// What ended the drill early.
    pub failure: Option<&'a Failure>,
}

impl<'a> From<&'a DrillReport> for DrillFacts<'a> {
    fn from(report: &'a DrillReport) -> Self {
        Self {
            required_components: &report.required_components,
            components: &report.components,
            waterfall: &report.waterfall,
            controls: &report.controls,
            failure: report.failure.as_ref(),
        }
    }
}

/// What follows from the facts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Everything is shown.
    Green,
    /// Something was missed, failed, or is not shown.
    Red {
        /// All of it.
        reasons: Vec<Reason>,
    },
    /// The verifier cannot be trusted.
    BrokenVerifier {
        /// First what is wrong with the verifier, then what would have made the drill red anyway.
        reasons: Vec<Reason>,
    },
}

impl Verdict {
    /// The verdict without its reasons.
    pub fn kind(&self) -> VerdictKind {
        match self {
            Self::Green => VerdictKind::Green,
            Self::Red { .. } => VerdictKind::Red,
            Self::BrokenVerifier { .. } => VerdictKind::BrokenVerifier,
        }
    }

    /// Why it is not green; empty when it is.
    pub fn reasons(&self) -> &[Reason] {
        match self {
            Self::Green => &[],
            Self::Red { reasons } | Self::BrokenVerifier { reasons } => reasons,
        }
    }

    /// The exit code of a drill with this verdict: 0 for green, otherwise 4.
    pub fn exit_code(&self) -> u8 {
        exit_code(self.kind())
    }
}

/// The exit code of a drill: 0 for green, otherwise 4 ("an objective or check missed").
pub fn exit_code(verdict: VerdictKind) -> u8 {
    match verdict {
        VerdictKind::Green => 0,
        VerdictKind::Red | VerdictKind::BrokenVerifier => 4,
    }
}

/// The verdict about `facts`, with all reasons, in the order of the facts.
pub fn verdict(facts: &DrillFacts<'_>) -> Verdict {
    // A drill that failed before its verifier was tested is red: that no control was run follows from the failure.
    let was_tested = facts.failure.is_none() || !facts.controls.is_empty();
    let mut about_verifier = if was_tested { control_reasons(facts.controls) } else { Vec::new() };
    let failed = |it: &Failure| Reason::Failed { code: it.code.clone(), message: it.message.clone() };
    let mut about_recovery: Vec<Reason> = facts.failure.map(failed).into_iter().collect();
    about_recovery.extend(completeness_reasons(facts));
    for component in facts.components {
        component_reasons(component, facts.waterfall.total(), &mut about_recovery);
    }
    if !about_verifier.is_empty() {
        about_verifier.append(&mut about_recovery);
        return Verdict::BrokenVerifier { reasons: about_verifier };
    }
    if about_recovery.is_empty() { Verdict::Green } else { Verdict::Red { reasons: about_recovery } }
}

fn control_reasons(controls: &[ControlResult]) -> Vec<Reason> {
    let mut reasons: Vec<Reason> = controls.iter().filter_map(control_reason).collect();
    if !controls.iter().any(|control| control.kind == ControlKind::Negative) {
        reasons.push(Reason::NoNegativeControl);
    }
    if !controls.iter().any(|control| control.kind == ControlKind::Positive) {
        reasons.push(Reason::NoPositiveControl);
    }
    reasons
}

/// The codes decide; what the control says about itself must agree with them.
fn control_reason(result: &ControlResult) -> Option<Reason> {
    let control = result.name.clone();
    let expected = result.expected_code.as_deref();
    let found = result.found_code.as_deref();
    let judged = ControlResult::judge(result.kind, expected, found);
    if judged == ControlOutcome::AsExpected {
        return (result.outcome != judged).then_some(Reason::ControlMisjudged { control });
    }
    Some(match (result.kind, expected.filter(|code| !code.is_empty()), found) {
        (ControlKind::Negative, None, _) | (ControlKind::Positive, Some(_), None) => {
            Reason::ControlMalformed { control }
        }
        (ControlKind::Negative, Some(expected), None) => {
            Reason::ControlAccepted { control, expected_code: expected.to_owned() }
        }
        (ControlKind::Negative, Some(expected), Some(found)) => Reason::ControlOtherCode {
            control,
            expected_code: expected.to_owned(),
            found_code: found.to_owned(),
        },
        (ControlKind::Positive, _, Some(found)) => {
            Reason::ControlRefused { control, found_code: found.to_owned() }
        }
        // Named an empty code.
        (ControlKind::Positive, None, None) => Reason::ControlMalformed { control },
    })
}

fn completeness_reasons(facts: &DrillFacts<'_>) -> Vec<Reason> {
    let mut reasons = Vec::new();
    if facts.required_components.is_empty() {
        reasons.push(Reason::NothingRequired);
    }
    if facts.waterfall.steps().is_empty() {
        reasons.push(Reason::NoEvidence { component: None, evidence: Evidence::Waterfall });
    }
    let mut seen = BTreeSet::new();
    for result in facts.components {
        if !seen.insert(result.component.as_str()) {
            reasons.push(Reason::ComponentTwice { component: result.component.clone() });
        }
    }
    let missing = facts.required_components.iter().filter(|name| !seen.contains(name.as_str()));
    reasons.extend(missing.map(|name| Reason::ComponentMissing { component: name.clone() }));
    reasons
}

fn component_reasons(result: &ComponentResult, total: Seconds, reasons: &mut Vec<Reason>) {
    let component = || result.component.clone();
    let mut lacks =
        |evidence| reasons.push(Reason::NoEvidence { component: Some(result.component.clone()), evidence });
    if result.snapshot.is_none() {
        lacks(Evidence::Snapshot);
    }
    if result.rto_measured_seconds.is_none() {
        lacks(Evidence::Rto);
    }
    if result.rpo_measured_seconds.is_none() || result.markers_written == 0 {
        lacks(Evidence::Markers);
    }
    if result.rpo_worst_case_seconds.is_none() {
        lacks(Evidence::RpoWorstCase);
    }
    if result.checks.is_empty() {
        lacks(Evidence::Checks);
    }
    if result.rows_before.is_some() && result.rows.is_none() {
        lacks(Evidence::Rows);
    }
    if let Some(measured) = result.rto_measured_seconds {
        if measured > result.rto_objective_seconds {
            reasons.push(Reason::RtoMissed {
                component: component(),
                objective_seconds: result.rto_objective_seconds,
                measured_seconds: measured,
            });
        }
        if measured > total {
            reasons.push(Reason::Contradiction {
                component: component(),
                what: Contradiction::RtoBeyondWaterfall,
            });
        }
    }
    if result.markers_lost > result.markers_written {
        reasons.push(Reason::Contradiction {
            component: component(),
            what: Contradiction::MarkersLostBeyondWritten,
        });
    }
    reasons.extend(rpo_reason(result));
    reasons.extend(result.checks.iter().filter_map(|check| match check.outcome {
        CheckOutcome::Passed => None,
        CheckOutcome::Failed => {
            Some(Reason::CheckFailed { component: component(), check: check.name.clone() })
        }
        CheckOutcome::NotRun => {
            Some(Reason::CheckNotRun { component: component(), check: check.name.clone() })
        }
    }));
    // An empty folder may be right; an empty database never is.
    if result.bytes == 0 && (result.bytes_before > 0 || result.kind != "files") {
        reasons.push(Reason::EmptyBytes { component: component(), before: result.bytes_before });
    }
    if let (Some(before @ 1..), Some(0)) = (result.rows_before, result.rows) {
        reasons.push(Reason::EmptyRows { component: component(), before });
    }
}

/// The RPO that counts: the larger of what was lost and what could have been lost. `None` when neither was measured.
pub fn effective_rpo(result: &ComponentResult) -> Option<(Seconds, RpoBasis)> {
    let counted = result.rpo_measured_seconds.map(|seconds| (seconds, RpoBasis::Counted));
    let worst = result.rpo_worst_case_seconds.map(|seconds| (seconds, RpoBasis::WorstCase));
    match (counted, worst) {
        (Some(counted), Some(worst)) => Some(if counted.0 >= worst.0 { counted } else { worst }),
        (one, other) => one.or(other),
    }
}

fn rpo_reason(result: &ComponentResult) -> Option<Reason> {
    let (measured, basis) = effective_rpo(result)?;
    (measured > result.rpo_objective_seconds).then(|| Reason::RpoMissed {
        component: result.component.clone(),
        objective_seconds: result.rpo_objective_seconds,
        measured_seconds: measured,
        basis,
    })
}

/// A numbered write that the service acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark {
    /// Its number.
    pub number: u64,
    /// When it was acknowledged, on the drill's monotonic clock.
    pub acknowledged_at: Duration,
}

/// Numbers of marks, as ranges.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MarkSet {
    /// Start → end, inclusive; disjoint and not adjacent.
    ranges: BTreeMap<u64, u64>,
}

impl MarkSet {
    /// From ranges in any order; they may overlap. Reversed ranges are empty.
    pub fn from_ranges(ranges: impl IntoIterator<Item = RangeInclusive<u64>>) -> Self {
        let mut sorted: Vec<_> = ranges.into_iter().map(RangeInclusive::into_inner).collect();
        sorted.retain(|(start, end)| start <= end);
        sorted.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (start, end) in sorted {
            match merged.last_mut() {
                Some(last) if start <= last.1.saturating_add(1) => last.1 = last.1.max(end),
                _ => merged.push((start, end)),
            }
        }
        Self { ranges: merged.into_iter().collect() }
    }

    /// Whether it holds `number`.
    pub fn contains(&self, number: u64) -> bool {
        self.ranges.range(..=number).next_back().is_some_and(|(_, end)| number <= *end)
    }

    /// Its ranges, ascending, with a number between each two that is not in it.
    pub fn ranges(&self) -> impl Iterator<Item = RangeInclusive<u64>> {
        self.ranges.iter().map(|(start, end)| *start..=*end)
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }
}

impl FromIterator<u64> for MarkSet {
    fn from_iter<I: IntoIterator<Item = u64>>(numbers: I) -> Self {
        Self::from_ranges(numbers.into_iter().map(|number| number..=number))
    }
}

/// What the markers say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RpoMeasured {
    /// From the oldest lost mark to the disaster; zero when none is lost, `None` when there was no mark to lose.
    pub measured_seconds: Option<Seconds>,
    /// Acknowledged marks.
    pub markers_written: u64,
    /// Acknowledged marks that did not survive.
    pub markers_lost: u64,
    /// All that were lost, as ranges of numbers that were acknowledged.
    pub lost: MarkSet,
    /// Those of them that lie before a survivor: not a cut tail but a hole in the middle.
    pub gaps: MarkSet,
}

/// Counts what was lost. `acknowledged` are the marks in any order (a number that comes twice counts once, with its
/// earlier time); `survived` are the numbers found after the recovery, among them perhaps some that were never
/// acknowledged, which count for nothing; `disaster_at` is on the clock of the marks. A mark that was acknowledged
/// after the disaster and lost is counted as lost, with no time.
pub fn rpo_from_markers(acknowledged: &[Mark], survived: &MarkSet, disaster_at: Duration) -> RpoMeasured {
    let mut marks: BTreeMap<u64, Duration> = BTreeMap::new();
    for mark in acknowledged {
        let at = marks.entry(mark.number).or_insert(mark.acknowledged_at);
        *at = (*at).min(mark.acknowledged_at);
    }
    let lost: BTreeMap<u64, Duration> =
        marks.iter().filter(|(number, _)| !survived.contains(**number)).map(|(n, at)| (*n, *at)).collect();
    let last_survivor = marks.keys().rev().find(|number| survived.contains(**number)).copied();
    let gaps = lost.keys().copied().filter(|number| last_survivor.is_some_and(|last| *number < last));
    let oldest_lost = lost.values().min().copied();
    let measured = oldest_lost
        .map_or(Seconds::ZERO, |oldest| Seconds::from_duration(disaster_at.saturating_sub(oldest)));
    RpoMeasured {
        measured_seconds: (!marks.is_empty()).then_some(measured),
        markers_written: marks.len() as u64,
        markers_lost: lost.len() as u64,
        gaps: gaps.collect(),
        lost: lost.into_keys().collect(),
    }
}

//! Sentences about a drill.

use super::{Language, Texts, fill};
use crate::drill::{
    Contradiction, DrillReport, Evidence, Reason, RepositoryResult, RpoBasis, Seconds, Step, StepName,
};

/// The name of a step.
pub(in crate::render) fn step_name(name: StepName, language: Language) -> &'static str {
    let texts = language.texts();
    match name {
        StepName::Detect => texts.step_detect,
        StepName::Decide => texts.step_decide,
        StepName::Fetch => texts.step_fetch,
        StepName::Replay => texts.step_replay,
        StepName::Start => texts.step_start,
        StepName::Check => texts.step_check,
        StepName::CutOver => texts.step_cut_over,
        StepName::FirstWrite => texts.step_first_write,
    }
}

/// The name of a step and, where it was for one, of its component.
pub(in crate::render) fn step_label(step: &Step, language: Language) -> String {
    let name = step_name(step.name, language);
    step.component.as_ref().map_or_else(|| name.to_owned(), |component| format!("{name} {component}"))
}

/// Which repositories were lost and which served, where the drill lost some. Names are as they came.
pub(in crate::render) fn repositories(report: &DrillReport, language: Language) -> Option<String> {
    if report.repositories.is_empty() {
        return None;
    }
    let names = |of: fn(&RepositoryResult) -> bool| {
        let names = report.repositories.iter().filter(|it| of(it)).map(|it| it.repository.as_str());
        names.collect::<Vec<_>>().join(", ")
    };
    let (lost, read) = (names(|it| it.lost), names(|it| it.read));
    let texts = language.texts();
    let text = if read.is_empty() { texts.repositories_unread } else { texts.repositories_read };
    Some(fill(text, &[("lost", &lost), ("read", &read)]))
}

/// One reason as a sentence without a full stop. Names in it are as they came: not yet clean, not escaped.
pub(in crate::render) fn reason(reason: &Reason, language: Language) -> String {
    let (text, values) = parts(reason, language);
    let values: Vec<(&str, &str)> = values.iter().map(|(key, value)| (*key, value.as_str())).collect();
    fill(text, &values)
}

type Parts = (&'static str, Vec<(&'static str, String)>);

/// The sentence and what to fill in.
fn parts(reason: &Reason, language: Language) -> Parts {
    let texts = language.texts();
    let of = |name: &String| ("component", name.clone());
    let control = |name: &String| ("control", name.clone());
    let check = |name: &String| ("check", name.clone());
    let expected = |code: &String| ("expected", code.clone());
    let found = |code: &String| ("found", code.clone());
    let objective = |span: &Seconds| ("objective", language.duration(*span));
    let measured = |span: &Seconds| ("measured", language.duration(*span));
    match reason {
        Reason::Failed { message, .. } => (texts.reason_failed, vec![("message", message.clone())]),
        Reason::NoNegativeControl => (texts.reason_no_negative, vec![]),
        Reason::NoPositiveControl => (texts.reason_no_positive, vec![]),
        Reason::NothingRequired => (texts.reason_nothing_required, vec![]),
        Reason::ControlMalformed { control: name } => (texts.reason_control_malformed, vec![control(name)]),
        Reason::ControlMisjudged { control: name } => (texts.reason_control_misjudged, vec![control(name)]),
        Reason::ControlAccepted { control: name, expected_code } => {
            (texts.reason_control_accepted, vec![control(name), expected(expected_code)])
        }
        Reason::ControlOtherCode { control: name, expected_code, found_code } => {
            (texts.reason_control_other, vec![control(name), expected(expected_code), found(found_code)])
        }
        Reason::ControlRefused { control: name, found_code } => {
            (texts.reason_control_refused, vec![control(name), found(found_code)])
        }
        Reason::ComponentMissing { component } => (texts.reason_component_missing, vec![of(component)]),
        Reason::ComponentTwice { component } => (texts.reason_component_twice, vec![of(component)]),
        Reason::NoEvidence { component, evidence } => {
            let component = component.clone().unwrap_or_else(|| texts.the_service.to_owned());
            let evidence = evidence_text(*evidence, texts).to_owned();
            (texts.reason_no_evidence, vec![("component", component), ("evidence", evidence)])
        }
        Reason::RtoMissed { component, objective_seconds: promise, measured_seconds: fact } => {
            (texts.reason_rto, vec![of(component), objective(promise), measured(fact)])
        }
        Reason::RpoMissed { component, objective_seconds: promise, measured_seconds: fact, basis } => {
            let text = match basis {
                RpoBasis::Counted => texts.reason_rpo_counted,
                RpoBasis::WorstCase => texts.reason_rpo_worst,
            };
            (text, vec![of(component), objective(promise), measured(fact)])
        }
        Reason::CheckFailed { component, check: name } => {
            (texts.reason_check_failed, vec![of(component), check(name)])
        }
        Reason::CheckNotRun { component, check: name } => {
            (texts.reason_check_not_run, vec![of(component), check(name)])
        }
        Reason::EmptyBytes { component, before } => {
            (texts.reason_empty_bytes, vec![of(component), ("before", language.bytes(*before))])
        }
        Reason::EmptyRows { component, before } => {
            (texts.reason_empty_rows, vec![of(component), ("before", language.integer(*before))])
        }
        Reason::Contradiction { component, what } => {
            let text = match what {
                Contradiction::RtoBeyondWaterfall => texts.reason_rto_beyond,
                Contradiction::MarkersLostBeyondWritten => texts.reason_lost_beyond,
            };
            (text, vec![of(component)])
        }
    }
}

fn evidence_text(evidence: Evidence, texts: &Texts) -> &'static str {
    match evidence {
        Evidence::Waterfall => texts.evidence_waterfall,
        Evidence::Checks => texts.evidence_checks,
        Evidence::Rto => texts.evidence_rto,
        Evidence::Markers => texts.evidence_markers,
        Evidence::RpoWorstCase => texts.evidence_worst,
        Evidence::Rows => texts.evidence_rows,
        Evidence::Snapshot => texts.evidence_snapshot,
    }
}

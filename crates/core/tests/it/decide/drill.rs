use crate::render::sample;
use retoma_core::decide::drill::{DrillFacts, Verdict, effective_rpo, exit_code, verdict};
use retoma_core::drill::{
    CheckOutcome, CheckResult, ComponentResult, Contradiction, ControlKind, ControlOutcome, ControlResult,
    DrillReport, Evidence, Reason, RpoBasis, Seconds, VerdictKind, Waterfall,
};

fn judge(report: &DrillReport) -> Verdict {
    verdict(&DrillFacts::from(report))
}

/// A report with one component, which is all green.
fn one(component: ComponentResult) -> DrillReport {
    let mut report = sample::green();
    report.required_components = vec!["database".to_owned()];
    report.components = vec![component];
    report
}

fn check(outcome: CheckOutcome) -> CheckResult {
    CheckResult { outcome, ..sample::database().checks[0].clone() }
}

#[test]
fn green_is_earned_and_ends_with_zero() {
    let verdict = judge(&sample::green());
    assert_eq!(verdict, Verdict::Green);
    assert_eq!((verdict.exit_code(), verdict.reasons()), (0, &[][..]));
    assert_eq!(exit_code(VerdictKind::Red), 4);
    assert_eq!(exit_code(VerdictKind::BrokenVerifier), 4);
}

/// Every combination of what one component can show; the expectation is written from the rules, not from the code.
#[test]
fn all_combinations_of_one_component() {
    use CheckOutcome::{Failed, NotRun, Passed};
    let limit = Seconds::from_secs(3);
    let over = Some(Seconds::from_micros(3_000_001));
    let spans = [None, Some(Seconds::ZERO), Some(limit), over];
    let check_sets: [&[CheckOutcome]; 6] =
        [&[], &[Passed], &[Failed], &[NotRun], &[Passed, Failed], &[Passed, NotRun]];
    let row_pairs = [
        (None, None),
        (Some(5), Some(5)),
        (Some(5), Some(1)),
        (Some(5), Some(0)),
        (Some(5), None),
        (Some(0), Some(0)),
    ];
    let mut greens = 0;
    for rto in spans {
        for counted in spans {
            for worst in spans {
                for checks in check_sets {
                    for rows in row_pairs {
                        for (before, bytes) in [(10, 10), (10, 0), (0, 0)] {
                            for kind in ["sqlite", "files"] {
                                let component = ComponentResult {
                                    kind: kind.to_owned(),
                                    rto_objective_seconds: Seconds::from_secs(3),
                                    rpo_objective_seconds: Seconds::from_secs(3),
                                    rto_measured_seconds: rto,
                                    rpo_measured_seconds: counted,
                                    rpo_worst_case_seconds: worst,
                                    checks: checks.iter().copied().map(check).collect(),
                                    rows_before: rows.0,
                                    rows: rows.1,
                                    bytes_before: before,
                                    bytes,
                                    ..sample::database()
                                };
                                let within = |span: Option<Seconds>| span.is_some_and(|span| span <= limit);
                                let filled = bytes > 0 || (before == 0 && kind == "files");
                                let green = within(rto)
                                    && within(counted)
                                    && within(worst)
                                    && checks == [Passed]
                                    && !matches!(rows, (Some(5), Some(0) | None))
                                    && filled;
                                let found = judge(&one(component.clone()));
                                let expected = if green { VerdictKind::Green } else { VerdictKind::Red };
                                assert_eq!(found.kind(), expected, "{component:#?}");
                                assert_eq!(found.reasons().is_empty(), green);
                                greens += usize::from(green);
                            }
                        }
                    }
                }
            }
        }
    }
    // 2 spans within, three times; 1 set of checks; 4 pairs of rows; 3 ways not to be empty.
    assert_eq!(greens, 2 * 2 * 2 * 4 * 3);
}

fn only_reason(report: &DrillReport) -> Reason {
    let verdict = judge(report);
    assert_eq!(verdict.reasons().len(), 1, "{verdict:?}");
    verdict.reasons()[0].clone()
}

#[test]
fn each_fault_of_a_component_is_named_and_nothing_else() {
    type Break = fn(&mut ComponentResult);
    let lacks = |evidence| Reason::NoEvidence { component: Some("database".to_owned()), evidence };
    let component = || "database".to_owned();
    let over = |seconds: u64| Seconds::from_micros(seconds * 1_000_000 + 1);
    let table: Vec<(Break, Reason, &str)> = vec![
        (|c| c.snapshot = None, lacks(Evidence::Snapshot), "R0704"),
        (|c| c.rto_measured_seconds = None, lacks(Evidence::Rto), "R0704"),
        (|c| c.rpo_measured_seconds = None, lacks(Evidence::Markers), "R0704"),
        (
            |c| {
                c.markers_written = 0;
                c.markers_lost = 0;
            },
            lacks(Evidence::Markers),
            "R0704",
        ),
        (|c| c.rpo_worst_case_seconds = None, lacks(Evidence::RpoWorstCase), "R0704"),
        (|c| c.checks.clear(), lacks(Evidence::Checks), "R0704"),
        (|c| c.rows = None, lacks(Evidence::Rows), "R0704"),
        (
            |c| c.rto_objective_seconds = Seconds::from_secs(4),
            Reason::RtoMissed {
                component: component(),
                objective_seconds: Seconds::from_secs(4),
                measured_seconds: Seconds::from_micros(4_312_250),
            },
            "R0701",
        ),
        (
            |c| c.rto_measured_seconds = Some(Seconds::from_micros(4_312_251)),
            Reason::Contradiction { component: component(), what: Contradiction::RtoBeyondWaterfall },
            "R0706",
        ),
        (
            |c| c.markers_lost = c.markers_written + 1,
            Reason::Contradiction { component: component(), what: Contradiction::MarkersLostBeyondWritten },
            "R0706",
        ),
        (
            |c| c.rpo_measured_seconds = Some(Seconds::from_micros(300_000_001)),
            Reason::RpoMissed {
                component: component(),
                objective_seconds: Seconds::from_secs(300),
                measured_seconds: over(300),
                basis: RpoBasis::Counted,
            },
            "R0702",
        ),
        (
            |c| c.rpo_worst_case_seconds = Some(Seconds::from_micros(300_000_001)),
            Reason::RpoMissed {
                component: component(),
                objective_seconds: Seconds::from_secs(300),
                measured_seconds: over(300),
                basis: RpoBasis::WorstCase,
            },
            "R0702",
        ),
        (
            |c| c.checks[1].outcome = CheckOutcome::Failed,
            Reason::CheckFailed { component: component(), check: "GET /healthz".to_owned() },
            "R0703",
        ),
        (
            |c| c.checks[2].outcome = CheckOutcome::NotRun,
            Reason::CheckNotRun { component: component(), check: "integrity_check".to_owned() },
            "R0704",
        ),
        (|c| c.bytes = 0, Reason::EmptyBytes { component: component(), before: 142_606_336 }, "R0705"),
        (|c| c.rows = Some(0), Reason::EmptyRows { component: component(), before: 1_000_411 }, "R0705"),
    ];
    for (break_it, reason, code) in table {
        let mut broken = sample::database();
        break_it(&mut broken);
        let report = one(broken);
        assert_eq!(only_reason(&report), reason);
        assert_eq!(reason.code().as_str(), code);
        assert_eq!((judge(&report).kind(), judge(&report).exit_code()), (VerdictKind::Red, 4));
    }
}

#[test]
fn the_larger_of_the_two_losses_counts() {
    let of = |counted: Option<u64>, worst: Option<u64>| {
        let component = ComponentResult {
            rpo_measured_seconds: counted.map(Seconds::from_secs),
            rpo_worst_case_seconds: worst.map(Seconds::from_secs),
            ..sample::database()
        };
        effective_rpo(&component).map(|(span, basis)| (span.as_micros() / 1_000_000, basis))
    };
    assert_eq!(of(None, None), None);
    assert_eq!(of(Some(1), None), Some((1, RpoBasis::Counted)));
    assert_eq!(of(None, Some(1)), Some((1, RpoBasis::WorstCase)));
    assert_eq!(of(Some(1), Some(2)), Some((2, RpoBasis::WorstCase)));
    assert_eq!(of(Some(2), Some(1)), Some((2, RpoBasis::Counted)));
    assert_eq!(of(Some(2), Some(2)), Some((2, RpoBasis::Counted)));
}

#[test]
fn what_is_not_there_is_red() {
    let mut report = sample::green();
    report.components.remove(1);
    assert_eq!(only_reason(&report), Reason::ComponentMissing { component: "models".to_owned() });

    let mut report = sample::green();
    report.components.push(sample::database());
    assert_eq!(only_reason(&report), Reason::ComponentTwice { component: "database".to_owned() });

    let mut report = sample::green();
    report.required_components.clear();
    report.components.clear();
    assert_eq!(only_reason(&report), Reason::NothingRequired);

    let mut report = sample::green();
    report.waterfall = Waterfall::default();
    let reasons = judge(&report).reasons().to_vec();
    assert_eq!(reasons[0], Reason::NoEvidence { component: None, evidence: Evidence::Waterfall });
}

/// Every list of up to three controls out of all kinds of them.
#[test]
fn all_combinations_of_up_to_three_controls() {
    let kinds = [
        (ControlResult::negative("n", "A", Some("A"), ""), true),
        (ControlResult::negative("n", "A", Some("B"), ""), false),
        (ControlResult::negative("n", "A", None, ""), false),
        (ControlResult::negative("n", "", Some(""), ""), false),
        (ControlResult::positive("p", None, ""), true),
        (ControlResult::positive("p", Some("A"), ""), false),
    ];
    let mut lists: Vec<Vec<usize>> = vec![vec![]];
    for length in 0..3 {
        let longer: Vec<Vec<usize>> = lists
            .iter()
            .filter(|list| list.len() == length)
            .flat_map(|list| (0..kinds.len()).map(move |next| [list.clone(), vec![next]].concat()))
            .collect();
        lists.extend(longer);
    }
    assert_eq!(lists.len(), 1 + 6 + 36 + 216);
    for list in lists {
        let mut report = sample::green();
        report.controls = list.iter().map(|index| kinds[*index].0.clone()).collect();
        let has = |kind| report.controls.iter().any(|control| control.kind == kind);
        let good = list.iter().all(|index| kinds[*index].1)
            && has(ControlKind::Negative)
            && has(ControlKind::Positive);
        let found = judge(&report);
        let expected = if good { VerdictKind::Green } else { VerdictKind::BrokenVerifier };
        assert_eq!(found.kind(), expected, "{list:?}");
        assert!(found.reasons().iter().all(Reason::is_about_verifier));
    }
}

#[test]
fn a_control_cannot_vouch_for_itself() {
    let mut report = sample::green();
    report.controls[0].found_code = None;
    assert_eq!(report.controls[0].outcome, ControlOutcome::AsExpected, "it says so itself");
    assert!(matches!(only_reason(&report), Reason::ControlAccepted { .. }));

    let mut report = sample::green();
    report.controls[0].outcome = ControlOutcome::Wrong;
    assert!(matches!(only_reason(&report), Reason::ControlMisjudged { .. }));

    for (expected, found) in [(Some("A"), None), (Some(""), None)] {
        let mut report = sample::green();
        let positive = report.controls.last_mut().unwrap();
        positive.expected_code = expected.map(str::to_owned);
        positive.found_code = found;
        assert!(matches!(only_reason(&report), Reason::ControlMalformed { .. }));
    }
}

#[test]
fn a_broken_verifier_outweighs_a_red_drill_and_hides_nothing() {
    let mut report = sample::red();
    let red = judge(&report).reasons().to_vec();
    report.controls.clear();
    let Verdict::BrokenVerifier { reasons } = judge(&report) else { panic!("not broken") };
    assert_eq!(reasons[..2], [Reason::NoNegativeControl, Reason::NoPositiveControl]);
    assert_eq!(reasons[2..], red);
}

#[test]
fn a_drill_that_failed_is_red_and_says_why_first() {
    let report = sample::failed();
    assert_eq!(report.verdict, VerdictKind::Red);
    assert_eq!(report.back_after(), None);
    let code = |reason: &Reason| reason.code().to_string();
    let codes: Vec<String> = report.reasons.iter().map(code).collect();
    assert_eq!(codes, ["R0209", "R0704", "R0704", "R0704"], "{:#?}", report.reasons);
    assert_eq!(DrillReport::from_json(&report.to_json().unwrap()).unwrap(), report);
    // What else went well makes it no greener.
    let late = DrillReport { failure: report.failure.clone(), ..sample::green() };
    assert_eq!(judge(&late).kind(), VerdictKind::Red);
    assert_eq!(judge(&late).reasons().len(), 1);
    assert_eq!(late.back_after(), Some(late.rto_measured_seconds));
    // A verifier that was tested and is broken outweighs the failure, as it outweighs all.
    let broken = DrillReport { failure: report.failure, ..sample::broken() };
    assert_eq!(judge(&broken).kind(), VerdictKind::BrokenVerifier);
}

//! Fixed reports: one green, and from it a red, a broken and a hostile one.
use retoma_core::decide::drill::{DrillFacts, verdict};
use retoma_core::drill::{
    CheckOutcome, CheckResult, ComponentResult, ControlResult, DrillReport, Environment, Failure,
    RepositoryResult, SCHEMA, Seconds, StepName, VerdictKind, Waterfall, WaterfallRecorder,
};
use std::time::Duration;

/// A green report of a whole service.
pub(crate) fn green() -> DrillReport {
    let waterfall = waterfall();
    concluded(DrillReport {
        schema: SCHEMA.to_owned(),
        drill: "drill-7f3a".to_owned(),
        scenario: "application-failure".to_owned(),
        service: "marabet".to_owned(),
        started: "2026-11-21T14:03:22Z".parse().unwrap(),
        environment: Environment {
            tool_version: "0.1.0".to_owned(),
            manifest_hash: "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08".to_owned(),
            repository_id: "5f2e61c0".to_owned(),
            key_id: "c3d9a1b2".to_owned(),
            system: "linux x86_64".to_owned(),
            cpus: 2,
            memory_bytes: 8 << 30,
        },
        repeat: "retoma drill application-failure --manifest retoma.toml".to_owned(),
        required_components: vec!["database".to_owned(), "models".to_owned(), "config".to_owned()],
        rto_measured_seconds: waterfall.total(),
        components: vec![database(), models(), config()],
        waterfall,
        controls: controls(),
        verdict: VerdictKind::Green,
        reasons: Vec::new(),
        repositories: Vec::new(),
        failure: None,
        not_proven: vec![
            "that the repository can be reached when this machine is gone: it is local".to_owned(),
        ],
    })
}

/// A green report of a drill that lost the first of three repositories.
pub(crate) fn lost_repository(read: &[&str]) -> DrillReport {
    let result = |name: &str| RepositoryResult {
        repository: name.to_owned(),
        lost: name == "local",
        read: read.contains(&name),
    };
    let repositories = ["local", "far", "third"].map(result).to_vec();
    DrillReport { scenario: "lost-repository".to_owned(), repositories, ..green() }
}

/// The report with the verdict that its facts have.
pub(crate) fn concluded(mut report: DrillReport) -> DrillReport {
    let verdict = verdict(&DrillFacts::from(&report));
    report.verdict = verdict.kind();
    report.reasons = verdict.reasons().to_vec();
    report
}

/// Too late, too much lost, checks failed and not run, one component missing, one emptied.
pub(crate) fn red() -> DrillReport {
    let mut report = green();
    let database = &mut report.components[0];
    database.rto_objective_seconds = Seconds::from_secs(3);
    database.rpo_measured_seconds = Some(Seconds::from_secs(340));
    database.markers_lost = 412;
    database.rows = Some(0);
    database.checks[0].outcome = CheckOutcome::Failed;
    database.checks[0].found = Some("0".to_owned());
    database.checks[1].outcome = CheckOutcome::NotRun;
    database.checks[1].detail = "the service did not answer within 10 s".to_owned();
    let models = &mut report.components[1];
    models.rpo_measured_seconds = None;
    models.markers_written = 0;
    models.snapshot = None;
    report.components.truncate(2);
    concluded(report)
}

/// Ended while it fetched the database: nothing came back, and no control was run.
pub(crate) fn failed() -> DrillReport {
    let mut report = green();
    let mut recorder = WaterfallRecorder::start(Duration::ZERO, StepName::Detect);
    recorder.begin(StepName::Fetch, Some("database"), Duration::from_millis(900)).unwrap();
    report.waterfall = recorder.finish(Duration::from_millis(1_250)).unwrap();
    report.rto_measured_seconds = report.waterfall.total();
    report.components.clear();
    report.controls.clear();
    report.failure = Some(Failure {
        code: "R0209".to_owned(),
        message: "restore `database` from snapshot 5f2e61c0: pack c3d9a1b2 is missing".to_owned(),
        hint: Some("run `retoma verify`".to_owned()),
    });
    concluded(report)
}

/// Nothing wrong with the recovery, and a verifier that accepts a flipped byte and knows only one answer.
pub(crate) fn broken() -> DrillReport {
    let mut report = green();
    report.controls[0] =
        ControlResult::negative("flipped byte in a pack", "R0203", None, "byte 8,191 of a3f1…");
    report.controls[2] = ControlResult::negative("wrong key", "R0202", Some("R0001"), "");
    concluded(report)
}

/// Every text that comes from outside tries to break out.
pub(crate) fn hostile() -> DrillReport {
    named("<script>alert(\"1\")</script>&'\u{1b}[2J\u{202e}")
}

/// A red report in which every text that comes from outside is `bad`.
pub(crate) fn named(bad: &str) -> DrillReport {
    let mut report = red();
    report.service = bad.to_owned();
    report.scenario = bad.to_owned();
    report.drill = bad.to_owned();
    report.repeat = bad.to_owned();
    report.not_proven = vec![bad.to_owned()];
    report.repositories = vec![RepositoryResult { repository: bad.to_owned(), lost: true, read: true }];
    report.failure =
        Some(Failure { code: bad.to_owned(), message: bad.to_owned(), hint: Some(bad.to_owned()) });
    report.required_components.push(bad.to_owned());
    let environment = &mut report.environment;
    for field in [
        &mut environment.tool_version,
        &mut environment.manifest_hash,
        &mut environment.repository_id,
        &mut environment.key_id,
        &mut environment.system,
    ] {
        *field = bad.to_owned();
    }
    let component = &mut report.components[0];
    component.component = bad.to_owned();
    component.kind = bad.to_owned();
    component.tier = bad.to_owned();
    component.snapshot = Some(bad.to_owned());
    for check in &mut component.checks {
        *check = CheckResult {
            name: bad.to_owned(),
            outcome: CheckOutcome::Failed,
            detail: bad.to_owned(),
            expected: Some(bad.to_owned()),
            found: Some(bad.to_owned()),
        };
    }
    for control in &mut report.controls {
        *control = ControlResult::negative(bad, bad, Some(&format!("{bad}x")), bad);
    }
    let mut recorder = WaterfallRecorder::start(Duration::ZERO, StepName::Detect);
    recorder.begin(StepName::Fetch, Some(bad), Duration::from_millis(7)).unwrap();
    report.waterfall = recorder.finish(Duration::from_millis(9)).unwrap();
    report.rto_measured_seconds = report.waterfall.total();
    concluded(report)
}

fn waterfall() -> Waterfall {
    let disaster = Duration::from_millis(81_204);
    let after = |micros: u64| disaster + Duration::from_micros(micros);
    let mut recorder = WaterfallRecorder::start(disaster, StepName::Detect);
    recorder.begin(StepName::Decide, None, after(250_417)).unwrap();
    recorder.begin(StepName::Fetch, None, after(251_020)).unwrap();
    recorder.begin(StepName::Replay, None, after(2_882_333)).unwrap();
    recorder.begin(StepName::Start, None, after(3_104_900)).unwrap();
    recorder.begin(StepName::Check, None, after(3_560_001)).unwrap();
    recorder.begin(StepName::CutOver, None, after(4_280_499)).unwrap();
    recorder.begin(StepName::FirstWrite, None, after(4_291_500)).unwrap();
    recorder.finish(after(4_312_250)).unwrap()
}

fn check(name: &str, expected: &str, found: &str, detail: &str) -> CheckResult {
    CheckResult {
        name: name.to_owned(),
        outcome: CheckOutcome::Passed,
        detail: detail.to_owned(),
        expected: Some(expected.to_owned()),
        found: Some(found.to_owned()),
    }
}

pub(crate) fn database() -> ComponentResult {
    ComponentResult {
        component: "database".to_owned(),
        kind: "sqlite".to_owned(),
        tier: "critical".to_owned(),
        rto_objective_seconds: Seconds::from_secs(900),
        rto_measured_seconds: Some(Seconds::from_micros(4_312_250)),
        rpo_objective_seconds: Seconds::from_secs(300),
        rpo_measured_seconds: Some(Seconds::from_micros(1_730_000)),
        rpo_worst_case_seconds: Some(Seconds::from_micros(244_180_000)),
        markers_written: 1_204,
        markers_lost: 17,
        bytes_before: 142_606_336,
        bytes: 142_573_568,
        rows_before: Some(1_000_411),
        rows: Some(1_000_394),
        snapshot: Some("4bba301e".to_owned()),
        checks: vec![
            check("row count", "1000394", "1000394", "all tables, against the source at the snapshot"),
            check("GET /healthz", "200", "200", "asked from outside"),
            check("integrity_check", "ok", "ok", ""),
        ],
    }
}

fn models() -> ComponentResult {
    ComponentResult {
        component: "models".to_owned(),
        kind: "files".to_owned(),
        tier: "high".to_owned(),
        rto_objective_seconds: Seconds::from_secs(3_600),
        rto_measured_seconds: Some(Seconds::from_micros(3_104_900)),
        rpo_objective_seconds: Seconds::from_secs(900),
        rpo_measured_seconds: Some(Seconds::ZERO),
        rpo_worst_case_seconds: Some(Seconds::from_micros(612_004_000)),
        markers_written: 12,
        bytes_before: 71_303_168,
        bytes: 71_303_168,
        markers_lost: 0,
        rows_before: None,
        rows: None,
        snapshot: Some("b7c2e9d0".to_owned()),
        checks: vec![check("SHA-256 of every file", "24 files", "24 files", "")],
    }
}

fn config() -> ComponentResult {
    ComponentResult {
        component: "config".to_owned(),
        tier: "critical".to_owned(),
        rto_objective_seconds: Seconds::from_secs(900),
        rpo_objective_seconds: Seconds::from_secs(300),
        rpo_worst_case_seconds: Some(Seconds::from_micros(241_000_000)),
        bytes_before: 4_096,
        bytes: 4_096,
        checks: vec![check("SHA-256 of every file", "3 files", "3 files", "")],
        ..models()
    }
}

fn controls() -> Vec<ControlResult> {
    vec![
        ControlResult::negative("flipped byte in a pack", "R0203", Some("R0203"), "byte 8,191 of a3f1…"),
        ControlResult::negative("missing pack", "R0209", Some("R0209"), ""),
        ControlResult::negative("wrong key", "R0202", Some("R0202"), ""),
        ControlResult::negative("empty database", "R0705", Some("R0705"), "zero bytes"),
        ControlResult::positive("untouched snapshot", None, "restored again, same hashes"),
    ]
}

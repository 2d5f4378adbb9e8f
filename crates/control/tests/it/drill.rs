//! Drills: each scenario ends green, and nothing is left.

use super::sample::{Sample, in_context};
use retoma_control::drill::{self, Scenario, prepare};
use retoma_core::drill::{CheckOutcome, ControlKind, ControlOutcome, DrillReport, StepName, VerdictKind};
use retoma_core::error::codes;
use retoma_repo::backup::Progress;
use retoma_repo::{recipients, shares};

fn assert_green(report: &DrillReport, scenario: Scenario) {
    assert_green_with(report, scenario, &[]);
}

/// With these controls behind those of every drill.
fn assert_green_with(report: &DrillReport, scenario: Scenario, more: &[(&str, Option<&str>)]) {
    assert_eq!(report.verdict, VerdictKind::Green, "{:#?}", report.reasons);
    assert_eq!(report.scenario, scenario.as_str());
    let names: Vec<&str> = report.components.iter().map(|it| it.component.as_str()).collect();
    assert_eq!(names, ["database", "models", "config", "logs"]);
    for component in &report.components {
        assert!(component.markers_written >= 9, "{component:?}");
        // Marks after the last backup are lost, those before it are not.
        assert!(component.markers_lost >= 3 && component.markers_lost + 6 <= component.markers_written);
        assert!(component.rpo_measured_seconds.unwrap() > retoma_core::drill::Seconds::ZERO);
        assert!(component.checks.iter().all(|check| check.outcome == CheckOutcome::Passed));
    }
    let steps: Vec<StepName> = report.waterfall.steps().iter().map(|step| step.name).collect();
    assert!(StepName::ALL.iter().all(|name| steps.contains(name)), "{steps:?}");
    assert_eq!(report.waterfall.total(), report.rto_measured_seconds);
    assert_eq!(DrillReport::from_json(&report.to_json().unwrap()).unwrap(), *report);
    let codes: Vec<_> =
        report.controls.iter().map(|it| (it.name.as_str(), it.found_code.as_deref())).collect();
    let expected = [
        ("untouched copy", None),
        ("flipped byte in a pack", Some("R0203")),
        ("missing pack", Some("R0209")),
        ("truncated snapshot", Some("R0204")),
        ("wrong key", Some("R0202")),
        ("changed file", Some("R0703")),
        ("empty database", Some("R0403")),
        ("database of zero bytes", Some("R0403")),
        ("missing row", Some("R0703")),
    ];
    assert_eq!(codes, [&expected, more].concat());
    let positive = 1 + more.iter().filter(|(_, code)| code.is_none()).count();
    assert!(report.controls.iter().all(|it| it.outcome == ControlOutcome::AsExpected));
    assert_eq!(report.controls.iter().filter(|it| it.kind == ControlKind::Positive).count(), positive);
}

fn drill(scenario: Scenario) {
    drill_with(scenario, &[]);
}

fn drill_with(scenario: Scenario, more: &[(&str, Option<&str>)]) {
    let sample = Sample::new();
    let report = in_context(|context| drill::run(&sample.patient(), scenario, context));
    let report = report.unwrap_or_else(|error| panic!("{error:?} {:?}", error.hint()));
    assert_green_with(&report, scenario, more);
    assert_eq!(sample.processes(), 0);
}

#[test]
fn an_application_failure_is_survived() {
    drill(Scenario::ApplicationFailure);
}

#[test]
fn a_deletion_is_survived() {
    drill(Scenario::Deletion);
}

#[test]
fn a_corruption_is_survived() {
    drill(Scenario::Corruption);
}

#[test]
fn a_lost_key_is_survived() {
    drill_with(Scenario::LostKey, &[("lost key", Some("R0202"))]);
}

#[test]
fn a_lost_key_is_survived_by_shares_where_the_repository_has_a_split_one() {
    let sample = Sample::new();
    let patient = sample.patient();
    let (split, repository) = (shares::split(2, 3).unwrap(), sample.repository());
    recipients::add(&repository, &split.password, split.wrapping()).unwrap();
    let report = in_context(|context| drill::run(&patient, Scenario::LostKey, context).unwrap());
    let more = [("too few shares", Some("R0232")), ("lost key", Some("R0202"))];
    assert_green_with(&report, Scenario::LostKey, &more);
    // The user's own shares are lost too: those of the drill opened.
    let keys = std::fs::read_dir(sample.path("repository/keys")).unwrap().flatten();
    let keys: Vec<_> = keys.map(|entry| entry.file_name().into_string().unwrap()).collect();
    assert_eq!(keys, [report.environment.key_id]);
}

#[test]
fn a_replaced_key_opens_no_more_and_the_new_one_does() {
    drill_with(Scenario::NewKey, &[("old key", Some("R0202"))]);
}

#[test]
fn a_lost_machine_is_survived() {
    drill(Scenario::InfrastructureFailure);
}

#[test]
fn encrypted_data_come_back_as_they_were_before_the_attack() {
    let more = [("backup of encrypted data", Some("R0703")), ("manifest from before the attack", None)];
    drill_with(Scenario::Ransomware, &more);
}

#[test]
fn what_loses_a_repository_needs_several() {
    let sample = Sample::new();
    for scenario in [Scenario::LostRepository, Scenario::LostRegion] {
        let error = in_context(|context| drill::run(&sample.patient(), scenario, context).unwrap_err());
        assert_eq!(error.code(), codes::DRILL_UNSUITED);
        assert!(sample.path("service/data/marabet.sqlite").exists());
    }
}

#[test]
fn a_drill_of_a_live_service_breaks_a_copy_and_leaves_the_service_alone() {
    let sample = Sample::new();
    let repository = sample.repository();
    for component in &sample.manifest.components {
        let done =
            retoma_control::backup::backup(&sample.manifest, component, &repository, &Progress::default());
        assert!(done.unwrap().is_complete());
    }
    let before = listing(sample.folder.path());
    let report = in_context(|context| {
        let described = &sample.manifest.repositories[0];
        let patient = prepare(&sample.manifest, &sample.text, described, &[], context).unwrap();
        assert!(!patient.scratch.starts_with(sample.folder.path()));
        assert_ne!(patient.manifest.service.health, sample.manifest.service.health, "another port");
        drill::run(&patient, Scenario::ApplicationFailure, context).unwrap()
    });
    assert_green(&report, Scenario::ApplicationFailure);
    assert_eq!(listing(sample.folder.path()), before);
}

/// Every file with its size and time.
fn listing(root: &std::path::Path) -> Vec<(std::path::PathBuf, u64, std::time::SystemTime)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = std::fs::symlink_metadata(&path).unwrap();
            if metadata.is_dir() {
                folders.push(path);
            } else {
                found.push((path, metadata.len(), metadata.modified().unwrap()));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn a_scratch_folder_in_live_data_is_refused() {
    let cases = ["service/models/x", "service/models", "repository/x", "."];
    for case in cases {
        let sample = Sample::with(|text| {
            let scratch = if case == "." { "../".to_owned() } else { format!("../{case}") };
            text.replace("[drill]", &format!("[drill]\nscratch_dir = \"{scratch}\""))
        });
        drop(sample.repository());
        let error = in_context(|context| {
            prepare(&sample.manifest, &sample.text, &sample.manifest.repositories[0], &[], context)
                .unwrap_err()
        });
        if case == "." {
            // A folder beside the live ones is fine; the drill ends later, since nothing was backed up.
            assert_eq!(error.code(), codes::SNAPSHOT_NOT_FOUND, "{error}");
        } else {
            assert_eq!(error.code(), codes::TARGET_IS_LIVE, "{case}: {error}");
        }
    }
}

#[test]
fn a_start_command_that_names_live_data_is_refused() {
    let sample = Sample::with(|text| text);
    let mut manifest = sample.manifest.clone();
    let live = manifest.components[1].path().unwrap().display().to_string();
    manifest.service.start.as_mut().unwrap().arguments.push(format!("--models={live}"));
    let error = in_context(|context| {
        prepare(&manifest, &sample.text, &manifest.repositories[0], &[], context).unwrap_err()
    });
    assert_eq!(error.code(), codes::DRILL_UNSUITED, "{error}");
}

#[test]
fn only_the_components_that_are_named_are_broken_and_brought_back() {
    let sample = Sample::new();
    let repository = sample.repository();
    for component in &sample.manifest.components {
        retoma_control::backup::backup(&sample.manifest, component, &repository, &Progress::default())
            .unwrap();
    }
    let report = in_context(|context| {
        let (described, only) = (&sample.manifest.repositories[0], ["models".to_owned()]);
        let patient = prepare(&sample.manifest, &sample.text, described, &only, context).unwrap();
        let report = drill::run(&patient, Scenario::ApplicationFailure, context);
        report.unwrap_or_else(|error| panic!("{error:?} {:?}", error.hint()))
    });
    assert_eq!(report.verdict, VerdictKind::Green, "{:#?}", report.reasons);
    assert_eq!(report.required_components, ["models"]);
    assert_eq!(report.components.len(), 1);
}

//! Parts of drills: what is refused, what ends them, and services that only half fit.

use super::sample::{Sample, in_context};
use retoma_control::backup::backup;
use retoma_control::drill::controls::{self, Bench};
use retoma_control::drill::{self, Context, Scenario, prepare};
use retoma_control::watch::{Note, Watch};
use retoma_control::{Interrupt, Silent};
use retoma_core::drill::{CheckOutcome, ControlOutcome, DrillReport, Seconds, StepName, VerdictKind};
use retoma_core::error::codes;
use retoma_repo::backup::Progress;
use retoma_repo::{Folder, SnapshotId};
use std::path::Path;

/// Without `start`, `health` and marks through the service: nothing but data.
fn without_a_service(text: &str) -> String {
    let mut text = text.to_owned();
    text.replace_range(text.find("health = ").unwrap()..text.find("[[repository]]").unwrap(), "\n");
    let marker = text.find("marker_url").unwrap();
    let end = marker + text[marker..].find('\n').unwrap();
    text.replace_range(marker..end, "");
    text
}

fn backed_up(sample: &Sample) -> Vec<(String, SnapshotId)> {
    let repository = sample.repository();
    let back_up = |component: &retoma_core::manifest::Component| {
        let done = backup(&sample.manifest, component, &repository, &Progress::default()).unwrap();
        (component.name.clone(), done.snapshot())
    };
    sample.manifest.components.iter().map(back_up).collect()
}

#[test]
fn data_without_a_service_are_drilled_too_and_the_result_says_what_that_leaves_open() {
    for scenario in [Scenario::ApplicationFailure, Scenario::Corruption] {
        let sample = Sample::with(|text| without_a_service(&text));
        let report = in_context(|context| drill::run(&sample.patient(), scenario, context)).unwrap();
        assert_eq!(report.verdict, VerdictKind::Green, "{:#?}", report.reasons);
        for component in &report.components {
            assert!(component.markers_written >= 9 && component.markers_lost >= 3, "{component:?}");
            let same = component.checks.iter().any(|check| check.name.contains("source before the disaster"));
            assert_eq!(same, component.kind == "files", "{component:?}");
            assert!(component.checks.iter().all(|check| check.outcome == CheckOutcome::Passed));
            let described = sample.manifest.component(&component.component).unwrap();
            let interval = Seconds::from_duration(described.schedule.every.to_std());
            assert!(component.rpo_worst_case_seconds.unwrap() > interval, "the backup takes its time too");
        }
        let open = report.not_proven.join("\n");
        assert!(open.contains("no `start`") && open.contains("without `marker_url`"), "{open}");
    }
}

#[test]
fn a_drill_that_takes_too_long_says_so_and_one_that_is_stopped_says_that() {
    // Its marks never come: it listens nowhere.
    let sample = Sample::with(|text| {
        let text = without_a_service(&text);
        text.replace(
            "timeout_seconds = 120",
            "timeout_seconds = 1\nmarker_url = \"http://127.0.0.1:1/marker\"",
        )
    });
    let scenario = Scenario::ApplicationFailure;
    let late = in_context(|context| drill::run(&sample.patient(), scenario, context)).unwrap();
    assert_eq!(late.verdict, VerdictKind::Red);
    assert_eq!(late.reasons[0].code(), codes::DRILL_TIMEOUT, "{:#?}", late.reasons);
    let interrupt = Interrupt::default();
    interrupt.set();
    let stopped = in_context(|context| {
        let context = Context { interrupt: &interrupt, watch: &Silent, ..*context };
        drill::run(&sample.patient(), scenario, &context).unwrap_err()
    });
    assert_eq!(stopped.code(), codes::CANCELLED, "{stopped}");
}

#[test]
fn a_backup_whose_copy_fails_its_checks_is_no_patient() {
    let sample =
        Sample::with(|text| text.replace("min_rows = 1", "expect = \"a number of users that never was\""));
    backed_up(&sample);
    let described = &sample.manifest.repositories[0];
    let error =
        in_context(|context| prepare(&sample.manifest, &sample.text, described, &[], context)).unwrap_err();
    assert_eq!(error.code(), codes::CHECK_FAILED, "{error}");
}

/// The repository is damaged after the patient's own backups, so that only the recovery of the drill meets it.
#[test]
fn a_recovery_that_fails_in_a_drill_makes_it_red_with_the_steps_so_far() {
    struct Breaks<'a>(&'a Path);
    impl Watch for Breaks<'_> {
        fn note(&self, note: &Note) {
            if matches!(note, Note::Disaster { .. }) {
                std::fs::remove_dir_all(self.0.join("data")).unwrap();
            }
        }
    }
    let sample = Sample::new();
    let report = in_context(|context| {
        let patient = sample.patient();
        let watch = Breaks(&patient.repository_dir);
        drill::run(&patient, Scenario::ApplicationFailure, &Context { watch: &watch, ..*context }).unwrap()
    });
    assert_eq!(report.verdict, VerdictKind::Red);
    let failure = report.failure.as_ref().unwrap();
    assert_eq!(failure.code, report.reasons[0].code().as_str());
    assert_eq!(report.reasons[0].code(), codes::PACK_MISSING, "{failure:?}");
    assert_eq!(report.back_after(), None);
    let steps: Vec<StepName> = report.waterfall.steps().iter().map(|step| step.name).collect();
    assert_eq!(steps, [StepName::Detect, StepName::Decide], "its trees are gone too");
    assert_eq!(DrillReport::from_json(&report.to_json().unwrap()).unwrap(), report);
    assert_eq!(sample.processes(), 0);
}

#[test]
fn a_backup_that_cannot_be_restored_is_a_result_and_a_missing_one_is_none() {
    let sample = Sample::new();
    let drilled = || {
        let described = &sample.manifest.repositories[0];
        let scenario = Scenario::Deletion;
        in_context(|context| drill::drill(&sample.manifest, &sample.text, described, &[], scenario, context))
    };
    drop(sample.repository());
    assert_eq!(drilled().unwrap_err().code(), codes::SNAPSHOT_NOT_FOUND);
    backed_up(&sample);
    std::fs::remove_dir_all(sample.path("repository/data")).unwrap();
    let report = drilled().unwrap();
    assert_eq!(report.verdict, VerdictKind::Red);
    assert_eq!(report.reasons[0].code(), codes::PACK_MISSING, "{:#?}", report.reasons);
    assert_eq!(report.environment.repository_id, sample.repository().config().id.to_hex());
    assert!(report.waterfall.steps().is_empty() && report.components.is_empty());
}

#[test]
fn a_repository_in_memory_is_not_drilled_from() {
    let sample = Sample::new();
    let elsewhere = retoma_core::manifest::Repository {
        url: "memory:".to_owned(),
        ..sample.manifest.repositories[0].clone()
    };
    let error =
        in_context(|context| prepare(&sample.manifest, &sample.text, &elsewhere, &[], context)).unwrap_err();
    assert_eq!(error.code(), codes::DRILL_UNSUITED, "{error}");
}

#[test]
fn the_scratch_folder_is_made_where_the_manifest_says_and_goes_with_the_patient() {
    let sample =
        Sample::with(|text| text.replace("[drill]", "[drill]\nscratch_dir = \"../scratch/of drills\""));
    backed_up(&sample);
    let place = sample.path("scratch/of drills");
    let patient = in_context(|context| {
        let described = &sample.manifest.repositories[0];
        prepare(&sample.manifest, &sample.text, described, &[], context).unwrap()
    });
    let scratch = patient.scratch.clone();
    assert_eq!(scratch.parent().unwrap().canonicalize().unwrap(), place.canonicalize().unwrap());
    assert!(patient.repository_dir.starts_with(&scratch) && patient.manifest.dir().starts_with(&scratch));
    assert!(!patient.is_part && !patient.manifest_is_stored);
    drop(patient);
    assert_eq!(std::fs::read_dir(&place).unwrap().count(), 0);
}

fn run_controls(
    sample: &Sample,
    snapshots: &[(String, SnapshotId)],
) -> retoma_control::Result<Vec<retoma_core::drill::ControlResult>> {
    let scratch = tempfile::tempdir().unwrap();
    let bench = Bench {
        repository_dir: &sample.path("repository"),
        password: &Sample::password(),
        manifest: &sample.manifest,
        snapshots,
        scratch: scratch.path(),
    };
    controls::run(&bench, &Silent, &Interrupt::default())
}

/// Two backups at once may store the same blob in two packs; damage in one of them hurts nobody.
#[test]
fn a_blob_that_two_packs_hold_is_damaged_in_both() {
    let sample = Sample::new();
    backed_up(&sample);
    let index = sample.path("repository/index");
    let aside = sample.path("aside");
    std::fs::rename(&index, &aside).unwrap();
    std::fs::create_dir(&index).unwrap();
    // Nobody knows the blobs now, and nothing is compared with the first snapshots.
    let repository = sample.repository();
    for (id, _) in repository.list(Folder::Snapshots).unwrap() {
        repository.store().delete(&Folder::Snapshots.key(&SnapshotId(id).to_hex()).unwrap()).unwrap();
    }
    let snapshots = backed_up(&sample);
    for entry in std::fs::read_dir(&aside).unwrap() {
        let entry = entry.unwrap();
        std::fs::rename(entry.path(), index.join(entry.file_name())).unwrap();
    }
    let controls = run_controls(&sample, &snapshots).unwrap();
    assert_eq!(controls.len(), 9);
    assert!(controls.iter().all(|it| it.outcome == ControlOutcome::AsExpected), "{controls:#?}");
}

#[test]
fn without_any_file_with_contents_there_are_no_controls() {
    let sample = Sample::new();
    let snapshots = backed_up(&sample);
    let error = run_controls(&sample, &[]).unwrap_err();
    assert_eq!(error.code(), codes::NO_CONTROLS, "{error}");
    // Only what was recovered is looked at, and it may be empty.
    let logs: Vec<_> = snapshots.into_iter().filter(|(name, _)| name == "logs").collect();
    assert!(run_controls(&sample, &logs).is_ok());
    std::fs::remove_dir_all(sample.path("service/logs")).unwrap();
    std::fs::create_dir(sample.path("service/logs")).unwrap();
    std::fs::write(sample.path("service/logs/empty"), "").unwrap();
    let empty: Vec<_> = backed_up(&sample).into_iter().filter(|(name, _)| name == "logs").collect();
    assert_eq!(run_controls(&sample, &empty).unwrap_err().code(), codes::NO_CONTROLS);
}

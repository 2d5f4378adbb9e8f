//! Recovery: into a blank folder, in place, and back again when it fails.

use super::sample::{Sample, in_context, supervisor};
use retoma_control::backup::{backup, backup_manifest};
use retoma_control::drill::port;
use retoma_control::recover::{self, Options, Place, Recovered, Request};
use retoma_control::{Result, Timeline};
use retoma_core::decide::recovery::{Goal, Target};
use retoma_core::drill::StepName;
use retoma_core::error::codes;
use retoma_core::manifest::Manifest;
use retoma_repo::backup::Progress;
use retoma_repo::{Folder, Repository};

/// Everything backed up, the manifest too.
pub(crate) fn backed_up(sample: &Sample) -> Repository {
    let repository = sample.repository();
    for component in &sample.manifest.components {
        backup(&sample.manifest, component, &repository, &Progress::default()).unwrap();
    }
    backup_manifest(&sample.manifest, &sample.text, &repository, &Progress::default()).unwrap().unwrap();
    repository
}

pub(crate) fn recover(
    sample: &Sample,
    repository: &Repository,
    place: Place,
    only: &[String],
) -> Result<Recovered> {
    recover_with(true, sample, repository, place, only)
}

pub(crate) fn recover_with(
    starts_service: bool,
    sample: &Sample,
    repository: &Repository,
    place: Place,
    only: &[String],
) -> Result<Recovered> {
    let plan = recover::plan(&Request { only, ..Request::newest(repository, place) })?;
    let log = sample.path("log");
    let supervisor = supervisor();
    let options =
        Options { supervisor: &supervisor, starts_service, log: &log, keep_previous: false, runs_stop: true };
    in_context(|context| {
        let mut timeline = Timeline::start(context.clock, StepName::Decide);
        recover::apply(&plan, repository, &options, &mut timeline, context.watch, context.interrupt)
    })
}

pub(crate) fn rows(path: &std::path::Path) -> i64 {
    let connection = rusqlite::Connection::open(path).unwrap();
    connection.query_row("SELECT count(*) FROM predictions", (), |row| row.get(0)).unwrap()
}

#[test]
fn a_blank_folder_becomes_the_whole_service() {
    let sample = Sample::new();
    let repository = backed_up(&sample);
    std::fs::remove_dir_all(sample.path("service")).unwrap();
    let target = sample.path("blank");
    let recovered = recover(&sample, &repository, Place::Under(target.clone()), &[]).unwrap();
    assert!(recovered.passed(), "{recovered:#?}");
    let order: Vec<&str> = recovered.components.iter().map(|it| it.component.as_str()).collect();
    assert_eq!(order, ["database", "models", "config", "logs"]);
    let root = target.join(sample.path("service").strip_prefix("/").unwrap());
    assert!(recovered.components.iter().all(|it| it.path.starts_with(&root)));
    assert_eq!(std::fs::read_to_string(root.join("retoma.toml")).unwrap(), sample.text);
    assert_eq!(recovered.service_checks.len(), 2);
    assert_eq!(sample.processes(), 2, "the service and its supervisor");
    drop(recovered);
    assert_eq!(sample.processes(), 0);
    assert_eq!(rows(&root.join("data/marabet.sqlite")), 300);
    let again = recover(&sample, &repository, Place::Under(target), &[]).unwrap_err();
    assert_eq!(again.code(), codes::RESTORE_TARGET, "{again}");
}

#[test]
fn a_plan_says_what_will_be_done_and_changes_nothing() {
    let sample = Sample::new();
    let repository = backed_up(&sample);
    let only = ["models".to_owned()];
    let place = Place::Under(sample.path("blank"));
    let request = Request { only: &only, ..Request::newest(&repository, place) };
    let plan = recover::plan(&request).unwrap();
    assert_eq!(plan.components.len(), 1);
    let planned = &plan.components[0];
    assert_eq!(planned.from, sample.path("service/models"));
    assert!(planned.to.starts_with(sample.path("blank")) && planned.is_folder);
    assert!(!sample.path("blank").exists());
    let target = Target::Time(planned.time() - jiff::SignedDuration::from_hours(1));
    let before = Request { goal: Goal { target, ..Goal::default() }, ..request.clone() };
    assert_eq!(recover::plan(&before).unwrap_err().code(), codes::SNAPSHOT_NOT_FOUND);
    let unknown = ["modles".to_owned()];
    let unknown = Request { only: &unknown, ..request };
    assert_eq!(recover::plan(&unknown).unwrap_err().hint(), Some("it has database, models, config, logs"));
}

#[test]
fn in_place_the_snapshot_takes_the_place_of_what_is_there() {
    let sample = Sample::new();
    let repository = backed_up(&sample);
    let database = sample.path("service/data/marabet.sqlite");
    rusqlite::Connection::open(&database).unwrap().execute_batch("DELETE FROM predictions").unwrap();
    std::fs::write(sample.path("service/models/extra"), "x").unwrap();
    let recovered = recover(&sample, &repository, Place::InPlace, &[]).unwrap();
    assert!(recovered.passed(), "{recovered:#?}");
    drop(recovered);
    assert_eq!(rows(&database), 300);
    assert!(!sample.path("service/models/extra").exists());
    assert_eq!(leftovers(&sample), Vec::<String>::new());
}

/// Names that a recovery leaves while it is not complete.
pub(crate) fn leftovers(sample: &Sample) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![sample.path("service")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.file_name().to_string_lossy().into_owned();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            }
            if name.contains(".retoma-") {
                found.push(name);
            }
        }
    }
    found
}

/// In place, by another manifest than the stored one.
fn recover_in_place_as(manifest: &Manifest, sample: &Sample, repository: &Repository) -> Recovered {
    let manifest = Some((manifest, sample.text.as_str()));
    let request = Request { manifest, ..Request::newest(repository, Place::InPlace) };
    let plan = recover::plan(&request).unwrap();
    let log = sample.path("log");
    let options = Options {
        supervisor: &supervisor(),
        starts_service: true,
        log: &log,
        keep_previous: false,
        runs_stop: true,
    };
    in_context(|context| {
        let mut timeline = Timeline::start(context.clock, StepName::Decide);
        recover::apply(&plan, repository, &options, &mut timeline, context.watch, context.interrupt).unwrap()
    })
}

#[test]
fn when_the_restored_service_fails_its_checks_the_previous_data_are_back() {
    // What is in the repository is sound as data, and not what the service needs: its check asks for another text.
    let sample = Sample::with(|text| text.replace("\\\"healthy\\\":true", "a text that never comes"));
    let mut manifest = sample.manifest.clone();
    manifest.service.ready_seconds = 1;
    let repository = backed_up(&sample);
    let database = sample.path("service/data/marabet.sqlite");
    rusqlite::Connection::open(&database)
        .unwrap()
        .execute_batch("DELETE FROM predictions WHERE rowid > 100")
        .unwrap();
    let recovered = recover_in_place_as(&manifest, &sample, &repository);
    assert!(!recovered.passed());
    let reason = recovered.rolled_back.unwrap();
    assert_eq!(reason.code(), codes::ROLLED_BACK, "{reason}");
    assert!(reason.message().contains("is not ready after 1 s"), "{reason}");
    assert_eq!(sample.processes(), 0);
    assert_eq!(rows(&database), 100, "the previous data are back");
    assert_eq!(leftovers(&sample), Vec::<String>::new());
}

#[test]
fn when_a_recovery_is_undone_the_manifests_command_to_stop_runs_once() {
    let sample = Sample::with(|text| {
        let text = text.replace("\\\"healthy\\\":true", "a text that never comes");
        text.replace("ready_seconds", "stop = [\"sh\", \"-c\", \"echo stopped >> stopped\"]\nready_seconds")
    });
    let mut manifest = sample.manifest.clone();
    manifest.service.ready_seconds = 1;
    let repository = backed_up(&sample);
    let recovered = recover_in_place_as(&manifest, &sample, &repository);
    assert_eq!(recovered.rolled_back.unwrap().code(), codes::ROLLED_BACK);
    assert_eq!(std::fs::read_to_string(sample.path("service/stopped")).unwrap(), "stopped\n", "once");
    assert_eq!(sample.processes(), 0);
}

#[test]
fn a_service_that_still_answers_is_not_pulled_away_from_under() {
    let sample = Sample::new();
    let repository = backed_up(&sample);
    let running = recover(&sample, &repository, Place::InPlace, &[]).unwrap();
    let error = recover(&sample, &repository, Place::InPlace, &[]).unwrap_err();
    assert_eq!(error.code(), codes::SERVICE_RUNS, "{error}");
    drop(running);
}

#[test]
fn data_that_fail_their_checks_never_reach_the_live_place() {
    let sample =
        Sample::with(|text| text.replace("min_rows = 1", "expect = \"a number of users that never was\""));
    let repository = backed_up(&sample);
    let database = sample.path("service/data/marabet.sqlite");
    let inode = || std::os::unix::fs::MetadataExt::ino(&std::fs::metadata(&database).unwrap());
    let before = inode();
    let error = recover(&sample, &repository, Place::InPlace, &[]).unwrap_err();
    assert_eq!(error.code(), codes::CHECK_FAILED, "{error}");
    assert_eq!(inode(), before);
    assert_eq!(leftovers(&sample), Vec::<String>::new());
}

#[test]
fn a_component_inside_another_comes_back_with_it() {
    let sample = Sample::with(|text| {
        let outer = "[[component]]\nname = \"everything\"\nkind = \"files\"\ntier = \"low\"\npath = \".\"\n\
                     exclude = ['/data/marabet.sqlite', '/data/marabet.sqlite-wal', '/data/marabet.sqlite-shm']\n\n";
        text.replace("[drill]", &format!("{outer}[drill]"))
    });
    let repository = backed_up(&sample);
    let database = sample.path("service/data/marabet.sqlite");
    rusqlite::Connection::open(&database).unwrap().execute_batch("DELETE FROM predictions").unwrap();
    let recovered = recover(&sample, &repository, Place::InPlace, &[]).unwrap();
    assert!(recovered.passed(), "{recovered:#?}");
    assert_eq!(recovered.previous.len(), 1, "what patterns left out is kept beside");
    drop(recovered);
    assert_eq!(rows(&database), 300);
    std::fs::remove_dir_all(sample.path("service")).unwrap();
    let blank = sample.path("blank");
    let recovered = recover(&sample, &repository, Place::Under(blank), &[]).unwrap();
    assert!(recovered.passed(), "{recovered:#?}");
    assert_eq!(recovered.components[0].component, "everything", "what holds the others comes first");
}

#[test]
fn a_service_moves_to_another_port_with_all_its_addresses() {
    let sample = Sample::new();
    let mut manifest = sample.manifest.clone();
    assert!(port::move_service(&mut manifest, 7));
    let start = manifest.service.start.unwrap();
    assert_eq!(start.arguments.last().map(String::as_str), Some("7"));
    assert_eq!(manifest.service.health.as_deref(), Some("http://127.0.0.1:7/healthz"));
    assert_eq!(manifest.drill.markers.unwrap().read_url, "http://127.0.0.1:7/markers");
    assert_eq!(manifest.service.checks[0].url, "http://127.0.0.1:7/healthz?deep=true");
    let mut fixed = sample.manifest.clone();
    fixed.service.start.as_mut().unwrap().arguments.pop();
    assert!(!port::move_service(&mut fixed, 7));
    assert_eq!(fixed.service.health, sample.manifest.service.health);
}

#[test]
fn a_damaged_index_file_stops_only_what_needs_it_and_is_told() {
    let sample = Sample::new();
    let repository = backed_up(&sample);
    let index = |repository: &Repository| repository.list(Folder::Index).unwrap();
    let before = index(&repository);
    std::fs::write(sample.path("service/models/new"), "a model").unwrap();
    let models = sample.manifest.component("models").unwrap();
    backup(&sample.manifest, models, &repository, &Progress::default()).unwrap();
    let (id, meta) = index(&repository).into_iter().find(|new| !before.contains(new)).unwrap();
    let path = sample.path("repository").join(meta.key.as_str());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&path, bytes).unwrap();

    let only = ["database".to_owned(), "config".to_owned()];
    let target = Place::Under(sample.path("parts"));
    let recovered = recover_with(false, &sample, &repository, target, &only).unwrap();
    assert_eq!(recovered.components.len(), 2);
    assert_eq!(recovered.damage.len(), 1);
    assert!(recovered.damage[0].to_string().contains(&retoma_repo::IndexId(id).to_hex()));
    assert!(!recovered.passed(), "damage is never passed over in silence");
    let error = recover(&sample, &repository, Place::Under(sample.path("all")), &[]).unwrap_err();
    assert_eq!(error.code(), codes::BLOB_MISSING, "{error}");
}

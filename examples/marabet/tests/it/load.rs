//! The load generator against the real service.

use std::fs;

use retoma_marabet::{LoadOptions, load, markers};
use retoma_testkit::{PATIENCE, wait_for};
use serde_json::Value;

use super::service::{ROWS, Service, program, root};

#[test]
fn what_was_acknowledged_is_what_is_in_the_database() {
    let root = root();
    let service = Service::start(root.path());
    let mut options = LoadOptions::new(&service.url, "equal");
    (options.rate_per_second, options.max_markers) = (1000, 40);
    let mut told = Vec::new();
    let report = load(&options, |number, at| told.push((number, at))).unwrap();

    let found = markers(&service.url, "equal", PATIENCE).unwrap();
    assert_eq!((found.count, found.max, found.missing.len()), (40, 40, 0));
    let acknowledged: Vec<_> = report.acknowledged.iter().map(|marker| (marker.number, marker.at)).collect();
    assert_eq!(told, acknowledged);
    assert_eq!(
        acknowledged.iter().map(|(number, _)| *number).collect::<Vec<_>>(),
        (1..=40).collect::<Vec<_>>()
    );
    assert!(acknowledged.is_sorted_by_key(|(_, at)| *at));
    assert_eq!(report.outages, []);
    // A marker and a prediction each, and one question for the model.
    assert_eq!((report.requests, report.prediction_ids.len()), (81, 40));
    assert_eq!(service.get("/predictions/count").1["count"], ROWS + 40);
}

#[test]
fn markers_that_a_restore_took_away_are_counted_as_lost() {
    let root = root();
    let service = Service::start(root.path());
    let mut options = LoadOptions::new(&service.url, "lost");
    (options.rate_per_second, options.max_markers) = (1000, 20);
    let report = load(&options, |_, _| ()).unwrap();
    let connection = rusqlite::Connection::open(service.layout.database()).unwrap();
    connection.execute_batch("DELETE FROM markers WHERE number > 15 OR number = 3").unwrap();
    let found = markers(&service.url, "lost", PATIENCE).unwrap();
    let lost: Vec<u64> = report.lost(&found).map(|marker| marker.number).collect();
    assert_eq!(lost, [3, 16, 17, 18, 19, 20]);
}

#[test]
fn a_load_goes_on_through_errors_of_the_service() {
    let root = root();
    let service = Service::start(root.path());
    let mut options = LoadOptions::new(&service.url, "errors");
    (options.rate_per_second, options.max_markers, options.limit) = (1000, 30, PATIENCE);
    let (data, away) = (root.path().join("data"), root.path().join("away"));
    let mut marks = 0;
    // Moved away between two requests and put back by a thread that sees the refusals in the log.
    std::thread::scope(|scope| {
        let report = load(&options, |number, _| {
            marks = number;
            if number == 10 {
                fs::rename(&data, &away).unwrap();
                scope.spawn(|| {
                    wait_for(|| {
                        fs::read_to_string(service.layout.log())
                            .unwrap()
                            .contains("\"status\":503")
                            .then_some(())
                    });
                    fs::rename(&away, &data).unwrap();
                });
            }
        })
        .unwrap();
        assert_eq!((report.outages.len(), report.acknowledged.len()), (1, 30), "{:?}", report.outages);
        assert!(report.outages[0].first_error.starts_with("status 503: "), "{:?}", report.outages);
    });
    assert_eq!(marks, 30);
    assert_eq!(markers(&service.url, "errors", PATIENCE).unwrap().count, 30);
}

#[test]
fn the_command_prints_what_it_did_as_json() {
    let root = root();
    let service = Service::start(root.path());
    let output =
        program().args(["load", "--rate", "200", "--seconds", "1", "--url", &service.url]).output().unwrap();
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert!(output.status.success());
    assert_eq!(
        (report["markers_lost"].as_u64(), &report["outages"]),
        (Some(0), &serde_json::json!([])),
        "{report}"
    );
    let found = markers(&service.url, report["run"].as_str().unwrap(), PATIENCE).unwrap();
    assert_eq!(report["markers_acknowledged"].as_u64(), Some(found.count));
    assert!(found.count > 0);
}

#[test]
fn asking_nobody_for_markers_is_an_error_that_may_pass() {
    let root = root();
    let service = Service::start(root.path());
    let url = service.url.clone();
    service.kill();
    let error = markers(&url, "r", PATIENCE).unwrap_err();
    assert!(error.kind().is_retryable());
    assert_eq!(error.code().as_str(), "R0996");
}

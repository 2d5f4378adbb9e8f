//! `/healthz`: green when all is right, red with the reason when something is not, green again when it is back.

use std::fs;
use std::os::unix::fs::FileExt;

use serde_json::json;

use super::service::{Service, features, model_path, program, root};

#[test]
fn a_seeded_service_is_green_also_when_everything_is_read() {
    let root = root();
    let service = Service::start(root.path());
    service.assert_green();
    let (status, body) = service.get("/healthz?deep=true");
    assert_eq!((status, &body["reasons"]), (200, &json!([])));
}

#[test]
fn a_flipped_byte_in_the_model_is_red_until_it_is_restored() {
    let root = root();
    let service = Service::start(root.path());
    service.assert_green();
    let path = model_path(&service.layout);
    let good = fs::read(&path).unwrap();
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[good[1000] ^ 1], 1000).unwrap();
    assert!(service.assert_red("model").contains("SHA-256"));
    // The copy in memory was checked when it was read, and still answers.
    service.predict(1.0);
    fs::write(&path, good).unwrap();
    service.assert_green();
}

#[test]
fn a_service_that_starts_with_a_damaged_model_is_red_and_predicts_nothing() {
    let root = root();
    let path = root.path().join("models/match-winner.f32");
    let good = fs::read(&path).unwrap();
    fs::write(&path, &good[..good.len() - 4]).unwrap();
    let service = Service::start(root.path());
    service.assert_red("model");
    let (status, body) = service.post("/predict", &features(1.0));
    assert_eq!((status, body["code"].as_str()), (503, Some("R0991")));
    fs::write(&path, good).unwrap();
    service.assert_green();
    service.predict(1.0);
}

#[test]
fn a_missing_checksum_or_model_is_red() {
    for name in ["match-winner.f32", "match-winner.f32.sha256"] {
        let root = root();
        let service = Service::start(root.path());
        fs::remove_file(root.path().join("models").join(name)).unwrap();
        service.assert_red("model");
    }
}

#[test]
fn a_lost_database_folder_is_red_takes_no_writes_and_is_green_when_it_is_back() {
    let root = root();
    let service = Service::start(root.path());
    service.predict(1.0);
    let (data, away) = (root.path().join("data"), root.path().join("away"));
    fs::rename(&data, &away).unwrap();
    service.assert_red("database");
    let marker = json!({"run": "a", "number": 1});
    assert_eq!(service.post("/marker", &marker).0, 503);
    assert_eq!(service.post("/predict", &features(1.0)).0, 503);
    fs::rename(&away, &data).unwrap();
    service.assert_green();
    assert_eq!(service.get("/markers?run=a").1["count"], 0, "nothing went into the file while it was away");
    assert_eq!(service.post("/marker", &marker).0, 200);
}

#[test]
fn a_service_that_starts_without_its_database_is_red_and_makes_none() {
    let root = root();
    let database = root.path().join("data/marabet.sqlite");
    fs::remove_file(&database).unwrap();
    let service = Service::start(root.path());
    service.assert_red("database");
    assert!(!database.exists());
}

#[test]
fn an_empty_database_file_is_red() {
    let root = root();
    fs::write(root.path().join("data/marabet.sqlite"), b"").unwrap();
    let service = Service::start(root.path());
    assert!(service.assert_red("database").contains("no such table"));
}

#[test]
fn each_dropped_table_is_red() {
    for table in ["predictions", "markers", "users", "events"] {
        let root = root();
        let service = Service::start(root.path());
        service.assert_green();
        let connection = rusqlite::Connection::open(service.layout.database()).unwrap();
        connection.execute_batch(&format!("PRAGMA foreign_keys = OFF; DROP TABLE {table}")).unwrap();
        let reason = service.assert_red("database");
        assert!(reason.contains(&format!("no such table: {table}")), "{reason}");
    }
}

#[test]
fn damage_in_the_middle_of_the_data_is_found_by_the_deep_check() {
    let root = root();
    let service = Service::start(root.path());
    let path = service.layout.database();
    let pages = fs::metadata(&path).unwrap().len() / 4096;
    let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0xff; 100], pages / 2 * 4096).unwrap();
    let (status, body) = service.get("/healthz?deep=true");
    assert_eq!((status, body["reasons"][0]["check"].as_str()), (503, Some("database")), "{body}");

    let other = service.layout.models().join("total-goals.f32");
    fs::write(other, b"another model than the one that is served").unwrap();
    let (_, body) = service.get("/healthz?deep=true");
    assert_eq!(body["reasons"][1]["check"], "model", "{body}");
}

#[test]
fn without_its_configuration_the_program_ends_with_the_reason() {
    let root = root();
    fs::remove_file(root.path().join("config/marabet.toml")).unwrap();
    let output = program().args(["serve", "--port", "0", "--root"]).arg(root.path()).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(errors.starts_with("error[R0990]: ") && errors.contains("marabet.toml"), "{errors}");
}

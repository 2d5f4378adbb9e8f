//! A blank machine, the repository's address and the password: the service is back.

use crate::kit::{Home, tree};
use crate::service::{Left, ROWS, get, seeded};
use serde_json::Value;

fn arguments<'a>(url: &'a str, extra: &[&'a str]) -> Vec<&'a str> {
    let common = ["recover", "--repository-url", url, "--password-file", "password", "--to", "blank"];
    common.into_iter().chain(extra.iter().copied()).collect()
}

fn component<'a>(document: &'a Value, name: &str) -> &'a Value {
    document["components"].as_array().unwrap().iter().find(|one| one["component"] == name).unwrap()
}

fn url(home: &Home) -> String {
    format!("file://{}", home.text_path("repository"))
}

#[test]
fn a_blank_folder_gets_the_service_back_running() {
    let (home, port) = seeded();
    let source = (tree(&home.path("srv/models")), tree(&home.path("srv/config")));
    std::fs::remove_dir_all(home.path("srv")).unwrap();
    let url = url(&home);

    let dry = home.json(&arguments(&url, &["--dry-run"]), 0, "retoma.recover/1");
    let planned: Vec<&str> =
        dry["components"].as_array().unwrap().iter().map(|one| one["component"].as_str().unwrap()).collect();
    assert_eq!(planned, ["database", "models", "config"], "in the order of their tiers");
    assert!(!home.path("blank").exists() && !home.path("srv").exists(), "a dry run changes nothing");

    let done = home.json(&arguments(&url, &[]), 0, "retoma.recover/1");
    let left = Left::new(&done["service"]["pid"]);
    assert_eq!((&done["passed"], &done["dry_run"]), (&true.into(), &false.into()), "{done:#}");
    assert_eq!(component(&done, "database")["rows"].as_u64().unwrap() / ROWS, 1, "{done:#}");
    let checks = done["service"]["checks"].as_array().unwrap();
    assert!(checks.len() >= 2 && checks.iter().all(|check| check["outcome"] == "passed"), "{done:#}");
    assert!(left.runs());
    let health = get(port, "/healthz?deep=true").unwrap();
    assert!(health.starts_with("HTTP/1.1 200"), "{health}");
    let count = get(port, "/predictions/count").unwrap();
    assert!(count.contains(&ROWS.to_string()), "{count}");
    let root = home.path("blank").join(home.path("srv").strip_prefix("/").unwrap());
    assert_eq!((tree(&root.join("models")), tree(&root.join("config"))), source);
    left.stop(port);
}

#[test]
fn only_some_components_come_back_without_a_start() {
    let (home, port) = seeded();
    let url = url(&home);
    let done = home.json(&arguments(&url, &["--only", "models", "--no-start"]), 0, "retoma.recover/1");
    assert!(done["service"]["pid"].is_null() && get(port, "/healthz").is_none());
    assert_eq!(done["components"].as_array().unwrap().len(), 1);
    let root = home.path("blank").join(home.path("srv").strip_prefix("/").unwrap());
    assert_eq!(tree(&root.join("models")), tree(&home.path("srv/models")));
    assert!(!root.join("data").exists());
    let unknown = home.run(&arguments(&url, &["--only", "nothing"])).expect(1);
    assert!(unknown.stderr.contains("database, models, config"), "{}", unknown.text());
}

#[test]
fn in_place_the_lost_data_are_back_and_a_no_changes_nothing() {
    let (home, _) = seeded();
    let models = tree(&home.path("srv/models"));
    std::fs::remove_dir_all(home.path("srv/models")).unwrap();
    let recover = ["recover", "-f", "srv/retoma.toml", "--in-place", "--no-start"];
    home.run(&recover).expect(1);
    assert!(!home.path("srv/models").exists());
    let yes: Vec<&str> = recover.iter().copied().chain(["--yes"]).collect();
    let done = home.json(&yes, 0, "retoma.recover/1");
    assert_eq!((&done["passed"], &done["rolled_back"]), (&true.into(), &Value::Null));
    assert_eq!(tree(&home.path("srv/models")), models);
}

/// What a kill left is named by the doctor and gone after the next recovery in place.
#[test]
fn what_a_killed_recovery_left_beside_is_named_and_cleaned_by_the_next() {
    let (home, _) = seeded();
    home.write("srv/models.retoma-new/half", b"of a model");
    let doctor = home.run(&["doctor", "-f", "srv/retoma.toml"]).expect(0);
    assert!(doctor.stdout.contains("models.retoma-new` was left by a recovery"), "{}", doctor.text());
    home.run(&["recover", "-f", "srv/retoma.toml", "--in-place", "--no-start", "--yes"]).expect(0);
    assert!(!home.path("srv/models.retoma-new").exists());
    let doctor = home.run(&["doctor", "-f", "srv/retoma.toml"]).expect(0);
    assert!(!doctor.stdout.contains("retoma-new"), "{}", doctor.text());
}

//! Whole drills of the sample service: the numbers that a drill must give, and its page.

use crate::kit::{Home, PASSWORD, Run, signal, tree, wait_for};
use crate::service::{get, seeded};
use rustix::process::Signal;
use serde_json::Value;
use std::process::Stdio;

/// A decimal with at most six digits after the point as microseconds, which add up exactly.
#[allow(clippy::cast_possible_truncation, clippy::cast_precision_loss)]
fn micros(value: &Value) -> i64 {
    let seconds = value.as_f64().unwrap();
    let micros = (seconds * 1e6).round();
    // Were there more digits, the nearest number with six of them would be another one.
    assert_eq!((micros / 1e6).to_bits(), seconds.to_bits(), "{value}");
    micros as i64
}

fn drill(home: &Home, scenario: &str) -> Value {
    home.json(&["drill", scenario, "-f", "srv/retoma.toml", "--report", "report"], 0, "retoma.drill/1")
}

fn assert_says_what_a_drill_must(document: &Value, scenario: &str) {
    assert_eq!(
        (&document["scenario"], &document["verdict"]),
        (&scenario.into(), &"green".into()),
        "{document:#}"
    );
    assert_eq!(document["reasons"], serde_json::json!([]));
    let components = document["components"].as_array().unwrap();
    let mut names: Vec<&str> = components.iter().map(|one| one["component"].as_str().unwrap()).collect();
    names.sort_unstable();
    assert_eq!(names, ["config", "database", "models"]);
    for one in components {
        let numbers = [
            "rto_objective_seconds",
            "rto_measured_seconds",
            "rpo_objective_seconds",
            "rpo_measured_seconds",
            "rpo_worst_case_seconds",
            "markers_written",
            "markers_lost",
        ];
        for name in numbers {
            assert!(one[name].is_number(), "{name}: {one:#}");
        }
        assert!(one["markers_written"].as_u64().unwrap() > 0, "{one:#}");
        assert!(micros(&one["rto_measured_seconds"]) > 0);
    }
    let steps = document["waterfall"].as_array().unwrap();
    assert!(steps.len() >= 5, "{document:#}");
    let sum: i64 = steps.iter().map(|step| micros(&step["duration_seconds"])).sum();
    assert_eq!(sum, micros(&document["rto_measured_seconds"]));
    let mut end = 0;
    for step in steps {
        assert_eq!(micros(&step["start_seconds"]), end, "{document:#}");
        end += micros(&step["duration_seconds"]);
    }
    let controls = document["controls"].as_array().unwrap();
    let negative = controls.iter().filter(|one| one["kind"] == "negative").count();
    assert!(negative >= 5 && negative < controls.len(), "{document:#}");
    for control in controls {
        assert_eq!(control["outcome"], "as_expected", "{control:#}");
        assert_eq!(control["found_code"], control["expected_code"], "{control:#}");
    }
}

/// The page needs nothing from anywhere: whatever it refers to is an anchor in itself or data.
fn assert_self_contained(page: &str) {
    assert!(page.starts_with("<!doctype html>") && page.contains("<svg"), "{page}");
    for attribute in [" src=", " href=", " xlink:href=", " action=", " data=", " srcset="] {
        for value in page.split(attribute).skip(1) {
            let value = value.trim_start_matches(['"', '\'']);
            assert!(value.starts_with('#') || value.starts_with("data:"), "{attribute}{value:.80}");
        }
    }
    for loading in ["<script", "<link", "<iframe", "@import", "url("] {
        assert!(!page.contains(loading), "{loading}");
    }
}

#[test]
fn a_lost_application_comes_back_with_numbers_and_a_page() {
    let (home, port) = seeded();
    let before = tree(&home.path("srv"));
    let snapshots = home.json(&["snapshots", "-f", "srv/retoma.toml"], 0, "retoma.snapshots/1");
    let document = drill(&home, "application-failure");
    assert_says_what_a_drill_must(&document, "application-failure");
    let page = std::fs::read_to_string(home.path("report/drill-application-failure.html")).unwrap();
    assert_self_contained(&page);
    let written = std::fs::read_to_string(home.path("report/drill-application-failure.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&written).unwrap(), document);
    // What is live was not touched, and nothing is left behind.
    assert_eq!(tree(&home.path("srv")), before);
    assert_eq!(home.json(&["snapshots", "-f", "srv/retoma.toml"], 0, "retoma.snapshots/1"), snapshots);
    assert_eq!(tree(&home.path("tmp")).len(), 0);
    assert!(get(port, "/healthz").is_none());
}

#[test]
fn a_lost_key_is_no_lost_service() {
    let (home, _) = seeded();
    let document = drill(&home, "lost-key");
    assert_says_what_a_drill_must(&document, "lost-key");
    // The real repository still opens with the key that the copy lost.
    home.run(&["verify", "-f", "srv/retoma.toml"]).expect(0);
    assert_eq!(tree(&home.path("tmp")).len(), 0);
}

#[test]
fn a_replaced_key_is_no_lost_service() {
    let (home, _) = seeded();
    let before = tree(&home.path("repository"));
    let document = drill(&home, "new-key");
    assert_says_what_a_drill_must(&document, "new-key");
    assert_eq!(control(&document, "old key")["found_code"], "R0202");
    assert_eq!(tree(&home.path("repository")), before, "the real key is the old one");
}

#[test]
fn a_lost_machine_comes_back_from_the_repository_alone_beside_the_live_service() {
    let (home, port) = seeded();
    let number = port.to_string();
    let mut live = home.command();
    let mut live = live.args(["__marabet", "serve", "--root", "srv", "--port", &number]).spawn().unwrap();
    wait_for("the live service", || get(port, "/healthz"));
    let models = tree(&home.path("srv/models"));
    let document = drill(&home, "infrastructure-failure");
    assert_says_what_a_drill_must(&document, "infrastructure-failure");
    assert!(get(port, "/healthz").is_some(), "the live service runs on");
    assert_eq!(tree(&home.path("srv/models")), models);
    assert_eq!(tree(&home.path("tmp")).len(), 0);
    live.kill().unwrap();
    live.wait().unwrap();
    // What a blank machine would get is another manifest than this one.
    let mut text = std::fs::read_to_string(home.path("srv/retoma.toml")).unwrap();
    text += "# changed since\n";
    home.write("srv/retoma.toml", text.as_bytes());
    let red = ["drill", "infrastructure-failure", "-f", "srv/retoma.toml"];
    let document = home.json(&red, 4, "retoma.drill/1");
    assert_eq!((&document["verdict"], &document["failure"]["code"]), (&"red".into(), &"R0703".into()));
    assert_eq!(tree(&home.path("tmp")).len(), 0);
}

fn control<'a>(document: &'a Value, name: &str) -> &'a Value {
    let controls = document["controls"].as_array().unwrap();
    controls.iter().find(|control| control["name"] == name).unwrap_or_else(|| panic!("{document:#}"))
}

/// The seeded service with more repositories, which are told in `more` after the first one; all of them are filled.
fn seeded_in_several(more: &str, change: impl FnOnce(String) -> String) -> Home {
    let (home, _) = seeded();
    let text = std::fs::read_to_string(home.path("srv/retoma.toml")).unwrap();
    let text = text.replacen("\n[[component]]", &format!("{more}\n[[component]]"), 1);
    home.write("srv/retoma.toml", change(text).as_bytes());
    home.json(&["backup", "-f", "srv/retoma.toml"], 0, "retoma.backup/1");
    if more.contains("copy_of") {
        home.json(&["copy", "-f", "srv/retoma.toml"], 0, "retoma.copy/1");
    }
    home
}

/// A place for repositories that the drilled service does not lie in.
fn elsewhere() -> Home {
    let place = Home::empty();
    place.write_private("password", PASSWORD);
    place
}

fn repository(home: &Home, name: &str, more: &str) -> String {
    let (folder, password) = (home.text_path(name), home.text_path("password"));
    format!(
        "[[repository]]\nname = \"{name}\"\nurl = \"file://{folder}\"\npassword = \"file:{password}\"\n{more}\n"
    )
}

/// What became of the repositories: name, lost, read.
fn became(document: &Value) -> Vec<(&str, bool, bool)> {
    let all = document["repositories"].as_array().unwrap().iter();
    all.map(|it| {
        (it["repository"].as_str().unwrap(), it["lost"].as_bool().unwrap(), it["read"].as_bool().unwrap())
    })
    .collect()
}

#[test]
fn a_lost_repository_is_no_lost_service_where_there_is_another() {
    let place = elsewhere();
    let home = seeded_in_several(&repository(&place, "second", ""), |text| text);
    let before = (tree(&home.path("srv")), tree(&home.path("repository")), tree(&place.path("second")));
    let document = drill(&home, "lost-repository");
    assert_says_what_a_drill_must(&document, "lost-repository");
    assert_eq!(became(&document), [("local", true, false), ("second", false, true)]);
    assert_eq!(control(&document, "lost repository `local`")["found_code"], "R0201");
    let page = std::fs::read_to_string(home.path("report/drill-lost-repository.html")).unwrap();
    assert!(page.contains("Lost repositories: local. The data came from second."), "{page}");
    assert_self_contained(&page);
    // Whichever is named is the one that is lost.
    let named = ["drill", "lost-repository", "-f", "srv/retoma.toml", "-r", "second"];
    let document = home.json(&named, 0, "retoma.drill/1");
    assert_eq!(became(&document), [("local", false, true), ("second", true, false)]);
    let after = (tree(&home.path("srv")), tree(&home.path("repository")), tree(&place.path("second")));
    assert_eq!(after, before, "nothing real was touched");
    assert_eq!(tree(&home.path("tmp")).len(), 0);
}

#[test]
fn a_lost_region_takes_what_lies_in_it_and_a_copy_elsewhere_serves() {
    let place = elsewhere();
    let more = repository(&place, "second", "region = \"cellar\"")
        + &repository(&place, "third", "region = \"hill\"\ncopy_of = \"local\"");
    let home = seeded_in_several(&more, |text| {
        text.replacen("name = \"local\"", "name = \"local\"\nregion = \"cellar\"", 1)
    });
    // A copy every hour is too rare for what may lose minutes.
    let document = home.json(&["drill", "lost-region", "-f", "srv/retoma.toml"], 4, "retoma.drill/1");
    let reasons = document["reasons"].as_array().unwrap();
    assert!(!reasons.is_empty() && reasons.iter().all(|it| it["reason"] == "rpo_missed"), "{reasons:#?}");
    assert_eq!(reasons[0]["component"], "database");
    let mut text = std::fs::read_to_string(home.path("srv/retoma.toml")).unwrap();
    text += "\n[schedule]\nevery = \"1m\"\n\n[agent]\ncopy_every = \"1m\"\n";
    home.write("srv/retoma.toml", text.as_bytes());
    // It is read from the copy, as on a blank machine.
    for verb in ["backup", "copy"] {
        home.run(&[verb, "-f", "srv/retoma.toml"]).expect(0);
    }
    let before = (tree(&home.path("repository")), tree(&place.path("second")), tree(&place.path("third")));
    let document = drill(&home, "lost-region");
    assert_says_what_a_drill_must(&document, "lost-region");
    assert_eq!(became(&document), [("local", true, false), ("second", true, false), ("third", false, true)]);
    for component in document["components"].as_array().unwrap() {
        let worst = component["rpo_worst_case_seconds"].as_f64().unwrap();
        assert!((120.0..300.0).contains(&worst), "{component:#}");
    }
    let after = (tree(&home.path("repository")), tree(&place.path("second")), tree(&place.path("third")));
    assert_eq!(after, before, "nothing real was touched");
}

#[test]
fn a_lost_repository_that_alone_had_a_component_is_a_red_drill() {
    let place = elsewhere();
    let home = seeded_in_several(&repository(&place, "second", ""), |text| {
        text.replacen("path = \"models\"", "path = \"models\"\nrepositories = [\"local\"]", 1)
    });
    let arguments = ["drill", "lost-repository", "-f", "srv/retoma.toml", "--report", "report"];
    let document = home.json(&arguments, 4, "retoma.drill/1");
    assert_eq!((&document["verdict"], &document["failure"]["code"]), (&"red".into(), &"R0211".into()));
    assert!(document["failure"]["message"].as_str().unwrap().contains("`models`"), "{document:#}");
    assert_eq!(became(&document), [("local", true, false), ("second", false, true)]);
    assert!(home.path("report/drill-lost-repository.html").exists());
    assert_eq!(tree(&home.path("tmp")).len(), 0);
}

#[test]
fn encrypted_data_come_back_and_what_a_local_copy_cannot_prove_is_said() {
    let (home, _) = seeded();
    let before = (tree(&home.path("srv")), tree(&home.path("repository")));
    let document = drill(&home, "ransomware");
    assert_says_what_a_drill_must(&document, "ransomware");
    assert_eq!(control(&document, "backup of encrypted data")["found_code"], "R0703");
    let open = document["not_proven"].to_string();
    assert!(open.contains("Locks and versions are the store's alone"), "{open}");
    for component in document["components"].as_array().unwrap() {
        let checks = component["checks"].as_array().unwrap().iter();
        let mut from = checks.filter(|check| check["name"] == "snapshot from before the attack");
        assert_eq!(from.next().unwrap()["outcome"], "passed", "{component:#}");
    }
    assert_eq!((tree(&home.path("srv")), tree(&home.path("repository"))), before, "nothing real was touched");
    assert_eq!(tree(&home.path("tmp")).len(), 0);
}

/// The processes that run in a folder or below it.
fn processes_in(folder: &std::path::Path) -> usize {
    let all = std::fs::read_dir("/proc").unwrap().flatten();
    all.filter(|entry| std::fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(folder)))
        .count()
}

#[test]
fn a_stopped_drill_leaves_no_process_and_no_folder() {
    let (home, _) = seeded();
    let scratch = home.path("tmp");
    let entries =
        || std::fs::read_dir(&scratch).unwrap().flatten().map(|entry| entry.path()).collect::<Vec<_>>();
    // As soon as there is something to clean up, and while the scratch service runs.
    for (with_service, stop) in [(false, Signal::INT), (true, Signal::TERM), (true, Signal::HUP)] {
        let mut command = home.command();
        let command = command.args(["drill", "deletion", "-f", "srv/retoma.toml"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for("something to clean up", || {
            let there = !entries().is_empty() && (!with_service || processes_in(&scratch) > 0);
            assert!(child.try_wait().unwrap().is_none(), "the drill ended before it could be stopped");
            there.then_some(())
        });
        signal(&child, stop);
        wait_for("the end", || child.try_wait().unwrap());
        let run = Run::new("retoma drill".to_owned(), &child.wait_with_output().unwrap()).expect(130);
        assert!(run.stderr.contains("error[R0003]"), "{}", run.text());
        assert_eq!(entries(), Vec::<std::path::PathBuf>::new());
        assert_eq!(processes_in(&scratch), 0);
    }
}

#[test]
fn an_unknown_scenario_names_the_known_ones() {
    let home = Home::empty();
    home.assert_snapshot("unknown_scenario", &home.run(&["drill", "earthquake"]).expect(1));
}

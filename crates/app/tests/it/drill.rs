//! Whole drills of the sample service: the numbers that a drill must give, and its page.

use crate::kit::{Home, Run, signal, tree, wait_for};
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

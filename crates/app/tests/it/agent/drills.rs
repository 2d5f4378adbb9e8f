//! Drills that are due: run by the agent itself, kept in journal, metrics and evidence, and an alert when they are red.

use super::{Agent, journal};
use crate::evidence::{manifest, new_key};
use crate::kit::{DATABASE, Home, MODELS};
use retoma_testkit::wait_for_what;
use serde_json::Value;

const CHECK: &str =
    "\n[[component.check]]\nsql = \"SELECT count(*) FROM orders WHERE total < 0\"\nexpect = \"0\"\n";
const OFTEN: &str = "\n[schedule]\nevery = \"2s\"\n[agent]\nlisten = \"127.0.0.1:0\"\ndrill = \"deletion\"\ndrill_every = \"2s\"\n";

/// A home whose operations are signed and whose database must have no negative totals.
fn home() -> Home {
    let home = Home::with("");
    home.seed_models();
    home.seed_database();
    let public = new_key(&home);
    home.write(
        "retoma.toml",
        manifest(&home, &public, &format!("{MODELS}{DATABASE}{CHECK}{OFTEN}")).as_bytes(),
    );
    home
}

/// Waits for the end of a drill with this verdict that began after the run `last`; its line in the journal.
fn drilled(home: &Home, verdict: &str, last: u64) -> Value {
    wait_for_what(verdict, || {
        journal(home).into_iter().find(|line| {
            line["task"] == "drill"
                && line["id"].as_u64() > Some(last)
                && line["details"]["verdict"] == verdict
        })
    })
}

/// How the signed records of drills ended, oldest first.
fn records(home: &Home) -> Vec<String> {
    let list = home.json(&["evidence", "list"], 0, "retoma.evidence/1");
    let all = list["records"].as_array().unwrap().iter().filter(|record| record["what"] == "drill");
    all.map(|record| record["outcome"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_due_drill_is_run_kept_and_alerted_of_when_it_is_red() {
    let home = home();
    let agent = Agent::start(&home);
    let has_alert = || {
        let health: Value = serde_json::from_str(&agent.get("/healthz").1).unwrap();
        health["alerts"].as_array().unwrap().iter().any(|alert| alert["alert"] == "drill_failed")
    };
    let passed = |value: u8| {
        let line = format!("retoma_drill_passed{{scenario=\"deletion\"}} {value}\n");
        wait_for_what(&line, || agent.get("/metrics").1.contains(&line).then_some(()));
    };
    let green = drilled(&home, "green", 0);
    assert_eq!((&green["outcome"], &green["exit_code"]), (&"good".into(), &0.into()), "{green}");
    assert!(green["details"]["rto_measured_seconds"].as_f64() > Some(0.0), "{green}");
    assert!(green["details"]["rpo_measured_seconds"]["database"].is_number(), "{green}");
    passed(1);
    let metrics = agent.get("/metrics").1;
    assert!(metrics.contains("retoma_drill_rto_measured_seconds{scenario=\"deletion\"}"), "{metrics}");
    assert!(!has_alert() && records(&home).contains(&"passed".to_owned()));

    let database = rusqlite::Connection::open(home.path("data/app.sqlite")).unwrap();
    database.execute("UPDATE orders SET total = -1 WHERE id = 7", ()).unwrap();
    let red = drilled(&home, "red", green["id"].as_u64().unwrap());
    // It is an answer, not a failure of the agent's.
    assert_eq!((&red["outcome"], &red["exit_code"]), (&"good".into(), &4.into()), "{red}");
    passed(0);
    wait_for_what("the alert", || has_alert().then_some(()));
    assert!(records(&home).contains(&"failed".to_owned()), "{:?}", records(&home));

    database.execute("UPDATE orders SET total = 1 WHERE id = 7", ()).unwrap();
    drilled(&home, "green", red["id"].as_u64().unwrap());
    wait_for_what("the end of the alert", || (!has_alert()).then_some(()));
    assert_eq!(agent.stop().code(), Some(0));
}

//! What an agent does from its start to its end.

use super::{Agent, ended, home, journal, wait_for_good, wait_for_nobody};
use crate::kit::{Home, MODELS, fields};
use retoma_testkit::{require_tool, wait_for_what};
use std::os::unix::net::UnixDatagram;
use std::process::Command;
use std::sync::{Arc, Mutex};

#[test]
fn an_agent_backs_up_keeps_verifies_answers_and_stops() {
    let home = home("");
    let socket = UnixDatagram::bind(home.path("notify")).unwrap();
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let hears = Arc::clone(&heard);
    std::thread::spawn(move || {
        let mut buffer = [0; 64];
        while let Ok(length) = socket.recv(&mut buffer) {
            hears.lock().unwrap().push(String::from_utf8_lossy(&buffer[..length]).into_owned());
        }
    });
    let notify = home.text_path("notify");
    let agent = Agent::start_with(&home, &[("NOTIFY_SOCKET", &notify), ("WATCHDOG_USEC", "1000000")]);
    let hear = |what: &str| {
        wait_for_what(what, || heard.lock().unwrap().iter().any(|it| it == what).then_some(()));
    };
    hear("READY=1");
    hear("WATCHDOG=1");
    for task in ["backup/models", "backup/database"] {
        wait_for_good(&home, task, 3);
    }
    wait_for_good(&home, "retention", 2);
    wait_for_good(&home, "verify", 2);

    let (head, body) = agent.get("/healthz");
    let health: serde_json::Value = serde_json::from_str(&body).unwrap();
    assert!(head.starts_with("HTTP/1.1 200"), "{head}\n{body}");
    assert_eq!((&health["schema"], &health["alive"]), (&"retoma.health/1".into(), &true.into()));
    assert_eq!(fields(&health), ["alerts", "alive", "schema"]);
    let (head, metrics) = agent.get("/metrics");
    assert!(head.contains("text/plain; version=0.0.4"), "{head}");
    for line in [
        "retoma_repository_up{repository=\"local\"} 1\n",
        "retoma_component_rpo_objective_seconds{component=\"models\",kind=\"files\",tier=\"high\"} 900\n",
    ] {
        assert!(metrics.contains(line), "{metrics}");
    }
    assert!(metrics.contains("retoma_component_age_seconds{component=\"database\""), "{metrics}");
    assert!(metrics.contains("retoma_backup_stored_bytes{component=\"models\"}"), "{metrics}");
    assert!(agent.get("/nothing").0.starts_with("HTTP/1.1 404"));

    let second = home.run(&["agent", "--json"]).expect(1).document();
    assert_eq!(second["code"], "R0950", "{second:#}");

    assert_eq!(agent.stop().code(), Some(0));
    hear("STOPPING=1");
    wait_for_nobody(&home);
    let lines = journal(&home);
    let count = |event: &str| lines.iter().filter(|line| line["event"] == event).count();
    assert_eq!(count("begun"), count("ended"), "each run has its end");
    assert_eq!(ended(&home, "backup/models", "lost"), 0);
    let good = lines.iter().find(|line| line["task"] == "backup/models" && line["event"] == "ended").unwrap();
    assert!(
        good["snapshot"].as_str().unwrap().len() == 64 && good["total_bytes"].as_u64() > Some(0),
        "{good}"
    );
    assert_eq!(
        (&good["verb"], &good["component"], &good["exit_code"]),
        (&"backup".into(), &"models".into(), &0.into())
    );
    home.run(&["verify", "--read-data"]).expect(0);
}

#[test]
fn a_backup_that_was_made_by_hand_counts_and_a_lost_journal_skips_none() {
    let home = Home::with(&format!("{MODELS}\n[agent]\nlisten = \"127.0.0.1:0\"\n"));
    home.seed_models();
    home.back_up();
    let agent = Agent::start(&home);
    // Once it has looked, it says when the next one is due: within the RPO, and not now.
    wait_for_what("a plan", || {
        agent
            .get("/metrics")
            .1
            .contains("retoma_task_next_timestamp_seconds{task=\"backup/models\"}")
            .then_some(())
    });
    assert_eq!(journal(&home).len(), 0, "{}", agent.log());
    agent.kill();
    assert_eq!(home.snapshots().len(), 1);
    // Nothing at all is known: it begins.
    std::fs::rename(home.path("repository"), home.path("elsewhere")).unwrap();
    std::fs::remove_dir_all(home.path(".retoma/agent")).unwrap();
    let agent = Agent::start(&home);
    wait_for_good(&home, "backup/models", 1);
    agent.kill();
}

#[test]
fn children_open_their_repository_without_its_password_and_a_drill_does_not() {
    let home = home("drill = \"deletion\"\ndrill_every = \"2s\"\n");
    let agent = Agent::start(&home);
    wait_for_what("the agent to open the repository", || {
        home.path(".retoma/agent/repositories.json").exists().then_some(())
    });
    for task in ["backup/models", "retention", "verify"] {
        wait_for_good(&home, task, 1);
    }
    std::fs::remove_file(home.path("password")).unwrap();
    assert_eq!(home.run(&["snapshots", "--json"]).expect(1).document()["code"], "R0102");
    let last = journal(&home).iter().filter_map(|line| line["id"].as_u64()).max().unwrap();
    for task in ["backup/models", "backup/database", "retention", "verify"] {
        wait_for_what(task, || {
            let is_it = |line: &serde_json::Value| line["task"] == task && line["outcome"] == "good";
            journal(&home).iter().any(|line| is_it(line) && line["id"].as_u64() > Some(last)).then_some(())
        });
    }
    wait_for_what("a drill that finds the password gone", || {
        let is_it = |line: &serde_json::Value| line["task"] == "drill" && line["error_code"] == "R0102";
        journal(&home).iter().any(is_it).then_some(())
    });
    assert_eq!(agent.stop().code(), Some(0));
    home.write_private("password", crate::kit::PASSWORD);
    home.run(&["verify", "--read-data"]).expect(0);
}

#[test]
fn what_runs_and_watches_the_agent_is_printed_and_its_tools_take_it() {
    let home = Home::with(MODELS);
    let unit = home.run(&["agent", "--print", "systemd"]).expect(0).stdout;
    assert_eq!(unit, home.run(&["agent", "--print", "systemd"]).expect(0).stdout);
    for line in ["Type=notify", "WatchdogSec=60", "ProtectSystem=strict", "NoNewPrivileges=true"] {
        assert!(unit.lines().any(|it| it == line), "{unit}");
    }
    assert!(
        unit.contains(&home.text_path("repository")) && unit.contains(&home.text_path(".retoma")),
        "{unit}"
    );
    home.write("retoma.service", unit.as_bytes());
    // The user's own systemd is not asked: only the file is read.
    if let Some(program) = require_tool("systemd-analyze") {
        let output = Command::new(program)
            .args(["verify", "--man=no"])
            .arg(home.path("retoma.service"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success() || !said.contains("retoma.service"), "{said}");
        assert!(!said.contains("Unknown"), "{said}");
    }
    let rules = home.run(&["agent", "--print", "alert-rules"]).expect(0).stdout;
    assert!(rules.contains("alert: RetomaAgentSilent"), "{rules}");
    home.write("rules.yml", rules.as_bytes());
    if let Some(program) = require_tool("promtool") {
        let output =
            Command::new(program).args(["check", "rules"]).arg(home.path("rules.yml")).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/metrics.md")).unwrap();
    assert!(home.run(&["agent", "--print", "metrics"]).expect(0).stdout == page, "run `cargo xtask codegen`");
}

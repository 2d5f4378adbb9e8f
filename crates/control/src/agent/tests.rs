use super::*;
use retoma_core::decide::observed::Observed;
use retoma_core::manifest::{Origin, parse};
use std::path::Path;

/// That nothing at all was observed.
pub(super) fn nothing(now: Timestamp) -> Observed {
    Observed {
        version: "1".to_owned(),
        started: now,
        since: now,
        decided: now,
        journal_errors: 0,
        components: Vec::new(),
        tasks: Vec::new(),
        repositories: Vec::new(),
        streams: Vec::new(),
        damaged: None,
        drill_every: None,
        drill: None,
        drill_good: None,
        spool_bytes: 0,
    }
}

fn settings(folder: &std::path::Path, more: &str) -> Settings {
    let text = format!(
        "version = 1\n[service]\nname = \"s\"\n[[repository]]\nname = \"r\"\nurl = \"file://{}/r\"\npassword = \"env:P\"\n\
         [[component]]\nname = \"models\"\nkind = \"files\"\ntier = \"high\"\npath = \"/m\"\n{more}",
        folder.display()
    );
    let origin = Origin { file_name: "retoma.toml".to_owned(), dir: folder.to_owned() };
    Settings {
        manifest: Arc::new(parse(&text, &origin).unwrap()),
        manifest_path: folder.join("retoma.toml"),
        program: "/nowhere/retoma".into(),
        version: "1".to_owned(),
        host: "h".to_owned(),
        interrupt: Interrupt::default(),
        tell: Arc::new(|_: &str| {}),
        notify: Notify::default(),
        watchdog: None,
    }
}

#[test]
fn a_drill_that_there_is_not_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let state = State::take(&folder.path().join("state")).unwrap();
    let error = Agent::new(settings(folder.path(), "[agent]\ndrill = \"no-such\"\n"), state).unwrap_err();
    assert_eq!(error.code(), codes::USAGE);
    assert!(error.hint().unwrap().contains("deletion"), "{error:?}");
}

#[test]
fn a_child_that_cannot_be_started_is_a_failure_that_is_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let state = || State::take(&folder.path().join("state")).unwrap();
    let mut agent = Agent::new(settings(folder.path(), ""), state()).unwrap();
    agent.start_what_is_due();
    assert_eq!((agent.known[0].failures, agent.known[0].is_running), (1, false));
    agent.post();
    let active = agent.board.active().unwrap();
    let names: Vec<&str> = active.keys().map(|key| key.alert.as_str()).collect();
    assert_eq!(names, ["task_failing"]);
    assert!(agent.board.is_healthy() && agent.board.is_alive(), "a warning is no more");
    drop(agent);
    let again = Agent::new(settings(folder.path(), ""), state()).unwrap();
    assert_eq!(again.known[0].failures, 1);
    let observed = again.observed(Timestamp::now());
    assert_eq!(observed.tasks[0].error_code.as_deref(), Some("R0953"));
}

#[test]
fn an_agent_that_is_asked_to_stop_does_so() {
    let folder = tempfile::tempdir().unwrap();
    let settings = settings(folder.path(), "");
    settings.interrupt.set();
    let agent = Agent::new(settings, State::take(&folder.path().join("state")).unwrap()).unwrap();
    let board = agent.board();
    agent.run().unwrap();
    assert_eq!(board.metrics(Timestamp::now()), None);
}

/// One that has run nothing yet.
fn agent(folder: &Path) -> Agent {
    let state = State::take(&folder.join("state")).unwrap();
    Agent::new(settings(folder, ""), state).unwrap()
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

#[test]
fn a_gap_asks_for_a_backup_that_begins_behind_it() {
    let folder = tempfile::tempdir().unwrap();
    let (mut agent, mut wal) = (agent(folder.path()), streams::Known::default());
    wal.stream.component = "db".to_owned();
    assert_eq!(view::gap_since(&agent.journal, &wal, None), None);
    let mut checked = |number: u64, second, open_gaps: u64| {
        for (event, outcome) in [("begun", None), ("ended", Some("good"))] {
            let line = serde_json::json!({
                "event": event, "id": number, "task": "wal-check", "verb": "wal-check", "component": null,
                "started": at(second), "ended": outcome.map(|_| at(second + 1)), "outcome": outcome,
                "details": { "db": { "gaps": 3, "open_gaps": open_gaps }, "other": { "open_gaps": 9 } },
            });
            agent.journal.write(serde_json::from_value(line).unwrap());
        }
        view::gap_since(&agent.journal, &wal, None)
    };
    assert_eq!(checked(1, 10, 0), None, "a gap that a newer backup has closed");
    assert_eq!(checked(2, 20, 1), Some(at(20)));
    assert_eq!(checked(3, 30, 0), None);
    wal.gap_at = Some(at(25));
    assert_eq!(view::gap_since(&agent.journal, &wal, None), Some(at(25)));
}

/// Writes the begin and the good end of a run.
fn ran(agent: &mut Agent, task: &str, seconds: [i64; 2], mut details: Value) {
    let [started, ended] = seconds.map(at);
    let before = agent.journal.past(task).and_then(|past| past.good.clone());
    match task {
        "wal-check" => view::note_open(before.as_ref(), started, &mut details),
        "drill" => view::note_green(before.as_ref(), started, &mut details),
        _ => {}
    }
    let id = agent.journal.next_id();
    for (event, outcome) in [("begun", None), ("ended", Some("good"))] {
        let line = serde_json::json!({
            "event": event, "id": id, "task": task, "verb": "x", "started": started, "ended": outcome.map(|_| ended),
            "outcome": outcome, "details": details,
        });
        agent.journal.write(serde_json::from_value(line).unwrap());
    }
}

#[test]
fn what_no_backup_closes_asks_for_one_and_is_told_until_it_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let (mut agent, mut wal) = (agent(folder.path()), streams::Known::default());
    wal.stream.component = "db".to_owned();
    let look = |agent: &Agent| {
        let stream = agent.stream(wal.clone());
        (view::gap_since(&agent.journal, &wal, None), stream.open_gaps, stream.missing_histories)
    };
    let check = |open: &[&str], histories: u64| serde_json::json!({ "db": { "open": open, "open_gaps": open.len(), "missing_histories": histories } });
    ran(&mut agent, "backup/db", [0, 5], Value::Null);
    ran(&mut agent, "wal-check", [10, 11], check(&[], 1));
    assert_eq!(look(&agent), (None, Some(0), Some(1)), "no backup stores a history");
    ran(&mut agent, "wal-check", [20, 21], check(&["a"], 1));
    assert_eq!(look(&agent), (Some(at(20)), Some(1), Some(1)));
    ran(&mut agent, "backup/db", [22, 23], Value::Null);
    assert_eq!(look(&agent), (Some(at(20)), Some(0), Some(1)), "the first backup is believed to close it");
    for (second, open) in [(30, &["a"][..]), (40, &["a"]), (50, &["a"])] {
        ran(&mut agent, "wal-check", [second, second + 1], check(open, 1));
        assert_eq!(look(&agent), (Some(at(20)), Some(1), Some(1)), "the backup at 22 was behind it");
        ran(&mut agent, "backup/db", [second + 2, second + 3], Value::Null);
        assert_eq!(look(&agent).1, Some(1), "it does not come and go");
    }
    ran(&mut agent, "wal-check", [60, 61], check(&["a", "b"], 0));
    assert_eq!(look(&agent), (Some(at(60)), Some(2), Some(0)));
    ran(&mut agent, "wal-check", [70, 71], check(&[], 0));
    assert_eq!(look(&agent), (None, Some(0), Some(0)));
}

#[test]
fn a_tablespace_behind_the_newest_backup_asks_for_one_and_is_told_until_it_is_done() {
    let folder = tempfile::tempdir().unwrap();
    let mut agent = agent(folder.path());
    let look = |agent: &mut Agent, second: i64, oids: Option<&[u32]>| {
        let mut wal = streams::Known::default();
        wal.stream.component = "db".to_owned();
        wal.tablespaces = oids.map(|oids| oids.iter().copied().collect());
        agent.compare_tablespaces(&wal, at(second));
        let since = view::gap_since(&agent.journal, &wal, agent.new_tablespaces.get("db"));
        let stream = agent.stream(wal);
        assert_eq!(stream.has_new_tablespace, stream.open_gaps.is_some_and(|gaps| gaps > 0));
        (since, stream.has_new_tablespace)
    };
    let check =
        |oids: &[u32]| serde_json::json!({ "db": { "open": [], "open_gaps": 0, "tablespaces": oids } });
    assert_eq!(look(&mut agent, 1, Some(&[16400])), (None, false), "no check yet");
    ran(&mut agent, "backup/db", [2, 5], Value::Null);
    ran(&mut agent, "wal-check", [6, 7], check(&[16400]));
    assert_eq!(look(&mut agent, 8, Some(&[16400])), (None, false));
    assert_eq!(look(&mut agent, 9, None), (None, false), "a server that does not answer says nothing");
    assert_eq!(look(&mut agent, 10, Some(&[])), (None, false), "dropping one is in no recovery's way");
    assert_eq!(look(&mut agent, 11, Some(&[16400, 16500])), (Some(at(11)), true));
    assert_eq!(look(&mut agent, 12, Some(&[16400, 16500])), (Some(at(11)), true));
    ran(&mut agent, "backup/db", [13, 15], Value::Null);
    assert_eq!(look(&mut agent, 16, Some(&[16400, 16500])), (Some(at(11)), false), "done");
    ran(&mut agent, "wal-check", [16, 17], check(&[16400]));
    assert!(look(&mut agent, 18, Some(&[16400, 16500])).1, "a backup that does not have it");
    ran(&mut agent, "wal-check", [19, 20], check(&[16400, 16500]));
    assert_eq!(look(&mut agent, 21, Some(&[16400, 16500])), (None, false));
}

#[test]
fn a_drill_that_is_not_green_does_not_make_the_one_before_it_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let state = || State::take(&folder.path().join("state")).unwrap();
    let with_drills = || settings(folder.path(), "[agent]\ndrill = \"deletion\"\ndrill_every = \"1d\"\n");
    let mut agent = Agent::new(with_drills(), state()).unwrap();
    let look = |agent: &Agent| {
        let observed = agent.observed(at(100));
        (observed.drill.map(|drill| drill.is_green), observed.drill_good)
    };
    let result = |verdict: &str| serde_json::json!({ "scenario": "deletion", "verdict": verdict });
    assert_eq!(look(&agent), (None, None), "none yet");
    ran(&mut agent, "drill", [1, 2], result("red"));
    assert_eq!(look(&agent), (Some(false), None), "none was ever green");
    ran(&mut agent, "drill", [10, 11], result("green"));
    assert_eq!(look(&agent), (Some(true), Some(at(10))));
    for second in [20, 30] {
        ran(&mut agent, "drill", [second, second + 1], result("red"));
        assert_eq!(look(&agent), (Some(false), Some(at(10))), "the green one is as old as it is");
    }
    drop(agent);
    let mut agent = Agent::new(with_drills(), state()).unwrap();
    assert_eq!(look(&agent), (Some(false), Some(at(10))), "also for the next agent");
    ran(&mut agent, "drill", [40, 41], result("broken_verifier"));
    ran(&mut agent, "drill", [50, 51], result("green"));
    assert_eq!(look(&agent), (Some(true), Some(at(50))));
    drop(agent);
    // A manifest that wants none is not told of old ones.
    let agent = Agent::new(settings(folder.path(), ""), state()).unwrap();
    assert_eq!(look(&agent), (None, None));
}

#[test]
fn what_tasks_left_behind_is_observed_and_what_nobody_saw_is_not() {
    let folder = tempfile::tempdir().unwrap();
    let mut agent = agent(folder.path());
    let first = agent.observed(at(0));
    assert_eq!(first.components[0].newest, [("r".to_owned(), None)], "nobody has looked");
    assert_eq!((first.components[0].oldest, first.components[0].backup), (None, None));
    assert_eq!((first.damaged, first.drill_every, first.drill_good), (None, None, None));
    assert_eq!(first.components[0].newest_everywhere(), None);
    ran(&mut agent, "verify", [1, 2], serde_json::json!({ "damaged": true }));
    assert_eq!(agent.observed(at(3)).damaged, Some(true));
    ran(&mut agent, "verify", [4, 5], serde_json::json!({ "damaged": false }));
    assert_eq!(agent.observed(at(6)).damaged, Some(false));
    // Without any of its three numbers, nothing is said of a backup.
    let line = |total: Option<u64>| {
        let line = serde_json::json!({
            "event": "ended", "id": 90, "task": "backup/models", "verb": "backup", "started": at(7), "ended": at(9),
            "outcome": "good", "duration_seconds": 2.5, "stored_bytes": 3, "total_bytes": total,
        });
        serde_json::from_value(line).unwrap()
    };
    agent.journal.write(line(None));
    assert_eq!(agent.observed(at(10)).components[0].backup, None);
    agent.journal.write(line(Some(8)));
    let backup = agent.observed(at(10)).components[0].backup.unwrap();
    assert_eq!((backup.duration_seconds, backup.stored_bytes, backup.total_bytes), (2.5, 3, 8));
}

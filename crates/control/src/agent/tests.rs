use super::*;
use retoma_core::decide::observed::Observed;
use retoma_core::manifest::{Origin, parse};

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

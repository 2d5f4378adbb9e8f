//! An agent that is killed at random moments. `RETOMA_KILLS` sets how often, `SEED` when.

use super::{Agent, ended, home, journal, wait_for_nobody};
use retoma_control::service::processes_with;
use retoma_testkit::{Random, wait_for_what};
use std::collections::BTreeMap;
use std::time::Duration;

#[test]
fn a_child_dies_with_its_agent() {
    let home = home("");
    let lock = ".retoma/agent/task-backup-models.lock";
    home.write(lock, b"");
    let held = std::fs::File::open(home.path(lock)).unwrap();
    rustix::fs::flock(&held, rustix::fs::FlockOperation::LockExclusive).unwrap();
    let agent = Agent::start(&home);
    // The child waits for another run of its task to end, long enough to be left behind.
    let manifest = home.text_path("retoma.toml");
    let path = home.path(lock);
    wait_for_what("a child at the lock", || {
        let has_it = |pid: u32| {
            let files = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
            files.filter_map(|file| std::fs::read_link(file.path()).ok()).any(|file| file == path)
        };
        processes_with(&manifest).iter().any(|child| has_it(child.pid)).then_some(())
    });
    agent.kill();
    // Whoever still waits now gets the lock, and makes a backup.
    drop(held);
    wait_for_nobody(&home);
    let snapshots = home.run(&["snapshots", "models", "--json"]);
    assert!(!snapshots.stdout.contains("\"models\""), "{}", snapshots.stdout);
}

fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

#[test]
fn an_agent_that_is_killed_leaves_nobody_and_its_successor_goes_on() {
    let home = home("");
    let kills = setting("RETOMA_KILLS", 5);
    let mut random = Random::new(setting("SEED", 11));
    for _ in 0..kills {
        let agent = Agent::start(&home);
        // The moment is what is random here, nothing is waited for.
        std::thread::sleep(Duration::from_millis(random.below(2500)));
        // The next one begins at once, while the children of this one may still be dying.
        agent.kill();
    }
    let before = ended(&home, "backup/models", "good");
    let agent = Agent::start(&home);
    wait_for_what("backups to go on", || (ended(&home, "backup/models", "good") > before + 1).then_some(()));
    // No child outlives an agent that is killed while they run.
    wait_for_what("a run", || {
        journal(&home).last().is_some_and(|line| line["event"] == "begun").then_some(())
    });
    agent.kill();
    wait_for_nobody(&home);

    let mut running: BTreeMap<String, u64> = BTreeMap::new();
    let mut last = 0;
    for line in journal(&home) {
        let (task, id) = (line["task"].as_str().unwrap().to_owned(), line["id"].as_u64().unwrap());
        if line["event"] == "begun" {
            assert!(id > last, "each run has a number of its own: {line}");
            last = id;
            assert_eq!(running.insert(task, id), None, "two runs at once: {line}");
        } else {
            assert_eq!(running.remove(&task), Some(id), "an end without a beginning: {line}");
        }
    }
    // What was killed between its snapshot and its line in the journal is a snapshot more, never one less.
    let good = ended(&home, "backup/models", "good") + ended(&home, "backup/database", "good");
    home.run(&["verify", "--read-data"]).expect(0);
    println!("{kills} kills: {good} good backups, {} lost", ended(&home, "backup/models", "lost"));
    // `forget` has removed none of them: they are younger than 30 days.
    assert!(home.snapshots().len() >= good);
}

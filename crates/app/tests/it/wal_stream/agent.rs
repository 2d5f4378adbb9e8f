//! Streaming under the agent: no gap when it is killed, and what it costs while nothing happens.

use super::{Site, setting};
use retoma_control::service::processes_with;
use retoma_testkit::{Random, wait_for_what};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

/// A site whose agent takes any port.
fn site(segment_mib: u64) -> Option<Site> {
    let site =
        Site::start_with("mode = \"stream\"", &["wal_keep_size = 1GB", "autovacuum = off"], segment_mib)?;
    let manifest = site.home().join("retoma.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    site.server.write(&manifest, &format!("{text}\n[agent]\nlisten = \"127.0.0.1:0\"\n"), 0o600);
    Some(site)
}

/// A running agent. Dropping it kills it.
struct Agent(Child);

impl Agent {
    /// SIGTERM; it ends well.
    fn stop(mut self) {
        kill_process(Pid::from_child(&self.0), Signal::TERM).unwrap();
        assert_eq!(wait_for_what("the agent to stop", || self.0.try_wait().unwrap()).code(), Some(0));
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

fn start(site: &Site) -> Agent {
    let log = fs::File::create(site.home().join("agent.log")).unwrap();
    let mut command = site.command(&["agent"]);
    Agent(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap())
}

fn wait_for_stream(site: &Site) {
    let sql = "SELECT count(*) FROM pg_replication_slots WHERE active";
    wait_for_what("the agent to stream", || (site.server.psql(sql) == "1").then_some(()));
}

fn journal(site: &Site) -> String {
    fs::read_to_string(site.home().join(".retoma/agent/journal.jsonl")).unwrap_or_default()
}

#[test]
fn a_stream_under_an_agent_that_is_killed_has_no_gap() {
    let Some(site) = site(1) else { return };
    site.pgbench(&["-i", "-q", "-s", "1"]);
    let mut pgbench = site.server.command("pgbench");
    pgbench.args(site.pgbench_arguments(&["-n", "-c", "2", "-T", "3600"]));
    let mut pgbench =
        pgbench.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mut random = Random::new(setting("SEED", 7));
    for number in 0..setting("RETOMA_KILLS", 3) {
        let agent = start(&site);
        if number == 0 {
            wait_for_stream(&site);
        }
        // The moment is what is random here, nothing is waited for.
        std::thread::sleep(Duration::from_millis(random.below(2000)));
        // SIGKILL.
        drop(agent);
    }
    let agent = start(&site);
    wait_for_stream(&site);
    wait_for_what("a base backup", || {
        journal(&site)
            .lines()
            .any(|line| line.contains("\"backup/db\"") && line.contains("\"good\""))
            .then_some(())
    });
    pgbench.kill().unwrap();
    pgbench.wait().unwrap();
    let until = site.shipped();
    agent.stop();
    for repository in ["near", "far"] {
        site.assert_whole(repository, until);
    }
    let checked = site.retoma(&["wal", "check", "--json"]).expect(0).document();
    assert_eq!(checked["servers"][0]["gaps"].as_array().unwrap().len(), 0, "{checked:#}");
    let manifest = site.home().join("retoma.toml");
    assert!(processes_with(&manifest.display().to_string()).is_empty());
}

/// Prints what it measured; `RETOMA_IDLE_SECONDS` says for how long.
#[test]
fn an_agent_of_an_idle_server_costs_next_to_nothing() {
    let Some(site) = site(16) else { return };
    site.server.psql("CREATE TABLE t (n int, text text)");
    let agent = start(&site);
    wait_for_stream(&site);
    for _ in 0..5 {
        site.server.psql("INSERT INTO t SELECT n, repeat('x', 500) FROM generate_series(1, 20000) n");
    }
    site.shipped();
    let manifest = site.home().join("retoma.toml").display().to_string();
    let processes = || processes_with(&manifest).iter().map(|process| process.pid).collect::<Vec<u32>>();
    wait_for_what("a base backup and quiet", || {
        let good =
            journal(&site).lines().any(|line| line.contains("\"backup/db\"") && line.contains("\"good\""));
        (good && processes().len() == 1).then_some(())
    });
    let seconds = setting("RETOMA_IDLE_SECONDS", 15);
    // What is measured here is what happens in a time in which nothing is asked for.
    std::thread::sleep(Duration::from_secs(12));
    let before = super::idle::ticks(agent.0.id());
    let mut memory = Vec::new();
    for _ in 0..seconds {
        std::thread::sleep(Duration::from_secs(1));
        // A child may end while it is looked at.
        let all = processes().into_iter().filter_map(super::idle::try_anonymous_kib).sum::<u64>();
        memory.push(all);
    }
    let used = super::idle::ticks(agent.0.id()) - before;
    #[allow(clippy::cast_precision_loss)] // Small numbers.
    let share = used as f64 / seconds as f64;
    let alone = super::idle::try_anonymous_kib(agent.0.id()).unwrap();
    memory.sort_unstable();
    let (median, highest) = (memory[memory.len() / 2], memory[memory.len() - 1]);
    println!(
        "agent, idle: {alone} KiB RssAnon; with children {median} KiB in the median and {highest} KiB at most; \
         {share:.2} % of a core ({used} ticks in {seconds} s, without children)"
    );
    // A child that opens a repository needs 32 MiB for its password for a fraction of a second: scrypt is made to.
    assert!(alone < 20 << 10 && median < 20 << 10 && highest < 60 << 10, "{alone}, {median}, {highest} KiB");
    agent.stop();
}

//! Streaming under the agent: no gap when it is killed, and what it costs while nothing happens.

use super::{Site, setting};
use crate::agent::ask;
use retoma_control::service::processes_with;
use retoma_testkit::{Random, wait_for_long, wait_for_what};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::process::{Child, Stdio};
use std::time::Duration;

/// A site whose agent takes any port.
fn site(segment_mib: u64) -> Option<Site> {
    let site =
        Site::start_with("mode = \"stream\"", &["wal_keep_size = 1GB", "autovacuum = off"], segment_mib)?;
    listen_anywhere(&site);
    Some(site)
}

fn listen_anywhere(site: &Site) {
    let manifest = site.home().join("retoma.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    site.server.write(&manifest, &format!("{text}\n[agent]\nlisten = \"127.0.0.1:0\"\n"), 0o600);
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
    let mut pgbench = site.start_pgbench(2);
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
    // After many lost ones it waits a quarter of an hour before the next.
    wait_for_long("a base backup", Duration::from_mins(17), || {
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

/// Whether the agent has this alert now.
fn has_alert(site: &Site, alert: &str) -> bool {
    let body = ask(&site.home().join(".retoma/agent/address"), "/healthz").1;
    let health: serde_json::Value = serde_json::from_str(&body).unwrap();
    health["alerts"].as_array().unwrap().iter().any(|it| it["alert"] == alert && it["component"] == "db")
}

#[test]
fn a_tablespace_that_the_newest_backup_does_not_have_is_a_gap_and_has_a_backup_made_at_once() {
    let Some(site) = Site::start_with("mode = \"archive\"", &[], 1) else { return };
    let manifest = site.home().join("retoma.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    let agent_options = "[agent]\nlisten = \"127.0.0.1:0\"\nwal_check_every = \"2s\"\n";
    site.server.write(&manifest, &format!("{text}\n{agent_options}"), 0o600);
    let good = |task: &str| -> Vec<serde_json::Value> {
        let text = journal(&site);
        let lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        lines.filter(|line| line["task"] == task && line["outcome"] == "good").collect()
    };
    // How many tablespaces the last check saw in the newest snapshot.
    let held = || good("wal-check").last()?["details"]["db"]["tablespaces"].as_array().map(Vec::len);
    let agent = start(&site);
    wait_for_what("a check of the first backup", || (held() == Some(0)).then_some(()));
    assert_eq!(good("backup/db").len(), 1);
    assert!(!has_alert(&site, "wal_gap"));
    let space = site.server.folder().join("space");
    fs::create_dir(&space).unwrap();
    let owner = std::os::unix::fs::MetadataExt::uid(&fs::metadata(site.server.data_dir()).unwrap());
    std::os::unix::fs::chown(&space, Some(owner), Some(owner)).unwrap();
    site.server.psql(&format!("CREATE TABLESPACE fast LOCATION '{}'", space.display()));
    wait_for_what("the alert", || has_alert(&site, "wal_gap").then_some(()));
    wait_for_what("a check that sees it", || (held() == Some(1)).then_some(()));
    wait_for_what("the alert's end", || (!has_alert(&site, "wal_gap")).then_some(()));
    assert_eq!(good("backup/db").len(), 2, "one backup, and no more");
    agent.stop();
}

#[test]
fn marks_come_back_and_a_server_that_takes_none_is_an_alert() {
    let Some(site) = Site::start_with("mode = \"stream\"", &[], 1) else { return };
    let manifest = site.home().join("retoma.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    let options = "[agent]\nlisten = \"127.0.0.1:0\"\nmarks_every = \"1s\"\n";
    site.server.write(&manifest, &format!("{text}\n{options}"), 0o600);
    let newest = || site.server.psql("SELECT number FROM retoma.mark WHERE component = 'db'");
    let agent = start(&site);
    wait_for_stream(&site);
    wait_for_what("a base backup", || journal(&site).contains("\"good\"").then_some(()));
    let metric = |number: &str| format!("retoma_mark_number{{component=\"db\"}} {number}\n");
    let metrics = || ask(&site.home().join(".retoma/agent/address"), "/metrics").1;
    wait_for_what("a mark in the metrics", || {
        let number = newest();
        metrics().contains(&metric(&number)).then_some(())
    });
    assert!(!has_alert(&site, "marks_stopped"));
    let read_only = |value: &str| {
        site.server.psql(&format!(
            "SET default_transaction_read_only = off; ALTER SYSTEM SET default_transaction_read_only = {value}"
        ));
        site.server.psql("SELECT pg_reload_conf()");
    };
    read_only("on");
    wait_for_what("the alert", || has_alert(&site, "marks_stopped").then_some(()));
    let stopped = newest();
    read_only("off");
    wait_for_what("its end", || (!has_alert(&site, "marks_stopped")).then_some(()));
    assert_ne!(newest(), stopped);
    agent.stop();
    let last: u64 = newest().parse().unwrap();
    let target = site.home().join("recovered").display().to_string();
    let document = site.retoma(&["recover", "--to", &target, "--json", "--yes"]).expect(0).document();
    let mark = &document["components"][0]["recovery"]["last_mark"];
    assert_eq!(mark["number"], last, "{document:#}");
}

/// Writes something and finishes its segment, which wakes the archiver.
fn finish_a_segment(site: &Site) {
    site.server.psql("INSERT INTO t SELECT n FROM generate_series(1, 100) n");
    site.server.psql("SELECT pg_switch_wal()");
}

/// Prints how long it took to notice.
#[test]
fn an_archive_command_that_fails_or_hangs_is_an_alert_until_it_works_again() {
    let wal = "mode = \"archive\"\narchive_timeout = \"1m\"";
    let Some(site) = Site::start_with(wal, &["archive_mode = on", "archive_timeout = 60s"], 1) else {
        return;
    };
    listen_anywhere(&site);
    let (script, hang) = (site.home().join("archive"), site.home().join("hang"));
    let line = format!(
        "while [ -e '{}' ]; do sleep 0.1; done; exec {} wal push \"$1\" --component db",
        hang.display(),
        site.line()
    );
    site.server.write(&script, &line, 0o600);
    let set = |command: &str| {
        site.server.psql(&format!("ALTER SYSTEM SET archive_command = '{command}'"));
        site.server.psql("SELECT pg_reload_conf()");
    };
    let good = format!("sh {} %p", script.display());
    set(&good);
    site.server.psql("CREATE TABLE t (n int)");
    let agent = start(&site);
    let archived = || site.server.psql("SELECT archived_count > 0 FROM pg_stat_archiver") == "t";
    let wait = |what: &str, is_expected: bool| {
        let begun = std::time::Instant::now();
        wait_for_what(what, || (has_alert(&site, "wal_archive_down") == is_expected).then_some(()));
        println!("{what}: after {:.1} s", begun.elapsed().as_secs_f64());
    };
    finish_a_segment(&site);
    wait_for_what("a segment in the archive", || archived().then_some(()));
    let is_up = || {
        ask(&site.home().join(".retoma/agent/address"), "/metrics")
            .1
            .contains("retoma_wal_archive_up{component=\"db\"} 1\n")
    };
    wait_for_what("the agent to look", || is_up().then_some(()));
    assert!(!has_alert(&site, "wal_archive_down"));

    set("false");
    finish_a_segment(&site);
    wait("the alert that it fails", true);
    set(&good);
    finish_a_segment(&site);
    wait("its end", false);

    site.server.write(&hang, "", 0o600);
    finish_a_segment(&site);
    wait("the alert that it hangs", true);
    fs::remove_file(&hang).unwrap();
    wait("its end", false);

    // What is promised is no longer set.
    site.server.psql("ALTER SYSTEM SET archive_timeout = 0");
    site.server.psql("SELECT pg_reload_conf()");
    wait("the alert that nothing bounds the loss", true);
    let doctor = site.retoma(&["doctor"]);
    assert!(
        doctor.stdout.contains("`archive_timeout` is off on the server, and 1m in the manifest"),
        "{}",
        doctor.stdout
    );
    site.server.psql("ALTER SYSTEM RESET archive_timeout");
    site.server.psql("SELECT pg_reload_conf()");
    wait("its end", false);
    assert!(site.retoma(&["doctor"]).stdout.contains("WAL is archived within 1m"));
    agent.stop();
}

/// Prints what it measured; `RETOMA_IDLE_SECONDS` says for how long.
#[test]
fn an_agent_of_an_idle_server_costs_next_to_nothing() {
    let Some(site) = site(16) else { return };
    // Sixty times as often as usual, so that children are measured too.
    let manifest = site.home().join("retoma.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    site.server.write(&manifest, &format!("{text}wal_check_every = \"5s\"\n"), 0o600);
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
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..seconds * 50 {
        std::thread::sleep(Duration::from_millis(20));
        let all = processes();
        seen.extend(all.iter().copied());
        // A child may end while it is looked at.
        memory.push(all.into_iter().filter_map(super::idle::try_anonymous_kib).sum::<u64>());
    }
    let used = super::idle::ticks(agent.0.id()) - before;
    #[allow(clippy::cast_precision_loss)] // Small numbers.
    let share = used as f64 / seconds as f64;
    let alone = super::idle::try_anonymous_kib(agent.0.id()).unwrap();
    memory.sort_unstable();
    let (median, highest) = (memory[memory.len() / 2], memory[memory.len() - 1]);
    println!(
        "agent, idle: {alone} KiB RssAnon; with {} children {median} KiB in the median and {highest} KiB at most; \
         {share:.2} % of a core ({used} ticks in {seconds} s, without children)",
        seen.len() - 1
    );
    assert!(seen.len() > 1, "no child ran");
    // One that derived a key would need 32 MiB for it.
    assert!(highest < 20 << 10, "{alone}, {median}, {highest} KiB");
    agent.stop();
}

//! Faults under load, on real servers: the database goes on, and afterwards nothing is missing, doubled or wrong.
//!
//! pgbench writes with 4 clients; `RETOMA_RATE` sets its transactions a second (0 for as many as it can).

mod damage;
mod full;
mod outage;
mod promotion;
mod rewind;
mod two;

use crate::wal_stream::{Site, setting};
use retoma_core::postgres::Lsn;
use retoma_testkit::{PostgresServer, wait_for_long};
use std::fs;
use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::time::Duration;

/// What all of pgbench's tables hold, in a line.
const SUMS: &str = "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM pgbench_branches), \
                    (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT coalesce(sum(delta), 0) FROM pgbench_history), \
                    (SELECT count(*) FROM pgbench_history)";

/// A server that keeps all of its WAL, so that every stored segment can be compared; pgbench's tables are there.
fn site(wal: &str, conf: &[&str]) -> Option<Site> {
    let usual = ["wal_keep_size = 8GB", "max_wal_size = 256MB", "max_wal_senders = 10"];
    let site = Site::start_with(wal, &[&usual, conf].concat(), 1)?;
    site.pgbench(&["-i", "-q", "-s", "2"]);
    Some(site)
}

/// The same, which archives by `archive_command`.
fn archiving(conf: &[&str]) -> Option<Site> {
    let all = [&["archive_command = '/bin/false'"], conf].concat();
    let site = site("mode = \"archive\"", &all)?;
    archive(&site, "");
    Some(site)
}

/// Sets the site's `archive_command`, with `more` options.
fn archive(site: &Site, more: &str) {
    let command = format!("archive_command = '{} wal push %p --component db{more}'", site.line());
    site.server.append_conf(&[command]);
    site.server.psql("SELECT pg_reload_conf()");
}

/// pgbench, while it is not dropped.
struct Load {
    child: Child,
    log: PathBuf,
}

impl Load {
    /// On the site's server.
    fn start(site: &Site) -> Self {
        Self::on(&site.server, site)
    }

    /// On a server that has the site's tables.
    fn on(server: &PostgresServer, site: &Site) -> Self {
        let log = site.home().join(format!("pgbench-{}.log", server.port()));
        let mut command = server.command("pgbench");
        command.arg("-h").arg(server.socket_dir()).args(["-p", &server.port().to_string(), "-U", "postgres"]);
        command.args(["-n", "-c", "4", "-T", "36000", "-P", "1"]);
        let rate = setting("RETOMA_RATE", 300);
        if rate > 0 {
            command.args(["-R", &rate.to_string()]);
        }
        command.arg("postgres").stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(fs::File::create(&log).unwrap());
        let load = Self { child: command.spawn().unwrap(), log };
        wait_for_long("pgbench to write", Duration::from_mins(1), || {
            (!load.progress().is_empty()).then_some(())
        });
        load
    }

    /// Transactions and the mean time of one, in milliseconds, of each second so far.
    fn progress(&self) -> Vec<(f64, f64)> {
        let text = fs::read_to_string(&self.log).unwrap();
        let number = |words: &[&str], before: &str| {
            let at = words.iter().position(|word| word.trim_end_matches(',') == before)?;
            words.get(at.checked_sub(1)?)?.parse::<f64>().ok()
        };
        let lines =
            text.split_inclusive('\n').filter(|line| line.starts_with("progress:") && line.ends_with('\n'));
        lines
            .filter_map(|line| {
                let words: Vec<&str> = line.split_whitespace().collect();
                Some((number(&words, "tps")?, number(&words, "ms").unwrap_or(f64::NAN)))
            })
            .collect()
    }

    /// Waits for so many more seconds of load; every one of them must have had transactions.
    fn goes_on_for(&self, what: &str, seconds: usize) {
        let from = self.progress().len();
        wait_for_long("pgbench to go on", Duration::from_secs(60 + 2 * seconds as u64), || {
            (self.progress().len() >= from + seconds).then_some(())
        });
        let progress = self.progress();
        let stretch = &progress[from..from + seconds];
        let least = stretch.iter().map(|(tps, _)| *tps).fold(f64::INFINITY, f64::min);
        let slowest = stretch.iter().map(|(_, ms)| *ms).fold(0.0, f64::max);
        let mean =
            stretch.iter().map(|(tps, _)| *tps).sum::<f64>() / f64::from(u32::try_from(seconds).unwrap());
        println!(
            "{what}: {seconds} s, {mean:.0} tps, slowest second {least:.0} tps, longest mean latency {slowest:.1} ms"
        );
        assert!(least > 0.0, "{what}: the database stood still: {stretch:?}");
    }

    /// Stops it; it must have run until now.
    fn stop(mut self) {
        let ended = self.child.try_wait().unwrap();
        assert!(ended.is_none(), "pgbench ended: {}", fs::read_to_string(&self.log).unwrap());
        self.end();
    }

    /// The server went away below it.
    fn end(&mut self) {
        self.child.kill().ok();
        self.child.wait().unwrap();
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end();
    }
}

/// Waits until the server has archived all that it has now; gives its last segment.
fn archived(server: &PostgresServer, patience: Duration) -> String {
    let last = server.psql(
        "CREATE TABLE IF NOT EXISTS ended (n int); INSERT INTO ended VALUES (1); \
         SELECT pg_walfile_name(pg_switch_wal())",
    );
    wait_for_long("everything to be archived", patience, || {
        let done = server.psql("SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver");
        (done.len() == 24 && done[..24] >= last[..]).then_some(())
    });
    last
}

fn assert_no_gap(site: &Site) {
    let checked = site.retoma(&["wal", "check", "--read-data", "--json"]).expect(0).document();
    assert_eq!(checked["servers"][0]["gaps"].as_array().unwrap().len(), 0, "{checked:#}");
}

/// Everything up to `until` is in both repositories as the server has it, without a gap, and comes back.
fn assert_nothing_is_missing(site: &Site, until: Lsn) {
    for repository in ["near", "far"] {
        site.assert_whole(repository, until);
    }
    assert_no_gap(site);
    assert_recovers_to(site, &site.server);
}

/// Recovers the site's server from the archive, to the end of everything; gives it, started.
fn recovered(site: &Site) -> PostgresServer {
    let root = site.home().join("recovered");
    let shown = root.display().to_string();
    let document =
        site.retoma(&["recover", "--only", "db", "--to", &shown, "--yes", "--json"]).expect(0).document();
    assert_eq!(document["passed"], true, "{document:#}");
    let path = document["components"][0]["path"].as_str().unwrap().to_owned();
    let mut server = PostgresServer::restored(|empty| {
        fs::remove_dir(empty).unwrap();
        fs::rename(path, empty).unwrap();
    })
    .unwrap();
    fs::remove_dir_all(root).unwrap();
    server.append_conf(&["archive_mode = off".to_owned(), "synchronous_standby_names = ''".to_owned()]);
    server.go();
    server
}

/// That what is archived gives exactly what this server has now.
fn assert_recovers_to(site: &Site, server: &PostgresServer) {
    let (now, restored) = (server.psql(SUMS), recovered(site).psql(SUMS));
    assert_eq!(restored, now);
    let fields: Vec<&str> = now.split('|').collect();
    assert!(fields[..4].iter().all(|sum| *sum == fields[0]), "pgbench's sums do not agree: {now}");
    println!("recovered to the end: {now}");
}

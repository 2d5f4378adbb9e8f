//! The server and all that is on its host are lost at a random moment, under load: what of the acknowledged is lost?
//!
//! `RETOMA_TRIALS` sets how many times, `RETOMA_SCALE` the scale of pgbench,
//! `RETOMA_SEGMENT_MIB` the size of segments; `SEED` the moments. Prints what it measured.

use super::{Site, setting};
use retoma_sources::postgres::wire::{Address, Connection, Mode, Timeouts};
use retoma_testkit::{Random, wait_for_what};
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Connections that write and remember when each commit was acknowledged.
const WRITERS: u32 = 2;

struct Acknowledged {
    writer: u32,
    number: u64,
    at: Instant,
}

/// Commits one row after the other until the connection breaks.
fn write(address: &Address, writer: u32, log: &Mutex<Vec<Acknowledged>>) {
    let mut connection = Connection::connect(address, Mode::Sql, Timeouts::default()).unwrap();
    for number in 0.. {
        let done = connection.execute(&format!("INSERT INTO marks VALUES ({writer}, {number})"));
        if done.is_err() {
            return;
        }
        log.lock().unwrap().push(Acknowledged { writer, number, at: Instant::now() });
    }
}

struct Loss {
    acknowledged: usize,
    lost: usize,
    /// From the oldest acknowledgement that was lost to the moment when everything was dead.
    span: Duration,
    /// The longest that a finished segment waited for being stored; zero where WAL is streamed.
    push: Duration,
}

/// `archive_timeout`, which the server counts in whole seconds.
const ARCHIVE_TIMEOUT: Duration = Duration::from_secs(3);
const WHOLE_SECOND: Duration = Duration::from_secs(1);
/// For the server's own processes to wake, on a machine that is busy.
const WAKING: Duration = Duration::from_secs(2);

fn archive_with_us(site: &Site) {
    let command = format!("archive_command = '{} wal push %p --component db'", site.line());
    let timeout = format!("archive_timeout = {}", ARCHIVE_TIMEOUT.as_secs());
    site.server.append_conf(&[command, timeout]);
    site.server.psql("SELECT pg_reload_conf()");
}

/// How long the oldest finished segment that is not stored yet waits now.
fn oldest_waiting(site: &Site) -> Duration {
    let entries =
        std::fs::read_dir(site.server.data_dir().join("pg_wal/archive_status")).into_iter().flatten();
    let ready = entries.flatten().filter(|entry| entry.path().extension().is_some_and(|end| end == "ready"));
    let age = |entry: std::fs::DirEntry| entry.metadata().ok()?.modified().ok()?.elapsed().ok();
    ready.filter_map(age).max().unwrap_or_default()
}

/// Looks again and again, so long.
fn longest_waiting(site: &Site, moment: Duration) -> Duration {
    let (began, mut longest) = (Instant::now(), Duration::ZERO);
    while began.elapsed() < moment {
        longest = longest.max(oldest_waiting(site));
        std::thread::sleep(Duration::from_millis(10));
    }
    longest
}

fn trial(mode: &str, random: &mut Random) -> Option<Loss> {
    let segment_mib = setting("RETOMA_SEGMENT_MIB", 16);
    let streams = mode != "archive";
    let archiving = ["archive_mode = on", "archive_command = '/bin/false'"];
    let conf = [&["max_wal_size = 1GB"][..], if streams { &[][..] } else { &archiving }].concat();
    let mut site = Site::start_with(&format!("mode = \"{mode}\""), &conf, segment_mib)?;
    let scale = setting("RETOMA_SCALE", 1).to_string();
    site.pgbench(&["-i", "-q", "-s", &scale]);
    site.server.psql("CREATE TABLE marks (writer int, number bigint)");
    let mut stream = streams.then(|| site.streaming());
    if !streams {
        archive_with_us(&site);
    }
    site.back_up();
    if mode == "synchronous" {
        site.server.psql("ALTER SYSTEM SET synchronous_standby_names = 'retoma_db'; SELECT pg_reload_conf()");
        wait_for_what("the server to wait for the repositories", || {
            let sql = "SELECT count(*) FROM pg_stat_replication WHERE sync_state = 'sync'";
            (site.server.psql(sql) == "1").then_some(())
        });
    }
    let mut pgbench = site.start_pgbench(4);
    let log = Mutex::new(Vec::new());
    let address = Address::of_process(&site.server.socket_url()).unwrap();
    let most = if streams { 2000 } else { 9000 };
    let moment = Duration::from_millis(1000 + random.below(most));
    let (dead, push) = std::thread::scope(|scope| {
        for writer in 0..WRITERS {
            let (address, log) = (&address, &log);
            scope.spawn(move || write(address, writer, log));
        }
        // The moment is what is random here, nothing is waited for.
        let push = if streams { Duration::ZERO } else { longest_waiting(&site, moment) };
        std::thread::sleep(if streams { moment } else { Duration::ZERO });
        // First one, then the other: what is acknowledged between counts as lost.
        if let Some(stream) = &mut stream {
            stream.kill_now();
        }
        // What waits now waited until now.
        let push = if streams { push } else { push.max(oldest_waiting(&site)) };
        site.server.kill();
        (Instant::now(), push)
    });
    pgbench.kill().unwrap();
    pgbench.wait().unwrap();
    // Everything on the host.
    std::fs::remove_dir_all(site.server.data_dir()).unwrap();
    std::fs::remove_dir_all(site.home().join(".retoma")).ok();

    let restored = site.recovered();
    let rows = restored.psql("SELECT writer, number FROM marks");
    let there: BTreeSet<(u32, u64)> = rows
        .lines()
        .map(|line| {
            let (writer, number) = line.split_once('|').unwrap();
            (writer.parse().unwrap(), number.parse().unwrap())
        })
        .collect();
    let sums = restored.psql(
        "SELECT (SELECT sum(abalance) FROM pgbench_accounts) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history), \
         (SELECT sum(bbalance) FROM pgbench_branches) = (SELECT coalesce(sum(delta), 0) FROM pgbench_history)",
    );
    assert_eq!(sums, "t|t");
    let log = log.into_inner().unwrap();
    let lost: Vec<&Acknowledged> =
        log.iter().filter(|done| !there.contains(&(done.writer, done.number))).collect();
    let oldest = lost.iter().map(|done| done.at).min();
    let span = oldest.map_or(Duration::ZERO, |oldest| dead.saturating_duration_since(oldest));
    Some(Loss { acknowledged: log.len(), lost: lost.len(), span, push })
}

fn trials(mode: &str) -> Vec<Loss> {
    let mut random = Random::new(setting("SEED", 7));
    let mut losses = Vec::new();
    for number in 0..setting("RETOMA_TRIALS", 3) {
        let Some(loss) = trial(mode, &mut random) else { break };
        println!(
            "{mode} {number}: {} acknowledged, {} lost, {:.3} s; a segment waited for {:.3} s at most",
            loss.acknowledged,
            loss.lost,
            loss.span.as_secs_f64(),
            loss.push.as_secs_f64()
        );
        assert!(loss.acknowledged > 20, "the load must be one");
        losses.push(loss);
    }
    let mut spans: Vec<Duration> = losses.iter().map(|loss| loss.span).collect();
    spans.sort();
    if let (Some(median), Some(most)) = (spans.get(spans.len() / 2), spans.last()) {
        println!(
            "{mode}: {} trials, lost span median {:.3} s, max {:.3} s",
            spans.len(),
            median.as_secs_f64(),
            most.as_secs_f64()
        );
    }
    losses
}

#[test]
fn streaming_loses_at_most_a_second() {
    for loss in trials("stream") {
        assert!(loss.span <= Duration::from_secs(1), "{} lost over {:?}", loss.lost, loss.span);
    }
}

#[test]
fn synchronous_streaming_loses_nothing() {
    for loss in trials("synchronous") {
        assert_eq!(loss.lost, 0, "of {} over {:?}", loss.acknowledged, loss.span);
    }
}

#[test]
fn an_archive_loses_at_most_its_timeout_and_a_push() {
    for loss in trials("archive") {
        let limit = ARCHIVE_TIMEOUT + WHOLE_SECOND + WAKING + loss.push;
        assert!(loss.span <= limit, "{} lost over {:?}, more than {limit:?}", loss.lost, loss.span);
    }
}

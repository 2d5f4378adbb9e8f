//! What a stream costs while nothing happens. Prints what it measured.

use super::{Site, has_file};
use std::fs;
use std::time::Duration;

/// Anonymous memory of a process, in KiB.
fn anonymous_kib(pid: u32) -> u64 {
    try_anonymous_kib(pid).unwrap()
}

/// The same; `None` when there is no such process.
pub(super) fn try_anonymous_kib(pid: u32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Processor time of a process, in ticks of 10 ms.
pub(super) fn ticks(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<&str> = text.rsplit_once(')').unwrap().1.split_whitespace().collect();
    fields[11].parse::<u64>().unwrap() + fields[12].parse::<u64>().unwrap()
}

fn parts(site: &Site) -> usize {
    let archive = site.archive("near");
    let mut parts = 0;
    archive.for_each(|object, _| parts += usize::from(object.to_string().contains('-'))).unwrap();
    parts
}

#[test]
fn an_idle_server_costs_next_to_nothing_and_makes_no_objects() {
    let Some(site) = Site::start_with("mode = \"stream\"", &["autovacuum = off"], 16) else { return };
    site.server.psql("CREATE TABLE t (n int, text text)");
    let stream = site.streaming();
    // Some load before: memory must come back.
    for _ in 0..9 {
        site.server.psql("INSERT INTO t SELECT n, repeat('x', 500) FROM generate_series(1, 20000) n");
    }
    site.shipped();
    let seconds = super::setting("RETOMA_IDLE_SECONDS", 15);
    // What is measured here is what happens in a time in which nothing is asked for.
    std::thread::sleep(Duration::from_secs(12));
    let (before, stored) = (ticks(stream.pid()), parts(&site));
    std::thread::sleep(Duration::from_secs(seconds));
    let used = ticks(stream.pid()) - before;
    let memory = anonymous_kib(stream.pid());
    #[allow(clippy::cast_precision_loss)] // Small numbers.
    let share = used as f64 / seconds as f64;
    println!("idle: {memory} KiB RssAnon, {share:.2} % of a core ({used} ticks in {seconds} s)");
    // A checkpoint may write a record or two.
    assert!(parts(&site) <= stored + 2);
    assert!(memory < 20 << 10, "{memory} KiB");
    assert!(has_file(&site.home().join("near"), "config"));
    assert_eq!(stream.stop(), Some(0));
}

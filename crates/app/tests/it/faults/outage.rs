//! A repository that cannot be reached for a while: `RETOMA_OUTAGE_SECONDS` says for how long.

use super::{Load, archived, archiving, assert_nothing_is_missing, site};
use crate::wal_stream::setting;
use retoma_testkit::wait_for_long;
use std::time::{Duration, Instant};

fn outage_seconds() -> usize {
    usize::try_from(setting("RETOMA_OUTAGE_SECONDS", 10)).unwrap()
}

/// Long enough to catch up with what an outage left.
fn patience() -> Duration {
    Duration::from_secs(120 + 2 * setting("RETOMA_OUTAGE_SECONDS", 10))
}

#[test]
fn without_its_repositories_a_streamed_server_goes_on_and_nothing_is_missing_afterwards() {
    let Some(site) = site("mode = \"stream\"", &[]) else { return };
    let stream = site.streaming();
    site.back_up();
    let load = Load::start(&site);
    load.goes_on_for("stream, before", 3);
    site.take_away();
    let raised = stream.wait_for_alarm("alarm_raised", "repository");
    println!("alarm: {}", raised["error"]["message"]);
    load.goes_on_for("stream, without repositories", outage_seconds());
    let status = site.retoma(&["status"]);
    assert!(status.code != Some(0) && status.stderr.contains("R0201"), "{}", status.text());
    let told = |what: &str| stream.events().iter().filter(|event| event["event"] == what).count();
    let cleared = || told("alarm_cleared");
    assert_eq!((told("alarm_raised"), cleared()), (2, 0), "{:?}", stream.events());
    let kept = site.server.psql(
        "SELECT pg_size_pretty(pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)) FROM pg_replication_slots",
    );
    println!("stream, at the end of the outage: the slot keeps {kept}");

    site.bring_back();
    let back = Instant::now();
    wait_for_long("both alarms to end", patience(), || (cleared() >= 2).then_some(()));
    println!("stream: alarms over after {:.1} s", back.elapsed().as_secs_f64());
    load.goes_on_for("stream, afterwards", 3);
    load.stop();
    let until = site.shipped_within(patience());
    println!("stream: all shipped {:.1} s after the repositories were back", back.elapsed().as_secs_f64());
    assert_eq!(stream.stop(), Some(0));
    assert_nothing_is_missing(&site, until);
}

#[test]
fn without_its_repositories_an_archived_server_goes_on_and_nothing_is_missing_afterwards() {
    let Some(site) = archiving(&["archive_mode = on"]) else { return };
    archived(&site.server, patience());
    site.back_up();
    let fails = || site.retoma(&["doctor"]).stdout.contains("`archive_command` fails");
    assert!(!fails());
    let load = Load::start(&site);
    load.goes_on_for("archive, before", 3);
    site.take_away();
    wait_for_long("the doctor to see it", Duration::from_mins(1), || fails().then_some(()));
    load.goes_on_for("archive, without repositories", outage_seconds());
    assert!(fails());
    let status = site.retoma(&["status"]);
    assert!(status.code != Some(0) && status.stderr.contains("R0201"), "{}", status.text());
    assert!(site.server.log().contains("R0201"), "PostgreSQL's log says why");
    let waiting =
        site.server.psql("SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready'");
    println!("archive, at the end of the outage: {waiting} segments wait");

    site.bring_back();
    let back = Instant::now();
    load.goes_on_for("archive, afterwards", 3);
    load.stop();
    archived(&site.server, patience());
    println!("archive: all stored {:.1} s after the repositories were back", back.elapsed().as_secs_f64());
    assert!(!fails());
    let until = site.current().parse().unwrap();
    assert_nothing_is_missing(&site, until);
}

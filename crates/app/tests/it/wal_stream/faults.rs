//! Repositories that are away, a second stream, a slot at its limit, a server that goes.

use super::{SLOT, Site, has_file};
use retoma_core::error::codes;
use retoma_testkit::{StopMode, wait_for_what};

const ROWS: &str = "INSERT INTO t SELECT n, repeat('x', 500) FROM generate_series(1, 2000) n";

#[test]
fn a_repository_that_is_away_alarms_and_blocks_nothing_and_has_no_gap_when_it_is_back() {
    let Some(site) = Site::start("mode = \"stream\"", &["wal_keep_size = 1GB"]) else { return };
    site.server.psql("CREATE TABLE t (n int, text text)");
    let stream = site.streaming();
    site.server.psql(ROWS);
    let before = site.shipped();
    site.rename("far", "away");
    // More than the window holds, while one of two is away: nobody waits.
    (0..8).for_each(|_| drop(site.server.psql(ROWS)));
    let raised = stream.wait_for_alarm("alarm_raised", "repository");
    assert_eq!(raised["repository"], "far", "{raised:#}");
    assert!(!site.home().join("far").exists(), "a disk that is away must not be made anew");
    // The other goes on, and the server is told nothing that is not everywhere.
    let all = site.current().parse().unwrap();
    let near = site.archive("near");
    wait_for_what("the other repository to have everything", || {
        near.end(super::size()).unwrap().filter(|end| end.joined >= all)
    });
    let told =
        format!("SELECT count(*) FROM pg_stat_replication WHERE flush_lsn > '{before}'::pg_lsn + 1000000");
    assert_eq!(site.server.psql(&told), "0");
    site.rename("away", "far");
    let until = site.shipped();
    stream.wait_for_alarm("alarm_cleared", "repository");
    for repository in ["near", "far"] {
        site.assert_whole(repository, until);
    }
    assert_eq!(stream.stop(), Some(0));
}

#[test]
fn a_second_stream_waits_and_says_why_and_writes_nothing() {
    let Some(site) = Site::start("mode = \"stream\"", &[]) else { return };
    site.server.psql("CREATE TABLE t (n int, text text)");
    let first = site.streaming();
    let second = site.stream("second");
    let raised = second.wait_for_alarm("alarm_raised", "connection");
    assert_eq!(raised["error"]["code"], codes::WAL_SLOT_BUSY.as_str(), "{raised:#}");
    site.server.psql(ROWS);
    let until = site.shipped();
    site.assert_whole("near", until);
    assert!(second.events().iter().all(|event| event["event"] != "connected"));
    // It takes over when the first one goes.
    first.kill();
    second.wait_for("the second to take over", |event| event["event"] == "connected");
    second.wait_for_alarm("alarm_cleared", "connection");
    assert_eq!(second.stop(), Some(0));
}

#[test]
fn at_its_limit_the_slot_is_given_up_and_the_gap_is_named() {
    let wal = "mode = \"stream\"\nslot_limit_mib = 8\nat_slot_limit = \"drop\"";
    let Some(site) = Site::start(wal, &["min_wal_size = 2MB", "max_wal_size = 4MB", "wal_keep_size = 0"])
    else {
        return;
    };
    site.server.psql("CREATE TABLE t (n int, text text)");
    let stream = site.streaming();
    site.server.psql(ROWS);
    site.shipped();
    site.take_away();
    (0..12).for_each(|_| drop(site.server.psql(ROWS)));
    stream.wait_for_alarm("alarm_raised", "repository");
    for alarm in ["slot_warning", "slot_alarm", "slot_limit"] {
        let raised = stream.wait_for_alarm("alarm_raised", alarm);
        assert_eq!(raised["error"]["code"], codes::WAL_SLOT_LIMIT.as_str(), "{raised:#}");
    }
    wait_for_what("the slot to be dropped", || {
        (site.server.psql("SELECT count(*) FROM pg_replication_slots") == "0").then_some(())
    });
    // The database lives, and gets rid of its WAL.
    site.server.psql(&format!("{ROWS}; CHECKPOINT; {ROWS}; CHECKPOINT; {ROWS}; CHECKPOINT"));
    site.bring_back();
    let gap = stream.wait_for("a gap", |event| event["event"] == "gap");
    assert_eq!(gap["error"]["code"], codes::WAL_GAP.as_str(), "{gap:#}");
    stream.wait_for_alarm("alarm_cleared", "slot_limit");
    site.server.psql(&format!("{ROWS}; {ROWS}"));
    site.shipped();
    let slots = site.server.psql("SELECT slot_name FROM pg_replication_slots");
    assert_eq!(slots, SLOT);
    assert_eq!(stream.stop(), Some(0));
    let checked = site.retoma(&["wal", "check", "--json"]).expect(4).document();
    assert_eq!(checked["servers"][0]["gaps"].as_array().unwrap().len(), 1, "{checked:#}");
}

#[test]
fn a_server_that_restarts_is_followed_and_one_that_shuts_down_is_not_held_up() {
    let Some(mut site) = Site::start("mode = \"stream\"", &["wal_keep_size = 1GB"]) else { return };
    site.server.psql("CREATE TABLE t (n int, text text)");
    let stream = site.streaming();
    let connections = || stream.events().iter().filter(|event| event["event"] == "connected").count();
    for (number, mode) in [StopMode::Immediate, StopMode::Fast].into_iter().enumerate() {
        site.server.psql(ROWS);
        site.server.stop(mode);
        site.server.go();
        wait_for_what("the stream to connect again", || (connections() == number + 2).then_some(()));
        site.server.psql(ROWS);
        let until = site.shipped();
        site.assert_whole("far", until);
    }
    // No repository takes what the server has, and it waits for nobody.
    site.take_away();
    site.server.psql(ROWS);
    site.server.stop(StopMode::Fast);
    site.server.go();
    site.bring_back();
    let until = site.shipped();
    site.assert_whole("near", until);
    assert_eq!(stream.stop(), Some(0));
    assert!(!has_file(&site.home().join("near/wal"), ".partial"));
}

#[test]
fn wrong_use_is_refused() {
    let Some(site) = Site::start("mode = \"stream\"", &[]) else { return };
    assert!(site.retoma(&["wal", "stream", "notes"]).expect(1).stderr.contains("R0002"));
    assert!(site.retoma(&["wal", "stream", "nothing"]).expect(1).stderr.contains("R0002"));
    assert!(site.retoma(&["-r", "near", "wal", "stream", "db"]).expect(1).stderr.contains("R0002"));
    site.server.write(&site.home().join("password"), "another", 0o600);
    assert!(site.retoma(&["wal", "stream", "db"]).expect(12).stderr.contains("R0202"));
}

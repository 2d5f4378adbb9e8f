//! Servers that stop, are killed, and are promoted, while their WAL is shipped.

use super::{Load, archived, archiving, assert_no_gap, assert_nothing_is_missing, assert_recovers_to, site};
use crate::wal_stream::wait_shipped;
use retoma_testkit::{PostgresServer, StopMode, wait_for_what};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_mins(2);

fn stop(server: &mut PostgresServer, how: Option<StopMode>) {
    match how {
        Some(mode) => server.stop(mode),
        None => server.kill(),
    }
}

const WAYS: [Option<StopMode>; 3] = [Some(StopMode::Fast), Some(StopMode::Immediate), None];

#[test]
fn a_streamed_server_that_is_restarted_under_load_in_any_way_has_no_gap() {
    let Some(mut site) = site("mode = \"stream\"", &[]) else { return };
    let stream = site.streaming();
    site.back_up();
    let connections = || stream.events().iter().filter(|event| event["event"] == "connected").count();
    for (number, way) in WAYS.into_iter().enumerate() {
        let mut load = Load::start(&site);
        load.goes_on_for("before a stop", 1);
        stop(&mut site.server, way);
        load.end();
        site.server.go();
        wait_for_what("the stream to connect again", || (connections() >= number + 2).then_some(()));
    }
    stream.wait_for_alarm("alarm_cleared", "connection");
    site.pgbench(&["-n", "-c", "4", "-t", "50"]);
    let until = site.shipped();
    assert_eq!(stream.stop(), Some(0));
    assert_nothing_is_missing(&site, until);
}

#[test]
fn an_archived_server_that_is_restarted_under_load_in_any_way_has_no_gap() {
    let Some(mut site) = archiving(&["archive_mode = on"]) else { return };
    archived(&site.server, PATIENCE);
    site.back_up();
    for way in WAYS {
        let mut load = Load::start(&site);
        load.goes_on_for("before a stop", 1);
        stop(&mut site.server, way);
        load.end();
        site.server.go();
    }
    site.pgbench(&["-n", "-c", "4", "-t", "50"]);
    archived(&site.server, PATIENCE);
    let until = site.current().parse().unwrap();
    assert_nothing_is_missing(&site, until);
}

/// The primary dies while nothing can be archived; its standby has what it wrote, and archives that too, with
/// `archive_mode = always`.
#[test]
fn a_standby_that_is_promoted_archives_what_its_primary_could_not() {
    let Some(mut site) = archiving(&["archive_mode = always"]) else { return };
    archived(&site.server, PATIENCE);
    site.back_up();
    let standby = site.server.standby(Some("standby"));
    let load = Load::start(&site);
    load.goes_on_for("with a standby", 2);
    site.take_away();
    load.goes_on_for("with a standby, without repositories", 2);
    load.stop();
    site.server.psql("SELECT pg_switch_wal(); CREATE TABLE behind (n int)");
    let written = site.current();
    wait_for_what("the standby to have it", || {
        (standby.psql(&format!("SELECT pg_last_wal_replay_lsn() >= '{written}'")) == "t").then_some(())
    });
    site.server.kill();
    site.bring_back();
    standby.promote();
    Load::on(&standby, &site).goes_on_for("after the promotion", 2);
    archived(&standby, PATIENCE);
    assert_no_gap(&site);
    assert_recovers_to(&site, &standby);
}

/// With `archive_mode = on`, what the primary could not archive any more is a gap before the promotion; it is found and named.
#[test]
fn a_standby_that_archives_nothing_of_its_primary_s_leaves_a_gap_that_is_named() {
    let Some(mut site) = archiving(&["archive_mode = on"]) else { return };
    archived(&site.server, PATIENCE);
    site.back_up();
    let standby = site.server.standby(Some("standby"));
    site.take_away();
    site.pgbench(&["-n", "-c", "4", "-t", "500"]);
    site.server.psql("SELECT pg_switch_wal(); CREATE TABLE behind (n int)");
    let written = site.current();
    wait_for_what("the standby to have it", || {
        (standby.psql(&format!("SELECT pg_last_wal_replay_lsn() >= '{written}'")) == "t").then_some(())
    });
    site.server.kill();
    site.bring_back();
    standby.promote();
    archived(&standby, PATIENCE);
    let checked = site.retoma(&["wal", "check", "--json"]).expect(4).document();
    assert_eq!(checked["servers"][0]["gaps"].as_array().unwrap().len(), 1, "{checked:#}");
}

/// The history of the new timeline went elsewhere when it began, as into a repository that was there before: it comes with the
/// timeline's WAL.
#[test]
fn the_history_of_a_promoted_server_comes_with_its_first_segment() {
    let Some(mut site) = archiving(&["archive_mode = on"]) else { return };
    archived(&site.server, PATIENCE);
    site.back_up();
    let standby = site.server.standby(None);
    site.pgbench(&["-n", "-c", "4", "-t", "100"]);
    archived(&site.server, PATIENCE);
    let written = site.current();
    wait_for_what("the standby to have it", || {
        (standby.psql(&format!("SELECT pg_last_wal_replay_lsn() >= '{written}'")) == "t").then_some(())
    });
    site.server.kill();
    let command = standby.psql("SHOW archive_command");
    standby.append_conf(&["archive_command = '/bin/true'".to_owned()]);
    standby.psql("SELECT pg_reload_conf()");
    standby.promote();
    let gone = standby.data_dir().join("pg_wal/archive_status/00000002.history.done");
    wait_for_what("the history to go elsewhere", || gone.exists().then_some(()));
    standby.append_conf(&[format!("archive_command = '{command}'")]);
    standby.psql("SELECT pg_reload_conf()");
    standby.psql("CREATE TABLE kept AS SELECT 7 AS n");
    archived(&standby, PATIENCE);
    let checked = site.retoma(&["wal", "check", "--json"]).expect(0).document();
    assert_eq!(checked["servers"][0]["missing_histories"], serde_json::json!([]), "{checked:#}");
    assert_no_gap(&site);
    assert_recovers_to(&site, &standby);
}

/// A standby in another place follows its primary's end; both ship to the same archive, one after the other.
#[test]
fn a_stream_that_follows_its_server_s_address_to_a_promoted_standby_confirms_nothing_that_is_not_stored() {
    let Some(mut site) = site("mode = \"stream\"", &[]) else { return };
    let door = super::rewind::Door::to(site.server.port());
    site.write_manifest(&door.url(), "mode = \"stream\"");
    let stream = site.streaming();
    site.back_up();
    let mut standby = site.server.standby(None);
    site.pgbench(&["-n", "-c", "4", "-t", "100"]);
    let written = site.current();
    wait_for_what("the standby to have it", || {
        (standby.psql(&format!("SELECT pg_last_wal_replay_lsn() >= '{written}'")) == "t").then_some(())
    });
    // What only the old primary has is shipped, and goes far beyond what the standby has.
    standby.stop(StopMode::Fast);
    site.server.psql("CREATE TABLE lost AS SELECT md5(n::text) AS n FROM generate_series(1, 60000) AS n");
    let lost = site.shipped();
    site.server.kill();
    standby.go();
    standby.promote();
    site.take_away();
    door.lead_to(standby.port());
    let connections = || stream.events().iter().filter(|event| event["event"] == "connected").count();
    wait_for_what("the stream to follow", || (connections() >= 2).then_some(()));
    standby.psql("CREATE TABLE kept AS SELECT 7 AS n");
    stream.wait_for_alarm("alarm_raised", "repository");
    wait_for_what("a report", || {
        let heard = "SELECT count(*) FROM pg_stat_replication WHERE reply_time IS NOT NULL";
        (standby.psql(heard) == "1").then_some(())
    });
    let told = "SELECT coalesce(max(flush_lsn), '0/0') FROM pg_stat_replication";
    let (told, now) = (standby.psql(told), standby.psql("SELECT pg_current_wal_lsn()"));
    let lsn = |text: &str| text.parse::<retoma_core::postgres::Lsn>().unwrap();
    assert!(lsn(&now) < lost, "the new primary is still behind the old one");
    assert!(lsn(&told) < lsn(&now), "{told} was confirmed of {now}, and nothing can be stored");
    site.bring_back();
    Load::on(&standby, &site).goes_on_for("after the promotion", 2);
    wait_shipped(&standby, &standby.psql("SELECT pg_current_wal_lsn()"), PATIENCE);
    assert_eq!(stream.stop(), Some(0));
    assert_no_gap(&site);
    assert_recovers_to(&site, &standby);
}

//! Promotion is followed; a server whose WAL does not continue the archive's is refused.

use super::{Site, has_file};
use retoma_core::error::codes;
use retoma_testkit::{StopMode, wait_for_what};

const WAL: &str = "mode = \"stream\"";
const ROWS: &str = "INSERT INTO t SELECT n FROM generate_series(1, 20000) n";

#[test]
fn a_promotion_is_followed_and_the_old_primary_refused() {
    let Some(mut site) = Site::start(WAL, &["wal_keep_size = 1GB"]) else { return };
    site.server.psql("CREATE TABLE t (n int)");
    let standby = site.server.standby(None);
    site.back_up();
    site.write_manifest(&standby.socket_url(), WAL);
    let stream = site.streaming();
    site.server.psql(ROWS);
    let written = site.current();
    wait_for_what("the standby to have it", || {
        (standby.psql(&format!("SELECT pg_last_wal_replay_lsn() >= '{written}'")) == "t").then_some(())
    });
    standby.promote();
    let event = stream.wait_for("the next timeline", |event| event["event"] == "timeline");
    assert_eq!(event["position"]["timeline"], 2, "{event:#}");
    standby.psql(ROWS);
    let sum = standby.psql("SELECT sum(n), count(*) FROM t");
    let now = standby.psql("SELECT pg_current_wal_lsn()");
    wait_for_what("everything to be shipped", || {
        let sql = format!("SELECT count(*) FROM pg_replication_slots WHERE restart_lsn >= '{now}'");
        (standby.psql(&sql) == "1").then_some(())
    });
    assert_eq!(stream.stop(), Some(0));
    for repository in ["near", "far"] {
        let folder = site.home().join(repository).join("wal");
        assert!(has_file(&folder, "00000002.history") && has_file(&folder, ".partial"), "{repository}");
    }
    let checked = site.retoma(&["wal", "check", "--json"]).expect(0).document();
    assert_eq!(checked["servers"][0]["gaps"].as_array().unwrap().len(), 0, "{checked:#}");

    // The former primary still writes on the old timeline.
    site.server.psql(ROWS);
    site.write_manifest(&site.server.socket_url(), WAL);
    let (code, said) = site.stream("old").ended();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(codes::WAL_DIVERGED.as_str()), "{said}");

    let mut restored = site.recovered();
    assert_eq!(restored.psql("SELECT sum(n), count(*) FROM t"), sum);
    restored.stop(StopMode::Fast);
    site.server.stop(StopMode::Fast);
}

#[test]
fn a_server_that_went_back_is_refused() {
    let Some(mut site) = Site::start(WAL, &["wal_keep_size = 1GB", "full_page_writes = off"]) else { return };
    site.server.psql("CREATE TABLE t (n int); CHECKPOINT");
    site.server.stop(StopMode::Fast);
    let (data, copy) = (site.server.data_dir(), site.home().join("copy"));
    let run = |program: &str, arguments: &[&std::path::Path]| {
        assert!(std::process::Command::new(program).args(arguments).status().unwrap().success());
    };
    run("cp", &["-a".as_ref(), &data, &copy]);
    site.server.go();
    let stream = site.streaming();
    site.server.psql(ROWS);
    let before = site.shipped();
    assert_eq!(stream.stop(), Some(0));
    site.server.stop(StopMode::Fast);
    // An older copy of the data directory, on the same timeline.
    run("rm", &["-r".as_ref(), &data]);
    run("mv", &[&copy, &data]);
    site.server.go();
    let (code, said) = site.stream("back").ended();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(codes::WAL_DIVERGED.as_str()), "{said}");
    // And when it has written as much again, by its contents.
    site.server.psql("CREATE TABLE other (text text)");
    wait_for_what("the server to have written more than before", || {
        site.server.psql("INSERT INTO other SELECT repeat('y', 100) FROM generate_series(1, 1000)");
        site.current()
            .parse()
            .is_ok_and(|now: retoma_core::postgres::Lsn| now.0 > before.0 + (2 << 20))
            .then_some(())
    });
    let (code, said) = site.stream("again").ended();
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains(codes::WAL_DIVERGED.as_str()), "{said}");
}

//! Servers with tablespaces, restored: their data come back elsewhere, and where the original has its own nothing happens.

use crate::database_drill::tablespace;
use crate::kit::{Home, tree};
use crate::postgres::home;
use crate::wal::Site;
use retoma_testkit::{PostgresServer, StopMode};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};

/// A table in a tablespace `fast`, and nothing that would write into it by itself any more; gives its folder.
fn spaced(server: &PostgresServer) -> PathBuf {
    let space = tablespace(server, "fast");
    server.psql(
        "CREATE TABLE elsewhere TABLESPACE fast AS SELECT n FROM generate_series(1, 5000) AS n; \
         ALTER SYSTEM SET autovacuum = off; SELECT pg_reload_conf()",
    );
    server.psql("VACUUM FREEZE; CHECKPOINT");
    space
}

fn count(server: &PostgresServer) -> String {
    server.psql("SELECT count(*), sum(n) FROM elsewhere")
}

fn restore(home: &Home, data: &Path, more: &[&str], exit: i32) -> serde_json::Value {
    let data = data.display().to_string();
    let words: Vec<&str> =
        ["restore", "database", "--target", &data, "--yes"].iter().chain(more).copied().collect();
    home.json(&words, exit, if exit == 0 { "retoma.restore/1" } else { "retoma.error/1" })
}

#[test]
fn a_restore_brings_tablespaces_to_a_folder_that_is_named_and_touches_no_other() {
    let Some((home, server)) = home() else { return };
    let space = spaced(&server);
    home.json(&["backup"], 0, "retoma.backup/1");
    server.psql("CHECKPOINT");
    let before = tree(&space);

    // Without a place for them, or with that of the original: refused, and nothing is made.
    let target = home.path("refused");
    let refused = restore(&home, &target, &[], 1);
    assert_eq!(refused["code"], "R0502", "{refused:#}");
    assert!(refused["hint"].as_str().unwrap().contains("--tablespaces"), "{refused:#}");
    let around = space.parent().unwrap().display().to_string();
    for (below, table) in [(around.as_str(), false), (target.to_str().unwrap(), false), ("x", true)] {
        let more: &[&str] = if table { &["--table", "postgres"] } else { &[] };
        let words = [&["--tablespaces", below], more].concat();
        let refused = restore(&home, &target, &words, 1);
        assert_eq!(refused["code"], if table { "R0002" } else { "R0502" }, "{refused:#}");
    }
    assert!(!target.exists());

    let mut places = None;
    let restored = PostgresServer::restored(|data| {
        let below = data.with_file_name("spaces");
        let named = below.display().to_string();
        let planned = restore(&home, data, &["--tablespaces", &named, "--dry-run"], 0);
        assert!(!below.exists());
        let done = restore(&home, data, &["--tablespaces", &named], 0);
        let to = below.join("fast");
        assert_eq!(done["tablespaces"], json!({ "fast": to }));
        for field in ["tablespaces", "files"] {
            assert_eq!(planned[field], done[field], "{planned:#}");
        }
        let [link] = &fs::read_dir(data.join("pg_tblspc")).unwrap().collect::<Vec<_>>()[..] else {
            panic!("there is one link");
        };
        let link = link.as_ref().unwrap().path();
        assert_eq!(fs::read_link(&link).unwrap(), to);
        let oid = link.file_name().unwrap().to_str().unwrap().to_owned();
        let map = fs::read_to_string(data.join("tablespace_map")).unwrap();
        assert_eq!(map, format!("{oid} {}\n", to.display()));
        // What lies there is not taken for the server's.
        assert_eq!(restore(&home, &target, &["--tablespaces", &named], 1)["code"], "R0502");
        places = Some((data.to_owned(), named, to));
    });
    let (mut restored, (data, named, to)) = (restored.unwrap(), places.unwrap());
    restored.go();
    assert_eq!(count(&restored), count(&server));
    let location = "SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'";
    assert_eq!(restored.psql(location), to.display().to_string());
    restored.psql("DELETE FROM elsewhere; CREATE TABLE more TABLESPACE fast AS SELECT 1 AS n; CHECKPOINT");
    restored.stop(StopMode::Fast);
    assert!(tree(&space) == before, "the original's tablespace was touched");

    // Over it again: only the difference is written, and what is not in the snapshot goes.
    let again = restore(&home, &data, &["--tablespaces", &named, "--delete"], 0);
    assert!(
        again["extra_deleted"].as_u64().unwrap() > 0 && again["reused_bytes"].as_u64().unwrap() > 0,
        "{again:#}"
    );
    restored.go();
    assert_eq!(count(&restored), count(&server));
    assert_eq!(restored.psql("SELECT to_regclass('more') IS NULL"), "t");
    restored.stop(StopMode::Fast);
    assert!(tree(&space) == before, "the original's tablespace was touched");
    assert_eq!(server.psql(location), space.display().to_string());

    // Single files of it need no place for tablespaces, and bring no link to the original's.
    let files = home.path("files");
    restore(&home, &files, &["PG_VERSION", "pg_tblspc"], 0);
    assert!(files.join("PG_VERSION").exists());
    assert_eq!(fs::read_dir(files.join("pg_tblspc")).unwrap().count(), 0);
}

/// The WAL behind the backup writes into the tablespace: the scratch server replays that, in its own folder.
#[test]
fn a_table_in_a_tablespace_comes_back_alone_and_the_original_is_not_touched() {
    let Some(site) = Site::start() else { return };
    let server = &site.server;
    let space = spaced(server);
    site.archive();
    site.retoma(&["backup", "db"]).expect(0);
    let dropped = server.psql(
        "INSERT INTO elsewhere SELECT n FROM generate_series(5001, 6000) AS n; \
         BEGIN; DROP TABLE elsewhere; SELECT pg_current_xact_id(); COMMIT",
    );
    server.psql("CREATE TABLE now TABLESPACE fast AS SELECT 7 AS n");
    site.archived();
    server.psql("VACUUM FREEZE; CHECKPOINT");
    let before = tree(&space);
    let target = site.home().join("brought").display().to_string();
    let restore = |target: &str, more: &[&str]| {
        let words = ["restore", "db", "--table", "postgres.public.elsewhere", "--target", target, "--json"];
        site.retoma(&[&words, more].concat())
    };
    let done = restore(&target, &["--xid", &dropped, "--exclusive"]).expect(0).document();
    let sql = fs::read_to_string(done["extracted"]["path"].as_str().unwrap()).unwrap();
    assert!(tree(&space) == before, "the original's tablespace was touched");
    let names: Vec<_> = fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["postgres.public.elsewhere.sql"], "the scratch server is gone");
    // A scratch folder in the original's own is none.
    let inside = space.join("inside");
    let refused = restore(inside.to_str().unwrap(), &[]).expect(1).document();
    assert_eq!(refused["code"], "R0502", "{refused:#}");
    assert!(tree(&space) == before, "the original's tablespace was touched");
    assert_eq!(server.psql("SELECT n FROM now"), "7");
    server.psql(&sql);
    assert_eq!(count(server), "6000|18003000");
}

//! What goes in comes back.

use super::{Home, PASSWORD, fill, state};
use retoma_testkit::{RedisOptions, RedisServer, require_tool};
use std::process::Command;

fn offset(server: &RedisServer) -> u64 {
    let info = server.cli(&["INFO", "replication"]);
    let line = info.lines().find_map(|line| line.strip_prefix("master_repl_offset:"));
    line.unwrap().trim().parse().unwrap()
}

fn comes_back(diskless: &str) {
    let conf = vec![format!("repl-diskless-sync {diskless}")];
    let Some(server) = RedisServer::start_with(RedisOptions { conf, ..RedisOptions::default() }) else {
        return;
    };
    fill(&server);
    let home = Home::new();
    let before = offset(&server);
    let (summary, facts) = home.back_up(&server);
    assert!((before..=offset(&server)).contains(&facts.replication_offset), "{facts:?}");
    assert_eq!(facts.path, "/cache/dump.rdb");
    assert_eq!(facts.not_counted, None);
    assert!(facts.has_checksum && facts.server.version.starts_with("7.") && facts.server.run_id.len() == 40);
    let types: Vec<_> = facts.types.keys().map(String::as_str).collect();
    assert_eq!(types, ["hash", "list", "set", "stream", "string", "zset"]);
    for (database, keys) in &facts.databases {
        let database = database.to_string();
        assert_eq!(server.cli(&["-n", &database, "DBSIZE"]), keys.keys.to_string());
        let said = server.cli(&["INFO", "keyspace"]);
        assert!(
            said.contains(&format!("db{database}:keys={},expires={},", keys.keys, keys.expires)),
            "{said}"
        );
    }
    assert_eq!(facts.databases.keys().copied().collect::<Vec<_>>(), [0, 1, 9]);
    assert_eq!(facts.databases[&0].expires, 3);

    let restored = home.server(&summary);
    assert_eq!(state(&restored), state(&server));
    assert_eq!(restored.cli(&["FCALL", "two", "0"]), "2");
    assert_eq!(restored.cli(&["GET", "text"]), "hello");
    assert!(restored.cli(&["XINFO", "GROUPS", "stream:2000"]).contains("readers"));
    // The independent sum sees a single change.
    restored.cli(&["APPEND", "text", "x"]);
    assert_ne!(state(&restored).0, state(&server).0);
    restored.cli(&["PEXPIREAT", "expires", "99999999999999"]);
    assert_ne!(state(&restored).1, state(&server).1);
}

#[test]
fn every_type_comes_back_with_a_mark_behind_the_transfer() {
    comes_back("yes");
}

#[test]
fn every_type_comes_back_with_a_length_before_the_transfer() {
    comes_back("no");
}

#[test]
fn nothing_of_the_server_is_left_on_our_disk_and_its_own_stays_as_it_is() {
    let Some(server) = RedisServer::start() else { return };
    fill(&server);
    let home = Home::new();
    home.back_up(&server);
    assert_eq!(
        std::fs::read_dir(server.data_dir()).unwrap().count(),
        0,
        "the transfer went past the server's disk"
    );
    let files: Vec<_> =
        std::fs::read_dir(home.folder.path()).unwrap().map(|it| it.unwrap().file_name()).collect();
    assert_eq!(files, ["repository"]);
}

#[test]
fn restic_and_redis_alone_bring_it_back() {
    let Some(server) = RedisServer::start() else { return };
    let Some(restic) = require_tool("restic") else { return };
    fill(&server);
    let home = Home::new();
    let (_, facts) = home.back_up(&server);
    let target = home.folder.join("target");
    let output = Command::new(restic)
        .args(["--no-cache", "--repo"])
        .arg(home.folder.join("repository"))
        .args(["restore", "latest", "--target"])
        .arg(&target)
        .env("RESTIC_PASSWORD", PASSWORD)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let mut alone = RedisServer::restored(RedisOptions::default(), |data| {
        std::fs::copy(target.join("cache/dump.rdb"), data.join("dump.rdb")).unwrap();
    })
    .unwrap();
    alone.go();
    assert_eq!(alone.cli(&["DBSIZE"]), facts.databases[&0].keys.to_string());
    assert_eq!(state(&alone), state(&server));
    assert!(target.join(".retoma/redis.json").is_file());
}

#[test]
fn a_server_without_checksums_is_captured_and_said_so() {
    let conf = vec!["rdbchecksum no".into()];
    let Some(server) = RedisServer::start_with(RedisOptions { conf, ..RedisOptions::default() }) else {
        return;
    };
    fill(&server);
    let home = Home::new();
    let (summary, facts) = home.back_up(&server);
    assert!(!facts.has_checksum);
    assert_eq!(facts.server.settings.as_ref().unwrap()["rdbchecksum"], "no");
    assert_eq!(state(&home.server(&summary)), state(&server));
}

#[test]
fn a_standby_is_captured_too() {
    let Some(server) = RedisServer::start() else { return };
    fill(&server);
    let conf = vec![format!("replicaof 127.0.0.1 {}", server.port())];
    let standby = RedisServer::start_with(RedisOptions { conf, ..RedisOptions::default() }).unwrap();
    retoma_testkit::wait_for(|| {
        standby.cli(&["INFO", "replication"]).contains("master_link_status:up").then_some(())
    });
    let home = Home::new();
    let (summary, facts) = home.back_up(&standby);
    assert_eq!(facts.server.role, "slave");
    assert_eq!(state(&home.server(&summary)), state(&server));
}

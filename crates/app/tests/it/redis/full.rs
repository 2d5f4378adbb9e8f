//! Full disks: of the repository, and of what is recovered.

use super::same::{compare, sizes};
use super::{component, dump_below, recover, recovered, refused_with, snapshots};
use crate::full_disk::Small;
use crate::kit::Home;
use retoma_testkit::{RedisClient, RedisServer, fill_redis, noise, wait_for};
use std::process::Command;

/// Keys of this many MiB together, which do not compress.
fn grow(server: &RedisServer, mebibytes: u64) {
    let mut client = RedisClient::connect(server);
    for number in 0..4 * mebibytes {
        client.call(&[b"SET".as_slice(), format!("grown:{number}").as_bytes(), &noise(number, 256 << 10)]);
    }
}

fn is_first(key: &[u8]) -> bool {
    !key.starts_with(b"grown")
}

#[test]
fn a_full_repository_takes_no_snapshot_and_the_server_goes_on() {
    let Some(server) = RedisServer::start() else { return };
    fill_redis(&server);
    let first = sizes(&server);
    let home = Home::with(&component(&server.url()));
    let Some(_small) = Small::mount(&home.path("repository"), 12) else { return };
    home.back_up();
    home.write("repository/ballast", &vec![0; 4 << 20]);
    grow(&server, 9);
    let run = home.run(&["backup", "--json"]);
    assert!(run.stderr.contains("has no room"), "{}", run.text());
    refused_with(&home, run, |code| code == "R0012" || code == "R0305");
    // The server is rid of its replica, and has everything.
    wait_for(|| server.cli(&["INFO", "replication"]).contains("connected_slaves:0").then_some(()));
    assert_eq!(server.cli(&["DBSIZE"]), (first[&0] + 36).to_string());
    home.run(&["verify", "--read-data"]).expect(0);
    let restored = recovered(&home, "blank", &server);
    assert_eq!(compare(&server, &restored, is_first), first);
    assert_eq!(sizes(&restored), first);

    std::fs::remove_file(home.path("repository/ballast")).unwrap();
    home.run(&["prune", "--grace", "0s", "--yes"]).expect(0);
    home.back_up();
    assert_eq!(snapshots(&home), 2);
    let restored = recovered(&home, "second", &server);
    assert_eq!(compare(&server, &restored, |_| true), sizes(&restored));
}

#[test]
fn a_full_target_is_said_and_with_room_the_recovery_goes_on() {
    let Some(server) = RedisServer::start() else { return };
    grow(&server, 9);
    let home = Home::with(&component(&server.url()));
    home.back_up();
    let Some(_small) = Small::mount(&home.path("small"), 12) else { return };
    home.write("small/ballast", &vec![0; 6 << 20]);
    let run = recover(&home, "small/blank").expect(1);
    let error = run.document();
    assert_eq!(error["code"], "R0012", "{}", run.text());
    assert!(error["hint"].is_string(), "{error:#}");
    assert!(home.path("small/blank/.retoma-recovering").exists(), "a second try could not go on");
    std::fs::remove_file(home.path("small/ballast")).unwrap();
    let restored = recovered(&home, "small/blank", &server);
    assert_eq!(compare(&server, &restored, |_| true), sizes(&restored));
    assert!(!home.path("small/blank/.retoma-recovering").exists());
    assert!(dump_below(&home.path("small/blank"), &server).exists());
}

#[test]
fn in_place_a_full_disk_leaves_what_was_there() {
    let Some(mut server) = RedisServer::start() else { return };
    grow(&server, 9);
    let truth = RedisServer::start().unwrap();
    grow(&truth, 9);
    let home = Home::with(&component(&server.url()));
    home.back_up();
    server.stop();
    let data = server.data_dir();
    let Some(_small) = Small::mount(&data, 14) else { return };
    let previous = noise(99, 9 << 20);
    std::fs::write(data.join("dump.rdb"), &previous).unwrap();
    std::fs::write(data.join("users.acl"), "mine").unwrap();
    let arguments = ["recover", "--in-place", "--no-start", "--yes", "--json"];
    let run = home.run(&arguments).expect(1);
    let error = run.document();
    assert_eq!(error["code"], "R0012", "{}", run.text());
    assert!(error["hint"].is_string(), "{error:#}");
    assert!(std::fs::read(data.join("dump.rdb")).unwrap() == previous, "the previous data set was changed");
    assert!(!data.join("dump.rdb.retoma-journal").exists(), "something had been exchanged");

    // With room it is done, and what is beside it stays.
    let remounted = Command::new("mount").args(["-o", "remount,size=64m"]).arg(&data).status();
    assert!(remounted.unwrap().success());
    let done = home.run(&arguments).expect(0).document();
    assert_eq!(done["passed"], true, "{done:#}");
    let mut names: Vec<_> =
        std::fs::read_dir(&data).unwrap().map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    assert_eq!(names, ["dump.rdb", "users.acl"]);
    server.go();
    assert_eq!(compare(&truth, &server, |_| true), sizes(&server));
    // Its folder is a file system that is to be unmounted.
    server.stop();
}

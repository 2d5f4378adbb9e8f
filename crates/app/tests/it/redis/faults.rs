//! What ends a backup: said, no snapshot, the server goes on, and the snapshot before still brings everything back.

use super::proxy::{Proxy, Then};
use super::same::{compare, sizes};
use super::{component, recovered, refused, run_as, snapshots};
use crate::kit::{Home, Run};
use retoma_testkit::{RedisOptions, RedisServer, fill_redis};
use std::process::Stdio;

/// More than what sockets hold on the way, so that the middle is one.
const VALUES: u64 = 1_200;
const VALUE_BYTES: u64 = 20_000;
/// Behind so many bytes the middle begins.
const MIDDLE_BYTES: u64 = 2_000_000;

/// A server with keys, and its first backup.
fn backed_up(conf: &[&str]) -> Option<(Home, RedisServer)> {
    let conf = ["rdbcompression no"].iter().chain(conf).map(ToString::to_string).collect();
    let server = RedisServer::start_with(RedisOptions { conf, ..RedisOptions::default() })?;
    fill_redis(&server);
    let home = Home::with(&component(&server.url()));
    home.back_up();
    assert_eq!(snapshots(&home), 1);
    Some((home, server))
}

/// Many more keys.
fn grow(server: &RedisServer) {
    server.cli(&["DEBUG", "POPULATE", &VALUES.to_string(), "grown", &VALUE_BYTES.to_string()]);
}

fn is_first(key: &[u8]) -> bool {
    !key.starts_with(b"grown")
}

/// The first snapshot is there and brings back what it held; the server still has everything.
#[track_caller]
fn nothing_is_lost(home: &Home, server: &RedisServer) {
    let restored = recovered(home, "blank", server);
    assert_eq!(compare(server, &restored, is_first), sizes(&restored));
    let grown = sizes(server).values().sum::<u64>() - sizes(&restored).values().sum::<u64>();
    assert_eq!(grown, VALUES, "the server lost keys");
    std::fs::remove_dir_all(home.path("blank")).unwrap();
    home.run(&["verify", "--read-data"]).expect(0);
}

/// Backs up by a proxy that holds in the middle, and does `fault` there.
fn backed_up_while(
    home: &Home,
    server: &mut RedisServer,
    then: Then,
    fault: impl FnOnce(&mut RedisServer),
) -> Run {
    let proxy = Proxy::start(server.port(), MIDDLE_BYTES);
    home.write_manifest(&component(&proxy.url()));
    let mut command = home.command();
    command.args(["backup", "--json"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = command.spawn().unwrap();
    proxy.wait();
    fault(server);
    proxy.release(then);
    let run = Run::new("retoma backup".to_owned(), &child.wait_with_output().unwrap());
    home.write_manifest(&component(&server.url()));
    run
}

#[track_caller]
fn half(home: &Home, run: Run) {
    let error = refused(home, run, "R0436");
    let message = error["message"].as_str().unwrap();
    assert!(message.contains("before its end") && message.contains("cache"), "{message}");
}

/// After the fault, the next backup is good.
#[track_caller]
fn next_is_good(home: &Home, server: &RedisServer) {
    home.back_up();
    assert_eq!(snapshots(home), 2);
    let restored = recovered(home, "second", server);
    assert_eq!(compare(server, &restored, |_| true), sizes(&restored));
}

#[test]
fn a_connection_that_is_cut_in_the_middle_leaves_no_snapshot() {
    for diskless in ["repl-diskless-sync yes", "repl-diskless-sync no"] {
        let Some((home, mut server)) = backed_up(&[diskless]) else { return };
        grow(&server);
        let run = backed_up_while(&home, &mut server, Then::Cut, |_| {});
        half(&home, run);
        nothing_is_lost(&home, &server);
        next_is_good(&home, &server);
    }
}

#[test]
fn a_replica_that_the_server_throws_out_leaves_no_snapshot() {
    let Some((home, mut server)) = backed_up(&[]) else { return };
    grow(&server);
    let run = backed_up_while(&home, &mut server, Then::GoOn, |server| {
        assert_eq!(server.cli(&["CLIENT", "KILL", "TYPE", "replica"]), "1");
    });
    half(&home, run);
    nothing_is_lost(&home, &server);
    next_is_good(&home, &server);
}

#[test]
fn a_server_that_is_restarted_in_the_middle_leaves_no_snapshot() {
    let Some((home, mut server)) = backed_up(&[]) else { return };
    grow(&server);
    server.cli(&["SAVE"]);
    let run = backed_up_while(&home, &mut server, Then::GoOn, |server| {
        server.kill();
        server.go();
    });
    half(&home, run);
    nothing_is_lost(&home, &server);
    next_is_good(&home, &server);
}

/// The control of the three above: held and let go, the transfer is whole.
#[test]
fn a_transfer_that_is_held_and_goes_on_is_whole() {
    let Some((home, mut server)) = backed_up(&[]) else { return };
    grow(&server);
    backed_up_while(&home, &mut server, Then::GoOn, |_| {}).expect(0);
    assert_eq!(snapshots(&home), 2);
    let restored = recovered(&home, "blank", &server);
    assert_eq!(compare(&server, &restored, |_| true), sizes(&restored));
}

#[test]
fn a_wrong_login_and_missing_rights_are_told_apart() {
    let options = RedisOptions {
        users: vec![
            "backup on >other-word +psync +replconf +info +ping +config|get".into(),
            "reader on >other-word allkeys +@read +ping +info".into(),
            "blind on >other-word +ping".into(),
            "off off >other-word +@all".into(),
        ],
        password: Some("right-word".into()),
        ..RedisOptions::default()
    };
    let Some(server) = RedisServer::start_with(options) else { return };
    server.cli(&["SET", "key", "value"]);
    let url = |user: &str| format!("redis://{user}127.0.0.1:{}", server.port());
    let home = Home::with(&component(&url("backup@")));
    run_as(&home, "other-word", &["backup", "--json"]).expect(0);
    for (user, password, code, hint) in [
        ("", "wrong-word", "R0432", "check user and password"),
        ("", "", "R0432", "check user and password"),
        ("backup@", "wrong-word", "R0432", "check user and password"),
        ("nobody@", "other-word", "R0432", "check user and password"),
        ("off@", "other-word", "R0432", "check user and password"),
        ("reader@", "other-word", "R0438", "+psync +replconf"),
        ("blind@", "other-word", "R0433", "ACL SETUSER"),
    ] {
        home.write_manifest(&component(&url(user)));
        let run = run_as(&home, password, &["backup", "--json"]);
        let text = run.text();
        assert!(!text.contains("-word"), "a password is shown: {text}");
        let error = refused(&home, run, code);
        assert!(error["hint"].as_str().unwrap().contains(hint), "{user} {error:#}");
    }
    assert_eq!(server.cli(&["DBSIZE"]), "1");
    let restored = recovered(&home, "blank", &server);
    assert_eq!(restored.cli(&["GET", "key"]), "value");
    home.write_manifest(&component(&url("backup@")));
    run_as(&home, "other-word", &["backup", "--json"]).expect(0);
    assert_eq!(snapshots(&home), 2);
}

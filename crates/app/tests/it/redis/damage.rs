//! A restored data set that no server loads: said with the server's own words, and never put into its place.

use super::{component, dump_below};
use crate::kit::{Home, Run};
use retoma_testkit::{RedisServer, require_tool};
use std::os::unix::fs::PermissionsExt as _;

/// Puts a `redis-server` in front of the real one that does `damage` to the data set `$dump` before it loads it, as a bad
/// disk would; gives the `PATH` that finds it.
fn with_damage(home: &Home, damage: &str) -> String {
    let real = require_tool("redis-server").unwrap();
    let script = format!(
        "#!/bin/sh\ncat > \"$TMPDIR/conf\"\ndump=$(sed -n 's/^dir \"\\(.*\\)\"$/\\1/p' \"$TMPDIR/conf\")/dump.rdb\n\
         {damage} || exit 9\nexec {} - < \"$TMPDIR/conf\"\n",
        real.display()
    );
    home.write("bin/redis-server", script.as_bytes());
    let program = home.path("bin/redis-server");
    std::fs::set_permissions(program, std::fs::Permissions::from_mode(0o755)).unwrap();
    format!("{}:{}", home.text_path("bin"), std::env::var("PATH").unwrap())
}

fn run(home: &Home, path: &str, arguments: &[&str]) -> Run {
    run_plain(home, path, &[arguments, &["--json"]].concat())
}

fn run_plain(home: &Home, path: &str, arguments: &[&str]) -> Run {
    let output = home.command().env("PATH", path).args(arguments).output().unwrap();
    Run::new(format!("retoma {}", arguments.join(" ")), &output)
}

/// What may happen to a data set, and what the server then says.
const DAMAGES: [(&str, &str); 3] = [
    // In the middle of a value: the server would load it, were it not for the checksum.
    ("printf X | dd of=\"$dump\" bs=1 seek=5000 conv=notrunc 2>/dev/null", "Wrong RDB checksum"),
    ("truncate -s -100 \"$dump\"", "Unexpected EOF reading RDB file"),
    (
        "printf REDIS0099 | dd of=\"$dump\" bs=1 conv=notrunc 2>/dev/null",
        "Can't handle RDB format version 99",
    ),
];

/// A server that is too old for a sound data set: it is given a copy that it takes for one of a later version.
const TOO_OLD: (&str, &str) = (
    "cp \"$dump\" \"$TMPDIR/dump.rdb\" && printf REDIS0099 | dd of=\"$TMPDIR/dump.rdb\" bs=1 conv=notrunc 2>/dev/null && \
     sed -i \"s|^dir .*|dir $TMPDIR|\" \"$TMPDIR/conf\"",
    "Can't handle RDB format version 99",
);

/// One that the machine kills while it loads, as when memory ends.
const KILLED: (&str, &str) = ("kill -9 $$", "is killed by signal 9");

/// A server with a long value, backed up.
fn backed_up() -> Option<(Home, RedisServer)> {
    let server = RedisServer::start()?;
    server.cli(&["CONFIG", "SET", "rdbcompression", "no"]);
    server.cli(&["SET", "long", &"v".repeat(20_000)]);
    let home = Home::with(&component(&server.url()));
    home.back_up();
    Some((home, server))
}

#[test]
fn a_data_set_that_no_server_loads_is_refused_with_the_servers_words() {
    let Some((home, server)) = backed_up() else { return };
    let url = format!("file://{}", home.text_path("repository"));
    for (number, (damage, words)) in DAMAGES.into_iter().chain([TOO_OLD, KILLED]).enumerate() {
        let to = format!("blank{number}");
        let arguments = ["recover", "--repository-url", &url, "--password-file", "password", "--to", &to];
        let run = run(&home, &with_damage(&home, damage), &arguments).expect(4);
        let document = run.document();
        assert_eq!(document["passed"], false, "{document:#}");
        let checks = document["components"][0]["checks"].as_array().unwrap();
        let check = |name: &str| checks.iter().find(|check| check["name"] == name).unwrap();
        let loaded = check("load in a server");
        assert_eq!(loaded["outcome"], "failed", "{document:#}");
        assert!(loaded["detail"].as_str().unwrap().contains(words), "{damage}: {loaded:#}");
        let whole = if number < DAMAGES.len() { "failed" } else { "passed" };
        assert_eq!(check("checksum of the data set")["outcome"], whole, "{document:#}");
        assert_eq!(check("sampled keys")["outcome"], "not_run", "{document:#}");
        // The same for whoever reads no JSON.
        let to_read = format!("read{number}");
        let arguments = [&arguments[..6], &[&to_read]].concat();
        let said = run_plain(&home, &with_damage(&home, damage), &arguments).expect(4).text();
        assert!(said.contains("load in a server") && said.contains(words), "{damage}: {said}");
        assert!(
            dump_below(&home.path(&to), &server).exists(),
            "what failed its checks stays to be looked at"
        );
    }
    // The control: the same way without damage.
    let arguments = ["recover", "--repository-url", &url, "--password-file", "password", "--to", "whole"];
    run(&home, &with_damage(&home, "true"), &arguments).expect(0);
}

#[test]
fn in_place_a_data_set_that_no_server_loads_never_replaces_the_previous_one() {
    let Some((home, mut server)) = backed_up() else { return };
    server.stop();
    let data = server.data_dir();
    std::fs::write(data.join("dump.rdb"), "previous").unwrap();
    let arguments = ["recover", "--in-place", "--no-start", "--yes"];
    for (number, (damage, words)) in DAMAGES.into_iter().chain([TOO_OLD, KILLED]).enumerate() {
        let run = run(&home, &with_damage(&home, damage), &arguments).expect(1);
        let error = run.document();
        assert_eq!(error["code"], "R0703", "{error:#}");
        assert!(error["hint"].is_string(), "{error:#}");
        let words = if number < DAMAGES.len() { "check `checksum of the data set`" } else { words };
        assert!(error["message"].as_str().unwrap().contains(words), "{damage}: {error:#}");
        assert_eq!(std::fs::read_to_string(data.join("dump.rdb")).unwrap(), "previous");
        assert!(!data.join("dump.rdb.retoma-journal").exists());
    }
    run(&home, &with_damage(&home, "true"), &arguments).expect(0);
    server.go();
    assert_eq!(server.cli(&["STRLEN", "long"]), "20000");
}

#[test]
fn without_a_server_to_check_with_the_recovery_says_what_to_install() {
    let Some((home, server)) = backed_up() else { return };
    let url = format!("file://{}", home.text_path("repository"));
    let arguments = ["recover", "--repository-url", &url, "--password-file", "password", "--to", "blank"];
    let run = run(&home, &home.text_path("bin"), &arguments).expect(1);
    let error = run.document();
    assert_eq!(error["code"], "R0439", "{error:#}");
    assert!(error["hint"].as_str().unwrap().contains("install Redis's server"), "{error:#}");
    assert_eq!(server.cli(&["STRLEN", "long"]), "20000");
}

//! Redis by whole commands, on real servers: what was backed up comes back equal, and what goes wrong is said.

mod damage;
mod equal;
mod faults;
mod full;
mod load;
mod proxy;
mod same;

use crate::kit::{Home, Run};
use retoma_testkit::{RedisOptions, RedisServer};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// The component with a server at this address.
fn component(url: &str) -> String {
    format!("\n[[component]]\nname = \"cache\"\nkind = \"redis\"\ntier = \"high\"\nurl = \"{url}\"\n")
}

/// Runs the program with this password for Redis.
fn run_as(home: &Home, password: &str, arguments: &[&str]) -> Run {
    let mut command = home.command();
    let output = command.args(arguments).env("REDISCLI_AUTH", password).output().unwrap();
    Run::new(format!("retoma {}", arguments.join(" ")), &output)
}

/// The snapshots of the server.
fn snapshots(home: &Home) -> usize {
    home.snapshots().iter().filter(|it| it.to_string().contains("cache")).count()
}

/// A backup after the first that must fail with this code, without a second snapshot. Gives the error.
#[track_caller]
fn refused(home: &Home, run: Run, code: &str) -> Value {
    refused_with(home, run, |found| found == code)
}

/// As [`refused`], with one of several codes.
#[track_caller]
fn refused_with(home: &Home, run: Run, fits: impl Fn(&str) -> bool) -> Value {
    let run = run.expect(1);
    let document = run.document();
    let error = document["failed"][0].clone();
    let code = error["code"].as_str().unwrap();
    assert!(fits(code), "{document:#}");
    assert!(error["hint"].as_str().is_some_and(|hint| !hint.is_empty()), "{error:#}");
    assert!(run.stderr.contains(code), "{}", run.text());
    assert_eq!(snapshots(home), 1, "a failed backup is no snapshot");
    error
}

/// Recovers below the folder `to`.
fn recover(home: &Home, to: &str) -> Run {
    let url = format!("file://{}", home.text_path("repository"));
    let arguments =
        ["recover", "--repository-url", &url, "--password-file", "password", "--to", to, "--json"];
    home.run(&arguments)
}

/// Where the data set of `server` lies below `root`.
fn dump_below(root: &Path, server: &RedisServer) -> PathBuf {
    root.join(server.data_dir().strip_prefix("/").unwrap()).join("dump.rdb")
}

/// Recovers below the folder `to`, and starts a real server on what came back.
#[track_caller]
fn recovered(home: &Home, to: &str, server: &RedisServer) -> RedisServer {
    let document = recover(home, to).expect(0).document();
    assert_eq!(document["passed"], true, "{document:#}");
    let dump = dump_below(&home.path(to), server);
    let fill = |data: &Path| {
        std::fs::copy(&dump, data.join("dump.rdb")).unwrap();
    };
    let mut restored = RedisServer::restored(RedisOptions::default(), fill).unwrap();
    restored.go();
    restored
}

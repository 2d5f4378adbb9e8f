//! Checks of a copy: sound ones pass, and each check sees what it is for.

use super::{Home, code, fill};
use retoma_core::drill::CheckOutcome;
use retoma_sources::redis::{CheckOptions, CheckReport, RedisFacts, check};
use retoma_testkit::{RedisOptions, RedisServer};
use std::path::Path;

fn checked(copy: &Path, facts: Option<&RedisFacts>) -> CheckReport {
    check(copy, facts, &CheckOptions::default()).unwrap()
}

fn outcome(report: &CheckReport, name: &str) -> CheckOutcome {
    report
        .checks
        .iter()
        .find(|check| check.name == name)
        .unwrap_or_else(|| panic!("{name}: {report:?}"))
        .outcome
}

/// A server, its backup and a copy of it.
fn copied(conf: &[&str]) -> Option<(RedisServer, Home, RedisFacts, std::path::PathBuf)> {
    let conf = conf.iter().map(ToString::to_string).collect();
    let server = RedisServer::start_with(RedisOptions { conf, ..RedisOptions::default() })?;
    fill(&server);
    let home = Home::new();
    let (summary, facts) = home.back_up(&server);
    let copy = home.copy(&summary, "copy");
    Some((server, home, facts, copy))
}

#[test]
fn a_sound_copy_passes_and_stays_as_it_is() {
    // Other limits of encodings than the scratch server has: values are compared by their elements.
    let Some((_server, _home, facts, copy)) = copied(&[
        "set-max-intset-entries 1",
        "hash-max-listpack-entries 1",
        "zset-max-listpack-entries 1",
        "rdbcompression no",
    ]) else {
        return;
    };
    let before = std::fs::read(copy.join("dump.rdb")).unwrap();
    let report = checked(&copy, Some(&facts));
    assert!(report.passed(), "{report:#?}");
    let names: Vec<_> = report.checks.iter().map(|check| check.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "checksum of the data set",
            "load in a server",
            "keys of database `0`",
            "keys of database `1`",
            "keys of database `9`",
            "sampled keys"
        ]
    );
    let samples = report.checks.last().unwrap();
    assert_eq!(samples.found.as_deref(), samples.expected.as_deref());
    // All but the two values that are too long to be kept were compared by their elements.
    assert!(
        samples.detail.starts_with("1 of them")
            || samples.detail.is_empty()
            || samples.detail.starts_with("2 of them"),
        "{samples:?}"
    );
    assert_eq!(report.databases.values().sum::<u64>(), facts.keys());
    assert_eq!(std::fs::read(copy.join("dump.rdb")).unwrap(), before);
    assert_eq!(std::fs::read_dir(&copy).unwrap().count(), 1);
    assert!(checked(&copy, None).passed());
    assert!(checked(&copy.join("dump.rdb"), Some(&facts)).passed());
}

#[test]
fn a_byte_that_changed_is_seen_also_where_the_server_would_load_it() {
    let Some((_server, _home, facts, copy)) = copied(&[]) else { return };
    let file = copy.join("dump.rdb");
    let mut bytes = std::fs::read(&file).unwrap();
    let at = bytes.windows(5).position(|window| window == b"hello").unwrap();
    bytes[at] = b'j';
    std::fs::write(&file, &bytes).unwrap();
    let report = checked(&copy, Some(&facts));
    assert_eq!(outcome(&report, "checksum of the data set"), CheckOutcome::Failed);
    assert_eq!(outcome(&report, "load in a server"), CheckOutcome::Failed);
    assert_eq!(outcome(&report, "keys of database `0`"), CheckOutcome::NotRun);
    assert_eq!(outcome(&report, "sampled keys"), CheckOutcome::NotRun);
    // Cut short; without any checksum.
    std::fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    assert_eq!(outcome(&checked(&copy, Some(&facts)), "checksum of the data set"), CheckOutcome::Failed);
    let length = bytes.len();
    bytes[length - 8..].fill(0);
    std::fs::write(&file, &bytes).unwrap();
    let report = checked(&copy, Some(&facts));
    assert_eq!(outcome(&report, "checksum of the data set"), CheckOutcome::Failed);
    assert_eq!(outcome(&report, "load in a server"), CheckOutcome::Passed);
}

#[test]
fn other_counts_than_captured_are_seen() {
    let Some((_server, _home, mut facts, copy)) = copied(&[]) else { return };
    facts.databases.get_mut(&1).unwrap().keys += 1;
    facts.databases.remove(&9);
    let report = checked(&copy, Some(&facts));
    assert_eq!(outcome(&report, "keys of database `0`"), CheckOutcome::Passed);
    assert_eq!(outcome(&report, "keys of database `1`"), CheckOutcome::Failed);
    assert_eq!(outcome(&report, "keys of database `9`"), CheckOutcome::Failed);
    assert!(!report.passed());
}

#[test]
fn keys_that_expired_since_are_allowed_for() {
    let Some(server) = RedisServer::start() else { return };
    server.cli(&["DEBUG", "SET-ACTIVE-EXPIRE", "0"]);
    server.script("SET stays 1\nSET gone 1 PX 1\nSET later 1 EX 1000");
    let home = Home::new();
    // The clock has moved on as soon as the key cannot be seen any more; its removal would be written to replicas.
    retoma_testkit::wait_for(|| (server.cli(&["PTTL", "gone"]) == "-2").then_some(()));
    server.script("SET gone 1 PX 1");
    let (summary, facts) = home.back_up(&server);
    let copy = home.copy(&summary, "copy");
    retoma_testkit::wait_for(|| (server.cli(&["EXISTS", "gone"]) == "0").then_some(()));
    let report = checked(&copy, Some(&facts));
    assert!(report.passed(), "{report:#?}");
    assert_eq!(report.databases[&0], 2);
}

#[test]
fn what_cannot_be_checked_is_an_error() {
    let Some((_server, home, facts, copy)) = copied(&[]) else { return };
    let missing = CheckOptions { program: "/nowhere/redis-server".into(), ..CheckOptions::default() };
    assert_eq!(code(&check(&copy, Some(&facts), &missing).unwrap_err()), "R0439 NotFound");
    let stopped = CheckOptions { is_stopped: &|| true, ..CheckOptions::default() };
    assert_eq!(code(&check(&copy, Some(&facts), &stopped).unwrap_err()), "R0003 Cancelled");
    let empty = home.folder.join("empty");
    std::fs::create_dir(&empty).unwrap();
    assert!(check(&empty, Some(&facts), &CheckOptions::default()).is_err());
}

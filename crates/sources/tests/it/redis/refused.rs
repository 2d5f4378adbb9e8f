//! What leaves no snapshot.

use super::{Home, code, fill};
use retoma_repo::ErrorKind;
use retoma_repo::backup::{Event, Options, Progress, Source, backup};
use retoma_repo::store::Verb;
use retoma_sources::redis::RedisSource;
use retoma_testkit::{Fault, FaultyStore, RedisOptions, RedisServer, Rule, When};
use std::sync::Arc;

#[test]
fn a_server_that_dies_in_the_middle_leaves_nothing() {
    // Each key takes a moment, so the transfer lasts longer than the test.
    let conf = vec!["rdb-key-save-delay 20000".into(), "repl-diskless-sync-period 0".into()];
    for diskless in ["yes", "no"] {
        let mut conf = conf.clone();
        conf[1] = format!("repl-diskless-sync {diskless}");
        let Some(mut server) = RedisServer::start_with(RedisOptions { conf, ..RedisOptions::default() })
        else {
            return;
        };
        server.cli(&["DEBUG", "POPULATE", "20000", "key", "1000"]);
        let home = Home::new();
        let url = server.url();
        let error = std::thread::scope(|scope| {
            let capture = scope.spawn(|| home.try_back_up(&url, None).unwrap_err());
            retoma_testkit::wait_for(|| {
                server.cli(&["INFO", "persistence"]).contains("rdb_bgsave_in_progress:1").then_some(())
            });
            server.kill();
            capture.join().unwrap()
        });
        assert_eq!(code(&error), "R0436 Unavailable", "{error}");
        assert_eq!(home.snapshots(), 0);
    }
}

#[test]
fn a_server_that_dies_after_half_the_bytes_leaves_nothing() {
    let Some(mut server) = RedisServer::start() else { return };
    // More than what sockets and pipes hold on the way.
    server.cli(&["DEBUG", "POPULATE", "3000", "key", "20000"]);
    let home = Home::new();
    let mut source = RedisSource::begin(&super::address(&server.url()), "cache", None).unwrap();
    let mut reader = loop {
        if let Some(Event::Entry(_, mut content)) = source.next().unwrap() {
            break content.open().unwrap();
        }
    };
    let mut buffer = vec![0; 100_000];
    for _ in 0..20 {
        assert!(reader.read(&mut buffer).unwrap() > 0);
    }
    server.kill();
    let error = loop {
        match reader.read(&mut buffer) {
            Ok(count) => assert!(count > 0, "the end of half a transfer is no end"),
            Err(error) => break error,
        }
    };
    assert_eq!(code(&error), "R0436 Unavailable");
    assert!(error.to_string().contains("before its end"), "{error}");
    let error = loop {
        match source.next() {
            Ok(event) => assert!(event.is_some(), "the source ended as if all were well"),
            Err(error) => break error,
        }
    };
    assert_eq!(code(&error), "R0436 Unavailable");
    assert_eq!(home.snapshots(), 0);
}

#[test]
fn a_full_repository_leaves_nothing_and_the_server_goes_on() {
    let Some(server) = RedisServer::start() else { return };
    server.cli(&["DEBUG", "POPULATE", "2000", "key", "20000"]);
    let (home, faulty) = {
        let mut kept = None;
        let home = Home::over(|local| {
            let faulty = Arc::new(FaultyStore::new(local));
            kept = Some(Arc::clone(&faulty));
            faulty
        });
        (home, kept.unwrap())
    };
    faulty.add(Rule::new(Verb::Put, "data/*", When::From(1), Fault::Error(ErrorKind::Exhausted)));
    let error = home.try_back_up(&server.url(), None).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Exhausted, "{error}");
    assert_eq!(home.snapshots(), 0);
    assert_eq!(server.cli(&["DBSIZE"]), "2000");
    // The transfer is over for the server as well.
    retoma_testkit::wait_for(|| {
        server.cli(&["INFO", "replication"]).contains("connected_slaves:0").then_some(())
    });
}

#[test]
fn a_server_that_lost_everything_is_refused() {
    let Some(server) = RedisServer::start() else { return };
    let home = Home::new();
    let (_, empty) = home.back_up(&server);
    assert_eq!(empty.keys(), 0);
    home.try_back_up(&server.url(), Some(empty)).unwrap();
    fill(&server);
    let (_, full) = home.back_up(&server);
    server.cli(&["FLUSHALL"]);
    let error = home.try_back_up(&server.url(), Some(full)).unwrap_err();
    assert_eq!(code(&error), "R0403 Invalid", "{error}");
    assert_eq!(home.snapshots(), 3);
}

#[test]
fn a_server_without_psync_says_what_to_do() {
    let conf = vec!["rename-command PSYNC \"\"".into()];
    let Some(server) = RedisServer::start_with(RedisOptions { conf, ..RedisOptions::default() }) else {
        return;
    };
    let home = Home::new();
    let error = home.try_back_up(&server.url(), None).unwrap_err();
    assert_eq!(code(&error), "R0438 Unsupported", "{error}");
    assert!(error.hint().unwrap().contains("managed service"));
}

#[test]
fn a_backup_that_is_stopped_leaves_nothing() {
    let conf = vec!["rdb-key-save-delay 20000".into()];
    let Some(server) = RedisServer::start_with(RedisOptions { conf, ..RedisOptions::default() }) else {
        return;
    };
    server.cli(&["DEBUG", "POPULATE", "20000", "key", "10"]);
    let home = Home::new();
    let mut source = RedisSource::begin(&super::address(&server.url()), "cache", None).unwrap();
    let progress = Progress::default();
    progress.cancel();
    let error = backup(&home.repository, &mut source, &Options::default(), &progress).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    assert_eq!(home.snapshots(), 0);
}

//! Dumps of a server: what is left out is said, roles fit the databases, and nobody else reads them.

use jiff::Timestamp;
use retoma_core::error::codes;
use retoma_repo::backup::{Event, Source};
use retoma_sources::postgres::wire::{Address, Environment};
use retoma_sources::postgres::{DumpFacts, DumpSource, examine_dump};
use retoma_testkit::PostgresServer;
use retoma_testkit::postgres::PostgresOptions;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

fn events(mut source: DumpSource<'_>) -> (DumpFacts, Vec<Event>) {
    let mut events = Vec::new();
    while let Some(event) = source.next().unwrap() {
        events.push(event);
    }
    (source.facts().clone(), events)
}

/// Dumps all; in the moment of the first database, `sql` is run once.
fn dump_while(server: &PostgresServer, sql: &str) -> retoma_core::Result<(String, u32)> {
    let is_done = AtomicBool::new(false);
    let meanwhile = || {
        let seen = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' \
                    AND application_name <> 'pg_dumpall'";
        if !is_done.load(SeqCst) && server.psql(seen) != "0" {
            is_done.store(true, SeqCst);
            server.psql(sql);
        }
        false
    };
    let address = Address::of_process(&server.url())?;
    let mut source = DumpSource::begin(&address, "database", None, &meanwhile)?;
    assert!(!is_done.load(SeqCst), "it was dumped before anybody had the repository's lock");
    while let Some(event) = source.next()? {
        assert!(is_done.load(SeqCst), "no dump was seen");
        if let Event::Entry(mut node, mut content) = event
            && node.name == b"globals.sql"
        {
            content.describe(&mut node)?;
            let (mut reader, mut text, mut buffer) = (content.open()?, Vec::new(), [0; 8192]);
            loop {
                match reader.read(&mut buffer)? {
                    0 => return Ok((String::from_utf8(text).unwrap(), node.mode)),
                    count => text.extend_from_slice(&buffer[..count]),
                }
            }
        }
    }
    panic!("no roles were dumped")
}

#[test]
fn a_database_that_refuses_us_is_named_as_unreadable_and_one_that_is_closed_to_all_is_not() {
    let options = PostgresOptions { password: Some("s3cret".to_owned()), ..PostgresOptions::default() };
    let Some(server) = PostgresServer::start_with(&options) else { return };
    server.psql(
        "CREATE ROLE dumper LOGIN PASSWORD 'pass word'; GRANT pg_read_all_data TO dumper;
         CREATE DATABASE refused; REVOKE CONNECT ON DATABASE refused FROM PUBLIC;
         CREATE DATABASE shut ALLOW_CONNECTIONS false",
    );
    let url = format!("postgres://dumper:pass%20word@127.0.0.1:{}/postgres", server.port());
    let address = Address::parse(&url, &Environment::default()).unwrap();
    let (facts, events) = events(DumpSource::begin(&address, "database", None, &|| false).unwrap());
    let unreadable: Vec<_> = events
        .iter()
        .filter_map(|event| match event {
            Event::Unreadable(path, error) => {
                Some((String::from_utf8_lossy(path).into_owned(), error.to_string()))
            }
            _ => None,
        })
        .collect();
    assert!(
        matches!(unreadable.as_slice(), [(path, why)] if path == "/database/databases/refused" && why.contains("`refused`")),
        "{unreadable:?}"
    );
    let said = facts.left_out().join("\n");
    assert!(said.contains("`shut` lets nobody in") && said.contains("without passwords"), "{said}");
    assert!(!said.contains("`refused`"), "it is said twice: {said}");
    // A look beforehand has no list of what was unreadable.
    let looked = examine_dump(&address).unwrap().1.join("\n");
    assert_eq!(looked.matches("`refused`").count(), 1, "{looked}");
}

#[test]
fn the_moments_of_a_dump_are_those_of_its_first_and_of_its_last_database() {
    let Some(server) = PostgresServer::start() else { return };
    let first_seen = Mutex::new(None);
    let meanwhile = || {
        let seen = "SELECT count(*) FROM pg_stat_activity WHERE state = 'idle in transaction' \
                    AND application_name <> 'pg_dumpall' AND datname = 'postgres'";
        let mut first_seen = first_seen.lock().unwrap();
        if first_seen.is_none() && server.psql(seen) != "0" {
            *first_seen = Some(Timestamp::now());
        }
        false
    };
    let address = Address::of_process(&server.url()).unwrap();
    let source = DumpSource::begin(&address, "database", None, &meanwhile).unwrap();
    // From here on it may wait for the repository's lock for long.
    let begun = Timestamp::now();
    let (facts, _) = events(source);
    let seen = first_seen.lock().unwrap().expect("the first dump was not seen");
    assert!(begun < facts.time && facts.time < seen, "{begun} {seen} {facts:?}");
    assert!(seen < facts.latest.unwrap(), "`template1` is dumped after `postgres`: {seen} {facts:?}");
}

#[test]
fn a_role_that_is_made_during_the_dump_is_among_the_roles_which_only_we_may_read() {
    let Some(server) = PostgresServer::start() else { return };
    let (roles, mode) = dump_while(&server, "CREATE ROLE late").unwrap();
    assert!(roles.contains("CREATE ROLE late;"), "{roles}");
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_role_that_vanishes_during_the_dump_ends_it() {
    let Some(server) = PostgresServer::start() else { return };
    server.psql("CREATE ROLE passing");
    let error = dump_while(&server, "DROP ROLE passing").unwrap_err();
    assert_eq!(error.code(), codes::POSTGRES_DUMP, "{error}");
    assert!(error.message().contains("`passing`"), "{error}");
}

#[test]
fn rows_of_extensions_and_of_views_are_not_looked_for_in_the_dump() {
    let Some(server) = PostgresServer::start() else { return };
    // A table that belongs to an extension is not dumped, as those of PostGIS.
    server.psql(
        "CREATE EXTENSION citext; CREATE TABLE public.known AS SELECT 1 AS n; ALTER EXTENSION citext ADD TABLE known;
         CREATE MATERIALIZED VIEW counted AS SELECT 1 AS one",
    );
    let address = Address::of_process(&server.url()).unwrap();
    let (facts, _) = events(DumpSource::begin(&address, "database", None, &|| false).unwrap());
    let contents = facts.databases.iter().find(|it| it.database.name == "postgres").unwrap();
    let contents = contents.database.contents.as_ref().unwrap();
    assert!(contents.extensions.iter().any(|extension| extension.name == "citext"));
}

#[test]
fn a_server_that_ends_idle_sessions_does_not_end_ours() {
    let Some(server) = PostgresServer::start() else { return };
    server.psql("ALTER SYSTEM SET idle_session_timeout = '2s'");
    server.psql("SELECT pg_reload_conf()");
    dump_while(&server, "SELECT pg_sleep(4)").unwrap();
}

//! Statements, copies and what ends them.

use super::{address, code, patient, sql, value};
use proptest::test_runner::{Config, TestRunner};
use retoma_core::{Error, ErrorKind};
use retoma_sources::postgres::wire::{Connection, Mode, Timeouts, quote_identifier, quote_literal, sqlstate};
use retoma_testkit::{PostgresServer, StopMode, wait_for};
use std::time::Duration;

#[test]
fn values_arrive_as_they_are() {
    let Some(server) = PostgresServer::start() else { return };
    let mut connection = sql(&server);
    let rows = connection
        .query("SELECT 'ä|\n''' AS t, NULL::text AS n, '' AS e, 42 AS i, true AS b, '1/A'::pg_lsn AS l, now() AS at")
        .unwrap();
    let row = rows.one().unwrap();
    assert_eq!(row.text("t").unwrap(), "ä|\n'");
    assert_eq!((row.get("n").unwrap(), row.get("e").unwrap()), (None, Some("")));
    assert_eq!((row.value::<i32>("i").unwrap(), row.boolean("b").unwrap()), (42, true));
    assert_eq!(row.lsn("l").unwrap().to_string(), "1/A");
    assert!(row.text("at").unwrap().ends_with("+00"), "times come in UTC");
    assert!(connection.query("SELECT WHERE false").unwrap().is_empty());
    assert!(connection.query("").unwrap().is_empty());
    assert_eq!(connection.query("SELECT 1 AS a; SELECT 2 AS b").unwrap().text(1, "b").unwrap(), "2");
    assert_eq!(connection.execute("CREATE TABLE t AS SELECT generate_series(1, 7) AS n").unwrap(), 7);
    assert_eq!(connection.execute("DELETE FROM t WHERE n > 4").unwrap(), 3);
}

#[test]
fn an_error_of_a_statement_leaves_the_connection_usable() {
    let Some(server) = PostgresServer::start() else { return };
    let mut connection = sql(&server);
    let error = connection.query("SELECT * FROM missing").unwrap_err();
    assert_eq!((code(&error).as_str(), sqlstate(&error)), ("R0413 NotFound", Some("42P01")));
    assert!(error.to_string().contains("`relation \"missing\" does not exist`"), "{error}");
    let error = connection.execute("SELECT 1; SELECT lenght('x'); SELECT 2").unwrap_err();
    assert_eq!(code(&error), "R0413 NotFound");
    assert!(error.hint().unwrap().contains("No function matches"), "the server's hint: {:?}", error.hint());
    // Errors in the middle of rows.
    assert_eq!(
        code(&connection.query("SELECT 1 / (3 - n) FROM generate_series(1, 9) n").unwrap_err()),
        "R0413 Invalid"
    );
    assert_eq!(connection.query("SELECT '\0'").unwrap_err().kind(), ErrorKind::Invalid);
    connection.execute("BEGIN").unwrap();
    assert!(connection.query("SELECT 1 / 0").is_err() && connection.is_in_transaction());
    connection.execute("ROLLBACK").unwrap();
    assert!(!connection.is_in_transaction() && !connection.is_broken());
    connection.execute("CREATE ROLE small; SET ROLE small").unwrap();
    assert_eq!(code(&connection.query("SELECT * FROM pg_authid").unwrap_err()), "R0419 Unauthorized");
    assert_eq!(value(&mut connection, "SELECT 1"), "1");
}

#[test]
fn notices_and_changed_parameters_are_kept_apart() {
    let Some(server) = PostgresServer::start() else { return };
    let mut connection = sql(&server);
    connection.execute("DO $$ BEGIN FOR n IN 1..500 LOOP RAISE WARNING 'n %', n; END LOOP; END $$").unwrap();
    let notices = connection.take_notices();
    assert_eq!(
        (notices.len(), notices[1].message.as_str(), notices[1].severity.as_str()),
        (100, "n 2", "WARNING")
    );
    assert!(connection.take_notices().is_empty());
    connection.execute("SET application_name = 'other'; LISTEN x; NOTIFY x").unwrap();
    assert_eq!(connection.parameter("application_name"), Some("other"));
    assert_eq!(value(&mut connection, "SELECT 1"), "1");
}

/// The memory that this process has for itself, in bytes.
fn memory() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn a_result_larger_than_memory_is_streamed() {
    let Some(server) = PostgresServer::start() else { return };
    let mut connection = sql(&server);
    let many = "SELECT n, repeat('x', 200) AS t FROM generate_series(1, 600000) n";
    let (before, mut peak, mut sum) = (memory(), 0, 0);
    let rows = connection.query_each(many, |row| {
        let n: u64 = row.value("n")?;
        sum += n;
        if n.is_multiple_of(10_000) {
            peak = peak.max(memory());
        }
        Ok(())
    });
    assert_eq!((rows.unwrap(), sum), (600_000, 180_000_300_000));
    // 120 MB went through.
    assert!(peak.saturating_sub(before) < 16 << 20, "{before} → {peak}");
    assert_eq!(code(&connection.query(many).unwrap_err()), "R0417 Unsupported");
    assert!(connection.is_broken());
    let mut connection = sql(&server);
    assert_eq!(code(&connection.query("SELECT repeat('x', 70000000)").unwrap_err()), "R0416 Unsupported");
    let stop = || Error::internal("enough");
    assert_eq!(sql(&server).query_each(many, |_| Err(stop())).unwrap_err().to_string(), "enough");
}

/// Gives one row, then fails.
struct Broken(bool);
impl std::io::Read for Broken {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if std::mem::replace(&mut self.0, true) {
            return Err(std::io::Error::other("no more"));
        }
        buffer[..7].copy_from_slice(b"-1\tnew\n");
        Ok(7)
    }
}

#[test]
fn copies_go_out_and_in() {
    let Some(server) = PostgresServer::start() else { return };
    let mut connection = sql(&server);
    connection.execute("CREATE TABLE t (n int PRIMARY KEY, t text)").unwrap();
    let lines: Vec<_> = (0..100_000).map(|n| format!("{n}\trow {n}\n")).collect();
    let text = lines.concat();
    assert_eq!(connection.copy_in("COPY t FROM STDIN", &mut text.as_bytes()).unwrap(), 100_000);
    let mut out = Vec::new();
    assert_eq!(
        connection.copy_out("COPY (SELECT * FROM t ORDER BY n) TO STDOUT", &mut out).unwrap(),
        out.len() as u64
    );
    assert!(out == text.as_bytes());
    // What the server does not take, and what cannot be read, changes nothing.
    let error = connection.copy_in("COPY t FROM STDIN", &mut &b"7\tagain\n"[..]).unwrap_err();
    assert_eq!(code(&error), "R0413 Conflict");
    let error = connection.copy_in("COPY t FROM STDIN", &mut Broken(false)).unwrap_err();
    assert_eq!(code(&error), "R0013 Unavailable", "{error}");
    assert_eq!(value(&mut connection, "SELECT count(*) FROM t"), "100000");
    assert_eq!(
        code(&connection.copy_in("SELECT 1 WHERE false", &mut &b""[..]).unwrap_err()),
        "R0417 Unsupported"
    );
    assert_eq!(code(&connection.query("COPY t TO STDOUT").unwrap_err()), "R0417 Unsupported");
    assert_eq!(code(&sql(&server).execute("COPY t FROM STDIN").unwrap_err()), "R0417 Unsupported");
    assert_eq!(code(&sql(&server).copy_out("SELECT 1", &mut out).unwrap_err()), "R0417 Unsupported");
}

#[test]
fn quoted_texts_and_names_mean_themselves() {
    let Some(server) = PostgresServer::start() else { return };
    let mut connection = sql(&server);
    let mut runner = TestRunner::new(Config { cases: 200, ..Config::default() });
    for conforming in ["on", "off"] {
        connection
            .execute(&format!(
                "SET standard_conforming_strings = {conforming}; SET escape_string_warning = off"
            ))
            .unwrap();
        let connection = std::cell::RefCell::new(&mut connection);
        runner
            .run(&"[a'\"\\\\\n$;\u{e4}\u{1F600}-]{1,20}|[^\0]{1,15}", |text| {
                let query = format!("SELECT {} AS {}", quote_literal(&text), quote_identifier(&text));
                let rows = connection.borrow_mut().query(&query).unwrap();
                proptest::prop_assert_eq!(rows.one().unwrap().text(&text).unwrap(), &text);
                Ok(())
            })
            .unwrap();
    }
    for text in ["it's", "back\\slash", "\"both\" 'kinds'", "$$", ":x", "E'"] {
        assert_eq!(server.psql(&format!("SELECT {}", quote_literal(text))), text);
        server.psql(&format!("CREATE TABLE {0} (); DROP TABLE {0}", quote_identifier(text)));
    }
}

/// A statement that lasts, in a thread of its own; it is under way when this returns.
fn sleeping(
    server: &PostgresServer,
    mut connection: Connection,
) -> std::thread::JoinHandle<(Connection, Error)> {
    let thread = std::thread::spawn(move || {
        let error = connection.query("SELECT pg_sleep(600)").unwrap_err();
        (connection, error)
    });
    let seen = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    wait_for(|| (server.psql(seen) == "1").then_some(()));
    thread
}

#[test]
fn a_server_that_dies_in_a_statement_is_unavailable() {
    let Some(mut server) = PostgresServer::start() else { return };
    let thread = sleeping(&server, sql(&server));
    server.kill();
    let (mut connection, error) = thread.join().unwrap();
    assert_eq!(code(&error), "R0411 Unavailable", "{error}");
    assert!(connection.is_broken());
    assert_eq!(code(&connection.query("SELECT 1").unwrap_err()), "R0411 Unavailable");
    server.go();
    let thread = sleeping(&server, sql(&server));
    server.stop(StopMode::Fast);
    let (_, error) = thread.join().unwrap();
    assert_eq!((code(&error).as_str(), sqlstate(&error)), ("R0411 Unavailable", Some("57P01")), "{error}");
    server.go();
    assert_eq!(value(&mut sql(&server), "SELECT 1"), "1");
}

#[test]
fn waiting_ends_by_a_handle_by_the_server_and_by_itself() {
    let Some(server) = PostgresServer::start() else { return };
    let connection = sql(&server);
    let handle = connection.cancel_handle().unwrap();
    let thread = sleeping(&server, connection);
    handle.cancel();
    let (connection, error) = thread.join().unwrap();
    assert_eq!(code(&error), "R0003 Cancelled");
    assert!(connection.is_broken());
    server.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE wait_event = 'PgSleep'");
    let mut limited = sql(&server);
    limited.execute("SET statement_timeout = 10").unwrap();
    assert_eq!(code(&limited.query("SELECT pg_sleep(600)").unwrap_err()), "R0413 Unavailable");
    assert_eq!(value(&mut limited, "SELECT 1"), "1");
    let timeouts = Timeouts { silence: Duration::from_millis(50), ..patient() };
    let mut hasty = Connection::connect(&address(&server.socket_url()), Mode::Sql, timeouts).unwrap();
    let error = hasty.query("SELECT pg_sleep(600)").unwrap_err();
    assert_eq!(code(&error), "R0411 Unavailable");
    assert!(error.to_string().contains("does not answer in time"), "{error}");
}

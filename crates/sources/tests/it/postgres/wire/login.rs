//! Logins: where, as whom, with which password.

use super::{address, code, connect, patient, sql, value};
use retoma_core::Secret;
use retoma_sources::postgres::wire::{Address, Connection, Environment, Mode, PassFile, Timeouts};
use retoma_testkit::{PostgresOptions, PostgresServer, StopMode};
use std::time::Duration;

fn with_password() -> Option<PostgresServer> {
    PostgresServer::start_with(&PostgresOptions {
        password: Some("pass:wörd/1".into()),
        hba: vec![
            "host all old 127.0.0.1/32 md5".into(),
            "host all plain 127.0.0.1/32 password".into(),
            "host all banned 127.0.0.1/32 reject".into(),
            "host replication old 127.0.0.1/32 md5".into(),
        ],
        ..PostgresOptions::default()
    })
}

fn url(server: &PostgresServer, login: &str) -> String {
    format!("postgres://{login}@127.0.0.1:{}/postgres?application_name=tést", server.port())
}

#[test]
fn socket_and_tcp_lead_to_the_same_server() {
    let Some(server) = PostgresServer::start() else { return };
    for url in [server.socket_url(), server.url(), server.url().replace("127.0.0.1", "localhost")] {
        let mut connection = connect(&url).unwrap();
        assert_eq!(value(&mut connection, "SELECT current_user || current_database()"), "postgrespostgres");
        assert_eq!(value(&mut connection, "SHOW application_name"), "retoma");
        assert_eq!(connection.parameter("client_encoding"), Some("UTF8"));
        assert!(!connection.is_encrypted());
        let version: u32 = server.psql("SHOW server_version_num").parse().unwrap();
        assert_eq!(connection.server_version_num().unwrap(), version);
    }
    let own = Address::on_socket(&server.socket_dir(), server.port(), "postgres", "template1");
    let mut connection = Connection::connect(&own, Mode::Sql, patient()).unwrap();
    assert_eq!(value(&mut connection, "SELECT current_database()"), "template1");
    // Nobody listens at the first socket: the next place is tried.
    let environment = Environment { user: Some("postgres".into()), ..Environment::default() };
    let anywhere = Address::parse(&format!("postgres://?port={}", server.port()), &environment).unwrap();
    let mut connection = Connection::connect(&anywhere, Mode::Sql, patient()).unwrap();
    assert_eq!(value(&mut connection, "SELECT 1"), "1");
}

#[test]
fn sessions_end_with_their_connection() {
    let Some(server) = PostgresServer::start() else { return };
    let mut connection = sql(&server);
    connection.execute("BEGIN; CREATE TABLE t ()").unwrap();
    assert!(connection.is_in_transaction());
    let pid = value(&mut connection, "SELECT pg_backend_pid()");
    drop(connection);
    let left = format!("SELECT count(*) FROM pg_stat_activity WHERE pid = {pid}");
    retoma_testkit::wait_for(|| (server.psql(&left) == "0").then_some(()));
    assert_eq!(server.psql("SELECT to_regclass('t') IS NULL"), "t");
    assert!(!server.log().contains("unexpected EOF"), "{}", server.log());
}

#[test]
fn passwords_open_by_scram_md5_and_in_the_clear_on_loopback() {
    let Some(server) = with_password() else { return };
    server.psql(
        "SET password_encryption = 'md5'; CREATE USER old REPLICATION PASSWORD 'o'; \
         SET password_encryption = 'scram-sha-256'; CREATE USER plain PASSWORD 'p'; CREATE USER banned PASSWORD 'b'",
    );
    for login in ["postgres:pass%3aw%c3%b6rd%2f1", "old:o", "plain:p"] {
        let mut connection = connect(&url(&server, login)).unwrap();
        assert_eq!(value(&mut connection, "SELECT 1"), "1");
    }
    for (login, expected) in [
        ("postgres:wrong", "R0412 Unauthorized"),
        ("postgres", "R0412 Unauthorized"),
        ("old:x", "R0412 Unauthorized"),
        ("plain:x", "R0412 Unauthorized"),
        ("banned:b", "R0412 Unauthorized"),
        ("missing:x", "R0412 Unauthorized"),
    ] {
        let error = connect(&url(&server, login)).unwrap_err();
        assert_eq!(code(&error), expected, "{login}: {error}");
        assert!(error.hint().is_some());
    }
    // The same user may stream, and finds the password under the name that streaming has.
    let text = format!("127.0.0.1:{}:replication:old:o\n*:*:*:*:x\n", server.port());
    let environment = Environment { pass_file: PassFile::Text(Secret::new(text)), ..Environment::default() };
    let address = Address::parse(&url(&server, "old"), &environment).unwrap();
    assert!(Connection::connect(&address, Mode::Replication, patient()).is_ok());
    assert_eq!(code(&Connection::connect(&address, Mode::Sql, patient()).unwrap_err()), "R0412 Unauthorized");
}

#[test]
fn what_the_server_refuses_at_login_is_told_apart() {
    let Some(mut server) = PostgresServer::start() else { return };
    server.psql("CREATE USER full CONNECTION LIMIT 0; CREATE DATABASE closed ALLOW_CONNECTIONS false");
    let at = |user: &str, database: &str| {
        let url = format!("postgres://{user}@127.0.0.1:{}/{database}", server.port());
        code(&connect(&url).unwrap_err())
    };
    assert_eq!(at("postgres", "missing"), "R0412 NotFound");
    assert_eq!(at("full", "postgres"), "R0418 Exhausted");
    assert!(at("postgres", "closed").starts_with("R041"));
    let broken = connect(&format!("{}&options=-c%20no_such=1", server.socket_url())).unwrap_err();
    assert_eq!(code(&broken), "R0413 NotFound", "{broken}");
    server.stop(StopMode::Fast);
    assert_eq!(code(&connect(&server.url()).unwrap_err()), "R0411 Unavailable");
    assert_eq!(code(&connect(&server.socket_url()).unwrap_err()), "R0411 Unavailable");
}

#[test]
fn a_login_that_nobody_answers_ends() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://u@{}/d", listener.local_addr().unwrap());
    for url in [url.clone(), format!("{url}?sslmode=disable")] {
        let timeouts = Timeouts { connect: Some(Duration::from_millis(50)), ..patient() };
        let error = Connection::connect(&address(&url), Mode::Sql, timeouts).unwrap_err();
        assert_eq!(code(&error), "R0411 Unavailable");
    }
}

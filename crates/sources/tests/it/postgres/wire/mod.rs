//! Our client for PostgreSQL's protocol, against real servers; hostile bytes come from a listener of the test.

mod hostile;
mod login;
mod replication;
mod statements;
mod tls;

use retoma_core::{Error, Result};
use retoma_sources::postgres::wire::{Address, Connection, Environment, Mode, Timeouts};
use retoma_testkit::PostgresServer;
use std::time::Duration;

/// An address without anything of this machine's environment.
fn address(url: &str) -> Address {
    Address::parse(url, &Environment { user: Some("nobody".into()), ..Environment::default() }).unwrap()
}

/// Patient enough for a busy machine.
fn patient() -> Timeouts {
    Timeouts { connect: Some(Duration::from_mins(1)), silence: Duration::from_mins(1) }
}

fn connect(url: &str) -> Result<Connection> {
    Connection::connect(&address(url), Mode::Sql, patient())
}

fn sql(server: &PostgresServer) -> Connection {
    connect(&server.socket_url()).unwrap()
}

fn replication(server: &PostgresServer) -> Connection {
    Connection::connect(&address(&server.socket_url()), Mode::Replication, patient()).unwrap()
}

/// The only value of the only row.
fn value(connection: &mut Connection, sql: &str) -> String {
    let rows = connection.query(sql).unwrap();
    let row = rows.one().unwrap();
    row.text(&row.columns()[0]).unwrap().to_owned()
}

/// A failure as its code and kind, with the text at hand when it is another.
fn code(error: &Error) -> String {
    format!("{} {:?}", error.code(), error.kind())
}

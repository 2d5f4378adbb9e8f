//! Ports for servers of tests.

use std::net::TcpListener;

/// A port of the loopback address that is free now. Another test may take it before it is used: whoever starts a server there
/// looks for that, and tries another one.
///
/// # Panics
/// When the system gives none.
#[allow(clippy::panic)]
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    listener.map_or_else(|error| panic!("find a free port: {error}"), |address| address.port())
}

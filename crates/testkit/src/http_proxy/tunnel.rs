//! A proxy for TLS: whatever host a client asks for, it gets to one server of this machine.

use super::message::Head;
use crate::acceptor::{self, Acceptor, Connections};
use std::io::{self, BufReader, Write as _};
use std::net::TcpStream;

/// A running proxy that understands `CONNECT`. Dropping it ends its connections.
#[derive(Debug)]
pub struct Tunnel(Acceptor);

impl Tunnel {
    /// One to the server at this port of the loopback address, on a free port.
    ///
    /// # Panics
    /// When it cannot listen.
    pub fn start(server: u16) -> Self {
        Self(Acceptor::start(move |client, connections| serve(&client, server, connections)))
    }

    /// What `HTTPS_PROXY` is to be.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.0.port())
    }
}

fn serve(mut client: &TcpStream, server: u16, connections: &Connections) -> io::Result<()> {
    // What follows the head is sent after our answer, so that nothing of it is in the buffer.
    let head = Head::read(&mut BufReader::new(client.try_clone()?))?;
    if head.is_none_or(|head| head.word(0) != "CONNECT") {
        return Ok(());
    }
    let server = TcpStream::connect(("127.0.0.1", server))?;
    connections.keep(&server)?;
    client.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n")?;
    acceptor::join(client, &server);
    Ok(())
}

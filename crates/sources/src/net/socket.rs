//! The connection below: TCP or a socket of this machine, with time limits for everything.

use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use std::io::{self, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

/// Where a server listens.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Place<'a> {
    /// A name or address, and a port.
    Tcp(&'a str, u16),
    /// The path of a socket of this machine.
    Unix(&'a Path),
}

/// A connected socket.
#[derive(Debug)]
pub(crate) enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// How long a full queue of a local socket is left alone before the next try.
const QUEUE_PAUSE: Duration = Duration::from_millis(10);
/// How long a server may not take what we send.
const WRITE_TIMEOUT: Duration = Duration::from_mins(1);
/// When TCP asks a silent server whether it is still there.
const KEEPALIVE: Duration = Duration::from_mins(1);

impl Socket {
    /// Connects; names are resolved by the system, which has its own time limits.
    pub(crate) fn connect(place: Place<'_>, deadline: Instant) -> io::Result<Self> {
        let socket = match place {
            Place::Tcp(host, port) => Self::Tcp(tcp(host, port, deadline)?),
            Place::Unix(path) => Self::Unix(unix(path, deadline)?),
        };
        socket.set_write_timeout(WRITE_TIMEOUT)?;
        Ok(socket)
    }

    /// Whether nobody on a network sees what goes through.
    pub(crate) fn is_local(&self) -> bool {
        match self {
            Self::Tcp(stream) => stream.peer_addr().is_ok_and(|address| is_loopback(address.ip())),
            Self::Unix(_) => true,
        }
    }

    /// Another handle to the same connection.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
        }
    }

    /// Ends the connection for all handles; who waits in a read or write is woken.
    pub(crate) fn shutdown(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
        }
    }

    /// How long a read waits; a moment at least, since zero would mean for ever.
    pub(crate) fn set_read_timeout(&self, timeout: Duration) -> io::Result<()> {
        let timeout = Some(timeout.max(Duration::from_millis(1)));
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(timeout),
            Self::Unix(stream) => stream.set_read_timeout(timeout),
        }
    }

    fn set_write_timeout(&self, timeout: Duration) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_write_timeout(Some(timeout)),
            Self::Unix(stream) => stream.set_write_timeout(Some(timeout)),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(buffer),
            Self::Unix(stream) => stream.read(buffer),
        }
    }
}

// An implementation hands the call on; who uses it calls `write_all`.
#[allow(clippy::disallowed_methods)]
impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.write(bytes),
            Self::Unix(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Whether what is sent to an address stays on this machine.
fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

/// Whether a read or write ended because its time was over.
pub(crate) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
}

/// The time left until `deadline`; an error when there is none.
pub(crate) fn time_left(deadline: Instant) -> io::Result<Duration> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
}

/// Why nobody was reached, to be put behind the server's name.
pub(crate) fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "refuses connections".to_owned(),
        io::ErrorKind::NotFound => "is not there: the socket does not exist".to_owned(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => "does not answer in time".to_owned(),
        _ => format!("cannot be reached: {error}"),
    }
}

/// The addresses of a name are tried in turn; the last failure counts.
fn tcp(host: &str, port: u16, deadline: Instant) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> = (host, port).to_socket_addrs()?.collect();
    let mut last = io::Error::other("the name has no address");
    for address in addresses {
        match TcpStream::connect_timeout(&address, time_left(deadline)?) {
            Ok(stream) => {
                stream.set_nodelay(true)?;
                sockopt::set_socket_keepalive(&stream, true)?;
                sockopt::set_tcp_keepidle(&stream, KEEPALIVE)?;
                return Ok(stream);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// Never blocks in `connect`, which for local sockets has no time limit when the server's queue is full.
fn unix(path: &Path, deadline: Instant) -> io::Result<UnixStream> {
    let address = SocketAddrUnix::new(path)?;
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    loop {
        match rustix::net::connect(&socket, &address) {
            Ok(()) => break,
            Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {
                std::thread::sleep(QUEUE_PAUSE.min(time_left(deadline)?));
            }
            Err(error) => return Err(error.into()),
        }
    }
    let stream = UnixStream::from(socket);
    stream.set_nonblocking(false)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(50)
    }

    fn later() -> Instant {
        Instant::now() + retoma_testkit::PATIENCE
    }

    #[test]
    fn only_loopback_stays_here() {
        let here = |text: &str| is_loopback(text.parse().unwrap());
        assert!(["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"].iter().all(|text| here(text)));
        assert!(
            !["10.0.0.1", "192.0.2.1", "::ffff:10.0.0.1", "fe80::1", "0.0.0.0"].iter().any(|text| here(text))
        );
    }

    #[test]
    fn a_socket_whose_queue_is_full_is_given_up() {
        let folder = retoma_testkit::Folder::new();
        let path = folder.join("socket");
        let listener = UnixListener::bind(&path).unwrap();
        rustix::net::listen(&listener, 0).unwrap();
        // Nobody accepts: after a few the queue is full.
        let mut waiting = Vec::new();
        let error = loop {
            match Socket::connect(Place::Unix(&path), soon()) {
                Ok(socket) => waiting.push(socket),
                Err(error) => break error,
            }
            assert!(waiting.len() < 100);
        };
        assert_eq!(reason(&error), "does not answer in time");
    }

    #[test]
    fn what_is_missing_is_told_apart() {
        let folder = retoma_testkit::Folder::new();
        let missing = folder.join("socket");
        let error = Socket::connect(Place::Unix(&missing), later()).unwrap_err();
        assert_eq!(reason(&error), "is not there: the socket does not exist");
        let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let error = Socket::connect(Place::Tcp("127.0.0.1", free), later()).unwrap_err();
        assert_eq!(reason(&error), "refuses connections");
        let long = format!("/{}", "x".repeat(200));
        assert!(Socket::connect(Place::Unix(Path::new(&long)), later()).is_err());
    }
}

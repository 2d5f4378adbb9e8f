use super::*;
use crate::postgres::wire::{Address, Environment, Mode, Timeouts};
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};

/// A message with its length.
fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

/// A piece of WAL, or none.
fn wal_data(start: u64, bytes: &[u8]) -> Vec<u8> {
    let head = [&b"w"[..], &start.to_be_bytes(), &start.to_be_bytes(), &[0; 8]].concat();
    message(b'd', &[&head[..], bytes].concat())
}

/// A stream of WAL from 0/1000000 on that waits for so long; `server` writes what comes.
fn wal_of(
    limit: Duration,
    server: impl FnOnce(&mut TcpStream) + Send + 'static,
) -> (Arc<Mutex<Wal>>, std::thread::JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://u:p@{}/d?sslmode=disable", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut words = [0; 4096];
        let login = [message(b'R', &[0; 4]), message(b'S', b"server_version\x0015.3\0"), message(b'Z', b"I")];
        for answer in [login.concat(), message(b'W', b"\0\0\0")] {
            let _length = stream.read(&mut words).unwrap();
            stream.write_all(&answer).unwrap();
        }
        server(&mut stream);
        stream.shutdown(Shutdown::Both).ok();
    });
    let environment = Environment { user: Some("nobody".into()), ..Environment::default() };
    let address = Address::parse(&url, &environment).unwrap();
    let connection = Connection::connect(&address, Mode::Replication, Timeouts::default()).unwrap();
    let place = (Lsn(1 << 24), TimelineId::FIRST);
    let wal = Wal::begin(connection, place, SegmentSize::default(), 7).unwrap();
    lock(&wal).patience = Patience::new(limit);
    (wal, thread)
}

/// A backstop: what the server sends at most, so that a wait without an end ends as another error.
const TIMES: usize = 2_000_000;

#[test]
fn a_server_that_sends_messages_without_bytes_for_ever_is_left() {
    let keepalive = message(b'd', &[&b"k"[..], &[0; 16], &[0]].concat());
    for nothing in [wal_data(1 << 24, b""), keepalive] {
        let (wal, server) = wal_of(Duration::from_millis(50), move |stream| {
            let many = nothing.repeat(1000);
            for _ in 0..TIMES / 1000 {
                if stream.write_all(&many).is_err() {
                    return;
                }
            }
        });
        let error = lock(&wal).receive().unwrap_err();
        assert_eq!(error.code(), codes::WAL_MISSING, "{error}");
        drop(wal);
        server.join().unwrap();
    }
}

#[test]
fn a_server_that_sends_nothing_is_left() {
    let (give, wait) = std::sync::mpsc::sync_channel::<()>(1);
    let (wal, server) = wal_of(Duration::from_millis(50), move |_| {
        let _ended = wait.recv().is_err();
    });
    let error = lock(&wal).receive().unwrap_err();
    assert_eq!(error.code(), codes::WAL_MISSING, "{error}");
    drop(give);
    server.join().unwrap();
}

#[test]
fn bytes_among_messages_without_any_are_taken() {
    let (wal, server) = wal_of(Duration::from_mins(1), |stream| {
        let start = 1 << 24;
        let all = [
            wal_data(start, b""),
            wal_data(start, b"abc"),
            wal_data(start + 3, b""),
            wal_data(start + 3, b"d"),
        ];
        stream.write_all(&all.concat()).unwrap();
    });
    let mut wal = lock(&wal);
    wal.receive().unwrap();
    assert_eq!(&wal.data[..], b"abc");
    wal.receive().unwrap();
    assert_eq!(&wal.data[..], b"abcd");
    server.join().unwrap();
}

/// However small the pieces are: what they have to bring together within the time is the same.
#[test]
fn patience_ends_with_a_server_that_trickles_and_not_with_one_that_sends() {
    let second = Duration::from_secs(1);
    let mut trickle = Patience::new(120 * second);
    let pieces = (0..).take_while(|_| {
        let goes_on = trickle.left(Duration::ZERO).is_some();
        trickle.came(1, 50 * second);
        goes_on
    });
    assert_eq!(pieces.count(), 3);
    let mut sender = Patience::new(120 * second);
    for _ in 0..100 {
        assert_eq!(sender.left(50 * second), Some(70 * second));
        sender.came(ENOUGH_BYTES / 2, 50 * second);
        assert_eq!(sender.left(50 * second), Some(20 * second));
        assert_eq!(sender.left(70 * second), None);
        sender.came(ENOUGH_BYTES / 2, 50 * second);
    }
    // What was waited before enough came does not count any more.
    assert_eq!(sender.left(Duration::ZERO), Some(120 * second));
}

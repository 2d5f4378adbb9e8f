//! A listener that sends what no server would: every answer is an error with a code, in bounded memory and time.

use super::{address, code};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use retoma_core::postgres::Lsn;
use retoma_core::{Error, Result};
use retoma_sources::postgres::wire::{Connection, Mode, Timeouts};
use retoma_testkit::PATIENCE;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

/// A message with its length.
fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap();
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

fn authentication(kind: u32, body: &[u8]) -> Vec<u8> {
    message(b'R', &[&kind.to_be_bytes()[..], body].concat())
}

/// A login that succeeds.
fn welcome() -> Vec<u8> {
    [authentication(0, b""), message(b'S', b"server_version\x0015.3\0"), message(b'Z', b"I")].concat()
}

/// Writes as long as the other side takes it, at most `times`.
fn flood(mut stream: &TcpStream, bytes: &[u8], times: usize) {
    for _ in 0..times {
        if stream.write_all(bytes).is_err() {
            return;
        }
    }
}

/// Reads what is there; the client's words do not matter.
fn listen(mut stream: &TcpStream) {
    let mut buffer = [0; 4096];
    let _length = stream.read(&mut buffer).unwrap_or(0);
}

/// Plays a server once, and gives what `client` got of it. The server waits until the client is done.
fn play<T>(
    server: impl FnOnce(&TcpStream) + Send + 'static,
    mode: Mode,
    client: impl FnOnce(Result<Connection>) -> Result<T>,
) -> Result<T, Error> {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://u:p@{}/d?sslmode=disable", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        listen(&stream);
        server(&stream);
        // Nothing more comes; the client may say what it likes until it is gone.
        let _was_open = stream.shutdown(Shutdown::Write).is_ok();
        let mut rest = Vec::new();
        let _length = (&stream).take(1 << 20).read_to_end(&mut rest).unwrap_or(0);
    });
    let timeouts = Timeouts { connect: Some(PATIENCE), silence: PATIENCE };
    let result = client(Connection::connect(&address(&url), mode, timeouts));
    thread.join().unwrap();
    result
}

fn login_with(bytes: Vec<u8>) -> Error {
    play(move |stream| flood(stream, &bytes, 1), Mode::Sql, |login| login.map(|_| ())).unwrap_err()
}

/// What a query gives that is answered with `bytes`, `times` over.
fn query_with(bytes: Vec<u8>, times: usize) -> Result<usize> {
    let server = move |stream: &TcpStream| {
        flood(stream, &welcome(), 1);
        listen(stream);
        flood(stream, &bytes, times);
    };
    play(server, Mode::Sql, |login| login?.query("SELECT 1").map(|rows| rows.len()))
}

#[test]
fn logins_that_no_server_does_are_refused() {
    let scram = authentication(10, b"SCRAM-SHA-256\0\0");
    for (what, bytes) in [
        ("another protocol", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("a huge length", b"R\x7f\xff\xff\xff".to_vec()),
        ("a length of nothing", b"R\0\0\0\0".to_vec()),
        ("an unknown login", authentication(99, b"")),
        ("no password was checked", [scram.clone(), authentication(0, b"")].concat()),
        ("an answer before the question", authentication(11, b"r=x,s=eA==,i=4096")),
        ("an end before the beginning", authentication(12, b"v=eA==")),
        ("another nonce", [scram.clone(), authentication(11, b"r=x,s=eA==,i=4096")].concat()),
        ("two logins", [scram.clone(), scram].concat()),
        ("ready without a login", message(b'Z', b"I")),
        ("a row at login", [authentication(0, b""), message(b'D', b"\0\0")].concat()),
        ("a stream at login", message(b'W', b"\0\0\0")),
    ] {
        assert_eq!(code(&login_with(bytes)), "R0416 Unsupported", "{what}");
    }
    for (what, bytes) in [
        ("mechanisms that nobody knows", authentication(10, b"NONE\0\0")),
        ("Kerberos", authentication(2, b"")),
        ("GSS", authentication(7, b"")),
    ] {
        assert_eq!(code(&login_with(bytes)), "R0412 Unauthorized", "{what}");
    }
    let notices = play(
        |stream| flood(stream, &message(b'N', b"SNOTICE\0\0"), 100_000),
        Mode::Sql,
        |login| login.map(|_| ()),
    );
    assert_eq!(code(&notices.unwrap_err()), "R0416 Unsupported");
}

#[test]
fn an_error_in_any_shape_is_an_error() {
    for body in [
        &b""[..],
        b"\0",
        b"C",
        b"C57P03",
        b"SFATAL\0C28P01\0M\xff\x1b[2J\0\0",
        b"M\0\0junk",
        &vec![b'M'; 60_000],
    ] {
        let error = login_with(message(b'E', body));
        assert!(error.code().as_str().starts_with("R041"), "{error}");
        assert!(!error.to_string().contains('\x1b') && error.to_string().len() < 5_000);
    }
}

#[test]
fn a_server_that_closes_or_dawdles_is_unavailable() {
    let gone = |server: fn(&TcpStream)| {
        code(&play(server, Mode::Sql, |login| login?.query("SELECT 1")).unwrap_err())
    };
    let close = |stream: &TcpStream| stream.shutdown(Shutdown::Both).unwrap_or(());
    assert_eq!(gone(|stream| stream.shutdown(Shutdown::Both).unwrap_or(())), "R0411 Unavailable");
    assert_eq!(gone(|stream| flood(stream, &welcome(), 1)), "R0411 Unavailable");
    let half = [welcome(), b"D\0\0\x10\0half".to_vec()].concat();
    let server = move |stream: &TcpStream| {
        flood(stream, &half, 1);
        close(stream);
    };
    assert_eq!(
        code(&play(server, Mode::Sql, |login| login?.query("SELECT 1")).unwrap_err()),
        "R0411 Unavailable"
    );
    // Bytes that come one by one do not make the login's time longer.
    let drip = |mut stream: &TcpStream| {
        for byte in message(b'N', &vec![b'x'; 60_000]) {
            if stream.write_all(&[byte]).is_err() {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    };
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("postgres://u:p@{}/d?sslmode=disable", listener.local_addr().unwrap());
    let thread = std::thread::spawn(move || drip(&listener.accept().unwrap().0));
    let timeouts = Timeouts { connect: Some(Duration::from_millis(200)), ..Timeouts::default() };
    let error = Connection::connect(&address(&url), Mode::Sql, timeouts).unwrap_err();
    assert_eq!(code(&error), "R0411 Unavailable", "{error}");
    thread.join().unwrap();
}

#[test]
fn answers_that_no_server_gives_are_refused() {
    let one_column = message(b'T', b"\0\x01a\0\0\0\0\0\0\0\0\0\0\x19\xff\xff\xff\xff\xff\xff\0\0");
    for (what, bytes) in [
        (
            "more values than columns",
            [one_column.clone(), message(b'D', b"\0\x02\xff\xff\xff\xff\xff\xff\xff\xff")].concat(),
        ),
        (
            "a value longer than its row",
            [one_column.clone(), message(b'D', b"\0\x01\0\xff\xff\xffx")].concat(),
        ),
        ("a row without columns", message(b'D', b"\0\x01\xff\xff\xff\xff")),
        ("columns that are none", message(b'T', b"\xff\xffa\0")),
        ("a huge length", b"D\x7f\xff\xff\xff".to_vec()),
        ("a login", authentication(0, b"")),
        ("nonsense", b"\0\0\0\0\0\0\0\0".to_vec()),
    ] {
        assert_eq!(code(&query_with(bytes, 1).unwrap_err()), "R0416 Unsupported", "{what}");
    }
    assert_eq!(code(&query_with(message(b'W', b"\0\0\0"), 1).unwrap_err()), "R0417 Unsupported");
    // What never ends, ends with us.
    assert_eq!(code(&query_with(message(b'N', b"SNOTICE\0\0"), 1_000_000).unwrap_err()), "R0416 Unsupported");
    assert_eq!(code(&query_with(message(b'S', b"a\0b\0"), 1_000_000).unwrap_err()), "R0416 Unsupported");
    let row = message(b'D', b"\0\x01\xff\xff\xff\xff");
    let rows = [one_column, row.repeat(2_000_000)].concat();
    assert_eq!(code(&query_with(rows, 1).unwrap_err()), "R0417 Unsupported");
}

/// What a stream gives that is answered with `bytes`.
fn stream_with(bytes: Vec<u8>) -> Error {
    let server = move |stream: &TcpStream| {
        flood(stream, &welcome(), 1);
        listen(stream);
        flood(stream, &bytes, 1);
    };
    let client = |login: Result<Connection>| -> Result<()> {
        let mut stream = login?.start_replication(None, Lsn(0x100), None)?;
        // Ends: after what was sent, the connection does.
        loop {
            stream.next(PATIENCE)?;
        }
    };
    play(server, Mode::Replication, client).unwrap_err()
}

#[test]
fn wal_that_does_not_follow_is_refused() {
    let begin = message(b'W', b"\0\0\0");
    let wal = |start: u64, bytes: &[u8]| {
        message(b'd', &[b"w", &start.to_be_bytes()[..], &start.to_be_bytes(), &[0; 8], bytes].concat())
    };
    let with = |rest: Vec<u8>| stream_with([begin.clone(), rest].concat());
    let good = with([wal(0x100, b"abc"), wal(0x103, b"d")].concat());
    assert_eq!(code(&good), "R0411 Unavailable", "only that nothing follows: {good}");
    for (what, bytes) in [
        ("a gap", [wal(0x100, b"abc"), wal(0x104, b"d")].concat()),
        ("the same again", [wal(0x100, b"abc"), wal(0x100, b"abc")].concat()),
        ("another beginning", wal(0x80, b"abc")),
        ("half a head", message(b'd', b"w\0\0\0")),
        ("nothing", message(b'd', b"")),
        ("an unknown kind", message(b'd', b"q12345678")),
        ("a time out of all calendars", message(b'd', &[b"k", &[0x7f; 17][..]].concat())),
        ("a query's end", message(b'Z', b"I")),
        ("an end without a reason", [message(b'c', b""), message(b'Z', b"I")].concat()),
    ] {
        assert_eq!(code(&with(bytes)), "R0416 Unsupported", "{what}");
    }
    assert_eq!(code(&stream_with(message(b'Z', b"I"))), "R0416 Unsupported");
}

#[test]
fn random_bytes_are_errors() {
    let mut runner = TestRunner::new(Config { cases: 60, ..Config::default() });
    let messages = prop::collection::vec(
        ("[A-Za-z]", prop::collection::vec(any::<u8>(), 0..30))
            .prop_map(|(tag, body)| message(tag.as_bytes()[0], &body)),
        0..6,
    );
    let bytes = messages.prop_map(|messages| messages.concat());
    runner
        .run(&(bytes, any::<bool>()), |(bytes, is_login)| {
            let bytes = [bytes, b"\0\0\0\0\0".to_vec()].concat();
            let result = if is_login { Err(login_with(bytes)) } else { query_with(bytes, 1).map(|_| ()) };
            if let Err(error) = result {
                let code = error.code().as_str();
                prop_assert!(code.starts_with("R041"), "{error:?}");
            }
            Ok(())
        })
        .unwrap();
}

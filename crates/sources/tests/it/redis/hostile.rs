//! Servers that answer anything.

use super::{Home, code};
use proptest::prelude::*;
use retoma_repo::{Error, Result};
use retoma_testkit::Folder;
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;

const ID: &str = "0123456789abcdef0123456789abcdef01234567";

/// Everything up to the data set, as a real server says it.
fn greeting() -> Vec<u8> {
    let info = "redis_version:7.0.15\r\nredis_mode:standalone\r\n";
    let refused = "-NOPERM no\r\n+OK\r\n+OK\r\n";
    format!("+PONG\r\n${}\r\n{info}\r\n{refused}+FULLRESYNC {ID} 7\r\n", info.len()).into_bytes()
}

/// An empty data set without a checksum.
const EMPTY: &[u8] = b"REDIS0010\xff\0\0\0\0\0\0\0\0";

/// Captures from a server that says `bytes` and closes, whatever it is asked.
fn capture(bytes: &[u8]) -> Result<()> {
    let folder = Folder::new();
    let socket = folder.join("s");
    let listener = UnixListener::bind(&socket).unwrap();
    let home = Home::new();
    let result = std::thread::scope(|scope| {
        scope.spawn(|| {
            let (mut stream, _) = listener.accept().unwrap();
            // The client may have gone away already.
            let _sent = stream.write_all(bytes).is_ok();
            let _ended = stream.shutdown(std::net::Shutdown::Write).is_ok();
            let mut rest = Vec::new();
            let _read = stream.read_to_end(&mut rest).is_ok();
        });
        home.try_back_up(&format!("unix://{}", socket.display()), None)
    });
    assert_eq!(home.snapshots(), usize::from(result.is_ok()));
    result.map(drop)
}

fn with(payload: &[u8]) -> Vec<u8> {
    [&greeting()[..], payload].concat()
}

fn failed(bytes: &[u8]) -> String {
    let error: Error = capture(bytes).unwrap_err();
    code(&error)
}

#[test]
fn what_a_real_server_says_is_taken() {
    capture(&with(&[b"\n\n$18\r\n", EMPTY].concat())).unwrap();
    let mark = "m".repeat(40);
    capture(&with(&[format!("\n$EOF:{mark}\r\n").as_bytes(), EMPTY, mark.as_bytes()].concat())).unwrap();
}

#[test]
fn lies_are_found_out() {
    let mark = "m".repeat(40);
    let other = "n".repeat(40);
    let marked = |body: &[u8], end: &str| {
        with(&[format!("$EOF:{mark}\r\n").as_bytes(), body, end.as_bytes()].concat())
    };
    for (bytes, expected) in [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec(), "R0435 Unsupported"),
        (b"".to_vec(), "R0431 Unavailable"),
        (b"$99999999999\r\n".to_vec(), "R0435 Unsupported"),
        (vec![b'+'; 100_000], "R0435 Unsupported"),
        (greeting(), "R0436 Unavailable"),
        (with(b"$18\r\n"), "R0436 Unavailable"),
        (with(b"$18446744073709551615\r\nREDIS0010"), "R0436 Unavailable"),
        (with(b"$5\r\nREDIS"), "R0437 Corrupt"),
        (with(b"$0\r\n"), "R0437 Corrupt"),
        (with(b"$18\r\nXEDIS0010\xff\0\0\0\0\0\0\0\0"), "R0437 Corrupt"),
        (with(b"$18\r\nREDIS0010\xff\x01\0\0\0\0\0\0\0"), "R0437 Corrupt"),
        // Neither a checksum nor a structure that is known.
        (with(b"$18\r\nREDIS0010\x63\0\0\0\0\0\0\0\0"), "R0437 Corrupt"),
        (with(b"$18\r\nREDIS0099\xff\0\0\0\0\0\0\0\0"), "R0437 Corrupt"),
        (with(b"$24\r\nREDIS0010\xff\0\0\0\0\0\0\0\0REDISx"), "R0437 Corrupt"),
        (marked(EMPTY, &other), "R0436 Unavailable"),
        (marked(EMPTY, ""), "R0436 Unavailable"),
        (with(b"-ERR cannot fork\r\n"), "R0436 Unavailable"),
    ] {
        assert_eq!(failed(&bytes), expected, "{}", bytes[..bytes.len().min(400)].escape_ascii());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn any_bytes_end_in_an_error_or_a_snapshot(
        keep in 0usize..200,
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        length in 0u32..400,
    ) {
        let head = with(&[format!("${length}\r\nREDIS0010").as_bytes(), b"\xfa"].concat());
        let _captured = capture(&[&head[..keep.min(head.len())], &bytes].concat()).is_ok();
        let _captured = capture(&[&head[..], &bytes].concat()).is_ok();
    }
}

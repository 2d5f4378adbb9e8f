//! A way to a server on this machine that is as long as one to another data centre: what goes through arrives later by a fixed
//! time, in both directions, and nothing else is changed. Many bytes may be under way at once, so throughput is not limited.

use crate::sh::Result;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::sync_channel;
use std::time::{Duration, Instant};

/// One read of a socket.
const PIECE_BYTES: usize = 64 << 10;
/// So many pieces of a direction may be under way (64 MiB): more than fit into the delay at the speed of loopback.
const UNDER_WAY: usize = 1024;

/// The way; it lasts as long as the process.
pub(super) struct Far {
    pub(super) port: u16,
    requests: Arc<AtomicU64>,
}

impl Far {
    /// To the server at `port` of the loopback address, on a free port; `delay` is added in each direction.
    pub(super) fn start(server: u16, delay: Duration) -> Result<Self> {
        let fail = |error: std::io::Error| format!("cannot listen on a free port: {error}");
        let listener = TcpListener::bind(("127.0.0.1", 0)).map_err(fail)?;
        let port = listener.local_addr().map_err(fail)?.port();
        let requests = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&requests);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let Ok(client) = client else { continue };
                let counted = Arc::clone(&counted);
                std::thread::spawn(move || carry(&client, server, delay, &counted));
            }
        });
        Ok(Self { port, requests })
    }

    /// The requests since the last call. On a connection a request begins where the client speaks first, or again after the
    /// server did: HTTP/1.1 without pipelining.
    pub(super) fn requests(&self) -> u64 {
        self.requests.swap(0, Ordering::Relaxed)
    }
}

/// Carries one connection until both sides are done.
fn carry(client: &TcpStream, server: u16, delay: Duration, requests: &AtomicU64) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { return };
    for side in [client, &server] {
        // Else small requests would wait for more; without it they are only later.
        side.set_nodelay(true).ok();
    }
    let answers = AtomicU64::new(1);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            one_way(client, &server, delay, || {
                if answers.swap(0, Ordering::Relaxed) > 0 {
                    requests.fetch_add(1, Ordering::Relaxed);
                }
            });
        });
        one_way(&server, client, delay, || {
            answers.store(1, Ordering::Relaxed);
        });
    });
}

/// Carries what comes from one side to the other, `delay` later.
fn one_way(mut from: &TcpStream, mut to: &TcpStream, delay: Duration, heard: impl Fn()) {
    let (send, arrived) = sync_channel::<(Instant, Vec<u8>)>(UNDER_WAY);
    std::thread::scope(|scope| {
        scope.spawn(move || {
            for (due, piece) in arrived {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                if to.write_all(&piece).is_err() {
                    break;
                }
            }
            // The other side is gone then.
            to.shutdown(Shutdown::Write).ok();
        });
        let mut piece = vec![0; PIECE_BYTES];
        while let Ok(length @ 1..) = from.read(&mut piece) {
            heard();
            if send.send((Instant::now() + delay, piece[..length].to_vec())).is_err() {
                from.shutdown(Shutdown::Read).ok();
                break;
            }
        }
        drop(send);
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_unchanged_and_later_and_requests_are_counted() {
        let server = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let far = Far::start(server.local_addr().unwrap().port(), Duration::from_millis(30)).unwrap();
        let large: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
        let answer = large.clone();
        let serving = std::thread::spawn(move || {
            let (mut client, _) = server.accept().unwrap();
            let mut word = [0; 4];
            while client.read_exact(&mut word).is_ok() {
                assert_eq!(&word, b"give");
                client.write_all(&answer).unwrap();
            }
        });
        let mut client = TcpStream::connect(("127.0.0.1", far.port)).unwrap();
        for _ in 0..3 {
            let began = Instant::now();
            client.write_all(b"give").unwrap();
            let mut got = vec![0; large.len()];
            client.read_exact(&mut got).unwrap();
            assert!(got == large);
            assert!(began.elapsed() >= Duration::from_millis(60), "{:?}", began.elapsed());
        }
        drop(client);
        serving.join().unwrap();
        assert_eq!((far.requests(), far.requests()), (3, 0));
    }
}

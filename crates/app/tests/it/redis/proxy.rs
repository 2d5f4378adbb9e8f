//! A way to the server that stops in the middle.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;

/// What becomes of a connection that was held.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// It goes on.
    GoOn,
    /// It is cut, for both sides.
    Cut,
}

/// A port that leads to a server. Once so many bytes have come from the server, it holds them until it is told more.
pub(super) struct Proxy {
    port: u16,
    held: Receiver<()>,
    then: Option<SyncSender<Then>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Proxy {
    /// To the server at `port` of this machine; holds after `limit` bytes.
    pub(super) fn start(server: u16, limit: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let ((at_limit, held), (then, told)) = (sync_channel(1), sync_channel(1));
        let stop = Arc::new(AtomicBool::new(false));
        let is_stopped = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut passed = 0;
            for client in listener.incoming() {
                if is_stopped.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)) else { continue };
                serve(&client.unwrap(), &server, &mut passed, limit, &at_limit, &told);
            }
        });
        Self { port, held, then: Some(then), stop, thread: Some(thread) }
    }

    /// The address of the server by this way.
    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Waits until it holds; fails when nothing passes.
    pub(super) fn wait(&self) {
        self.held.recv_timeout(retoma_testkit::PATIENCE).unwrap();
    }

    /// Lets go of what it holds.
    pub(super) fn release(&self, then: Then) {
        self.then.as_ref().unwrap().send(then).unwrap();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // What is held now is cut.
        drop(self.then.take());
        self.stop.store(true, Ordering::SeqCst);
        drop(TcpStream::connect(("127.0.0.1", self.port)));
        let ended = self.thread.take().is_some_and(|thread| thread.join().is_ok());
        assert!(ended || std::thread::panicking(), "the proxy failed");
    }
}

/// Passes everything both ways, until one side ends.
fn serve(
    client: &TcpStream,
    server: &TcpStream,
    passed: &mut u64,
    limit: u64,
    at_limit: &SyncSender<()>,
    told: &Receiver<Then>,
) {
    let (mut asking, mut asked) = (client.try_clone().unwrap(), server.try_clone().unwrap());
    let upward = std::thread::spawn(move || {
        let _passed = std::io::copy(&mut asking, &mut asked).is_ok();
        let _closed = asked.shutdown(Shutdown::Write).is_ok();
    });
    let (mut from, mut to) = (server, client);
    let mut buffer = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        let has_passed = *passed >= limit;
        *passed += count as u64;
        if !has_passed && *passed >= limit {
            let _told = at_limit.send(()).is_ok();
            if told.recv() != Ok(Then::GoOn) {
                break;
            }
        }
        if to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    for stream in [client, server] {
        let _closed = stream.shutdown(Shutdown::Both).is_ok();
    }
    upward.join().unwrap();
}

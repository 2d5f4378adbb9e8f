//! A connection on which nothing comes any more is found within a minute, and made anew.

use super::Site;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// Hands bytes on between a port of its own and the server's, until it is frozen; later connections are handed on.
#[derive(Clone, Default)]
struct Proxy {
    is_frozen: Arc<AtomicBool>,
    /// What was frozen stays open.
    kept: Arc<Mutex<Vec<TcpStream>>>,
}

impl Proxy {
    fn start(&self, port: u16) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let own = listener.local_addr().unwrap().port();
        let proxy = self.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(("127.0.0.1", port)) else { continue };
                let is_old = !proxy.is_frozen.load(Ordering::SeqCst);
                proxy.hand_on(client.try_clone().unwrap(), server.try_clone().unwrap(), is_old);
                proxy.hand_on(server, client, is_old);
            }
        });
        own
    }

    fn hand_on(&self, mut from: TcpStream, mut to: TcpStream, is_old: bool) {
        let proxy = self.clone();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 64 << 10];
            while let Ok(length @ 1..) = from.read(&mut buffer) {
                if is_old && proxy.is_frozen.load(Ordering::SeqCst) {
                    proxy.kept.lock().unwrap().extend([from, to]);
                    return;
                }
                if to.write_all(&buffer[..length]).is_err() {
                    return;
                }
            }
        });
    }
}

#[test]
fn a_silent_connection_is_found_within_a_minute() {
    let Some(site) = Site::start("mode = \"stream\"", &["wal_keep_size = 1GB"]) else { return };
    let proxy = Proxy::default();
    let port = proxy.start(site.server.port());
    let url = format!("postgres://postgres@127.0.0.1:{port}/postgres");
    site.write_manifest(&url, "mode = \"stream\"");
    site.server.psql("CREATE TABLE t (n int, text text)");
    let stream = site.streaming();
    site.shipped();
    proxy.is_frozen.store(true, Ordering::SeqCst);
    site.server.psql("INSERT INTO t SELECT n, repeat('x', 500) FROM generate_series(1, 2000) n");
    // `wait_for` waits for a minute.
    let raised = stream.wait_for_alarm("alarm_raised", "connection");
    assert!(raised["error"]["message"].as_str().unwrap().contains("silent"), "{raised:#}");
    stream.wait_for_alarm("alarm_cleared", "connection");
    let until = site.shipped();
    site.assert_whole("near", until);
    assert_eq!(stream.stop(), Some(0));
}

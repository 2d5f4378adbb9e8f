//! The sample service with a manifest, for drills and recoveries.

use crate::kit::{Home, PASSWORD};
use retoma_testkit::free_port;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// The seeded rows of `predictions`.
pub(crate) const ROWS: u64 = 2_000;

/// A home with a seeded service below `srv`, backed up, and the port of its health address.
pub(crate) fn seeded() -> (Home, u16) {
    let home = Home::empty();
    home.write_private("password", PASSWORD);
    let (root, rows) = (home.text_path("srv"), ROWS.to_string());
    let seed = [
        "__marabet",
        "seed",
        "--root",
        &root,
        "--rows",
        &rows,
        "--model-bytes",
        "200000",
        "--log-bytes",
        "50000",
    ];
    home.run(&seed).expect(0);
    let port = free_port();
    home.write("srv/retoma.toml", manifest(&home, port).as_bytes());
    home.json(&["backup", "-f", "srv/retoma.toml"], 0, "retoma.backup/1");
    (home, port)
}

fn manifest(home: &Home, port: u16) -> String {
    format!(
        r#"version = 1

[service]
name = "marabet"
health = "http://127.0.0.1:{port}/healthz"
start = ["{program}", "__marabet", "serve", "--root", ".", "--port", "{port}"]

[[service.check]]
url = "http://127.0.0.1:{port}/predictions/count"
expect_body = "count"

[drill]
marker_url = "http://127.0.0.1:{port}/marker"
marker_component = "database"

[[repository]]
name = "local"
url = "file://{repository}"
password = "file:{password}"

[[component]]
name = "database"
kind = "sqlite"
tier = "critical"
path = "data/marabet.sqlite"

[[component.check]]
sql = "SELECT count(*) >= {ROWS} FROM predictions"
expect = "1"
{folders}"#,
        folders = retoma_testkit::manifest::FOLDERS,
        program = env!("CARGO_BIN_EXE_retoma"),
        repository = home.text_path("repository"),
        password = home.text_path("password"),
    )
}

/// What a GET answers; none when nobody does.
pub(crate) fn get(port: u16, path: &str) -> Option<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// A process that the program left running on purpose; killed with its group when dropped.
pub(crate) struct Left(pub(crate) Pid);

impl Left {
    pub(crate) fn new(pid: &serde_json::Value) -> Self {
        Self(Pid::from_raw(i32::try_from(pid.as_i64().unwrap()).unwrap()).unwrap())
    }

    pub(crate) fn runs(&self) -> bool {
        test_kill_process(self.0).is_ok()
    }

    /// Ends it and waits until nobody answers on `port`.
    pub(crate) fn stop(self, port: u16) {
        kill_process_group(self.0, Signal::KILL).unwrap();
        let deadline = Instant::now() + Duration::from_secs(30);
        while get(port, "/healthz").is_some() {
            assert!(Instant::now() < deadline, "the service still answers");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Left {
    fn drop(&mut self) {
        kill_process_group(self.0, Signal::KILL).ok();
    }
}

//! Servers of object stores on the loopback address: `SeaweedFS` (S3), Azurite (Azure Blob) and `fake-gcs-server` (Google);
//! and `OpenBao`, which wraps keys.
//!
//! `cargo xtask setup` installs them below `target/tools`. Each server takes seconds to start, so one serves all that a
//! test wants to see, in buckets of its own.

mod azure;
mod azurite;
mod bao;
mod gcs;
mod google;
mod s3;
mod seaweed;

pub use azure::{AzureLock, ImmutableAzure};
pub use azurite::AzuriteServer;
pub use bao::BaoServer;
pub use gcs::GcsServer;
pub use google::{GoogleLock, RetainingGoogle};
pub use s3::{S3Client, S3Version};
pub use seaweed::SeaweedServer;

use crate::{Folder, free_port, process, require_tool, wait_for_long};
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// Their start is slow work for processor and disk.
const PATIENCE: Duration = Duration::from_mins(3);

/// A server's process, its log and data. Dropping it kills the server.
#[derive(Debug)]
struct Server {
    name: &'static str,
    process: Option<Child>,
    /// Behind the process, so that it goes last.
    folder: Folder,
}

impl Server {
    /// Starts what `command` makes of a data folder, and waits until `is_ready`; `None` when it ended before, which a port
    /// that another test took is a reason for.
    #[allow(clippy::panic)]
    fn start(
        name: &'static str,
        command: impl FnOnce(&Path) -> Command,
        mut is_ready: impl FnMut() -> bool,
    ) -> Option<Self> {
        let folder = Folder::new();
        let data = folder.join("data");
        fs::create_dir(&data).unwrap_or_else(|error| panic!("make a folder for {name}: {error}"));
        let log = fs::File::create(folder.join("log")).and_then(|log| Ok((log.try_clone()?, log)));
        let (out, err) = log.unwrap_or_else(|error| panic!("open the log of {name}: {error}"));
        let mut command = dies_with_us(command(&data));
        command.current_dir(folder.path()).stdin(Stdio::null()).stdout(out).stderr(err);
        let mut child = command.spawn().unwrap_or_else(|error| panic!("start {name}: {error}"));
        let is_up = wait_for_long(name, PATIENCE, || {
            let has_ended = child.try_wait().is_ok_and(|status| status.is_some());
            if has_ended { Some(false) } else { is_ready().then_some(true) }
        });
        let server = Self { name, process: Some(child), folder };
        if is_up {
            return Some(server);
        }
        let log = server.log();
        assert!(log.contains("in use") || log.contains("EADDRINUSE"), "{name} does not start:\n{log}");
        None
    }

    fn log(&self) -> String {
        let log = fs::read(self.folder.join("log"));
        log.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = self.process.take() {
            process::kill_family(child);
        }
        if std::thread::panicking() {
            let log = self.log();
            let end: Vec<&str> = log.lines().rev().take(15).collect();
            for line in end.iter().rev() {
                let _shown = writeln!(std::io::stderr(), "{}: {line}", self.name).is_ok();
            }
        }
    }
}

/// The same command, killed by the kernel when the thread that starts it ends, however that ends.
fn dies_with_us(command: Command) -> Command {
    let Some(setpriv) = require_tool("setpriv") else { return command };
    let mut outer = Command::new(setpriv);
    outer.args(["--pdeathsig", "KILL"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => outer.env(name, value),
            None => outer.env_remove(name),
        };
    }
    outer
}

/// Sends one HTTP request to a loopback port; gives the status, or `None` when nothing answers.
fn request(port: u16, method: &str, path: &str, headers: &[(&str, &str)], body: &str) -> Option<u16> {
    exchange(port, method, path, headers, body).map(|(status, _)| status)
}

/// As [`request`]; gives the answer's text, too.
fn exchange(
    port: u16,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(10))).ok()?;
    let mut text = format!("{method} {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\nconnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
    stream.write_all(text.as_bytes()).ok()?;
    let mut answer = Vec::new();
    // A server that keeps the connection open is waited for in vain; the status has come by then.
    let _whole = stream.read_to_end(&mut answer).is_ok();
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.split(' ').nth(1)?.parse().ok()?;
    Some((status, answer.split_once("\r\n\r\n").map(|(_, text)| text.to_owned()).unwrap_or_default()))
}

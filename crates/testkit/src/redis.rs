//! A real Redis server of the test's own: on a free port of the loopback address, its data in a folder of its own.
//!
//! Nothing outside the folder is touched, and no other server is asked or stopped: only processes that were started
//! here are ended, by their ids.

mod client;
mod samples;

pub use client::{RedisClient, RedisReply};
pub use samples::fill_redis;

use crate::{Folder, free_port, process, require_tool, wait_for_what};
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// How a server is made.
#[derive(Debug, Clone, Default)]
pub struct RedisOptions {
    /// The password of the user `default`.
    pub password: Option<String>,
    /// Rules of further users, as `ACL SETUSER` takes them: `retoma on >secret +@all`.
    pub users: Vec<String>,
    /// Further lines of `redis.conf`; they come last.
    pub conf: Vec<String>,
    /// With files for it, the server speaks TLS on a second port.
    pub tls: Option<RedisTls>,
}

/// The files of a server with TLS.
#[derive(Debug, Clone)]
pub struct RedisTls {
    /// The server's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// The authority of its clients' certificates.
    pub authority: PathBuf,
    /// Whether clients must show a certificate.
    pub asks_clients: bool,
}

/// A running (or stopped) server. Dropping it kills the server and removes the folder.
#[derive(Debug)]
pub struct RedisServer {
    server: PathBuf,
    cli: PathBuf,
    options: RedisOptions,
    port: u16,
    tls_port: u16,
    process: Option<Child>,
    /// Behind the process, so that it goes last.
    folder: Folder,
}

impl RedisServer {
    /// A new, empty server that saves nothing by itself; `None`, with a printed reason, when Redis is not installed.
    ///
    /// # Panics
    /// When it does not start, or is missing and `REQUIRE_SERVICES` is `1`.
    pub fn start() -> Option<Self> {
        Self::start_with(RedisOptions::default())
    }

    /// As [`RedisServer::start`], with options.
    pub fn start_with(options: RedisOptions) -> Option<Self> {
        let mut server = Self::prepare(options)?;
        server.go();
        Some(server)
    }

    /// A server whose data folder `fill` puts files into, as a restore does; it is not started yet.
    pub fn restored(options: RedisOptions, fill: impl FnOnce(&Path)) -> Option<Self> {
        let server = Self::prepare(options)?;
        fill(&server.data_dir());
        Some(server)
    }

    #[allow(clippy::panic)]
    fn prepare(options: RedisOptions) -> Option<Self> {
        let (server, cli) = (require_tool("redis-server")?, require_tool("redis-cli")?);
        let folder = Folder::new();
        let made = fs::create_dir(folder.join("data"));
        made.unwrap_or_else(|error| panic!("make a folder for Redis: {error}"));
        let tls_port = options.tls.as_ref().map_or(0, |_| free_port());
        Some(Self { server, cli, options, port: free_port(), tls_port, process: None, folder })
    }

    /// Starts the server again after it was stopped or killed, and waits until it has loaded its data.
    ///
    /// # Panics
    /// When it does not start, or runs already.
    pub fn go(&mut self) {
        assert!(self.process.is_none(), "the server runs already");
        // Another test may take the port between our choice and the server's: then it ends, and we choose again.
        for _ in 0..5 {
            self.configure();
            let mut process = self.spawn();
            let is_up = wait_for_what("Redis to start", || {
                let has_ended = process.try_wait().is_ok_and(|status| status.is_some());
                if has_ended { Some(false) } else { self.is_ready().then_some(true) }
            });
            if is_up {
                self.process = Some(process);
                return;
            }
            assert!(self.log().contains("Address already in use"), "Redis does not start:\n{}", self.log());
            self.port = free_port();
            self.tls_port = self.options.tls.as_ref().map_or(0, |_| free_port());
        }
        assert!(self.process.is_some(), "no free port for Redis");
    }

    #[allow(clippy::panic)]
    fn configure(&self) {
        let mut lines = vec![
            "bind 127.0.0.1".to_owned(),
            format!("port {}", self.port),
            format!("unixsocket {}", self.socket().display()),
            format!("dir {}", self.data_dir().display()),
            "save \"\"".to_owned(),
            // Replication begins at once.
            "repl-diskless-sync-delay 0".to_owned(),
            "enable-debug-command local".to_owned(),
        ];
        if let Some(password) = &self.options.password {
            lines.push(format!("requirepass {password}"));
        }
        lines.extend(self.options.users.iter().map(|user| format!("user {user}")));
        if let Some(tls) = &self.options.tls {
            lines.extend([
                format!("tls-port {}", self.tls_port),
                format!("tls-cert-file {}", tls.certificate.display()),
                format!("tls-key-file {}", tls.key.display()),
                format!("tls-ca-cert-file {}", tls.authority.display()),
                format!("tls-auth-clients {}", if tls.asks_clients { "yes" } else { "no" }),
            ]);
        }
        lines.extend(self.options.conf.iter().cloned());
        let written = fs::write(self.folder.join("redis.conf"), lines.join("\n") + "\n");
        written.unwrap_or_else(|error| panic!("write redis.conf: {error}"));
    }

    #[allow(clippy::panic)]
    fn spawn(&self) -> Child {
        let log = fs::File::create(self.folder.join("log"));
        let log = log.unwrap_or_else(|error| panic!("open the server's log: {error}"));
        let mut command = Command::new(&self.server);
        command.arg(self.folder.join("redis.conf")).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(log).stderr(Stdio::null());
        command.spawn().unwrap_or_else(|error| panic!("start redis-server: {error}"))
    }

    /// Whether it answers and has loaded its data.
    pub fn is_ready(&self) -> bool {
        let said = self.command().arg("PING").output();
        said.is_ok_and(|output| output.stdout.starts_with(b"PONG"))
    }

    /// Stops the server without saving, and waits for its end.
    ///
    /// # Panics
    /// When it does not run, or does not stop.
    pub fn stop(&mut self) {
        let mut child = self.running();
        let _ends = self.command().args(["SHUTDOWN", "NOSAVE", "NOW"]).output().is_ok();
        wait_for_what("Redis to stop", || child.try_wait().ok().flatten());
    }

    /// Kills the server with a save that it may be at (SIGKILL), as when the machine loses power; and waits until they are
    /// gone.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        process::kill_family(self.running());
    }

    /// Stops the server without saving, and starts it again.
    pub fn restart(&mut self) {
        self.stop();
        self.go();
    }

    #[allow(clippy::panic)]
    fn running(&mut self) -> Child {
        self.process.take().unwrap_or_else(|| panic!("the server does not run"))
    }

    /// The process id.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// The TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The port that speaks TLS; 0 without it.
    pub fn tls_port(&self) -> u16 {
        self.tls_port
    }

    /// The path of the socket.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// The data folder.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The address over TCP, without a password.
    pub fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// What the server has logged since it was started.
    pub fn log(&self) -> String {
        let log = fs::read(self.folder.join("log"));
        log.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The real `redis-cli`, connected by the socket as the user `default`.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.cli);
        command.env_remove("REDISCLI_AUTH").arg("-s").arg(self.socket()).stdin(Stdio::null());
        if let Some(password) = &self.options.password {
            command.env("REDISCLI_AUTH", password);
        }
        command
    }

    /// Runs the real `redis-cli`, and gives what it prints without the last line's end.
    ///
    /// # Panics
    /// When it fails, or the server answers with an error.
    #[track_caller]
    pub fn cli(&self, arguments: &[impl AsRef<OsStr>]) -> String {
        let mut command = self.command();
        command.arg("-e").args(arguments);
        said(&mut command, self)
    }

    /// Sends commands, one a line, through one `redis-cli`; gives what it prints.
    ///
    /// # Panics
    /// When it fails, or prints an error.
    #[track_caller]
    pub fn script(&self, lines: &str) -> String {
        let mut command = self.command();
        command.stdin(file_with(lines.as_bytes()));
        let said = said(&mut command, self);
        let error = said.lines().find(|line| line.starts_with("ERR") || line.starts_with("WRONGTYPE"));
        assert_eq!(error, None, "in {lines:.200}");
        said
    }

    /// Sends commands in the protocol's own form, as many as there are, through `redis-cli --pipe`.
    ///
    /// # Panics
    /// When one of them fails.
    #[track_caller]
    pub fn pipe(&self, commands: &[u8]) {
        let mut command = self.command();
        command.arg("--pipe").stdin(file_with(commands));
        let said = said(&mut command, self);
        assert!(said.contains("errors: 0,"), "{said}");
    }
}

/// A command in the protocol's own form, for [`RedisServer::pipe`].
pub fn redis_command(words: &[impl AsRef<[u8]>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words.iter().map(AsRef::as_ref) {
        bytes.extend(format!("${}\r\n", word.len()).into_bytes());
        bytes.extend(word);
        bytes.extend(b"\r\n");
    }
    bytes
}

#[allow(clippy::panic)]
fn file_with(bytes: &[u8]) -> fs::File {
    use std::io::{Seek, Write};
    let file = tempfile::tempfile().and_then(|mut file| {
        file.write_all(bytes)?;
        file.rewind().map(|()| file)
    });
    file.unwrap_or_else(|error| panic!("write commands for redis-cli: {error}"))
}

#[track_caller]
#[allow(clippy::panic)]
fn said(command: &mut Command, server: &RedisServer) -> String {
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|error| panic!("run redis-cli: {error}"));
    let (said, complaint) = (String::from_utf8_lossy(&stdout), String::from_utf8_lossy(&stderr));
    assert!(status.success(), "redis-cli ended with {status}: {said}{complaint}\n{}", server.log());
    said.trim_end_matches('\n').to_owned()
}

impl Drop for RedisServer {
    fn drop(&mut self) {
        if let Some(child) = self.process.take() {
            process::kill_family(child);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_lives_through_stops_and_kills_and_leaves_nothing() {
        let options = RedisOptions {
            password: Some("secret".into()),
            users: vec!["reader on >other ~* +get".into()],
            ..RedisOptions::default()
        };
        let Some(mut server) = RedisServer::start_with(options) else { return };
        assert_eq!(server.script("SET a 1\nSAVE\nGET a"), "OK\nOK\n1");
        server.restart();
        assert_eq!(server.cli(&["GET", "a"]), "1");
        server.pipe(&redis_command(&["SET", "b", "2"]).repeat(3));
        server.kill();
        assert!(!server.is_ready());
        server.go();
        assert_eq!(server.cli(&["DBSIZE"]), "1");
        assert_eq!(server.cli(&["ACL", "USERS"]), "default\nreader");
        let (data, pid) = (server.data_dir(), server.pid().unwrap());
        drop(server);
        assert!(!data.exists() && !Path::new(&format!("/proc/{pid}")).exists());
    }
}

//! A real PostgreSQL server of the test's own: on a free port of the loopback address, its data in a folder of its own.
//!
//! PostgreSQL refuses to run as root; then it runs as the system's user `postgres`. Nothing outside the folder is touched,
//! and no other server is asked or stopped: only processes that were started here are ended, by their ids.

mod programs;

use crate::{Folder, free_port, process, wait_for_what};
use programs::Programs;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

/// How a server is made.
#[derive(Debug, Clone, Default)]
pub struct PostgresOptions {
    /// Further arguments of `initdb`, such as `--wal-segsize=1`.
    pub initdb: Vec<String>,
    /// Further lines of `postgresql.conf`.
    pub conf: Vec<String>,
    /// With a password, TCP asks for it by SCRAM; the socket trusts everybody, as without one.
    pub password: Option<String>,
    /// Lines of `pg_hba.conf` that come before the others.
    pub hba: Vec<String>,
    /// Whether the server waits for the disk; a test that kills processes alone does not need it.
    pub is_durable: bool,
}

/// How a server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopMode {
    /// Sessions are ended, a last checkpoint is written.
    Fast,
    /// At once; the next start recovers.
    Immediate,
}

/// A running (or stopped) server. Its superuser is `postgres`. Dropping it kills the server and removes the folder.
#[derive(Debug)]
pub struct PostgresServer {
    programs: Programs,
    port: u16,
    process: Option<Child>,
    /// Behind the process, so that it goes last.
    folder: Folder,
}

impl PostgresServer {
    /// A new server with data checksums; `None`, with a printed reason, when PostgreSQL is not installed.
    ///
    /// # Panics
    /// When it does not start, or is missing and `REQUIRE_SERVICES` is `1`.
    pub fn start() -> Option<Self> {
        Self::start_with(&PostgresOptions::default())
    }

    /// As [`PostgresServer::start`], with options.
    pub fn start_with(options: &PostgresOptions) -> Option<Self> {
        let mut server = Self::prepare()?;
        let mut arguments: Vec<String> = [
            "-k",
            "-N",
            "-U",
            "postgres",
            "-E",
            "UTF8",
            "--locale=C",
            "--no-instructions",
            "--auth-local=trust",
        ]
        .map(Into::into)
        .into();
        match &options.password {
            Some(password) => {
                let file = server.folder.join("password");
                server.write(&file, password, 0o600);
                arguments.push(format!("--pwfile={}", file.display()));
                arguments.push("--auth-host=scram-sha-256".into());
            }
            None => arguments.push("--auth-host=trust".into()),
        }
        arguments.extend(options.initdb.iter().cloned());
        arguments.extend(["-D".to_owned(), server.data_dir().display().to_string()]);
        server.run("initdb", &arguments);
        server.configure(options);
        server.go();
        Some(server)
    }

    /// A streaming standby of this server, made by `pg_basebackup`, with a slot of its own when `slot` names one.
    ///
    /// # Panics
    /// When that does not work.
    #[must_use]
    pub fn standby(&self, slot: Option<&str>) -> Self {
        let Some(mut server) = Self::prepare() else { unreachable_programs() };
        let mut arguments: Vec<String> =
            ["-R", "-X", "stream", "-c", "fast", "-N", "-d"].map(Into::into).into();
        arguments.push(self.socket_url());
        arguments.extend(["-D".to_owned(), server.data_dir().display().to_string()]);
        if let Some(slot) = slot {
            arguments.extend(["-C".to_owned(), "-S".to_owned(), slot.to_owned()]);
        }
        server.run("pg_basebackup", &arguments);
        server.append_conf(&[format!("unix_socket_directories = '{}'", server.socket_dir().display())]);
        server.go();
        server
    }

    /// A server on a data directory that `fill` puts files into, as a restore does; it is not started yet. No file is changed.
    ///
    /// # Panics
    /// When that does not work.
    pub fn restored(fill: impl FnOnce(&Path)) -> Option<Self> {
        let server = Self::prepare()?;
        let data = server.data_dir();
        fill(&data);
        server.give_all(&data);
        Some(server)
    }

    /// Makes everything in a folder the server's.
    #[allow(clippy::panic)]
    fn give_all(&self, folder: &Path) {
        self.programs.give_to_server(folder);
        let entries =
            fs::read_dir(folder).unwrap_or_else(|error| panic!("list {}: {error}", folder.display()));
        for entry in entries.flatten() {
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => self.give_all(&entry.path()),
                Ok(kind) if kind.is_file() => self.programs.give_to_server(&entry.path()),
                _ => {}
            }
        }
    }

    fn prepare() -> Option<Self> {
        let programs = Programs::find()?;
        let folder = Folder::new();
        programs.open_to_server(folder.path());
        for name in ["data", "socket"] {
            let path = folder.join(name);
            make_folder(&path);
            programs.give_to_server(&path);
        }
        Some(Self { programs, port: free_port(), process: None, folder })
    }

    fn configure(&self, options: &PostgresOptions) {
        let mut lines = vec![
            "listen_addresses = '127.0.0.1'".to_owned(),
            format!("unix_socket_directories = '{}'", self.socket_dir().display()),
            format!("fsync = {}", if options.is_durable { "on" } else { "off" }),
            // Many servers run at once on a small machine.
            "shared_buffers = 16MB".to_owned(),
            "max_connections = 30".to_owned(),
            "logging_collector = off".to_owned(),
        ];
        lines.extend(options.conf.iter().cloned());
        self.append_conf(&lines);
        let hba = self.data_dir().join("pg_hba.conf");
        let usual = read(&hba);
        self.write(&hba, &format!("{}\n{usual}", options.hba.join("\n")), 0o600);
    }

    /// Puts lines behind `postgresql.conf`; they hold from the next start or reload on.
    pub fn append_conf(&self, lines: &[String]) {
        let path = self.data_dir().join("postgresql.conf");
        let text = format!("{}\n{}\n", read(&path), lines.join("\n"));
        self.write(&path, &text, 0o600);
    }

    /// Writes a file that belongs to the server's user, such as a key in [`PostgresServer::data_dir`].
    ///
    /// # Panics
    /// When that is impossible.
    #[allow(clippy::panic)]
    pub fn write(&self, path: &Path, text: &str, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        let written =
            fs::write(path, text).and_then(|()| fs::set_permissions(path, fs::Permissions::from_mode(mode)));
        written.unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
        self.programs.give_to_server(path);
    }

    /// Starts the server again after it was stopped or killed, and waits until it answers.
    ///
    /// # Panics
    /// When it does not start, or runs already.
    pub fn go(&mut self) {
        assert!(self.process.is_none(), "the server runs already");
        // Another test may take the port between our choice and the server's: then it ends, and we choose again.
        for _ in 0..5 {
            let mut process = self.spawn();
            let is_up = wait_for_what("PostgreSQL to start", || {
                let has_ended = process.try_wait().is_ok_and(|status| status.is_some());
                if has_ended { Some(false) } else { self.is_ready().then_some(true) }
            });
            if is_up {
                self.process = Some(process);
                return;
            }
            assert!(
                self.log().contains("Address already in use"),
                "PostgreSQL does not start:\n{}",
                self.log()
            );
            self.port = free_port();
        }
        assert!(self.process.is_some(), "no free port for PostgreSQL");
    }

    #[allow(clippy::panic)]
    fn spawn(&self) -> Child {
        let log = fs::OpenOptions::new().create(true).append(true).open(self.log_path());
        let log = log.unwrap_or_else(|error| panic!("open the server's log: {error}"));
        let mut command = self.command("postgres");
        // Also where the configuration came out of a backup and names another server's.
        command
            .arg("-D")
            .arg(self.data_dir())
            .args(["-p", &self.port.to_string(), "-k"])
            .arg(self.socket_dir());
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().unwrap_or_else(|error| panic!("start postgres: {error}"))
    }

    /// Whether it answers and takes connections.
    pub fn is_ready(&self) -> bool {
        let mut command = self.command("pg_isready");
        command.args(["-q", "-h"]).arg(self.socket_dir()).args(["-p", &self.port.to_string()]);
        command.status().is_ok_and(|status| status.success())
    }

    /// Stops the server and waits for its end.
    ///
    /// # Panics
    /// When it does not run, or does not stop.
    pub fn stop(&mut self, mode: StopMode) {
        let signal = match mode {
            StopMode::Fast => process::Signal::INT,
            StopMode::Immediate => process::Signal::QUIT,
        };
        let mut child = self.running();
        process::signal(child.id(), signal);
        wait_for_what("PostgreSQL to stop", || child.try_wait().ok().flatten());
    }

    /// Kills the server with all its processes at once (SIGKILL), as when the machine loses power; and waits until they
    /// are gone.
    ///
    /// # Panics
    /// When it does not run.
    pub fn kill(&mut self) {
        process::kill_family(self.running());
    }

    /// Stops the server fast and starts it again.
    pub fn restart(&mut self) {
        self.stop(StopMode::Fast);
        self.go();
    }

    /// Makes a standby a primary, and waits until it is one.
    pub fn promote(&self) {
        assert_eq!(self.psql("SELECT pg_promote()"), "t", "the standby is not promoted");
    }

    #[allow(clippy::panic)]
    fn running(&mut self) -> Child {
        self.process.take().unwrap_or_else(|| panic!("the server does not run"))
    }

    /// The process id of the server's first process.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// The TCP port, which also names the socket.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The folder of the socket.
    pub fn socket_dir(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The folder that holds all of it; there is room for what a test makes beside it.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// The address over TCP, of the user and database `postgres`, without a password.
    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres", self.port)
    }

    /// The address over the socket, which trusts everybody.
    pub fn socket_url(&self) -> String {
        format!("postgres://postgres@/postgres?host={}&port={}", self.socket_dir().display(), self.port)
    }

    /// What the server has logged.
    pub fn log(&self) -> String {
        fs::read(self.log_path())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    fn log_path(&self) -> PathBuf {
        self.folder.join("log")
    }

    /// Runs SQL in the real `psql`, each statement by itself, and gives what the rows are: fields with `|`, rows in lines.
    ///
    /// # Panics
    /// When a statement fails.
    #[allow(clippy::panic)]
    pub fn psql(&self, sql: &str) -> String {
        use std::io::{Seek, Write};
        let script = tempfile::tempfile().and_then(|mut file| {
            file.write_all(sql.as_bytes())?;
            file.rewind().map(|()| file)
        });
        let script = script.unwrap_or_else(|error| panic!("write a script for psql: {error}"));
        let mut command = self.command("psql");
        command.args(["-X", "-q", "-At", "-v", "ON_ERROR_STOP=1", "-d", &self.socket_url()]).stdin(script);
        let output = checked("psql", &mut command, self);
        String::from_utf8_lossy(&output.stdout).trim_end_matches('\n').to_owned()
    }

    /// Where one of PostgreSQL's programs is.
    pub fn bin(&self, name: &str) -> PathBuf {
        self.programs.path(name)
    }

    /// One of PostgreSQL's programs, to be run as the server's user, in its folder.
    pub fn command(&self, name: &str) -> Command {
        let mut command = self.programs.command(name);
        command.current_dir(self.folder.path());
        command
    }

    /// Runs one of PostgreSQL's programs to its end.
    ///
    /// # Panics
    /// When it fails: with what it printed.
    pub fn run(&self, name: &str, arguments: &[impl AsRef<std::ffi::OsStr>]) -> Output {
        checked(name, self.command(name).args(arguments).stdin(Stdio::null()), self)
    }
}

/// Runs a program to its end; a failure tells what it and the server printed.
#[allow(clippy::panic)]
fn checked(name: &str, command: &mut Command, server: &PostgresServer) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("run {name}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} ended with {}: {said}\n{}", output.status, server.log());
    output
}

impl Drop for PostgresServer {
    #[allow(clippy::print_stderr)]
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let last = lines.get(lines.len().saturating_sub(40)..).unwrap_or_default();
            eprintln!("the log of the server on port {} ends with:\n{}", self.port, last.join("\n"));
        }
        if let Some(child) = self.process.take() {
            process::kill_family(child);
        }
    }
}

#[allow(clippy::panic)]
fn unreachable_programs() -> ! {
    panic!("PostgreSQL was there a moment ago")
}

#[allow(clippy::panic)]
fn make_folder(path: &Path) {
    use std::os::unix::fs::DirBuilderExt;
    let made = fs::DirBuilder::new().mode(0o700).create(path);
    made.unwrap_or_else(|error| panic!("make {}: {error}", path.display()));
}

#[allow(clippy::panic)]
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("read {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_lives_through_stops_and_crashes_and_leaves_nothing() {
        let Some(mut server) = PostgresServer::start() else { return };
        assert_eq!(
            server.psql("CREATE TABLE t (n int); INSERT INTO t VALUES (1); CHECKPOINT; SELECT n FROM t"),
            "1"
        );
        server.restart();
        server.stop(StopMode::Immediate);
        server.go();
        server.kill();
        assert!(!server.is_ready());
        server.go();
        assert_eq!(server.psql("SELECT n, NULL FROM t"), "1|");
        assert!(server.bin("pg_amcheck").is_file());
        let folder = server.folder().to_owned();
        let pid = server.pid().unwrap();
        assert!(process::family(pid).len() > 1, "the server has processes of its own");
        let family = process::family(pid);
        drop(server);
        assert!(!folder.exists());
        assert!(family.iter().all(|pid| process::is_gone(*pid)));
    }
}

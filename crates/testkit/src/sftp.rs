//! A real OpenSSH server of the test's own: on a free port of the loopback address, with keys, logs and data in a folder
//! of its own.
//!
//! It lets in the user who runs the test, with the key in the folder and with nothing else. The system's own server,
//! its configuration and the user's `~/.ssh` are not touched; only processes that were started here are ended.

use crate::{Folder, free_port, process, require_tool, wait_for_what};
use std::fs;
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running (or stopped) server. Dropping it kills the server with its sessions and removes the folder.
#[derive(Debug)]
pub struct SftpServer {
    sshd: PathBuf,
    user: String,
    port: u16,
    subsystem: String,
    process: Option<Child>,
    /// Behind the process, so that it goes last.
    folder: Folder,
}

impl SftpServer {
    /// A new server without data; `None`, with a printed reason, when OpenSSH is not installed.
    ///
    /// # Panics
    /// When it does not start, or is missing and `REQUIRE_SERVICES` is `1`.
    pub fn start() -> Option<Self> {
        let mut server = Self::prepare()?;
        server.go();
        Some(server)
    }

    /// As [`SftpServer::start`], and not started yet.
    ///
    /// # Panics
    /// When its keys cannot be made, or OpenSSH is missing and `REQUIRE_SERVICES` is `1`.
    pub fn prepare() -> Option<Self> {
        // Users' `PATH` often lacks the folder of servers, and `sshd` starts itself again by its whole path.
        let usual = Path::new("/usr/sbin/sshd");
        let sshd = if usual.is_file() { usual.to_owned() } else { require_tool("sshd")? };
        require_tool("ssh")?;
        require_tool("ssh-keygen")?;
        let folder = Folder::new();
        written(&folder.join("data"), None);
        let server = Self {
            sshd,
            user: said(Command::new("id").arg("-un")),
            port: free_port(),
            subsystem: "internal-sftp".to_owned(),
            process: None,
            folder,
        };
        for key in ["host_key", "user_key"] {
            server.make_key(key);
        }
        Some(server)
    }

    /// The server's program for SFTP with its options, from the next start on: `internal-sftp -R` only reads.
    pub fn set_subsystem(&mut self, subsystem: &str) {
        subsystem.clone_into(&mut self.subsystem);
    }

    /// Makes a new key, `NAME` and `NAME.pub` in the folder.
    fn make_key(&self, name: &str) {
        let path = self.folder.join(name);
        said(
            Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-C", "test", "-f"]).arg(path),
        );
    }

    /// Gives the server another host key, from the next start on; clients still know the old one.
    pub fn change_host_key(&self) {
        for name in ["host_key", "host_key.pub"] {
            let _was_there = fs::remove_file(self.folder.join(name)).is_ok();
        }
        self.make_key("host_key");
    }

    /// Starts the server (again), and waits until it listens.
    ///
    /// # Panics
    /// When it does not start, or runs already.
    pub fn go(&mut self) {
        assert!(self.process.is_none(), "the server runs already");
        let is_first = !self.folder.join("known_hosts").exists();
        for _ in 0..5 {
            self.configure(is_first);
            let mut process = self.spawn();
            let is_up = wait_for_what("sshd to start", || {
                let has_ended = process.try_wait().is_ok_and(|status| status.is_some());
                let answers = || TcpStream::connect(("127.0.0.1", self.port)).is_ok();
                if has_ended { Some(false) } else { answers().then_some(true) }
            });
            if is_up {
                self.process = Some(process);
                return;
            }
            assert!(self.log().contains("Address already in use"), "sshd does not start:\n{}", self.log());
            self.port = free_port();
        }
        assert!(self.process.is_some(), "no free port for sshd");
    }

    fn configure(&self, is_first: bool) {
        let folder = self.folder.path().display();
        let server = format!(
            "ListenAddress 127.0.0.1\nPort {}\nHostKey {folder}/host_key\nPidFile none\nStrictModes no\nUsePAM no\n\
             AuthorizedKeysFile {folder}/user_key.pub\nPubkeyAuthentication yes\nPasswordAuthentication no\n\
             KbdInteractiveAuthentication no\nPermitRootLogin prohibit-password\nPrintMotd no\nPrintLastLog no\n\
             MaxStartups 100\nSubsystem sftp {}\n",
            self.port, self.subsystem
        );
        written(&self.folder.join("sshd_config"), Some(&server));
        let client = format!(
            "Host *\n  IdentityFile {folder}/user_key\n  IdentitiesOnly yes\n  IdentityAgent none\n  HostKeyAlias test\n  \
             UserKnownHostsFile {folder}/known_hosts\n  GlobalKnownHostsFile none\n  StrictHostKeyChecking yes\n"
        );
        written(&self.folder.join("ssh_config"), Some(&client));
        if is_first {
            let key = fs::read_to_string(self.folder.join("host_key.pub")).unwrap_or_default();
            written(&self.folder.join("known_hosts"), Some(&format!("test {key}")));
        }
    }

    #[allow(clippy::panic)]
    fn spawn(&self) -> Child {
        let log = fs::File::create(self.folder.join("log"));
        let log = log.unwrap_or_else(|error| panic!("open the server's log: {error}"));
        let mut command = if self.needs_own_run() {
            let mut command = Command::new("unshare");
            let script = "mount -t tmpfs retoma-test /run && mkdir /run/sshd && exec \"$0\" \"$@\"";
            command.args(["--mount", "--propagation", "slave", "sh", "-c", script]).arg(&self.sshd);
            command
        } else {
            Command::new(&self.sshd)
        };
        command.args(["-D", "-e", "-f"]).arg(self.folder.join("sshd_config"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        command.spawn().unwrap_or_else(|error| panic!("start sshd: {error}"))
    }

    /// As root, `sshd` wants a folder that only the system's service makes: it gets one in a mount namespace of its own.
    fn needs_own_run(&self) -> bool {
        self.user == "root" && !Path::new("/run/sshd").exists()
    }

    /// Stops the server with all its sessions; their clients see a broken connection.
    ///
    /// # Panics
    /// When it does not run.
    pub fn stop(&mut self) {
        if let Some(child) = self.process.take() {
            process::kill_family(child);
        }
    }

    /// Kills the sessions (SIGKILL) and lets the server run; gives how many processes there were.
    pub fn kill_sessions(&self) -> usize {
        let Some(server) = self.process.as_ref().map(Child::id) else { return 0 };
        let sessions: Vec<u32> = process::family(server).into_iter().filter(|pid| *pid != server).collect();
        for pid in &sessions {
            process::signal(*pid, process::Signal::KILL);
        }
        wait_for_what("killed sessions to go", || {
            sessions.iter().all(|pid| process::is_gone(*pid)).then_some(())
        });
        sessions.len()
    }

    /// Its TCP port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Who may log in: who runs the test.
    pub fn user(&self) -> &str {
        &self.user
    }

    /// Where tests put what is stored.
    pub fn data_dir(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// The address of a folder in [`SftpServer::data_dir`].
    pub fn url(&self, name: &str) -> String {
        format!("sftp://{}@127.0.0.1:{}{}/{name}", self.user, self.port, self.data_dir().display())
    }

    /// `ssh` with the configuration that knows this server and logs in there.
    pub fn ssh_command(&self) -> String {
        format!("ssh -F {}", self.folder.join("ssh_config").display())
    }

    /// The file with the public keys of hosts that clients know.
    pub fn known_hosts(&self) -> PathBuf {
        self.folder.join("known_hosts")
    }

    /// The public key that may log in; whoever changes it is locked out.
    pub fn authorized_key(&self) -> PathBuf {
        self.folder.join("user_key.pub")
    }

    /// What the server has logged since it was started.
    pub fn log(&self) -> String {
        let log = fs::read(self.folder.join("log"));
        log.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

impl Drop for SftpServer {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Writes a file, or makes a folder.
#[allow(clippy::panic)]
fn written(path: &Path, text: Option<&str>) {
    let done = text.map_or_else(|| fs::create_dir(path), |text| fs::write(path, text));
    done.unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
}

/// What a small program prints.
#[allow(clippy::panic)]
fn said(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output();
    let output = output.unwrap_or_else(|error| panic!("run {command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

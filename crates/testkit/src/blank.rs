//! A blank machine: Debian with the servers' programs and nothing configured, in namespaces of its own. Its network is a
//! loopback device; it reaches only the ports of ours that it is given.
//!
//! `cargo xtask setup` makes its system below `target/tools/blank`. What a test changes lies in memory above that folder, in
//! a mount that no other process sees, and is gone with the machine.

use crate::acceptor::{self, Acceptor};
use crate::{Folder, namespace, process, require_local_tool, require_tool, wait_for_long};
use std::fs;
use std::io;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::time::Duration;

/// Makes the machine's file system and network, says so, and waits to be killed as its process 1.
const START: &str = r#"
set -e
system=$1 place=$2 program=$3
mount -t tmpfs -o mode=0755 blank "$place"
mkdir "$place/upper" "$place/work" "$place/root"
mount -t overlay -o "lowerdir=$system,upperdir=$place/upper,workdir=$place/work" blank "$place/root"
cd "$place/root"
mount -t proc proc proc
mount --rbind /dev dev
mount -t tmpfs -o mode=1777 tmp tmp
touch usr/local/bin/retoma
mount --bind "$program" usr/local/bin/retoma
ip link set lo up
# Another number for the user, and its old one for somebody else, as on a machine that was installed in another order.
sed -i 's/^postgres:x:[0-9]*:[0-9]*:/postgres:x:4101:4102:/' etc/passwd
sed -i 's/^postgres:x:[0-9]*:/postgres:x:4102:/' etc/group
touch tmp/.ready
exec chroot . sleep infinity
"#;

/// A running one. Dropping it kills all its processes.
#[derive(Debug)]
pub struct BlankMachine {
    keeper: Option<Child>,
    /// Its first process, by our own number.
    pid: u32,
    /// What leads to our own ports.
    ways: Mutex<Vec<Acceptor>>,
    /// Behind the process, so that it goes last.
    _folder: Folder,
}

impl BlankMachine {
    /// The number of the user `postgres` on it.
    pub const POSTGRES: u32 = 4101;

    /// Starts one with `program` as `/usr/local/bin/retoma`; `None`, with a printed reason, where its system was not made or we
    /// are not root.
    ///
    /// # Panics
    /// When it does not start, or cannot and `REQUIRE_SERVICES` is `1`.
    #[allow(clippy::panic)]
    pub fn start(program: &Path) -> Option<Self> {
        let system = require_local_tool("the blank machine", "blank/bin/sh")?;
        let system = system.parent().and_then(Path::parent)?.to_owned();
        let (unshare, _) = (require_tool("unshare")?, require_tool("nsenter")?);
        if !rustix::process::geteuid().is_root() {
            return crate::tools::skip("blank machine", "namespaces of its own and other users need root");
        }
        let folder = Folder::new();
        let place = folder.join("machine");
        fs::create_dir(&place).unwrap_or_else(|error| panic!("make {}: {error}", place.display()));
        let log = fs::File::create(folder.join("log")).unwrap_or_else(|error| panic!("make a log: {error}"));
        let mut command = Command::new(unshare);
        command.args(["--mount", "--propagation", "private", "--net", "--pid", "--fork", "--kill-child"]);
        command.args(["sh", "-c", START, "blank"]).args([&system, &place]).arg(program);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let mut keeper = command.spawn().unwrap_or_else(|error| panic!("start a blank machine: {error}"));
        let children = format!("/proc/{0}/task/{0}/children", keeper.id());
        let pid = wait_for_long("a blank machine", Duration::from_mins(1), || {
            if keeper.try_wait().is_ok_and(|status| status.is_some()) {
                return Some(None);
            }
            let pid: u32 = fs::read_to_string(&children).ok()?.split_whitespace().next()?.parse().ok()?;
            // Its own root once `chroot` has run.
            Path::new(&format!("/proc/{pid}/root/tmp/.ready")).exists().then_some(Some(pid))
        });
        let said = || fs::read_to_string(folder.join("log")).unwrap_or_default();
        let pid = pid.unwrap_or_else(|| panic!("the blank machine did not start: {}", said()));
        Some(Self { keeper: Some(keeper), pid, ways: Mutex::default(), _folder: folder })
    }

    /// A program on it, as root, with nothing of our environment.
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid.to_string(), "--mount", "--net", "--pid", "--root", "--wd"]);
        command.arg(program).env_clear().stdin(Stdio::null());
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.envs([("HOME", "/var"), ("TZ", "UTC"), ("LC_ALL", "C.UTF-8"), ("NO_COLOR", "1")]);
        command
    }

    /// Runs a script of `sh` on it, and gives what it printed.
    ///
    /// # Panics
    /// When it fails.
    #[allow(clippy::panic)]
    pub fn sh(&self, script: &str) -> String {
        let output: Output = self
            .command("sh")
            .args(["-ec", script])
            .output()
            .unwrap_or_else(|error| panic!("run sh: {error}"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{script}: {}\n{said}", output.status);
        String::from_utf8_lossy(&output.stdout).trim_end().to_owned()
    }

    /// Writes a file on it, for root alone.
    ///
    /// # Panics
    /// When that is impossible.
    #[allow(clippy::panic)]
    pub fn write(&self, path: &str, text: &str) {
        use std::io::Write as _;
        let mut command = self.command("sh");
        command.args(["-ec", "umask 077; cat > \"$1\"", "write", path]).stdin(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("write {path}: {error}"));
        let written = child.stdin.take().map(|mut stdin| stdin.write_all(text.as_bytes()));
        let status = child.wait();
        assert!(
            written.is_some_and(|written| written.is_ok()) && status.is_ok_and(|status| status.success()),
            "{path} could not be written on the blank machine"
        );
    }

    /// Lets it reach our loopback port `port`, under the same number.
    ///
    /// # Panics
    /// When that is impossible.
    #[allow(clippy::panic)]
    pub fn reach(&self, port: u16) {
        let network = format!("/proc/{}/ns/net", self.pid);
        // A socket stays in the network that the thread was in which made it.
        let listening = std::thread::spawn(move || -> io::Result<TcpListener> {
            namespace::enter(&network)?;
            TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        });
        let listener = listening.join().unwrap_or_else(|_| panic!("the thread that listens ended"));
        let listener = listener.unwrap_or_else(|error| panic!("listen on the blank machine: {error}"));
        let acceptor = Acceptor::on(listener, move |client, connections| {
            let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
            connections.keep(&server)?;
            acceptor::join(&client, &server);
            Ok(())
        });
        acceptor::locked(&self.ways).push(acceptor);
    }
}

impl Drop for BlankMachine {
    fn drop(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            // The first process of a namespace takes all others with it.
            process::kill_family(keeper);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn it_reaches_what_it_is_given_and_nothing_else() {
        let Some(machine) = BlankMachine::start(Path::new("/bin/true")) else { return };
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = server.local_addr().unwrap().port();
        std::thread::spawn(move || {
            while let Ok((mut stream, _)) = server.accept() {
                io::Write::write_all(&mut stream, b"hello").unwrap();
            }
        });
        let ask = |port: u16| {
            machine.sh(&format!("perl -MIO::Socket::INET -e 'my $s = IO::Socket::INET->new(\"127.0.0.1:{port}\"); print $s ? <$s> : \"nobody\"'"))
        };
        assert_eq!(ask(port), "nobody");
        machine.reach(port);
        assert_eq!(ask(port), "hello");
        let mut near = String::new();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).unwrap().read_to_string(&mut near).unwrap();
        assert_eq!(near, "hello", "our own network is as it was");
        assert_eq!(machine.sh("id -u postgres"), BlankMachine::POSTGRES.to_string());
        assert_eq!(machine.sh("tail -n +2 /proc/net/route"), "", "no way leads to another network");

        machine.write("/etc/secret", "a word");
        assert_eq!(machine.sh("stat -c %a /etc/secret; cat /etc/secret"), "600\na word");
        assert!(!Path::new("/etc/secret").exists());
        let pid = machine.pid;
        drop(machine);
        assert!(!Path::new(&format!("/proc/{pid}/root/tmp")).exists());
    }
}

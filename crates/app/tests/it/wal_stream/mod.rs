//! `wal stream` under real PostgreSQL servers.

mod agent;
mod faults;
mod idle;
mod kills;
mod rpo;
mod silence;
mod timelines;

use crate::kit::Run;
use retoma_core::Secret;
use retoma_core::postgres::{Lsn, SegmentName, SegmentSize, TimelineId, WalFileName};
use retoma_repo::wal::{Archive, Listing};
use retoma_testkit::{PostgresOptions, PostgresServer, wait_for_long, wait_for_what};
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

const PROGRAM: &str = env!("CARGO_BIN_EXE_retoma");
const PASSWORD: &str = "a password for tests";
const SLOT: &str = "retoma_db";

/// A server with segments of 1 MiB and a manifest with two repositories; all of it, and the program, as the server's user.
pub(crate) struct Site {
    pub(crate) server: PostgresServer,
}

impl Site {
    /// `None` where PostgreSQL is not installed. `wal` are lines of `[component.wal]`.
    pub(crate) fn start(wal: &str, conf: &[&str]) -> Option<Self> {
        Self::start_with(wal, conf, 1)
    }

    /// With segments of so many MiB.
    pub(crate) fn start_with(wal: &str, conf: &[&str], segment_mib: u64) -> Option<Self> {
        let usual = ["max_wal_size = 64MB", "synchronous_commit = on", "wal_sender_timeout = 10s"];
        let options = PostgresOptions {
            initdb: vec![format!("--wal-segsize={segment_mib}")],
            conf: usual.iter().chain(conf).map(|line| (*line).to_owned()).collect(),
            ..PostgresOptions::default()
        };
        let site = Self { server: PostgresServer::start_with(&options)? };
        site.server.write(&site.home().join("password"), PASSWORD, 0o600);
        site.server.write(&site.home().join("notes"), "a file", 0o600);
        site.write_manifest(&site.server.url(), wal);
        site.retoma(&["backup", "notes"]).expect(0);
        Some(site)
    }

    pub(crate) fn write_manifest(&self, url: &str, wal: &str) {
        let repository = |name: &str| {
            let folder = self.home().join(name);
            let folder = folder.display();
            format!(
                "[[repository]]\nname = \"{name}\"\nurl = \"file://{folder}\"\npassword = \"file:password\"\n"
            )
        };
        let manifest = format!(
            "version = 1\n[service]\nname = \"shop\"\n{}{}\
             [[component]]\nname = \"db\"\nkind = \"postgres\"\ntier = \"critical\"\nurl = \"{url}\"\n\
             [component.wal]\n{wal}\n\
             [[component]]\nname = \"notes\"\nkind = \"files\"\ntier = \"high\"\npath = \"notes\"\n",
            repository("near"),
            repository("far"),
        );
        self.server.write(&self.home().join("retoma.toml"), &manifest, 0o600);
    }

    /// The folder that belongs to the server's user.
    pub(crate) fn home(&self) -> PathBuf {
        self.server.socket_dir()
    }

    /// The program with its manifest, as a line for a shell.
    pub(crate) fn line(&self) -> String {
        format!("{PROGRAM} -q -f {}", self.home().join("retoma.toml").display())
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> std::process::Command {
        let mut command = self.server.command(PROGRAM);
        command.env("HOME", self.home());
        command.args(["-f"]).arg(self.home().join("retoma.toml")).args(arguments);
        command
    }

    pub(crate) fn retoma(&self, arguments: &[&str]) -> Run {
        let output = self.command(arguments).output().unwrap();
        Run::new(format!("retoma {}", arguments.join(" ")), &output)
    }

    /// Starts a stream; it need not be connected yet.
    pub(crate) fn stream(&self, name: &str) -> Stream {
        let (events, errors) =
            (self.home().join(format!("{name}.out")), self.home().join(format!("{name}.err")));
        let mut command = self.command(&["wal", "stream", "db", "--json"]);
        command.stdin(Stdio::null());
        command.stdout(fs::File::create(&events).unwrap()).stderr(fs::File::create(&errors).unwrap());
        Stream { child: Some(command.spawn().unwrap()), events, errors }
    }

    /// Starts a stream and waits until it is connected.
    pub(crate) fn streaming(&self) -> Stream {
        let stream = self.stream("stream");
        stream.wait_for("the stream to connect", |event| event["event"] == "connected");
        stream
    }

    pub(crate) fn pgbench(&self, arguments: &[&str]) {
        let all = self.pgbench_arguments(arguments);
        self.server.run("pgbench", &all);
    }

    /// pgbench in the background, with so many clients; until it is killed.
    pub(crate) fn start_pgbench(&self, clients: u32) -> Child {
        let mut pgbench = self.server.command("pgbench");
        let clients = clients.to_string();
        pgbench.args(self.pgbench_arguments(&["-n", "-c", &clients, "-T", "3600"]));
        pgbench.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap()
    }

    pub(crate) fn pgbench_arguments(&self, arguments: &[&str]) -> Vec<String> {
        let mut all = vec!["-h".to_owned(), self.home().display().to_string()];
        all.extend(["-p".to_owned(), self.server.port().to_string()]);
        all.extend(
            ["-U", "postgres"].iter().chain(arguments).chain(&["postgres"]).map(|word| (*word).to_owned()),
        );
        all
    }

    pub(crate) fn current(&self) -> String {
        self.server.psql("SELECT pg_current_wal_lsn()")
    }

    /// Waits until the stream has told the server that all that is written now is durable.
    pub(crate) fn shipped(&self) -> Lsn {
        self.shipped_within(retoma_testkit::PATIENCE)
    }

    /// The same, after what takes long to catch up with.
    pub(crate) fn shipped_within(&self, patience: Duration) -> Lsn {
        let lsn = self.current();
        wait_shipped(&self.server, &lsn, patience);
        lsn.parse().unwrap()
    }

    pub(crate) fn archive(&self, repository: &str) -> Archive {
        let url = format!("file://{}", self.home().join(repository).display());
        let opened =
            retoma_control::open::open_address(&url, &Secret::new(PASSWORD.to_owned()), false).unwrap();
        let server = fs::read(self.server.data_dir().join("global/pg_control")).unwrap();
        let server = u64::from_ne_bytes(server[..8].try_into().unwrap());
        Archive::new(&opened.repository, "db", server).unwrap()
    }

    /// That an archive has everything of a timeline from its first segment on to `until`, as the server has it.
    pub(crate) fn assert_whole(&self, repository: &str, until: Lsn) {
        let archive = self.archive(repository);
        let listing = archive.list(size()).unwrap();
        let number = size().number_of(until);
        let first = assert_no_gap(&listing, number);
        let folder = self.server.data_dir().join("pg_wal");
        let mut compared = 0;
        for number in first..=number {
            let name = SegmentName::new(TimelineId::FIRST, number, size()).unwrap();
            // The server removes what it no longer needs.
            let Ok(written) = fs::read(folder.join(name.to_string())) else { continue };
            let known = usize::try_from(until.0.min((number + 1) << 20) - (number << 20)).unwrap();
            let stored = archive.fetch_or_assemble(WalFileName::Segment(name)).unwrap();
            let stored = stored.unwrap_or_default();
            assert!(
                known == 0 || stored.get(..known) == Some(&written[..known]),
                "{name} in {repository} differs"
            );
            compared += 1;
        }
        assert!(compared > 0);
    }

    /// Backs the server up, as a snapshot that recovery begins from.
    pub(crate) fn back_up(&self) {
        self.retoma(&["backup", "db"]).expect(0);
    }

    /// A server on the newest snapshot that recovers all WAL that is stored, and is up.
    fn recovered(&self) -> PostgresServer {
        let target = self.home().join("restored");
        let shown = target.display().to_string();
        self.retoma(&["restore", "db", "--target", &shown, "--yes"]).expect(0);
        let mut restored = PostgresServer::restored(|data| {
            let status = std::process::Command::new("cp").arg("-a").arg(target.join(".")).arg(data).status();
            assert!(status.unwrap().success());
        })
        .unwrap();
        fs::remove_dir_all(&target).unwrap();
        restored.append_conf(&[
            format!(
                "restore_command = '{} wal fetch %f %p --component db --spool {}'",
                self.line(),
                self.home().join("spool").display()
            ),
            "archive_mode = off".to_owned(),
            "synchronous_standby_names = ''".to_owned(),
        ]);
        let auto = restored.data_dir().join("postgresql.auto.conf");
        restored.write(&auto, "", 0o600);
        restored.write(&restored.data_dir().join("recovery.signal"), "", 0o600);
        restored.go();
        wait_for_what("the end of recovery", || {
            (restored.psql("SELECT pg_is_in_recovery()") == "f").then_some(())
        });
        restored
    }

    pub(crate) fn rename(&self, from: &str, to: &str) {
        fs::rename(self.home().join(from), self.home().join(to)).unwrap();
    }

    /// Both repositories are no longer there.
    pub(crate) fn take_away(&self) {
        self.rename("near", "near-away");
        self.rename("far", "far-away");
    }

    pub(crate) fn bring_back(&self) {
        // As at a mount point: what was stored there while the disk was away is nobody's.
        for name in ["near", "far"].map(|name| self.home().join(name)) {
            assert!(!name.join("config").exists(), "a repository that is away was made anew");
            fs::remove_dir_all(name).ok();
        }
        self.rename("near-away", "near");
        self.rename("far-away", "far");
    }
}

/// Waits until a server was told that everything before `lsn` is durable.
pub(crate) fn wait_shipped(server: &PostgresServer, lsn: &str, patience: Duration) {
    let sql = format!(
        "SELECT count(*) FROM pg_replication_slots WHERE slot_name = '{SLOT}' AND restart_lsn >= '{lsn}'"
    );
    wait_for_long("everything to be shipped", patience, || (server.psql(&sql) == "1").then_some(()));
}

/// A running `wal stream`. Dropping it kills it.
pub(crate) struct Stream {
    child: Option<Child>,
    events: PathBuf,
    errors: PathBuf,
}

impl Stream {
    /// What it has told.
    pub(crate) fn events(&self) -> Vec<Value> {
        let text = fs::read_to_string(&self.events).unwrap();
        // The last line may be half.
        text.split_inclusive('\n')
            .filter(|line| line.ends_with('\n'))
            .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
            .collect()
    }

    #[track_caller]
    pub(crate) fn wait_for(&self, what: &str, is_it: impl Fn(&Value) -> bool) -> Value {
        wait_for_what(what, || self.events().into_iter().find(|event| is_it(event)))
    }

    pub(crate) fn wait_for_alarm(&self, state: &str, alarm: &str) -> Value {
        self.wait_for(alarm, |event| event["event"] == state && event["alarm"] == alarm)
    }

    pub(crate) fn errors(&self) -> String {
        fs::read_to_string(&self.errors).unwrap()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.as_ref().unwrap().id()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.kill_now();
    }

    fn kill_now(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// SIGTERM; gives its exit code.
    pub(crate) fn stop(mut self) -> Option<i32> {
        let mut child = self.child.take().unwrap();
        let pid = rustix::process::Pid::from_child(&child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        wait_for_what("the stream to stop", || child.try_wait().unwrap()).code()
    }

    /// Waits for an end that nobody asked for.
    pub(crate) fn ended(mut self) -> (Option<i32>, String) {
        let mut child = self.child.take().unwrap();
        let status = wait_for_what("the stream to end", || child.try_wait().unwrap());
        (status.code(), self.errors())
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.kill_now();
    }
}

pub(crate) fn size() -> SegmentSize {
    SegmentSize::new(1 << 20).unwrap()
}

/// That whole segments and full parts join up to the segment `last`; gives the first one.
fn assert_no_gap(listing: &Listing, last: u64) -> u64 {
    let stored = &listing.timelines[&TimelineId::FIRST];
    let parts = stored.parts.keys().next().copied();
    let first = stored.segments.first().or(parts).unwrap();
    if last > first {
        // The one before the last may be whole in parts alone, when a stream was just killed.
        let missing = stored.segments.missing(first, last - 1);
        let full = |number: u64| u64::from(stored.known_bytes(number)) == size().bytes();
        let missing: Vec<_> = missing.iter().filter(|(from, to)| !(*from..=*to).all(full)).collect();
        assert!(missing.is_empty(), "segments {missing:?} of {first} to {last} are missing");
    }
    first
}

/// A number from the environment, for long runs.
pub(crate) fn setting(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

/// Whether a file lies below `folder` whose name ends so.
fn has_file(folder: &Path, ending: &str) -> bool {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut paths = entries.map(|entry| entry.path());
    paths.any(|path| path.is_dir() && has_file(&path, ending) || path.to_string_lossy().ends_with(ending))
}

//! SQLite: captured beside writers, through a repository and back.

mod capture;
mod check;
mod concurrent;
mod dedup;
mod refused;
mod target;

use retoma_repo::backup::{Options, Progress, Summary, backup};
use retoma_repo::format::BlobKind;
use retoma_repo::format::tree::Node;
use retoma_repo::{Repository, SnapshotId};
use retoma_sources::sqlite::{self, CaptureFacts, SqliteSource};
use retoma_testkit::{Folder, repository};
use rusqlite::Connection;
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

/// Short enough for tests that wait for it.
fn quick() -> sqlite::Options {
    sqlite::Options { busy_timeout: Duration::from_millis(50), query_timeout: Duration::from_millis(200) }
}

/// A repository in a folder of its own.
struct Home {
    folder: Folder,
    repository: Repository,
}

impl Home {
    fn new() -> Self {
        let folder = Folder::new();
        let repository = repository(&folder);
        Self { folder, repository }
    }

    /// Backs up one database; everything in it was readable.
    fn back_up(&self, path: &Path, parent: Option<SnapshotId>) -> Summary {
        // Writers without a pause can keep a reader out for seconds on a busy machine.
        let patient = sqlite::Options { busy_timeout: Duration::from_mins(1), ..quick() };
        let mut source = SqliteSource::open_with(path, patient).unwrap();
        let options = Options { parent, paths: vec![path.display().to_string()], ..Options::default() };
        let summary = backup(&self.repository, &mut source, &options, &Progress::default()).unwrap();
        assert!(summary.unreadable.is_empty(), "{:?}", summary.unreadable);
        summary
    }

    fn facts(&self, summary: &Summary) -> CaptureFacts {
        let index = self.repository.load_index().unwrap();
        sqlite::facts_of(&self.repository, &index, &summary.tree).unwrap().unwrap()
    }

    /// The node at `path`.
    fn node(&self, summary: &Summary, path: &Path) -> Node {
        let index = self.repository.load_index().unwrap();
        let (mut tree, mut found) = (Some(summary.tree), None);
        for part in path.components().filter(|part| matches!(part, Component::Normal(_))) {
            let nodes = self.repository.read_tree(&index, &tree.unwrap()).unwrap();
            let name = part.as_os_str().as_encoded_bytes();
            let node = nodes.into_iter().find(|node| node.name == name);
            tree = node.as_ref().unwrap().subtree;
            found = node;
        }
        found.unwrap()
    }

    /// Writes the captured database to a new file and gives its path.
    fn restore(&self, summary: &Summary, path: &Path) -> PathBuf {
        let index = self.repository.load_index().unwrap();
        let mut bytes = Vec::new();
        let node = self.node(summary, path);
        for id in &node.content {
            bytes.extend(self.repository.read_blob(&index, BlobKind::Data, id).unwrap());
        }
        assert_eq!(bytes.len() as u64, node.size_bytes);
        let target = self.folder.join(format!("restored-{}", summary.snapshot));
        std::fs::write(&target, bytes).unwrap();
        target
    }

    /// Backs up, restores, and checks the copy against the facts; gives a connection to it.
    fn round_trip(&self, path: &Path) -> Connection {
        let summary = self.back_up(path, None);
        let copy = self.restore(&summary, path);
        let report = sqlite::check(&copy, Some(&self.facts(&summary)), &[], quick()).unwrap();
        assert!(report.passed(), "{report:?}");
        Connection::open(copy).unwrap()
    }
}

/// A new database, after `sql`.
fn database(path: &Path, sql: &str) -> Connection {
    let connection = Connection::open(path).unwrap();
    connection.busy_timeout(Duration::from_secs(30)).unwrap();
    connection.execute_batch(sql).unwrap();
    connection
}

fn number(connection: &Connection, sql: &str) -> i64 {
    connection.query_row(sql, (), |row| row.get(0)).unwrap()
}

/// A program's environment variable that makes this test binary play another process.
const CHILD: &str = "RETOMA_TEST_SQLITE_CHILD";

/// This test binary again, as a process that runs the test `name` on `path`; see [`CHILD`].
fn child(name: &str, path: &Path) -> std::process::Command {
    let mut command = std::process::Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", name, "--nocapture"]).env(CHILD, path);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    command
}

/// A child that is killed when the test ends, whichever way.
struct Killed(std::process::Child);

impl Killed {
    /// Starts it and waits until it says `ready`.
    fn start(mut command: std::process::Command) -> Self {
        use std::io::BufRead as _;
        let mut process = command.spawn().unwrap();
        let output = process.stdout.take().unwrap();
        let killed = Self(process);
        // `read_line` ends with the process, so this wait has an end.
        let mut lines = std::io::BufReader::new(output).lines();
        assert!(lines.any(|line| line.unwrap().ends_with("ready")), "the child ended");
        killed
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

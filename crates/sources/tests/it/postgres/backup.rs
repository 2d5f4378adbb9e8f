//! A physical backup under load, and the server that comes back from it.

use retoma_repo::backup::{Options, Progress, Summary, backup};
use retoma_repo::{Repository, SnapshotId, restore};
use retoma_sources::postgres::wire::Address;
use retoma_sources::postgres::{PostgresFacts, PostgresSource, Previous, facts_of};
use retoma_testkit::postgres::StopMode;
use retoma_testkit::{Folder, PostgresServer, repository};
use std::path::Path;
use std::process::{Child, Stdio};

pub(super) struct Home {
    pub(super) folder: Folder,
    pub(super) repository: Repository,
}

impl Home {
    pub(super) fn new() -> Self {
        let folder = Folder::new();
        let repository = repository(&folder);
        Self { folder, repository }
    }

    pub(super) fn back_up(
        &self,
        server: &PostgresServer,
        parent: Option<&Summary>,
    ) -> (Summary, PostgresFacts) {
        let index = self.repository.load_index().unwrap();
        let previous = parent.and_then(|it| Previous::of(&self.repository, &index, &it.tree).unwrap());
        assert_eq!(previous.is_some(), parent.is_some());
        let address = Address::of_process(&server.socket_url()).unwrap();
        let mut source = PostgresSource::begin(&address, previous).unwrap();
        let parent: Option<SnapshotId> = parent.map(|summary| summary.snapshot);
        let options = Options { parent, ..Options::default() };
        let summary = backup(&self.repository, &mut source, &options, &Progress::default()).unwrap();
        let facts = source.facts().clone();
        let index = self.repository.load_index().unwrap();
        assert_eq!(facts_of(&self.repository, &index, &summary.tree).unwrap(), Some(facts.clone()));
        (summary, facts)
    }

    /// Puts the data directory of a snapshot into `target`.
    fn restore(&self, summary: &Summary, facts: &PostgresFacts, target: &Path) {
        let index = self.repository.load_index().unwrap();
        let data = facts.server.data_directory.clone().into_bytes();
        let options = restore::Options {
            paths: vec![data.clone()],
            strip: Some(data),
            root_metadata: true,
            ..restore::Options::default()
        };
        let plan = restore::plan(&self.repository, &index, summary.tree, &options, target).unwrap();
        let outcome = restore::apply(plan, &Progress::default()).unwrap();
        assert!(outcome.failed.is_empty(), "{:?}", outcome.failed);
    }

    pub(super) fn server(&self, summary: &Summary, facts: &PostgresFacts) -> PostgresServer {
        PostgresServer::restored(|data| self.restore(summary, facts, data)).unwrap()
    }
}

/// `pgbench`, running until it is dropped.
pub(super) struct Load(Child);

impl Load {
    /// Begins, and waits until there was some.
    pub(super) fn start(server: &PostgresServer) -> Self {
        let load = Self::spawn(server);
        retoma_testkit::wait_for(|| {
            (server.psql("SELECT count(*) > 20 FROM pgbench_history") == "t").then_some(())
        });
        load
    }

    fn spawn(server: &PostgresServer) -> Self {
        let mut command = server.command("pgbench");
        command.args(["-n", "-c", "4", "-T", "600", "-h"]).arg(server.socket_dir());
        command.args(["-p", &server.port().to_string(), "-U", "postgres", "postgres"]);
        Self(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// What holds for `pgbench`'s tables after every transaction.
fn assert_sums_agree(server: &PostgresServer) -> u64 {
    let sums = server.psql(
        "SELECT (SELECT coalesce(sum(delta), 0) FROM pgbench_history), (SELECT sum(abalance) FROM pgbench_accounts), \
         (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT sum(bbalance) FROM pgbench_branches)",
    );
    let sums: Vec<&str> = sums.split('|').collect();
    assert!(sums.iter().all(|sum| *sum == sums[0]), "{sums:?}");
    server.psql("SELECT count(*) FROM pgbench_history").parse().unwrap()
}

pub(super) fn with_pgbench() -> Option<PostgresServer> {
    let server = PostgresServer::start()?;
    let port = server.port().to_string();
    let socket = server.socket_dir().display().to_string();
    server.run("pgbench", &["-i", "-q", "-s", "2", "-h", &socket, "-p", &port, "-U", "postgres", "postgres"]);
    Some(server)
}

#[test]
fn a_server_comes_back_from_a_backup_under_load() {
    let Some(server) = with_pgbench() else { return };
    server.psql("CREATE UNLOGGED TABLE passing AS SELECT generate_series(1, 1000) AS n");
    let home = Home::new();
    let load = Load::start(&server);
    // What changed shortly before a backup is read again by the next one.
    let made = std::fs::metadata(server.data_dir().join("base/1/PG_VERSION")).unwrap().modified().unwrap();
    retoma_testkit::wait_for(|| (made.elapsed().unwrap().as_secs() >= 4).then_some(()));
    let (first, _) = home.back_up(&server, None);
    let (second, facts) = home.back_up(&server, Some(&first));
    drop(load);
    assert!(second.files_unchanged > 100, "{second:?}");
    assert!(first.unreadable.is_empty() && second.unreadable.is_empty(), "{first:?} {second:?}");

    assert_comes_back(home.server(&second, &facts));
    drop(home.folder);
}

/// The restored server is what its manifest lists, starts, and has no damage and all sums.
pub(super) fn assert_comes_back(mut restored: PostgresServer) {
    let data = restored.data_dir().display().to_string();
    let verified = restored.run("pg_verifybackup", &["--exit-on-error", &data]);
    assert!(String::from_utf8_lossy(&verified.stdout).contains("backup successfully verified"));
    restored.go();
    assert!(assert_sums_agree(&restored) > 20);
    assert_eq!(restored.psql("SELECT count(*) FROM passing"), "0");
    let (socket, port) = (restored.socket_dir().display().to_string(), restored.port().to_string());
    restored.psql("CREATE EXTENSION amcheck");
    restored.run("pg_amcheck", &["--heapallindexed", "-h", &socket, "-p", &port, "-U", "postgres", "--all"]);
    restored.stop(StopMode::Fast);
    restored.run("pg_checksums", &["--check", "-D", &data]);
}

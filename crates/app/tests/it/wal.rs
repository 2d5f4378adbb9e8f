//! `wal push` and `wal fetch` under a real PostgreSQL server, and what their exit codes say.

use crate::kit::Run;
use retoma_testkit::{PostgresOptions, PostgresServer, StopMode, wait_for_what};
use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;

pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_retoma");

/// A server that archives into a repository of its own, with segments of 1 MiB. All of it belongs to the server's user,
/// who also runs the program.
pub(crate) struct Site {
    pub(crate) server: PostgresServer,
}

impl Site {
    /// `None` where PostgreSQL is not installed.
    pub(crate) fn start() -> Option<Self> {
        Self::start_with(&[])
    }

    /// With further lines of `postgresql.conf`.
    pub(crate) fn start_with(conf: &[&str]) -> Option<Self> {
        let options = PostgresOptions {
            initdb: vec!["--wal-segsize=1".to_owned()],
            conf: [
                "archive_mode = on",
                "archive_command = '/bin/false'",
                "max_wal_size = 64MB",
                "wal_keep_size = 1GB",
            ]
            .iter()
            .chain(conf)
            .map(|line| (*line).to_owned())
            .collect(),
            ..PostgresOptions::default()
        };
        let site = Self { server: PostgresServer::start_with(&options)? };
        let server = &site.server;
        let home = site.home();
        server.write(&home.join("password"), "a password for tests", 0o600);
        server.write(&home.join("notes"), "a file", 0o600);
        let repository = |name: &str| {
            let url = home.join(name).display().to_string();
            format!(
                "[[repository]]\nname = \"{name}\"\nurl = \"file://{url}\"\npassword = \"file:password\"\n"
            )
        };
        let manifest = format!(
            "version = 1\n[service]\nname = \"shop\"\n{}{}\
             [[component]]\nname = \"db\"\nkind = \"postgres\"\ntier = \"critical\"\nurl = \"{}\"\n\
             [[component]]\nname = \"notes\"\nkind = \"files\"\ntier = \"high\"\npath = \"notes\"\n",
            repository("near"),
            repository("far"),
            server.url()
        );
        server.write(&home.join("retoma.toml"), &manifest, 0o600);
        site.retoma(&["backup", "notes"]).expect(0);
        Some(site)
    }

    /// The folder that belongs to the server's user.
    pub(crate) fn home(&self) -> PathBuf {
        self.server.socket_dir()
    }

    /// The program with its manifest, as a line for a shell.
    pub(crate) fn line(&self) -> String {
        format!("{PROGRAM} -q -f {}", self.home().join("retoma.toml").display())
    }

    pub(crate) fn archive(&self) {
        let command = format!("archive_command = '{} wal push %p --component db'", self.line());
        self.server.append_conf(&[command]);
        self.server.psql("SELECT pg_reload_conf()");
    }

    /// Runs the program as the server's user, in the data directory as the server does.
    pub(crate) fn retoma(&self, arguments: &[&str]) -> Run {
        let mut command = self.server.command(PROGRAM);
        command.current_dir(self.server.data_dir()).env("HOME", self.home());
        command.args(["-q", "-f"]).arg(self.home().join("retoma.toml")).args(arguments);
        Run::new(format!("retoma {}", arguments.join(" ")), &command.output().unwrap())
    }

    /// Finishes the current segment and waits until the server has archived everything.
    pub(crate) fn archived(&self) -> String {
        let last = self.server.psql(
            "CREATE TABLE IF NOT EXISTS ended (n int); INSERT INTO ended VALUES (1); \
             SELECT pg_walfile_name(pg_switch_wal())",
        );
        wait_for_what("everything to be archived", || {
            let done = self.server.psql("SELECT coalesce(last_archived_wal, '') FROM pg_stat_archiver");
            (done >= last).then_some(())
        });
        last
    }

    fn pgbench(&self, arguments: &[&str]) {
        let socket = self.home().display().to_string();
        let port = self.server.port().to_string();
        let all: Vec<&str> = ["-h", &socket, "-p", &port, "-U", "postgres"]
            .iter()
            .chain(arguments)
            .copied()
            .chain(["postgres"])
            .collect();
        self.server.run("pgbench", &all);
    }

    /// Names of the segments in `pg_wal`.
    pub(crate) fn segments(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.server.data_dir().join("pg_wal")).unwrap();
        let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        names.filter(|name| name.len() == 24).collect()
    }

    pub(crate) fn object(&self, repository: &str, name: &str) -> PathBuf {
        let server = self.server.psql("SELECT system_identifier FROM pg_control_system()");
        self.home().join(format!("{repository}/wal/db/{server}/{}/{name}", &name[..8]))
    }

    /// Copies the server, to be recovered by `wal fetch`.
    fn base_backup(&self) -> PathBuf {
        let copy = self.home().join("copy");
        let copied = copy.display().to_string();
        self.server.run(
            "pg_basebackup",
            &["-c", "fast", "-X", "none", "-d", &self.server.socket_url(), "-D", &copied],
        );
        copy
    }

    /// A server on the copy that recovers everything there is. It is not started.
    fn recovering(&self, copy: &std::path::Path) -> PostgresServer {
        let restored = PostgresServer::restored(|data| {
            let copied = std::process::Command::new("cp")
                .arg("-a")
                .arg(format!("{}/.", copy.display()))
                .arg(data)
                .status();
            assert!(copied.unwrap().success());
        });
        let restored = restored.unwrap();
        restored.append_conf(&[
            format!("restore_command = '{} wal fetch %f %p --component db'", self.line()),
            "archive_mode = off".to_owned(),
        ]);
        restored.write(&restored.data_dir().join("recovery.signal"), "", 0o600);
        restored
    }
}

const SUMS: &str = "SELECT (SELECT sum(abalance) FROM pgbench_accounts), (SELECT sum(bbalance) FROM pgbench_branches), \
                    (SELECT sum(tbalance) FROM pgbench_tellers), (SELECT sum(delta) FROM pgbench_history), \
                    (SELECT count(*) FROM pgbench_history)";

#[test]
fn a_server_archives_under_load_and_another_recovers_to_the_end() {
    let Some(site) = Site::start() else { return };
    site.pgbench(&["-i", "-q", "-s", "2"]);
    site.archive();
    let copy = site.base_backup();
    site.pgbench(&["-c", "4", "-t", "2000"]);
    let sums = site.server.psql(SUMS);
    let last = site.archived();

    // Every segment is what the server wrote, in each repository.
    let segments: Vec<String> = site.segments().into_iter().filter(|name| *name <= last).collect();
    assert!(segments.len() > 10, "{segments:?}");
    let server = site.server.psql("SELECT system_identifier FROM pg_control_system()");
    for repository in ["near", "far"] {
        for name in &segments {
            let target = site.home().join("fetched");
            let target = target.display().to_string();
            let arguments = [
                "-r",
                repository,
                "wal",
                "fetch",
                name,
                &target,
                "--component",
                "db",
                "--system-identifier",
                &server,
            ];
            site.retoma(&arguments).expect(0);
            let written = fs::read(site.server.data_dir().join("pg_wal").join(name)).unwrap();
            assert!(fs::read(&target).unwrap() == written, "{name} in {repository} differs");
        }
    }
    let checked = site.retoma(&["wal", "check", "--json"]).expect(0).document();
    assert_eq!(checked["servers"][0]["gaps"].as_array().unwrap().len(), 0, "{checked:#}");

    let mut restored = site.recovering(&copy);
    restored.go();
    wait_for_what("the end of recovery", || {
        (restored.psql("SELECT pg_is_in_recovery()") == "f").then_some(())
    });
    assert_eq!(restored.psql(SUMS), sums);
    assert_eq!(restored.psql("SELECT timeline_id FROM pg_control_checkpoint()"), "2");
    restored.stop(StopMode::Fast);
}

#[test]
fn without_its_repository_a_server_does_not_end_its_recovery() {
    let Some(site) = Site::start() else { return };
    site.archive();
    let copy = site.base_backup();
    site.pgbench(&["-i", "-q", "-s", "1"]);
    site.archived();
    let restored = site.recovering(&copy);
    // The disk is not mounted.
    fs::rename(site.home().join("near"), site.home().join("away")).unwrap();
    let mut start = restored.command("postgres");
    start
        .arg("-D")
        .arg(restored.data_dir())
        .args(["-p", &restored.port().to_string(), "-k"])
        .arg(restored.socket_dir());
    let output = start.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("exit code 200") && said.contains("R0201"), "{said}");
    assert!(!said.contains("archive recovery complete"), "{said}");
}

#[test]
fn the_exit_codes_of_a_fetch_tell_absence_from_ignorance() {
    let Some(site) = Site::start() else { return };
    site.archive();
    site.pgbench(&["-i", "-q", "-s", "1"]);
    let last = site.archived();
    let target = site.server.data_dir().join("pg_wal/RECOVERYXLOG");
    let fetch = |more: &[&str]| {
        let path = target.display().to_string();
        let all: Vec<&str> = ["wal", "fetch", &last, &path, "--component", "db", "--no-spool"]
            .iter()
            .chain(more)
            .copied()
            .collect();
        site.retoma(&all)
    };
    fetch(&[]).expect(0);
    fs::remove_file(&target).unwrap();
    // Another server has nothing here.
    let none = fetch(&["--system-identifier", "12345", "--json"]).expect(1).document();
    assert_eq!((&none["source"], &none["schema"]), (&serde_json::Value::Null, &"retoma.wal/1".into()));
    // Wrong usage must not look like the end of the archive.
    for wrong in [&["--wrong"][..], &["--manifest", "/nowhere"], &["-r", "third"], &["--component", "notes"]]
    {
        fetch(wrong).expect(200);
    }
    assert!(!target.exists());
    // Damaged here, whole there.
    let object = site.object("near", &last);
    let whole = fs::read(&object).unwrap();
    let mut damaged = whole.clone();
    damaged[whole.len() / 2] ^= 1;
    fs::write(&object, &damaged).unwrap();
    fetch(&[]).expect(0);
    fs::remove_file(&target).unwrap();
    let alone = fetch(&["-r", "near"]).expect(200);
    assert!(alone.stderr.contains("R0203") && alone.stderr.contains(&last), "{}", alone.text());
    // Gone here, and there nobody answers.
    fs::remove_file(&object).unwrap();
    let far = site.home().join("far");
    fs::rename(&far, site.home().join("away")).unwrap();
    fetch(&[]).expect(200);
    fs::rename(site.home().join("away"), &far).unwrap();
    fetch(&[]).expect(0);
    fs::remove_file(site.object("far", &last)).unwrap();
    fs::remove_file(&target).unwrap();
    fetch(&[]).expect(1);
    assert!(!target.exists());
}

#[test]
fn a_push_is_refused_when_it_would_replace_or_mix() {
    let Some(site) = Site::start() else { return };
    site.archive();
    let last = site.archived();
    let own = site.server.data_dir().join("pg_wal").join(&last);
    let push = |path: &std::path::Path, more: &[&str]| {
        let path = path.display().to_string();
        let all: Vec<&str> =
            ["wal", "push", &path, "--component", "db"].iter().chain(more).copied().collect();
        site.retoma(&all)
    };
    assert_eq!(push(&own, &["--json", "--no-spool"]).expect(0).document()["stored"], "same");
    // Other contents.
    let other = site.home().join(&last);
    let mut bytes = fs::read(&own).unwrap();
    bytes[5000] ^= 1;
    site.server.write(&other, "", 0o600);
    fs::write(&other, &bytes).unwrap();
    let refused = push(&other, &[]).expect(1);
    assert!(refused.stderr.contains("R0422"), "{}", refused.text());
    // Another server.
    let foreign = push(&own, &["--system-identifier", "12345"]).expect(1);
    assert!(foreign.stderr.contains("R0421") && foreign.stderr.contains("not `12345`"), "{}", foreign.text());
    // Nobody says whose history this is.
    let history = site.home().join("00000002.history");
    site.server.write(&history, "1\t0/3000000\tx\n", 0o600);
    assert!(push(&history, &[]).expect(1).stderr.contains("R0420"));
    // One repository alone is not what success would promise.
    assert!(push(&own, &["-r", "near"]).expect(1).stderr.contains("R0002"));
    // A repository is gone: not durable everywhere.
    fs::rename(site.home().join("far"), site.home().join("away")).unwrap();
    push(&own, &["--no-spool"]).expect(10);
}

#[test]
fn what_waits_is_done_ahead_and_the_calls_that_follow_need_no_repository() {
    let Some(site) = Site::start() else { return };
    // The archive fails while segments pile up.
    site.pgbench(&["-i", "-q", "-s", "1"]);
    let folder = site.server.data_dir().join("pg_wal");
    site.server.psql("CREATE TABLE t (n int); INSERT INTO t VALUES (1); SELECT pg_switch_wal()");
    let ready = fs::read_dir(folder.join("archive_status")).unwrap();
    let ready = ready.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let waiting: BTreeSet<String> =
        ready.filter_map(|name| Some(name.strip_suffix(".ready")?.to_owned())).collect();
    let waiting: Vec<String> = waiting.into_iter().collect();
    assert!(waiting.len() > 3, "{waiting:?}");
    let ahead = waiting.len().min(33) - 1;
    let push = |name: &str| {
        let path = folder.join(name).display().to_string();
        site.retoma(&["wal", "push", &path, "--component", "db", "--json"])
    };
    let first = push(&waiting[0]).expect(0).document();
    assert_eq!((&first["stored"], &first["ahead"]), (&"new".into(), &ahead.into()));
    // Nothing can be opened now, and an acknowledgement needs no key.
    let (password, away) = (site.home().join("password"), site.home().join("password-away"));
    fs::rename(&password, &away).unwrap();
    let second = push(&waiting[1]).expect(0).document();
    assert_eq!((&second["stored"], &second["ahead"]), (&"ahead".into(), &0.into()));
    // Once told, it is looked at again.
    assert_eq!(push(&waiting[1]).expect(1).document()["code"], "R0102");
    fs::rename(&away, &password).unwrap();
    // What is no longer there is stored again, whatever was acknowledged.
    fs::remove_file(site.object("far", &waiting[2])).unwrap();
    assert_eq!(push(&waiting[2]).expect(0).document()["stored"], "new");
    assert!(site.object("far", &waiting[2]).exists());
    let fetch = |name: &str| {
        let target = folder.join("RECOVERYXLOG").display().to_string();
        site.retoma(&["wal", "fetch", name, &target, "--component", "db", "--json"])
    };
    assert_eq!(fetch(&waiting[0]).expect(0).document()["source"], "repository");
    fs::rename(site.home().join("near"), site.home().join("near-away")).unwrap();
    assert_eq!(fetch(&waiting[1]).expect(0).document()["source"], "spool");
    assert!(fs::read(folder.join("RECOVERYXLOG")).unwrap() == fs::read(folder.join(&waiting[1])).unwrap());
    fetch("00000009.history").expect(200);
}

#[test]
fn a_missing_segment_is_named_and_ends_a_recovery() {
    let Some(site) = Site::start() else { return };
    site.archive();
    let first = site.archived();
    let middle = site.archived();
    let last = site.archived();
    assert!(first < middle && middle < last);
    for repository in ["near", "far"] {
        fs::remove_file(site.object(repository, &middle)).unwrap();
    }
    let found = site.retoma(&["wal", "check", "--json"]).expect(4).document();
    let gaps = &found["servers"][0]["gaps"];
    assert_eq!(gaps.as_array().unwrap().len(), 1, "{found:#}");
    assert_eq!((&gaps[0]["first"], &gaps[0]["segments"]), (&middle.clone().into(), &1.into()));
    let text = site.retoma(&["wal", "check", "--component", "db"]).expect(4);
    assert!(text.stdout.contains(&format!("missing: {middle} to {middle} (1 segment)")), "{}", text.text());
}

#[test]
fn wal_before_the_first_snapshot_that_is_left_goes_and_the_rest_recovers() {
    let Some(site) = Site::start() else { return };
    site.archive();
    let back_up = || {
        site.server.psql("CREATE TABLE IF NOT EXISTS t (n int); INSERT INTO t VALUES (1)");
        site.archived();
        let document = site.retoma(&["backup", "db", "--json"]).expect(0).document();
        document["backups"][0]["snapshot"].as_str().unwrap().to_owned()
    };
    let first = back_up();
    back_up();
    site.server.psql("INSERT INTO t VALUES (1)");
    site.archived();
    let count = || fs::read_dir(site.object("near", &site.archived()).parent().unwrap()).unwrap().count();
    let kept = site.retoma(&["prune", "--grace", "0s", "--yes", "--json"]).expect(0).document();
    assert!(
        kept["wal"][0]["delete_objects"].as_u64().unwrap() >= 1,
        "what was before the first snapshot: {kept:#}"
    );
    let nothing = site.retoma(&["prune", "--grace", "0s", "--yes", "--json"]).expect(0).document();
    assert_eq!(nothing["wal"][0]["delete_objects"], 0, "{nothing:#}");
    let before = count();

    site.retoma(&["forget", "--yes", "--snapshot", &first]).expect(0);
    let noted = site.retoma(&["prune", "--yes", "--json"]).expect(0).document();
    assert_eq!(
        (&noted["wal"][0]["delete_objects"], &noted["wal"][0]["notes_floor"]),
        (&0.into(), &true.into())
    );
    let pruned = site.retoma(&["prune", "--grace", "0s", "--yes", "--json"]).expect(0).document();
    assert!(pruned["done"]["removed_wal_objects"].as_u64().unwrap() >= 1, "{pruned:#}");
    assert!(count() < before + 1);
    site.retoma(&["wal", "check"]).expect(0);
    let target = site.home().join("recovered").display().to_string();
    let recovered = site.retoma(&["recover", "--only", "db", "--to", &target, "--json"]).expect(0).document();
    assert_eq!(recovered["passed"], true, "{recovered:#}");
}

//! Drills of a PostgreSQL server: what breaks is a copy; the live server and its repository stay as they are.

use crate::kit::Run;
use crate::wal::PROGRAM;
use retoma_testkit::{PostgresOptions, PostgresServer};
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// A server with a table, a manifest that protects it, and one backup.
struct Shop {
    server: PostgresServer,
}

impl Shop {
    /// `wal` is the value of `mode`. `None` without PostgreSQL.
    fn open(wal: &str) -> Option<Self> {
        let options =
            PostgresOptions { initdb: vec!["--wal-segsize=1".to_owned()], ..PostgresOptions::default() };
        let server = PostgresServer::start_with(&options)?;
        server.psql(
            "CREATE TABLE orders AS SELECT n AS id, 'order ' || n AS what FROM generate_series(1, 3000) AS n; \
             CREATE TABLE lines AS SELECT n AS id FROM generate_series(1, 20) AS n",
        );
        let shop = Self { server };
        fs::create_dir(shop.home()).unwrap();
        fs::write(shop.home().join("password"), "a password").unwrap();
        fs::set_permissions(shop.home().join("password"), fs::Permissions::from_mode(0o600)).unwrap();
        let repository = shop.home().join("repository").display().to_string();
        let text = format!(
            "version = 1\n[service]\nname = \"shop\"\nstart = [\"false\"]\nhealth = \"http://127.0.0.1:9/\"\n\
             [[repository]]\nname = \"near\"\nurl = \"file://{repository}\"\npassword = \"file:password\"\n\
             [[component]]\nname = \"db\"\nkind = \"postgres\"\ntier = \"critical\"\nurl = \"{}\"\n\
             [component.wal]\nmode = \"{wal}\"\n\
             [[component.check]]\nsql = \"SELECT count(*) FROM orders\"\nexpect = \"3000\"\n\
             [[component]]\nname = \"notes\"\nkind = \"files\"\ntier = \"low\"\npath = \"password\"\n",
            shop.server.socket_url()
        );
        fs::write(shop.home().join("retoma.toml"), text).unwrap();
        shop.retoma(&["backup"]).expect(0);
        Some(shop)
    }

    fn home(&self) -> PathBuf {
        self.server.folder().join("home")
    }

    fn retoma(&self, arguments: &[&str]) -> Run {
        let mut command = Command::new(PROGRAM);
        command.args(["-q", "--yes", "--json", "-f"]).arg(self.home().join("retoma.toml")).args(arguments);
        Run::new(format!("retoma {}", arguments.join(" ")), &command.output().unwrap())
    }

    /// Runs a drill that must be green, and looks whether the live server is untouched.
    fn drill(&self, scenario: &str) -> Value {
        let snapshots = fs::read_dir(self.home().join("repository/snapshots")).unwrap().count();
        let run = self.retoma(&["drill", scenario, "--component", "db"]);
        let report = run.expect(0).document();
        assert_eq!(report["verdict"], "green", "{report:#}");
        assert_eq!(self.server.psql("SELECT count(*) FROM orders"), "3000");
        assert_eq!(self.server.psql("SELECT to_regclass('retoma_markers') IS NULL"), "t");
        assert_eq!(self.server.psql("SELECT count(*) FROM pg_replication_slots"), "0");
        assert_eq!(fs::read_dir(self.home().join("repository/snapshots")).unwrap().count(), snapshots);
        report
    }
}

fn steps(report: &Value) -> Vec<&str> {
    report["waterfall"].as_array().unwrap().iter().map(|step| step["name"].as_str().unwrap()).collect()
}

fn controls(report: &Value) -> Vec<(&str, Option<&str>)> {
    let all = report["controls"].as_array().unwrap().iter();
    all.map(|it| (it["name"].as_str().unwrap(), it["found_code"].as_str())).collect()
}

fn check<'v>(report: &'v Value, name: &str) -> &'v Value {
    let checks = report["components"][0]["checks"].as_array().unwrap();
    checks.iter().find(|check| check["name"].as_str().unwrap().contains(name)).unwrap()
}

#[test]
fn a_server_that_is_lost_under_load_comes_back_with_its_stream() {
    let Some(shop) = Shop::open("stream") else { return };
    let report = shop.drill("database-failure");
    let component = &report["components"][0];
    assert_eq!(
        steps(&report),
        [
            "detect",
            "decide",
            "fetch",
            "check",
            "replay",
            "start",
            "check",
            "start",
            "cut_over",
            "first_write"
        ]
    );
    assert!(component["markers_written"].as_u64().unwrap() >= 50, "{component}");
    // Streamed: at most what was on its way.
    assert!(component["rpo_measured_seconds"].as_f64().unwrap() <= 5.0, "{component}");
    assert!(component["rpo_worst_case_seconds"].as_f64().unwrap() < 60.0, "{component}");
    assert_eq!(component["rows"], 3020);
    assert_eq!(
        controls(&report),
        [
            ("untouched copy", None),
            ("flipped byte in a pack", Some("R0203")),
            ("missing pack", Some("R0209")),
            ("truncated snapshot", Some("R0204")),
            ("wrong key", Some("R0202")),
            ("changed file", Some("R0703")),
            ("empty database", Some("R0403")),
            ("database of zero bytes", Some("R0403")),
            ("missing row", Some("R0703")),
            ("whole WAL", None),
            ("missing segment of WAL", Some("R0423")),
            ("tables without rows", Some("R0703")),
            ("pages of the recovered server", None),
            ("bad page", Some("R0414")),
        ]
    );
    assert_eq!(check(&report, "rows against the server")["outcome"], "passed");
    assert!(report["not_proven"].to_string().contains("it was not started"), "{report:#}");
}

/// The scratch copy's tablespaces lie in the scratch folder, and the original's are not touched.
#[test]
fn a_server_with_a_tablespace_is_drilled_without_touching_it() {
    let Some(shop) = Shop::open("stream") else { return };
    let space = tablespace(&shop.server, "space");
    shop.server.psql(
        "ALTER TABLE lines SET TABLESPACE \"space\"; CREATE TABLE quick TABLESPACE \"space\" AS \
         SELECT n FROM generate_series(1, 1000) AS n; ALTER SYSTEM SET autovacuum = off; SELECT pg_reload_conf()",
    );
    shop.server.psql("VACUUM FREEZE");
    shop.retoma(&["backup", "db"]).expect(0);
    shop.server.psql("CHECKPOINT");
    let before = crate::kit::tree(&space);
    assert!(before.len() > 3, "{:?}", before.keys());
    // What a recovery in place that was killed left is named.
    let version = fs::read_dir(&space).unwrap().next().unwrap().unwrap().path();
    let left = version.with_extension("retoma-new");
    fs::create_dir(&left).unwrap();
    let said = shop.retoma(&["doctor"]).text();
    let name = left.file_name().unwrap().to_str().unwrap();
    assert!(said.contains(&format!("{name}` was left by a recovery")), "{said}");
    fs::remove_dir(&left).unwrap();
    for scenario in ["database-failure", "drop-table"] {
        let report = shop.drill(scenario);
        assert_eq!(report["components"][0]["rows"], 4020);
        assert!(crate::kit::tree(&space) == before, "the original's tablespace was touched by {scenario}");
    }
}

/// A folder for a tablespace of this name, and the tablespace.
pub(crate) fn tablespace(server: &PostgresServer, name: &str) -> PathBuf {
    let space = server.folder().join(name);
    assert!(server.command("/bin/mkdir").arg(server.socket_dir().join(name)).status().unwrap().success());
    fs::rename(server.socket_dir().join(name), &space).unwrap();
    server.psql(&format!("CREATE TABLESPACE \"{name}\" LOCATION '{}'", space.display()));
    space
}

/// Whoever replays that a tablespace is made writes into its folder: the live server's.
#[test]
fn a_tablespace_that_only_the_wal_knows_is_not_taken_over() {
    let Some(site) = crate::wal::Site::start() else { return };
    site.archive();
    let server = &site.server;
    server.psql("CREATE TABLE t AS SELECT 1 AS n");
    site.archived();
    site.retoma(&["backup", "db"]).expect(0);
    server.psql("INSERT INTO t VALUES (2)");
    site.archived();
    let space = tablespace(server, "late");
    server.psql("CREATE TABLE elsewhere TABLESPACE \"late\" AS SELECT n FROM generate_series(1, 1000) AS n; VACUUM FREEZE");
    site.archived();
    server.psql("CHECKPOINT");
    let before = crate::kit::tree(&space);
    let to = site.home().join("recovered").display().to_string();
    let recover = |more: &[&str]| {
        let all: Vec<&str> =
            ["recover", "--only", "db", "--to", &to, "--yes", "--json"].iter().chain(more).copied().collect();
        site.retoma(&all)
    };
    let refused = recover(&[]).expect(1).document();
    assert_eq!(refused["code"], "R0508", "{refused:#}");
    assert!(refused["message"].as_str().unwrap().contains(&space.display().to_string()), "{refused:#}");
    assert!(crate::kit::tree(&space) == before, "the original's tablespace was touched");
    let hint = refused["hint"].as_str().unwrap();
    let position = hint.split("`--lsn ").nth(1).unwrap().split(' ').next().unwrap().to_owned();
    fs::remove_dir_all(&to).unwrap();
    recover(&["--lsn", &position, "--exclusive"]).expect(0);
    fs::remove_dir_all(&to).unwrap();
    assert!(crate::kit::tree(&space) == before, "the original's tablespace was touched");
    // A backup that knows it leads to the end.
    site.retoma(&["backup", "db"]).expect(0);
    recover(&[]).expect(0);
    assert!(crate::kit::tree(&space) == before, "the original's tablespace was touched");
    assert_eq!(server.psql("SELECT count(*) FROM elsewhere"), "1000");
}

#[test]
fn a_server_that_is_lost_under_load_comes_back_with_its_archive() {
    let Some(shop) = Shop::open("archive") else { return };
    let report = shop.drill("database-failure");
    assert_eq!(report["components"][0]["rows"], 3020);
}

#[test]
fn a_dropped_table_comes_back_as_it_was_just_before() {
    let Some(shop) = Shop::open("stream") else { return };
    let report = shop.drill("drop-table");
    let component = &report["components"][0];
    assert_eq!((&component["markers_lost"], &component["rows"]), (&0.into(), &3020.into()));
    assert_eq!(check(&report, "rows against the server")["expected"], "3020 rows in 2 tables");
    assert_eq!(check(&report, "what was written after the drop")["outcome"], "passed");
}

#[test]
fn missing_wal_is_found_and_what_lies_before_it_comes_back() {
    let Some(shop) = Shop::open("archive") else { return };
    let report = shop.drill("wal-gap");
    assert_eq!(check(&report, "missing WAL is refused")["found"], "R0423");
    assert!(report["components"][0]["markers_lost"].as_u64().unwrap() > 0, "{report:#}");
}

#[test]
fn a_bad_page_is_named_by_the_next_backup_and_gone_after_the_recovery() {
    let Some(shop) = Shop::open("stream") else { return };
    let report = shop.drill("bad-page");
    assert_eq!(check(&report, "names the page")["found"], "R0414");
    assert_eq!(report["components"][0]["markers_lost"], 0);
}

#[test]
fn what_has_no_server_or_is_named_wrong_is_refused() {
    let Some(shop) = Shop::open("archive") else { return };
    let refused = shop.retoma(&["drill", "database-failure", "--component", "notes"]);
    let said = refused.expect(1).text();
    assert!(said.contains("R0713"), "{said}");
    // What is not for servers is refused for a service that has one.
    let refused = shop.retoma(&["drill", "application-failure"]);
    let said = refused.expect(1).text();
    assert!(said.contains("R0713"), "{said}");
}

#[test]
fn all_components_are_backed_up_and_recovered_as_one_set_with_its_skew() {
    let Some(shop) = Shop::open("archive") else { return };
    let Some(cache) = retoma_testkit::RedisServer::start() else { return };
    cache.cli(&["SET", "key", "value"]);
    let manifest = shop.home().join("retoma.toml");
    let text = fs::read_to_string(&manifest).unwrap();
    let text = text.replace("start = [\"false\"]\nhealth = \"http://127.0.0.1:9/\"\n", "");
    let url = cache.socket().display().to_string();
    let more = format!(
        "[[component]]\nname = \"cache\"\nkind = \"redis\"\ntier = \"high\"\nurl = \"unix://{url}\"\n"
    );
    fs::write(&manifest, text + &more).unwrap();

    let backup = shop.retoma(&["backup"]).expect(0).document();
    let set = &backup["recovery_sets"][0];
    let time = |value: &Value| value.as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let points: Vec<_> = set["points"].as_array().unwrap().iter().map(|it| time(&it["time"])).collect();
    assert_eq!(points.len(), 3, "{set}");
    let (first, last) = (points.iter().min().unwrap(), points.iter().max().unwrap());
    assert_eq!((time(&set["earliest"]), time(&set["common_point"])), (*first, *last));
    let skew = set["skew_seconds"].as_f64().unwrap();
    assert!(skew > 0.0 && (skew - last.duration_since(*first).as_secs_f64()).abs() < 1e-6, "{set}");

    let to = shop.server.folder().join("recovered").display().to_string();
    let recovered = shop.retoma(&["recover", "--to", &to]).expect(0).document();
    let order: Vec<_> =
        recovered["components"].as_array().unwrap().iter().map(|it| &it["component"]).collect();
    assert_eq!(order, ["db", "cache", "notes"], "by tier");
    let set = &recovered["recovery_set"];
    assert_eq!(set["points"].as_array().unwrap().len(), 3);
    assert!(set["skew_seconds"].as_f64().unwrap() > 0.0, "{set}");
}

/// The folder that stands for the demos' one; PostgreSQL's user can pass it.
fn demo_folder() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    folder
}

fn demo(folder: &tempfile::TempDir) -> Command {
    let mut command = Command::new(PROGRAM);
    command.args(["-q", "--json", "demo", "--scenario", "database-failure", "--folder"]);
    command.arg(folder.path().join("base"));
    command
}

#[test]
fn the_demo_with_a_server_is_green_and_leaves_no_process() {
    if PostgresServer::start().is_none() {
        return;
    }
    let folder = demo_folder();
    let run = Run::new("retoma demo".to_owned(), &demo(&folder).output().unwrap());
    let report = run.expect(0).document();
    assert_eq!((&report["verdict"], &report["components"][0]["kind"]), (&"green".into(), &"postgres".into()));
    let runs: Vec<_> =
        fs::read_dir(folder.path().join("base")).unwrap().map(|it| it.unwrap().path()).collect();
    let [run] = &runs[..] else { panic!("{runs:?}") };
    assert!(run.join("report.html").exists() && !run.join("server/postmaster.pid").exists());
    assert_eq!(fs::read_dir(run.join("drill")).unwrap().count(), 0, "the scratch copy is gone");
}

#[test]
fn a_demo_with_a_server_that_is_stopped_takes_its_server_along() {
    if PostgresServer::start().is_none() {
        return;
    }
    let folder = demo_folder();
    let mut command = demo(&folder);
    let mut running = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let base = folder.path().join("base");
    let server = retoma_testkit::wait_for_what("the demo's server", || {
        let run = fs::read_dir(&base).ok()?.next()?.ok()?.path();
        let text = fs::read_to_string(run.join("server/postmaster.pid")).ok()?;
        text.lines().next()?.parse::<u32>().ok()
    });
    let pid = rustix::process::Pid::from_child(&running);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(!running.wait().unwrap().success());
    retoma_testkit::wait_for_what("the demo's server to end", || {
        (!PathBuf::from(format!("/proc/{server}")).exists()).then_some(())
    });
    assert_eq!(fs::read_dir(&base).unwrap().count(), 0);
}

//! Point-in-time recovery against an independent log of commits: what comes back is exactly what had been committed.
//!
//! Several sessions write; each commits while it holds a lock, and notes what PostgreSQL says of the commit: transaction,
//! position (`pg_walinspect`), time. Then everything is recovered to a point before the end, goes on from there on timeline 2,
//! and random targets on both timelines are recovered and compared. `SEED` and `RETOMA_TARGETS` make it another or longer run.

use crate::documented::{RECOVERY, WINDOW};
use crate::kit::{Run, fields};
use crate::wal::{PROGRAM, Site};
use retoma_control::open::open_address;
use retoma_core::Secret;
use retoma_core::postgres::{SegmentName, SegmentSize, TimelineId};
use retoma_repo::wal::Archive;
use retoma_testkit::{PostgresServer, StopMode};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A commit, as PostgreSQL saw it.
#[derive(Debug, Clone)]
struct Commit {
    id: u32,
    xid: String,
    /// Where the record of the commit begins.
    record: String,
    /// When it was, as the record says.
    time: String,
    /// A position behind it and before the next one.
    after: String,
    /// A time behind it and before the next one.
    after_time: String,
}

/// A history: what one timeline has, in order; and how much of it each snapshot has.
#[derive(Debug, Default)]
struct Log {
    commits: Vec<Commit>,
    snapshots: Vec<(String, usize)>,
}

struct World {
    site: Site,
    next_id: u32,
}

const TIME: &str = "YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"";

impl World {
    /// A server that archives; `None` without PostgreSQL.
    fn start() -> Option<Self> {
        let site = Site::start_with(&["track_commit_timestamp = on"])?;
        site.server.psql(
            "CREATE EXTENSION pg_walinspect; CREATE TABLE ledger (id int); CREATE TABLE noise (n text)",
        );
        site.archive();
        Some(Self { site, next_id: 1 })
    }

    fn back_up(&self, log: &mut Log) {
        let document = self.site.retoma(&["backup", "db", "--json"]).expect(0).document();
        let id = document["backups"][0]["snapshot"].as_str().unwrap().to_owned();
        log.snapshots.push((id, log.commits.len()));
    }

    /// So many commits by each of three sessions at once.
    fn commit(&mut self, each: u32, log: &mut Log) {
        let from = self.site.server.psql("SELECT pg_current_wal_insert_lsn()");
        let scripts: Vec<String> = (0..3)
            .map(|worker| {
                let ids = (0..each).map(|number| self.next_id + number * 3 + worker);
                ids.map(script).collect()
            })
            .collect();
        self.next_id += each * 3;
        let server = &self.site.server;
        let printed: Vec<String> = std::thread::scope(|scope| {
            let running: Vec<_> =
                scripts.iter().map(|script| scope.spawn(move || server.psql(script))).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let records = server.psql(&format!(
            "SELECT xid, start_lsn, to_char(pg_xact_commit_timestamp(xid) AT TIME ZONE 'UTC', '{TIME}') \
             FROM pg_get_wal_records_info_till_end_of_wal('{from}') \
             WHERE resource_manager = 'Transaction' AND record_type LIKE 'COMMIT%'"
        ));
        let records: BTreeMap<&str, (&str, &str)> = records
            .lines()
            .map(|line| line.split('|').collect::<Vec<_>>())
            .map(|fields| (fields[0], (fields[1], fields[2])))
            .collect();
        let mut commits = Vec::new();
        for line in printed.iter().flat_map(|text| text.lines()) {
            let fields: Vec<&str> = line.split('|').collect();
            let ["commit", id, xid, after, after_time] = fields[..] else { continue };
            let (record, time) = records[xid];
            let text = str::to_owned;
            let [xid, record, time, after, after_time] = [xid, record, time, after, after_time].map(text);
            commits.push(Commit { id: id.parse().unwrap(), xid, record, time, after, after_time });
        }
        assert_eq!(commits.len(), each as usize * 3, "{printed:?}");
        commits.sort_by(|a, b| a.after_time.cmp(&b.after_time));
        log.commits.append(&mut commits);
    }

    /// Runs the program as ourselves: as root, when the tests are, who recovers for the database's user.
    fn run(&self, arguments: &[&str]) -> Run {
        let manifest = self.site.home().join("retoma.toml");
        let mut command = Command::new(PROGRAM);
        command.args(["-q", "--yes", "--json", "-f"]).arg(manifest).args(arguments);
        command.current_dir(self.site.server.folder());
        Run::new(format!("retoma {}", arguments.join(" ")), &command.output().unwrap())
    }

    fn recover(&self, to: &Path, target: &[&str]) -> Run {
        let to = to.display().to_string();
        let all: Vec<&str> = ["recover", "--only", "db", "--to", &to].iter().chain(target).copied().collect();
        self.run(&all)
    }

    /// Where the next one is recovered to.
    fn target(&self) -> PathBuf {
        self.site.server.folder().join("recovered")
    }

    /// The ids in the ledger of a server that was recovered into `root`, which is removed.
    fn ledger(&self, root: &Path) -> Vec<u32> {
        let data = root.join(self.site.server.data_dir().strip_prefix("/").unwrap());
        let mut server = PostgresServer::restored(|empty| {
            fs::remove_dir(empty).unwrap();
            fs::rename(&data, empty).unwrap();
        })
        .unwrap();
        fs::remove_dir_all(root).unwrap();
        server.append_conf(&["archive_mode = off".to_owned()]);
        server.go();
        let ids = ids(&server);
        server.stop(StopMode::Immediate);
        ids
    }

    /// Everything is archived, and a later commit too.
    fn archived(&self) {
        self.site.archived();
    }
}

fn ids(server: &PostgresServer) -> Vec<u32> {
    server.psql("SELECT id FROM ledger ORDER BY id").lines().map(|line| line.parse().unwrap()).collect()
}

/// One commit. Transactions begin and write in any order; they commit one after the other.
fn script(id: u32) -> String {
    format!(
        "BEGIN; INSERT INTO ledger VALUES ({id}); \
         INSERT INTO noise SELECT md5(random()::text) FROM generate_series(1, 300);\n\
         SELECT txid_current() AS xid \\gset\n\
         SELECT pg_advisory_lock(7); COMMIT;\n\
         SELECT 'commit', {id}, :xid, pg_current_wal_insert_lsn(), \
         to_char(clock_timestamp() AT TIME ZONE 'UTC', '{TIME}');\n\
         SELECT pg_create_restore_point('point {id}'); SELECT pg_advisory_unlock(7);\n"
    )
}

fn sorted(commits: &[Commit]) -> Vec<u32> {
    let mut ids: Vec<u32> = commits.iter().map(|commit| commit.id).collect();
    ids.sort_unstable();
    ids
}

/// Xorshift: the same targets for the same seed.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % limit as u64).unwrap()
    }
}

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Words of the command line for a random target, and how many commits must be there.
fn random_target(random: &mut Random, log: &Log) -> (Vec<String>, usize) {
    let first = log.snapshots[0].1;
    let at = first + random.below(log.commits.len() - first);
    let commit = &log.commits[at];
    let is_exclusive = random.below(2) == 0;
    let with = at + 1;
    let but_it = if is_exclusive { at } else { with };
    let (option, value, count) = match random.below(6) {
        0 => ("--at", commit.time.clone(), but_it),
        1 => ("--at", commit.after_time.clone(), with),
        2 => ("--lsn", commit.record.clone(), but_it),
        3 => ("--lsn", commit.after.clone(), with),
        4 => ("--xid", commit.xid.clone(), but_it),
        _ => ("--name", format!("point {}", commit.id), with),
    };
    let mut words = vec![option.to_owned(), value];
    if is_exclusive {
        words.push("--exclusive".to_owned());
    }
    (words, count)
}

/// Two timelines: what was done on the first, and what the second has, which left it at a point.
fn two_timelines() -> Option<(World, Log, Log)> {
    let mut world = World::start()?;
    let (mut first, mut second) = (Log::default(), Log::default());
    world.commit(2, &mut first);
    world.back_up(&mut first);
    world.commit(8, &mut first);
    let left_at = first.commits.len();
    world.commit(4, &mut first);
    world.back_up(&mut first);
    world.commit(6, &mut first);
    world.archived();
    world.site.server.stop(StopMode::Fast);

    let name = format!("point {}", first.commits[left_at - 1].id);
    let arguments = ["recover", "--only", "db", "--in-place", "--name", &name];
    let document = world.run(&arguments).expect(0).document();
    let report = &document["components"][0]["recovery"];
    assert_eq!(
        (&report["timeline_before"], &report["timeline_after"]),
        (&1.into(), &2.into()),
        "{document:#}"
    );
    world.site.server.go();
    second.commits = first.commits[..left_at].to_vec();
    second.snapshots = first.snapshots[..1].to_vec();
    assert_eq!(ids(&world.site.server), sorted(&second.commits));
    world.commit(4, &mut second);
    world.back_up(&mut second);
    world.commit(6, &mut second);
    world.archived();
    Some((world, first, second))
}

#[test]
fn every_target_gives_exactly_the_commits_before_it() {
    let Some((world, first, second)) = two_timelines() else { return };
    let seed = number("SEED", 20_261_122);
    let mut random = Random(seed);
    for round in 0..number("RETOMA_TARGETS", 6) {
        let on_first = random.below(3) == 0;
        let log = if on_first { &first } else { &second };
        let (mut words, count) = random_target(&mut random, log);
        if on_first {
            words.extend(["--timeline".to_owned(), "1".to_owned()]);
        }
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        println!("target {round} of seed {seed}: {}", words.join(" "));
        let begun = std::time::Instant::now();
        let root = world.target();
        let document = world.recover(&root, &words).expect(0).document();
        let report = &document["components"][0]["recovery"];
        assert_eq!(report["timeline_after"], 3, "{document:#}");
        let mut documented = RECOVERY;
        documented.sort_unstable();
        assert_eq!(fields(report), documented);
        println!("  {:.1} s, of these replay {}", begun.elapsed().as_secs_f64(), report["replay_seconds"]);
        assert!(report["wal_segments"].as_u64().unwrap() > 0, "{document:#}");
        assert_eq!(world.ledger(&root), sorted(&log.commits[..count]), "{words:?}: {document:#}");
    }
}

/// The first error of a command that fails with `exit`, and that nothing was made.
#[track_caller]
fn refused(world: &World, target: &[&str], code: &str) -> Value {
    let root = world.target();
    let document = world.recover(&root, target).expect(1).document();
    assert_eq!(document["code"], code, "{document:#}");
    assert!(!root.exists(), "{} was touched", root.display());
    document
}

fn contains(document: &Value, field: &str, what: &str) {
    assert!(document[field].as_str().unwrap().contains(what), "{what} is not in {document:#}");
}

#[test]
fn what_lies_outside_of_the_window_is_refused_and_nothing_is_touched() {
    let Some(mut world) = World::start() else { return };
    let mut log = Log::default();
    world.commit(2, &mut log);
    world.back_up(&mut log);
    world.commit(2, &mut log);
    world.archived();
    let status = world.site.retoma(&["status", "--json"]).document();
    let snapshots = world.site.retoma(&["snapshots", "--json"]).expect(0).document();
    assert_eq!(status["windows"], snapshots["windows"]);
    let [window] = &status["windows"].as_array().unwrap()[..] else { panic!("{status:#}") };
    let mut documented: Vec<&str> = WINDOW.into_iter().chain(["component"]).collect();
    documented.sort_unstable();
    assert_eq!(fields(window), documented);
    assert_eq!((&window["timeline"], &window["gap"]), (&1.into(), &Value::Null));
    let (from, until) = (window["from_lsn"].as_str().unwrap(), window["until_lsn"].as_str().unwrap());
    let text = world.site.retoma(&["snapshots"]).expect(0).stdout;
    let line = text.lines().last().unwrap();
    assert!(
        line.starts_with("db: recoverable from 2")
            && line.ends_with(&format!("({from}) to {until} (timeline 1)")),
        "{text}"
    );

    for before in [
        ["--lsn", "0/1"],
        ["--at", &log.commits[0].time],
        ["--xid", &log.commits[0].xid],
        ["--lsn", &log.commits[0].record],
    ] {
        let told = refused(&world, &before, "R0506");
        contains(&told, "message", "is before anything that `db` can be recovered to");
        contains(&told, "hint", &format!("({from}) to {until} (timeline 1)"));
    }
    contains(&refused(&world, &["--lsn", "FF/0"], "R0506"), "message", "is behind the end of its WAL");
    contains(&refused(&world, &["--lsn", until], "R0506"), "message", until);
    contains(&refused(&world, &["--timeline", "9"], "R0506"), "hint", "it has 1");
    refused(&world, &["--exclusive"], "R0002");
    refused(&world, &["--lsn", "nonsense"], "R0002");
    refused(&world, &["--snapshot", "ffff"], "R0211");
    let root = world.target().display().to_string();
    let all = world.run(&["recover", "--to", &root, "--lsn", until]).expect(1).document();
    assert_eq!(all["code"], "R0002");
    contains(&all, "hint", "--only NAME");

    // What is not in the WAL is found out by reading it, before anything is touched.
    for unknown in [["--at", "2100-01-01T00:00:00Z"], ["--xid", "99999"], ["--name", "nothing"]] {
        let told = refused(&world, &unknown, "R0506");
        contains(&told, "message", "is behind the end of its WAL");
        contains(&told, "hint", &format!("({from}) to {until} (timeline 1)"));
    }
    let plan = world.recover(&world.target(), &["--dry-run"]).expect(0).document();
    assert_eq!(plan["components"][0]["recovery"]["until_lsn"], until, "{plan:#}");
    let latest = world.recover(&world.target(), &[]).expect(0).document();
    let steps: Vec<&str> =
        latest["waterfall"].as_array().unwrap().iter().map(|step| step["name"].as_str().unwrap()).collect();
    assert_eq!(steps, ["decide", "fetch", "check", "replay", "start", "check"]);
    assert_eq!(latest["components"][0]["recovery"]["target"]["kind"], "latest", "{latest:#}");
    assert_eq!(world.ledger(&world.target()), sorted(&log.commits));
}

/// A snapshot, commits, and three segments that ended one after the other behind it.
fn segments() -> Option<(World, Log, [String; 3])> {
    let mut world = World::start()?;
    let mut log = Log::default();
    world.commit(1, &mut log);
    world.back_up(&mut log);
    let ended = [(); 3].map(|()| {
        world.commit(1, &mut log);
        world.site.archived()
    });
    Some((world, log, ended))
}

#[test]
fn a_missing_segment_is_named_before_anything_is_touched() {
    let Some((world, log, [_, middle, _])) = segments() else { return };
    fs::remove_file(world.site.object("near", &middle)).unwrap();
    let last = log.commits.last().unwrap();
    world.recover(&world.target(), &["--lsn", &last.after]).expect(0);
    assert_eq!(world.ledger(&world.target()), sorted(&log.commits), "the other repository has it");

    fs::remove_file(world.site.object("far", &middle)).unwrap();
    let told = refused(&world, &["--lsn", &last.after], "R0423");
    contains(&told, "message", &middle);
    let told = refused(&world, &[], "R0423");
    contains(&told, "message", &middle);
    let snapshots = world.site.retoma(&["snapshots"]).expect(0).stdout;
    assert!(snapshots.contains(&format!("db: then WAL is missing: {middle} to {middle}\n")), "{snapshots}");
    // The hint says how to get what is before it, and what that gives up.
    let hint = told["hint"].as_str().unwrap();
    let position = hint.split("`--only db --lsn ").nth(1).unwrap().split(' ').next().unwrap();
    // The last transaction of each segment is the one that ended it: it may be in the second after our own last commit.
    let ended = world.site.server.psql(&format!(
        "SELECT to_char(pg_xact_commit_timestamp(xmin) AT TIME ZONE 'UTC', '{TIME}') FROM ended ORDER BY xmin::text::bigint"
    ));
    let ended: Vec<String> = ended.lines().map(|time| format!("{}Z", &time[..19])).collect();
    let [before_it, _, behind_it] = &ended[..] else { panic!("{ended:?}") };
    assert!(hint.contains(&format!("loses what was committed after {before_it}")), "{hint}");
    assert!(hint.contains(&format!("of WAL, up to {behind_it}")), "{hint}");
    world.recover(&world.target(), &["--lsn", position, "--exclusive"]).expect(0);
    let before = log.commits.iter().filter(|commit| lsn(&commit.after) <= lsn(position)).cloned();
    let before: Vec<Commit> = before.collect();
    assert!(before.len() >= 6 && before.len() < log.commits.len(), "{}", before.len());
    assert_eq!(world.ledger(&world.target()), sorted(&before));
    // A snapshot behind the gap leads to the end.
    let mut later = log;
    world.back_up(&mut later);
    world.archived();
    world.recover(&world.target(), &[]).expect(0);
    assert_eq!(world.ledger(&world.target()), sorted(&later.commits));
}

fn lsn(text: &str) -> retoma_core::postgres::Lsn {
    text.parse().unwrap()
}

#[test]
fn a_damaged_segment_stops_the_recovery_and_is_named() {
    let Some((world, log, [_, middle, _])) = segments() else { return };
    let damage = |repository: &str| {
        let path = world.site.object(repository, &middle);
        let mut bytes = fs::read(&path).unwrap();
        let at = bytes.len() / 2;
        bytes[at] ^= 1;
        fs::write(&path, bytes).unwrap();
    };
    damage("near");
    world.recover(&world.target(), &[]).expect(0);
    assert_eq!(world.ledger(&world.target()), sorted(&log.commits), "the other repository has it");
    damage("far");
    let told = world.recover(&world.target(), &[]).expect(1).document();
    assert_eq!(told["code"], "R0203", "{told:#}");
    contains(&told, "message", &middle);
}

#[test]
fn parts_of_a_segment_are_replayed_as_far_as_they_go() {
    let Some((world, log, _)) = segments() else { return };
    let cut = &log.commits[log.commits.len() - 2];
    let id: u64 =
        world.site.server.psql("SELECT system_identifier FROM pg_control_system()").parse().unwrap();
    let size = SegmentSize::new(1 << 20).unwrap();
    let segment = SegmentName::at(TimelineId::FIRST, lsn(&cut.after), size);
    let offset = usize::try_from(size.offset_of(lsn(&cut.after))).unwrap();
    let whole = fs::read(world.site.server.data_dir().join("pg_wal").join(segment.to_string())).unwrap();
    for repository in ["near", "far"] {
        let folder = world.site.object(repository, &segment.to_string());
        for entry in fs::read_dir(folder.parent().unwrap()).unwrap() {
            let path = entry.unwrap().path();
            if path.file_name().unwrap().to_str().unwrap() >= segment.to_string().as_str() {
                fs::remove_file(path).unwrap();
            }
        }
    }
    let url = format!("file://{}", world.site.home().join("far").display());
    let password = Secret::new("a password for tests".to_owned());
    let repository = open_address(&url, &password, false).unwrap().repository;
    let archive = Archive::new(&repository, "db", id).unwrap();
    for (from, to) in [(0, offset / 2), (offset / 2, offset)] {
        archive.push_part(segment, size, u32::try_from(from).unwrap(), &whole[from..to]).unwrap();
    }
    let document = world.recover(&world.target(), &[]).expect(0).document();
    let reached = document["components"][0]["recovery"]["reached_lsn"].as_str().unwrap();
    assert!(lsn(reached) <= lsn(&cut.after), "{document:#}");
    assert_eq!(world.ledger(&world.target()), sorted(&log.commits[..log.commits.len() - 1]));
}

#[test]
fn a_push_that_is_killed_at_any_moment_is_done_by_the_next_one() {
    let Some(site) = Site::start() else { return };
    let folder = site.server.data_dir().join("pg_wal");
    site.server.psql("CREATE TABLE noise AS SELECT md5(n::text) AS n FROM generate_series(1, 60000) AS n; SELECT pg_switch_wal()");
    let waiting = || {
        let ready = fs::read_dir(folder.join("archive_status")).unwrap();
        let names = ready.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let mut names: Vec<String> =
            names.filter_map(|name| Some(name.strip_suffix(".ready")?.to_owned())).collect();
        names.sort();
        names
    };
    let segments = waiting();
    assert!(segments.len() > 4, "{segments:?}");
    let mut random = Random(number("SEED", 20_261_122));
    let push = |name: &str| {
        let mut command = site.server.command(PROGRAM);
        command.current_dir(site.server.data_dir()).args(["-q", "-f"]).arg(site.home().join("retoma.toml"));
        command.args(["wal", "push", &format!("pg_wal/{name}"), "--component", "db"]);
        command
    };
    for round in 0..20 {
        let mut child = push(&segments[round % segments.len()]).spawn().unwrap();
        // Not waited for: the moment of the kill is the point.
        std::thread::sleep(std::time::Duration::from_micros(random.below(400_000) as u64));
        child.kill().unwrap();
        child.wait().unwrap();
    }
    for name in &segments {
        let status = push(name).status().unwrap();
        assert!(status.success(), "{name}");
    }
    let server = site.server.psql("SELECT system_identifier FROM pg_control_system()");
    for repository in ["near", "far"] {
        for name in &segments {
            let target = site.home().join("fetched").display().to_string();
            let arguments = [
                "-r",
                repository,
                "wal",
                "fetch",
                name,
                &target,
                "--component",
                "db",
                "--no-spool",
                "--system-identifier",
                &server,
            ];
            site.retoma(&arguments).expect(0);
            assert!(
                fs::read(&target).unwrap() == fs::read(folder.join(name)).unwrap(),
                "{name} in {repository}"
            );
        }
    }
    let checked = site.retoma(&["wal", "check", "--json"]).expect(0).document();
    assert_eq!(checked["servers"][0]["gaps"].as_array().unwrap().len(), 0, "{checked:#}");
}

#[test]
fn a_restore_with_a_target_recovers_and_stops_and_without_one_only_lays_files_down() {
    let Some((world, log, _)) = segments() else { return };
    let root = world.target();
    let at = log.commits.len() - 3;
    let commit = &log.commits[at];
    let data = root.join(world.site.server.data_dir().strip_prefix("/").unwrap());
    fs::create_dir_all(data.parent().unwrap()).unwrap();
    let target = data.display().to_string();
    let restore = |point: &[&str]| {
        let all: Vec<&str> = ["restore", "db", "--target", &target].iter().chain(point).copied().collect();
        world.run(&all)
    };
    let refused = restore(&["--lsn", "0/1"]).expect(1).document();
    assert_eq!(refused["code"], "R0506", "{refused:#}");
    let paths = restore(&["base", "--xid", &commit.xid]).expect(1).document();
    assert_eq!(paths["code"], "R0002", "{paths:#}");
    assert!(!data.exists());
    let document = restore(&["--xid", &commit.xid, "--exclusive"]).expect(0).document();
    assert_eq!(document["recovery"]["target"]["kind"], "xid", "{document:#}");
    assert!(!data.join("recovery.signal").exists() && !data.join("postmaster.pid").exists());
    assert_eq!(world.ledger(&root), sorted(&log.commits[..at]));

    let document = restore(&["--at", &commit.after_time]).expect(0).document();
    assert_eq!(document["recovery"]["timeline_after"], 2, "{document:#}");
    assert_eq!(world.ledger(&root), sorted(&log.commits[..=at]));
    let plain = restore(&[]).expect(0).document();
    assert_eq!(plain["recovery"], Value::Null, "{plain:#}");
    assert!(data.join("backup_label").exists());
}

#[test]
fn a_dropped_table_comes_back_alone_and_the_server_goes_on_untouched() {
    let Some(mut world) = World::start() else { return };
    let mut log = Log::default();
    world.commit(3, &mut log);
    world.back_up(&mut log);
    world.commit(3, &mut log);
    let server = &world.site.server;
    let dropped = server.psql(
        "CREATE TABLE \"Odd name\" (n int); INSERT INTO \"Odd name\" VALUES (7); \
         BEGIN; DROP TABLE ledger; SELECT pg_current_xact_id(); COMMIT",
    );
    world.archived();
    let target = world.site.home().join("brought");
    let restore = |table: &str, more: &[&str]| {
        let place = target.display().to_string();
        let mut words = vec!["restore", "db", "--table", table, "--target", &place, "--json"];
        words.extend(more);
        world.site.retoma(&words)
    };
    let gone = restore("postgres.public.ledger", &[]).expect(1).document();
    assert_eq!(gone["code"], "R0211", "{gone:#}");
    assert_eq!(fs::read_dir(&target).unwrap().count(), 0, "the scratch server is gone");
    assert_eq!(
        restore("ledger", &["--xid", &dropped, "--exclusive", "--dry-run"]).expect(0).document()["dry_run"],
        true
    );
    assert_eq!(restore("a.b", &[]).expect(1).document()["code"], "R0002");

    let before = restore("postgres.public.ledger", &["--xid", &dropped, "--exclusive"]).expect(0).document();
    let file = before["extracted"]["path"].as_str().unwrap().to_owned();
    assert_eq!(before["extracted"]["size_bytes"], fs::metadata(&file).unwrap().len(), "{before:#}");
    assert_eq!(
        fields(&before),
        ["component", "dry_run", "extracted", "kind", "schema", "snapshot", "table", "target"],
        "as docs/cli-json.md says"
    );
    assert_eq!(fields(&before["extracted"]), ["duration_seconds", "path", "recovery", "size_bytes"]);
    let names: Vec<_> = fs::read_dir(&target).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["postgres.public.ledger.sql"]);
    server.psql(&fs::read_to_string(&file).unwrap());
    assert_eq!(ids(server), sorted(&log.commits));
    let again = restore("postgres.public.ledger", &[]).expect(1).document();
    assert_eq!(again["code"], "R0502", "{again:#}");

    restore("postgres.public.\"Odd name\"", &[]).expect(0);
    let odd = fs::read_to_string(target.join("postgres.public.Odd name.sql")).unwrap();
    assert!(odd.contains("COPY public.\"Odd name\" (n) FROM stdin;\n7\n") && !odd.contains("noise"), "{odd}");
    restore("postgres", &[]).expect(0);
    assert!(fs::read_to_string(target.join("postgres.sql")).unwrap().contains("noise"));
}

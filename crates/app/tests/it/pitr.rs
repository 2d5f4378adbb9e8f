//! Point-in-time recovery against an independent log of commits: what comes back is exactly what had been committed.
//!
//! Several sessions write; each commits while it holds a lock, and notes what PostgreSQL says of the commit: transaction,
//! position (`pg_walinspect`), time. Then everything is recovered to a point before the end, goes on from there on timeline 2,
//! and random targets on both timelines are recovered and compared. `SEED` and `RETOMA_TARGETS` make it another or longer run.

use crate::kit::Run;
use crate::wal::{PROGRAM, Site};
use retoma_testkit::{PostgresServer, StopMode, wait_for_what};
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
    let (words, count) = match random.below(6) {
        0 => (["--time-of-it", &commit.time], but_it),
        1 => (["--at", &commit.after_time], with),
        2 => (["--lsn", &commit.record], but_it),
        3 => (["--lsn", &commit.after], with),
        4 => (["--xid", &commit.xid], but_it),
        _ => (["--name", &format!("point {}", commit.id)].map(|it| it), with),
    };
    let mut words: Vec<String> = words.map(|word| word.replace("--time-of-it", "--at")).into();
    if is_exclusive {
        words.push("--exclusive".to_owned());
    }
    if words[0] == "--name" {
        // Nobody reads the WAL to see where a name lies.
        let (snapshot, _) = log.snapshots.iter().rev().find(|(_, count)| *count <= at).unwrap();
        words.extend(["--snapshot".to_owned(), snapshot.clone()]);
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
    let snapshot = first.snapshots[0].0.clone();
    let arguments = ["recover", "--only", "db", "--in-place", "--name", &name, "--snapshot", &snapshot];
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
        let root = world.target();
        let document = world.recover(&root, &words).expect(0).document();
        let report = &document["components"][0]["recovery"];
        assert_eq!(report["timeline_after"], 3, "{document:#}");
        assert!(report["wal_segments"].as_u64().unwrap() > 0, "{document:#}");
        assert_eq!(world.ledger(&root), sorted(&log.commits[..count]), "{words:?}: {document:#}");
    }
}

//! Two at once by mistake: agents and streams of one component.

use super::{Load, archived, archiving, assert_no_gap, assert_nothing_is_missing, assert_recovers_to, site};
use crate::wal_stream::{Site, size};
use retoma_core::postgres::{SegmentName, TimelineId, WalFileName};
use retoma_testkit::{PostgresServer, wait_for_long, wait_for_what};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_mins(2);

/// An agent with a manifest of its own. Dropping it kills it.
struct Agent(Child);

impl Drop for Agent {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// As on another host: the same component and repositories, another folder.
fn manifest_in(site: &Site, folder: &str) -> PathBuf {
    let text = fs::read_to_string(site.home().join("retoma.toml")).unwrap();
    let password = format!("file:{}", site.home().join("password").display());
    let text = text.replace("file:password", &password);
    let home = site.home().join(folder);
    let made = site.server.command("/bin/mkdir").arg(&home).status();
    assert!(made.unwrap().success());
    let notes = site.home().join("notes").display().to_string();
    let text = text.replace("path = \"notes\"", &format!("path = \"{notes}\""));
    let path = home.join("retoma.toml");
    site.server.write(&path, &format!("{text}\n[agent]\nlisten = \"127.0.0.1:0\"\n"), 0o600);
    path
}

fn agent(site: &Site, manifest: &Path) -> Agent {
    let log = fs::File::create(manifest.with_extension("log")).unwrap();
    let mut command = site.server.command(env!("CARGO_BIN_EXE_retoma"));
    command.env("HOME", site.home()).arg("-f").arg(manifest).arg("agent");
    Agent(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap())
}

fn has_good_backup(manifest: &Path) -> bool {
    let journal = manifest.with_file_name(".retoma").join("agent/journal.jsonl");
    let text = fs::read_to_string(journal).unwrap_or_default();
    text.lines().any(|line| line.contains("\"backup/db\"") && line.contains("\"good\""))
}

#[test]
fn of_two_agents_of_one_component_one_streams_and_nothing_is_doubled_or_torn() {
    let Some(site) = site("mode = \"stream\"", &[]) else { return };
    let (first, second) = (manifest_in(&site, "one"), manifest_in(&site, "other"));
    let load = Load::start(&site);
    let one = agent(&site, &first);
    let sql = "SELECT count(*) FROM pg_stat_replication \
               WHERE application_name = 'retoma_db' AND state IN ('catchup', 'streaming')";
    let receivers = || site.server.psql(sql);
    wait_for_long("the first to stream", Duration::from_mins(2), || (receivers() == "1").then_some(()));
    // On the same host and in the same folder: refused.
    let mut same = agent(&site, &first);
    let status = wait_for_long("the third to end", Duration::from_mins(1), || same.0.try_wait().unwrap());
    assert!(!status.success());
    let other = agent(&site, &second);
    wait_for_long("both to have made a backup", Duration::from_mins(3), || {
        assert_ne!(receivers(), "2");
        (has_good_backup(&first) && has_good_backup(&second)).then_some(())
    });
    load.goes_on_for("with two agents", 3);
    // The first one dies: the other takes over.
    drop(one);
    load.goes_on_for("after the first one's death", 2);
    wait_for_long("the other to stream", Duration::from_mins(3), || (receivers() == "1").then_some(()));
    load.stop();
    let until = site.shipped_within(Duration::from_mins(2));
    drop(other);
    for repository in ["near", "far"] {
        site.assert_whole(repository, until);
    }
    site.retoma(&["verify", "--read-data"]).expect(0);
    assert_no_gap(&site);
    assert_recovers_to(&site, &site.server);
}

/// As [`manifest_in`], with an agent that looks at the archive often.
fn watched(site: &Site, folder: &str) -> PathBuf {
    let path = manifest_in(site, folder);
    let text = fs::read_to_string(&path).unwrap();
    site.server.write(&path, &format!("{text}wal_check_every = \"2s\"\n"), 0o600);
    path
}

/// Waits until an agent has this alert of the database, or no longer has it.
fn wait_for_alert(manifest: &Path, alert: &str, is_there: bool) {
    let address = manifest.with_file_name(".retoma").join("agent/address");
    wait_for_long(&format!("{alert}: {is_there}"), Duration::from_mins(2), || {
        fs::read_to_string(&address).ok()?;
        let health: serde_json::Value =
            serde_json::from_str(&crate::agent::ask(&address, "/healthz").1).ok()?;
        let has = |it: &serde_json::Value| it["alert"] == alert && it["component"] == "db";
        (health["alerts"].as_array()?.iter().any(has) == is_there).then_some(())
    });
}

/// The command that archives, with a spool of each of these manifests, all at the same time.
fn archive_through(site: &Site, manifests: &[&PathBuf]) {
    let program = env!("CARGO_BIN_EXE_retoma");
    let push = |manifest: &&PathBuf| {
        format!("{program} -q -f {} wal push %p --component db & p=\"$p $!\"; ", manifest.display())
    };
    let started = manifests.iter().map(push).collect::<Vec<_>>().concat();
    let command = format!("archive_command = '{started}for it in $p; do wait $it || exit 1; done'");
    site.server.append_conf(&[command]);
    site.server.psql("SELECT pg_reload_conf()");
}

#[test]
fn two_agents_and_two_spools_of_an_archived_server_double_and_tear_nothing() {
    let Some(site) = archiving(&["archive_mode = on"]) else { return };
    let (first, second) = (manifest_in(&site, "one"), manifest_in(&site, "other"));
    archive_through(&site, &[&first, &second]);
    archived(&site.server, PATIENCE);
    let load = Load::start(&site);
    let (one, other) = (agent(&site, &first), agent(&site, &second));
    wait_for_long("both to have made a backup", Duration::from_mins(3), || {
        (has_good_backup(&first) && has_good_backup(&second)).then_some(())
    });
    load.goes_on_for("with two agents and two spools", 3);
    // Nothing can be archived: both say so, and both see that it is over.
    site.take_away();
    for manifest in [&first, &second] {
        wait_for_alert(manifest, "wal_archive_down", true);
    }
    load.goes_on_for("without repositories", 2);
    site.bring_back();
    for manifest in [&first, &second] {
        wait_for_alert(manifest, "wal_archive_down", false);
    }
    // The first one dies with what it was about to do.
    drop(one);
    archive_through(&site, &[&second]);
    load.goes_on_for("after the first one's death", 2);
    load.stop();
    drop(other);
    archived(&site.server, PATIENCE);
    site.retoma(&["verify", "--read-data"]).expect(0);
    let until = site.current().parse().unwrap();
    assert_nothing_is_missing(&site, until);
}

/// What is stored of a timeline, by segment.
fn stored_on(site: &Site, timeline: u32) -> BTreeMap<SegmentName, Vec<u8>> {
    let archive = site.archive("near");
    let timeline = TimelineId::new(timeline).unwrap();
    let listing = archive.list(size()).unwrap();
    let mut found = BTreeMap::new();
    let Some(stored) = listing.timelines.get(&timeline) else { return found };
    let (Some(first), Some(last)) = (stored.segments.first(), stored.segments.last()) else { return found };
    for number in first..=last {
        let name = SegmentName::new(timeline, number, size()).unwrap();
        let bytes = archive.fetch(WalFileName::Segment(name)).unwrap();
        found.extend(bytes.map(|bytes| (name, bytes)));
    }
    found
}

/// That everything that is stored of a timeline is what this server wrote.
fn assert_stored_is_of(site: &Site, timeline: u32, server: &PostgresServer) {
    let stored = stored_on(site, timeline);
    assert!(stored.len() > 3, "{:?}", stored.keys());
    for (name, bytes) in stored {
        let written = fs::read(server.data_dir().join("pg_wal").join(name.to_string())).unwrap();
        assert!(written == bytes, "{name} is not of this server");
    }
}

/// Has a server write a few segments.
fn writes(server: &PostgresServer) {
    server.psql("CREATE TABLE IF NOT EXISTS written (n text)");
    for _ in 0..6 {
        server.psql(
            "SELECT pg_switch_wal(); INSERT INTO written SELECT md5(n::text) FROM generate_series(1, 2000) AS n",
        );
    }
}

/// Both standbys of a dead primary are promoted, from the same place on: both begin timeline 2. One was first.
#[test]
fn of_two_servers_that_begin_the_same_timeline_one_archives_and_the_other_is_told() {
    let Some(mut site) = archiving(&["archive_mode = on"]) else { return };
    archived(&site.server, PATIENCE);
    site.back_up();
    let (right, wrong) = (site.server.standby(None), site.server.standby(None));
    Load::start(&site).goes_on_for("with two standbys", 2);
    let written = site.current();
    for standby in [&right, &wrong] {
        wait_for_what("the standby to have it", || {
            (standby.psql(&format!("SELECT pg_last_wal_replay_lsn() >= '{written}'")) == "t").then_some(())
        });
    }
    // What waits is archived, and its server is gone.
    archived(&site.server, PATIENCE);
    site.server.kill();
    right.promote();
    writes(&right);
    archived(&right, PATIENCE);
    site.write_manifest(&wrong.url(), "mode = \"archive\"");
    let fails = || site.retoma(&["doctor"]).stdout.contains("`archive_command` fails");
    wrong.promote();
    writes(&wrong);
    wait_for_long("the doctor to see it", Duration::from_mins(1), || fails().then_some(()));
    let log = wrong.log();
    assert!(log.contains("R0422"), "PostgreSQL's log says why: {log}");
    // Meanwhile the right one goes on.
    writes(&right);
    archived(&right, PATIENCE);
    assert_stored_is_of(&site, 2, &right);
    assert_no_gap(&site);
    assert_recovers_to(&site, &right);
    // It is told that it is not the one.
    wrong.append_conf(&["archive_command = '/bin/true'".to_owned()]);
    wrong.psql("SELECT pg_reload_conf()");
    wait_for_long("the doctor to see that", Duration::from_mins(2), || (!fails()).then_some(()));
    assert_stored_is_of(&site, 2, &right);
}

/// A standby is promoted while its primary lives: each archives under a timeline of its own, and recovery follows the new one.
#[test]
fn a_primary_that_goes_on_after_its_standby_was_promoted_is_told_of() {
    let Some(mut site) = archiving(&["archive_mode = on"]) else { return };
    archived(&site.server, PATIENCE);
    site.back_up();
    let standby = site.server.standby(None);
    let manifest = watched(&site, "watching");
    let _agent = agent(&site, &manifest);
    wait_for_long("the agent to have checked the WAL", Duration::from_mins(2), || {
        let journal = manifest.with_file_name(".retoma").join("agent/journal.jsonl");
        let text = fs::read_to_string(journal).unwrap_or_default();
        text.lines().any(|line| line.contains("\"wal-check\"") && line.contains("\"good\"")).then_some(())
    });
    wait_for_alert(&manifest, "wal_split", false);
    // Everything up to the fork is archived: what the old primary could not archive would be a gap.
    archived(&site.server, PATIENCE);
    let written = site.current();
    wait_for_what("the standby to have it", || {
        (standby.psql(&format!("SELECT pg_last_wal_replay_lsn() >= '{written}'")) == "t").then_some(())
    });
    standby.promote();
    for server in [&site.server, &standby] {
        writes(server);
        archived(server, PATIENCE);
    }
    wait_for_alert(&manifest, "wal_split", true);
    assert_stored_is_of(&site, 1, &site.server);
    assert_stored_is_of(&site, 2, &standby);
    assert_no_gap(&site);
    assert_recovers_to(&site, &standby);
    // The old one archives no more.
    site.server.append_conf(&["archive_mode = off".to_owned()]);
    site.server.restart();
    wait_for_alert(&manifest, "wal_split", false);
}

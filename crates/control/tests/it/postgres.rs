//! A PostgreSQL server as a component: backed up under load, recovered, started and asked.

use super::sample::{in_context, supervisor};
use retoma_control::backup::{ComponentBackup, backup, backup_manifest};
use retoma_control::open::open_address;
use retoma_control::postgres::{Instance, Launch, check};
use retoma_control::recover::{self, Options, Place, Recovered, Request};
use retoma_control::watch::{Note, Silent, Watch};
use retoma_control::{Interrupt, Result, Timeline};
use retoma_core::Secret;
use retoma_core::drill::{CheckOutcome, StepName};
use retoma_core::error::codes;
use retoma_core::manifest::{Manifest, Origin, parse, render};
use retoma_repo::Repository;
use retoma_repo::backup::Progress;
use retoma_sources::postgres::wire::{Address, Connection, Mode, Timeouts};
use retoma_sources::postgres::{PostgresFacts, Recovery};
use retoma_testkit::{Folder, PostgresServer};
use std::path::PathBuf;
use std::sync::Mutex;

pub(super) struct Home {
    pub(super) folder: Folder,
    pub(super) server: PostgresServer,
    manifest: Manifest,
    text: String,
    pub(super) repository: Repository,
}

impl Home {
    /// A server with some rows, and a manifest that protects it; `None` without PostgreSQL.
    fn new(checks: &str) -> Option<Self> {
        Self::backed_up("local", checks)
    }

    /// As [`Home::new`], backed up this way.
    pub(super) fn backed_up(way: &str, checks: &str) -> Option<Self> {
        let server = PostgresServer::start()?;
        server.psql(
            "CREATE TABLE orders AS SELECT n AS id, 'order ' || n AS what FROM generate_series(1, 1000) AS n",
        );
        let folder = Folder::new();
        let url = format!("file://{}", folder.join("repository").display());
        let text = format!(
            "version = 1\n[service]\nname = \"shop\"\n\
             [[repository]]\nname = \"local\"\nurl = \"{url}\"\npassword = \"env:UNUSED\"\n\
             [[component]]\nname = \"database\"\nkind = \"postgres\"\ntier = \"critical\"\nurl = \"{}\"\n\
             backup = \"{way}\"\n{checks}",
            server.socket_url()
        );
        let origin = Origin { file_name: "retoma.toml".to_owned(), dir: folder.join("shop") };
        let manifest = parse(&text, &origin).unwrap_or_else(|it| panic!("{}", render(&it, "retoma.toml")));
        let repository = open_address(&url, &Secret::new("a password".to_owned()), true).unwrap().repository;
        Some(Self { folder, server, manifest, text, repository })
    }

    pub(super) fn back_up(&self) -> Result<ComponentBackup> {
        let progress = Progress::default();
        backup_manifest(&self.manifest, &self.text, &self.repository, &progress)?;
        backup(&self.manifest, &self.manifest.components[0], &self.repository, &progress)
    }

    /// Into a blank folder; gives the data directory in it.
    pub(super) fn recover(&self, name: &str) -> (PathBuf, Result<Recovered>) {
        let root = self.folder.join(name);
        let recovered = self.recover_to(Place::Under(root.clone()));
        (root.join(self.server.data_dir().strip_prefix("/").unwrap()), recovered)
    }

    fn recover_to(&self, place: Place) -> Result<Recovered> {
        recover_watched(&self.repository, &self.folder, place, &Silent)
    }
}

/// Recovers the newest; `watch` hears of it.
fn recover_watched(
    repository: &Repository,
    folder: &Folder,
    place: Place,
    watch: &dyn Watch,
) -> Result<Recovered> {
    let request = Request::newest(repository, place);
    let plan = recover::plan(&request).unwrap();
    let (supervisor, log) = (supervisor(), folder.join("log"));
    let options = Options {
        supervisor: &supervisor,
        starts_service: true,
        log: &log,
        keep_previous: false,
        runs_stop: false,
    };
    // PostgreSQL's user must be able to get there.
    open_to_everybody(folder.path());
    in_context(|context| {
        let mut timeline = Timeline::start(context.clock, StepName::Decide);
        recover::apply(&plan, repository, &options, &mut timeline, watch, context.interrupt)
    })
}

fn open_to_everybody(folder: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(folder, std::fs::Permissions::from_mode(0o755)).unwrap();
}

fn outcomes(recovered: &Recovered) -> Vec<(&str, CheckOutcome)> {
    let checks = recovered.components[0].checked.checks.iter();
    checks.map(|check| (check.name.as_str(), check.outcome)).collect()
}

#[test]
fn the_last_mark_is_the_one_in_the_database_of_the_component_and_a_table_of_another_shape_is_none() {
    let Some(mut home) = Home::new("") else { return };
    home.server.psql("CREATE DATABASE shop");
    let shop = home.server.socket_url().replace("/postgres?", "/shop?");
    assert!(shop.contains("/shop?"), "{shop}");
    home.text = home.text.replace(&home.server.socket_url(), &shop);
    let origin = Origin { file_name: "retoma.toml".to_owned(), dir: home.folder.join("shop") };
    home.manifest = parse(&home.text, &origin).unwrap();
    let in_shop = |sql: &str| {
        let mut connection =
            Connection::connect(&Address::of_process(&shop).unwrap(), Mode::Sql, Timeouts::default())
                .unwrap();
        for statement in sql.split("; ") {
            connection.execute(statement).unwrap();
        }
    };
    let last_mark = |name: &str| {
        home.back_up().unwrap();
        let recovered = home.recover(name).1.unwrap();
        assert!(recovered.passed(), "{recovered:#?}");
        recovered.components[0].recovery.as_ref().unwrap().last_mark.map(|mark| mark.number)
    };
    in_shop(
        "CREATE SCHEMA retoma; \
         CREATE TABLE retoma.mark (component text, number bigint, written timestamptz); \
         INSERT INTO retoma.mark VALUES ('another', 9, now()), ('database', 5, now())",
    );
    assert_eq!(last_mark("one"), Some(5));
    in_shop("DROP TABLE retoma.mark; CREATE TABLE retoma.mark (n int)");
    assert_eq!(last_mark("two"), None);
}

#[test]
fn a_server_is_recovered_started_and_asked() {
    recovered_started_and_asked("local");
}

#[test]
fn a_server_on_another_host_is_recovered_started_and_asked() {
    recovered_started_and_asked("stream");
}

fn recovered_started_and_asked(way: &str) {
    let check = "[[component.check]]\nsql = \"SELECT count(*) FROM orders\"\nexpect = \"1000\"\n";
    let Some(home) = Home::backed_up(way, check) else { return };
    let first = home.back_up().unwrap();
    let second = home.back_up().unwrap();
    assert!(first.is_complete() && second.is_complete());
    assert_eq!(second.parent, Some(first.snapshot()));
    assert!(second.summary.stored_bytes < first.summary.stored_bytes / 10, "{:?}", second.summary);

    let (data, recovered) = home.recover("blank");
    let recovered = recovered.unwrap();
    assert!(recovered.passed(), "{recovered:#?}");
    assert_eq!(
        outcomes(&recovered)[1..],
        [
            ("database `postgres`", CheckOutcome::Passed),
            ("database `template1`", CheckOutcome::Passed),
            ("pg_amcheck", CheckOutcome::Passed),
            ("SQL `SELECT count(*) FROM orders`", CheckOutcome::Passed),
        ]
    );
    // It was stopped cleanly, and a new timeline began.
    let control = home.server.run("pg_controldata", &["-D", data.to_str().unwrap()]);
    let control = String::from_utf8_lossy(&control.stdout).into_owned();
    assert!(control.contains("Database cluster state:               shut down\n"), "{control}");
    assert!(control.contains("Latest checkpoint's TimeLineID:       2\n"), "{control}");
    assert!(!data.join("recovery.signal").exists());
}

#[test]
fn a_query_that_fails_is_found() {
    let check = "[[component.check]]\nsql = \"SELECT count(*) FROM orders\"\nexpect = \"1001\"\n\
        [[component.check]]\nsql = \"SELECT nonsense\"\nmin_rows = 1\n";
    let Some(home) = Home::new(check) else { return };
    home.back_up().unwrap();
    let (_, recovered) = home.recover("blank");
    let recovered = recovered.unwrap();
    assert!(!recovered.passed());
    let failed: Vec<_> =
        outcomes(&recovered).into_iter().filter(|(_, it)| *it == CheckOutcome::Failed).collect();
    assert_eq!(failed.len(), 2, "{failed:?}");
}

#[test]
fn a_bad_page_is_named_and_the_snapshot_is_incomplete() {
    bad_page_is_named("local");
}

#[test]
fn a_bad_page_that_was_sent_is_named_and_the_snapshot_is_incomplete() {
    bad_page_is_named("stream");
}

fn bad_page_is_named(way: &str) {
    let Some(mut home) = Home::backed_up(way, "") else { return };
    let path = home.server.psql("CHECKPOINT; SELECT pg_relation_filepath('orders')");
    let file = home.server.data_dir().join(path.lines().last().unwrap());
    home.server.stop(retoma_testkit::postgres::StopMode::Fast);
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[3 * 8192 + 5000] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    home.server.go();
    let backed_up = home.back_up().unwrap();
    let [unreadable] = &backed_up.summary.unreadable[..] else { panic!("{:?}", backed_up.summary) };
    assert_eq!(unreadable.error.code(), codes::POSTGRES_BAD_PAGE);
    assert!(
        unreadable.error.message().ends_with("has 1 page whose checksums do not fit: 3"),
        "{}",
        unreadable.error
    );
}

/// A tablespace with a table of 5,000 rows; gives its folder.
fn tablespace(home: &Home) -> PathBuf {
    let space = home.server.folder().join("space");
    std::fs::create_dir(&space).unwrap();
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(home.server.data_dir()).unwrap());
    std::os::unix::fs::chown(&space, Some(owner), Some(owner)).unwrap();
    home.server.psql(&format!("CREATE TABLESPACE fast LOCATION '{}'", space.display()));
    home.server.psql(
        "CREATE TABLE elsewhere TABLESPACE fast AS SELECT generate_series(1, 5000) AS n; ANALYZE elsewhere",
    );
    space
}

/// The names in a folder, sorted.
fn names(folder: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> =
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// Every file below a folder with its contents; links are not followed.
fn contents(folder: &std::path::Path) -> std::collections::BTreeMap<PathBuf, Vec<u8>> {
    let (mut found, mut folders) = (std::collections::BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = path.symlink_metadata().unwrap();
            if metadata.is_dir() {
                folders.push(path);
            } else if metadata.is_file() {
                let bytes = std::fs::read(&path).unwrap();
                found.insert(path, bytes);
            }
        }
    }
    found
}

#[test]
fn in_place_a_server_comes_back_with_its_tablespaces() {
    let check = "[[component.check]]\nsql = \"SELECT count(*) FROM elsewhere\"\nexpect = \"5000\"\n";
    let Some(mut home) = Home::new(check) else { return };
    let space = tablespace(&home);
    let versions = names(&space);
    let [version] = &versions[..] else { panic!("{versions:?}") };
    home.back_up().unwrap();
    home.server
        .psql("DELETE FROM elsewhere WHERE n > 10; CREATE TABLE more TABLESPACE fast AS SELECT 1 AS n");
    let refused = home.recover_to(Place::InPlace).unwrap_err();
    assert_eq!(refused.code(), codes::RESTORE_TARGET, "it runs");
    home.server.stop(retoma_testkit::postgres::StopMode::Fast);
    // What a recovery that was killed while it restored has left.
    let left = space.join(format!("{version}.retoma-new"));
    std::fs::create_dir_all(left.join("old")).unwrap();
    assert_eq!(recover::left_beside(&space.join(version)), [left]);
    let recovered = home.recover_to(Place::InPlace).unwrap();
    assert!(recovered.passed(), "{recovered:#?}");
    assert_eq!(names(&space), versions);
    home.server.go();
    assert_eq!(home.server.psql("SELECT count(*), to_regclass('more') IS NULL FROM elsewhere"), "5000|t");
    assert_eq!(
        home.server.psql("SELECT pg_tablespace_location(oid) FROM pg_tablespace WHERE spcname = 'fast'"),
        space.display().to_string()
    );
    home.server.psql("CREATE TABLE again TABLESPACE fast AS SELECT 1 AS n");

    // On a machine where nothing is left.
    home.server.stop(retoma_testkit::postgres::StopMode::Fast);
    std::fs::remove_dir_all(home.server.data_dir()).unwrap();
    std::fs::remove_dir_all(&space).unwrap();
    let recovered = home.recover_to(Place::InPlace).unwrap();
    assert!(recovered.passed(), "{recovered:#?}");
    home.server.go();
    assert_eq!(home.server.psql("SELECT count(*) FROM elsewhere"), "5000");
    home.server.psql("CREATE TABLE again TABLESPACE fast AS SELECT 1 AS n");
}

/// Starts a server at a moment of its recovery.
struct Starts<'a>(Mutex<&'a mut PostgresServer>, fn(&Note) -> bool);

impl Watch for Starts<'_> {
    fn note(&self, note: &Note) {
        if self.1(note) {
            self.0.lock().unwrap().go();
        }
    }
}

/// A server that lost rows in a tablespace after its backup, and stands still; and that tablespace.
fn stopped() -> Option<(Home, PathBuf)> {
    let mut home = Home::new("")?;
    let space = tablespace(&home);
    home.back_up().unwrap();
    home.server.psql("DELETE FROM elsewhere WHERE n > 10");
    home.server.stop(retoma_testkit::postgres::StopMode::Fast);
    Some((home, space))
}

#[test]
fn in_place_a_server_that_was_started_meanwhile_is_left_alone() {
    let Some((mut home, space)) = stopped() else { return };
    let before = (names(&space), names(home.server.folder()));
    let starts = Starts(Mutex::new(&mut home.server), |note| matches!(note, Note::Restored { .. }));
    let refused = recover_watched(&home.repository, &home.folder, Place::InPlace, &starts).unwrap_err();
    assert_eq!(refused.code(), codes::RESTORE_TARGET, "{refused}");
    assert_eq!((names(&space), names(home.server.folder())), before, "nothing is left beside");
    assert_eq!(home.server.psql("SELECT count(*) FROM elsewhere"), "10");
    home.server.psql("CREATE TABLE again TABLESPACE fast AS SELECT 1 AS n");
    home.server.restart();
    assert_eq!(home.server.psql("SELECT count(*) FROM elsewhere, again"), "10");
}

/// After the last look before anything live is touched: only the look within the exchange can see it.
#[test]
fn in_place_a_server_that_is_started_right_before_the_exchange_gets_its_data_back() {
    let Some((mut home, space)) = stopped() else { return };
    let before = (names(&space), names(home.server.folder()));
    let is_exchange = |note: &Note| matches!(note, Note::Doing(what) if what == recover::EXCHANGE);
    let starts = Starts(Mutex::new(&mut home.server), is_exchange);
    let recovered = recover_watched(&home.repository, &home.folder, Place::InPlace, &starts).unwrap();
    let undone = recovered.rolled_back.expect("the exchange was not refused");
    assert_eq!(
        (undone.kind(), undone.code()),
        (retoma_core::ErrorKind::Conflict, codes::ROLLED_BACK),
        "{undone}"
    );
    assert!(undone.to_string().contains("a PostgreSQL server runs on"), "{undone}");
    assert_eq!((names(&space), names(home.server.folder())), before, "nothing is left beside");
    assert_eq!(home.server.psql("SELECT count(*) FROM elsewhere"), "10");
    home.server.restart();
    assert_eq!(home.server.psql("SELECT count(*) FROM elsewhere"), "10");
}

#[test]
fn in_place_tablespaces_stay_as_they_were_when_the_copy_fails_its_checks() {
    let check = "[[component.check]]\nsql = \"SELECT count(*) FROM elsewhere\"\nexpect = \"1\"\n";
    let Some(mut home) = Home::new(check) else { return };
    let space = tablespace(&home);
    home.back_up().unwrap();
    home.server.psql("DELETE FROM elsewhere WHERE n > 10");
    home.server.stop(retoma_testkit::postgres::StopMode::Fast);
    let all = || (contents(&space), contents(&home.server.data_dir()));
    let before = all();
    let failed = home.recover_to(Place::InPlace).unwrap_err();
    assert_eq!(failed.code(), codes::CHECK_FAILED, "{failed}");
    assert!(all() == before, "something live was touched");
    home.server.go();
    assert_eq!(home.server.psql("SELECT count(*) FROM elsewhere"), "10");
}

#[test]
fn tablespaces_come_back_at_their_places() {
    tablespaces_come_back("local");
}

#[test]
fn tablespaces_that_were_sent_come_back_at_their_places() {
    tablespaces_come_back("stream");
}

fn tablespaces_come_back(way: &str) {
    let Some(home) = Home::backed_up(way, "") else { return };
    let space = tablespace(&home);
    let backed_up = home.back_up().unwrap();
    assert!(backed_up.is_complete());
    let (data, recovered) = home.recover("blank");
    let recovered = recovered.unwrap();
    assert!(recovered.passed(), "{recovered:#?}");
    // The data directory, and the tablespace.
    assert_eq!(outcomes(&recovered).iter().filter(|(name, _)| *name == outcomes(&recovered)[0].0).count(), 2);
    let moved = home.folder.join("blank").join(space.strip_prefix("/").unwrap());
    let links: Vec<_> = std::fs::read_dir(data.join("pg_tblspc"))
        .unwrap()
        .map(|link| std::fs::read_link(link.unwrap().path()).unwrap())
        .collect();
    assert_eq!(links, [moved]);
}

#[test]
fn in_place_a_living_server_is_refused_and_a_stopped_one_gets_its_data_back() {
    let Some(mut home) = Home::new("") else { return };
    home.back_up().unwrap();
    home.server.psql("DROP TABLE orders");
    let refused = home.recover_to(Place::InPlace).unwrap_err();
    assert_eq!(refused.code(), codes::RESTORE_TARGET);
    assert_eq!(home.server.psql("SELECT to_regclass('orders') IS NULL"), "t");
    home.server.stop(retoma_testkit::postgres::StopMode::Fast);
    let recovered = home.recover_to(Place::InPlace).unwrap();
    assert!(recovered.passed(), "{recovered:#?}");
    home.server.go();
    assert_eq!(home.server.psql("SELECT count(*) FROM orders"), "1000");
    // The configuration is the server's own again: it listens where it did.
    assert_eq!(home.server.psql("SHOW listen_addresses"), "127.0.0.1");
    // The checks left nothing behind.
    assert_eq!(home.server.psql("SELECT string_agg(extname, ',') FROM pg_extension"), "plpgsql");
}

#[test]
fn databases_that_lost_their_rows_or_their_tables_are_found() {
    let Some(home) = Home::new("") else { return };
    // Statistics that say something else than the tables are no reason for an alarm.
    home.server.psql("ANALYZE orders");
    let facts = facts_of(&home.repository, &home.back_up().unwrap());
    for (number, loss) in ["DELETE FROM orders", "DROP TABLE orders"].into_iter().enumerate() {
        home.server.psql(loss);
        home.back_up().unwrap();
        let (data, recovered) = home.recover(&format!("blank{number}"));
        assert!(recovered.unwrap().passed(), "what was lost before the backup is no failure of the copy");
        let (supervisor, interrupt) = (supervisor(), Interrupt::default());
        let recovery = Recovery::default();
        let launch = Launch {
            supervisor: &supervisor,
            data: &data,
            facts: &facts,
            recovery: &recovery,
            wal: None,
            keep: false,
            limit: std::time::Duration::from_mins(2),
        };
        let instance = Instance::start(&launch, &interrupt).unwrap();
        let checks = check(&instance, &facts, "postgres", &[], &interrupt).unwrap();
        instance.stop().unwrap();
        assert_eq!(
            (checks[0].name.as_str(), checks[0].outcome),
            ("database `postgres`", CheckOutcome::Failed),
            "{loss}"
        );
    }
}

fn facts_of(repository: &Repository, backed_up: &ComponentBackup) -> PostgresFacts {
    let index = repository.load_index().unwrap();
    retoma_sources::postgres::facts_of(repository, &index, &backed_up.summary.tree).unwrap().unwrap()
}

//! A PostgreSQL server as a component: backed up under load, recovered, started and asked.

use super::sample::{in_context, supervisor};
use retoma_control::backup::{ComponentBackup, backup, backup_manifest};
use retoma_control::open::open_address;
use retoma_control::postgres::{Instance, Launch, check};
use retoma_control::recover::{self, Options, Place, Recovered, Request};
use retoma_control::{Interrupt, Result, Timeline};
use retoma_core::Secret;
use retoma_core::drill::{CheckOutcome, StepName};
use retoma_core::error::codes;
use retoma_core::manifest::{Manifest, Origin, parse, render};
use retoma_repo::Repository;
use retoma_repo::backup::Progress;
use retoma_sources::postgres::{PostgresFacts, Recovery};
use retoma_testkit::{Folder, PostgresServer};
use std::path::PathBuf;

struct Home {
    folder: Folder,
    server: PostgresServer,
    manifest: Manifest,
    text: String,
    repository: Repository,
}

impl Home {
    /// A server with some rows, and a manifest that protects it; `None` without PostgreSQL.
    fn new(checks: &str) -> Option<Self> {
        let server = PostgresServer::start()?;
        server.psql(
            "CREATE TABLE orders AS SELECT n AS id, 'order ' || n AS what FROM generate_series(1, 1000) AS n",
        );
        let folder = Folder::new();
        let url = format!("file://{}", folder.join("repository").display());
        let text = format!(
            "version = 1\n[service]\nname = \"shop\"\n\
             [[repository]]\nname = \"local\"\nurl = \"{url}\"\npassword = \"env:UNUSED\"\n\
             [[component]]\nname = \"database\"\nkind = \"postgres\"\ntier = \"critical\"\nurl = \"{}\"\n{checks}",
            server.socket_url()
        );
        let origin = Origin { file_name: "retoma.toml".to_owned(), dir: folder.join("shop") };
        let manifest = parse(&text, &origin).unwrap_or_else(|it| panic!("{}", render(&it, "retoma.toml")));
        let repository = open_address(&url, &Secret::new("a password".to_owned()), true).unwrap().repository;
        Some(Self { folder, server, manifest, text, repository })
    }

    fn back_up(&self) -> Result<ComponentBackup> {
        let progress = Progress::default();
        backup_manifest(&self.manifest, &self.text, &self.repository, &progress)?;
        backup(&self.manifest, &self.manifest.components[0], &self.repository, &progress)
    }

    /// Into a blank folder; gives the data directory in it.
    fn recover(&self, name: &str) -> (PathBuf, Result<Recovered>) {
        let root = self.folder.join(name);
        let recovered = self.recover_to(Place::Under(root.clone()));
        (root.join(self.server.data_dir().strip_prefix("/").unwrap()), recovered)
    }

    fn recover_to(&self, place: Place) -> Result<Recovered> {
        let request = Request::newest(&self.repository, place);
        let plan = recover::plan(&request).unwrap();
        let (supervisor, log) = (supervisor(), self.folder.join("log"));
        let options = Options {
            supervisor: &supervisor,
            starts_service: true,
            log: &log,
            keep_previous: false,
            runs_stop: false,
        };
        // PostgreSQL's user must be able to get there.
        open_to_everybody(self.folder.path());
        in_context(|context| {
            let mut timeline = Timeline::start(context.clock, StepName::Decide);
            recover::apply(&plan, &self.repository, &options, &mut timeline, context.watch, context.interrupt)
        })
    }
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
fn a_server_is_recovered_started_and_asked() {
    let check = "[[component.check]]\nsql = \"SELECT count(*) FROM orders\"\nexpect = \"1000\"\n";
    let Some(home) = Home::new(check) else { return };
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
    let Some(mut home) = Home::new("") else { return };
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

#[test]
fn tablespaces_come_back_at_their_places() {
    let Some(home) = Home::new("") else { return };
    let space = home.server.folder().join("space");
    std::fs::create_dir(&space).unwrap();
    let owner = std::os::unix::fs::MetadataExt::uid(&std::fs::metadata(home.server.data_dir()).unwrap());
    std::os::unix::fs::chown(&space, Some(owner), Some(owner)).unwrap();
    home.server.psql(&format!("CREATE TABLESPACE fast LOCATION '{}'", space.display()));
    home.server.psql(
        "CREATE TABLE elsewhere TABLESPACE fast AS SELECT generate_series(1, 5000) AS n; ANALYZE elsewhere",
    );
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

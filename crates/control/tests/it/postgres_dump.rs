//! A PostgreSQL server that is dumped: everything comes back in a new cluster, and what cannot is refused.

use super::postgres::Home;
use retoma_control::recover::{self, Place, Request};
use retoma_core::ErrorKind;
use retoma_core::decide::recovery::{Goal, Target};
use retoma_core::drill::CheckOutcome;
use retoma_core::error::codes;
use retoma_core::postgres::Lsn;
use retoma_repo::backup::{Content, Event, Found, Options, Progress, Reader, Source, backup};
use retoma_repo::format::lock::Holder;
use retoma_repo::format::snapshot::Snapshot;
use retoma_repo::format::tree::Node;
use retoma_repo::lock;
use retoma_sources::postgres::wire::{Address, Environment};
use retoma_sources::postgres::{DumpFacts, DumpSource, dump_facts_of};
use retoma_testkit::PostgresServer;
use retoma_testkit::postgres::PostgresOptions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

/// Roles, two databases with different encodings, and something of each kind in them.
fn fill(server: &PostgresServer) {
    server.psql(
        "CREATE ROLE app LOGIN PASSWORD 'secret' VALID UNTIL '2040-01-01'; CREATE ROLE readers; GRANT readers TO app;
         ALTER ROLE app SET work_mem = '8MB';
         CREATE DATABASE shop OWNER app; CREATE DATABASE \"Old shop\" ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0;
         ALTER DATABASE shop SET timezone = 'America/Sao_Paulo';
         \\c shop
         CREATE EXTENSION citext; CREATE EXTENSION pgcrypto;
         CREATE TABLE orders (id serial PRIMARY KEY, what citext, at timestamptz);
         INSERT INTO orders (what, at) SELECT 'ordem ' || n || ' ção', '2026-01-01'::timestamptz + n * interval '1 s'
           FROM generate_series(1, 20000) AS n;
         CREATE INDEX ON orders (at); CREATE VIEW last_orders AS SELECT * FROM orders ORDER BY id DESC LIMIT 3;
         ALTER TABLE orders OWNER TO app; GRANT SELECT ON orders TO readers;
         CREATE SEQUENCE invoices START 1000; SELECT setval('invoices', 4711);
         SELECT lo_from_bytea(0, decode(repeat('00ff', 5000), 'hex'));
         CREATE MATERIALIZED VIEW counted AS SELECT count(*) FROM orders;
         \\c \"Old shop\"
         CREATE TABLE names (name text); INSERT INTO names VALUES ('José'), ('Ângela');",
    );
}

/// What `pg_dump` says of a database; without the lines that are of the moment.
fn dumped(server: &PostgresServer, program: &str, options: &[&str]) -> Vec<String> {
    let mut arguments: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
    arguments.extend(["-h".to_owned(), server.socket_dir().display().to_string()]);
    arguments.extend(["-p".to_owned(), server.port().to_string(), "-U".to_owned(), "postgres".to_owned()]);
    let output = server.run(program, &arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let is_lasting = |line: &&str| !line.starts_with("\\restrict") && !line.starts_with("\\unrestrict");
    text.lines().filter(is_lasting).map(str::to_owned).collect()
}

fn everything(server: &PostgresServer) -> Vec<Vec<String>> {
    let of = |database| dumped(server, "pg_dump", &["--create", "--encoding=UTF8", "-d", database]);
    let mut all: Vec<_> = ["shop", "Old shop", "postgres"].map(of).into();
    all.push(dumped(server, "pg_dumpall", &["--globals-only"]));
    all
}

/// A server on a copy of the recovered cluster, which trusts whoever tests it.
fn started(data: &Path) -> PostgresServer {
    let mut server = PostgresServer::restored(|target| {
        std::fs::remove_dir(target).unwrap();
        assert!(Command::new("cp").arg("-a").arg(data).arg(target).status().unwrap().success());
    })
    .unwrap();
    server.write(&server.data_dir().join("pg_hba.conf"), "local all all trust\n", 0o600);
    server.go();
    server
}

fn facts(home: &Home) -> DumpFacts {
    let (_, snapshot) = home.repository.snapshots().unwrap().pop().unwrap();
    let index = home.repository.load_index().unwrap();
    dump_facts_of(&home.repository, &index, &snapshot.tree).unwrap().unwrap()
}

/// Who may do what with the recovered roles, and with the folder of the dumps.
fn modes(home: &Home) -> [u32; 2] {
    ["globals.sql", "databases"].map(|name| {
        let found = std::fs::metadata(home.folder.join("blank/database").join(name)).unwrap();
        found.permissions().mode() & 0o777
    })
}

#[test]
fn all_databases_and_roles_come_back_as_they_were() {
    let check = "[[component.check]]\nsql = \"SELECT count(*) FROM orders\"\nexpect = \"1000\"\n";
    let Some(home) = Home::backed_up("logical", check) else { return };
    fill(&home.server);
    let backed_up = home.back_up().unwrap();
    assert!(backed_up.is_complete(), "{backed_up:?}");
    let captured = facts(&home);
    assert!(captured.has_passwords && captured.said.is_empty(), "{captured:?}");
    let open: Vec<_> = captured.databases.iter().filter_map(|it| it.folder.as_deref()).collect();
    assert_eq!(open, ["Old_shop.0", "postgres", "shop", "template1"]);
    let (_, recovered) = home.recover("blank");
    let recovered = recovered.unwrap();
    assert!(recovered.passed(), "{recovered:#?}");
    let component = &recovered.components[0];
    assert_eq!(component.path, home.folder.join("blank/database/data"));
    let checks: Vec<_> =
        component.checked.checks.iter().map(|check| (check.name.as_str(), check.outcome)).collect();
    for name in ["database `shop`", "database `Old shop`", "pg_amcheck", "SQL `SELECT count(*) FROM orders`"]
    {
        assert!(checks.contains(&(name, CheckOutcome::Passed)), "{name}: {checks:?}");
    }
    // Everybody may pass to the cluster, and nobody else read what was dumped.
    assert_eq!(modes(&home), [0o600, 0o700]);
    let copy = started(&component.path);
    let (original, loaded) = (everything(&home.server), everything(&copy));
    for (original, loaded) in original.iter().zip(&loaded) {
        assert!(original.len() > 20, "{original:?}");
        let differs: Vec<_> =
            original.iter().zip(loaded).filter(|(one, other)| one != other).take(5).collect();
        assert!(differs.is_empty() && original.len() == loaded.len(), "{differs:#?}");
    }
    let counted = "\\c shop\nSELECT count(*), nextval('invoices') FROM orders";
    assert_eq!(copy.psql(counted), "20000|4712");
    let encodings = "SELECT string_agg(pg_encoding_to_char(encoding), ',' ORDER BY datname) FROM pg_database \
                     WHERE datname IN ('Old shop', 'shop')";
    assert_eq!(copy.psql(encodings), "LATIN1,UTF8");
}

#[test]
fn a_second_backup_stores_little_and_one_of_a_database_that_lost_its_rows_nothing() {
    let Some(home) = Home::backed_up("logical", "") else { return };
    fill(&home.server);
    let first = home.back_up().unwrap();
    let second = home.back_up().unwrap();
    assert_eq!(second.parent, Some(first.snapshot()));
    assert!(second.summary.stored_bytes < first.summary.stored_bytes / 3, "{:?}", second.summary);
    home.server
        .psql("\\c shop\nTRUNCATE orders; REFRESH MATERIALIZED VIEW counted; DROP MATERIALIZED VIEW counted");
    let before = home.repository.snapshots().unwrap().len();
    let error = home.back_up().unwrap_err();
    assert_eq!(error.code(), codes::SOURCE_EMPTY, "{error}");
    assert!(error.message().contains("`shop` has lost all its rows"), "{error}");
    assert_eq!(home.repository.snapshots().unwrap().len(), before);
}

#[test]
fn points_in_time_and_recovery_in_place_are_refused() {
    let Some(home) = Home::backed_up("logical", "") else { return };
    home.back_up().unwrap();
    let goal = Goal { target: Target::Lsn(Lsn(1)), ..Goal::default() };
    let under = Place::Under(home.folder.join("blank"));
    let plan = |place: &Place, goal: &Goal| {
        recover::plan(&Request { goal: goal.clone(), ..Request::newest(&home.repository, place.clone()) })
    };
    let error = plan(&under, &goal).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Unsupported, codes::USAGE), "{error}");
    assert!(error.message().contains("lead to no point in time"), "{error}");
    let error = plan(&Place::InPlace, &Goal::default()).unwrap_err();
    assert_eq!(error.code(), codes::RESTORE_TARGET, "{error}");
    let now = Goal { target: Target::Time(jiff::Timestamp::now()), ..Goal::default() };
    assert!(plan(&under, &now).is_ok());
}

#[test]
fn a_dump_is_as_old_as_its_first_moment_and_stands_for_no_time_before_its_last() {
    let Some(home) = Home::backed_up("logical", "") else { return };
    home.server.psql("CREATE TABLE t AS SELECT 1 AS n");
    let before = jiff::Timestamp::now();
    let backed_up = home.back_up().unwrap();
    let after = jiff::Timestamp::now();
    let (facts, snapshot) = (facts(&home), home.repository.snapshot(backed_up.snapshot()).unwrap());
    let (latest, ended) = (facts.latest.unwrap(), facts.ended.unwrap());
    // `postgres` and `template1` are dumped one after the other, then the roles once more.
    assert!(before < facts.time && facts.time < latest && latest < ended && ended < after, "{facts:?}");
    assert_eq!((snapshot.time.0, snapshot.until()), (facts.time, latest));
    assert_eq!(backed_up.consistent_at, facts.time);
    let plan = |at| {
        let goal = Goal { target: Target::Time(at), ..Goal::default() };
        let under = Place::Under(home.folder.join("blank"));
        recover::plan(&Request { goal, ..Request::newest(&home.repository, under) })
    };
    let tick = jiff::SignedDuration::from_nanos(1);
    assert_eq!(plan(latest).unwrap().components[0].snapshot, backed_up.snapshot());
    for too_early in [facts.time, latest - tick] {
        assert_eq!(plan(too_early).unwrap_err().code(), codes::SNAPSHOT_NOT_FOUND, "{too_early}");
    }
}

#[test]
fn while_somebody_deletes_nothing_is_dumped() {
    let Some(home) = Home::backed_up("logical", "") else { return };
    let guard = lock::acquire(&home.repository, Holder::PruneNow).unwrap();
    let looked = std::sync::atomic::AtomicU32::new(0);
    let is_stopped = || {
        looked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        false
    };
    let address = Address::of_process(&home.server.url()).unwrap();
    let mut source = DumpSource::begin(&address, "database", None, &is_stopped).unwrap();
    let error = backup(&home.repository, &mut source, &Options::default(), &Progress::default()).unwrap_err();
    assert_eq!(error.code(), codes::LOCKED, "{error}");
    assert_eq!(looked.load(std::sync::atomic::Ordering::SeqCst), 0, "a program ran");
    guard.release();
}

#[test]
fn a_user_with_a_password_and_without_all_rights_dumps_what_it_may() {
    let options = PostgresOptions { password: Some("s3cret".to_owned()), ..PostgresOptions::default() };
    let Some(server) = PostgresServer::start_with(&options) else { return };
    server.psql(
        "CREATE TABLE t AS SELECT generate_series(1, 10) AS n;
         CREATE ROLE dumper LOGIN PASSWORD 'pass word'; GRANT pg_read_all_data TO dumper;
         CREATE DATABASE closed; REVOKE CONNECT ON DATABASE closed FROM PUBLIC",
    );
    let url = format!("postgres://dumper:pass%20word@127.0.0.1:{}/postgres", server.port());
    let address = Address::parse(&url, &Environment::default()).unwrap();
    let mut source = DumpSource::begin(&address, "database", None, &|| false).unwrap();
    source.next().unwrap();
    let facts = source.facts();
    assert!(!facts.has_passwords);
    let said = facts.left_out().join("\n");
    assert!(said.contains("without passwords") && !said.contains("`closed`"), "{said}");
    assert!(facts.refused().any(|refused| refused.contains("`closed` refuses the user")));
    let stopped = DumpSource::begin(&address, "database", None, &|| true).unwrap().next().unwrap_err();
    assert_eq!(stopped.kind(), ErrorKind::Cancelled);
    // What it may not read ends the backup, with what was refused.
    server.psql(
        "CREATE TABLE closed (n int); REVOKE pg_read_all_data FROM dumper; GRANT SELECT ON t TO dumper",
    );
    let refused = DumpSource::begin(&address, "database", None, &|| false).unwrap().next().unwrap_err();
    assert!([codes::POSTGRES_DUMP, codes::POSTGRES_RIGHT].contains(&refused.code()), "{refused}");
    assert!(format!("{refused} {refused:?}").contains("permission denied for table closed"), "{refused}");
}

/// Dumps whose roles are another text.
struct Forged(DumpSource<'static>, &'static [u8]);

impl Source for Forged {
    fn next(&mut self) -> retoma_core::Result<Option<Event>> {
        Ok(match self.0.next()? {
            Some(Event::Entry(mut node, _)) if node.name == b"globals.sql" => {
                node.size_bytes = self.1.len() as u64;
                Some(Event::Entry(node, Box::new(Text(self.1))))
            }
            other => other,
        })
    }
}

struct Text(&'static [u8]);

impl Content for Text {
    fn describe(&mut self, _node: &mut Node) -> retoma_core::Result<Found> {
        Ok(Found::There)
    }

    fn open(&mut self) -> retoma_core::Result<Box<dyn Reader>> {
        Ok(Box::new(Self(self.0)))
    }
}

impl Reader for Text {
    fn size_bytes(&self) -> Option<u64> {
        Some(self.0.len() as u64)
    }

    fn read(&mut self, buffer: &mut [u8]) -> retoma_core::Result<usize> {
        Ok(std::io::Read::read(&mut self.0, buffer).unwrap())
    }

    fn finish(&mut self, _read_bytes: u64) -> retoma_core::Result<()> {
        Ok(())
    }
}

/// Backs the server up; then its dumps once more, as `change` makes them.
fn back_up_changed<S: Source>(home: &Home, change: impl FnOnce(DumpSource<'static>) -> S) {
    home.back_up().unwrap();
    let is_of_it = |snapshot: &Snapshot| snapshot.component() == Some("database");
    let found = home.repository.snapshots().unwrap().into_iter().map(|it| it.1).find(is_of_it).unwrap();
    let address = Address::of_process(&home.server.url()).unwrap();
    let mut source = change(DumpSource::begin(&address, "database", None, &|| false).unwrap());
    let options = Options { paths: found.paths, tags: found.tags, ..Options::default() };
    backup(&home.repository, &mut source, &options, &Progress::default()).unwrap();
}

/// Dumps that everybody may read.
struct Readable(DumpSource<'static>);

impl Source for Readable {
    fn next(&mut self) -> retoma_core::Result<Option<Event>> {
        Ok(match self.0.next()? {
            Some(Event::Enter(mut node)) if node.name == b"databases" => {
                node.mode |= 0o055;
                Some(Event::Enter(node))
            }
            Some(Event::Entry(node, content)) if node.name == b"globals.sql" => {
                Some(Event::Entry(node, Box::new(ReadableFile(content))))
            }
            other => other,
        })
    }
}

struct ReadableFile(Box<dyn Content>);

impl Content for ReadableFile {
    fn describe(&mut self, node: &mut Node) -> retoma_core::Result<Found> {
        let found = self.0.describe(node)?;
        node.mode |= 0o044;
        Ok(found)
    }

    fn open(&mut self) -> retoma_core::Result<Box<dyn Reader>> {
        self.0.open()
    }
}

/// Above them everybody may pass, since the cluster lies there: the snapshot's modes alone would let them in.
#[test]
fn dumps_that_everybody_might_read_come_back_for_us_alone() {
    let Some(home) = Home::backed_up("logical", "") else { return };
    back_up_changed(&home, Readable);
    let (_, recovered) = home.recover("blank");
    assert!(recovered.unwrap().passed());
    assert_eq!(modes(&home), [0o600, 0o700]);
}

#[test]
fn a_forged_script_of_roles_runs_no_program() {
    let Some(home) = Home::backed_up("logical", "") else { return };
    let proof = home.folder.join("a program ran");
    let forged = format!("SELECT 1;\n\\! touch '{}'\n", proof.display());
    back_up_changed(&home, |source| Forged(source, forged.leak().as_bytes()));
    let (_, recovered) = home.recover("blank");
    let error = recovered.unwrap_err();
    assert!(!proof.exists(), "{error}");
    assert_eq!(error.code(), codes::POSTGRES_DUMP, "{error}");
}

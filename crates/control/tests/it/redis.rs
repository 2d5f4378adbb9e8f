//! A Redis component, backed up by its manifest and checked.

use super::sample::{in_context, supervisor};
use retoma_control::backup::{backup, backup_manifest, doubts};
use retoma_control::check::{self, Copy};
use retoma_control::recover::{self, Options, Place, Recovered, Request};
use retoma_control::{Interrupt, Result, Timeline, open::open_address};
use retoma_core::Secret;
use retoma_core::decide::redis::Doubt;
use retoma_core::drill::{CheckOutcome, StepName};
use retoma_core::error::codes;
use retoma_core::manifest::{Manifest, Origin, parse, render};
use retoma_repo::backup::Progress;
use retoma_repo::restore;
use retoma_testkit::{Folder, RedisOptions, RedisServer};

fn manifest_text(folder: &Folder, url: &str) -> String {
    let repository = folder.join("repository");
    format!(
        "version = 1\n[service]\nname = \"shop\"\n[[repository]]\nname = \"local\"\nurl = \"file://{}\"\npassword = \"env:X\"\n\
         [[component]]\nname = \"cache\"\nkind = \"redis\"\ntier = \"critical\"\nurl = \"{url}\"\n",
        repository.display()
    )
}

fn manifest(folder: &Folder, url: &str) -> Manifest {
    parsed(folder, &manifest_text(folder, url))
}

fn parsed(folder: &Folder, text: &str) -> Manifest {
    let origin = Origin { file_name: "retoma.toml".to_owned(), dir: folder.path().to_owned() };
    parse(text, &origin).unwrap_or_else(|problems| panic!("{}", render(&problems, text)))
}

#[test]
fn a_redis_component_is_backed_up_and_its_copy_checked() {
    let conf = vec!["appendonly yes".into(), "appendfsync no".into()];
    let Some(server) = RedisServer::start_with(RedisOptions { conf, ..RedisOptions::default() }) else {
        return;
    };
    server.cli(&["DEBUG", "POPULATE", "1000", "key", "50"]);
    let folder = Folder::new();
    let manifest = manifest(&folder, &format!("unix://{}", server.socket().display()));
    let component = manifest.component("cache").unwrap();
    let url = &manifest.repositories[0].url;
    let repository = open_address(url, &Secret::new("a password".to_owned()), true).unwrap().repository;
    let done = backup(&manifest, component, &repository, &Progress::default()).unwrap();
    assert!(done.is_complete());
    assert_eq!(done.warnings, [Doubt::SyncedBySystem]);
    assert_eq!(doubts(component).unwrap(), done.warnings);
    let snapshot = repository.snapshot(done.snapshot()).unwrap();
    assert_eq!((snapshot.component(), snapshot.kind()), (Some("cache"), Some("redis")));
    assert_eq!(snapshot.paths, ["/cache"]);

    let index = repository.load_index().unwrap();
    let place = folder.join("copy");
    let path = b"/cache".to_vec();
    let options = restore::Options {
        paths: vec![path.clone()],
        strip: Some(path.clone()),
        ..restore::Options::default()
    };
    let plan = restore::plan(&repository, &index, snapshot.tree, &options, &place).unwrap();
    assert!(restore::apply(plan, &Progress::default()).unwrap().failed.is_empty());
    let copy = Copy {
        repository: &repository,
        index: &index,
        snapshot: (done.snapshot(), &snapshot),
        path: &path,
        place: &place,
    };
    let check = || check::component(&copy, component, &Interrupt::default()).unwrap();
    let checked = check();
    assert_eq!(checked.rows, Some(1000));
    assert!(checked.checks.iter().all(|it| it.outcome == CheckOutcome::Passed), "{:#?}", checked.checks);
    assert!(checked.checks.iter().any(|it| it.name == "keys of database `0`"));
    std::fs::write(place.join("dump.rdb"), b"REDIS").unwrap();
    assert!(
        check()
            .checks
            .iter()
            .any(|it| it.outcome == CheckOutcome::Failed && it.name == "checksum of the data set")
    );

    // Everything gone: the parent's facts are asked.
    server.cli(&["FLUSHALL"]);
    let error = backup(&manifest, component, &repository, &Progress::default()).unwrap_err();
    assert_eq!(error.code(), codes::SOURCE_EMPTY, "{error}");
    assert_eq!(repository.snapshots().unwrap().len(), 1);
}

/// A server with keys that was backed up, with everything that a recovery needs.
struct Site {
    folder: Folder,
    server: RedisServer,
    repository: retoma_repo::Repository,
}

impl Site {
    fn new(conf: &[&str]) -> Option<Self> {
        let conf = conf.iter().map(|line| (*line).to_owned()).collect();
        let server = RedisServer::start_with(RedisOptions { conf, ..RedisOptions::default() })?;
        server.cli(&["DEBUG", "POPULATE", "500", "key", "50"]);
        server.cli(&["SET", "mortal", "v", "EX", "5000"]);
        let folder = Folder::new();
        let text = manifest_text(&folder, &format!("unix://{}", server.socket().display()));
        let manifest = parsed(&folder, &text);
        let url = &manifest.repositories[0].url;
        let repository = open_address(url, &Secret::new("a password".to_owned()), true).unwrap().repository;
        let progress = Progress::default();
        backup(&manifest, &manifest.components[0], &repository, &progress).unwrap();
        backup_manifest(&manifest, &text, &repository, &progress).unwrap();
        Some(Self { folder, server, repository })
    }

    fn recover(&self, place: Place) -> Result<Recovered> {
        let plan = recover::plan(&Request::newest(&self.repository, place))?;
        let (supervisor, log) = (supervisor(), self.folder.join("log"));
        let options = Options {
            supervisor: &supervisor,
            starts_service: true,
            log: &log,
            keep_previous: false,
            runs_stop: false,
        };
        in_context(|context| {
            let mut timeline = Timeline::start(context.clock, StepName::Decide);
            recover::apply(&plan, &self.repository, &options, &mut timeline, context.watch, context.interrupt)
        })
    }
}

fn names(folder: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut names: Vec<String> = entries.map(|it| it.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn under_a_folder_the_data_set_lies_where_the_server_had_it() {
    let Some(site) = Site::new(&[]) else { return };
    let root = site.folder.join("blank");
    let recovered = site.recover(Place::Under(root.clone())).unwrap();
    assert!(recovered.passed(), "{recovered:#?}");
    let cache = &recovered.components[0];
    assert_eq!(cache.checked.rows, Some(501));
    let folder = root.join(site.server.data_dir().strip_prefix("/").unwrap());
    assert_eq!(cache.path, folder.join("dump.rdb"));
    assert_eq!(names(&folder), ["dump.rdb"], "no log where the server had none");
    let mut restored = RedisServer::restored(RedisOptions::default(), |data| {
        std::fs::copy(folder.join("dump.rdb"), data.join("dump.rdb")).unwrap();
    })
    .unwrap();
    restored.go();
    assert_eq!(restored.cli(&["DBSIZE"]), "501");
}

#[test]
fn in_place_a_living_server_is_refused_and_a_stopped_one_loads_what_was_restored() {
    for log in [["appendonly no", "dbfilename data.rdb"], ["appendonly yes", "dbfilename data.rdb"]] {
        let Some(mut site) = Site::new(&log) else { return };
        // Lost after the backup, also from the log.
        site.server.cli(&["FLUSHALL"]);
        site.server.cli(&["SET", "later", "v"]);
        let refused = site.recover(Place::InPlace).unwrap_err();
        assert_eq!(refused.code(), codes::RESTORE_TARGET, "{refused}");
        assert_eq!(site.server.cli(&["DBSIZE"]), "1");
        site.server.stop();
        let data = site.server.data_dir();
        std::fs::write(data.join("users.acl"), "mine").unwrap();
        let recovered = site.recover(Place::InPlace).unwrap();
        assert!(recovered.passed(), "{recovered:#?}");
        let logs: &[&str] = if log[0].ends_with("yes") { &["appendonlydir"] } else { &[] };
        assert_eq!(names(&data), [logs, &["data.rdb", "users.acl"]].concat(), "what is not in it stays");
        site.server.go();
        assert_eq!(site.server.cli(&["DBSIZE"]), "501", "{log:?}: {}", site.server.log());
        let ttl: i64 = site.server.cli(&["TTL", "mortal"]).parse().unwrap();
        assert!((1..=5000).contains(&ttl), "{ttl}");
        // It goes on with its log: what is written now survives.
        site.server.cli(&["SET", "new", "v"]);
        if log[0].ends_with("yes") {
            site.server.kill();
            site.server.go();
            assert_eq!(site.server.cli(&["DBSIZE"]), "502");
        }
    }
}

#[test]
fn a_log_that_was_turned_on_later_does_not_bring_the_old_state_back() {
    let Some(mut site) = Site::new(&["appendonly no"]) else { return };
    site.server.cli(&["CONFIG", "SET", "appendonly", "yes"]);
    site.server.cli(&["FLUSHALL"]);
    let log = site.server.data_dir().join("appendonlydir/appendonly.aof.manifest");
    retoma_testkit::wait_for(|| log.exists().then_some(()));
    site.server.kill();
    assert!(site.recover(Place::InPlace).unwrap().passed());
    let mut restored = RedisServer::restored(
        RedisOptions { conf: vec!["appendonly yes".into()], ..RedisOptions::default() },
        |data| {
            std::fs::remove_dir(data).unwrap();
            std::fs::rename(site.server.data_dir(), data).unwrap();
        },
    )
    .unwrap();
    restored.go();
    assert_eq!(restored.cli(&["DBSIZE"]), "501");
}

#[test]
fn a_damaged_data_set_never_reaches_the_place_of_the_previous_one() {
    let Some(mut site) = Site::new(&["appendonly yes"]) else { return };
    site.server.stop();
    let (data, previous) = (site.server.data_dir(), "previous");
    std::fs::write(data.join("dump.rdb"), previous).unwrap();
    let packs = site.folder.join("repository/data");
    for pack in
        std::fs::read_dir(packs).unwrap().flat_map(|it| std::fs::read_dir(it.unwrap().path()).unwrap())
    {
        std::fs::remove_file(pack.unwrap().path()).unwrap();
    }
    site.recover(Place::InPlace).unwrap_err();
    assert_eq!(std::fs::read_to_string(data.join("dump.rdb")).unwrap(), previous);
    assert_eq!(names(&data), ["appendonlydir", "dump.rdb"]);
}

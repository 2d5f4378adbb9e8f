//! A Redis component, backed up by its manifest and checked.

use retoma_control::backup::{backup, doubts};
use retoma_control::check::{self, Copy};
use retoma_control::{Interrupt, open::open_address};
use retoma_core::Secret;
use retoma_core::decide::redis::Doubt;
use retoma_core::drill::CheckOutcome;
use retoma_core::error::codes;
use retoma_core::manifest::{Manifest, Origin, parse, render};
use retoma_repo::backup::Progress;
use retoma_repo::restore;
use retoma_testkit::{Folder, RedisOptions, RedisServer};

fn manifest(folder: &Folder, url: &str) -> Manifest {
    let repository = folder.join("repository");
    let text = format!(
        "version = 1\n[service]\nname = \"shop\"\n[[repository]]\nname = \"local\"\nurl = \"file://{}\"\npassword = \"env:X\"\n\
         [[component]]\nname = \"cache\"\nkind = \"redis\"\ntier = \"critical\"\nurl = \"{url}\"\n",
        repository.display()
    );
    let origin = Origin { file_name: "retoma.toml".to_owned(), dir: folder.path().to_owned() };
    parse(&text, &origin).unwrap_or_else(|problems| panic!("{}", render(&problems, &text)))
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

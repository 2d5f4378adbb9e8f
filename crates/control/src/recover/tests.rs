use super::*;
use retoma_core::Secret;
use retoma_core::manifest::Source;
use retoma_repo::BlobId;
use retoma_repo::backup::Progress;
use retoma_repo::format::time::Time;
use retoma_repo::store::{BlockingStore, ObjectStore};
use std::sync::Arc;

pub(super) fn manifest(service: &str) -> (Manifest, String) {
    let text = format!(
        "version = 1\n[service]\nname = \"{service}\"\n[[repository]]\nname = \"r\"\nurl = \"file:///r\"\n\
         password = \"env:P\"\n[[component]]\nname = \"m\"\nkind = \"files\"\ntier = \"low\"\npath = \"m\"\n"
    );
    let origin = Origin { file_name: MANIFEST_NAME.to_owned(), dir: PathBuf::from("/srv/app") };
    (manifest::parse(&text, &origin).unwrap(), text)
}

/// A component of a plan that goes to `to`; a folder unless it is a database.
pub(super) fn planned(to: &str, is_database: bool) -> PlannedComponent {
    let path = PathBuf::from(to);
    let source = if is_database {
        Source::Sqlite { path, may_be_empty: Vec::new() }
    } else {
        Source::Files { path, exclude: Vec::new() }
    };
    let component = Component { name: to.to_owned(), source, ..manifest("s").0.components[0].clone() };
    PlannedComponent {
        component,
        snapshot: SnapshotId::of(to.as_bytes()),
        recorded: snapshot(0, &[]),
        mass_change: None,
        from: PathBuf::from(to),
        to: PathBuf::from(to),
        is_folder: !is_database,
        server: None,
        spaces: Vec::new(),
        recovery: None,
        dump: None,
        unit: None,
        log: None,
    }
}

fn snapshot(second: i64, tags: &[&str]) -> Snapshot {
    Snapshot {
        time: Time(at(second)),
        parent: None,
        tree: BlobId::of(b""),
        paths: Vec::new(),
        hostname: "h".to_owned(),
        username: String::new(),
        uid: 0,
        gid: 0,
        excludes: Vec::new(),
        tags: tags.iter().map(|tag| (*tag).to_owned()).collect(),
        original: None,
    }
}

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(second).unwrap()
}

pub(super) fn repository() -> Repository {
    let store = BlockingStore::new(std::sync::Arc::new(ObjectStore::memory())).unwrap();
    Repository::init(store, &Secret::new("a test".to_owned())).unwrap()
}

#[test]
fn what_lies_in_a_folder_that_is_exchanged_goes_with_it_and_nothing_else_does() {
    let mut components = [
        planned("/srv/app/data/db", true),
        planned("/srv/app", false),
        planned("/srv/app2", false),
        planned("/srv/app/models", false),
        planned("/var/db", true),
        // Below a file there is nothing: this name merely begins alike.
        planned("/var/db/x", false),
    ];
    let units = units(&mut components);
    let of = |at: usize| {
        let (unit, below) = components[at].unit.clone().unwrap();
        (units[unit].live.display().to_string(), below.display().to_string())
    };
    let found: Vec<_> = (0..components.len()).map(of).collect();
    let expected = [
        ("/srv/app", "data/db"),
        ("/srv/app", ""),
        ("/srv/app2", ""),
        ("/srv/app", "models"),
        ("/var/db", ""),
        ("/var/db/x", ""),
    ];
    assert_eq!(found, expected.map(|(unit, below)| (unit.to_owned(), below.to_owned())));
    let databases: Vec<_> =
        units.iter().filter(|unit| unit.is_database).map(|unit| unit.live.clone()).collect();
    assert_eq!(databases, [PathBuf::from("/var/db")], "a database in a folder moves with the folder");
    assert!(units.iter().all(|unit| unit.is_folder != unit.is_database));
}

/// Two manifests, stored as of second 100 and second 200.
fn with_two_manifests() -> (Repository, [SnapshotId; 2]) {
    let repository = repository();
    let store = |service: &str, second: i64| {
        let (manifest, text) = manifest(service);
        let id =
            backup::backup_manifest(&manifest, &text, &repository, &Progress::default()).unwrap().unwrap();
        let moved = Snapshot { time: Time(at(second)), ..repository.snapshot(id).unwrap() };
        let key = retoma_repo::Folder::Snapshots.key(&id.to_hex()).unwrap();
        repository.store().delete(&key).unwrap();
        repository.save_snapshot(&moved).unwrap()
    };
    let ids = [store("first", 100), store("second", 200)];
    // Newer than all, and no manifest.
    repository.save_snapshot(&snapshot(300, &["retoma:component=m"])).unwrap();
    (repository, ids)
}

#[test]
fn the_manifest_is_the_newest_of_its_time_the_very_second_included() {
    let (repository, [first, second]) = with_two_manifests();
    for (time, id, service) in [
        (None, second, "second"),
        (Some(at(100)), first, "first"),
        (Some(at(199)), first, "first"),
        (Some(at(200)), second, "second"),
        (Some(at(1000)), second, "second"),
    ] {
        let (found, manifest, text) = stored_manifest(&repository, time).unwrap();
        assert_eq!((found, manifest.service.name.as_str()), (id, service), "{time:?}");
        assert!(text.contains(service));
        assert_eq!(manifest.dir(), Path::new("/srv/app"), "where it was, so that relative paths hold");
    }
    let none = stored_manifest(&repository, Some(at(99))).unwrap_err();
    assert_eq!((none.kind(), none.code()), (ErrorKind::NotFound, codes::SNAPSHOT_NOT_FOUND));
    assert!(none.message().contains("at or before"), "{none}");
}

#[test]
fn a_stored_manifest_with_problems_is_refused_with_its_snapshot_named() {
    let repository = repository();
    let (manifest, _) = manifest("s");
    let store = |text: &str| backup::backup_manifest(&manifest, text, &repository, &Progress::default());
    let id = store("version = 99\n").unwrap().unwrap();
    let error = stored_manifest(&repository, None).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, codes::MANIFEST_INVALID));
    assert!(error.message().contains(&id.short()), "{error}");
}

#[test]
fn nothing_of_a_manifest_leads_out_of_the_folder_that_stands_for_the_root() {
    let store = BlockingStore::new(Arc::new(ObjectStore::memory())).unwrap();
    let repository = Repository::init(store, &Secret::new("correct horse".to_owned())).unwrap();
    let code = |manifest: &Manifest, place| {
        let request = Request { manifest: Some((manifest, "")), ..Request::newest(&repository, place) };
        plan(&request).unwrap_err().code()
    };
    let under = || Place::Under("/new".into());
    let (original, _) = manifest("s");
    for (path, leads_out) in [
        ("/etc", false),
        ("/srv/app/../data", false),
        ("/a/b/../../c", false),
        ("/..", true),
        ("/../etc", true),
        ("/a/../../etc", true),
    ] {
        let mut manifest = original.clone();
        manifest.components[0].source = Source::Files { path: path.into(), exclude: Vec::new() };
        // Where it is allowed, the plan goes on and finds no snapshot.
        let expected = if leads_out { codes::RESTORE_TARGET } else { codes::SNAPSHOT_NOT_FOUND };
        assert_eq!(code(&manifest, under()), expected, "{path}");
        assert_eq!(code(&manifest, Place::InPlace), codes::SNAPSHOT_NOT_FOUND, "{path}");
    }
    let origin = Origin { file_name: MANIFEST_NAME.to_owned(), dir: "/../srv".into() };
    let (_, text) = manifest("s");
    let outside = manifest::parse(&text.replace("path = \"m\"", "path = \"/m\""), &origin).unwrap();
    assert_eq!(code(&outside, under()), codes::RESTORE_TARGET, "the manifest's own folder");
}

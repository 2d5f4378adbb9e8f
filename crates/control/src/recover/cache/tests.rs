use super::*;
use retoma_core::manifest::{Origin, parse};
use std::collections::BTreeMap;

fn component() -> Component {
    let text = "version = 1\n[service]\nname = \"s\"\n[[repository]]\nname = \"r\"\nurl = \"file:///r\"\npassword = \"env:P\"\n\
                [[component]]\nname = \"cache\"\nkind = \"redis\"\ntier = \"low\"\nurl = \"redis://127.0.0.1:1\"\n";
    let origin = Origin { file_name: "m".to_owned(), dir: "/".into() };
    parse(text, &origin).unwrap().components.remove(0)
}

/// What was recorded of a server of this version with these settings: `name=value;name=value`.
fn facts(version: &str, settings: Option<&str>) -> RedisFacts {
    let settings: Option<BTreeMap<&str, &str>> =
        settings.map(|all| all.split(';').filter_map(|pair| pair.split_once('=')).collect());
    let facts = serde_json::json!({
        "schema": "retoma.redis/1", "kind": "redis", "path": "/cache/dump.rdb",
        "server": { "version": version, "mode": "standalone", "role": "master", "run_id": "x", "used_memory_bytes": 1,
                    "settings": settings, "modules": [] },
        "replication_id": "x", "replication_offset": 0, "bytes": 1, "rdb_version": 10, "has_checksum": true,
        "not_counted": null, "databases": {}, "types": {},
    });
    serde_json::from_value(facts).unwrap()
}

fn planned(place: &Place, version: &str, settings: Option<&str>) -> Result<(PathBuf, Option<Log>)> {
    plan(place, &component(), &facts(version, settings))
}

#[test]
fn a_data_set_goes_where_its_server_reads_it() {
    let under = Place::Under("/new".into());
    let folder = |path: &str| Log::Folder(path.into(), "appendonly.aof".to_owned());
    let cases: [(&Place, &str, &str, &str, Option<Log>); 7] = [
        (&Place::InPlace, "7.2.4", "dir=/nowhere/redis", "/nowhere/redis/dump.rdb", None),
        (&under, "7.2.4", "dir=/var/redis", "/new/var/redis/dump.rdb", None),
        (&under, "7.2.4", "dir=/d;dbfilename=own.rdb;appendonly=no", "/new/d/own.rdb", None),
        (&under, "7.2.4", "dir=/d;appendonly=yes", "/new/d/dump.rdb", Some(folder("/new/d/appendonlydir"))),
        (
            &under,
            "8.0.1",
            "dir=/d;appendonly=yes;appenddirname=log;appendfilename=a",
            "/new/d/dump.rdb",
            Some(Log::Folder("/new/d/log".into(), "a".to_owned())),
        ),
        (
            &under,
            "6.2.14",
            "dir=/d;appendonly=yes",
            "/new/d/dump.rdb",
            Some(Log::File("/new/d/appendonly.aof".into())),
        ),
        // An empty setting is its default.
        (&under, "7.0.0", "dir=/d;dbfilename=;appendfilename=", "/new/d/dump.rdb", None),
    ];
    for (place, version, settings, dump, log) in cases {
        let expected = (PathBuf::from(dump), log);
        assert_eq!(planned(place, version, Some(settings)).unwrap(), expected, "{version} {settings}");
    }
}

#[test]
fn a_server_that_does_not_tell_its_folder_is_only_recovered_elsewhere() {
    let under = Place::Under("/new".into());
    for settings in [None, Some("appendonly=yes"), Some("dir=relative;appendonly=yes")] {
        let error = planned(&Place::InPlace, "7.2.4", settings).unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Unsupported, codes::RESTORE_TARGET));
        assert_eq!(planned(&under, "7.2.4", settings).unwrap().0, Path::new("/new/cache/dump.rdb"));
    }
    // It may have a log; who does not tell is not taken for one that has.
    assert_eq!(planned(&under, "7.2.4", None).unwrap().1, None);
}

#[test]
fn a_setting_that_is_no_name_of_a_file_is_refused_before_anything_is_written() {
    let under = Place::Under("/new".into());
    for name in ["dbfilename", "appendfilename", "appenddirname"] {
        for value in ["../x", "a/b", "/etc/passwd", "..", ".", "a\nb", "a\"b", "a\0b"] {
            let error = planned(&under, "7.2.4", Some(&format!("dir=/d;{name}={value}"))).unwrap_err();
            assert_eq!(error.code(), codes::CAPTURE_FACTS_MALFORMED, "{name} {value:?}");
            assert!(error.message().contains(name) && !error.message().contains(value), "{error}");
        }
    }
}

#[test]
fn nothing_that_was_recorded_leads_out_of_the_folder_that_stands_for_the_root() {
    let under = Place::Under("/new".into());
    for dir in ["/..", "/../etc", "/var/../../etc", "/a/b/../../../x"] {
        let error = planned(&under, "7.2.4", Some(&format!("dir={dir}"))).unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, codes::RESTORE_TARGET), "{dir}");
    }
    let (dump, _) = planned(&under, "7.2.4", Some("dir=/var/lib/../redis")).unwrap();
    assert_eq!(dump, Path::new("/new/var/lib/../redis/dump.rdb"), "a step up within it is none out of it");
}

#[test]
fn a_log_that_was_turned_on_after_the_backup_is_replaced_too() {
    let folder = tempfile::tempdir().unwrap();
    let settings = format!("dir={};appendonly=no", folder.path().display());
    assert_eq!(planned(&Place::InPlace, "7.2.4", Some(&settings)).unwrap().1, None);
    let log = folder.path().join("appendonlydir");
    std::fs::create_dir(&log).unwrap();
    let found = planned(&Place::InPlace, "7.2.4", Some(&settings)).unwrap().1;
    assert_eq!(found, Some(Log::Folder(log, "appendonly.aof".to_owned())));
    // A link that leads nowhere now may lead somewhere at the next start.
    let settings = format!("dir={}", folder.path().display());
    std::os::unix::fs::symlink("away", folder.path().join("appendonly.aof")).unwrap();
    let found = planned(&Place::InPlace, "6.0.0", Some(&settings)).unwrap().1;
    assert_eq!(found, Some(Log::File(folder.path().join("appendonly.aof"))));
}

#[test]
fn a_data_set_gets_its_name_and_the_log_is_made_of_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let names = |folder: &Path| {
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    };
    std::fs::write(path("dump.rdb"), "the data set").unwrap();
    dress(&path("dump.rdb"), &path("own.rdb"), None, folder.path()).unwrap();
    assert_eq!(names(folder.path()), ["own.rdb"]);
    // What a recovery left behind that was killed must not be read as a log.
    std::fs::create_dir(path("log")).unwrap();
    std::fs::write(path("log/a.9.incr.aof"), "old writes").unwrap();
    let log = Log::Folder("/live/log".into(), "a".to_owned());
    dress(&path("own.rdb"), &path("own.rdb"), Some((&log, &path("log"))), folder.path()).unwrap();
    assert_eq!(names(&path("log")), ["a.1.base.rdb", "a.manifest"]);
    assert_eq!(std::fs::read_to_string(path("log/a.1.base.rdb")).unwrap(), "the data set");
    let manifest = std::fs::read_to_string(path("log/a.manifest")).unwrap();
    assert_eq!(manifest, "file \"a.1.base.rdb\" seq 1 type b\n");
    // Before 7.0 it is one file, which begins with the data set.
    std::fs::write(path("appendonly.aof"), "old writes").unwrap();
    let log = Log::File("/live/appendonly.aof".into());
    dress(&path("own.rdb"), &path("own.rdb"), Some((&log, &path("appendonly.aof"))), folder.path()).unwrap();
    assert_eq!(std::fs::read_to_string(path("appendonly.aof")).unwrap(), "the data set");
    assert_eq!(std::fs::read_to_string(path("own.rdb")).unwrap(), "the data set");
}

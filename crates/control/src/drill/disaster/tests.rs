use super::*;

#[test]
fn names_and_scenarios_correspond() {
    for scenario in Scenario::ALL {
        assert_eq!(Scenario::from_name(scenario.as_str()), Some(scenario));
    }
    assert_eq!(Scenario::from_name("fire"), None);
}

#[test]
fn only_what_lies_in_the_scratch_folder_is_destroyed() {
    let folder = tempfile::tempdir().unwrap();
    let (scratch, live) = (folder.path().join("scratch"), folder.path().join("live"));
    std::fs::create_dir_all(scratch.join("in")).unwrap();
    std::fs::create_dir(&live).unwrap();
    std::os::unix::fs::symlink(&live, scratch.join("link")).unwrap();
    assert!(require_below(&scratch.join("in"), &scratch).is_ok());
    for path in [live, scratch.join("link"), scratch.join("in/../../live"), scratch.clone()] {
        assert_eq!(require_below(&path, &scratch).unwrap_err().code(), codes::TARGET_IS_LIVE);
    }
}

#[test]
fn the_largest_table_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    connection
        .execute_batch("CREATE TABLE a (x); CREATE TABLE b (x); INSERT INTO b VALUES (1), (2); INSERT INTO a VALUES (1);")
        .unwrap();
    drop_table(&path).unwrap();
    let tables: String =
        connection.query_row("SELECT group_concat(name) FROM sqlite_schema", (), |row| row.get(0)).unwrap();
    assert_eq!(tables, "a");
}

#[test]
fn flipped_bytes_leave_the_size_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("file");
    std::fs::write(&path, vec![7; 70_000]).unwrap();
    flip_bytes(&path).unwrap();
    let now = std::fs::read(&path).unwrap();
    assert_eq!(now.len(), 70_000);
    assert_eq!(now.iter().filter(|byte| **byte != 7).count(), 32);
}

const MANIFEST: &str = "version = 1\n[service]\nname = \"s\"\n[[repository]]\nname = \"r\"\nurl = \"file:///r\"\n\
     password = \"env:P\"\n[[component]]\nname = \"models\"\nkind = \"files\"\ntier = \"low\"\npath = \"models\"\n\
     [[component]]\nname = \"database\"\nkind = \"sqlite\"\ntier = \"low\"\npath = \"db\"\n\
     [[component]]\nname = \"nothing\"\nkind = \"files\"\ntier = \"low\"\npath = \"empty\"\n";

/// A patient in `root/app` whose own folder is said to be `scratch`, and a file beside the service.
fn patient(root: &Path, scratch: &Path) -> Patient {
    let dir = root.join("app");
    std::fs::create_dir_all(dir.join("models/sub")).unwrap();
    std::fs::create_dir_all(dir.join("empty")).unwrap();
    std::fs::write(dir.join("models/small"), "sss").unwrap();
    std::fs::write(dir.join("models/sub/large"), "llllll").unwrap();
    std::fs::write(dir.join("models/last"), "ll").unwrap();
    std::fs::write(dir.join("other"), "o").unwrap();
    std::fs::write(root.join("beside"), "b").unwrap();
    let sql = "CREATE TABLE t (x); INSERT INTO t VALUES (1);";
    rusqlite::Connection::open(dir.join("db")).unwrap().execute_batch(sql).unwrap();
    for suffix in ["-shm", "-journal"] {
        std::fs::write(dir.join(format!("db{suffix}")), "").unwrap();
    }
    let origin = retoma_core::manifest::Origin { file_name: "retoma.toml".to_owned(), dir };
    Patient {
        manifest: retoma_core::manifest::parse(MANIFEST, &origin).unwrap(),
        manifest_text: MANIFEST.to_owned(),
        manifest_is_stored: false,
        is_part: false,
        repository_dir: root.join("repository"),
        password: retoma_core::Secret::new("p".to_owned()),
        several: None,
        scratch: scratch.to_owned(),
        root: None,
        folder: None,
    }
}

/// Every file with its contents.
fn listing(root: &Path) -> Vec<(String, Vec<u8>)> {
    let mut found = Vec::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root).unwrap().display().to_string();
                found.push((name, std::fs::read(&path).unwrap()));
            }
        }
    }
    found.sort();
    found
}

fn names(root: &Path) -> Vec<String> {
    listing(root).into_iter().map(|(name, _)| name).collect()
}

#[test]
fn no_disaster_strikes_anything_outside_the_drills_own_folder() {
    for scenario in Scenario::ALL {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        let mut patient = patient(folder.path(), elsewhere.path());
        let before = listing(folder.path());
        assert_eq!(strike(scenario, &patient, None).unwrap_err().code(), codes::TARGET_IS_LIVE, "{scenario}");
        // The folder alone would do; the component's place would not.
        patient.scratch = folder.path().to_owned();
        let live = elsewhere.path().join("live");
        std::fs::create_dir(&live).unwrap();
        std::fs::write(live.join("precious"), "p").unwrap();
        patient.manifest.components[2].source = Source::Files { path: live.clone(), exclude: Vec::new() };
        assert_eq!(strike(scenario, &patient, None).unwrap_err().code(), codes::TARGET_IS_LIVE, "{scenario}");
        patient.manifest.components.truncate(2);
        // Nor would the folder that stands for the whole machine.
        patient.root = Some(live.clone());
        assert_eq!(strike(scenario, &patient, None).unwrap_err().code(), codes::TARGET_IS_LIVE, "{scenario}");
        assert_eq!(listing(folder.path()), before, "{scenario}");
        assert_eq!(names(&live), ["precious"], "{scenario}");
    }
}

#[test]
fn the_folder_of_the_service_is_lost_and_what_is_beside_it_is_not() {
    for (scenario, is_told) in [(Scenario::ApplicationFailure, false), (Scenario::LostKey, true)] {
        let folder = tempfile::tempdir().unwrap();
        let patient = patient(folder.path(), folder.path());
        let (what, service) = strike(scenario, &patient, None).unwrap();
        assert!(service.is_none());
        assert_eq!(what.contains("key"), is_told, "{what}");
        assert_eq!(names(folder.path()), ["beside"]);
    }
}

#[test]
fn a_lost_machine_takes_everything_below_its_root_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("root");
    let patient = Patient { root: Some(root.clone()), ..patient(&root, folder.path()) };
    std::fs::write(folder.path().join("beside"), "b").unwrap();
    strike(Scenario::ApplicationFailure, &patient, None).unwrap();
    assert_eq!(names(folder.path()), ["beside", "root/beside"]);
    std::fs::create_dir_all(patient.manifest.dir()).unwrap();
    for component in &patient.manifest.components {
        std::fs::write(component.path().unwrap(), "c").unwrap();
    }
    strike(Scenario::InfrastructureFailure, &patient, None).unwrap();
    assert_eq!(names(folder.path()), ["beside"]);
}

#[test]
fn when_a_part_is_drilled_only_its_components_are_lost_with_all_that_sqlite_keeps_beside() {
    let folder = tempfile::tempdir().unwrap();
    let patient = Patient { is_part: true, ..patient(folder.path(), folder.path()) };
    assert!(names(folder.path()).contains(&"app/db-journal".to_owned()));
    strike(Scenario::ApplicationFailure, &patient, None).unwrap();
    assert_eq!(names(folder.path()), ["app/other", "beside"]);
}

#[test]
fn the_largest_file_of_each_folder_is_deleted_or_corrupted_and_no_other() {
    let large = "app/models/sub/large".to_owned();
    let folder = tempfile::tempdir().unwrap();
    let patient_of = |folder: &tempfile::TempDir| patient(folder.path(), folder.path());
    let files = |folder: &tempfile::TempDir| {
        let mut files = listing(folder.path());
        files.retain(|(name, _)| !name.starts_with("app/db"));
        files
    };
    let patient = patient_of(&folder);
    let mut expected = files(&folder);
    let (what, _) = strike(Scenario::Deletion, &patient, None).unwrap();
    assert_eq!(what, "data of models, database spoilt under the running service", "not of the empty folder");
    expected.retain(|(name, _)| *name != large);
    assert_eq!(files(&folder), expected);

    let folder = tempfile::tempdir().unwrap();
    let patient = patient_of(&folder);
    let before = files(&folder);
    strike(Scenario::Corruption, &patient, None).unwrap();
    let after = files(&folder);
    let changed = before.iter().zip(&after).filter(|(before, after)| before != after);
    assert_eq!(changed.map(|(before, _)| before.0.clone()).collect::<Vec<_>>(), [large]);
    let header = std::fs::read(folder.path().join("app/db")).unwrap();
    assert!(!header.starts_with(b"SQLite format 3"), "the database's first bytes are hit too");
}

#[test]
fn neither_the_marks_nor_what_sqlite_keeps_for_itself_is_the_table_that_goes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("db");
    let connection = rusqlite::Connection::open(&path).unwrap();
    let sql = "CREATE TABLE parents (id INTEGER PRIMARY KEY AUTOINCREMENT);
               CREATE TABLE \"a \"\" name\" (of REFERENCES parents (id));
               CREATE TABLE retoma_markers (x);
               INSERT INTO parents VALUES (1), (2); INSERT INTO \"a \"\" name\" VALUES (1);
               INSERT INTO retoma_markers VALUES (1), (2), (3), (4);";
    connection.execute_batch(sql).unwrap();
    let tables = || -> Vec<String> {
        let names = "SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name";
        let mut statement = connection.prepare(names).unwrap();
        statement.query_map((), |row| row.get(0)).unwrap().map(std::result::Result::unwrap).collect()
    };
    drop_table(&path).unwrap();
    assert_eq!(tables(), ["a \" name", "retoma_markers", "sqlite_sequence"], "also where others refer to it");
    drop_table(&path).unwrap();
    assert_eq!(tables(), ["retoma_markers", "sqlite_sequence"]);
    drop_table(&path).unwrap();
    assert_eq!(tables(), ["retoma_markers", "sqlite_sequence"], "there is no table left that is the user's");
    assert_eq!(drop_table(&folder.path().join("absent")).unwrap_err().code(), codes::DRILL_UNSUITED);
}

#[test]
fn every_file_of_the_components_is_encrypted_and_none_beside_them() {
    let folder = tempfile::tempdir().unwrap();
    let patient = patient(folder.path(), folder.path());
    std::fs::set_permissions(
        patient.manifest.dir().join("models/small"),
        std::os::unix::fs::PermissionsExt::from_mode(0o444),
    )
    .unwrap();
    std::os::unix::fs::symlink(folder.path().join("beside"), patient.manifest.dir().join("models/link"))
        .unwrap();
    let before = listing(folder.path());
    strike(Scenario::Ransomware, &patient, None).unwrap();
    let after = listing(folder.path());
    let sizes = |all: &[(String, Vec<u8>)]| {
        all.iter().map(|(name, bytes)| (name.clone(), bytes.len())).collect::<Vec<_>>()
    };
    assert_eq!(sizes(&after), sizes(&before), "names and sizes stay");
    let changed = before.iter().zip(&after).filter(|(before, after)| before != after);
    let changed: Vec<&str> = changed.map(|(before, _)| before.0.as_str()).collect();
    assert_eq!(changed, ["app/db", "app/models/last", "app/models/small", "app/models/sub/large"]);
}

//! Tests of the seeded root.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Mutex;

use super::*;
use crate::model::check_folder;
use crate::store::{PredictionStore, SqliteStore};

fn small(seed: u64) -> SeedOptions {
    SeedOptions { rows: 2_000, model_bytes: 40_000, log_bytes: 40_000, seed }
}

/// Every file below `root` with its content.
fn contents(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut folders = vec![root.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.insert(path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap());
            }
        }
    }
    files
}

fn seeded(options: &SeedOptions) -> (tempfile::TempDir, SeedReport) {
    let folder = tempfile::tempdir().unwrap();
    let report = seed(folder.path(), options, &|_| ()).unwrap();
    (folder, report)
}

#[test]
fn the_same_seed_makes_the_same_files_and_another_seed_others() {
    let [one, same, other] =
        [small(7), small(7), small(8)].map(|options| contents(seeded(&options).0.path()));
    assert_eq!(one.len(), 1 + 1 + 8 + 4, "config, database, models with checksums, logs: {:?}", one.keys());
    assert!(one == same, "a file differs");
    for (path, bytes) in &one {
        let differs = other[path] != *bytes;
        assert_eq!(differs, path.as_path() != Path::new("config/marabet.toml"), "{}", path.display());
    }
}

#[test]
fn the_report_says_what_is_there() {
    let (folder, report) = seeded(&small(1));
    let layout = Layout::new(folder.path());
    assert_eq!(report.database_bytes, fs::metadata(layout.database()).unwrap().len());
    assert!((39_000..=40_000).contains(&report.model_bytes), "{report:?}");
    assert!((40_000..41_000).contains(&report.log_bytes), "{report:?}");
    let store = SqliteStore::new(layout.database());
    store.check_deep().unwrap();
    assert_eq!(store.count_predictions().unwrap(), 2_000);
    check_folder(&layout.models()).unwrap();
    let connection = rusqlite::Connection::open(layout.database()).unwrap();
    let count = |table: &str| -> i64 {
        connection.query_row(&format!("SELECT count(*) FROM {table}"), (), |row| row.get(0)).unwrap()
    };
    let orphans = connection.prepare("PRAGMA foreign_key_check").unwrap().exists(()).unwrap();
    assert!(!orphans);
    assert_eq!((count("users"), count("events"), count("markers")), (20, 200, 0));
}

#[test]
fn every_part_reports_its_progress_up_to_the_end() {
    let seen = Mutex::new(Vec::new());
    let folder = tempfile::tempdir().unwrap();
    seed(folder.path(), &small(1), &|step| seen.lock().unwrap().push(step)).unwrap();
    let seen = seen.into_inner().unwrap();
    for part in [SeedPart::Database, SeedPart::Logs] {
        let last = seen.iter().rfind(|step| step.part == part).unwrap();
        assert_eq!(last.done, last.total);
    }
    assert_eq!(seen.iter().filter(|step| step.part == SeedPart::Models).count(), 4);
}

#[test]
fn a_root_that_is_there_is_left_alone() {
    let (folder, _) = seeded(&small(1));
    let before = contents(folder.path());
    let error = seed(folder.path(), &small(2), &|_| ()).unwrap_err();
    assert_eq!(error.code(), codes::SAMPLE_EXISTS);
    assert!(contents(folder.path()) == before);
}

#[test]
fn the_log_lines_are_json() {
    let (folder, _) = seeded(&small(1));
    let text = fs::read_to_string(Layout::new(folder.path()).log()).unwrap();
    assert!(text.lines().count() > 50);
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["status"].as_u64().is_some() && line["time"].as_str().is_some());
    }
}

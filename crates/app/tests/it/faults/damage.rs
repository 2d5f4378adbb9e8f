//! WAL that is damaged in the store: named by whoever reads it before it is needed, and by the recovery that needs it.

use super::{archived, archiving, site};
use crate::wal_stream::Site;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

const PATIENCE: Duration = Duration::from_mins(1);

fn flip(path: &Path) {
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// All files below a folder, sorted.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

/// That everything that reads names the object: `verify` and `wal check`; and, when `others` are damaged too, `recover`.
fn assert_named(site: &Site, object: &Path, others: &[PathBuf]) {
    let name = object.strip_prefix(site.home().join("near")).unwrap().display().to_string();
    // Without reading there is nothing to see.
    site.retoma(&["verify"]).expect(0);
    site.retoma(&["wal", "check"]).expect(0);
    let verified = site.retoma(&["verify", "--read-data", "--json"]).expect(4).document();
    let finding = &verified["findings"][0];
    assert_eq!(
        (&finding["object"], &finding["code"]),
        (&name.clone().into(), &"R0203".into()),
        "{verified:#}"
    );
    assert_eq!(verified["findings"].as_array().unwrap().len(), 1, "{verified:#}");
    let counts = &verified["counts"];
    assert!(
        counts["wal_objects"].as_u64().unwrap() > 1
            && counts["wal_read"].as_u64() < counts["wal_objects"].as_u64()
    );
    let checked = site.retoma(&["wal", "check", "--component", "db", "--read-data"]).expect(4);
    assert!(checked.stdout.contains(&format!("damaged: {name}: ")), "{}", checked.text());
    assert!(checked.stdout.contains("[R0203]"), "{}", checked.text());
    let sampled = site.retoma(&["verify", "--sample", "100%", "--json"]).expect(4).document();
    assert_eq!(sampled["findings"], verified["findings"]);
    // The other repository is whole.
    site.retoma(&["-r", "far", "wal", "check", "--read-data"]).expect(0);
    for other in others {
        flip(other);
    }
    let root = site.home().join("recovered").display().to_string();
    let arguments = ["recover", "--only", "db", "--to", &root, "--yes", "--json"];
    let recovered = site.retoma(&arguments).expect(1).document();
    assert_eq!(recovered["code"], "R0203", "{recovered:#}");
    assert!(recovered["message"].as_str().unwrap().contains(&name), "{recovered:#}");
}

#[test]
fn a_damaged_segment_is_named_before_and_during_a_recovery() {
    let Some(site) = archiving(&["archive_mode = on"]) else { return };
    archived(&site.server, PATIENCE);
    site.back_up();
    let middle = archived(&site.server, PATIENCE);
    archived(&site.server, PATIENCE);
    let object =
        files(&site.home().join("near/wal")).into_iter().find(|path| path.ends_with(&middle)).unwrap();
    flip(&object);
    let other = files(&site.home().join("far/wal")).into_iter().find(|path| path.ends_with(&middle));
    assert_named(&site, &object, other.as_slice());
}

#[test]
fn a_damaged_part_is_named_before_and_during_a_recovery() {
    let Some(site) = site("mode = \"stream\"", &[]) else { return };
    let stream = site.streaming();
    site.back_up();
    site.server.psql("SELECT pg_switch_wal()");
    for _ in 0..3 {
        site.pgbench(&["-n", "-c", "4", "-t", "5"]);
        site.shipped();
    }
    assert_eq!(stream.stop(), Some(0));
    // Parts of the unfinished segment, of which there is nothing else.
    let all = files(&site.home().join("near/wal"));
    let object = all.iter().rev().find(|path| path.to_string_lossy().contains("/parts/")).unwrap();
    flip(object);
    // The other repository has parts of its own.
    let others = files(&site.home().join("far/wal")).into_iter();
    let others: Vec<_> = others.filter(|path| path.to_string_lossy().contains("/parts/")).collect();
    assert_named(&site, object, &others);
}

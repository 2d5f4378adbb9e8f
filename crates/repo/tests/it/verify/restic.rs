//! Repositories that the public `restic` wrote.

use retoma_core::Secret;
use retoma_repo::Repository;
use retoma_repo::backup::Progress;
use retoma_repo::ops::verify::{Options, ReadData, verify};
use retoma_repo::store::{BlockingStore, LocalStore};
use retoma_testkit::Random;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

fn restic(repository: &Path, arguments: &[&str]) -> bool {
    let mut command = Command::new("restic");
    command.args(["--no-cache", "-q", "-r"]).arg(repository).args(arguments).env("RESTIC_PASSWORD", "secret");
    command.output().is_ok_and(|output| output.status.success())
}

fn is_missing() -> bool {
    let missing = Command::new("restic").arg("version").output().is_err();
    assert!(!missing || std::env::var_os("REQUIRE_SERVICES").is_none(), "restic is not installed");
    if missing {
        println!("skipped: restic is not installed");
    }
    missing
}

fn open(folder: &Path) -> Repository {
    let store = BlockingStore::new(Arc::new(LocalStore::new(folder).unwrap())).unwrap();
    Repository::open(store, &Secret::new("secret".to_owned())).unwrap()
}

fn all_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all_files(&path, found);
        } else {
            found.push(path);
        }
    }
}

#[test]
fn what_restic_wrote_is_clean_and_what_damages_it_is_found() {
    if is_missing() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (source, place) = (folder.path().join("source"), folder.path().join("repository"));
    std::fs::create_dir_all(source.join("deep/er")).unwrap();
    std::fs::write(source.join("deep/er/noise"), super::noise(1, 900_000)).unwrap();
    std::fs::write(source.join("text"), super::text(2, 300_000)).unwrap();
    std::os::unix::fs::symlink("text", source.join("link")).unwrap();
    assert!(restic(&place, &["init"]));
    let source = source.to_str().unwrap();
    for round in 0..2 {
        std::fs::write(format!("{source}/round"), super::text(round, 5_000)).unwrap();
        assert!(restic(&place, &["backup", source]));
    }
    let repository = open(&place);
    let options = Options { read_data: ReadData::All, ..Options::default() };
    let examine = || verify(&repository, &options, &Progress::default()).unwrap();
    let clean = examine();
    assert!(clean.findings.is_empty(), "{clean:#?}");
    assert_eq!((clean.counts.snapshots, clean.counts.packs), (2, clean.counts.packs_read));
    let mut names = Vec::new();
    all_files(&place.join("data"), &mut names);
    let mut random = Random::new(5);
    for name in names.into_iter().flat_map(|name| std::iter::repeat_n(name, 8)) {
        let whole = std::fs::read(&name).unwrap();
        let mut damaged = whole.clone();
        damaged[random.index(whole.len())] ^= 1 << random.below(8);
        std::fs::set_permissions(&name, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::write(&name, &damaged).unwrap();
        let report = examine();
        let object = name.strip_prefix(&place).unwrap().to_str().unwrap();
        assert!(report.damage().any(|finding| finding.object == object), "{object}: {report:#?}");
        std::fs::write(&name, &whole).unwrap();
    }
    assert!(examine().findings.is_empty());
}

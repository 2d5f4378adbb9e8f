//! restic works on our repositories, we on restic's, in turns.

mod wrapped;

use crate::prune::kit::*;
use retoma_repo::Repository;
use retoma_repo::ops::keys;
use retoma_repo::store::{BlockingStore, LocalStore};
use std::path::Path;
use std::sync::Arc;

fn store(folder: &Path) -> BlockingStore {
    BlockingStore::new(Arc::new(LocalStore::new(folder).unwrap())).unwrap()
}

/// Runs restic, which must succeed; `None` where there is none.
fn run(folder: &Path, arguments: &[&str]) -> Option<String> {
    let output = restic(folder, arguments)?;
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    Some(text(&output))
}

#[test]
fn restic_forgets_prunes_and_adds_keys_in_our_repository() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path();
    let repository = Repository::init(store(path), &secret(PASSWORD)).unwrap();
    let old = back_up(&repository, &files(0..20)).unwrap();
    let kept = back_up(&repository, &files(15..25)).unwrap();
    let orphan = back_up(&repository, &files(30..35)).unwrap();
    // A mark must not disturb restic, nor restic's prune us afterwards.
    drop_snapshot(&repository, orphan);
    prune(&repository, &options(later(-30))).unwrap();
    if run(path, &["forget", "--prune", &old.to_hex()]).is_none() {
        return;
    }
    assert_eq!(read_all(&repository), [(kept, files(15..25))].into());
    check_structure(&repository);

    let password = path.join("new-password");
    std::fs::write(&password, "second").unwrap();
    run(path, &["key", "add", "--new-password-file", password.to_str().unwrap()]);
    std::fs::remove_file(&password).unwrap();
    let opened = Repository::open(store(path), &secret("second")).unwrap();
    assert_eq!(keys::list(&opened).unwrap().len(), 2);
    let again = back_up(&opened, &files(18..30)).unwrap();
    assert_eq!(read_back(&opened, again).unwrap(), files(18..30));

    // The mark names packs that restic deleted: it is swept without harm.
    prune(&opened, &options(now())).unwrap();
    assert!(opened.marks().unwrap().is_empty());
    prune(&opened, &at_once()).unwrap();
    check_no_garbage(&opened);
    assert_eq!(read_all(&opened), [(kept, files(15..25)), (again, files(18..30))].into());
    restic_check(path);
}

#[test]
fn we_forget_prune_and_change_keys_in_a_repository_of_restic() {
    let (folder, source) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let path = folder.path();
    if run(path, &["init", "--repository-version", "2"]).is_none() {
        return;
    }
    let write = |contents: &Files| {
        for (name, bytes) in contents {
            std::fs::write(source.path().join(name), bytes).unwrap();
        }
    };
    let from = source.path().to_str().unwrap();
    write(&files(0..12));
    run(path, &["backup", from]);
    std::fs::remove_file(source.path().join("f0003")).unwrap();
    write(&files(12..16));
    run(path, &["backup", from]);

    let repository = Repository::open(store(path), &secret(PASSWORD)).unwrap();
    let snapshots = repository.snapshots().unwrap();
    let (old, new) = (snapshots[0].0, snapshots[1].0);
    let mut expected = files(0..16);
    expected.remove("f0003");
    assert_eq!(read_back(&repository, old).unwrap(), files(0..12));
    assert_eq!(remove(&repository, old).unwrap(), [old]);
    prune(&repository, &options(later(-30))).unwrap();
    restic_check(path);
    let swept = prune(&repository, &options(now())).unwrap();
    assert!(swept.removed_packs > 0, "{swept:?}");
    assert_eq!(read_back(&repository, new).unwrap(), expected);
    check_structure(&repository);
    restic_check(path);

    keys::add(&repository, &secret("ours")).unwrap();
    let ours = Repository::open(store(path), &secret("ours")).unwrap();
    assert_eq!(read_back(&ours, new).unwrap(), expected);
    prune(&ours, &at_once()).unwrap();
    check_no_garbage(&ours);
    let listed = run(path, &["key", "list"]).unwrap();
    assert_eq!(listed.lines().filter(|line| line.contains("20")).count(), 2, "{listed}");
    restic_check(path);
}

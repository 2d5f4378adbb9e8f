//! Restoring over what is there: only what differs is written, nothing else is touched.

use super::support::*;
use retoma_core::ErrorKind;
use retoma_repo::backup::Progress;
use retoma_repo::restore::{Options, plan};
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

fn large() -> Vec<u8> {
    noise(1, 12_000_000)
}

#[test]
fn only_what_differs_is_written() {
    let fixture = Fixture::new();
    let tree = fixture.backup(&[file("large", large()), file("small", "x")]);
    fixture.restore_all(tree, &Options::default());
    let before = inode(&fixture.at("large"));
    let mut changed = large();
    changed[6_000_000] ^= 1;
    changed.truncate(11_900_000);
    changed.extend(noise(2, 500_000));
    std::fs::write(fixture.at("large"), changed).unwrap();
    let outcome = fixture.restore_all(tree, &Options::default());
    assert!(fixture.read("large") == large());
    assert_eq!(inode(&fixture.at("large")), before);
    assert_eq!(mtime(&fixture.at("large")), time(0));
    assert!(outcome.bytes_written <= 8 << 20, "{outcome:?}");
    assert_eq!(outcome.bytes_written + outcome.bytes_reused, 12_000_001);
}

/// All threads look at such a file together.
#[test]
fn of_a_very_large_file_only_what_differs_is_written() {
    const BYTES: usize = 70 << 20;
    let fixture = Fixture::new();
    let right = noise(3, BYTES);
    let tree = fixture.backup(&[file("large", right.clone()), file("small", "x")]);
    fixture.restore_all(tree, &Options::default());
    let complete = fixture.restore_all(tree, &Options::default());
    assert_eq!((complete.bytes_written, complete.bytes_reused), (0, BYTES as u64 + 1));
    let mut changed = right.clone();
    for place in [0, BYTES / 2, BYTES - 1] {
        changed[place] ^= 1;
    }
    std::fs::write(fixture.at("large"), changed).unwrap();
    let outcome = fixture.restore_all(tree, &Options::default());
    assert!(fixture.read("large") == right);
    assert_eq!(outcome.bytes_written + outcome.bytes_reused, BYTES as u64 + 1);
    assert!((3..=24 << 20).contains(&outcome.bytes_written), "{outcome:?}");
}

#[test]
fn the_same_size_and_time_are_believed_only_when_asked() {
    let fixture = Fixture::new();
    let tree = fixture.backup(&[file("file", "right")]);
    fixture.restore_all(tree, &Options::default());
    std::fs::write(fixture.at("file"), "wrong").unwrap();
    let modified = UNIX_EPOCH + Duration::new(1_500_000_000, 123_456_789);
    assert_ne!(mtime(&fixture.at("file")), time(0));
    std::fs::File::options().write(true).open(fixture.at("file")).unwrap().set_modified(modified).unwrap();
    fixture.restore_all(tree, &Options { trust_mtime: true, ..Options::default() });
    assert_eq!(fixture.read("file"), b"wrong");
    fixture.restore_all(tree, &Options::default());
    assert_eq!(fixture.read("file"), b"right");
}

#[test]
fn an_interrupted_restore_goes_on_from_what_is_there() {
    let fixture = Fixture::new();
    let items: Vec<Item> = vec![file("a", large()), file("b", noise(3, 24_000_000))];
    let tree = fixture.backup(&items);
    let progress = Arc::new(Progress::default());
    let cancelling = Arc::clone(&progress);
    fixture.set_hook(move |_| {
        if cancelling.done().1 > 0 {
            cancelling.cancel();
        }
        Ok(())
    });
    // One thread each: when the sixth of nine ranges is read, the second is written.
    let options = Options { workers: Some(1), readers: Some(1), ..Options::default() };
    let error = fixture.try_restore(tree, &options, &progress).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
    for path in ["a", "b"].map(|path| fixture.at(path)).iter().filter(|path| path.exists()) {
        let right = items.iter().any(|(_, _, bytes)| *bytes == std::fs::read(path).unwrap());
        assert!(right || mtime(path) != time(0), "an incomplete file has the time of a complete one");
    }
    fixture.set_hook(|_| Ok(()));
    let outcome = fixture.restore_all(tree, &Options::default());
    assert!(outcome.bytes_reused > 0, "{outcome:?}");
    assert!(fixture.read("a") == large() && fixture.read("b") == items[1].2);
}

#[test]
fn a_file_with_another_name_is_replaced_and_the_other_name_keeps_its_bytes() {
    let fixture = Fixture::new();
    let tree = fixture.backup(&[file("file", "from the snapshot")]);
    std::fs::create_dir(fixture.target()).unwrap();
    std::fs::write(fixture.outside().join("other"), "mine").unwrap();
    std::fs::hard_link(fixture.outside().join("other"), fixture.at("file")).unwrap();
    fixture.restore_all(tree, &Options::default());
    assert_eq!(fixture.read("file"), b"from the snapshot");
    assert_eq!(std::fs::read(fixture.outside().join("other")).unwrap(), b"mine");
}

#[test]
fn other_kinds_in_the_way_are_replaced_but_directories_with_contents_are_not() {
    let fixture = Fixture::new();
    let tree = fixture.backup(&[
        directory("dir"),
        file("dir/inner", "i"),
        file("empty", ""),
        file("file", "f"),
        symlink("link", "x".as_ref()),
    ]);
    std::fs::create_dir(fixture.target()).unwrap();
    std::fs::write(fixture.at("dir"), "a file where a directory should be").unwrap();
    std::fs::create_dir(fixture.at("file")).unwrap();
    std::fs::create_dir_all(fixture.at("empty/full")).unwrap();
    std::fs::write(fixture.at("link"), "a file where a link should be").unwrap();
    let outcome = fixture.restore(tree, &Options::default());
    assert_eq!(fixture.read("dir/inner"), b"i");
    assert_eq!(fixture.read("file"), b"f");
    assert_eq!(std::fs::read_link(fixture.at("link")).unwrap().to_str(), Some("x"));
    assert_eq!(outcome.failed.len(), 1, "{outcome:?}");
    assert!(outcome.failed[0].path.ends_with(b"/empty"));
    assert_eq!(outcome.failed[0].error.code().as_str(), "R0502");
    assert!(fixture.at("empty/full").is_dir());
    let whole = Options { delete_extra: true, whole: paths(&["/"]), ..Options::default() };
    fixture.restore_all(tree, &whole);
    assert_eq!(fixture.read("empty"), b"");
}

#[test]
fn extra_files_go_only_when_asked_and_only_below_what_the_snapshot_has_wholly() {
    let fixture = Fixture::new();
    let tree = fixture.backup(&[
        directory("srv"),
        directory("srv/models"),
        file("srv/models/a", "a"),
        directory("srv/models/deep"),
    ]);
    for folder in ["srv/models/deep", "srv/models/old/er", "srv/other"] {
        std::fs::create_dir_all(fixture.at(folder)).unwrap();
    }
    for path in ["top", "srv/other/x", "srv/models/old/er/x", "srv/models/deep/x"] {
        std::fs::write(fixture.at(path), "x").unwrap();
    }
    std::fs::write(fixture.outside().join("kept"), "kept").unwrap();
    std::os::unix::fs::symlink(fixture.outside(), fixture.at("srv/models/out")).unwrap();
    assert_eq!(fixture.restore_all(tree, &Options::default()).extra_deleted, 0);
    assert!(fixture.at("srv/models/old/er/x").exists());
    let options = Options { delete_extra: true, whole: paths(&["/srv/models"]), ..Options::default() };
    let index = fixture.repository.load_index().unwrap();
    let mut listed = plan(&fixture.repository, &index, tree, &options, &fixture.target()).unwrap().extra();
    listed.sort();
    assert_eq!(
        listed,
        ["srv/models/deep/x", "srv/models/old", "srv/models/out"].map(|path| fixture.at(path))
    );
    assert_eq!(fixture.restore_all(tree, &options).extra_deleted, 3);
    assert!(listed.iter().all(|path| path.symlink_metadata().is_err()));
    assert!(fixture.at("top").exists() && fixture.at("srv/other/x").exists());
    assert!(fixture.outside().join("kept").exists());
    assert_eq!(mtime(&fixture.at("srv/models")), time(0));
}

#[test]
fn what_is_left_out_is_as_if_the_snapshot_did_not_have_it() {
    let fixture = Fixture::new();
    let tree = fixture.backup(&[
        directory("srv"),
        file("srv/a", "a"),
        directory("srv/data"),
        directory("srv/data/links"),
        file("srv/data/links/1", "1"),
        file("srv/data/links/2", "2"),
        file("srv/data/map", "theirs"),
        file("srv/map", "another"),
    ]);
    let options = Options { leave_out: paths(&["/srv/data/map", "/srv/data/links/1"]), ..Options::default() };
    fixture.restore_all(tree, &options);
    let is_there = |path: &str| fixture.at(path).exists();
    assert!(["srv/a", "srv/map", "srv/data/links/2"].into_iter().all(is_there));
    assert!(!["srv/data/map", "srv/data/links/1"].into_iter().any(is_there));
    // What lies in their places stays, unless the snapshot is to be all that is there.
    std::fs::write(fixture.at("srv/data/map"), "ours").unwrap();
    fixture.restore_all(tree, &options);
    assert_eq!(fixture.read("srv/data/map"), b"ours");
    let strip = Some(b"/srv/data".to_vec());
    let whole = Options { delete_extra: true, whole: paths(&["/"]), strip, ..options };
    std::fs::remove_dir_all(fixture.target()).unwrap();
    std::fs::create_dir_all(fixture.at("links")).unwrap();
    for old in ["map", "links/1"] {
        std::fs::write(fixture.at(old), "old").unwrap();
    }
    assert_eq!(fixture.restore_all(tree, &whole).extra_deleted, 2);
    assert!(is_there("links/2") && !is_there("map") && !is_there("links/1"));
    // They cannot be asked for either.
    let asked = Options { paths: paths(&["/srv/data/map"]), ..whole };
    assert_eq!(fixture.try_restore(tree, &asked, &Progress::default()).unwrap_err().code().as_str(), "R0504");
}

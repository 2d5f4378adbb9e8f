//! Damaged repositories, stores that fail, targets that are full: no wrong bytes, and everything is reported.

use super::support::*;
use retoma_core::{Error, ErrorKind, error::codes};
use retoma_repo::backup::Progress;
use retoma_repo::format::BlobKind;
use retoma_repo::restore::{Options, Outcome};
use std::process::Command;

fn failed_names(outcome: &Outcome) -> Vec<String> {
    let name =
        |path: &[u8]| String::from_utf8_lossy(path.rsplit(|byte| *byte == b'/').next().unwrap()).into_owned();
    outcome.failed.iter().map(|failed| name(&failed.path)).collect()
}

#[test]
fn a_damaged_blob_fails_every_file_that_needs_it_and_no_other() {
    let fixture = Fixture::new();
    let (bad, good) = (noise(1, 1000), noise(2, 1000));
    let tree = fixture.backup(&[file("a", bad.clone()), file("b", good.clone()), file("c", bad.clone())]);
    fixture.damage(&bad);
    let outcome = fixture.restore(tree, &Options::default());
    assert_eq!(failed_names(&outcome), ["a", "c"]);
    assert!(outcome.failed.iter().all(|failed| failed.error.kind() == ErrorKind::Corrupt));
    assert_eq!(fixture.read("b"), good);
    assert!(!fixture.at("a").exists() && !fixture.at("c").exists());
    assert!(!outcome.is_complete() && outcome.stopped.is_none() && outcome.not_attempted.is_empty());
}

#[test]
fn a_large_file_with_one_damaged_chunk_is_removed_when_it_is_new_and_marked_when_it_was_there() {
    let fixture = Fixture::new();
    let bytes = noise(1, 12_000_000);
    let tree = fixture.backup(&[file("large", bytes.clone())]);
    fixture.restore_all(tree, &Options::default());
    std::fs::copy(fixture.at("large"), fixture.outside().join("copy")).unwrap();
    let nodes = fixture.repository.read_tree(&fixture.repository.load_index().unwrap(), &tree).unwrap();
    assert!(nodes[0].content.len() > 3);
    let index = fixture.repository.load_index().unwrap();
    let mut start = 0;
    for id in &nodes[0].content[..2] {
        let length = usize::try_from(index.plaintext_bytes(BlobKind::Data, id).unwrap()).unwrap();
        if start > 0 {
            fixture.damage(&bytes[start..start + length]);
        }
        start += length;
    }
    // What is there is still right: nothing is read, and nothing fails.
    fixture.restore_all(tree, &Options::default());
    let mut wrong = bytes.clone();
    wrong[start - 1] ^= 1;
    std::fs::write(fixture.at("large"), &wrong).unwrap();
    let modified = std::time::UNIX_EPOCH + std::time::Duration::new(1_500_000_000, 123_456_789);
    std::fs::File::options().write(true).open(fixture.at("large")).unwrap().set_modified(modified).unwrap();
    assert_eq!(mtime(&fixture.at("large")), time(0));
    let outcome = fixture.restore(tree, &Options::default());
    assert_eq!(failed_names(&outcome), ["large"]);
    assert!(fixture.read("large") == wrong);
    assert_ne!(mtime(&fixture.at("large")), time(0), "an incomplete file has the time of a complete one");
    std::fs::remove_file(fixture.at("large")).unwrap();
    assert_eq!(failed_names(&fixture.restore(tree, &Options::default())), ["large"]);
    assert!(!fixture.at("large").exists());
}

#[test]
fn another_copy_is_used_when_one_is_damaged() {
    let fixture = Fixture::new();
    let items = [file("a", noise(1, 1000)), file("b", noise(2, 1000))];
    let indexes = fixture.folder.path().join("repository/index");
    let tree = fixture.backup(&items);
    let kept: Vec<_> = std::fs::read_dir(&indexes).unwrap().map(|entry| entry.unwrap().path()).collect();
    for index in &kept {
        std::fs::rename(index, fixture.outside().join(index.file_name().unwrap())).unwrap();
    }
    fixture.backup(&items);
    for index in &kept {
        std::fs::rename(fixture.outside().join(index.file_name().unwrap()), index).unwrap();
    }
    fixture.damage(&items[0].2);
    fixture.restore_all(tree, &Options::default());
    assert_eq!(fixture.read("a"), items[0].2);
    // A pack that is gone as a whole is the same.
    let target = fixture.target();
    std::fs::remove_dir_all(&target).unwrap();
    std::fs::remove_file(fixture.pack_of(&items[0].2).0).unwrap();
    let outcome = fixture.restore(tree, &Options::default());
    assert_eq!(fixture.read("b"), items[1].2, "{outcome:?}");
}

#[test]
fn a_damaged_directory_is_listed_and_the_others_are_restored() {
    let fixture = Fixture::new();
    let tree = fixture.backup(&[directory("a"), file("a/x", "x"), directory("b"), file("b/y", "y")]);
    let index = fixture.repository.load_index().unwrap();
    let root = fixture.repository.read_tree(&index, &tree).unwrap();
    let subtree = root[0].subtree.unwrap();
    let location = index.get(BlobKind::Tree, &subtree).unwrap();
    let key = fixture.repository.pack_key(location.pack).unwrap();
    let path = fixture.folder.path().join("repository").join(key.as_str());
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[location.blob.offset_bytes as usize + 20] ^= 1;
    std::fs::write(&path, bytes).unwrap();
    let outcome = fixture.restore(tree, &Options::default());
    assert_eq!(failed_names(&outcome), ["a"]);
    assert_eq!(fixture.read("b/y"), b"y");
}

#[test]
fn a_store_that_is_away_stops_the_restore_and_everything_is_listed() {
    let fixture = Fixture::new();
    let names: Vec<&'static str> = vec!["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"];
    let items: Vec<Item> =
        names.iter().enumerate().map(|(seed, name)| file(name, noise(seed as u64, 4_500_000))).collect();
    let tree = fixture.backup(&items);
    let index = fixture.repository.load_index().unwrap();
    let options = Options::default();
    let plan =
        retoma_repo::restore::plan(&fixture.repository, &index, tree, &options, &fixture.target()).unwrap();
    fixture.set_hook(|_| {
        Err(Error::new(ErrorKind::Unavailable, codes::STORE_UNAVAILABLE, "the network is down"))
    });
    let outcome = retoma_repo::restore::apply(plan, &Progress::default()).unwrap();
    assert_eq!(outcome.stopped.as_ref().unwrap().kind(), ErrorKind::Unavailable);
    assert_eq!(outcome.failed.len() + outcome.not_attempted.len(), items.len(), "{outcome:?}");
    assert!(std::fs::read_dir(fixture.target()).unwrap().next().is_none());
    fixture.set_hook(|_| Ok(()));
    fixture.restore_all(tree, &options);
}

/// A small file system, taken away at the end. `None` where we may not mount.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    fn mount(at: std::path::PathBuf, mebibytes: u32) -> Option<Self> {
        std::fs::create_dir_all(&at).unwrap();
        let options = format!("size={mebibytes}m");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(&at).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(at));
        }
        println!("skipped: this needs the right to mount a tmpfs");
        None
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg(&self.0).status().ok();
    }
}

#[test]
fn a_full_disk_stops_the_restore_with_a_clear_error() {
    let fixture = Fixture::new();
    let Some(_disk) = SmallDisk::mount(fixture.target(), 8) else { return };
    let names: Vec<&'static str> = vec!["a", "b", "c", "d", "e", "f", "g", "h"];
    let items: Vec<Item> =
        names.iter().enumerate().map(|(seed, name)| file(name, noise(seed as u64, 3_000_000))).collect();
    let tree = fixture.backup(&items);
    let outcome = fixture.restore(tree, &Options::default());
    let stopped = outcome.stopped.as_ref().unwrap();
    assert_eq!((stopped.kind(), stopped.code()), (ErrorKind::Exhausted, codes::IO_FULL));
    assert!(stopped.message().contains("target/"), "{stopped}");
    assert!(!outcome.failed.is_empty());
    for (name, _, bytes) in &items {
        let path = fixture.at(name).into_os_string().into_encoded_bytes();
        let listed =
            outcome.failed.iter().any(|failed| failed.path == path) || outcome.not_attempted.contains(&path);
        assert_ne!(fixture.at(name).exists(), listed, "{name}: {outcome:?}");
        assert!(listed || fixture.read(name) == *bytes, "{name}");
    }
}

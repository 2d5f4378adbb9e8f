//! Neither the snapshot nor the target leads a restore outside the target.

use super::support::*;
use retoma_repo::BlobId;
use retoma_repo::backup::Progress;
use retoma_repo::format::BlobKind;
use retoma_repo::format::index::IndexFile;
use retoma_repo::format::tree::{self, Node};
use retoma_repo::restore::Options;
use std::fs;
use std::os::unix::fs::symlink as make_symlink;
use std::path::Path;

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).unwrap().next().is_none()
}

#[test]
fn a_link_in_the_target_is_replaced_and_not_followed() {
    let fixture = Fixture::new();
    let tree = fixture.backup(&[
        directory("dir"),
        file("dir/a", "a"),
        file("file", "f"),
        file("none", ""),
        symlink("sym", "s".as_ref()),
    ]);
    fs::create_dir(fixture.target()).unwrap();
    fs::write(fixture.outside().join("secret"), "mine").unwrap();
    make_symlink(fixture.outside(), fixture.at("dir")).unwrap();
    for name in ["file", "none", "sym"] {
        make_symlink(fixture.outside().join("secret"), fixture.at(name)).unwrap();
    }
    fixture.restore_all(tree, &Options::default());
    assert!(fixture.at("dir").symlink_metadata().unwrap().is_dir());
    assert_eq!((fixture.read("dir/a"), fixture.read("file")), (b"a".to_vec(), b"f".to_vec()));
    assert_eq!(fs::read(fixture.outside().join("secret")).unwrap(), b"mine");
    assert_eq!(fs::read_dir(fixture.outside()).unwrap().count(), 1);
}

#[test]
fn a_link_of_the_snapshot_and_a_directory_of_its_name_later_do_not_meet() {
    let fixture = Fixture::new();
    let first = fixture.backup(&[symlink("x", &fixture.outside()), file("y", "y")]);
    fixture.restore_all(first, &Options::default());
    assert_eq!(fs::read_link(fixture.at("x")).unwrap(), fixture.outside());
    let second = fixture.backup(&[directory("x"), file("x/evil", "evil")]);
    fixture.restore_all(second, &Options::default());
    assert!(is_empty(&fixture.outside()));
    assert_eq!(fixture.read("x/evil"), b"evil");
}

#[test]
fn a_tree_with_one_name_twice_is_refused() {
    let fixture = Fixture::new();
    let outside = fixture.outside();
    let inner = fixture.backup(&[directory("x"), file("x/evil", "evil")]);
    let mut twice = fixture.repository.read_tree(&fixture.repository.load_index().unwrap(), &inner).unwrap();
    twice.insert(0, symlink("x", &outside).1);
    let twice = tree::to_json(&twice).unwrap();
    let d = Node { subtree: Some(BlobId::of(&twice)), ..directory("d").1 };
    let root = tree::to_json(&[d]).unwrap();
    let pack = crate::written::pack(&fixture.repository, BlobKind::Tree, &[&twice, &root], None);
    fixture.repository.save_index_file(&IndexFile { supersedes: Vec::new(), packs: vec![pack] }).unwrap();
    let tree = BlobId::of(&root);
    let outcome = fixture.restore(tree, &Options::default());
    assert_eq!(outcome.failed.len(), 1, "{outcome:?}");
    assert!(outcome.failed[0].path.ends_with(b"/d"));
    assert!(is_empty(&outside) && is_empty(&fixture.at("d")));
}

#[test]
fn a_directory_swapped_for_a_link_while_it_is_restored_is_reported() {
    let fixture = Fixture::new();
    let mut tree = vec![directory("dir"), directory("dir/inner")];
    tree.extend([file("dir/inner/a", noise(1, 3_000_000)), file("dir/inner/b", "b"), file("z", "z")]);
    let tree = fixture.backup(&tree);
    let index = fixture.repository.load_index().unwrap();
    let options = Options::default();
    let plan =
        retoma_repo::restore::plan(&fixture.repository, &index, tree, &options, &fixture.target()).unwrap();
    let (dir, moved, outside) = (fixture.at("dir"), fixture.at("moved"), fixture.outside());
    fs::create_dir(outside.join("inner")).unwrap();
    fixture.set_hook(move |_| {
        if !moved.exists() {
            fs::rename(&dir, &moved).unwrap();
            make_symlink(&outside, &dir).unwrap();
        }
        Ok(())
    });
    let outcome = retoma_repo::restore::apply(plan, &Progress::default()).unwrap();
    assert!(is_empty(&fixture.outside().join("inner")), "{outcome:?}");
    assert_eq!(fixture.read("z"), b"z");
    let failed: Vec<_> =
        outcome.failed.iter().map(|failed| (failed.error.code().as_str(), &failed.path)).collect();
    for path in ["dir", "dir/inner", "dir/inner/a", "dir/inner/b"] {
        let path = fixture.at(path).into_os_string().into_encoded_bytes();
        assert!(failed.contains(&("R0501", &path)), "{failed:?}");
    }
}

#[test]
fn a_file_swapped_for_a_link_while_it_is_restored_is_reported() {
    let fixture = Fixture::new();
    let tree = fixture.backup(&[file("file", noise(1, 3_000_000))]);
    fixture.restore_all(tree, &Options::default());
    fs::write(fixture.at("file"), noise(2, 3_000_000)).unwrap();
    let secret = fixture.outside().join("secret");
    fs::write(&secret, "mine").unwrap();
    let index = fixture.repository.load_index().unwrap();
    let options = Options::default();
    let plan =
        retoma_repo::restore::plan(&fixture.repository, &index, tree, &options, &fixture.target()).unwrap();
    let (path, to) = (fixture.at("file"), secret.clone());
    fixture.set_hook(move |_| {
        fs::remove_file(&path).ok();
        make_symlink(&to, &path).unwrap();
        Ok(())
    });
    let outcome = retoma_repo::restore::apply(plan, &Progress::default()).unwrap();
    assert!(!outcome.is_complete());
    assert_eq!(fs::read(&secret).unwrap(), b"mine");
}

//! What a node of a snapshot becomes beside others, and beside what the target has already.

use super::support::*;
use retoma_repo::format::tree::NodeKind;
use retoma_repo::restore::Options;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

/// Numbers of inodes are used again, and mean nothing on another device.
#[test]
fn only_files_that_had_several_names_for_the_same_bytes_are_linked() {
    let fixture = Fixture::new();
    let numbered = |path, text: &str, links, inode, device| {
        let mut item = file(path, text);
        (item.1.links, item.1.inode, item.1.device_id) = (links, inode, device);
        item
    };
    let tree = fixture.backup(&[
        numbered("a", "same", 2, 5, 1),
        numbered("b", "same", 2, 5, 1),
        numbered("c-other-device", "same", 2, 5, 2),
        numbered("d-other-bytes", "else", 2, 5, 1),
        numbered("e-one-name", "same", 1, 5, 1),
        numbered("f-one-name", "same", 1, 5, 1),
    ]);
    let outcome = fixture.restore_all(tree, &Options::default());
    assert_eq!(outcome.files, 6);
    assert_eq!(inode(&fixture.at("a")), inode(&fixture.at("b")));
    let apart = ["a", "c-other-device", "d-other-bytes", "e-one-name", "f-one-name"];
    let inodes: std::collections::BTreeSet<u64> = apart.iter().map(|path| inode(&fixture.at(path))).collect();
    assert_eq!(inodes.len(), apart.len());
    assert_eq!(fixture.read("d-other-bytes"), b"else");
}

#[test]
fn of_many_files_that_are_there_each_is_looked_at_and_made_right() {
    let fixture = Fixture::new();
    let names: Vec<&'static str> =
        (0..300).map(|n| &*Box::leak(format!("f{n:03}").into_boxed_str())).collect();
    let text =
        |n: usize| if n.is_multiple_of(10) { String::new() } else { format!("file {n} with its text") };
    let items: Vec<Item> = names.iter().enumerate().map(|(n, name)| file(name, text(n))).collect();
    let tree = fixture.backup(&items);
    fixture.restore_all(tree, &Options::default());
    for (n, name) in names.iter().enumerate() {
        let path = fixture.at(name);
        match n % 7 {
            0 => std::fs::write(path, text(n) + " and more").unwrap(),
            1 => std::fs::write(path, &text(n).as_bytes()[..text(n).len() / 2]).unwrap(),
            2 => std::fs::write(path, text(n).to_uppercase()).unwrap(),
            3 => std::fs::remove_file(path).unwrap(),
            4 => std::fs::write(path, "").unwrap(),
            _ => {}
        }
    }
    let outcome = fixture.restore_all(tree, &Options::default());
    assert_eq!(outcome.files, 300);
    for (n, name) in names.iter().enumerate() {
        assert_eq!(fixture.read(name), text(n).as_bytes(), "{name}");
        assert_eq!(mtime(&fixture.at(name)), time(0), "{name}");
    }
    assert_eq!(fixture.restore_all(tree, &Options::default()).bytes_written, 0);
}

#[test]
fn the_same_time_with_another_size_is_never_believed() {
    let fixture = Fixture::new();
    let tree = fixture.backup(&[file("longer", "right"), file("shorter", "right")]);
    fixture.restore_all(tree, &Options::default());
    let modified = UNIX_EPOCH + Duration::new(1_500_000_000, 123_456_789);
    for (name, text) in [("longer", "right and wrong"), ("shorter", "rig")] {
        std::fs::write(fixture.at(name), text).unwrap();
        let written = std::fs::File::options().write(true).open(fixture.at(name)).unwrap();
        written.set_modified(modified).unwrap();
        assert_eq!(mtime(&fixture.at(name)), time(0));
    }
    fixture.restore_all(tree, &Options { trust_mtime: true, ..Options::default() });
    assert_eq!((fixture.read("longer"), fixture.read("shorter")), (b"right".to_vec(), b"right".to_vec()));
}

#[test]
fn a_target_that_was_there_keeps_its_own_mode_unless_it_is_the_folder_that_is_restored() {
    let fixture = Fixture::new();
    let mut folder = directory("srv");
    folder.1.mode = 0o751;
    let tree = fixture.backup(&[folder, file("srv/a", "a")]);
    let strip = Some(b"/srv".to_vec());
    let cases = [
        (None, false, 0o700),
        (None, true, 0o700),
        (strip.clone(), false, 0o700),
        (strip.clone(), true, 0o751),
    ];
    for (strip, root_metadata, expected) in cases {
        std::fs::remove_dir_all(fixture.target()).ok();
        std::fs::create_dir(fixture.target()).unwrap();
        std::fs::set_permissions(fixture.target(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let shown = format!("{strip:?} {root_metadata}");
        fixture.restore_all(tree, &Options { strip, root_metadata, ..Options::default() });
        assert_eq!(mode(&fixture.target()), expected, "{shown}");
    }
    std::fs::remove_dir_all(fixture.target()).unwrap();
    fixture.restore_all(tree, &Options { strip, ..Options::default() });
    assert_eq!(mode(&fixture.target()), 0o751, "a folder that the restore makes is the one of the snapshot");
}

#[test]
fn what_lies_beside_the_paths_that_are_asked_for_is_never_extra() {
    let fixture = Fixture::new();
    let tree = fixture.backup(&[
        directory("srv"),
        directory("srv/models"),
        file("srv/models/a", "a"),
        file("srv/other", "o"),
    ]);
    for path in ["srv/models/old", "srv/mine", "top"] {
        std::fs::create_dir_all(fixture.at(path).parent().unwrap()).unwrap();
        std::fs::write(fixture.at(path), "x").unwrap();
    }
    let options = Options {
        paths: paths(&["/srv/models"]),
        delete_extra: true,
        whole: paths(&["/"]),
        ..Options::default()
    };
    assert_eq!(fixture.restore_all(tree, &options).extra_deleted, 1);
    assert!(!fixture.at("srv/models/old").exists());
    assert!(
        fixture.at("srv/mine").exists() && fixture.at("top").exists() && !fixture.at("srv/other").exists()
    );
}

#[test]
fn a_socket_is_passed_over_and_counted() {
    let fixture = Fixture::new();
    let tree = fixture.backup(&[file("file", "f"), ("socket", node("socket", NodeKind::Socket), Vec::new())]);
    let outcome = fixture.restore_all(tree, &Options::default());
    assert_eq!((outcome.files, outcome.others, outcome.notes.skipped), (1, 0, 1));
    assert!(!fixture.at("socket").exists());
}

//! What is restored where.

use super::support::*;
use retoma_core::ErrorKind;
use retoma_core::error::codes;
use retoma_repo::backup::Progress;
use retoma_repo::format::tree::NodeKind;
use retoma_repo::restore::Options;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};

fn service() -> Vec<Item> {
    let mut secret = directory("srv/secret");
    secret.1.mode = 0o500;
    secret.1.mtime = time(-77);
    let mut program = file("srv/secret/program", noise(3, 2_000_000));
    program.1.mode = 0o555;
    vec![
        directory("etc"),
        file("etc/config", "a = 1\n"),
        directory("srv"),
        directory("srv/empty"),
        directory("srv/models"),
        file("srv/models/a.bin", noise(1, 5_000_000)),
        file("srv/models/b.bin", noise(2, 100)),
        file("srv/models/none", ""),
        secret,
        program,
        symlink("srv/zz", OsStr::from_bytes(b"models/\xff.bin").as_ref()),
    ]
}

#[test]
fn everything_comes_back() {
    let fixture = Fixture::new();
    let tree = fixture.backup(&service());
    let outcome = fixture.restore_all(tree, &Options::default());
    assert_eq!((outcome.files, outcome.directories, outcome.others), (5, 5, 1));
    assert_eq!(outcome.bytes_written, 7_000_106);
    for (path, node, bytes) in service() {
        let metadata = fixture.at(path).symlink_metadata().unwrap();
        assert_eq!(mtime(&fixture.at(path)), node.mtime, "{path}");
        if node.kind != NodeKind::Symlink {
            assert_eq!(metadata.mode() & 0o7777, node.mode, "{path}");
        }
        if node.kind == NodeKind::File {
            assert!(fixture.read(path) == bytes, "{path}");
        }
    }
    let link = std::fs::read_link(fixture.at("srv/zz")).unwrap();
    assert_eq!(link.as_os_str().as_bytes(), b"models/\xff.bin");
}

#[test]
fn a_stripped_directory_is_the_target() {
    let fixture = Fixture::new();
    let tree = fixture.backup(&service());
    let options = Options { strip: Some(b"/srv/models".to_vec()), ..Options::default() };
    assert_eq!(fixture.restore_all(tree, &options).files, 3);
    assert!(fixture.read("a.bin") == noise(1, 5_000_000));
    assert_eq!(mtime(&fixture.target()), time(0), "a target that was made is the directory");
    std::fs::set_permissions(fixture.target(), std::fs::Permissions::from_mode(0o711)).unwrap();
    fixture.restore_all(tree, &options);
    assert_eq!(
        fixture.target().metadata().unwrap().mode() & 0o7777,
        0o711,
        "one that was there is not touched"
    );
    fixture.restore_all(tree, &Options { root_metadata: true, ..options });
    assert_eq!(fixture.target().metadata().unwrap().mode() & 0o7777, 0o755, "but when that is asked for");
}

#[test]
fn a_stripped_file_lies_in_the_target() {
    let fixture = Fixture::new();
    let tree = fixture.backup(&service());
    let options = Options { strip: Some(b"/srv/models/b.bin".to_vec()), ..Options::default() };
    assert_eq!(fixture.restore_all(tree, &options).files, 1);
    assert_eq!(fixture.read("b.bin"), noise(2, 100));
}

#[test]
fn single_paths_come_with_the_directories_around_them() {
    let fixture = Fixture::new();
    let tree = fixture.backup(&service());
    let options = Options { paths: paths(&["/srv/models/b.bin", "srv/secret"]), ..Options::default() };
    let outcome = fixture.restore_all(tree, &options);
    assert_eq!((outcome.files, outcome.directories), (2, 3));
    assert!(fixture.at("srv/secret/program").exists());
    assert!(!fixture.at("srv/models/a.bin").exists() && !fixture.at("etc").exists());
    assert_eq!(mtime(&fixture.at("srv/models")), time(0));
}

#[test]
fn a_path_that_is_not_there_is_said() {
    let fixture = Fixture::new();
    let tree = fixture.backup(&service());
    let wrong = [
        Options { paths: paths(&["/srv/models/b.bin", "/srv/nothing"]), ..Options::default() },
        Options { paths: paths(&["/srv/models/b.bin/deeper"]), ..Options::default() },
        Options { strip: Some(b"/srv/nothing".to_vec()), ..Options::default() },
        Options { strip: Some(b"/etc/config/deeper".to_vec()), ..Options::default() },
        Options { strip: Some(b"/etc".to_vec()), paths: paths(&["/srv/models"]), ..Options::default() },
        Options { paths: paths(&["/srv/../etc"]), ..Options::default() },
    ];
    for options in wrong {
        let error = fixture.try_restore(tree, &options, &Progress::default()).unwrap_err();
        assert_eq!(error.code(), codes::RESTORE_PATH, "{options:?}: {error}");
        assert!(!fixture.target().exists(), "{options:?}");
    }
}

#[test]
fn hard_links_are_links_again_also_the_second_time() {
    let fixture = Fixture::new();
    let linked = |path, inode| {
        let mut item = file(path, noise(9, 700_000));
        (item.1.links, item.1.inode, item.1.device_id) = (2, inode, 7);
        item
    };
    let tree = fixture.backup(&[linked("a", 1), directory("d"), linked("d/b", 1), linked("d/c", 2)]);
    assert_eq!(fixture.restore_all(tree, &Options::default()).files, 3);
    let first = inode(&fixture.at("a"));
    assert_eq!(inode(&fixture.at("d/b")), first);
    assert_ne!(inode(&fixture.at("d/c")), first);
    let again = fixture.restore_all(tree, &Options::default());
    assert_eq!((again.bytes_written, inode(&fixture.at("a"))), (0, first));
    std::fs::remove_file(fixture.at("d/b")).unwrap();
    std::fs::write(fixture.at("d/b"), "other").unwrap();
    fixture.restore_all(tree, &Options::default());
    assert_eq!(inode(&fixture.at("d/b")), inode(&fixture.at("a")));
}

#[test]
fn zeros_are_holes() {
    let fixture = Fixture::new();
    let mut bytes = vec![0; 64 << 20];
    bytes.extend(noise(4, 1_000_000));
    let tree = fixture.backup(&[file("sparse", bytes.clone()), file("zero", vec![0; 300_000])]);
    let outcome = fixture.restore_all(tree, &Options::default());
    assert!(fixture.read("sparse") == bytes && fixture.read("zero") == vec![0; 300_000]);
    let on_disk = fixture.at("sparse").metadata().unwrap().blocks() * 512;
    assert!(on_disk < 12 << 20, "{on_disk} bytes on disk");
    assert!(outcome.bytes_sparse > 50 << 20, "{}", outcome.bytes_sparse);
    std::fs::write(fixture.at("sparse"), noise(5, 60 << 20)).unwrap();
    fixture.restore_all(tree, &Options::default());
    assert!(fixture.read("sparse") == bytes);
    let on_disk = fixture.at("sparse").metadata().unwrap().blocks() * 512;
    assert!(on_disk < 12 << 20, "{on_disk} bytes on disk");
}

#[test]
fn a_cancelled_restore_says_so() {
    let fixture = Fixture::new();
    let tree = fixture.backup(&service());
    let progress = Progress::default();
    progress.cancel();
    let error = fixture.try_restore(tree, &Options::default(), &progress).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Cancelled);
}

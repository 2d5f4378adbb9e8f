//! What the public restic wrote, restored by us, is what was there.

use super::compare::differences;
use super::support::{Fixture, noise};
use retoma_repo::restore::{Notes, Options};
use rustix::fs::{CWD, FileType, Mode, Timespec, Timestamps, mknodat, utimensat};
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::Path;
use std::process::Command;

fn restic(folder: &Path, arguments: &[&OsStr]) -> bool {
    let output = Command::new("restic")
        .arg("--no-cache")
        .arg("--repo")
        .arg(folder.join("repository"))
        .args(arguments)
        .env("RESTIC_PASSWORD", "pw")
        .output();
    let Ok(output) = output else {
        println!("skipped: there is no restic");
        return false;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    true
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Every kind of thing that a folder can hold.
fn make_tree(root: &Path) {
    fs::create_dir_all(root.join("empty")).unwrap();
    fs::create_dir_all(root.join("deep/er/est")).unwrap();
    fs::write(root.join("deep/er/est/file"), noise(1, 3_000_000)).unwrap();
    fs::write(root.join("nothing"), "").unwrap();
    fs::write(root.join(OsStr::from_bytes(b"caf\xe9 \"\\n\n\xff")), "name of bytes").unwrap();
    fs::write(root.join("linked"), noise(2, 800_000)).unwrap();
    fs::hard_link(root.join("linked"), root.join("deep/again")).unwrap();
    symlink("nowhere/at/all", root.join("dangling")).unwrap();
    // Only UTF-8: restic before 0.16 loses other bytes of a link's target when it backs up.
    symlink("../linked", root.join("deep/symlink")).unwrap();
    let sparse = fs::File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(b"front", 0).unwrap();
    sparse.write_all_at(b"back", 20 << 20).unwrap();
    sparse.set_len(30 << 20).unwrap();
    let pipe = root.join("pipe");
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WGRP, 0).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(root.join("deep/socket")).unwrap();
    fs::write(root.join("program"), "#!/bin/sh\n").unwrap();
    if rustix::process::geteuid().is_root() {
        std::os::unix::fs::chown(root.join("program"), Some(1234), Some(4321)).unwrap();
        std::os::unix::fs::lchown(root.join("dangling"), Some(77), Some(88)).unwrap();
        let null = mknodat(CWD, root.join("null"), FileType::CharacterDevice, Mode::RUSR, 0x103);
        if let Err(error) = null {
            println!("without a device: {error}");
        }
        fs::write(root.join("locked"), "nobody may read it").unwrap();
        set_mode(&root.join("locked"), 0);
        fs::create_dir(root.join("closed")).unwrap();
        fs::write(root.join("closed/in"), "in").unwrap();
        set_mode(&root.join("closed"), 0);
        set_mode(&root.join("program"), 0o6751);
    } else {
        set_mode(&root.join("program"), 0o751);
    }
    set_mode(&root.join("deep"), 0o3770);
    for (path, value) in [("linked", &b"\0bytes\xff"[..]), ("deep/er", b"of a folder"), ("nothing", b"")] {
        if let Err(error) = xattr::set(root.join(path), "user.comment", value) {
            println!("without attributes: {error}");
        }
    }
    let paths =
        ["linked", "nothing", "dangling", "deep/er/est/file", "deep/er/est", "deep/er", "empty", "pipe"];
    for (nanoseconds, path) in (1..).zip(paths) {
        let at = |tv_sec| Timespec { tv_sec, tv_nsec: 987_654_320 + nanoseconds };
        let times = Timestamps { last_access: at(1_400_000_000), last_modification: at(1_300_000_000) };
        utimensat(CWD, root.join(path), &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
    let before_1970 = Timespec { tv_sec: -5, tv_nsec: 7 };
    let times = Timestamps { last_access: before_1970, last_modification: before_1970 };
    utimensat(CWD, root.join("sparse"), &times, rustix::fs::AtFlags::empty()).unwrap();
}

#[test]
fn a_snapshot_of_restic_is_restored_with_everything_that_it_has() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    make_tree(&source);
    if !restic(folder.path(), &["init".as_ref()]) {
        return;
    }
    restic(folder.path(), &["backup".as_ref(), source.as_ref()]);
    let fixture = Fixture::open_or_make(folder);
    let (_, snapshot) = fixture.repository.snapshots().unwrap().pop().unwrap();
    let options = Options { strip: Some(source.as_os_str().as_bytes().to_vec()), ..Options::default() };
    let outcome = fixture.restore_all(snapshot.tree, &options);
    assert_eq!(differences(&source, &fixture.target()), Vec::<String>::new());
    assert_eq!(outcome.notes, Notes::default());
    assert!(outcome.bytes_sparse > 0);
    // A second time nothing is written, and everything is as it was.
    let again = fixture.restore_all(snapshot.tree, &options);
    assert_eq!((again.bytes_written, again.bytes_sparse), (0, 0));
    let again = fixture.restore_all(snapshot.tree, &Options { root_metadata: true, ..options.clone() });
    assert_eq!(again.bytes_written, 0);
    assert_eq!(differences(&source, &fixture.target()), Vec::<String>::new());
    // What restic wrote is kept apart from what we left in place.
    xattr::set(fixture.at("program"), "user.left", b"over").ok();
    set_mode(&fixture.at("deep/er"), 0o700);
    fs::remove_file(fixture.at("linked")).unwrap();
    fixture.restore_all(snapshot.tree, &Options { root_metadata: true, ..options });
    assert_eq!(differences(&source, &fixture.target()), Vec::<String>::new());
}

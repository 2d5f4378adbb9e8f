//! Compares two folders by everything that a restore has to bring back; written apart from what it judges.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

/// Everything about one path, as text that can be compared and read.
fn describe(path: &Path) -> String {
    let metadata = path.symlink_metadata().unwrap();
    let kind = metadata.file_type();
    let content = if kind.is_file() {
        retoma_repo::BlobId::of(&std::fs::read(path).unwrap()).to_hex()
    } else if kind.is_symlink() {
        std::fs::read_link(path).unwrap().as_os_str().as_encoded_bytes().escape_ascii().to_string()
    } else if kind.is_char_device() || kind.is_block_device() {
        format!("device {}", metadata.rdev())
    } else {
        String::new()
    };
    let attribute = |name: OsString| {
        let value = xattr::get(path, &name).unwrap().unwrap();
        (name, value)
    };
    let attributes: BTreeMap<OsString, Vec<u8>> = xattr::list(path).unwrap().map(attribute).collect();
    let size = if kind.is_file() { metadata.size() } else { 0 };
    let links = if kind.is_dir() { 0 } else { metadata.nlink() };
    format!(
        "mode {:o} owner {}:{} mtime {}.{} size {size} links {links} {content} {attributes:?}",
        metadata.mode(),
        metadata.uid(),
        metadata.gid(),
        metadata.mtime(),
        metadata.mtime_nsec(),
    )
}

/// All paths below `root` with what they are.
fn below(root: &Path) -> BTreeMap<PathBuf, String> {
    let (mut found, mut waiting) = (BTreeMap::new(), vec![root.to_owned()]);
    while let Some(path) = waiting.pop() {
        found.insert(path.strip_prefix(root).unwrap().to_owned(), describe(&path));
        if path.symlink_metadata().unwrap().is_dir() {
            waiting.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
    }
    found
}

/// Every difference between two folders; sockets are passed over.
pub(crate) fn differences(expected: &Path, found: &Path) -> Vec<String> {
    let (left, right) = (below(expected), below(found));
    let mut differences = Vec::new();
    for (path, description) in &left {
        match right.get(path) {
            None if std::fs::symlink_metadata(expected.join(path)).unwrap().file_type().is_socket() => {}
            None => differences.push(format!("{} is missing", path.display())),
            Some(other) if other != description => {
                let path = path.display();
                differences.push(format!("{path}:\n  expected {description}\n  found    {other}"));
            }
            Some(_) => {}
        }
    }
    let more = right.keys().filter(|path| !left.contains_key(*path));
    differences.extend(more.map(|path| format!("{} should not be there", path.display())));
    differences
}

#[test]
fn each_kind_of_difference_is_seen() {
    use std::os::unix::fs::PermissionsExt as _;
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (folder.path().join("a"), folder.path().join("b"));
    for root in [&a, &b] {
        std::fs::create_dir(root).unwrap();
        std::fs::write(root.join("file"), "x").unwrap();
    }
    let seen = || differences(&a.join("file"), &b.join("file")).len();
    let same = || {
        let metadata = a.join("file").metadata().unwrap();
        let file = std::fs::File::options().write(true).open(b.join("file")).unwrap();
        file.set_modified(metadata.modified().unwrap()).unwrap();
    };
    same();
    assert_eq!(seen(), 0);
    std::fs::write(b.join("file"), "y").unwrap();
    same();
    assert_eq!(seen(), 1);
    std::fs::write(b.join("file"), "x").unwrap();
    assert_eq!(seen(), 1);
    same();
    std::fs::set_permissions(b.join("file"), std::fs::Permissions::from_mode(0o4600)).unwrap();
    assert_eq!(seen(), 1);
    std::fs::write(b.join("more"), "x").unwrap();
    assert!(differences(&a, &b).iter().any(|text| text.contains("should not be there")));
    std::fs::remove_file(b.join("file")).unwrap();
    assert!(differences(&a, &b).iter().any(|text| text.contains("missing")));
}

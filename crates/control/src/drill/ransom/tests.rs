use super::*;
use std::os::unix::fs::MetadataExt as _;

fn bytes_of(path: &Path) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

#[test]
fn every_file_is_overwritten_and_keeps_its_name_its_place_and_its_length() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("data");
    std::fs::create_dir_all(root.join("a/b")).unwrap();
    // Longer than what is written at once, and no multiple of it.
    let long = retoma_testkit::noise(7, 150_001);
    let files: [(&str, &[u8]); 4] =
        [("a/long", &long), ("a/b/short", b"x"), ("top", b"contents"), ("empty", b"")];
    for (name, contents) in files {
        std::fs::write(root.join(name), contents).unwrap();
    }
    encrypt(&root).unwrap();
    for (name, contents) in files {
        let now = bytes_of(&root.join(name));
        assert_eq!(now.len(), contents.len(), "{name}");
        // One byte may come out as it was; of many, hardly any does.
        let same = now.iter().zip(contents).filter(|(now, then)| now == then).count();
        assert!(same <= contents.len() / 20 + 1, "{name}: {same} of {}", contents.len());
    }
    let again = bytes_of(&root.join("a/long"));
    encrypt(&root.join("a/long")).unwrap();
    assert_ne!(
        bytes_of(&root.join("a/long")),
        again,
        "a component that is one file, with other noise each time"
    );
}

#[test]
fn what_nobody_may_write_is_no_obstacle_and_what_lies_elsewhere_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let (root, elsewhere) = (folder.path().join("data"), folder.path().join("elsewhere"));
    std::fs::create_dir(&root).unwrap();
    std::fs::write(&elsewhere, "not ours").unwrap();
    std::fs::write(root.join("guarded"), "contents of it").unwrap();
    std::fs::set_permissions(root.join("guarded"), std::fs::Permissions::from_mode(0o400)).unwrap();
    let inode = root.join("guarded").metadata().unwrap().ino();
    std::os::unix::fs::symlink(&elsewhere, root.join("link")).unwrap();
    std::os::unix::fs::symlink(folder.path(), root.join("loop")).unwrap();
    encrypt(&root).unwrap();
    assert_ne!(bytes_of(&root.join("guarded")), b"contents of it");
    assert_eq!(root.join("guarded").metadata().unwrap().ino(), inode, "in place");
    assert_eq!(bytes_of(&elsewhere), b"not ours");
    assert_eq!(std::fs::read_link(root.join("link")).unwrap(), elsewhere);
    // What has gone before we came was the running service's.
    encrypt(&root.join("gone")).unwrap();
}

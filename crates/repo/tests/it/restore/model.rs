//! Whatever lies in the target before: afterwards it has what the snapshot has, and nothing outside was touched.

use super::support::*;
use retoma_repo::format::tree::{Node, NodeKind};
use retoma_repo::restore::Options;
use retoma_testkit::Random;
use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink as link};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

/// Files of one and of several chunks, empty, of zeros and with two names; folders in folders; a link; a pipe.
fn items() -> Vec<Item> {
    let linked = |path: &'static str| {
        let node = Node { links: 2, inode: 7, device_id: 1, ..node(path, NodeKind::File) };
        (path, node, b"two names".to_vec())
    };
    let private = |path| (path, Node { mode: 0o600, ..node(path, NodeKind::File) }, b"private".to_vec());
    let mut half_zero = noise(1, 1_500_000);
    half_zero.extend(vec![0; 1_000_000]);
    vec![
        directory("a"),
        file("a/empty", ""),
        file("a/large", noise(2, 1_800_000)),
        linked("a/one"),
        directory("b"),
        directory("b/c"),
        directory("b/c/empty"),
        file("b/c/half", half_zero),
        symlink("b/link", Path::new("../a/large")),
        ("b/pipe", node("b/pipe", NodeKind::Fifo), Vec::new()),
        linked("b/two"),
        file("small", "small"),
        private("z"),
    ]
}

fn fixture() -> (Fixture, retoma_repo::BlobId) {
    let fixture = Fixture::new();
    fs::write(fixture.outside().join("precious"), "precious").unwrap();
    let tree = fixture.backup(&items());
    (fixture, tree)
}

fn remove(path: &Path) {
    match path.symlink_metadata() {
        Ok(found) if found.is_dir() => fs::remove_dir_all(path).unwrap(),
        Ok(_) => fs::remove_file(path).unwrap(),
        Err(_) => {}
    }
}

/// Whether a path of the target leads through folders alone, so that what is done there stays in the target.
fn is_inside(fixture: &Fixture, path: &Path) -> bool {
    let real = |at: &&Path| at.symlink_metadata().is_ok_and(|found| found.is_dir());
    fixture.target().is_dir() && path.ancestors().take_while(|at| *at != fixture.target()).all(|at| real(&at))
}

/// What somebody did to one path, and whether only `delete_extra` may take it away.
fn spoil(fixture: &Fixture, path: &str, random: &mut Random, may_be_full: bool) {
    let at = fixture.at(path);
    if !at.parent().is_some_and(|around| is_inside(fixture, around)) {
        return;
    }
    let is_file = at.symlink_metadata().is_ok_and(|found| found.is_file());
    match random.below(if is_file { 12 } else { 6 }) {
        0 => remove(&at),
        1 => {
            remove(&at);
            link(fixture.outside().join("precious"), &at).unwrap();
        }
        2 => {
            remove(&at);
            link(fixture.outside(), &at).unwrap();
        }
        3 => {
            remove(&at);
            fs::create_dir(&at).unwrap();
            if may_be_full {
                fs::write(at.join("full"), "full").unwrap();
            }
        }
        4 => {
            remove(&at);
            fs::write(&at, "something else").unwrap();
        }
        5 => {
            remove(&at);
            fs::hard_link(fixture.outside().join("precious"), &at).unwrap();
        }
        6 => {
            let mut bytes = fs::read(&at).unwrap();
            for _ in 0..random.below(4) {
                if !bytes.is_empty() {
                    let place = random.index(bytes.len());
                    bytes[place] ^= 1 << random.below(8);
                }
            }
            fs::write(&at, bytes).unwrap();
        }
        7 | 8 => {
            let file = fs::File::options().write(true).open(&at).unwrap();
            let length = file.metadata().unwrap().len();
            file.set_len(random.below(2 * length + 3)).unwrap();
        }
        9 => fs::set_permissions(&at, fs::Permissions::from_mode(0o200)).unwrap(),
        10 => {
            // Other contents that look right to `stat`.
            let length = fs::metadata(&at).unwrap().len();
            fs::write(&at, vec![b'?'; usize::try_from(length).unwrap()]).unwrap();
            let file = fs::File::options().write(true).open(&at).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::new(1_500_000_000, 123_456_789)).unwrap();
        }
        _ => {
            // No longer the same file as its other name.
            let bytes = fs::read(&at).unwrap();
            remove(&at);
            fs::write(&at, bytes).unwrap();
        }
    }
}

fn check(fixture: &Fixture, seed: u64) {
    for (path, node, bytes) in items() {
        let at = fixture.at(path);
        let found = at.symlink_metadata().unwrap_or_else(|error| panic!("seed {seed}: {path}: {error}"));
        let kind = found.file_type();
        match node.kind {
            NodeKind::Directory => assert!(kind.is_dir(), "seed {seed}: {path}"),
            NodeKind::File => {
                assert!(kind.is_file(), "seed {seed}: {path}");
                assert!(fs::read(&at).unwrap() == bytes, "seed {seed}: contents of {path}");
            }
            NodeKind::Symlink => {
                assert_eq!(fs::read_link(&at).unwrap(), Path::new("../a/large"), "seed {seed}");
            }
            _ => assert!(!kind.is_file() && !kind.is_dir() && !kind.is_symlink(), "seed {seed}: {path}"),
        }
        if node.kind != NodeKind::Symlink {
            assert_eq!(found.permissions().mode() & 0o7777, node.mode, "seed {seed}: mode of {path}");
        }
        assert_eq!(mtime(&at), node.mtime, "seed {seed}: time of {path}");
    }
    assert_eq!(inode(&fixture.at("a/one")), inode(&fixture.at("b/two")), "seed {seed}");
    assert_eq!(fs::read(fixture.outside().join("precious")).unwrap(), b"precious", "seed {seed}");
    assert_eq!(fs::read_dir(fixture.outside()).unwrap().count(), 1, "seed {seed}");
}

fn everything(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.symlink_metadata().unwrap().is_dir() {
            found.extend(everything(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}

#[test]
fn any_target_becomes_what_the_snapshot_has() {
    let (fixture, tree) = fixture();
    let paths: Vec<&str> = items().iter().map(|(path, ..)| *path).collect();
    for seed in 0..7 {
        let mut random = Random::new(seed);
        for _ in 0..=random.below(6) {
            spoil(&fixture, paths[random.index(paths.len())], &mut random, false);
        }
        let workers = Some(1 + random.index(3));
        let outcome = fixture.restore_all(tree, &Options { workers, ..Options::default() });
        check(&fixture, seed);
        let expected: u64 = items().iter().map(|(_, _, bytes)| bytes.len() as u64).sum();
        let counted = outcome.bytes_written + outcome.bytes_sparse + outcome.bytes_reused;
        assert_eq!(counted, expected - b"two names".len() as u64, "seed {seed}: {outcome:?}");
        // Nothing is left to be done.
        let again = fixture.restore_all(tree, &Options::default());
        assert_eq!((again.bytes_written, again.bytes_sparse), (0, 0), "seed {seed}: {again:?}");
    }
}

#[test]
fn any_target_becomes_what_the_snapshot_has_and_nothing_else_where_that_is_asked() {
    let (fixture, tree) = fixture();
    let paths: Vec<&str> = items().iter().map(|(path, ..)| *path).collect();
    let options = Options { delete_extra: true, whole: self::paths(&["/"]), ..Options::default() };
    let mut expected: Vec<PathBuf> = paths.iter().map(|path| fixture.at(path)).collect();
    expected.sort();
    for seed in 100..109 {
        let mut random = Random::new(seed);
        for number in 0..=random.below(6) {
            spoil(&fixture, paths[random.index(paths.len())], &mut random, true);
            let around = fixture.at(["", "a", "b/c", "b/c/empty"][random.index(4)]);
            if is_inside(&fixture, &around) {
                let extra = around.join(format!("extra-{number}"));
                remove(&extra);
                match random.below(3) {
                    0 => fs::write(extra, "extra").unwrap(),
                    1 => fs::create_dir_all(extra.join("deep/er")).unwrap(),
                    _ => link(fixture.outside(), extra).unwrap(),
                }
            }
        }
        fixture.restore_all(tree, &options);
        check(&fixture, seed);
        assert_eq!(everything(&fixture.target()), expected, "seed {seed}");
    }
}

/// Paths by chance: what is asked for is there with the folders around it, and nothing else.
#[test]
fn exactly_the_paths_that_are_asked_for_are_restored() {
    let (fixture, tree) = fixture();
    let all: Vec<&str> = items().iter().map(|(path, ..)| *path).collect();
    for seed in 0..12 {
        let mut random = Random::new(seed);
        let mut choose =
            |count: u64| -> Vec<&str> { (0..count).map(|_| all[random.index(all.len())]).collect() };
        let (asked, left_out) = (choose(1 + seed % 3), choose(seed % 2));
        let is_below = |path: &str, outer: &str| path == outer || path.starts_with(&format!("{outer}/"));
        let is_out = |path: &str| left_out.iter().any(|outer| is_below(path, outer));
        // Asking for what is left out is an error of its own.
        if asked.iter().any(|path| is_out(path)) {
            continue;
        }
        let is_wanted = |path: &str| {
            let towards = asked.iter().any(|inner| is_below(inner, path));
            (towards || asked.iter().any(|outer| is_below(path, outer))) && !is_out(path)
        };
        remove(&fixture.target());
        let options = Options { paths: paths(&asked), leave_out: paths(&left_out), ..Options::default() };
        fixture.restore_all(tree, &options);
        let mut expected: Vec<PathBuf> =
            all.iter().filter(|path| is_wanted(path)).map(|path| fixture.at(path)).collect();
        expected.sort();
        assert_eq!(everything(&fixture.target()), expected, "seed {seed}: {asked:?} without {left_out:?}");
    }
}

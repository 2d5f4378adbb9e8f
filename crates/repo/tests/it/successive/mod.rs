//! Lives of a folder by chance, backed up again and again: what is not read anew must be what reading anew would give, and
//! what a comparison tells is what changed.

mod orders;

use retoma_core::Secret;
use retoma_repo::backup::{Options, Progress, Summary, backup};
use retoma_repo::format::BlobKind;
use retoma_repo::format::time::Time;
use retoma_repo::format::tree::{Node, NodeKind};
use retoma_repo::ops::diff::{Change, ChangeKind, diff};
use retoma_repo::ops::find::Walk;
use retoma_repo::store::{BlockingStore, ObjectStore};
use retoma_repo::{BlobId, Repository, SnapshotId};
use retoma_testkit::{MemorySource, Random};
use std::collections::BTreeMap;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq)]
enum Kind {
    Directory,
    File(Vec<u8>),
    Link(&'static str),
}

#[derive(Debug, Clone, PartialEq)]
struct Entry {
    kind: Kind,
    /// Moves the times on.
    version: i64,
    inode: u64,
    mode: u32,
    /// Changed in the very moment in which it is backed up: its time may not tell the next change.
    is_fresh: bool,
}

type Path = Vec<&'static str>;
type Files = BTreeMap<Path, Entry>;

const FOLDERS: [&[&str]; 4] = [&[], &["d"], &["d", "e"], &["z"]];
const NAMES: [&str; 5] = ["a", "d", "e", "f0", "z"];

fn repository() -> Repository {
    let store = BlockingStore::new(Arc::new(ObjectStore::memory())).unwrap();
    Repository::init(store, &Secret::new("a test".to_owned())).unwrap()
}

impl Entry {
    fn node(&self, name: &str) -> Node {
        let (kind, size_bytes) = match &self.kind {
            Kind::Directory => (NodeKind::Directory, 0),
            Kind::File(bytes) => (NodeKind::File, bytes.len() as u64),
            Kind::Link(_) => (NodeKind::Symlink, 0),
        };
        let time = Time::from_unix(1_600_000_000 + self.version, 0);
        let ctime = if self.is_fresh { Time::from_unix(4_000_000_000, 0) } else { time };
        let mut node = Node::new(name, kind);
        (node.mode, node.mtime, node.atime, node.ctime) = (self.mode, time, time, ctime);
        (node.size_bytes, node.inode) = (size_bytes, self.inode);
        if let Kind::Link(target) = self.kind {
            node.link_target = Some(target.as_bytes().into());
        }
        node
    }
}

fn source(files: &Files) -> MemorySource {
    let mut source = MemorySource::default();
    let mut inside: Path = Vec::new();
    for (path, entry) in files {
        let (name, around) = path.split_last().unwrap();
        while !around.starts_with(&inside) {
            inside.pop();
            source.leave();
        }
        assert_eq!(around, inside, "a folder comes before what is in it");
        match &entry.kind {
            Kind::Directory => {
                source.enter(entry.node(name));
                inside.push(name);
            }
            Kind::File(bytes) => source.entry(entry.node(name), bytes),
            Kind::Link(_) => source.entry(entry.node(name), b""),
        }
    }
    for _ in inside {
        source.leave();
    }
    source
}

fn back_up(repository: &Repository, files: &Files, parent: Option<SnapshotId>, workers: usize) -> Summary {
    let options = Options { parent, workers: Some(workers), ..Options::default() };
    backup(repository, &mut source(files), &options, &Progress::default()).unwrap()
}

fn remove(files: &mut Files, path: &Path) {
    files.retain(|known, _| !known.starts_with(path));
}

fn contents(random: &mut Random) -> Vec<u8> {
    let word = [&b"line\n"[..], b"x", b"\0", b"other "][random.index(4)];
    word.repeat(random.index(40))
}

/// What somebody does to the folder between two backups.
fn change(files: &mut Files, random: &mut Random, version: i64) {
    let folder = FOLDERS[random.index(FOLDERS.len())];
    if !folder.is_empty() && files.get(folder).is_none_or(|entry| entry.kind != Kind::Directory) {
        return;
    }
    let path: Path = [folder, &[NAMES[random.index(NAMES.len())]]].concat();
    let inode = random.below(1000);
    let new = |kind| Entry { kind, version, inode, mode: 0o644, is_fresh: false };
    match (random.below(12), files.get_mut(&path)) {
        (0, Some(_)) => remove(files, &path),
        (1, Some(entry)) => (entry.mode, entry.version) = (entry.mode ^ 0o111, version),
        (2, Some(entry)) => entry.version = version,
        // Another file of the same size and time in its place.
        (3, Some(Entry { kind: Kind::File(bytes), inode, .. })) => {
            bytes.reverse();
            *inode += 1000;
        }
        (4, Some(entry)) if matches!(entry.kind, Kind::File(_)) => entry.is_fresh = true,
        // What changes in the moment of a backup shows in nothing but its contents.
        (5 | 6, Some(Entry { kind: Kind::File(bytes), is_fresh: true, .. })) => {
            for byte in bytes {
                *byte ^= 1;
            }
        }
        (5..=7, Some(Entry { kind: Kind::File(bytes), version: old, .. })) => {
            *bytes = contents(random);
            *old = version;
        }
        (8, _) => {
            remove(files, &path);
            files.insert(path, new(Kind::Directory));
        }
        (9, _) => {
            remove(files, &path);
            files.insert(path, new(Kind::Link(["a", "../b"][random.index(2)])));
        }
        (10 | 11, _) | (_, None) => {
            remove(files, &path);
            files.insert(path, new(Kind::File(contents(random))));
        }
        _ => {}
    }
}

/// Whether all that `stat` tells is as it was, and was settled when it was told.
fn is_same(before: Option<&Entry>, now: &Entry) -> bool {
    let size = |entry: &Entry| if let Kind::File(bytes) = &entry.kind { Some(bytes.len()) } else { None };
    before.is_some_and(|before| {
        !before.is_fresh
            && size(before).is_some()
            && size(before) == size(now)
            && (before.version, before.inode, before.is_fresh) == (now.version, now.inode, now.is_fresh)
    })
}

/// The folder as a snapshot has it, read blob by blob.
fn stored(repository: &Repository, tree: BlobId) -> BTreeMap<Vec<u8>, (Node, Vec<u8>)> {
    let index = repository.load_index().unwrap();
    Walk::new(repository, &index, tree, b"")
        .map(|entry| {
            let retoma_repo::ops::find::Entry { path, node } = entry.unwrap();
            let read = |id| repository.read_blob(&index, BlobKind::Data, id).unwrap();
            let bytes = node.content.iter().flat_map(read).collect();
            (path, (node, bytes))
        })
        .collect()
}

fn shown(path: &Path) -> Vec<u8> {
    path.iter().flat_map(|name| [b"/", name.as_bytes()].concat()).collect()
}

fn check_stored(repository: &Repository, tree: BlobId, files: &Files, seed: u64) {
    let stored = stored(repository, tree);
    assert_eq!(stored.len(), files.len(), "seed {seed}");
    for (path, entry) in files {
        let (node, bytes) = &stored[&shown(path)];
        let expected = entry.node(path.last().unwrap());
        assert_eq!(
            (node.kind, node.mode, node.mtime),
            (expected.kind, expected.mode, expected.mtime),
            "seed {seed}: {path:?}"
        );
        assert_eq!(node.link_target, expected.link_target, "seed {seed}: {path:?}");
        if let Kind::File(contents) = &entry.kind {
            assert_eq!((bytes, node.size_bytes), (contents, contents.len() as u64), "seed {seed}: {path:?}");
        }
    }
}

#[test]
fn what_is_backed_up_beside_its_parent_is_what_is_backed_up_alone() {
    let repository = repository();
    for seed in 0..9 {
        let mut random = Random::new(seed);
        let (mut files, mut parent) = (Files::new(), None);
        let mut before = files.clone();
        for version in 1..6 {
            for _ in 0..random.below(12) {
                change(&mut files, &mut random, version);
            }
            let workers = 1 + random.index(3);
            let done = back_up(&repository, &files, parent, workers);
            check_stored(&repository, done.tree, &files, seed);
            let alone = back_up(&repository, &files, None, workers);
            assert_eq!(done.tree, alone.tree, "seed {seed}, step {version}");
            assert_eq!(alone.stored_bytes, 0, "seed {seed}: it is all there already");
            let is_file = |entry: &Entry| matches!(entry.kind, Kind::File(_));
            let all = files.values().filter(|entry| is_file(entry)).count() as u64;
            let same = files
                .iter()
                .filter(|(path, entry)| is_file(entry) && is_same(before.get(*path), entry))
                .count() as u64;
            let expected = if parent.is_some() { same } else { 0 };
            assert_eq!(
                (done.files_unchanged, done.files_read),
                (expected, all - expected),
                "seed {seed}, step {version}"
            );
            assert_eq!((alone.files_unchanged, alone.files_read), (0, all), "seed {seed}");
            let bytes: u64 = files.values().map(|entry| entry.node("").size_bytes).sum();
            assert_eq!((done.total_bytes, alone.total_bytes), (bytes, bytes), "seed {seed}, step {version}");
            (parent, before) = (Some(done.snapshot), files.clone());
        }
    }
}

/// What changed from one folder to another, by looking at all of both.
fn changes(before: &Files, after: &Files) -> BTreeMap<Vec<u8>, (ChangeKind, u64, u64)> {
    let bytes = |entry: Option<&Entry>| match entry.map(|entry| &entry.kind) {
        Some(Kind::File(bytes)) => bytes.clone(),
        _ => Vec::new(),
    };
    let mut found = BTreeMap::new();
    for path in before.keys().chain(after.keys()) {
        let (old, new) = (before.get(path), after.get(path));
        let kind = match (old, new) {
            (None, _) => ChangeKind::Added,
            (_, None) => ChangeKind::Removed,
            (Some(old), Some(new))
                if std::mem::discriminant(&old.kind) != std::mem::discriminant(&new.kind) =>
            {
                ChangeKind::Type
            }
            (Some(old), Some(new)) if old.kind != new.kind => ChangeKind::Content,
            (Some(old), Some(new)) if (old.mode, old.version) != (new.mode, new.version) => {
                ChangeKind::Metadata
            }
            _ => continue,
        };
        let (old, new) = (bytes(old), bytes(new));
        let (added, removed) = if old == new { (0, 0) } else { (new.len(), old.len()) };
        found.insert(shown(path), (kind, added as u64, removed as u64));
    }
    found
}

#[test]
fn what_a_comparison_tells_is_what_changed_and_how_much() {
    let repository = repository();
    for seed in 100..125 {
        let mut random = Random::new(seed);
        let mut before = Files::new();
        for _ in 0..30 {
            change(&mut before, &mut random, 1);
        }
        let mut after = before.clone();
        for _ in 0..random.below(15) {
            change(&mut after, &mut random, 2);
        }
        let trees = [&before, &after].map(|files| back_up(&repository, files, None, 1).tree);
        let index = repository.load_index().unwrap();
        for (from, to, old, new) in [(0, 1, &before, &after), (1, 0, &after, &before)] {
            let all: Vec<Change> =
                diff(&repository, &index, trees[from], trees[to]).map(|change| change.unwrap()).collect();
            let told: BTreeMap<_, _> = all
                .iter()
                .map(|change| (change.path.clone(), (change.kind, change.added_bytes, change.removed_bytes)))
                .collect();
            assert_eq!(told.len(), all.len(), "seed {seed}: a path is told twice");
            assert_eq!(told, changes(old, new), "seed {seed}");
            for change in &all {
                assert_eq!(
                    (change.before.is_none(), change.after.is_none()),
                    (change.kind == ChangeKind::Added, change.kind == ChangeKind::Removed)
                );
            }
        }
        assert_eq!(diff(&repository, &index, trees[0], trees[0]).count(), 0);
    }
}

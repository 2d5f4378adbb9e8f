//! What a source may ask of a backup beyond one walk in order: places kept for later, and waiting for its readers.

use jiff::{SignedDuration, Timestamp};
use retoma_core::error::codes;
use retoma_core::{ErrorKind, Result};
use retoma_repo::backup::{
    Content, Event, Found, Moments, Options, Progress, Reader, Source, Summary, backup,
};
use retoma_repo::format::BlobKind;
use retoma_repo::format::time::Time;
use retoma_repo::format::tree::{Node, NodeKind};
use retoma_repo::ops::find::{self, Selector, Which};
use retoma_repo::store::PutMode;
use retoma_repo::{PackId, Repository, SnapshotId};
use retoma_testkit::{Folder, MemorySource, noise};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

fn repository() -> (Folder, Repository) {
    let folder = Folder::new();
    let repository = retoma_testkit::repository(&folder);
    (folder, repository)
}

fn run(repository: &Repository, source: &mut dyn Source, parent: Option<SnapshotId>) -> Result<Summary> {
    let options = Options { parent, ..Options::default() };
    backup(repository, source, &options, &Progress::default())
}

/// The names below a tree with their contents, directories with a `/` at the end, in the order of the trees.
fn listing(repository: &Repository, summary: &Summary) -> Vec<(String, Vec<u8>)> {
    let index = repository.load_index().unwrap();
    let mut found = Vec::new();
    let mut left: Vec<_> = vec![(String::new(), summary.tree)];
    while let Some((folder, tree)) = left.pop() {
        for node in repository.read_tree(&index, &tree).unwrap() {
            let path = format!("{folder}/{}", String::from_utf8_lossy(&node.name));
            let read = |id| repository.read_blob(&index, BlobKind::Data, id).unwrap();
            let content: Vec<u8> = node.content.iter().flat_map(read).collect();
            match node.subtree {
                Some(subtree) => left.push((path.clone(), subtree)),
                None => found.push((path, content)),
            }
        }
    }
    found
}

fn node(name: &str, kind: NodeKind) -> Box<Node> {
    Box::new(Node::new(name, kind))
}

/// A directory `data` as a server has it: what is read, and two files and a folder of which all is known at the end only.
fn with_late_places(label: &[u8], extra: bool) -> MemorySource {
    let mut source = MemorySource::default();
    source.enter(Node::new("data", NodeKind::Directory));
    source.event(Event::Reserve(1, b"a-label".to_vec()));
    source.file(b"base", b"pages");
    source.event(Event::Reserve(2, b"log".to_vec()));
    source.file(b"middle", &noise(3, 3 << 20));
    source.event(Event::Reserve(3, b"never".to_vec()));
    source.file(b"xact", b"commits");
    source.leave();
    source.file(b"zz", b"beside it");
    source.event(Event::Settle);
    source.event(Event::Late(2, Box::new(Event::Enter(node("log", NodeKind::Directory)))));
    source.file(b"000001", b"first");
    if extra {
        source.file(b"000002", b"second");
    }
    source.leave();
    let mut late = MemorySource::default();
    late.file(b"a-label", label);
    let entry = late.next().unwrap().unwrap();
    source.event(Event::Late(1, Box::new(entry)));
    source
}

#[test]
fn late_places_stand_in_the_order_of_names_and_unfilled_ones_are_left_out() {
    let (_folder, repository) = repository();
    let summary = run(&repository, &mut with_late_places(b"label", true), None).unwrap();
    let expected: Vec<(&str, Vec<u8>)> = vec![
        ("/zz", b"beside it".to_vec()),
        ("/data/a-label", b"label".to_vec()),
        ("/data/base", b"pages".to_vec()),
        ("/data/middle", noise(3, 3 << 20)),
        ("/data/xact", b"commits".to_vec()),
        ("/data/log/000001", b"first".to_vec()),
        ("/data/log/000002", b"second".to_vec()),
    ];
    let got = listing(&repository, &summary);
    assert_eq!(got.iter().map(|(path, _)| path.as_str()).collect::<Vec<_>>(), names(&expected));
    assert!(got.iter().zip(&expected).all(|((_, got), (_, wanted))| got == wanted));
}

fn names<'a>(expected: &[(&'a str, Vec<u8>)]) -> Vec<&'a str> {
    expected.iter().map(|(path, _)| *path).collect()
}

#[test]
fn late_places_are_compared_with_the_parent_too() {
    let (_folder, repository) = repository();
    let first = run(&repository, &mut with_late_places(b"label", true), None).unwrap();
    let same = run(&repository, &mut with_late_places(b"label", true), Some(first.snapshot)).unwrap();
    assert_eq!((same.tree, same.stored_bytes), (first.tree, 0));
    let other = run(&repository, &mut with_late_places(b"another", false), Some(first.snapshot)).unwrap();
    let paths: Vec<_> = listing(&repository, &other).into_iter().collect();
    assert_eq!(paths[1], ("/data/a-label".to_owned(), b"another".to_vec()));
    assert!(!paths.iter().any(|(path, _)| path == "/data/log/000002"));
}

/// Gives `files` files, then asks after [`Event::Settle`] how many were read to their end.
struct Counting {
    events: VecDeque<Event>,
    finished: Arc<AtomicUsize>,
    seen: Option<usize>,
}

impl Counting {
    fn new(files: usize, bytes: usize) -> Self {
        let finished = Arc::new(AtomicUsize::new(0));
        let mut events: VecDeque<Event> = (0..files)
            .map(|at| {
                let node = Node { size_bytes: bytes as u64, ..Node::new(format!("{at:06}"), NodeKind::File) };
                let content = Counted { left_bytes: bytes, finished: Arc::clone(&finished) };
                Event::Entry(Box::new(node), Box::new(content))
            })
            .collect();
        events.push_back(Event::Settle);
        Self { events, finished, seen: None }
    }
}

impl Source for Counting {
    fn next(&mut self) -> Result<Option<Event>> {
        if self.events.is_empty() {
            self.seen = Some(self.finished.load(Ordering::SeqCst));
        }
        Ok(self.events.pop_front())
    }
}

struct Counted {
    left_bytes: usize,
    finished: Arc<AtomicUsize>,
}

impl Content for Counted {
    fn describe(&mut self, _node: &mut Node) -> Result<Found> {
        Ok(Found::There)
    }

    fn open(&mut self) -> Result<Box<dyn Reader>> {
        Ok(Box::new(Self { left_bytes: self.left_bytes, finished: Arc::clone(&self.finished) }))
    }
}

impl Reader for Counted {
    fn size_bytes(&self) -> Option<u64> {
        Some(self.left_bytes as u64)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let count = buffer.len().min(self.left_bytes);
        buffer[..count].fill(7);
        self.left_bytes -= count;
        Ok(count)
    }

    fn finish(&mut self, _read_bytes: u64) -> Result<()> {
        self.finished.fetch_add(1, Ordering::SeqCst);
        Ok(())
    }
}

#[test]
fn after_settling_every_reader_has_ended() {
    // Fewer than a batch, many batches, and large files, whose chunks others store.
    for (files, bytes) in [(1, 10), (63, 100), (1000, 100), (5, 9 << 20)] {
        let (_folder, repository) = repository();
        let mut source = Counting::new(files, bytes);
        run(&repository, &mut source, None).unwrap();
        assert_eq!(source.seen, Some(files), "{files} files of {bytes} bytes");
    }
}

#[test]
fn a_late_entry_that_was_not_reserved_ends_the_backup() {
    let entry = |name: &str| Event::Entry(node(name, NodeKind::Socket), Box::new(Nothing));
    let cases: [Vec<Event>; 4] = [
        vec![Event::Late(1, Box::new(entry("a")))],
        vec![Event::Reserve(1, b"a".to_vec()), Event::Late(1, Box::new(entry("b")))],
        vec![Event::Reserve(1, b"a".to_vec()), Event::Late(1, Box::new(Event::Leave))],
        vec![Event::Reserve(1, b"a".to_vec()), Event::Reserve(1, b"b".to_vec())],
    ];
    for events in cases {
        let (_folder, repository) = repository();
        let shown = format!("{events:?}");
        let mut source = MemorySource::default();
        for event in events {
            source.event(event);
        }
        assert_eq!(run(&repository, &mut source, None).unwrap_err().kind(), ErrorKind::Internal, "{shown}");
        assert_eq!(repository.snapshots().unwrap(), vec![]);
    }
}

/// Files in an order of their own, read before their places are known.
fn ahead(files: &[(u64, &str, &[u8])], places: &[u64]) -> MemorySource {
    let mut source = MemorySource::default();
    for (number, name, contents) in files {
        let mut one = MemorySource::default();
        one.file(name.as_bytes(), contents);
        let Some(Event::Entry(node, content)) = one.next().unwrap() else { panic!("no entry") };
        source.event(Event::Ahead(*number, node, content));
    }
    source.enter(Node::new("data", NodeKind::Directory));
    for number in places {
        source.event(Event::Place(*number));
    }
    source.leave();
    source
}

#[test]
fn files_read_ahead_get_their_places_later() {
    let (_folder, repository) = repository();
    // Many chunks, which workers may still store when the place comes; a small file; an empty one.
    let large = noise(9, 11 << 20);
    let files: [(u64, &str, &[u8]); 4] =
        [(7, "z", &large), (3, "b", b"small"), (9, "c", b""), (1, "a", &large[5..])];
    let summary = run(&repository, &mut ahead(&files, &[1, 3, 9, 7]), None).unwrap();
    let got = listing(&repository, &summary);
    let expected = [("/data/a", &large[5..]), ("/data/b", b"small"), ("/data/c", b""), ("/data/z", &large)];
    assert_eq!(got.len(), expected.len());
    for ((path, bytes), (expected_path, expected_bytes)) in got.iter().zip(expected) {
        assert!(path == expected_path && bytes == expected_bytes, "{path}");
    }
    assert_eq!((summary.files_read, summary.read_bytes), (4, 2 * large.len() as u64));
    // The same again stores nothing.
    let again = run(&repository, &mut ahead(&files, &[1, 3, 9, 7]), Some(summary.snapshot)).unwrap();
    assert_eq!((again.tree, again.stored_bytes), (summary.tree, 0));
}

#[test]
fn files_read_ahead_without_a_place_or_with_two_end_the_backup() {
    let a: (u64, &str, &[u8]) = (1, "a", b"x");
    for (files, places) in [
        (vec![a], vec![]),
        (vec![a], vec![1, 1]),
        (vec![a], vec![2]),
        (vec![a, (1, "b", b"y")], vec![1]),
        (vec![a, (2, "b", b"y")], vec![2, 1]),
    ] {
        let (_folder, repository) = repository();
        let error = run(&repository, &mut ahead(&files, &places), None).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Internal, "{files:?} {places:?}");
        assert_eq!(repository.snapshots().unwrap(), vec![]);
    }
}

struct Nothing;

impl Content for Nothing {
    fn describe(&mut self, _node: &mut Node) -> Result<Found> {
        Ok(Found::There)
    }

    fn open(&mut self) -> Result<Box<dyn Reader>> {
        Err(retoma_core::Error::internal("a socket has no contents"))
    }
}

/// A time long ago, so that a second backup may trust it.
#[test]
fn a_late_file_that_is_the_same_is_not_read() {
    let (_folder, repository) = repository();
    let source = || {
        let mut source = MemorySource::default();
        source.event(Event::Reserve(1, b"f".to_vec()));
        let mut late = MemorySource::default();
        let long_ago: Time = serde_json::from_str("\"2020-01-01T00:00:00Z\"").unwrap();
        let node = Node { size_bytes: 3, mtime: long_ago, ctime: long_ago, ..Node::new("f", NodeKind::File) };
        late.entry(node, b"abc");
        source.event(Event::Late(1, Box::new(late.next().unwrap().unwrap())));
        source
    };
    let first = run(&repository, &mut source(), None).unwrap();
    let second = run(&repository, &mut source(), Some(first.snapshot)).unwrap();
    assert_eq!((first.files_read, second.files_read, second.files_unchanged), (1, 0, 1));
}

struct GoneMeanwhile;

impl Content for GoneMeanwhile {
    fn describe(&mut self, _node: &mut Node) -> Result<Found> {
        Ok(Found::Gone)
    }

    fn open(&mut self) -> Result<Box<dyn Reader>> {
        Err(retoma_core::Error::internal("what is gone is not opened"))
    }
}

#[test]
fn what_may_be_gone_is_left_out_and_the_snapshot_is_complete() {
    let (_folder, repository) = repository();
    let mut source = MemorySource::default();
    source.file(b"a", b"stays");
    for (name, kind) in [("b", NodeKind::File), ("c", NodeKind::Symlink)] {
        source.event(Event::Entry(node(name, kind), Box::new(GoneMeanwhile)));
    }
    let summary = run(&repository, &mut source, None).unwrap();
    assert!(summary.unreadable.is_empty());
    assert_eq!(listing(&repository, &summary), [("/a".to_owned(), b"stays".to_vec())]);
}

#[test]
fn names_out_of_order_end_the_backup() {
    for names in [["b", "a"], ["a", "a"]] {
        let (_folder, repository) = repository();
        let mut source = MemorySource::default();
        for name in names {
            source.file(name.as_bytes(), b"x");
        }
        assert_eq!(run(&repository, &mut source, None).unwrap_err().kind(), ErrorKind::Internal, "{names:?}");
        assert_eq!(repository.snapshots().unwrap(), vec![]);
    }
}

/// Deletes or cuts the packs that hold a kind of blob.
fn lose(repository: &Repository, kind: BlobKind, cut: bool) -> BTreeSet<PackId> {
    let index = repository.load_index().unwrap();
    let packs: BTreeSet<PackId> = index.iter(kind).map(|location| location.pack).collect();
    for pack in &packs {
        let key = repository.pack_key(*pack).unwrap();
        let bytes = repository.store().get(&key).unwrap();
        repository.store().delete(&key).unwrap();
        if cut {
            repository.store().put(&key, bytes.slice(..bytes.len() - 1), PutMode::Create).unwrap();
        }
    }
    packs
}

#[test]
fn what_lay_in_lost_packs_is_read_and_stored_again_also_where_nothing_changed() {
    let source = || {
        let mut source = MemorySource::default();
        source.enter(Node::new("data", NodeKind::Directory));
        source.file(b"large", &noise(5, 3 << 20));
        source.file(b"small", b"a few bytes");
        source.leave();
        source
    };
    for kind in [BlobKind::Data, BlobKind::Tree] {
        for cut in [false, true] {
            let (_folder, repository) = repository();
            let first = run(&repository, &mut source(), None).unwrap();
            assert_eq!(first.lost_packs, []);
            let expected = listing(&repository, &first);
            let again = run(&repository, &mut source(), Some(first.snapshot)).unwrap();
            assert_eq!((again.files_unchanged, again.lost_packs.len()), (2, 0), "nothing is lost yet");
            let packs = lose(&repository, kind, cut);
            let second = run(&repository, &mut source(), Some(first.snapshot)).unwrap();
            let lost: BTreeSet<PackId> = second.lost_packs.iter().map(|pack| pack.id).collect();
            assert_eq!(lost, packs, "{kind:?} {cut}");
            assert_eq!(second.lost_packs[0].to_string().contains("instead of"), cut);
            assert_eq!(second.files_unchanged, 0, "{kind:?}: read again");
            // The old packs are named by the index still; a blob that lies in a sound one too is read from there.
            assert_eq!(listing(&repository, &second), expected, "{kind:?} {cut}");
        }
    }
}

/// A source that knows when what it gives was so.
struct Dated(MemorySource, Moments);

impl Source for Dated {
    fn next(&mut self) -> Result<Option<Event>> {
        self.0.next()
    }

    fn moments(&self) -> Option<Moments> {
        Some(self.1)
    }
}

#[test]
fn a_snapshot_has_the_earliest_moment_and_is_found_from_the_latest_on() {
    let (_folder, repository) = repository();
    let minutes = |count| Timestamp::UNIX_EPOCH + SignedDuration::from_mins(count);
    let moments = Moments { earliest: minutes(10), latest: minutes(20) };
    let id = run(&repository, &mut Dated(MemorySource::default(), moments), None).unwrap().snapshot;
    let snapshot = repository.snapshot(id).unwrap();
    assert_eq!((snapshot.time.0, snapshot.until()), (moments.earliest, moments.latest));
    let at = |time| find::snapshot(&repository, &Selector { which: Which::At(time), ..Selector::default() });
    assert_eq!(at(minutes(20)).unwrap().0, id);
    assert_eq!(at(minutes(19)).unwrap_err().code(), codes::SNAPSHOT_NOT_FOUND);
}

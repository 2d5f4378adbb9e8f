//! Parts of a folder in orders of their own, as an archive over a network and the end of a base backup give them: read
//! ahead of their places, or late, into places that were kept. The tree is the one that the plain walk gives.

use super::{Entry, Files, Kind, Path, back_up, change, repository, source};
use retoma_repo::backup::{Event, Options, Progress, Source, Summary, backup};
use retoma_repo::{Repository, SnapshotId};
use retoma_testkit::{MemorySource, Random};
use std::collections::BTreeMap;

/// An entry as the event of a plain walk.
fn plain(entry: &Entry, name: &str) -> Event {
    let mut one = MemorySource::default();
    match &entry.kind {
        Kind::Directory => one.enter(entry.node(name)),
        Kind::File(bytes) => one.entry(entry.node(name), bytes),
        Kind::Link(_) => one.entry(entry.node(name), b""),
    }
    one.next().unwrap().unwrap()
}

struct Turned<'a> {
    files: &'a Files,
    random: Random,
    source: MemorySource,
    /// Files that were read ahead, with their numbers.
    ahead: BTreeMap<Path, u64>,
    late: Vec<(u32, Path)>,
}

impl Turned<'_> {
    fn name(path: &Path) -> &'static str {
        path.last().unwrap()
    }

    fn give_ahead(&mut self, path: &Path, number: u64) {
        let Event::Entry(node, content) = plain(&self.files[path], Self::name(path)) else {
            panic!("{path:?}")
        };
        self.source.event(Event::Ahead(number, node, content));
        self.ahead.insert(path.clone(), number);
    }

    fn folder(&mut self, folder: &[&'static str], is_late: bool) {
        let files = self.files;
        let inside =
            files.iter().filter(|(path, _)| path.len() == folder.len() + 1 && path.starts_with(folder));
        for (path, entry) in inside {
            if let Some(number) = self.ahead.get(path) {
                self.source.event(Event::Place(*number));
                continue;
            }
            match self.random.below(5) {
                0 if !is_late => {
                    let number = u32::try_from(self.late.len()).unwrap();
                    self.source.event(Event::Reserve(number, Self::name(path).as_bytes().to_vec()));
                    self.late.push((number, path.clone()));
                    continue;
                }
                1 if !is_late && matches!(entry.kind, Kind::File(_)) => {
                    let number = 1000 + self.ahead.len() as u64;
                    self.give_ahead(path, number);
                    self.source.event(Event::Place(number));
                    continue;
                }
                2 if !is_late => self.source.event(Event::Settle),
                _ => {}
            }
            self.source.event(plain(entry, Self::name(path)));
            if entry.kind == Kind::Directory {
                self.folder(path, is_late);
                self.source.leave();
            }
        }
    }

    fn late(&mut self) {
        while !self.late.is_empty() {
            let (number, path) = self.late.swap_remove(self.random.index(self.late.len()));
            let entry = &self.files[&path];
            self.source.event(Event::Late(number, Box::new(plain(entry, Self::name(&path)))));
            if entry.kind == Kind::Directory {
                self.folder(&path, true);
                self.source.leave();
            }
        }
    }
}

/// The folder with some files first of all, in any order, and some of it last of all.
fn turned(files: &Files, seed: u64) -> MemorySource {
    let (random, source) = (Random::new(seed), MemorySource::default());
    let mut turned = Turned { files, random, source, ahead: BTreeMap::new(), late: Vec::new() };
    let mut first: Vec<&Path> =
        files.iter().filter(|(_, entry)| matches!(entry.kind, Kind::File(_))).map(|(path, _)| path).collect();
    first.retain(|_| turned.random.below(3) == 0);
    while !first.is_empty() {
        let path = first.swap_remove(turned.random.index(first.len()));
        let number = turned.ahead.len() as u64;
        turned.give_ahead(path, number);
    }
    turned.folder(&[], false);
    turned.late();
    turned.source
}

fn run(
    repository: &Repository,
    source: &mut dyn Source,
    parent: Option<SnapshotId>,
    workers: usize,
) -> Summary {
    let options = Options { parent, workers: Some(workers), ..Options::default() };
    backup(repository, source, &options, &Progress::default()).unwrap()
}

#[test]
fn in_whatever_order_the_parts_come_the_tree_is_the_same() {
    let repository = repository();
    for seed in 0..24 {
        let mut random = Random::new(seed);
        let mut files = Files::new();
        for _ in 0..40 {
            change(&mut files, &mut random, 1);
        }
        let before = run(&repository, &mut turned(&files, seed), None, 1 + random.index(3));
        let expected = back_up(&repository, &files, None, 1);
        assert_eq!(before.tree, expected.tree, "seed {seed}");
        assert_eq!(
            (before.files_read, before.total_bytes),
            (expected.files_read, expected.total_bytes),
            "seed {seed}"
        );
        for _ in 0..random.below(10) {
            change(&mut files, &mut random, 2);
        }
        let after =
            run(&repository, &mut turned(&files, seed + 1000), Some(before.snapshot), 1 + random.index(3));
        let plain = run(&repository, &mut source(&files), None, 1);
        assert_eq!(after.tree, plain.tree, "seed {seed}, beside a parent");
    }
}

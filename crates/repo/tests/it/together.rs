//! What a backup hashes side by side: each file and chunk keeps its own name, place and contents, and each pack the name of its own.

use retoma_core::{Error, Result};
use retoma_repo::backup::{Content, Event, Found, Options, Progress, Reader, Summary, backup};
use retoma_repo::format::BlobKind;
use retoma_repo::format::tree::{Node, NodeKind};
use retoma_repo::{BlobId, PackId, Repository};
use retoma_testkit::{Folder, MemorySource, noise};
use std::collections::{BTreeMap, BTreeSet};

fn run(repository: &Repository, mut source: MemorySource, workers: usize) -> Summary {
    let options = Options { workers: Some(workers), ..Options::default() };
    backup(repository, &mut source, &options, &Progress::default()).unwrap()
}

/// The files of the root's only level, by name.
fn files(repository: &Repository, summary: &Summary) -> BTreeMap<Vec<u8>, Node> {
    let index = repository.load_index().unwrap();
    let nodes = repository.read_tree(&index, &summary.tree).unwrap();
    nodes.into_iter().map(|node| (node.name.clone(), node)).collect()
}

fn contents(repository: &Repository, node: &Node) -> Vec<u8> {
    let index = repository.load_index().unwrap();
    let read = |id| repository.read_blob(&index, BlobKind::Data, id).unwrap();
    node.content.iter().flat_map(read).collect()
}

/// What becomes of a file while it is read.
enum Fate {
    /// It is longer than it gives.
    Fails(Vec<u8>),
    Gone,
}

impl Content for Fate {
    fn describe(&mut self, _node: &mut Node) -> Result<Found> {
        Ok(if matches!(self, Self::Gone) { Found::Gone } else { Found::There })
    }

    fn open(&mut self) -> Result<Box<dyn Reader>> {
        let Self::Fails(bytes) = self else { return Err(Error::internal("it is gone")) };
        Ok(Box::new(Failing(std::mem::take(bytes))))
    }
}

/// Gives half of the bytes and then an error.
struct Failing(Vec<u8>);

impl Reader for Failing {
    fn size_bytes(&self) -> Option<u64> {
        Some(self.0.len() as u64)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.0.is_empty() {
            return Err(Error::io("a bad sector", std::io::Error::other("it cannot be read")));
        }
        let half = self.0.len() / 2;
        buffer[..half].copy_from_slice(&self.0[..half]);
        self.0.clear();
        Ok(half)
    }

    fn finish(&mut self, _read_bytes: u64) -> Result<()> {
        Ok(())
    }
}

/// Lengths around those at which a group of small files ends: in files, in bytes, and where a file is not small any more.
fn lengths() -> Vec<usize> {
    let few = [0, 1, 63, 64, 65, 1000, 0, 4096, 70_000];
    let large = [512 << 10, (512 << 10) - 1, (512 << 10) + 1, 300 << 10, 300 << 10];
    few.into_iter().cycle().take(40).chain(large).chain(few.into_iter().cycle().take(90)).collect()
}

#[test]
fn small_files_keep_their_contents_also_beside_some_that_cannot_be_read() {
    for workers in [1, 3] {
        let folder = Folder::new();
        let repository = retoma_testkit::repository(&folder);
        let mut source = MemorySource::default();
        let mut expected = BTreeMap::new();
        for (number, length) in lengths().into_iter().enumerate() {
            let name = format!("{number:04}").into_bytes();
            // Every seventh has the contents of another one.
            let plain = noise(if number % 7 == 0 { 1 } else { number as u64 }, length);
            source.file(&name, &plain);
            expected.insert(name, plain);
            let fate = match number % 5 {
                1 => Fate::Fails(noise(9, length.max(2))),
                3 => Fate::Gone,
                _ => continue,
            };
            let node = Node::new(format!("{number:04}-"), NodeKind::File);
            source.event(Event::Entry(Box::new(node), Box::new(fate)));
        }
        let summary = run(&repository, source, workers);
        let found = files(&repository, &summary);
        assert!(found.keys().eq(expected.keys()), "{workers} workers: those that fail are left out");
        for (name, plain) in &expected {
            let node = &found[name];
            let blobs: &[BlobId] = if plain.is_empty() { &[] } else { &[BlobId::of(plain)] };
            if plain.len() <= 512 << 10 {
                assert_eq!(node.content, blobs, "{}", name.escape_ascii());
            }
            assert_eq!(node.size_bytes, plain.len() as u64);
            assert!(contents(&repository, node) == *plain, "{}", name.escape_ascii());
        }
        let failing = (0..lengths().len()).filter(|number| number % 5 == 1).count();
        assert_eq!(summary.unreadable.len(), failing);
    }
}

#[test]
fn chunks_of_several_large_files_keep_their_places() {
    for workers in [1, 2, 5] {
        let folder = Folder::new();
        let repository = retoma_testkit::repository(&folder);
        let mut source = MemorySource::default();
        let plain = |number: u64| noise(number, (9 << 20) + usize::try_from(number).unwrap());
        (0..4).for_each(|number| source.file(format!("{number}").as_bytes(), &plain(number)));
        let summary = run(&repository, source, workers);
        for (number, node) in files(&repository, &summary).into_values().enumerate() {
            assert!(node.content.len() > 1, "several chunks");
            assert!(contents(&repository, &node) == plain(number as u64), "{workers} workers, file {number}");
        }
    }
}

#[test]
fn packs_have_the_names_of_their_contents() {
    for mebibytes in [20, 40, 52] {
        let folder = Folder::new();
        let repository = retoma_testkit::repository(&folder);
        let mut source = MemorySource::default();
        source.file(b"large", &noise(7, mebibytes << 20));
        run(&repository, source, 2);
        let index = repository.load_index().unwrap();
        let both = [BlobKind::Data, BlobKind::Tree].into_iter().flat_map(|kind| index.iter(kind));
        let packs: BTreeSet<PackId> = both.map(|location| location.pack).collect();
        assert!(packs.len() > mebibytes / 18, "{} packs", packs.len());
        for pack in packs {
            let bytes = repository.store().get(&repository.pack_key(pack).unwrap()).unwrap();
            assert_eq!(PackId::of(&bytes), pack, "{mebibytes} MiB");
        }
    }
}

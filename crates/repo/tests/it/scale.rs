//! How cost grows with the number of blobs: each operation on a repository of so many small blobs, in time and memory.
//!
//! A large repository by hand: `RETOMA_BLOBS=5000000 cargo test --release -p retoma-repo --test it scale -- --nocapture`.

use retoma_repo::backup::{Content, Event, Found, Options, Progress, Reader, Source, backup};
use retoma_repo::format::tree::{Node, NodeKind};
use retoma_repo::ops::{prune, verify};

use retoma_repo::{Folder as Place, Repository, Result, SnapshotId};
use retoma_testkit::{Folder, repository};
use std::fs;
use std::time::{Duration, Instant};

/// Files of a directory.
const PER_FOLDER: u64 = 1_000;
/// So many are made in every run of the tests.
const FEW: u64 = 20_000;

/// Files `first..end`, each with contents of its own, made when they are asked for.
struct Many {
    next: u64,
    end: u64,
    /// Files that are still to come in the folder that was entered.
    left: Option<u64>,
}

impl Many {
    fn new(files: std::ops::Range<u64>) -> Self {
        Self { next: files.start, end: files.end, left: None }
    }

    fn folder(&mut self) -> Event {
        self.left = Some(PER_FOLDER.min(self.end - self.next));
        Event::Enter(Box::new(Node::new(format!("{:09}", self.next), NodeKind::Directory)))
    }

    fn file(&mut self) -> Event {
        let number = self.next;
        self.next += 1;
        let node =
            Node { size_bytes: 8, inode: number + 1, ..Node::new(format!("{number:09}"), NodeKind::File) };
        Event::Entry(Box::new(node), Box::new(Number(number)))
    }
}

impl Source for Many {
    fn next(&mut self) -> Result<Option<Event>> {
        Ok(match self.left {
            None if self.next == self.end => None,
            None => Some(self.folder()),
            Some(0) => {
                self.left = None;
                Some(Event::Leave)
            }
            Some(left) => {
                self.left = Some(left - 1);
                Some(self.file())
            }
        })
    }
}

struct Number(u64);

impl Content for Number {
    fn describe(&mut self, _node: &mut Node) -> Result<Found> {
        Ok(Found::There)
    }

    fn open(&mut self) -> Result<Box<dyn Reader>> {
        Ok(Box::new(Digits { bytes: self.0.to_le_bytes(), read: 0 }))
    }
}

struct Digits {
    bytes: [u8; 8],
    read: usize,
}

impl Reader for Digits {
    fn size_bytes(&self) -> Option<u64> {
        Some(8)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let left = &self.bytes[self.read..];
        let count = left.len().min(buffer.len());
        buffer[..count].copy_from_slice(&left[..count]);
        self.read += count;
        Ok(count)
    }

    fn finish(&mut self, _read_bytes: u64) -> Result<()> {
        Ok(())
    }
}

/// Runs `work`, and prints how long it took and how much memory the process had at most meanwhile.
fn measured<T>(what: &str, work: impl FnOnce() -> T) -> T {
    // Sets the high-water mark back, proc(5).
    fs::write("/proc/self/clear_refs", "5").ok();
    let start = Instant::now();
    let done = work();
    let seconds = start.elapsed().as_secs_f64();
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap().trim().to_owned();
    println!("| {what} | {seconds:.2} s | {peak} |");
    done
}

fn save(repository: &Repository, files: std::ops::Range<u64>, parent: Option<SnapshotId>) -> SnapshotId {
    let options = Options { parent, ..Options::default() };
    backup(repository, &mut Many::new(files), &options, &Progress::default()).unwrap().snapshot
}

#[test]
#[allow(clippy::cast_precision_loss)]
fn cost_grows_with_the_number_of_blobs_alone() {
    let blobs = std::env::var("RETOMA_BLOBS").map_or(FEW, |count| count.parse().unwrap());
    let folder = Folder::new();
    let repository = repository(&folder);
    let first = measured("first backup", || save(&repository, 0..blobs, None));
    measured("nothing changed", || save(&repository, 0..blobs, Some(first)));
    let index = measured("load the index", || repository.load_index().unwrap());
    assert!(index.len() as u64 >= blobs);
    let each = index.memory_bytes() as f64 / index.len() as f64;
    println!(
        "| memory of the index, a blob | {each:.1} bytes | {} blobs, {} packs |",
        index.len(),
        index.packs().len()
    );
    drop(index);
    let stored: u64 = repository.list(Place::Index).unwrap().iter().map(|(_, meta)| meta.size_bytes).sum();
    println!("| index in the store, a blob | {:.1} bytes | |", stored as f64 / blobs as f64);
    let structure = verify::Options::default();
    let report =
        measured("verify", || verify::verify(&repository, &structure, &Progress::default()).unwrap());
    assert!(report.findings.is_empty(), "{report:?}");

    let half = save(&repository, 0..blobs / 2, None);
    for (id, _) in repository.snapshots().unwrap().into_iter().filter(|(id, _)| *id != half) {
        repository.store().delete(&Place::Snapshots.key(&id.to_hex()).unwrap()).unwrap();
    }
    let options = prune::Options { grace: Duration::ZERO, ..prune::Options::new(retoma_repo::host::now()) };
    let plan = measured("plan a prune of one half", || {
        prune::plan(&repository, &options, &Progress::default()).unwrap()
    });
    measured("prune", || prune::apply(&repository, plan, &Progress::default()).unwrap());
    let left = repository.load_index().unwrap().len() as u64;
    assert!(left >= blobs / 2 && left < blobs, "{left} of {blobs} blobs are left");
    if blobs >= 100_000 {
        assert!(each <= 60.0, "{each} bytes a blob");
    }
}

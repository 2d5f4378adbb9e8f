//! Small repositories with real backups, and the invariants that every test of forgetting and pruning checks.

use super::disk::{Disk, Objects, write_files};
use retoma_core::{Result, Secret};
use retoma_repo::backup::{self, Progress};
use retoma_repo::format::pack;
use retoma_repo::format::time::Time;
use retoma_repo::format::tree::{Node, NodeKind};
use retoma_repo::ops::forget;
use retoma_repo::ops::prune::{self, Options, Pruned};
use retoma_repo::{Folder, PackId, Repository, SnapshotId};
use retoma_testkit::{MemorySource, noise};
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

pub(crate) const PASSWORD: &str = "correct horse";

pub(crate) fn secret(text: &str) -> Secret<String> {
    Secret::new(text.to_owned())
}

/// File contents by name.
pub(crate) type Files = BTreeMap<String, Vec<u8>>;

/// A file for each seed.
pub(crate) fn files(seeds: impl IntoIterator<Item = u64>) -> Files {
    seeds
        .into_iter()
        .map(|seed| (format!("f{seed:04}"), noise(seed, 1500 + usize::try_from(seed % 7).unwrap() * 300)))
        .collect()
}

/// Backs `files` up as `/data`.
pub(crate) fn back_up(repository: &Repository, files: &Files) -> Result<SnapshotId> {
    let mut source = MemorySource::default();
    source.enter(Node::new("data", NodeKind::Directory));
    for (name, bytes) in files {
        source.file(name.as_bytes(), bytes);
    }
    source.leave();
    let options = backup::Options { paths: vec!["/data".to_owned()], workers: Some(1), ..Default::default() };
    let done = backup::backup(repository, &mut source, &options, &Progress::default())?;
    Ok(done.snapshot)
}

pub(crate) fn now() -> Time {
    retoma_repo::host::now()
}

pub(crate) fn later(hours: i64) -> Time {
    Time(now().0 + jiff::SignedDuration::from_hours(hours))
}

/// Options that repack eagerly, so that small repositories show it, and that go on when all snapshots are gone.
pub(crate) fn options(now: Time) -> Options {
    Options { repack_unused_percent: 5, without_snapshots: true, ..Options::new(now) }
}

pub(crate) fn at_once() -> Options {
    Options { grace: Duration::ZERO, ..options(now()) }
}

pub(crate) fn prune(repository: &Repository, options: &Options) -> Result<Pruned> {
    let progress = Progress::default();
    prune::apply(repository, prune::plan(repository, options, &progress)?, &progress)
}

/// Removes a snapshot whatever any policy says.
pub(crate) fn drop_snapshot(repository: &Repository, id: SnapshotId) {
    repository.store().delete(&Folder::Snapshots.key(&id.to_hex()).unwrap()).unwrap();
}

pub(crate) fn remove(repository: &Repository, id: SnapshotId) -> Result<Vec<SnapshotId>> {
    forget::apply(repository, &forget::plan_removal(repository, &BTreeSet::from([id]), now().0)?)
}

/// Every file of a snapshot, each blob read and checked.
pub(crate) fn read_back(repository: &Repository, id: SnapshotId) -> Result<Files> {
    let index = repository.load_index()?;
    let mut found = Files::new();
    let mut waiting = vec![repository.snapshot(id)?.tree];
    while let Some(tree) = waiting.pop() {
        for node in repository.read_tree(&index, &tree)? {
            waiting.extend(node.subtree);
            if node.kind != NodeKind::File {
                continue;
            }
            let mut bytes = Vec::new();
            for blob in &node.content {
                bytes.extend(repository.read_blob(&index, retoma_repo::format::BlobKind::Data, blob)?);
            }
            found.insert(String::from_utf8(node.name).unwrap(), bytes);
        }
    }
    Ok(found)
}

/// Every snapshot reads back completely; gives their contents.
pub(crate) fn read_all(repository: &Repository) -> BTreeMap<SnapshotId, Files> {
    let snapshots = repository.snapshots().unwrap();
    let read = |(id, _)| (id, read_back(repository, id).unwrap_or_else(|error| panic!("{id}: {error}")));
    snapshots.into_iter().map(read).collect()
}

/// What an index names is there, whole, and says the same in its own header.
pub(crate) fn check_structure(repository: &Repository) {
    for (index, _) in repository.list(Folder::Index).unwrap() {
        for entry in repository.index_file(retoma_repo::IndexId(index)).unwrap().packs {
            let bytes = repository.store().get(&repository.pack_key(entry.id).unwrap()).unwrap();
            assert_eq!(PackId::of(&bytes), entry.id);
            assert_eq!(bytes.len() as u64, entry.pack_bytes());
            let trailer = bytes[bytes.len() - 4..].try_into().unwrap();
            let header = pack::header_length(trailer, bytes.len() as u64).unwrap() as usize;
            let (blobs, header) = bytes[..bytes.len() - 4].split_at(bytes.len() - 4 - header);
            let mut listed = pack::open_header(repository.key(), header, blobs.len() as u64).unwrap();
            let mut indexed = entry.blobs;
            indexed.sort_by_key(|blob| blob.offset_bytes);
            listed.sort_by_key(|blob| blob.offset_bytes);
            assert_eq!(listed, indexed);
        }
    }
}

/// Nothing is left that nobody needs: no pack, no mark, no blob, and a new plan is empty.
pub(crate) fn check_no_garbage(repository: &Repository) {
    let stored: HashSet<PackId> =
        repository.list(Folder::Data).unwrap().into_iter().map(|(id, _)| PackId(id)).collect();
    let indexed: HashSet<PackId> = repository.load_index().unwrap().packs().iter().copied().collect();
    assert_eq!(stored, indexed);
    assert!(repository.marks().unwrap().is_empty());
    let plan = prune::plan(repository, &at_once(), &Progress::default()).unwrap();
    assert!(plan.remove.is_empty(), "{:?}", plan.remove);
    assert!(plan.repack.is_empty(), "{:?}", plan.repack);
}

/// restic, or `None` where it is not installed (`REQUIRE_SERVICES=1` makes that a failure).
pub(crate) fn restic(folder: &Path, arguments: &[&str]) -> Option<Output> {
    let output = Command::new("restic")
        .args(["--no-cache", "--repo"])
        .arg(folder)
        .args(arguments)
        .env("RESTIC_PASSWORD", PASSWORD)
        .env("GOMAXPROCS", "1")
        .output();
    match output {
        Ok(output) => Some(output),
        Err(error) if std::env::var_os("REQUIRE_SERVICES").is_none() => {
            eprintln!("skipped: restic: {error}");
            None
        }
        Err(error) => panic!("restic: {error}"),
    }
}

pub(crate) fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// `restic check --read-data` finds nothing.
pub(crate) fn restic_check(folder: &Path) {
    if let Some(output) = restic(folder, &["check", "--read-data", "--no-lock"]) {
        assert!(output.status.success(), "{}", text(&output));
    }
}

pub(crate) fn restic_check_objects(objects: &Objects) {
    let folder = tempfile::tempdir().unwrap();
    write_files(objects, folder.path());
    restic_check(folder.path());
}

/// A new repository in memory. The key is derived once and used for all of a test's disks.
pub(crate) fn new_repository() -> (Disk, Repository) {
    let disk = Disk::default();
    let repository = Repository::init(disk.store(), &secret(PASSWORD)).unwrap();
    (disk, repository)
}

/// Bytes of all packs.
pub(crate) fn data_bytes(repository: &Repository) -> u64 {
    repository.list(Folder::Data).unwrap().iter().map(|(_, meta)| meta.size_bytes).sum()
}

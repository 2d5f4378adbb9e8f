//! Tests of the verifier itself: each feeds it something whose answer is known.
//!
//! Every control works on a copy of the repository's folder (hard links; what is damaged is copied first) and goes the
//! way of a real recovery: open, find the snapshot, restore, compare. They are fast because they restore one small file,
//! or a tiny database of their own.

use super::address_of;
use super::copy::copy_repository;
use crate::backup::{self, ComponentBackup};
use crate::check::{self, Copy};
use crate::interrupt::Interrupt;
use crate::open::open_address;
use crate::recover::run_restore;
use crate::watch::{Note, Watch};
use retoma_core::drill::ControlResult;
use retoma_core::manifest::{Component, Manifest, Source};
use retoma_core::{Code, Error, Result, ResultExt, Secret, error::codes};
use retoma_repo::backup::Progress;
use retoma_repo::format::BlobKind;
use retoma_repo::format::tree::NodeKind;
use retoma_repo::ops::find::{self, Walk};
use retoma_repo::{BlobId, Folder, Repository, SnapshotId, restore};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// What controls work with.
#[derive(Debug)]
pub struct Bench<'a> {
    /// The repository's folder; it is copied, never changed.
    pub repository_dir: &'a Path,
    /// Opens it.
    pub password: &'a Secret<String>,
    /// The service's manifest.
    pub manifest: &'a Manifest,
    /// The snapshots that the drill recovered from, with their components' names.
    pub snapshots: &'a [(String, SnapshotId)],
    /// A folder for the copies; what is in it afterwards is of no use.
    pub scratch: &'a Path,
}

/// A file that controls restore, and where its contents lie.
#[derive(Debug)]
struct Sample {
    component: Component,
    snapshot: SnapshotId,
    /// Its path in the snapshot.
    path: Vec<u8>,
    /// One of its blobs.
    blob: BlobId,
    /// Every pack that holds the blob, with the blob's offset in it.
    packs: Vec<(String, u64, u64)>,
}

/// Runs all controls.
///
/// # Errors
/// A control could not be set up (not: it went wrong); `Cancelled`.
pub fn run(bench: &Bench<'_>, watch: &dyn Watch, interrupt: &Interrupt) -> Result<Vec<ControlResult>> {
    let sample = bench.sample().context("choose what the controls restore")?;
    let mut results = Vec::new();
    let mut add = |result: ControlResult| {
        watch.note(&Note::Control(result.clone()));
        results.push(result);
    };
    let untouched = bench.copy("untouched")?;
    let accepted = bench.recover(&untouched, bench.password, &sample, "untouched", interrupt);
    add(ControlResult::positive("untouched copy", code_of(&accepted), &detail(&accepted)));
    let damages: [(&str, Code, Damage); 3] = [
        ("flipped byte in a pack", codes::NOT_AUTHENTIC, flip_in_packs),
        ("missing pack", codes::PACK_MISSING, remove_packs),
        ("truncated snapshot", codes::HASH_MISMATCH, truncate_snapshot),
    ];
    for (at, (name, expected, damage)) in damages.into_iter().enumerate() {
        interrupt.check()?;
        let copy = bench.copy(&format!("damaged-{at}"))?;
        damage(&copy, &sample)?;
        let refused = bench.recover(&copy, bench.password, &sample, &format!("damaged-{at}"), interrupt);
        add(negative(name, expected, &refused));
    }
    let mut wrong = bench.password.expose().clone();
    wrong.push('x');
    let refused = bench.recover(&untouched, &Secret::new(wrong), &sample, "wrong-key", interrupt);
    add(negative("wrong key", codes::WRONG_KEY, &refused));
    add(negative("changed file", codes::CHECK_FAILED, &bench.changed_file(&untouched, &sample, interrupt)));
    let of_database = Database::set_up(bench)?;
    add(negative("empty database", codes::SOURCE_EMPTY, &of_database.emptied()));
    add(negative("database of zero bytes", codes::SOURCE_EMPTY, &of_database.zero_bytes()));
    add(negative("missing row", codes::CHECK_FAILED, &of_database.missing_row(interrupt)));
    interrupt.check()?;
    Ok(results)
}

type Damage = fn(&Path, &Sample) -> Result<()>;

fn code_of(outcome: &Result<()>) -> Option<&'static str> {
    outcome.as_ref().err().map(|error| error.code().as_str())
}

fn detail(outcome: &Result<()>) -> String {
    outcome.as_ref().map_or_else(ToString::to_string, |()| "accepted".to_owned())
}

fn negative(name: &str, expected: Code, outcome: &Result<()>) -> ControlResult {
    ControlResult::negative(name, expected.as_str(), code_of(outcome), &detail(outcome))
}

fn open(dir: &Path, password: &Secret<String>) -> Result<Repository> {
    Ok(open_address(&address_of(dir)?, password, false)?.repository)
}

impl Bench<'_> {
    fn copy(&self, name: &str) -> Result<PathBuf> {
        let copy = self.scratch.join(format!("repository-{name}"));
        copy_repository(self.repository_dir, &copy)?;
        Ok(copy)
    }

    /// The smallest file with contents in what the drill recovered.
    fn sample(&self) -> Result<Sample> {
        let repository = open(self.repository_dir, self.password)?;
        let index = repository.load_index()?;
        let mut smallest: Option<(u64, &Component, SnapshotId, Vec<u8>, BlobId)> = None;
        for (name, id) in self.snapshots {
            let Some(component) = self.manifest.component(name) else { continue };
            let snapshot = repository.snapshot(*id)?;
            let from = snapshot.paths.first().cloned().unwrap_or_default();
            let root = find::node(&repository, &index, &snapshot.tree, from.as_bytes())?;
            let below = root.subtree.map(|tree| Walk::new(&repository, &index, tree, from.as_bytes()));
            let itself = find::Entry { path: from.clone().into_bytes(), node: root };
            for entry in std::iter::once(Ok(itself)).chain(below.into_iter().flatten()) {
                let entry = entry?;
                let Some(blob) = entry.node.content.first().copied() else { continue };
                let bytes = entry.node.size_bytes;
                let is_smaller = smallest.as_ref().is_none_or(|(least, ..)| bytes < *least);
                if entry.node.kind == NodeKind::File && bytes > 0 && is_smaller {
                    smallest = Some((bytes, component, *id, entry.path, blob));
                }
            }
        }
        let (_, component, snapshot, path, blob) = smallest.ok_or_else(|| {
            Error::new(
                retoma_core::ErrorKind::Invalid,
                codes::NO_CONTROLS,
                "no component has a file with contents that the controls could restore",
            )
            .with_hint("a service whose data are all empty cannot be drilled")
        })?;
        let packs = index
            .all(BlobKind::Data, &blob)
            .map(|at| (at.pack.to_hex(), u64::from(at.blob.offset_bytes), u64::from(at.blob.length_bytes)));
        Ok(Sample { component: component.clone(), snapshot, path, blob, packs: packs.collect() })
    }

    /// The way of a recovery, for one file.
    fn recover(
        &self,
        dir: &Path,
        password: &Secret<String>,
        sample: &Sample,
        name: &str,
        interrupt: &Interrupt,
    ) -> Result<()> {
        let target = self.scratch.join(format!("restored-{name}"));
        restore_and_check(dir, password, sample, &target, interrupt, |_| Ok(()))
    }

    /// As [`Bench::recover`], with the restored file changed before it is checked.
    fn changed_file(&self, dir: &Path, sample: &Sample, interrupt: &Interrupt) -> Result<()> {
        let target = self.scratch.join("restored-changed");
        restore_and_check(dir, self.password, sample, &target, interrupt, |file| {
            let mut bytes = std::fs::read(file).map_err(|error| Error::io(file.display(), error))?;
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            replace(file, &bytes)
        })
    }
}

/// Open, find, restore, compare; `before_check` may change the restored file.
fn restore_and_check(
    dir: &Path,
    password: &Secret<String>,
    sample: &Sample,
    target: &Path,
    interrupt: &Interrupt,
    before_check: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    let repository = open(dir, password)?;
    // By its id alone a snapshot is never asked for in a recovery: all are read, to find the newest.
    let all = repository.snapshots()?;
    let found = all.iter().find(|(id, _)| *id == sample.snapshot);
    let (id, snapshot) = found.ok_or_else(|| Error::internal("the snapshot of a control is gone"))?;
    let index = repository.load_index()?;
    let options = restore::Options { strip: Some(sample.path.clone()), ..restore::Options::default() };
    run_restore(&repository, &index, snapshot.tree, &options, target, interrupt)?;
    let name = sample.path.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
    let place = target.join(std::ffi::OsStr::from_bytes(name));
    before_check(&place)?;
    let copy = Copy {
        repository: &repository,
        index: &index,
        snapshot: (*id, snapshot),
        path: &sample.path,
        place: &place,
    };
    let hashed = check::hashes::compare(&copy, interrupt)?;
    check::require_all(&sample.component.name, &[hashed.check])
}

/// Writes a new file instead of the old one: what is hard-linked elsewhere stays as it was.
fn replace(path: &Path, bytes: &[u8]) -> Result<()> {
    let write = || {
        std::fs::remove_file(path)?;
        std::fs::write(path, bytes)
    };
    write().map_err(|error| Error::io(path.display(), error))
}

fn pack_path(dir: &Path, pack: &str) -> PathBuf {
    dir.join("data").join(&pack[..2]).join(pack)
}

/// Flips one byte in the middle of the blob, in every pack that holds it.
fn flip_in_packs(dir: &Path, sample: &Sample) -> Result<()> {
    for (pack, offset, length) in &sample.packs {
        let path = pack_path(dir, pack);
        let mut bytes = std::fs::read(&path).map_err(|error| Error::io(path.display(), error))?;
        let at = usize::try_from(offset + length / 2).unwrap_or(usize::MAX);
        let byte = bytes.get_mut(at).ok_or_else(|| {
            Error::internal(format!("blob {} does not lie in its pack", sample.blob.short()))
        })?;
        *byte ^= 1;
        replace(&path, &bytes)?;
    }
    Ok(())
}

fn remove_packs(dir: &Path, sample: &Sample) -> Result<()> {
    for (pack, ..) in &sample.packs {
        let path = pack_path(dir, pack);
        std::fs::remove_file(&path).map_err(|error| Error::io(path.display(), error))?;
    }
    Ok(())
}

fn truncate_snapshot(dir: &Path, sample: &Sample) -> Result<()> {
    let path = dir.join(Folder::Snapshots.name()).join(sample.snapshot.to_hex());
    let bytes = std::fs::read(&path).map_err(|error| Error::io(path.display(), error))?;
    replace(&path, &bytes[..bytes.len() / 2])
}

/// A tiny database of our own, backed up once with rows in it.
struct Database<'a> {
    bench: &'a Bench<'a>,
    component: Component,
    path: PathBuf,
    repository: Repository,
    first: ComponentBackup,
}

impl<'a> Database<'a> {
    fn set_up(bench: &'a Bench<'a>) -> Result<Self> {
        let dir = bench.copy("database")?;
        let repository = open(&dir, bench.password)?;
        let path = bench.scratch.join("control.sqlite");
        execute(&path, "CREATE TABLE control (x); INSERT INTO control VALUES (1), (2), (3);")?;
        let any = bench.manifest.components.first();
        let any = any.ok_or_else(|| Error::internal("a manifest has no component"))?;
        let component = Component {
            name: "retoma-control".to_owned(),
            source: Source::Sqlite { path: path.clone(), may_be_empty: Vec::new() },
            checks: Vec::new(),
            ..any.clone()
        };
        let first = backup::backup(bench.manifest, &component, &repository, &Progress::default())?;
        Ok(Self { bench, component, path, repository, first })
    }

    /// No rows where there were three.
    fn emptied(&self) -> Result<()> {
        execute(&self.path, "DELETE FROM control;")?;
        self.backup()
    }

    fn zero_bytes(&self) -> Result<()> {
        replace(&self.path, b"")?;
        self.backup()
    }

    fn backup(&self) -> Result<()> {
        backup::backup(self.bench.manifest, &self.component, &self.repository, &Progress::default()).map(drop)
    }

    /// A row too few in the restored copy.
    fn missing_row(&self, interrupt: &Interrupt) -> Result<()> {
        let index = self.repository.load_index()?;
        let snapshot = self.repository.snapshot(self.first.snapshot())?;
        let from = self.path.as_os_str().as_bytes();
        let options = restore::Options { strip: Some(from.to_vec()), ..restore::Options::default() };
        let target = self.bench.scratch.join("restored-database");
        run_restore(&self.repository, &index, snapshot.tree, &options, &target, interrupt)?;
        let place = target.join("control.sqlite");
        execute(&place, "DELETE FROM control WHERE x = 2;")?;
        let copy = Copy {
            repository: &self.repository,
            index: &index,
            snapshot: (self.first.snapshot(), &snapshot),
            path: from,
            place: &place,
        };
        let mut checks = check::component(&copy, &self.component, interrupt)?.checks;
        // The file's bytes differ too; this control is about its rows.
        checks.retain(|check| !check.name.starts_with(check::hashes::NAME));
        check::require_all(&self.component.name, &checks)
    }
}

fn execute(path: &Path, sql: &str) -> Result<()> {
    let run = || rusqlite::Connection::open(path)?.execute_batch(sql);
    run().map_err(|error| Error::internal(format!("`{}`: {error}", path.display())).with_source(error))
}

//! Compares restored files, read again from disk, with the ids of the blobs that the snapshot names: SHA-256 of each
//! part. Memory: some hundred files' lists of ids.

use super::{Copy, ran};
use crate::interrupt::Interrupt;
use retoma_core::drill::CheckResult;
use retoma_core::units::counted;
use retoma_core::{Error, Result};
use retoma_repo::BlobId;
use retoma_repo::format::BlobKind;
use retoma_repo::format::tree::{Node, NodeKind};
use retoma_repo::ops::find::{self, Walk};
use std::ffi::OsStr;
use std::io::Read as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};

/// Files that wait to be read.
const FILES_WAITING: usize = 64;
/// Files that a result names.
const NAMED: usize = 3;
/// What the name of the check begins with.
pub const NAME: &str = "file hashes against snapshot";

/// What a comparison found.
#[derive(Debug)]
pub struct Hashed {
    /// The check.
    pub check: CheckResult,
    /// Files that were compared.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

struct Job {
    path: PathBuf,
    content: Vec<BlobId>,
}

#[derive(Default)]
struct Found {
    files: u64,
    bytes: u64,
    differing: Vec<String>,
    failed: Option<Error>,
}

/// Compares every file of the copy, on all cores.
///
/// # Errors
/// The snapshot can't be read; `Cancelled`. Files that are missing or can't be read count as different.
pub fn compare(copy: &Copy<'_>, interrupt: &Interrupt) -> Result<Hashed> {
    let workers = std::thread::available_parallelism().map_or(2, Into::into);
    let (sender, receiver) = sync_channel::<Job>(FILES_WAITING);
    let (receiver, found) = (Mutex::new(receiver), Mutex::new(Found::default()));
    let listed = std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| work(copy, &receiver, &found, interrupt));
        }
        let listed = list(copy, &sender);
        // The workers end when nothing more can come.
        drop(sender);
        listed
    });
    listed?;
    interrupt.check()?;
    let found = found.into_inner().unwrap_or_else(PoisonError::into_inner);
    if let Some(error) = found.failed {
        return Err(error);
    }
    let snapshot = copy.snapshot.0.short();
    let differing = found.differing.len();
    let expected = format!("{} as in the snapshot", counted(found.files, "file", "files"));
    let shown = if differing == 0 {
        expected.clone()
    } else {
        let named: Vec<String> = found.differing.into_iter().take(NAMED).collect();
        format!("{differing} of {} differ: {}", counted(found.files, "file", "files"), named.join(", "))
    };
    let name = format!("{NAME} {snapshot}");
    Ok(Hashed {
        check: ran(&name, differing == 0, &expected, &shown),
        files: found.files,
        bytes: found.bytes,
    })
}

/// Sends every regular file at and below the component's path.
fn list(copy: &Copy<'_>, jobs: &SyncSender<Job>) -> Result<()> {
    let node = find::node(copy.repository, copy.index, &copy.snapshot.1.tree, copy.path)?;
    let send = |path: PathBuf, node: Node| {
        // Nobody receives any more when all workers have ended.
        if node.kind == NodeKind::File {
            jobs.send(Job { path, content: node.content }).is_ok()
        } else {
            true
        }
    };
    let Some(tree) = node.subtree else {
        send(copy.place.to_owned(), node);
        return Ok(());
    };
    for entry in Walk::new(copy.repository, copy.index, tree, b"") {
        let entry = entry?;
        let below = OsStr::from_bytes(entry.path.strip_prefix(b"/").unwrap_or(&entry.path)).to_owned();
        if !send(copy.place.join(below), entry.node) {
            break;
        }
    }
    Ok(())
}

fn work(copy: &Copy<'_>, jobs: &Mutex<Receiver<Job>>, found: &Mutex<Found>, interrupt: &Interrupt) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // Whoever lists waits for room in the queue: after a stop it is emptied without work.
        if interrupt.is_set() {
            continue;
        }
        let compared = differs(&job, copy);
        let mut found = found.lock().unwrap_or_else(PoisonError::into_inner);
        match compared {
            Ok(bytes) => {
                found.files += 1;
                found.bytes += bytes;
            }
            Err(Difference::File) => {
                found.files += 1;
                found.differing.push(format!("`{}`", job.path.display()));
            }
            Err(Difference::Index(error)) => found.failed = Some(error),
        }
    }
}

enum Difference {
    /// The file is missing, unreadable, shorter, longer, or has other bytes.
    File,
    /// The index does not know a blob.
    Index(Error),
}

/// The one comparison of contents: the file's bytes, part by part, against the ids. Gives its size.
fn differs(job: &Job, copy: &Copy<'_>) -> Result<u64, Difference> {
    let mut file = std::fs::File::open(&job.path).map_err(|_| Difference::File)?;
    let mut buffer = Vec::new();
    let mut bytes = 0;
    for id in &job.content {
        let length = copy.repository.plaintext_bytes(copy.index, BlobKind::Data, id).ok_or_else(|| {
            Difference::Index(Error::internal(format!("blob {id} was restored and is in no index")))
        })?;
        buffer.resize(usize::try_from(length).map_err(|_| Difference::File)?, 0);
        file.read_exact(&mut buffer).map_err(|_| Difference::File)?;
        if BlobId::of(&buffer) != *id {
            return Err(Difference::File);
        }
        bytes += length;
    }
    match file.read(&mut [0]) {
        Ok(0) => Ok(bytes),
        _ => Err(Difference::File),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use retoma_core::Secret;
    use retoma_core::drill::CheckOutcome;
    use retoma_repo::Repository;
    use retoma_repo::backup::{self, Progress};
    use retoma_repo::store::{BlockingStore, ObjectStore};
    use retoma_sources::files::{Excludes, FilesSource};

    #[test]
    fn each_difference_of_a_file_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("a");
        std::fs::write(&file, "first").unwrap();
        std::fs::write(folder.path().join("b"), "second").unwrap();
        let store = BlockingStore::new(std::sync::Arc::new(ObjectStore::memory())).unwrap();
        let repository = Repository::init(store, &Secret::new("a test".to_owned())).unwrap();
        let mut source = FilesSource::new(folder.path(), Excludes::default()).unwrap();
        let options = backup::Options::default();
        let done = backup::backup(&repository, &mut source, &options, &Progress::default()).unwrap();
        let snapshot = repository.snapshot(done.snapshot).unwrap();
        let index = repository.load_index().unwrap();
        let copy = Copy {
            repository: &repository,
            index: &index,
            snapshot: (done.snapshot, &snapshot),
            path: folder.path().as_os_str().as_bytes(),
            place: folder.path(),
        };
        let check = || compare(&copy, &Interrupt::default()).unwrap().check;
        assert_eq!(check().outcome, CheckOutcome::Passed);
        for other in ["firsT", "firs", "first ", ""] {
            std::fs::write(&file, other).unwrap();
            let check = check();
            let found = format!("1 of 2 files differ: `{}`", file.display());
            assert_eq!((check.outcome, check.found), (CheckOutcome::Failed, Some(found)), "{other:?}");
        }
        std::fs::remove_file(&file).unwrap();
        assert_eq!(check().outcome, CheckOutcome::Failed);
    }
}

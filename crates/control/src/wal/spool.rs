//! What was done ahead: acknowledgements of segments that are stored, and segments that were fetched.
//!
//! ```text
//! <folder>/lock               held by the one process that works ahead
//! <folder>/stored/<segment>   this file in `pg_wal` is durable in every repository
//! <folder>/fetched/<segment>.<crc>
//! ```
//!
//! Nothing here has to last: what is missing, damaged or foreign costs time only, so nothing is synced. A fetched segment is
//! compared with its checksum when it is handed out. An acknowledgement is written *after* the stores have the segment, and holds for
//! the very file that was read: device, inode, size, times of modification and change.

use crate::durable::{self, Unnamed};
use retoma_core::postgres::{SegmentHeader, SegmentName};
use retoma_core::{Error, Result};
use rustix::fs::FlockOperation;
use std::collections::BTreeSet;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

/// What a file in `pg_wal` was when it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileId {
    device: u64,
    inode: u64,
    size_bytes: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileId {
    /// Of an open file.
    ///
    /// # Errors
    /// What the system says.
    pub fn of(file: &File) -> io::Result<Self> {
        Ok(Self::from(&file.metadata()?))
    }

    /// The size in bytes.
    pub fn size_bytes(self) -> u64 {
        self.size_bytes
    }

    fn line(self) -> String {
        let Self { device, inode, size_bytes, modified, changed } = self;
        let text = format!(
            "stored {device} {inode} {size_bytes} {}.{} {}.{}",
            modified.0, modified.1, changed.0, changed.1
        );
        format!("{text} {:08x}\n", crc32c::crc32c(text.as_bytes()))
    }
}

impl From<&std::fs::Metadata> for FileId {
    fn from(metadata: &std::fs::Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size_bytes: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// The right to work ahead; given back when dropped, or when the process dies.
#[derive(Debug)]
pub struct Ahead {
    _lock: File,
}

/// The spool of one server and one set of repositories.
#[derive(Debug, Clone)]
pub struct Spool {
    folder: PathBuf,
    system_identifier: u64,
}

const STORED: &str = "stored";
const FETCHED: &str = "fetched";
/// Bytes that are read at a time: the system clears every page that a larger buffer takes.
const READ_BYTES: usize = 256 << 10;

impl Spool {
    /// The spool in `folder`, which is made if need be. `None` when that is impossible, or when somebody else could have
    /// written there.
    pub fn open(folder: &Path, system_identifier: u64) -> Option<Self> {
        for name in [STORED, FETCHED] {
            DirBuilder::new().recursive(true).mode(0o700).create(folder.join(name)).ok()?;
        }
        let own = rustix::process::geteuid().as_raw();
        let is_ours = |folder: &Path| {
            let metadata = folder.symlink_metadata();
            metadata.is_ok_and(|found| found.is_dir() && found.uid() == own && found.mode() & 0o022 == 0)
        };
        let all_ours = is_ours(folder) && [STORED, FETCHED].iter().all(|name| is_ours(&folder.join(name)));
        all_ours.then(|| Self { folder: folder.to_owned(), system_identifier })
    }

    /// The right to work ahead; `None` while another process has it.
    pub fn try_ahead(&self) -> Option<Ahead> {
        let mut options = OpenOptions::new();
        let lock =
            options.create(true).truncate(false).write(true).mode(0o600).open(self.folder.join("lock"));
        let lock = lock.ok()?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive).ok()?;
        Some(Ahead { _lock: lock })
    }

    /// Notes that a file is durable in every repository. Only for who has the right to work ahead.
    ///
    /// # Errors
    /// What the file system says; then there is none.
    pub fn acknowledge(&self, _right: &Ahead, name: SegmentName, file: FileId) -> Result<()> {
        let path = self.stored(name);
        durable::write_unsynced(&path, file.line().as_bytes(), durable::PRIVATE)
    }

    /// Whether this very file was acknowledged.
    pub fn is_acknowledged(&self, name: SegmentName, file: FileId) -> bool {
        std::fs::read(self.stored(name)).is_ok_and(|line| line == file.line().as_bytes())
    }

    /// Removes an acknowledgement that was used.
    pub fn forget(&self, name: SegmentName) {
        std::fs::remove_file(self.stored(name)).ok();
    }

    /// Removes all acknowledgements but these, and what killed processes left.
    pub fn keep_acknowledgements(&self, _right: &Ahead, names: &BTreeSet<SegmentName>) {
        sweep(&self.folder.join(STORED), |name| name.parse().is_ok_and(|name| names.contains(&name)));
    }

    /// Keeps a segment that `fetch` gives in parts, in their order, verified; `false` when it gives none. Only for who has the right to work
    /// ahead.
    ///
    /// # Errors
    /// What the file system and `fetch` say; then it is not kept.
    pub fn put(
        &self,
        _right: &Ahead,
        name: SegmentName,
        fetch: impl FnOnce(&(dyn Fn(u64, &[u8]) -> Result<()> + Sync)) -> Result<Option<u64>>,
    ) -> Result<bool> {
        let folder = self.folder.join(FETCHED);
        let failed = |error| Error::io(folder.display(), error);
        let unnamed = Unnamed::create(&folder.join(name.to_string()), durable::PRIVATE).map_err(failed)?;
        let state = Mutex::new((0u64, 0u32));
        let take = |at: u64, part: &[u8]| {
            let mut state = state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.0 != at {
                return Err(Error::internal(format!("a part of `{name}` is out of order")));
            }
            *state = (at + part.len() as u64, crc32c::crc32c_append(state.1, part));
            (&unnamed.file).write_all(part).map_err(failed)
        };
        if fetch(&take)?.is_none() {
            return Ok(false);
        }
        let (_, crc) = *state.lock().unwrap_or_else(PoisonError::into_inner);
        unnamed.name(&folder.join(format!("{name}.{crc:08x}"))).map_err(failed)?;
        Ok(true)
    }

    /// Whether there is a file for this segment.
    pub fn has(&self, name: SegmentName) -> bool {
        self.find(name).is_some()
    }

    /// Moves a segment that was fetched ahead to `target`, not synced. `false` when it is not there or not what it should be; then it
    /// is removed.
    ///
    /// # Errors
    /// What the file system says about `target`.
    pub fn take(&self, name: SegmentName, target: &Path) -> Result<bool> {
        let Some((path, crc)) = self.find(name) else { return Ok(false) };
        if !self.is_sound(&path, crc, name) {
            std::fs::remove_file(&path).ok();
            return Ok(false);
        }
        match std::fs::rename(&path, target) {
            Ok(()) => {}
            // Another file system.
            Err(error) if error.kind() == io::ErrorKind::CrossesDevices => {
                let bytes = std::fs::read(&path).map_err(|error| Error::io(path.display(), error))?;
                durable::write_unsynced(target, &bytes, durable::PRIVATE)?;
                std::fs::remove_file(&path).ok();
            }
            Err(error) => return Err(Error::io(target.display(), error)),
        }
        Ok(true)
    }

    /// Whether a file is the segment, and what was put there.
    fn is_sound(&self, path: &Path, crc: u32, name: SegmentName) -> bool {
        let check = || {
            let file =
                path.symlink_metadata().ok().filter(std::fs::Metadata::is_file).and(File::open(path).ok())?;
            let (mut buffer, mut length, mut found) = (vec![0; READ_BYTES], 0u64, 0);
            let mut beginning = Vec::new();
            loop {
                let count = (&file).read(&mut buffer).ok()?;
                if count == 0 {
                    break;
                }
                if beginning.len() < SegmentHeader::BYTES {
                    beginning.extend_from_slice(&buffer[..count]);
                }
                found = crc32c::crc32c_append(found, &buffer[..count]);
                length += count as u64;
            }
            let fits = SegmentHeader::check_itself(&beginning, length, name, self.system_identifier).is_ok();
            Some(fits && found == crc)
        };
        check().unwrap_or_default()
    }

    /// Removes all fetched segments but these, and what killed processes left.
    pub fn keep(&self, _right: &Ahead, names: &BTreeSet<SegmentName>) {
        let keep = |name: &str| {
            name.split_once('.').is_some_and(|(name, _)| name.parse().is_ok_and(|n| names.contains(&n)))
        };
        sweep(&self.folder.join(FETCHED), keep);
    }

    fn find(&self, name: SegmentName) -> Option<(PathBuf, u32)> {
        let beginning = format!("{name}.");
        let entries = std::fs::read_dir(self.folder.join(FETCHED)).ok()?;
        entries.flatten().find_map(|entry| {
            let found = entry.file_name();
            let digits = found.to_str()?.strip_prefix(&beginning)?;
            Some((entry.path(), u32::from_str_radix(digits, 16).ok()?))
        })
    }

    fn stored(&self, name: SegmentName) -> PathBuf {
        self.folder.join(STORED).join(name.to_string())
    }
}

/// Removes the files of a folder that are not to be kept.
fn sweep(folder: &Path, keep: impl Fn(&str) -> bool) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        if !entry.file_name().to_str().is_some_and(&keep) {
            std::fs::remove_file(entry.path()).ok();
        }
    }
}

#[cfg(test)]
mod tests;

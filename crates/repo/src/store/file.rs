//! The system calls behind a durable put, in the order in which they have to come.
//!
//! A file gets its contents under a temporary name, is fsynced, and is then given its name in one atomic step. The
//! folder is fsynced after that: without it the name, not the contents, would be lost with the power.

use rustix::fs::{AtFlags, CWD, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

/// The first character of temporary names. No `Key` has it, so such a file is never taken for an object.
pub(super) const TEMPORARY_MARK: char = '#';

/// A file with its contents on disk and no final name; removed when dropped.
#[derive(Debug)]
pub(super) struct Temporary {
    path: PathBuf,
    published: bool,
}

impl Temporary {
    /// Writes `data` to a new file in `folder` that only its owner may read, and fsyncs it.
    pub(super) fn write_durably(folder: &Path, data: &[u8]) -> io::Result<Self> {
        let (temporary, mut file) = Self::create(folder)?;
        file.write_all(data)?;
        file.sync_all()?;
        Ok(temporary)
    }

    /// The same without the sync, for what can be had again.
    pub(super) fn write(folder: &Path, data: &[u8]) -> io::Result<Self> {
        let (temporary, mut file) = Self::create(folder)?;
        file.write_all(data)?;
        Ok(temporary)
    }

    /// The name is random, since another host may write to the same folder.
    fn create(folder: &Path) -> io::Result<(Self, File)> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        loop {
            let number = getrandom::u64().map_err(|error| io::Error::other(error.to_string()))?;
            let path = folder.join(format!("{TEMPORARY_MARK}{number:016x}"));
            match rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR) {
                Ok(descriptor) => return Ok((Self { path, published: false }, File::from(descriptor))),
                Err(Errno::EXIST) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Gives the file its name, replacing what has it. Readers see the old or the new contents, never none.
    pub(super) fn replace(mut self, path: &Path) -> io::Result<()> {
        std::fs::rename(&self.path, path)?;
        self.published = true;
        Ok(())
    }

    /// Gives the file its name if that is free; `AlreadyExists` otherwise. Of two callers one wins.
    pub(super) fn publish_new(mut self, path: &Path) -> io::Result<()> {
        match rustix::fs::renameat_with(CWD, &self.path, CWD, path, RenameFlags::NOREPLACE) {
            Ok(()) => {
                self.published = true;
                Ok(())
            }
            // NFS and older file systems can't rename without replacing; a hard link never replaces either. The
            // temporary name goes when `self` is dropped.
            Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {
                Ok(rustix::fs::linkat(CWD, &self.path, CWD, path, AtFlags::empty())?)
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        if !self.published {
            // What can't be removed now is a leftover, which `remove_leftovers` takes later.
            std::fs::remove_file(&self.path).ok();
        }
    }
}

/// Makes the names in `folder` durable.
///
/// Some network and FUSE file systems can't sync a folder and say so; there is no more that can be done there.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    match rustix::fs::fsync(File::open(folder)?) {
        Ok(()) | Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes `folder` (mode 0700) if it is missing; its parent must exist.
pub(super) fn make_folder(folder: &Path) -> io::Result<()> {
    match rustix::fs::mkdir(folder, Mode::RWXU) {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Makes `folder` (mode 0700) and its missing parents, without making their names durable.
pub(super) fn make_folders(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Every file below `folder` with its metadata, without following links; what vanishes meanwhile is left out.
pub(super) fn all_files(folder: &Path) -> io::Result<Vec<(PathBuf, std::fs::Metadata)>> {
    let mut found = Vec::new();
    let mut waiting = vec![folder.to_owned()];
    while let Some(folder) = waiting.pop() {
        let entries = match std::fs::read_dir(&folder) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            entries => entries?,
        };
        for entry in entries {
            let entry = entry?;
            match entry.metadata() {
                Ok(metadata) if metadata.is_dir() => waiting.push(entry.path()),
                Ok(metadata) => found.push((entry.path(), metadata)),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(found)
}

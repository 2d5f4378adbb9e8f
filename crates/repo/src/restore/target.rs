//! The folder that is restored into: everything goes through descriptors, one name at a time, and no link is followed.
//!
//! A path is never handed to the system. Each directory is opened in the one around it with `O_NOFOLLOW`, files are made
//! in it with `O_EXCL`, and names are single parts (checked again here). So neither a name nor a symbolic link — from
//! the snapshot, left in the target, or put there while the restore runs — leads outside; this is what `openat2` with
//! `RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS` gives, on every kernel. What is not protected: somebody who may write to the
//! target can move a directory elsewhere while we work in it, and we go on in it there.

use super::layout::{Layout, ROOT};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use rustix::io::{Errno, Result};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The folder that is restored into.
#[derive(Debug)]
pub(super) struct Target {
    root: Arc<OwnedFd>,
    path: PathBuf,
    /// Whether [`Target::create`] made it.
    pub(super) created: bool,
}

const FOLDER: OFlags = OFlags::DIRECTORY.union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

impl Target {
    /// Opens a folder that exists. Here, and only here, links are followed: the path is the user's.
    pub(super) fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let root = rustix::fs::open(path, flags, Mode::empty())?;
        Ok(Self { root: Arc::new(root), path: path.to_owned(), created: false })
    }

    /// Opens the folder; makes it, and its parents, where it is missing.
    pub(super) fn create(path: &Path) -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt as _;
        match Self::open(path) {
            Err(Errno::NOENT) => {}
            opened => return Ok(opened?),
        }
        if let Some(parent) = path.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::DirBuilder::new().mode(0o700).create(path)?;
        Ok(Self { created: true, ..Self::open(path)? })
    }

    pub(super) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// An entry's path as shown to people.
    pub(super) fn shown(&self, below: &[u8]) -> Vec<u8> {
        use std::os::unix::ffi::OsStrExt as _;
        let mut path = self.path.as_os_str().as_bytes().to_vec();
        if !below.is_empty() {
            path.push(b'/');
            path.extend_from_slice(below);
        }
        path
    }
}

/// A name is one part of a path. The tree's parser made sure; nothing is trusted here.
fn checked(name: &[u8]) -> Result<&[u8]> {
    if matches!(name, b"" | b"." | b"..") || name.contains(&b'/') || name.contains(&0) {
        return Err(Errno::INVAL);
    }
    Ok(name)
}

/// The directories of a layout, each opened when it is needed. One for each thread.
#[derive(Debug)]
pub(super) struct Directories<'a> {
    layout: &'a Layout,
    root: Arc<OwnedFd>,
    open: HashMap<u32, Arc<OwnedFd>>,
}

/// So many descriptors of directories are kept by each thread.
const KEPT: usize = 64;

impl std::fmt::Debug for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Layout").field("entries", &self.len()).finish_non_exhaustive()
    }
}

impl<'a> Directories<'a> {
    pub(super) fn new(layout: &'a Layout, target: &Target) -> Self {
        Self { layout, root: Arc::clone(&target.root), open: HashMap::new() }
    }

    /// A directory's descriptor, good for `*at` calls only.
    pub(super) fn get(&mut self, number: u32) -> Result<Arc<OwnedFd>> {
        let (mut missing, mut at) = (Vec::new(), number);
        let mut descriptor = loop {
            if at == ROOT {
                break Arc::clone(&self.root);
            }
            match self.open.get(&at) {
                Some(known) => break Arc::clone(known),
                None => missing.push(at),
            }
            at = self.layout.get(at).parent;
        };
        while let Some(next) = missing.pop() {
            descriptor = Arc::new(open_directory(&*descriptor, self.layout.name(next))?);
            if self.open.len() >= KEPT {
                self.open.clear();
            }
            self.open.insert(next, Arc::clone(&descriptor));
        }
        Ok(descriptor)
    }

    /// The descriptor of the directory that an entry lies in.
    pub(super) fn around(&mut self, number: u32) -> Result<Arc<OwnedFd>> {
        self.get(self.layout.get(number).parent)
    }
}

/// Opens a directory, for `*at` calls only: this needs no permission to list it.
pub(super) fn open_directory(at: impl AsFd, name: &[u8]) -> Result<OwnedFd> {
    rustix::fs::openat(at, checked(name)?, OFlags::PATH | FOLDER, Mode::empty())
}

/// Opens whatever has this name, for its metadata only.
pub(super) fn open_any(at: impl AsFd, name: &[u8]) -> Result<OwnedFd> {
    rustix::fs::openat(at, checked(name)?, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())
}

/// Opens a file that exists for reading and writing; `LOOP` for a link, `INVAL` for what is no regular file.
pub(super) fn open_file(at: impl AsFd, name: &[u8]) -> Result<(OwnedFd, Stat)> {
    let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC | OFlags::NOCTTY;
    let file = rustix::fs::openat(at, checked(name)?, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&file)?;
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
        return Err(Errno::INVAL);
    }
    Ok((file, stat))
}

/// Makes a file that only its owner may read. Whatever has its name goes.
pub(super) fn create_file(at: impl AsFd, name: &[u8], clear: Clear) -> Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    replacing(at.as_fd(), name, clear, |at, name| {
        rustix::fs::openat(at, name, flags, Mode::RUSR | Mode::WUSR)
    })
}

/// What to do about a directory with something in it that is in the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Clear {
    /// Leave it: `NOTEMPTY`.
    Empty,
    /// Remove it.
    Everything,
}

/// Makes something new under `name`; what has the name already is removed first.
pub(super) fn replacing<T>(
    at: rustix::fd::BorrowedFd<'_>,
    name: &[u8],
    clear: Clear,
    make: impl Fn(rustix::fd::BorrowedFd<'_>, &[u8]) -> Result<T>,
) -> Result<T> {
    let name = checked(name)?;
    match make(at, name) {
        Err(Errno::EXIST) => {
            remove(at, name, clear)?;
            make(at, name)
        }
        made => made,
    }
}

/// Removes `name`, whatever it is. A directory goes with its contents only if `clear` says so.
pub(super) fn remove(at: impl AsFd, name: &[u8], clear: Clear) -> Result<()> {
    let (at, name) = (at.as_fd(), checked(name)?);
    match rustix::fs::unlinkat(at, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR | Errno::PERM) => {}
        Err(error) => return Err(error),
    }
    match clear {
        Clear::Empty => rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR),
        Clear::Everything => {
            let device = rustix::fs::statat(at, name, AtFlags::SYMLINK_NOFOLLOW)?.st_dev;
            remove_folder(at, name, device, DEEPEST)
        }
    }
}

/// Folders within folders that are removed; each level holds a descriptor.
const DEEPEST: usize = 200;

/// Removes a directory with its contents; what is mounted in it stays, with `XDEV`.
fn remove_folder(at: rustix::fd::BorrowedFd<'_>, name: &[u8], device: u64, deepest: usize) -> Result<()> {
    let Some(deepest) = deepest.checked_sub(1) else { return Err(Errno::NAMETOOLONG) };
    let folder = rustix::fs::openat(at, name, OFlags::RDONLY | FOLDER, Mode::empty())?;
    if rustix::fs::fstat(&folder)?.st_dev != device {
        return Err(Errno::XDEV);
    }
    for inner in names(&folder)? {
        match rustix::fs::unlinkat(&folder, inner.as_slice(), AtFlags::empty()) {
            Err(Errno::ISDIR | Errno::PERM) => remove_folder(folder.as_fd(), &inner, device, deepest)?,
            Ok(()) | Err(Errno::NOENT) => {}
            Err(error) => return Err(error),
        }
    }
    rustix::fs::unlinkat(at, name, AtFlags::REMOVEDIR)
}

/// The names in a directory that is open for reading.
pub(super) fn names(folder: &OwnedFd) -> Result<Vec<Vec<u8>>> {
    let mut names = Vec::new();
    for entry in rustix::fs::Dir::read_from(folder)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}

/// The names in the directory `below` of the target; `None` where it isn't there, or is no directory.
pub(super) fn names_below(directory: &OwnedFd) -> Result<Vec<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    names(&rustix::fs::openat(directory, ".", flags, Mode::empty())?)
}

/// The path through which the system reaches an open descriptor: for calls that take no `O_PATH` descriptor.
pub(super) fn proc_path(descriptor: impl AsFd) -> Vec<u8> {
    format!("/proc/self/fd/{}", descriptor.as_fd().as_raw_fd()).into_bytes()
}

/// What a name is, without following it.
pub(super) fn stat(at: impl AsFd, name: &[u8]) -> Result<Stat> {
    rustix::fs::statat(at, checked(name)?, AtFlags::SYMLINK_NOFOLLOW)
}

/// Writes all of `data` at `offset`.
pub(super) fn write_all(file: impl AsFd, mut data: &[u8], mut offset: u64) -> Result<()> {
    while !data.is_empty() {
        match rustix::io::pwrite(&file, data, offset) {
            Ok(0) => return Err(Errno::IO),
            Ok(count) => (data, offset) = (&data[count..], offset + count as u64),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

//! Walking a folder, sorted by name, without following links.

use super::exclude::Excludes;
use super::node::{self, Owners, unreadable};
use super::read::PathContent;
use jiff::Timestamp;
use retoma_core::{Error, Result};
use retoma_repo::backup::{Event, Moments, Source};
use retoma_repo::format::tree::{Node, NodeKind};
use rustix::fs::{AtFlags, CWD, Dir, Mode, OFlags};
use rustix::io::Errno;
use std::collections::VecDeque;
use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// A folder or file of the file system as a source.
#[derive(Debug)]
pub struct FilesSource {
    root: PathBuf,
    excludes: Excludes,
    owners: Owners,
    /// Steps to give before the walk goes on.
    pending: VecDeque<Event>,
    stack: Vec<Frame>,
    /// Directories above the root that are still to be left.
    above: usize,
    /// When the walk began: nothing was looked at before.
    started: Option<Timestamp>,
}

#[derive(Debug)]
struct Frame {
    folder: OwnedFd,
    path: PathBuf,
    /// Names still to visit, the next one last.
    names: Vec<CString>,
}

impl FilesSource {
    /// Reads `root`, an absolute path without `.` and `..`.
    ///
    /// # Errors
    /// `Invalid` for another path; `NotFound` and others when the root can't be read at all.
    pub fn new(root: &Path, excludes: Excludes) -> Result<Self> {
        let root = node::absolute(root)?;
        rustix::fs::lstat(&root).map_err(|error| unreadable(&root, error))?;
        Ok(Self {
            root,
            excludes,
            owners: Owners::read(),
            pending: VecDeque::new(),
            stack: Vec::new(),
            above: 0,
            started: None,
        })
    }

    /// Enters the folders above the root, then the root.
    fn start(&mut self) -> Result<()> {
        self.started = Some(Timestamp::now());
        let root = self.root.clone();
        let mut path = PathBuf::from("/");
        let mut parts = root.components().skip(1).peekable();
        if parts.peek().is_none() {
            self.enter_folder(None, path, None);
            return Ok(());
        }
        while let Some(part) = parts.next() {
            path.push(part);
            if parts.peek().is_some() {
                let node = node::folder_above(&path, &mut self.owners)?;
                self.above += 1;
                self.pending.push_back(Event::Enter(Box::new(node)));
                continue;
            }
            let stat = rustix::fs::lstat(&path).map_err(|error| unreadable(&path, error))?;
            let node = node::from_stat(part.as_os_str().as_bytes(), &stat, &mut self.owners);
            if node.kind == NodeKind::Directory {
                self.enter_folder(None, path.clone(), Some(node));
            } else {
                self.pending
                    .push_back(Event::Entry(Box::new(node), Box::new(PathContent::new(path.clone()))));
            }
        }
        Ok(())
    }

    /// Lists a folder and pushes it. One that can't be listed stays in the snapshot, empty, and is named.
    fn enter_folder(&mut self, name: Option<&CStr>, path: PathBuf, node: Option<Node>) {
        let entered = node.is_some();
        if let Some(mut node) = node {
            match node::xattrs(&path) {
                Ok(xattrs) => node.xattrs = xattrs,
                Err(error) => self.note(&path, error),
            }
            self.pending.push_back(Event::Enter(Box::new(node)));
        }
        let outer = self.stack.last().map(|frame| &frame.folder);
        match list(outer, name, &path) {
            Ok((folder, names)) => self.stack.push(Frame { folder, path, names }),
            Err(error) => {
                self.note(&path, error);
                if entered {
                    self.pending.push_back(Event::Leave);
                }
            }
        }
    }

    fn note(&mut self, path: &Path, error: Error) {
        self.pending.push_back(Event::Unreadable(path.as_os_str().as_bytes().to_vec(), error));
    }

    /// Visits the next name of the innermost folder; what it gives may also wait in `pending`.
    fn step(&mut self) -> Option<Event> {
        let Some(frame) = self.stack.last_mut() else {
            self.above = self.above.checked_sub(1)?;
            return Some(Event::Leave);
        };
        let Some(name) = frame.names.pop() else {
            let at_filesystem_root = frame.path == Path::new("/");
            self.stack.pop();
            return (!at_filesystem_root).then_some(Event::Leave);
        };
        let path = frame.path.join(std::ffi::OsStr::from_bytes(name.to_bytes()));
        if self.excludes.fits(path.strip_prefix(&self.root).unwrap_or(&path)) {
            return None;
        }
        let stat = match rustix::fs::statat(&frame.folder, &name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(error) => {
                let error = unreadable(&path, error);
                self.note(&path, error);
                return None;
            }
        };
        let node = node::from_stat(name.to_bytes(), &stat, &mut self.owners);
        if node.kind == NodeKind::Directory {
            self.enter_folder(Some(&name), path, Some(node));
            return None;
        }
        Some(Event::Entry(Box::new(node), Box::new(PathContent::new(path))))
    }
}

impl Source for FilesSource {
    fn next(&mut self) -> Result<Option<Event>> {
        if self.started.is_none() {
            self.start()?;
        }
        loop {
            if let Some(event) = self.pending.pop_front() {
                return Ok(Some(event));
            }
            let done = self.stack.is_empty() && self.above == 0;
            if let Some(event) = self.step() {
                return Ok(Some(event));
            }
            if done {
                return Ok(None);
            }
        }
    }

    /// Files are read one after the other: the last one may have been written when the first was read.
    fn moments(&self) -> Option<Moments> {
        // A clock that was put back meanwhile.
        self.started.map(|earliest| Moments { earliest, latest: Timestamp::now().max(earliest) })
    }
}

/// Opens a folder and gives its names, the first one last.
fn list(outer: Option<&OwnedFd>, name: Option<&CStr>, path: &Path) -> Result<(OwnedFd, Vec<CString>)> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |flags| match (outer, name) {
        (Some(outer), Some(name)) => rustix::fs::openat(outer, name, flags, Mode::empty()),
        _ => rustix::fs::openat(CWD, path, flags, Mode::empty()),
    };
    let opened = match open(flags | OFlags::NOATIME) {
        Err(Errno::PERM) => open(flags),
        other => other,
    };
    let folder = opened.map_err(|error| unreadable(path, error))?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&folder).map_err(|error| unreadable(path, error))? {
        let entry = entry.map_err(|error| unreadable(path, error))?;
        if !matches!(entry.file_name().to_bytes(), b"." | b"..") {
            names.push(entry.file_name().to_owned());
        }
    }
    names.sort_unstable_by(|a, b| b.cmp(a));
    Ok((folder, names))
}

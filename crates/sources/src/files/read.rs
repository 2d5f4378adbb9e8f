//! Reading one entry: its attributes and its contents, and whether they are of one moment.

use super::node::{self, unreadable};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::backup::{Content, Found, Reader};
use retoma_repo::format::tree::{Node, NodeKind};
use rustix::fs::{Mode, OFlags, SeekFrom, Stat};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

/// An entry that a worker looks at.
#[derive(Debug)]
pub(crate) struct PathContent {
    path: PathBuf,
    open: Option<(OwnedFd, Stat)>,
}

impl PathContent {
    pub(crate) fn new(path: PathBuf) -> Self {
        Self { path, open: None }
    }
}

impl Content for PathContent {
    fn describe(&mut self, node: &mut Node) -> Result<Found> {
        match node.kind {
            NodeKind::File => {
                let file = open(&self.path)?;
                let stat = rustix::fs::fstat(&file).map_err(|error| unreadable(&self.path, error))?;
                if rustix::fs::FileType::from_raw_mode(stat.st_mode) != rustix::fs::FileType::RegularFile {
                    return Err(changed(&self.path, "is no longer a file"));
                }
                // What counts is what was opened: the name may have got another file since it was listed.
                node::update(node, &stat);
                self.open = Some((file, stat));
            }
            NodeKind::Symlink => node.link_target = Some(node::link_target(&self.path)?),
            _ => {}
        }
        node.xattrs = node::xattrs(&self.path)?;
        Ok(Found::There)
    }

    fn open(&mut self) -> Result<Box<dyn Reader>> {
        let open = self.open.take();
        let (file, stat) = open.ok_or_else(|| Error::internal("a file is read before it is described"))?;
        let size_bytes = u64::try_from(stat.st_size).unwrap_or(0);
        let sparse = u64::try_from(stat.st_blocks).unwrap_or(u64::MAX).saturating_mul(512) < size_bytes;
        Ok(Box::new(FileReader {
            path: std::mem::take(&mut self.path),
            file,
            stat,
            size_bytes,
            sparse,
            position: 0,
        }))
    }
}

/// Opens without following a link, and without touching the access time where we may.
fn open(path: &Path) -> Result<OwnedFd> {
    // O_NONBLOCK: the name may have become a pipe without a writer since it was listed.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let opened = match rustix::fs::open(path, flags | OFlags::NOATIME, Mode::empty()) {
        Err(Errno::PERM) => rustix::fs::open(path, flags, Mode::empty()),
        other => other,
    };
    opened.map_err(|error| unreadable(path, error))
}

fn changed(path: &Path, what: &str) -> Error {
    Error::new(
        ErrorKind::Conflict,
        codes::SOURCE_CHANGED,
        format!("`{}` {what} while it was read", path.display()),
    )
    .with_hint("run the backup again; databases want a component of their own kind")
}

struct FileReader {
    path: PathBuf,
    file: OwnedFd,
    stat: Stat,
    size_bytes: u64,
    sparse: bool,
    position: u64,
}

impl Reader for FileReader {
    fn size_bytes(&self) -> Option<u64> {
        Some(self.size_bytes)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        loop {
            match rustix::io::read(&self.file, &mut *buffer) {
                Ok(count) => {
                    self.position += count as u64;
                    return Ok(count);
                }
                Err(Errno::INTR) => {}
                Err(error) => return Err(unreadable(&self.path, error)),
            }
        }
    }

    fn zeros_ahead_bytes(&mut self) -> Result<u64> {
        if !self.sparse {
            return Ok(0);
        }
        let data = match rustix::fs::seek(&self.file, SeekFrom::Data(self.position)) {
            Ok(data) => data.min(self.size_bytes),
            // Beyond the last data.
            Err(Errno::NXIO) => self.size_bytes,
            Err(Errno::INVAL | Errno::OPNOTSUPP) => {
                self.sparse = false;
                self.position
            }
            Err(error) => return Err(unreadable(&self.path, error)),
        };
        self.seek(self.position)?;
        Ok(data.saturating_sub(self.position))
    }

    fn skip(&mut self, bytes: u64) -> Result<()> {
        self.position += bytes;
        self.seek(self.position)
    }

    fn finish(&mut self, read_bytes: u64) -> Result<()> {
        let now = rustix::fs::fstat(&self.file).map_err(|error| unreadable(&self.path, error))?;
        let size_now = u64::try_from(now.st_size).unwrap_or(0);
        if read_bytes < self.size_bytes || size_now < self.size_bytes {
            return Err(changed(&self.path, "shrank"));
        }
        let touched = (now.st_mtime, now.st_mtime_nsec) != (self.stat.st_mtime, self.stat.st_mtime_nsec);
        if touched && size_now == self.size_bytes {
            return Err(changed(&self.path, "was overwritten"));
        }
        Ok(())
    }
}

impl FileReader {
    fn seek(&self, position: u64) -> Result<()> {
        rustix::fs::seek(&self.file, SeekFrom::Start(position))
            .map(drop)
            .map_err(|error| unreadable(&self.path, error))
    }
}

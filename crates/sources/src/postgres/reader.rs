//! Reading one file of a server while it runs: pages verified, the whole summed up, what became of it remembered.

use super::page::{self, PAGE_BYTES, Verdict};
use crate::files::node::{self, unreadable};
use retoma_core::{Error, Result};
use retoma_repo::backup::{Content, Found, Reader};
use retoma_repo::format::tree::Node;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a page that does not fit is read again, and how long we wait in between: the server may be writing it.
const REREADS: u32 = 10;
const REREAD_PAUSE: Duration = Duration::from_millis(2);
/// So many bad pages of one file are remembered.
const BAD_PAGES_MAX: usize = 64;

/// What became of a file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nobody opened it: it is the same as in the parent snapshot.
    #[default]
    Untouched,
    /// It was dropped before it was opened.
    Gone,
    /// It could not be read to its end.
    Failed,
    /// It was read.
    Read(Facts),
}

/// What a file that was read told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) size_bytes: u64,
    pub(super) modified_seconds: i64,
    pub(super) crc: u32,
    /// Wrong pages, by block and LSN; those whose LSN is between the backup's start and its stop will be replaced from
    /// the WAL.
    pub(super) wrong_pages: Vec<(u32, u64)>,
    /// Wrong pages beyond those that are remembered: nothing is known of them.
    pub(super) wrong_more: u64,
}

/// Shared by whoever reads a file and whoever asks afterwards.
#[derive(Debug, Clone, Default)]
pub(super) struct FileState(Arc<Mutex<Outcome>>);

impl FileState {
    fn lock(&self) -> MutexGuard<'_, Outcome> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn outcome(&self) -> Outcome {
        self.lock().clone()
    }

    fn set(&self, outcome: Outcome) {
        *self.lock() = outcome;
    }
}

/// How the pages of a relation's file are looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pages {
    /// The number of the file's first block.
    pub(super) first_block: u32,
    /// Whether they have checksums.
    pub(super) verified: bool,
    /// The length of the chunks that the file is cut into.
    pub(super) chunk_bytes: usize,
}

/// A file of the server.
#[derive(Debug)]
pub(super) struct DataFile {
    path: PathBuf,
    /// For a relation's file.
    pages: Option<Pages>,
    state: FileState,
    open: Option<(OwnedFd, u64, i64)>,
}

impl DataFile {
    pub(super) fn new(path: PathBuf, pages: Option<Pages>, state: FileState) -> Self {
        Self { path, pages, state, open: None }
    }
}

impl Content for DataFile {
    fn describe(&mut self, node: &mut Node) -> Result<Found> {
        self.state.set(Outcome::Failed);
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
        let file = match rustix::fs::open(&self.path, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => {
                // A relation that was dropped; what is left to do about it is in the WAL.
                self.state.set(Outcome::Gone);
                return Ok(Found::Gone);
            }
            Err(error) => return Err(unreadable(&self.path, error)),
        };
        let stat = rustix::fs::fstat(&file).map_err(|error| unreadable(&self.path, error))?;
        node::update(node, &stat);
        node.xattrs = xattrs_of(&self.path)?;
        #[allow(clippy::unnecessary_cast)] // The field's type differs between systems.
        let modified_seconds = stat.st_mtime as i64;
        self.open = Some((file, node.size_bytes, modified_seconds));
        Ok(Found::There)
    }

    fn open(&mut self) -> Result<Box<dyn Reader>> {
        let open = self.open.take();
        let (file, size_bytes, modified_seconds) =
            open.ok_or_else(|| Error::internal("a file is read before it is described"))?;
        Ok(Box::new(DataReader {
            path: std::mem::take(&mut self.path),
            file,
            size_bytes,
            position: 0,
            pages: self.pages,
            state: self.state.clone(),
            facts: Facts { modified_seconds, ..Facts::default() },
        }))
    }
}

/// Between opening and asking for its attributes the name may go.
fn xattrs_of(path: &Path) -> Result<Vec<retoma_repo::format::tree::Xattr>> {
    match node::xattrs(path) {
        Err(error) if error.kind() == retoma_core::ErrorKind::NotFound => Ok(Vec::new()),
        other => other,
    }
}

struct DataReader {
    path: PathBuf,
    file: OwnedFd,
    size_bytes: u64,
    position: u64,
    pages: Option<Pages>,
    state: FileState,
    facts: Facts,
}

impl Reader for DataReader {
    fn size_bytes(&self) -> Option<u64> {
        Some(self.size_bytes)
    }

    fn block_bytes(&self) -> Option<usize> {
        self.pages.map(|pages| pages.chunk_bytes)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        // Whole pages, as long as there is room for one.
        let room =
            if buffer.len() > PAGE_BYTES { buffer.len() / PAGE_BYTES * PAGE_BYTES } else { buffer.len() };
        let count = self.read_at(&mut buffer[..room], self.position)?;
        if let Some(pages) = self.pages.filter(|pages| pages.verified) {
            self.check_pages(pages, &mut buffer[..count])?;
        }
        self.facts.crc = crc32c::crc32c_append(self.facts.crc, &buffer[..count]);
        self.position += count as u64;
        Ok(count)
    }

    /// A file that was cut meanwhile is what it is now: the WAL has the truncation.
    fn finish(&mut self, read_bytes: u64) -> Result<()> {
        self.facts.size_bytes = read_bytes;
        self.state.set(Outcome::Read(std::mem::take(&mut self.facts)));
        Ok(())
    }
}

impl DataReader {
    /// Fills `buffer` from `position` on; less only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], position: u64) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            match rustix::io::pread(&self.file, &mut buffer[filled..], position + filled as u64) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(Errno::INTR) => {}
                Err(error) => return Err(unreadable(&self.path, error)),
            }
        }
        Ok(filled)
    }

    /// Looks at every page that ends within `bytes`, which were read at the current position. A page that was read while
    /// it was written is put right in `bytes`.
    fn check_pages(&mut self, pages: Pages, bytes: &mut [u8]) -> Result<()> {
        const PAGE: u64 = PAGE_BYTES as u64;
        let end = self.position + bytes.len() as u64;
        for number in self.position / PAGE..end / PAGE {
            // Beyond 2^32 blocks there is no relation.
            let block = pages.first_block.saturating_add(u32::try_from(number).unwrap_or(u32::MAX));
            let start = number * PAGE;
            let mut apart = [0; PAGE_BYTES];
            let within = start.checked_sub(self.position).and_then(|at| usize::try_from(at).ok());
            let page: &mut [u8; PAGE_BYTES] = match within.and_then(|at| bytes.get_mut(at..at + PAGE_BYTES)) {
                Some(page) => page.try_into().map_err(|_| Error::internal("a page has another size"))?,
                // Its beginning was given out before: it is looked at as it is now.
                None if self.read_at(&mut apart, start)? == PAGE_BYTES => &mut apart,
                None => continue,
            };
            if page::verdict(page, block) == Verdict::Wrong && !self.reread(page, start, block)? {
                if self.facts.wrong_pages.len() < BAD_PAGES_MAX {
                    self.facts.wrong_pages.push((block, page::lsn(page)));
                } else {
                    self.facts.wrong_more += 1;
                }
            }
        }
        Ok(())
    }

    /// Reads a page again until it fits, or is gone; `false` when it never did.
    fn reread(&self, page: &mut [u8; PAGE_BYTES], start: u64, block: u32) -> Result<bool> {
        for _ in 0..REREADS {
            let mut again = [0; PAGE_BYTES];
            if self.read_at(&mut again, start)? < PAGE_BYTES {
                return Ok(true);
            }
            *page = again;
            if page::verdict(page, block) != Verdict::Wrong {
                return Ok(true);
            }
            std::thread::sleep(REREAD_PAUSE);
        }
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use retoma_repo::format::tree::NodeKind;

    fn page(seed: u64, block: u32, lsn: u64) -> [u8; PAGE_BYTES] {
        let mut page: [u8; PAGE_BYTES] = retoma_testkit::bytes(seed, PAGE_BYTES)[..].try_into().unwrap();
        page[..4].copy_from_slice(&u32::try_from(lsn >> 32).unwrap().to_le_bytes());
        page[4..8].copy_from_slice(&u32::try_from(lsn & 0xFFFF_FFFF).unwrap().to_le_bytes());
        page[14] |= 1;
        let sum = page::checksum(&page, block);
        page[8..10].copy_from_slice(&sum.to_le_bytes());
        page
    }

    const PAGES: Pages = Pages { first_block: 131_072, verified: true, chunk_bytes: 16 << 10 };

    /// Reads `contents` in pieces of `piece` bytes.
    fn read(contents: &[u8], pages: Option<Pages>, piece: usize) -> (Vec<u8>, Outcome) {
        let folder = retoma_testkit::Folder::new();
        let path = folder.join("1.1");
        std::fs::write(&path, contents).unwrap();
        let state = FileState::default();
        let mut content = DataFile::new(path, pages, state.clone());
        let mut node = Node::new("1.1", NodeKind::File);
        assert_eq!(content.describe(&mut node).unwrap(), Found::There);
        let mut reader = content.open().unwrap();
        let (mut bytes, mut buffer) = (Vec::new(), vec![0; piece]);
        loop {
            let count = reader.read(&mut buffer).unwrap();
            bytes.extend_from_slice(&buffer[..count]);
            if count == 0 {
                break;
            }
        }
        reader.finish(bytes.len() as u64).unwrap();
        (bytes, state.outcome())
    }

    #[test]
    fn wrong_pages_are_named_however_the_file_is_read() {
        let mut contents: Vec<u8> =
            (0..5).flat_map(|at| page(u64::from(at), 131_072 + at, 7 << 32 | 9)).collect();
        contents[PAGE_BYTES + 4000] ^= 1;
        contents[4 * PAGE_BYTES - 1] ^= 0x80;
        // A page that is only half there is being written.
        contents.extend_from_slice(&[7; 100]);
        for piece in [100, PAGE_BYTES - 1, PAGE_BYTES, PAGE_BYTES + 1, 3 * PAGE_BYTES, 1 << 20] {
            let (bytes, outcome) = read(&contents, Some(PAGES), piece);
            assert!(bytes == contents, "pieces of {piece} bytes");
            let Outcome::Read(facts) = outcome else { panic!("{outcome:?}") };
            assert_eq!(facts.wrong_pages, [(131_073, 7 << 32 | 9), (131_075, 7 << 32 | 9)], "{piece}");
            assert_eq!((facts.size_bytes, facts.crc), (contents.len() as u64, crc32c::crc32c(&contents)));
        }
    }

    #[test]
    fn no_wrong_page_is_forgotten() {
        let contents = vec![1; (BAD_PAGES_MAX + 3) * PAGE_BYTES];
        let quick = read(&contents, Some(PAGES), contents.len());
        let Outcome::Read(facts) = quick.1 else { panic!("{:?}", quick.1) };
        assert_eq!((facts.wrong_pages.len(), facts.wrong_more), (BAD_PAGES_MAX, 3));
    }

    #[test]
    fn without_checksums_and_outside_of_relations_nothing_is_looked_at() {
        let unverified = Pages { verified: false, ..PAGES };
        for pages in [None, Some(unverified)] {
            let (_, outcome) = read(&vec![1; 3 * PAGE_BYTES], pages, 1 << 20);
            assert!(matches!(outcome, Outcome::Read(facts) if facts.wrong_pages.is_empty()));
        }
    }

    #[test]
    fn a_file_that_is_gone_is_no_failure_and_one_that_nobody_opened_is_untouched() {
        let state = FileState::default();
        assert_eq!(state.outcome(), Outcome::Untouched);
        let folder = retoma_testkit::Folder::new();
        let mut content = DataFile::new(folder.join("1"), None, state.clone());
        assert_eq!(content.describe(&mut Node::new("1", NodeKind::File)).unwrap(), Found::Gone);
        assert_eq!(state.outcome(), Outcome::Gone);
    }
}

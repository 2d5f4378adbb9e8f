//! The database file as a stream of bytes, page by page out of one read transaction.

use super::database::Database;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::backup::Reader;
use retoma_repo::chunk::block_bytes;

/// The pages of a database from the first to the last.
pub(super) struct PageReader {
    database: Database,
    page_bytes: usize,
    page_count: u64,
    /// The page that comes next, from 1 on.
    next: u64,
    /// A page that did not fit into the buffer as a whole, and how much of it was given.
    rest: Vec<u8>,
    given_bytes: usize,
}

impl PageReader {
    /// `database` is in its read transaction, which ends with the reader.
    pub(super) fn new(database: Database, page_bytes: u64, page_count: u64) -> Result<Self> {
        let page_bytes =
            usize::try_from(page_bytes).map_err(|_| Error::internal("a page is larger than memory"))?;
        Ok(Self { database, page_bytes, page_count, next: 1, rest: Vec::new(), given_bytes: 0 })
    }
}

impl Reader for PageReader {
    fn size_bytes(&self) -> Option<u64> {
        Some(self.page_bytes as u64 * self.page_count)
    }

    fn block_bytes(&self) -> Option<usize> {
        self.size_bytes().map(block_bytes)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = buffer.len().min(self.rest.len() - self.given_bytes);
        buffer[..filled].copy_from_slice(&self.rest[self.given_bytes..self.given_bytes + filled]);
        self.given_bytes += filled;
        let mut pages = self.database.pages(self.page_bytes)?;
        while buffer.len() - filled >= self.page_bytes && self.next <= self.page_count {
            pages.read(self.next, &mut buffer[filled..filled + self.page_bytes])?;
            self.next += 1;
            filled += self.page_bytes;
        }
        if filled == 0 && !buffer.is_empty() && self.next <= self.page_count {
            self.rest.resize(self.page_bytes, 0);
            pages.read(self.next, &mut self.rest)?;
            self.next += 1;
            filled = buffer.len();
            buffer.copy_from_slice(&self.rest[..filled]);
            self.given_bytes = filled;
        }
        Ok(filled)
    }

    fn finish(&mut self, read_bytes: u64) -> Result<()> {
        if self.size_bytes() != Some(read_bytes) {
            let message =
                format!("`{}` gave `{read_bytes}` bytes of its pages", self.database.path().display());
            return Err(Error::new(ErrorKind::Conflict, codes::SOURCE_CHANGED, message)
                .with_hint("run the backup again"));
        }
        self.database.check_untouched()
    }
}

#[cfg(test)]
mod tests;

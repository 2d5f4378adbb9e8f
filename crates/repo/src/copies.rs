//! What a repository has lost, from others that have the same blobs: its copies, asked while it is read. `docs/repositories.md`.
//!
//! A blob's name is the SHA-256 of its plaintext, so it is the same one in whichever repository it lies. It is opened with that
//! one's key, and its hash is checked before anybody gets it. Copies are opened, and their indexes loaded, when the first blob is
//! missing, and each once.
//!
//! Nothing is written here: [`crate::ops::copy::heal`] makes a repository whole again.

use crate::format::BlobKind;
use crate::id::BlobId;
use crate::index::Index;
use crate::repository::Repository;
use retoma_core::{Error, ErrorKind, Result};
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

/// So many reads in a row that fail because a store is away end the asking; each was retried below us.
pub(crate) const AWAY: u32 = 2;

/// Opens a copy.
pub type Opener = Arc<dyn Fn() -> Result<Repository> + Send + Sync>;

/// Other repositories that may have what one lacks, in the order in which they are asked.
#[derive(Debug)]
pub struct Copies {
    /// The repository whose copies these are.
    own: Reach,
    copies: Vec<Copy>,
}

/// Whether a store still answers.
#[derive(Debug, Default)]
struct Reach {
    failures_in_a_row: AtomicU32,
    is_given_up: AtomicBool,
}

impl Reach {
    fn note<T>(&self, read: &Result<T>) {
        match read {
            Err(error) if is_away(error) => {
                if self.failures_in_a_row.fetch_add(1, Ordering::Relaxed) + 1 >= AWAY {
                    self.is_given_up.store(true, Ordering::Relaxed);
                }
            }
            _ => self.failures_in_a_row.store(0, Ordering::Relaxed),
        }
    }

    fn is_given_up(&self) -> bool {
        self.is_given_up.load(Ordering::Relaxed)
    }
}

/// Whether an error is about a store as a whole: no other object can be had from it either.
pub(crate) fn is_away(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Unauthorized | ErrorKind::Exhausted)
}

struct Copy {
    name: String,
    opener: Opener,
    repository: OnceLock<Result<Repository>>,
    index: OnceLock<Result<Index>>,
    reach: Reach,
    blobs: AtomicU64,
    bytes: AtomicU64,
    /// Blobs that were read one by one: the same is read again, and counts once.
    singly: Mutex<HashSet<BlobId>>,
}

impl std::fmt::Debug for Copy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Copy").field("name", &self.name).finish_non_exhaustive()
    }
}

/// What came from a copy.
#[derive(Debug)]
pub struct Taken<'a> {
    /// Its name.
    pub name: &'a str,
    /// Blobs that came from it.
    pub blobs: u64,
    /// Their bytes, as they were backed up.
    pub bytes: u64,
    /// Why it could not be asked, where it was needed and could not.
    pub problem: Option<&'a Error>,
}

impl Copies {
    /// Repositories with their names, each opened when it is needed.
    pub fn new(copies: impl IntoIterator<Item = (String, Opener)>) -> Self {
        let copy = |(name, opener)| Copy {
            name,
            opener,
            repository: OnceLock::new(),
            index: OnceLock::new(),
            reach: Reach::default(),
            blobs: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            singly: Mutex::default(),
        };
        Self { own: Reach::default(), copies: copies.into_iter().map(copy).collect() }
    }

    /// What came from each of them so far.
    pub fn taken(&self) -> impl Iterator<Item = Taken<'_>> {
        self.copies.iter().map(|copy| Taken {
            name: &copy.name,
            blobs: copy.blobs.load(Ordering::Relaxed),
            bytes: copy.bytes.load(Ordering::Relaxed),
            problem: copy.problem(),
        })
    }

    /// Opens each of them; an error says why one cannot be had.
    pub fn repositories(&self) -> impl Iterator<Item = (&str, std::result::Result<&Repository, &Error>)> {
        self.copies.iter().map(|copy| (copy.name.as_str(), copy.repository()))
    }

    /// Whether the repository whose copies these are no longer answers: nobody asks it again.
    pub(crate) fn own_is_given_up(&self) -> bool {
        self.own.is_given_up()
    }

    /// The store of the copy at this place, or of the repository itself, does not answer.
    pub(crate) fn give_up(&self, at: Option<usize>) {
        let reach = at.map_or(Some(&self.own), |at| self.copies.get(at).map(|copy| &copy.reach));
        if let Some(reach) = reach {
            reach.is_given_up.store(true, Ordering::Relaxed);
        }
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.copies.len()
    }

    /// The copy at this place in the order, open and with its index; `None` where it cannot be had.
    pub(crate) fn get(&self, at: usize) -> Option<(&Repository, &Index)> {
        self.copies.get(at).filter(|copy| !copy.reach.is_given_up()).and_then(Copy::open)
    }

    /// Notes that a blob of so many bytes came from the copy at this place.
    pub(crate) fn note(&self, at: usize, bytes: u64) {
        if let Some(copy) = self.copies.get(at) {
            copy.blobs.fetch_add(1, Ordering::Relaxed);
            copy.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
    }

    /// The length of a blob's plaintext by the first copy that has it, in bytes.
    pub(crate) fn plaintext_bytes(&self, kind: BlobKind, id: &BlobId) -> Option<u64> {
        (0..self.len()).find_map(|at| self.get(at)?.1.plaintext_bytes(kind, id))
    }

    /// The blob by `own`, which reads it from the repository itself, or from the first copy that has it.
    ///
    /// # Errors
    /// Those of `own`, where no copy has it.
    pub(crate) fn complete(
        &self,
        kind: BlobKind,
        id: &BlobId,
        own: impl Fn() -> Result<Vec<u8>>,
    ) -> Result<Vec<u8>> {
        let mut first = None;
        if !self.own.is_given_up() {
            let read = own();
            self.own.note(&read);
            match read {
                Ok(plaintext) => return Ok(plaintext),
                Err(error) => first = Some(error),
            }
        }
        for copy in &self.copies {
            if let Some(plaintext) = copy.read(kind, id) {
                return Ok(plaintext);
            }
        }
        first.map_or_else(own, Err)
    }
}

impl Copy {
    fn repository(&self) -> std::result::Result<&Repository, &Error> {
        self.repository.get_or_init(|| (self.opener)()).as_ref()
    }

    fn open(&self) -> Option<(&Repository, &Index)> {
        let repository = self.repository().ok()?;
        let index = self.index.get_or_init(|| repository.load_readable_index());
        index.as_ref().ok().map(|index| (repository, index))
    }

    fn problem(&self) -> Option<&Error> {
        let of_repository = self.repository.get().and_then(|it| it.as_ref().err());
        of_repository.or_else(|| self.index.get().and_then(|it| it.as_ref().err()))
    }

    fn read(&self, kind: BlobKind, id: &BlobId) -> Option<Vec<u8>> {
        if self.reach.is_given_up() {
            return None;
        }
        let (repository, index) = self.open()?;
        index.get(kind, id)?;
        let read = repository.read_own_blob(index, kind, id);
        self.reach.note(&read);
        let plaintext = read.ok()?;
        if self.singly.lock().unwrap_or_else(PoisonError::into_inner).insert(*id) {
            self.blobs.fetch_add(1, Ordering::Relaxed);
            self.bytes.fetch_add(plaintext.len() as u64, Ordering::Relaxed);
        }
        Some(plaintext)
    }
}

//! Byte storage with few verbs.
//!
//! A store keeps named objects. Layers (retry, limit, meter, dry run, faults) are stores around stores. One
//! conformance suite, in `tests/it/store`, runs on every store and every layer.
//!
//! # Contract for whoever implements [`Store`]
//! * `put` is durable before it returns: contents and name survive a power cut. A reader sees the whole object or none.
//! * `put` may have happened although it returned an error (the answer was lost). Callers that use [`PutMode::Create`]
//!   must expect `Conflict` about their own bytes after a retry.
//! * `delete` of what is not there succeeds, since it may be a retry.
//! * `list` gives every object that existed before the call and was not deleted, in any order.
//! * `delete` is durable as well: what was deleted before something else stays deleted first.
//! * Errors are typed: `NotFound`, `Conflict` (create), `Unauthorized`, `Exhausted` (no room), `Unavailable` (may pass).
//! * A name is never also the folder of other names: with `a/b` there is no object `a`.
//!
//! `docs/stores.md` tells what each store keeps of this, in which order the layers lie, and what is not protected.

pub mod address;
pub mod blocking;
pub mod clock;
pub mod cloud;
mod error;
mod file;
pub mod layer;
pub mod local;
pub mod object;
pub mod sftp;

pub use address::{Address, as_of, open, open_locked};
pub use blocking::{BlockingStore, PutTicket};
pub use clock::{Clock, SystemClock};
pub use local::LocalStore;
pub use object::ObjectStore;
pub use sftp::{SftpOptions, SftpStore};

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use retoma_core::Result;
use std::fmt::Debug;
use std::ops::Range;

/// The name of an object: up to 16 segments of `[A-Za-z0-9._-]+`, each up to 255 bytes and never `.` or `..`, joined by
/// `/`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// Checks `name` and makes it a key.
    ///
    /// # Errors
    /// `Invalid` when a segment is empty, too long, `.`, `..` or has another character, or when there are too many.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let ok = |segment: &str| {
            !matches!(segment, "" | "." | "..")
                && segment.len() <= 255
                && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        if name.split('/').all(ok) && name.split('/').count() <= 16 {
            Ok(Self(name))
        } else {
            Err(retoma_core::Error::new(
                retoma_core::ErrorKind::Invalid,
                retoma_core::error::codes::STORE_ADDRESS,
                format!("`{}` is not an object's name", name.escape_debug()),
            ))
        }
    }

    /// The name, with `/` between its segments.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// What `put` does when the object exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutMode {
    /// Fails with `Conflict`, and leaves the object as it was. Atomic where [`Capabilities::conditional_create`].
    Create,
    /// Replaces it, atomically for readers.
    Overwrite,
}

/// What a listing or `head` tells of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObjectMeta {
    /// Its name.
    pub key: Key,
    /// Its size in bytes.
    pub size_bytes: u64,
    /// When it was last written, by the store's clock.
    pub modified: jiff::Timestamp,
}

/// What a store can do beyond the verbs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a question of its own")]
pub struct Capabilities {
    /// [`PutMode::Create`] is atomic: of two writers exactly one wins.
    pub conditional_create: bool,
    /// Objects can be deleted with these credentials; a lock can be left and taken away.
    pub delete: bool,
    /// The store can be read as it was ([`as_of`]), where its owner has it keep versions.
    pub versions: bool,
    /// Answers come over a network: several requests at once take little longer than one.
    pub far: bool,
}

/// Over a network so many bytes take about as long as one more request.
pub(crate) const REQUEST_BYTES: u32 = 256 << 10;

/// Reads at once from a store that is far. With 20 ms for each answer, eight were not faster.
const FAR_READERS: usize = 5;

impl Capabilities {
    /// How many threads are to read at once, where `near` are good for a local disk.
    pub fn readers(self, near: usize) -> usize {
        if self.far { near.max(FAR_READERS) } else { near }
    }
}

/// The verbs of a [`Store`], for counters, fault scripts and messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verb {
    /// [`Store::put`].
    Put,
    /// [`Store::get`].
    Get,
    /// [`Store::get_range`].
    GetRange,
    /// [`Store::head`].
    Head,
    /// [`Store::list`].
    List,
    /// [`Store::delete`].
    Delete,
}

impl Verb {
    /// All verbs.
    pub const ALL: [Self; 6] = [Self::Put, Self::Get, Self::GetRange, Self::Head, Self::List, Self::Delete];

    /// The verb in lower case, as in `get_range`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::GetRange => "get_range",
            Self::Head => "head",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }
}

/// What [`Store::remove_leftovers`] removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Leftovers {
    /// How many unfinished writes.
    pub count: u64,
    /// How many bytes they held.
    pub size_bytes: u64,
}

/// A place for objects. See the module for what an implementation promises.
#[async_trait]
pub trait Store: Debug + Send + Sync + 'static {
    /// The address, for messages; without credentials.
    fn location(&self) -> String;

    /// What this store can do.
    fn capabilities(&self) -> Capabilities;

    /// Says of an object that never changes that it is worth keeping near, as a whole. Only a cache listens; a layer above one passes it on.
    fn keep(&self, _key: &Key) {}

    /// Writes a whole object, durably.
    async fn put(&self, key: &Key, data: Bytes, mode: PutMode) -> Result<()>;

    /// Reads a whole object.
    async fn get(&self, key: &Key) -> Result<Bytes>;

    /// Reads bytes `range` of an object. A range that ends beyond the object is `Corrupt`: whoever asks knows the size.
    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes>;

    /// Size and time of an object.
    async fn head(&self, key: &Key) -> Result<ObjectMeta>;

    /// Every object whose name starts with `folder` and `/`; all objects for the empty `folder`.
    fn list<'a>(&'a self, folder: &'a str) -> BoxStream<'a, Result<ObjectMeta>>;

    /// Deletes an object; one that is not there counts as deleted.
    async fn delete(&self, key: &Key) -> Result<()>;

    /// Removes what killed writers left behind and no reader ever sees (temporary files, unfinished uploads), where it
    /// was last written before `modified_before`, so that a running `put` keeps its own. A layer passes it on.
    async fn remove_leftovers(&self, modified_before: jiff::Timestamp) -> Result<Leftovers> {
        let _ = modified_before;
        Ok(Leftovers::default())
    }
}

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
//! * Errors are typed: `NotFound`, `Conflict` (create), `Unauthorized`, `Exhausted` (no room), `Unavailable` (may pass).

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use retoma_core::Result;
use std::fmt::Debug;
use std::ops::Range;

/// The name of an object: segments of `[A-Za-z0-9._-]+` joined by `/`, never `.` or `..`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key(String);

impl Key {
    /// Checks `name` and makes it a key.
    ///
    /// # Errors
    /// `Invalid` when a segment is empty, `.`, `..` or has another character.
    pub fn new(name: impl Into<String>) -> Result<Self> {
        let name = name.into();
        let ok = |segment: &str| {
            !matches!(segment, "" | "." | "..")
                && segment.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        if name.split('/').all(ok) {
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
pub struct Capabilities {
    /// [`PutMode::Create`] is atomic: of two writers exactly one wins.
    pub conditional_create: bool,
    /// Objects can be deleted with these credentials; a lock can be left and taken away.
    pub delete: bool,
    /// Older versions of an overwritten or deleted object can be read.
    pub versions: bool,
}

/// A place for objects. See the module for what an implementation promises.
#[async_trait]
pub trait Store: Debug + Send + Sync + 'static {
    /// The address, for messages; without credentials.
    fn location(&self) -> String;

    /// What this store can do.
    fn capabilities(&self) -> Capabilities;

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
}

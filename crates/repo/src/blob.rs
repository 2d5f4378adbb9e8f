//! Sealing and reading single blobs. Nothing leaves here unchecked: authentic, of the announced length, and with the
//! SHA-256 that is its name.

use crate::compress;
use crate::crypto::{MasterKey, NONCE_BYTES};
use crate::format::pack::PackedBlob;
use crate::format::{BlobKind, tree};
use crate::id::BlobId;
use crate::index::{Index, Location};
use crate::repository::Repository;
use retoma_core::{Error, ErrorKind, Result, ResultExt, error::codes};

/// Seals `plaintext` into `output` (cleared first); gives the plaintext's length when it was compressed.
///
/// # Errors
/// `Unavailable` where the system gives no random numbers.
pub fn seal(repository: &Repository, plaintext: &[u8], output: &mut Vec<u8>) -> Result<Option<u32>> {
    output.clear();
    output.resize(NONCE_BYTES, 0);
    let mut uncompressed = None;
    if repository.compresses() && !plaintext.is_empty() && compress::worthwhile(plaintext) {
        compress::append(plaintext, output)?;
        uncompressed = u32::try_from(plaintext.len()).ok();
    }
    if uncompressed.is_none() || output.len() >= NONCE_BYTES + plaintext.len() {
        output.truncate(NONCE_BYTES);
        output.extend_from_slice(plaintext);
        uncompressed = None;
    }
    repository.key().seal_in_place(output)?;
    Ok(uncompressed)
}

/// Opens a sealed blob and checks that it is `blob`.
///
/// # Errors
/// `Corrupt`: not authentic, another length, another hash.
pub fn open(key: &MasterKey, blob: &PackedBlob, mut sealed: Vec<u8>) -> Result<Vec<u8>> {
    let mut expanded = Vec::new();
    let length = open_in_place(key, blob, &mut sealed, &mut expanded)?.len();
    if blob.uncompressed_bytes.is_some() {
        return Ok(expanded);
    }
    sealed.copy_within(NONCE_BYTES..NONCE_BYTES + length, 0);
    sealed.truncate(length);
    Ok(sealed)
}

/// Opens a sealed blob where it lies and checks that it is `blob`. What is compressed is expanded into `expanded`, whose
/// memory is used again: a fresh buffer for each blob costs more than copying it.
///
/// # Errors
/// `Corrupt`: not authentic, another length, another hash.
pub fn open_in_place<'a>(
    key: &MasterKey,
    blob: &PackedBlob,
    sealed: &'a mut [u8],
    expanded: &'a mut Vec<u8>,
) -> Result<&'a [u8]> {
    checked(key.open_in_place(sealed)?, blob, expanded)
}

/// The plaintext of a blob that was opened: expanded into `expanded` where it is compressed, and the one that its name says.
fn checked<'a>(body: &'a [u8], blob: &PackedBlob, expanded: &'a mut Vec<u8>) -> Result<&'a [u8]> {
    let plaintext: &[u8] = match blob.uncompressed_bytes {
        None => body,
        Some(length) => {
            compress::decompress_into(body, length as usize, expanded)?;
            expanded
        }
    };
    if BlobId::of(plaintext) == blob.id { Ok(plaintext) } else { Err(other_contents(blob)) }
}

/// Opens a sealed blob of `from` where it lies, checks that it is `blob`, and seals it for `to` into `output` (cleared
/// first); gives the plaintext's length when it is compressed there. What is compressed is expanded into `expanded` for the
/// check, and its compressed form is sealed as it is, so that nothing is compressed again.
///
/// # Errors
/// `Corrupt`: not authentic, another length, another hash. `Unavailable` where the system gives no random numbers.
pub fn reseal(
    (from, to): (&Repository, &Repository),
    blob: &PackedBlob,
    sealed: &mut [u8],
    expanded: &mut Vec<u8>,
    output: &mut Vec<u8>,
) -> Result<Option<u32>> {
    let body: &[u8] = from.key().open_in_place(sealed)?;
    let plaintext = checked(body, blob, expanded)?;
    // A repository of version 1 has no compression: what comes from there was never tried, what goes there must not be.
    if from.compresses() != to.compresses() {
        return seal(to, plaintext, output);
    }
    output.clear();
    output.resize(NONCE_BYTES, 0);
    output.extend_from_slice(body);
    to.key().seal_in_place(output)?;
    Ok(blob.uncompressed_bytes)
}

pub(crate) fn other_contents(blob: &PackedBlob) -> Error {
    Error::new(ErrorKind::Corrupt, codes::HASH_MISMATCH, format!("blob {} has other contents", blob.id))
}

impl Repository {
    /// Reads one blob from wherever it lies: when one place is damaged, the next is tried, and then
    /// [copies](Repository::with_copies) of this repository.
    ///
    /// # Errors
    /// `Corrupt` with `R0208` when no index names it; otherwise that of the last place in this repository.
    pub fn read_blob(&self, index: &Index, kind: BlobKind, id: &BlobId) -> Result<Vec<u8>> {
        let own = || self.read_own_blob(index, kind, id);
        self.copies().map_or_else(own, |copies| copies.complete(kind, id, own))
    }

    /// The length of a blob's plaintext by the index, or by that of a copy, in bytes.
    pub fn plaintext_bytes(&self, index: &Index, kind: BlobKind, id: &BlobId) -> Option<u64> {
        let own = index.plaintext_bytes(kind, id);
        own.or_else(|| self.copies()?.plaintext_bytes(kind, id))
    }

    /// Reads one blob from this repository alone.
    pub(crate) fn read_own_blob(&self, index: &Index, kind: BlobKind, id: &BlobId) -> Result<Vec<u8>> {
        let mut last = None;
        for location in index.all(kind, id) {
            match self.read_at(&location) {
                Ok(plaintext) => return Ok(plaintext),
                Err(error) => last = Some(error),
            }
        }
        Err(last.unwrap_or_else(|| {
            Error::new(ErrorKind::Corrupt, codes::BLOB_MISSING, format!("blob {id} is in no index"))
                .with_hint("run `retoma verify` to see which snapshots are hit")
        }))
    }

    /// Reads the blob at one place.
    ///
    /// # Errors
    /// `Corrupt` with `R0209` when the pack is missing or too short; see [`open`].
    pub fn read_at(&self, location: &Location) -> Result<Vec<u8>> {
        let blob = &location.blob;
        let start = u64::from(blob.offset_bytes);
        let read = || {
            let range = start..start + u64::from(blob.length_bytes);
            let sealed = self.store().get_range(&self.pack_key(location.pack)?, range);
            let sealed = sealed.map_err(|error| missing_pack(error, location))?;
            open(self.key(), blob, sealed.into()).map_err(damaged)
        };
        read().with_context(|| format!("read blob {} at {start} of pack {}", blob.id.short(), location.pack))
    }

    /// Reads a directory.
    ///
    /// # Errors
    /// See [`Repository::read_blob`]; `Corrupt` when it is not a tree.
    pub fn read_tree(&self, index: &Index, id: &BlobId) -> Result<Vec<tree::Node>> {
        let json = self.read_blob(index, BlobKind::Tree, id)?;
        tree::from_json(&json).with_context(|| format!("read tree {id}"))
    }
}

/// What is damaged inside a pack is seen only when all data are read.
fn damaged(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Corrupt => error.with_hint(
            "run `retoma verify --read-data`: it names the snapshots that are hit; take another one with `--snapshot ID`",
        ),
        _ => error,
    }
}

fn missing_pack(error: Error, location: &Location) -> Error {
    match error.kind() {
        ErrorKind::NotFound | ErrorKind::Corrupt => {
            let message = format!("pack {} is missing or too short", location.pack);
            Error::new(ErrorKind::Corrupt, codes::PACK_MISSING, message).with_source(error).with_hint(
                "run `retoma verify`: it names the snapshots that are hit; `retoma backup` stores again what a new one needs",
            )
        }
        _ => error,
    }
}

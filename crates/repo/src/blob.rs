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
use retoma_sha256::Sha256;
use std::ops::Range;

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

/// So many bytes of plaintext are opened together: several chunks of a large file, which the processor's cache still holds.
const GROUP_BYTES: u64 = 4 << 20;

/// How many of `blobs`, from the first on, are opened together; one at least, where there is one.
pub(crate) fn group_length<'a>(blobs: impl Iterator<Item = &'a PackedBlob>) -> usize {
    let ends = blobs.scan(0u64, |end, blob| {
        *end += u64::from(blob.uncompressed_bytes.unwrap_or(blob.length_bytes));
        Some(*end)
    });
    ends.enumerate().take_while(|(at, end)| *at == 0 || *end <= GROUP_BYTES).count()
}

/// Opens sealed blobs where they lie in `bytes`, checks that each is what it is announced as, and gives their plaintexts in the same
/// order. Their hashes are computed at once, which is much faster than one after the other. What is compressed is expanded into
/// `expanded`, whose old contents go and whose memory is used again. `beside` is hashed with them: a message, and what it goes on with.
///
/// # Errors
/// Of each blob as [`open_in_place`]; `Internal` when it lies outside of `bytes`.
pub(crate) fn open_group<'a>(
    key: &MasterKey,
    bytes: &'a mut [u8],
    blobs: &[(&PackedBlob, Range<usize>)],
    expanded: &'a mut Vec<u8>,
    beside: Option<(&mut Sha256, &[u8])>,
) -> Vec<Result<&'a [u8]>> {
    expanded.clear();
    let announced: u64 = blobs.iter().filter_map(|(blob, _)| blob.uncompressed_bytes).map(u64::from).sum();
    // At once, because growing copies; not what a hostile index announces.
    expanded.reserve(announced.min(GROUP_BYTES) as usize);
    let mut open = |blob: &PackedBlob, range: &Range<usize>| {
        let outside = || Error::internal("the store gave fewer bytes than were asked for");
        let body = key.open_in_place(bytes.get_mut(range.clone()).ok_or_else(outside)?)?;
        let Some(length) = blob.uncompressed_bytes else {
            let start = range.start + NONCE_BYTES;
            return Ok((false, start..start + body.len()));
        };
        let start = expanded.len();
        compress::decompress_behind(body, length as usize, expanded)?;
        Ok((true, start..expanded.len()))
    };
    let opened: Vec<Result<_>> = blobs.iter().map(|(blob, range)| open(blob, range)).collect();
    let (bytes, expanded): (&[u8], &[u8]) = (bytes, expanded);
    let plaintext = |(is_expanded, range)| if is_expanded { &expanded[range] } else { &bytes[range] };
    let plaintexts: Vec<Result<&[u8]>> = opened.into_iter().map(|opened| opened.map(plaintext)).collect();
    let mut hashes = vec![Sha256::new(); plaintexts.len()];
    let known =
        hashes.iter_mut().zip(&plaintexts).filter_map(|(hash, plain)| Some((hash, *plain.as_ref().ok()?)));
    retoma_sha256::update_all(&mut beside.into_iter().chain(known).collect::<Vec<_>>());
    let hashed = hashes.into_iter().map(|hash| BlobId(hash.finalize())).zip(plaintexts).zip(blobs);
    hashed.map(|((id, plaintext), (blob, _))| named(id, plaintext?, blob)).collect()
}

/// Opens a sealed blob where it lies and checks that it is `blob`; what it expands to is never in memory as a whole.
///
/// # Errors
/// As [`open_in_place`].
pub(crate) fn check_huge(key: &MasterKey, blob: &PackedBlob, sealed: &mut [u8], length: u32) -> Result<()> {
    let hash = compress::hash_expanded(key.open_in_place(sealed)?, length as usize)?;
    named(BlobId(hash), (), blob)
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
    named(BlobId::of(plaintext), plaintext, blob)
}

/// `plaintext`, whose hash is `id`, if that is the blob's name.
fn named<T>(id: BlobId, plaintext: T, blob: &PackedBlob) -> Result<T> {
    if id == blob.id { Ok(plaintext) } else { Err(other_contents(blob)) }
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

fn other_contents(blob: &PackedBlob) -> Error {
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
            let key = self.pack_key(location.pack)?;
            let sealed = match blob.kind {
                BlobKind::Tree => self.around().read(self.store(), location.pack, &key, range),
                BlobKind::Data => self.store().get_range(&key, range),
            };
            let sealed = sealed.map_err(|error| missing_pack(error, location))?;
            open(self.key(), blob, sealed.into()).map_err(|error| {
                self.around().forget();
                damaged(error)
            })
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

#[cfg(test)]
mod tests {
    use super::*;
    use retoma_core::error::Code;

    fn key() -> MasterKey {
        MasterKey::from_bytes(&[7; 64])
    }

    /// Blobs one behind the other, every second one compressed.
    fn stored(plaintexts: &[Vec<u8>]) -> (Vec<u8>, Vec<PackedBlob>) {
        let (mut bytes, mut blobs) = (Vec::new(), Vec::new());
        for (at, plaintext) in plaintexts.iter().enumerate() {
            let mut body = plaintext.clone();
            if at % 2 == 1 {
                body.clear();
                compress::append(plaintext, &mut body).unwrap();
            }
            let sealed = key().seal(&body).unwrap();
            blobs.push(PackedBlob {
                id: BlobId::of(plaintext),
                kind: BlobKind::Data,
                offset_bytes: u32::try_from(bytes.len()).unwrap(),
                length_bytes: u32::try_from(sealed.len()).unwrap(),
                uncompressed_bytes: (at % 2 == 1).then(|| u32::try_from(plaintext.len()).unwrap()),
            });
            bytes.extend(sealed);
        }
        (bytes, blobs)
    }

    fn texts() -> Vec<Vec<u8>> {
        (0..9u8).map(|at| vec![at; 1 + usize::from(at) * 1000]).collect()
    }

    fn open_all(mut bytes: Vec<u8>, blobs: &[PackedBlob]) -> Vec<Result<Vec<u8>, Code>> {
        let place =
            |blob: &PackedBlob| blob.offset_bytes as usize..(blob.offset_bytes + blob.length_bytes) as usize;
        let places: Vec<_> = blobs.iter().map(|blob| (blob, place(blob))).collect();
        let mut expanded = b"from before".to_vec();
        let opened = open_group(&key(), &mut bytes, &places, &mut expanded, None);
        opened.into_iter().map(|opened| opened.map(<[u8]>::to_vec).map_err(|error| error.code())).collect()
    }

    #[test]
    fn a_group_gives_what_its_blobs_are_and_hashes_what_is_beside() {
        let (bytes, blobs) = stored(&texts());
        let opened: Vec<Vec<u8>> = open_all(bytes.clone(), &blobs).into_iter().map(Result::unwrap).collect();
        assert_eq!(opened, texts());
        let (mut beside, mut copy) = (Sha256::new(), bytes.clone());
        open_group(&key(), &mut copy, &[(&blobs[0], 0..33)], &mut Vec::new(), Some((&mut beside, &bytes)));
        assert_eq!(BlobId(beside.finalize()), BlobId::of(&bytes));
    }

    #[test]
    fn each_blob_of_a_group_has_its_own_error() {
        let (mut bytes, mut blobs) = stored(&texts());
        let end = bytes.len();
        bytes[blobs[2].offset_bytes as usize + 20] ^= 1;
        blobs[3].id = BlobId([3; 32]);
        blobs[4].id = BlobId([4; 32]);
        blobs[5].uncompressed_bytes = blobs[5].uncompressed_bytes.map(|length| length + 1);
        blobs[8].length_bytes += 1;
        let found: Vec<Option<Code>> = open_all(bytes, &blobs).into_iter().map(Result::err).collect();
        let (tag, other) = (Some(codes::NOT_AUTHENTIC), Some(codes::HASH_MISMATCH));
        let (short, outside) = (Some(codes::MALFORMED), Some(Error::internal("").code()));
        assert_eq!(found, [None, None, tag, other, other, short, None, None, outside], "{end} bytes");
    }

    #[test]
    fn a_group_has_one_blob_or_what_fits() {
        let (_, blobs) = stored(&texts());
        let sized = |bytes: u64| PackedBlob { uncompressed_bytes: u32::try_from(bytes).ok(), ..blobs[0] };
        let length =
            |bytes: &[u64]| group_length(bytes.iter().map(|bytes| sized(*bytes)).collect::<Vec<_>>().iter());
        assert_eq!(length(&[]), 0);
        assert_eq!(length(&[GROUP_BYTES * 9, 1]), 1);
        assert_eq!(length(&[GROUP_BYTES / 2, GROUP_BYTES / 2, 1, 1]), 2);
        assert_eq!(length(&[GROUP_BYTES / 2, GROUP_BYTES / 2 + 1, 1]), 1);
        assert_eq!(length(&[1, 1, 1]), 3);
    }
}

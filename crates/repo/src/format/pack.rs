//! Packs: sealed blobs one after another, then a sealed header that lists them, then the header's length.
//!
//! ```text
//! sealed blob … sealed blob ‖ sealed header ‖ length of the sealed header (u32, little endian)
//! header entry, plain:       type (0 data, 1 tree) ‖ length of the sealed blob (u32) ‖ blob id (32)
//! header entry, compressed:  type (2 data, 3 tree) ‖ length (u32) ‖ length of the plaintext (u32) ‖ blob id (32)
//! ```

use super::{BlobKind, malformed};
use crate::crypto::{MasterKey, OVERHEAD_BYTES};
use crate::id::BlobId;
use retoma_core::Result;

/// One blob of a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedBlob {
    /// Its name.
    pub id: BlobId,
    /// What it holds.
    pub kind: BlobKind,
    /// Where it starts in the pack.
    pub offset_bytes: u32,
    /// Length as stored, sealed.
    pub length_bytes: u32,
    /// Length of the plaintext when it was compressed.
    pub uncompressed_bytes: Option<u32>,
}

impl PackedBlob {
    /// Length of the plaintext.
    pub fn plaintext_bytes(&self) -> u64 {
        let sealed_only = u64::from(self.length_bytes).saturating_sub(OVERHEAD_BYTES as u64);
        self.uncompressed_bytes.map_or(sealed_only, u64::from)
    }
}

const PLAIN_ENTRY_BYTES: usize = 37;
const COMPRESSED_ENTRY_BYTES: usize = 41;
/// Length of the number at the end of a pack.
pub const TRAILER_BYTES: usize = 4;
/// The longest sealed header that is believed, as in restic.
pub const HEADER_LIMIT_BYTES: u32 = 16 << 20;

/// Length of the sealed header and its trailer for these blobs.
pub fn header_bytes<'a>(blobs: impl IntoIterator<Item = &'a PackedBlob>) -> usize {
    let entry = |blob: &PackedBlob| {
        if blob.uncompressed_bytes.is_some() { COMPRESSED_ENTRY_BYTES } else { PLAIN_ENTRY_BYTES }
    };
    blobs.into_iter().map(entry).sum::<usize>() + OVERHEAD_BYTES + TRAILER_BYTES
}

/// The sealed header and its trailer, to be appended to the blobs. Offsets are not stored: order tells them.
///
/// # Errors
/// `Unavailable` where the system gives no random numbers.
pub fn seal_header(key: &MasterKey, blobs: &[PackedBlob]) -> Result<Vec<u8>> {
    let mut plain = Vec::with_capacity(blobs.len() * COMPRESSED_ENTRY_BYTES);
    for blob in blobs {
        let tree = u8::from(blob.kind == BlobKind::Tree);
        plain.push(tree + if blob.uncompressed_bytes.is_some() { 2 } else { 0 });
        plain.extend_from_slice(&blob.length_bytes.to_le_bytes());
        if let Some(length) = blob.uncompressed_bytes {
            plain.extend_from_slice(&length.to_le_bytes());
        }
        plain.extend_from_slice(&blob.id.0);
    }
    let mut sealed = key.seal(&plain)?;
    let length = u32::try_from(sealed.len()).map_err(|_| malformed("the pack's header is too long"))?;
    sealed.extend_from_slice(&length.to_le_bytes());
    Ok(sealed)
}

/// Length of the sealed header by the last four bytes of a pack of `pack_bytes`.
///
/// # Errors
/// `Corrupt` when it can't be true.
pub fn header_length(trailer: [u8; TRAILER_BYTES], pack_bytes: u64) -> Result<u32> {
    let length = u32::from_le_bytes(trailer);
    let room = pack_bytes.saturating_sub(TRAILER_BYTES as u64);
    if u64::from(length) > room || length > HEADER_LIMIT_BYTES || (length as usize) < OVERHEAD_BYTES {
        return Err(malformed(format!(
            "a header of {length} bytes does not fit into a pack of {pack_bytes}"
        )));
    }
    Ok(length)
}

/// Reads a sealed header (without trailer). `blobs_bytes` is what lies before it: the entries must cover it exactly.
///
/// # Errors
/// `Corrupt`: not authentic, a type that is not known, lengths that don't add up.
pub fn open_header(key: &MasterKey, sealed: &[u8], blobs_bytes: u64) -> Result<Vec<PackedBlob>> {
    let plain = key.open(sealed)?;
    let mut rest = plain.as_slice();
    let mut blobs = Vec::with_capacity(plain.len() / PLAIN_ENTRY_BYTES);
    let mut offset = 0u32;
    while !rest.is_empty() {
        let blob = read_entry(&mut rest, offset)?;
        offset = offset
            .checked_add(blob.length_bytes)
            .ok_or_else(|| malformed("the pack is longer than 4 GiB"))?;
        blobs.push(blob);
    }
    if u64::from(offset) != blobs_bytes {
        return Err(malformed(format!(
            "the header lists {offset} bytes of blobs, the pack has {blobs_bytes}"
        )));
    }
    Ok(blobs)
}

fn read_entry(rest: &mut &[u8], offset_bytes: u32) -> Result<PackedBlob> {
    let cut = || malformed("the pack's header ends within an entry");
    let (&kind, after) = rest.split_first().ok_or_else(cut)?;
    let (kind, compressed) = match kind {
        0 => (BlobKind::Data, false),
        1 => (BlobKind::Tree, false),
        2 => (BlobKind::Data, true),
        3 => (BlobKind::Tree, true),
        other => return Err(malformed(format!("blob type {other} is not known"))),
    };
    let (length, after) = after.split_first_chunk::<4>().ok_or_else(cut)?;
    let (uncompressed_bytes, after) = if compressed {
        let (length, after) = after.split_first_chunk::<4>().ok_or_else(cut)?;
        (Some(u32::from_le_bytes(*length)), after)
    } else {
        (None, after)
    };
    let (id, after) = after.split_first_chunk::<32>().ok_or_else(cut)?;
    let length_bytes = u32::from_le_bytes(*length);
    if (length_bytes as usize) < OVERHEAD_BYTES {
        return Err(malformed(format!("a blob of {length_bytes} bytes is shorter than its seal")));
    }
    *rest = after;
    Ok(PackedBlob { id: BlobId(*id), kind, offset_bytes, length_bytes, uncompressed_bytes })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> MasterKey {
        MasterKey::from_bytes(&[5; 64])
    }

    prop_compose! {
        fn blob()(id: [u8; 32], tree: bool, length_bytes in 32u32..100_000, uncompressed_bytes: Option<u32>) -> PackedBlob {
            let kind = if tree { BlobKind::Tree } else { BlobKind::Data };
            PackedBlob { id: BlobId(id), kind, offset_bytes: 0, length_bytes, uncompressed_bytes }
        }
    }

    proptest! {
        #[test]
        fn headers_round_trip(mut blobs in prop::collection::vec(blob(), 0..50)) {
            let mut offset = 0;
            for blob in &mut blobs {
                blob.offset_bytes = offset;
                offset += blob.length_bytes;
            }
            let sealed = seal_header(&key(), &blobs).unwrap();
            prop_assert_eq!(sealed.len(), header_bytes(&blobs));
            let (header, trailer) = sealed.split_at(sealed.len() - TRAILER_BYTES);
            let pack_bytes = u64::from(offset) + sealed.len() as u64;
            prop_assert_eq!(header_length(trailer.try_into().unwrap(), pack_bytes).unwrap() as usize, header.len());
            prop_assert_eq!(open_header(&key(), header, u64::from(offset)).unwrap(), blobs);
            prop_assert!(open_header(&key(), header, u64::from(offset) + 1).is_err());
        }

        #[test]
        fn authentic_noise_is_refused_or_read_but_never_panics(plain: Vec<u8>, blobs_bytes: u64) {
            let _ = open_header(&key(), &key().seal(&plain).unwrap(), blobs_bytes);
        }
    }

    #[test]
    fn absurd_trailers_are_refused() {
        for (length, pack) in
            [(0u32, 100), (31, 100), (97, 100), (u32::MAX, u64::MAX), (HEADER_LIMIT_BYTES + 1, u64::MAX)]
        {
            assert!(header_length(length.to_le_bytes(), pack).is_err(), "{length} in {pack}");
        }
        assert_eq!(header_length(96u32.to_le_bytes(), 100).unwrap(), 96);
    }
}

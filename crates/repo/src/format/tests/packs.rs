//! Headers of packs.

use super::{beginnings, key};
use crate::crypto::OVERHEAD_BYTES;
use crate::format::BlobKind;
use crate::format::pack::{
    HEADER_LIMIT_BYTES, PackedBlob, TRAILER_BYTES, header_bytes, header_length, open_header, seal_header,
};
use crate::id::BlobId;
use proptest::prelude::*;
use retoma_core::ErrorKind;

/// One of each type, as the format's description lists them: 0 and 1 plain, 2 and 3 compressed.
fn one_of_each() -> [PackedBlob; 4] {
    let (data, tree) = (BlobKind::Data, BlobKind::Tree);
    let mut offset_bytes = 0;
    [(data, 40, None), (tree, 0x0102, None), (data, 33, Some(0x0A0B_0C0D)), (tree, 32, Some(7))].map(
        |(kind, length_bytes, uncompressed_bytes)| {
            let id = BlobId([length_bytes as u8; 32]);
            let blob = PackedBlob { id, kind, offset_bytes, length_bytes, uncompressed_bytes };
            offset_bytes += length_bytes;
            blob
        },
    )
}

/// The same, written down byte by byte.
fn plaintext() -> Vec<u8> {
    let mut plain = Vec::new();
    plain.extend([0, 40, 0, 0, 0]);
    plain.extend([40; 32]);
    plain.extend([1, 0x02, 0x01, 0, 0]);
    plain.extend([2; 32]);
    plain.extend([2, 33, 0, 0, 0, 0x0D, 0x0C, 0x0B, 0x0A]);
    plain.extend([33; 32]);
    plain.extend([3, 32, 0, 0, 0, 7, 0, 0, 0]);
    plain.extend([32; 32]);
    plain
}

const BLOBS_BYTES: u64 = 40 + 0x0102 + 33 + 32;

#[test]
fn the_bytes_of_a_header_are_those_of_the_description() {
    let sealed = seal_header(&key(), &one_of_each()).unwrap();
    let (header, trailer) = sealed.split_last_chunk::<TRAILER_BYTES>().unwrap();
    assert_eq!(key().open(header).unwrap(), plaintext());
    assert_eq!(u32::from_le_bytes(*trailer) as usize, 37 + 37 + 41 + 41 + OVERHEAD_BYTES);
    assert_eq!(header_bytes(&one_of_each()), 37 + 37 + 41 + 41 + 32 + 4);
    assert_eq!(header_bytes(&[]), 36, "a pack of nothing still has a seal and a length");
}

#[test]
fn a_header_written_by_hand_is_read_and_its_order_gives_the_offsets() {
    let read = open_header(&key(), &key().seal(&plaintext()).unwrap(), BLOBS_BYTES).unwrap();
    assert_eq!(read, one_of_each());
    assert_eq!(read.iter().map(|blob| blob.offset_bytes).collect::<Vec<_>>(), [0, 40, 298, 331]);
}

#[test]
fn the_length_of_a_plaintext_is_what_the_seal_leaves_or_what_was_compressed() {
    let lengths = one_of_each().map(|blob| blob.plaintext_bytes());
    assert_eq!(lengths, [8, 0x0102 - 32, 0x0A0B_0C0D, 7]);
    let hostile = PackedBlob { length_bytes: 3, uncompressed_bytes: None, ..one_of_each()[0] };
    assert_eq!(hostile.plaintext_bytes(), 0, "an index may say anything");
}

#[test]
fn an_authentic_header_that_ends_early_is_refused_wherever_it_ends() {
    let whole = plaintext();
    for beginning in beginnings(&whole) {
        let sealed = key().seal(beginning).unwrap();
        let error = open_header(&key(), &sealed, BLOBS_BYTES).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt, "{} bytes", beginning.len());
        // Also where the pack is as short as the entries that are whole say.
        let whole_entries = [37, 74, 115, 156].iter().filter(|end| **end <= beginning.len()).count();
        let covered: u64 = [40, 258, 33, 32][..whole_entries].iter().sum();
        let is_whole = [0, 37, 74, 115].contains(&beginning.len());
        assert_eq!(open_header(&key(), &sealed, covered).is_ok(), is_whole, "{} bytes", beginning.len());
    }
}

#[test]
fn a_type_that_nobody_wrote_is_refused() {
    for kind in 4..=255 {
        let mut plain = plaintext();
        plain[0] = kind;
        let error = open_header(&key(), &key().seal(&plain).unwrap(), BLOBS_BYTES).unwrap_err();
        assert!(error.to_string().contains(&format!("type {kind} ")), "{error}");
    }
}

#[test]
fn a_blob_shorter_than_its_seal_is_refused() {
    for (length, is_read) in [(0u32, false), (31, false), (32, true), (33, true)] {
        let mut plain = vec![0];
        plain.extend(length.to_le_bytes());
        plain.extend([9; 32]);
        let read = open_header(&key(), &key().seal(&plain).unwrap(), length.into());
        assert_eq!(read.is_ok(), is_read, "{length}");
    }
}

#[test]
fn blobs_that_together_are_longer_than_any_offset_are_refused() {
    let entry = |length: u32| {
        let mut entry = vec![1];
        entry.extend(length.to_le_bytes());
        entry.extend([1; 32]);
        entry
    };
    let open = |lengths: [u32; 2]| {
        let total = lengths.iter().map(|length| u64::from(*length)).sum();
        let plain = lengths.map(entry).concat();
        open_header(&key(), &key().seal(&plain).unwrap(), total)
    };
    assert_eq!(open([u32::MAX - 40, 40]).unwrap()[1].offset_bytes, u32::MAX - 40);
    let error = open([u32::MAX - 40, 41]).unwrap_err();
    assert!(error.to_string().contains("4 GiB"), "{error}");
}

#[test]
fn a_header_is_believed_up_to_its_limit_and_to_the_pack_it_lies_in() {
    let limit = HEADER_LIMIT_BYTES;
    for (length, pack_bytes, is_believed) in [
        (limit, u64::from(limit) + 4, true),
        (limit, u64::from(limit) + 3, false),
        (limit + 1, u64::MAX, false),
        (32, 36, true),
        (32, 35, false),
        (32, 4, false),
        (32, 0, false),
    ] {
        let believed = header_length(length.to_le_bytes(), pack_bytes).ok();
        assert_eq!(believed, is_believed.then_some(length), "{length} in {pack_bytes}");
    }
}

#[test]
fn a_header_of_another_repository_is_refused() {
    let sealed = key().seal(&plaintext()).unwrap();
    let other = crate::crypto::MasterKey::from_bytes(&[1; 64]);
    assert!(open_header(&other, &sealed, BLOBS_BYTES).is_err());
}

proptest! {
    /// Whoever holds the key may write any header: what is read covers the blobs exactly, one after the other.
    #[test]
    fn each_changed_byte_is_refused_or_leaves_a_header_that_covers_the_pack(at in 0usize..156, xor in 1u8..=255) {
        let mut plain = plaintext();
        plain[at] ^= xor;
        if let Ok(blobs) = open_header(&key(), &key().seal(&plain).unwrap(), BLOBS_BYTES) {
            let mut end = 0;
            for blob in &blobs {
                prop_assert_eq!(u64::from(blob.offset_bytes), end);
                prop_assert!(blob.length_bytes as usize >= OVERHEAD_BYTES);
                end += u64::from(blob.length_bytes);
            }
            prop_assert_eq!(end, BLOBS_BYTES);
            prop_assert_ne!(blobs, one_of_each().to_vec(), "the change would be invisible");
        }
    }
}

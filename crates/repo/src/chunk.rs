//! Content-defined chunking: FastCDC with a gear table that is secret.
//!
//! A cut depends only on the bytes shortly before it, so that inserted bytes move cuts and do not change every chunk
//! after them. The table comes from the master key (`chunker/1`): who sees only lengths of stored chunks can't tell
//! known files by them. Source: Xia et al., "FastCDC: a Fast and Efficient Content-Defined Chunking Approach for Data
//! Deduplication", USENIX ATC 2016 (normalised chunking, level 2; cut-point skipping).

use crate::crypto::MasterKey;
use sha2::{Digest, Sha256};

/// Lengths of chunks in bytes. `docs/format.md` has the table by which they were chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sizes {
    /// No cut before it (but at the end).
    pub min_bytes: usize,
    /// Cuts are rare before it and frequent after it. A power of two.
    pub average_bytes: usize,
    /// A cut at the latest.
    pub max_bytes: usize,
}

/// For files of any kind.
pub const FILES: Sizes = Sizes { min_bytes: 512 << 10, average_bytes: 1 << 20, max_bytes: 4 << 20 };

/// Finds cuts. Cheap to share: a table of 2 KiB.
#[derive(Clone)]
pub struct Chunker {
    gear: Box<[u64; 256]>,
    sizes: Sizes,
    mask_before: u64,
    mask_after: u64,
}

impl std::fmt::Debug for Chunker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chunker").field("sizes", &self.sizes).finish_non_exhaustive()
    }
}

/// A mask of `bits` ones at the top, where the hash has seen the most bytes.
fn mask(bits: u32) -> u64 {
    !0 << (64 - bits)
}

impl Chunker {
    /// A chunker for one repository.
    pub fn new(key: &MasterKey, sizes: Sizes) -> Self {
        let seed = key.subkey("chunker/1");
        let mut gear = Box::new([0; 256]);
        for (byte, entry) in (0..=u8::MAX).zip(gear.iter_mut()) {
            let hash = Sha256::new().chain_update(seed).chain_update([byte]).finalize();
            let first: [u8; 8] = std::array::from_fn(|i| hash[i]);
            *entry = u64::from_le_bytes(first);
        }
        let bits = sizes.average_bytes.ilog2();
        Self { gear, sizes, mask_before: mask(bits + 2), mask_after: mask(bits - 2) }
    }

    /// The lengths that it keeps to.
    pub fn sizes(&self) -> Sizes {
        self.sizes
    }

    /// The length of the first chunk of `data`, which holds at least `max_bytes` or reaches to the end of the file.
    /// Never 0 but for empty data.
    pub fn cut(&self, data: &[u8]) -> usize {
        let end = data.len().min(self.sizes.max_bytes);
        let middle = self.sizes.average_bytes.min(end);
        let mut hash = 0u64;
        // The hash forgets a byte after 64 more: 64 bytes before the first possible cut fill it.
        let start = self.sizes.min_bytes.saturating_sub(64).min(end);
        let warm = self.sizes.min_bytes.min(end);
        for &byte in &data[start..warm] {
            hash = (hash << 1).wrapping_add(self.gear[usize::from(byte)]);
        }
        self.scan(data, warm..middle, self.mask_before, &mut hash)
            .or_else(|| self.scan(data, middle.max(warm)..end, self.mask_after, &mut hash))
            .unwrap_or(end)
    }

    #[inline]
    fn scan(&self, data: &[u8], range: std::ops::Range<usize>, mask: u64, hash: &mut u64) -> Option<usize> {
        let start = range.start;
        let mut current = *hash;
        for (at, &byte) in data.get(range)?.iter().enumerate() {
            current = (current << 1).wrapping_add(self.gear[usize::from(byte)]);
            if current & mask == 0 {
                return Some(start + at + 1);
            }
        }
        *hash = current;
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SMALL: Sizes = Sizes { min_bytes: 256, average_bytes: 1024, max_bytes: 4096 };

    fn chunker(seed: u8, sizes: Sizes) -> Chunker {
        Chunker::new(&MasterKey::from_bytes(&[seed; 64]), sizes)
    }

    fn noise(seed: u64, length: usize) -> Vec<u8> {
        let mut state = seed | 1;
        let next = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    fn lengths(chunker: &Chunker, mut data: &[u8]) -> Vec<usize> {
        let mut lengths = Vec::new();
        while !data.is_empty() {
            let length = chunker.cut(data);
            lengths.push(length);
            data = &data[length..];
        }
        lengths
    }

    proptest! {
        #[test]
        fn chunks_cover_the_data_within_their_bounds(seed: u64, length in 0usize..40_000) {
            let data = noise(seed, length);
            let lengths = lengths(&chunker(1, SMALL), &data);
            prop_assert_eq!(lengths.iter().sum::<usize>(), length);
            let (last, others) = lengths.split_last().map_or((0, &[][..]), |(last, others)| (*last, others));
            prop_assert!(last <= SMALL.max_bytes);
            prop_assert!(others.iter().all(|length| (SMALL.min_bytes..=SMALL.max_bytes).contains(length)));
        }

        #[test]
        fn inserted_bytes_leave_most_chunks_as_they_were(seed: u64, at in 0usize..100_000) {
            let data = noise(seed, 100_000);
            let mut changed = data.clone();
            changed.insert(at, 7);
            let chunker = chunker(1, SMALL);
            let pieces = |data: &[u8]| -> std::collections::HashSet<Vec<u8>> {
                let mut start = 0;
                lengths(&chunker, data).into_iter().map(|length| { start += length; data[start - length..start].to_vec() }).collect()
            };
            let (before, after) = (pieces(&data), pieces(&changed));
            // Of about a hundred. Most often it is one or two; the cuts need a while to meet again where chance has it so.
            prop_assert!(after.difference(&before).count() <= 20, "{}", after.difference(&before).count());
        }
    }

    #[test]
    fn the_average_is_what_is_asked_for() {
        let data = noise(5, 8 << 20);
        let count = lengths(&chunker(1, SMALL), &data).len();
        let average = data.len() / count;
        assert!((900..1500).contains(&average), "{average}");
    }

    #[test]
    fn another_key_cuts_elsewhere_and_the_same_key_never_changes() {
        let data = noise(5, 50_000);
        assert_ne!(lengths(&chunker(1, SMALL), &data), lengths(&chunker(2, SMALL), &data));
        // Stored files are cut so: a change here makes every later backup store everything again.
        assert_eq!(lengths(&chunker(1, SMALL), &data)[..4], [1617, 1026, 1637, 1740]);
    }

    #[test]
    fn runs_of_one_byte_end_at_the_longest() {
        assert!(
            lengths(&chunker(1, SMALL), &vec![0; 10_000]).iter().all(|length| *length <= SMALL.max_bytes)
        );
    }
}

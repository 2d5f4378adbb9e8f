//! Pages of relation files: their checksums and LSNs.
//!
//! The layout of the header is `PageHeaderData` (`src/include/storage/bufpage.h`), the checksum `pg_checksum_page`
//! (`src/include/storage/checksum_impl.h`): a variant of FNV-1a over 32 columns of words, folded with the block's
//! number, so that a page at another's place is found too.

/// The size of a page in bytes. Servers built with another size are refused.
pub const PAGE_BYTES: usize = 8192;
/// Where `pd_checksum` lies.
const CHECKSUM_AT: usize = 8;
/// Where `pd_upper` lies; 0 in a page that was never used.
const UPPER_AT: usize = 14;

const COLUMNS: usize = 32;
const WORD_BYTES: usize = 4;
const PRIME: u32 = 16_777_619;
const OFFSETS: [u32; COLUMNS] = [
    0x5B1F_36E9,
    0xB852_5960,
    0x02AB_50AA,
    0x1DE6_6D2A,
    0x79FF_467A,
    0x9BB9_F8A3,
    0x217E_7CD2,
    0x83E1_3D2C,
    0xF8D4_474F,
    0xE39E_B970,
    0x42C6_AE16,
    0x9932_16FA,
    0x7B09_3B5D,
    0x98DA_FF3C,
    0xF718_902A,
    0x0B1C_9CDB,
    0xE58F_764B,
    0x1876_36BC,
    0x5D7B_3BB1,
    0xE73D_E7DE,
    0x92BE_C979,
    0xCCA6_C0B2,
    0x304A_0979,
    0x85AA_43D4,
    0x7831_25BB,
    0x6CA8_EAA2,
    0xE407_EAC6,
    0x4B5C_FC3E,
    0x9FBF_8C76,
    0x15CA_20BE,
    0xF2CA_9FD3,
    0x959B_D756,
];

/// What one look at a page tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Never used: nothing but zeros.
    New,
    /// The checksum in its header is its own.
    Right,
    /// It is not: the page is damaged, or was read while it was written.
    Wrong,
}

/// Looks at a page that should have a checksum. `block` counts from the beginning of the relation's fork, over all of its
/// files.
pub fn verdict(page: &[u8; PAGE_BYTES], block: u32) -> Verdict {
    if page[UPPER_AT..UPPER_AT + 2] == [0, 0] {
        return if page.iter().all(|byte| *byte == 0) { Verdict::New } else { Verdict::Wrong };
    }
    let stored = u16::from_le_bytes([page[CHECKSUM_AT], page[CHECKSUM_AT + 1]]);
    if stored == checksum(page, block) { Verdict::Right } else { Verdict::Wrong }
}

/// The LSN of the last record that changed the page.
pub fn lsn(page: &[u8; PAGE_BYTES]) -> u64 {
    let half = |at| u64::from(u32::from_le_bytes([page[at], page[at + 1], page[at + 2], page[at + 3]]));
    half(0) << 32 | half(4)
}

/// The checksum of a page, whatever its header says. Never 0.
pub fn checksum(page: &[u8; PAGE_BYTES], block: u32) -> u16 {
    let mut sums = OFFSETS;
    for (row, words) in page.chunks_exact(COLUMNS * WORD_BYTES).enumerate() {
        let mut words: [u32; COLUMNS] = std::array::from_fn(|at| word(words, at));
        if row == 0 {
            // The checksum itself counts as zero: it is the lower half of the third word.
            words[CHECKSUM_AT / WORD_BYTES] &= 0xFFFF_0000;
        }
        mix(&mut sums, &words);
    }
    for _ in 0..2 {
        mix(&mut sums, &[0; COLUMNS]);
    }
    let folded = sums.iter().fold(0, |all, sum| all ^ sum) ^ block;
    // Below 65536 by the remainder.
    #[allow(clippy::cast_possible_truncation)]
    let checksum = (folded % 65535 + 1) as u16;
    checksum
}

#[inline]
fn word(row: &[u8], at: usize) -> u32 {
    let at = at * WORD_BYTES;
    u32::from_le_bytes([row[at], row[at + 1], row[at + 2], row[at + 3]])
}

#[inline]
fn mix(sums: &mut [u32; COLUMNS], words: &[u32; COLUMNS]) {
    for (sum, word) in sums.iter_mut().zip(words) {
        let mixed = *sum ^ word;
        *sum = mixed.wrapping_mul(PRIME) ^ (mixed >> 17);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn page(seed: u64) -> [u8; PAGE_BYTES] {
        retoma_testkit::bytes(seed, PAGE_BYTES)[..].try_into().unwrap()
    }

    fn sealed(seed: u64, block: u32) -> [u8; PAGE_BYTES] {
        let mut page = page(seed);
        page[UPPER_AT] |= 1;
        let sum = checksum(&page, block);
        page[CHECKSUM_AT..CHECKSUM_AT + 2].copy_from_slice(&sum.to_le_bytes());
        page
    }

    proptest! {
        #[test]
        fn a_page_at_anothers_place_is_found(seed: u64, block in 0u32..60_000, other in 0u32..60_000) {
            prop_assume!(block != other);
            // Two numbers differ in the sum when they differ in what the remainder keeps.
            let page = sealed(seed, block);
            let same = checksum(&page, other) == checksum(&page, block);
            prop_assert_eq!(verdict(&page, other) == Verdict::Right, same);
        }
    }

    /// The sum has 16 bits: one change in 65,535 goes unseen, here and in PostgreSQL.
    #[test]
    fn flipped_bits_are_found() {
        let missed = (0..2000u32).filter(|at| {
            let mut page = sealed(u64::from(*at), at * 7);
            assert_eq!(verdict(&page, at * 7), Verdict::Right);
            let bit = (*at as usize * 2_654_435_761) % (PAGE_BYTES * 8);
            page[bit / 8] ^= 1 << (bit % 8);
            // A page whose `pd_upper` became 0 is not a new one either.
            verdict(&page, at * 7) != Verdict::Wrong
        });
        assert!(missed.count() <= 1);
    }

    #[test]
    fn zeros_are_new_and_almost_zeros_are_wrong() {
        let mut page = [0; PAGE_BYTES];
        assert_eq!(verdict(&page, 7), Verdict::New);
        page[PAGE_BYTES - 1] = 1;
        assert_eq!(verdict(&page, 7), Verdict::Wrong);
    }

    #[test]
    fn the_lsn_is_the_first_eight_bytes() {
        let mut page = [0; PAGE_BYTES];
        page[..8].copy_from_slice(&[0x16, 0, 0, 0, 0x48, 0xD8, 0x74, 0xB3]);
        assert_eq!(lsn(&page), 0x16_B374_D848);
    }
}

//! Messages side by side: as many as there are lanes, and the next one where one ends.

use super::Block;
use sha2::block_api::compress256;

/// So many messages are hashed side by side. More do not help: there are sixteen registers.
pub const LANES: usize = 4;

/// What is to be done for a message: its state, and the blocks that come next.
pub(super) type Work<'a> = (&'a mut [u32; 8], &'a [Block]);

/// Compresses the blocks of each message into its state.
pub(super) fn compress_all(mut waiting: Vec<Work<'_>>) {
    // The longest first, so that none is left alone at the end; taken from the end.
    waiting.retain(|(_, blocks)| !blocks.is_empty());
    waiting.sort_by_key(|(_, blocks)| blocks.len());
    if !x86::is_available() {
        return waiting.into_iter().for_each(|(state, blocks)| compress256(state, blocks));
    }
    let mut lanes: Vec<Work<'_>> = Vec::with_capacity(LANES);
    loop {
        while lanes.len() < LANES
            && let Some(next) = waiting.pop()
        {
            lanes.push(next);
        }
        let Some(count) = lanes.iter().map(|(_, blocks)| blocks.len()).min() else { return };
        match &mut lanes[..] {
            [(state, blocks)] => compress256(state, blocks),
            [a, b] => x86::compress(side_by_side([a, b], count)),
            [a, b, c] => x86::compress(side_by_side([a, b, c], count)),
            [a, b, c, d, ..] => x86::compress(side_by_side([a, b, c, d], count)),
            [] => return,
        }
        for (_, blocks) in &mut lanes {
            *blocks = &blocks[count..];
        }
        lanes.retain(|(_, blocks)| !blocks.is_empty());
    }
}

/// The first `count` blocks of each.
fn side_by_side<'a, const N: usize>(lanes: [&'a mut Work<'_>; N], count: usize) -> [Work<'a>; N] {
    lanes.map(|(state, blocks)| (&mut **state, &blocks[..count]))
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    //! The instructions of x86: Intel, "Intel SHA Extensions", 2013. They keep the state as two vectors, of A, B, E, F and of C, D, G, H,
    //! and do four rounds with four words of the message.

    use super::{Block, Work};
    use std::arch::x86_64::{
        __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32, _mm_set_epi64x,
        _mm_setzero_si128, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32,
        _mm_shuffle_epi8, _mm_shuffle_epi32,
    };

    /// Where the words of the two vectors stand in the state, the lowest place first.
    const ABEF: [usize; 4] = [5, 4, 1, 0];
    const CDGH: [usize; 4] = [7, 6, 3, 2];

    /// The constants of four rounds each (FIPS 180-4, section 4.2.2).
    #[rustfmt::skip]
    const K: [[u32; 4]; 16] = [
        [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5], [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
        [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3], [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
        [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc], [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
        [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7], [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
        [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13], [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
        [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3], [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
        [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5], [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
        [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208], [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
    ];

    /// Whether this processor has the instructions.
    pub(super) fn is_available() -> bool {
        is_x86_feature_detected!("sha")
            && is_x86_feature_detected!("sse2")
            && is_x86_feature_detected!("ssse3")
            && is_x86_feature_detected!("sse4.1")
    }

    /// Compresses equally many blocks of each message, side by side. [`is_available`] must have said yes.
    pub(super) fn compress<const N: usize>(lanes: [Work<'_>; N]) {
        assert!(is_available(), "asked by the caller");
        // SAFETY: `rounds` is unsafe to call only because it is compiled for instructions that not every processor has. The line
        // above has seen that this one has them all. It has no other precondition: it uses no pointers, only values and slices.
        #[allow(unsafe_code)]
        unsafe {
            rounds(lanes);
        }
    }

    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn rounds<const N: usize>(lanes: [Work<'_>; N]) {
        let count = lanes.iter().map(|(_, blocks)| blocks.len()).min().unwrap_or(0);
        let mut abef = [_mm_setzero_si128(); N];
        let mut cdgh = abef;
        for (lane, (state, _)) in lanes.iter().enumerate() {
            (abef[lane], cdgh[lane]) = (vector(ABEF.map(|at| state[at])), vector(CDGH.map(|at| state[at])));
        }
        for at in 0..count {
            let before = (abef, cdgh);
            let mut words = [[_mm_setzero_si128(); 4]; N];
            for (words, (_, blocks)) in words.iter_mut().zip(&lanes) {
                *words = load(&blocks[at]);
            }
            for (four, k) in K.iter().enumerate() {
                let k = vector(*k);
                for lane in 0..N {
                    let w = &mut words[lane];
                    if four >= 4 {
                        w[four % 4] = schedule(w, four);
                    }
                    let input = _mm_add_epi32(w[four % 4], k);
                    cdgh[lane] = _mm_sha256rnds2_epu32(cdgh[lane], abef[lane], input);
                    let input = _mm_shuffle_epi32::<0b1110>(input);
                    abef[lane] = _mm_sha256rnds2_epu32(abef[lane], cdgh[lane], input);
                }
            }
            for lane in 0..N {
                abef[lane] = _mm_add_epi32(abef[lane], before.0[lane]);
                cdgh[lane] = _mm_add_epi32(cdgh[lane], before.1[lane]);
            }
        }
        for (lane, (state, _)) in lanes.into_iter().enumerate() {
            for (places, words) in [(ABEF, abef[lane]), (CDGH, cdgh[lane])] {
                places.into_iter().zip(array(words)).for_each(|(at, word)| state[at] = word);
            }
        }
    }

    /// The next four words of the message, from the sixteen before them (FIPS 180-4, section 6.2.2, step 1).
    #[inline]
    #[target_feature(enable = "sha,sse2,ssse3,sse4.1")]
    fn schedule(w: &[__m128i; 4], four: usize) -> __m128i {
        let [oldest, second, third, newest] = [0, 1, 2, 3].map(|at| w[(four + at) % 4]);
        let sum = _mm_add_epi32(_mm_sha256msg1_epu32(oldest, second), _mm_alignr_epi8::<4>(newest, third));
        _mm_sha256msg2_epu32(sum, newest)
    }

    /// The sixteen words of a block.
    #[inline]
    #[target_feature(enable = "sse2,ssse3")]
    fn load(block: &Block) -> [__m128i; 4] {
        let big_endian = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
        let mut words = [_mm_setzero_si128(); 4];
        for (words, bytes) in words.iter_mut().zip(block.as_chunks::<16>().0) {
            let [low, high] = [0, 1].map(|half| bytes.as_chunks().0[half]).map(i64::from_le_bytes);
            *words = _mm_shuffle_epi8(_mm_set_epi64x(high, low), big_endian);
        }
        words
    }

    /// The first word in the lowest place.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn vector([w0, w1, w2, w3]: [u32; 4]) -> __m128i {
        _mm_set_epi32(w3.cast_signed(), w2.cast_signed(), w1.cast_signed(), w0.cast_signed())
    }

    /// The words that [`vector`] took.
    #[inline]
    #[target_feature(enable = "sse2,sse4.1")]
    fn array(vector: __m128i) -> [u32; 4] {
        [
            _mm_extract_epi32::<0>(vector),
            _mm_extract_epi32::<1>(vector),
            _mm_extract_epi32::<2>(vector),
            _mm_extract_epi32::<3>(vector),
        ]
        .map(i32::cast_unsigned)
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod x86 {
    //! Elsewhere one after the other.

    use super::Work;

    pub(super) fn is_available() -> bool {
        false
    }

    /// Never called.
    pub(super) fn compress<const N: usize>(lanes: [Work<'_>; N]) {
        lanes.into_iter().for_each(|(state, blocks)| super::compress256(state, blocks));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lanes_of_all_lengths_and_numbers() {
        let data: Vec<Block> = (0..40u8).map(|at| [at.wrapping_mul(37); 64]).collect();
        for count in 0..9 {
            let lengths: Vec<usize> = (0..count).map(|at| (at * 7 + count) % 11).collect();
            let mut states = vec![crate::INITIAL; count];
            let work =
                states.iter_mut().zip(&lengths).map(|(state, length)| (state, &data[*length..*length * 2]));
            compress_all(work.collect());
            for (state, length) in states.iter().zip(lengths) {
                let mut expected = crate::INITIAL;
                compress256(&mut expected, &data[length..length * 2]);
                assert_eq!(*state, expected, "{length} blocks of {count} messages");
            }
        }
    }
}

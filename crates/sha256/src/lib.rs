//! SHA-256 (FIPS 180-4) of several messages at once on one core.
//!
//! A round of SHA-256 waits for the one before it. The instructions of the processor begin a new round every cycle or two and take
//! several to end it, so one message leaves most of them idle: four messages side by side are hashed 1.8 times as fast as one after the
//! other (`docs/benchmarks.md`). Which messages are hashed together changes nothing in their hashes.
//!
//! One message, processors without the instructions, and everything that is not a whole number of blocks are left to `sha2`.

mod lanes;

pub use lanes::LANES;

use sha2::block_api::compress256;

/// Bytes of a block.
const BLOCK_BYTES: usize = 64;
/// In the last block these bytes say how long the message is.
const LENGTH_BYTES: usize = 8;
/// The state before the first block (FIPS 180-4, section 5.3.3).
const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

type Block = [u8; BLOCK_BYTES];

/// A message that is being hashed.
#[derive(Clone)]
pub struct Sha256 {
    state: [u32; 8],
    /// The first `total_bytes % 64` bytes wait for a block to be full.
    waiting: Block,
    total_bytes: u64,
}

impl std::fmt::Debug for Sha256 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sha256").field("total_bytes", &self.total_bytes).finish_non_exhaustive()
    }
}

impl Default for Sha256 {
    fn default() -> Self {
        Self::new()
    }
}

impl Sha256 {
    /// An empty message.
    pub fn new() -> Self {
        Self { state: INITIAL, waiting: [0; BLOCK_BYTES], total_bytes: 0 }
    }

    /// Appends `data` to the message.
    pub fn update(&mut self, data: &[u8]) {
        let blocks = self.take(data);
        compress256(&mut self.state, blocks);
    }

    /// The SHA-256 of the message.
    pub fn finalize(mut self) -> [u8; 32] {
        let mut ending = [[0; BLOCK_BYTES]; 2];
        let waiting = self.waiting_bytes();
        ending[0][..waiting].copy_from_slice(&self.waiting[..waiting]);
        ending[0][waiting] = 0x80;
        let last = usize::from(waiting + 1 + LENGTH_BYTES > BLOCK_BYTES);
        let length_bits = self.total_bytes.wrapping_mul(8);
        ending[last][BLOCK_BYTES - LENGTH_BYTES..].copy_from_slice(&length_bits.to_be_bytes());
        compress256(&mut self.state, &ending[..=last]);
        let mut hash = [0; 32];
        for (bytes, word) in hash.as_chunks_mut::<4>().0.iter_mut().zip(self.state) {
            *bytes = word.to_be_bytes();
        }
        hash
    }

    /// Appends `data` but for its whole blocks, which are given back: they must be compressed next.
    fn take<'a>(&mut self, mut data: &'a [u8]) -> &'a [Block] {
        let waiting = self.waiting_bytes();
        self.total_bytes = self.total_bytes.wrapping_add(data.len() as u64);
        if waiting > 0 {
            let filling = data.len().min(BLOCK_BYTES - waiting);
            let (first, rest) = data.split_at(filling);
            self.waiting[waiting..waiting + filling].copy_from_slice(first);
            if waiting + filling < BLOCK_BYTES {
                return &[];
            }
            compress256(&mut self.state, &[self.waiting]);
            data = rest;
        }
        let (blocks, rest) = data.as_chunks();
        self.waiting[..rest.len()].copy_from_slice(rest);
        blocks
    }

    fn waiting_bytes(&self) -> usize {
        usize::from(self.total_bytes.to_le_bytes()[0]) % BLOCK_BYTES
    }
}

/// Appends to each message what stands beside it. Nothing is allocated but a list of the messages.
pub fn update_all(messages: &mut [(&mut Sha256, &[u8])]) {
    let blocks = messages.iter_mut().map(|(message, data)| {
        let blocks = message.take(data);
        (&mut message.state, blocks)
    });
    lanes::compress_all(blocks.collect());
}

/// The SHA-256 of each message.
pub fn digests(messages: &[&[u8]]) -> Vec<[u8; 32]> {
    let mut hashes = vec![Sha256::new(); messages.len()];
    update_all(&mut hashes.iter_mut().zip(messages.iter().copied()).collect::<Vec<_>>());
    hashes.into_iter().map(Sha256::finalize).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use sha2::Digest as _;

    fn theirs(data: &[u8]) -> [u8; 32] {
        sha2::Sha256::digest(data).into()
    }

    /// `count` messages of up to `bytes` each.
    fn messages(count: usize, bytes: usize) -> impl Strategy<Value = Vec<Vec<u8>>> {
        prop::collection::vec(prop::collection::vec(any::<u8>(), 0..bytes), 0..count)
    }

    #[test]
    fn the_examples_of_the_standard() {
        let two_blocks = b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
        let hashes = digests(&[b"abc", two_blocks, b""]);
        let begin = |hash: [u8; 32]| u64::from_be_bytes([0, 1, 2, 3, 4, 5, 6, 7].map(|at| hash[at]));
        let begins: Vec<u64> = hashes.into_iter().map(begin).collect();
        assert_eq!(begins, [0xba78_16bf_8f01_cfea, 0x248d_6a61_d206_38b8, 0xe3b0_c442_98fc_1c14]);
    }

    #[test]
    fn every_length_around_the_ends_of_blocks() {
        let data: Vec<u8> = (0..=255).cycle().take(1000).collect();
        let all: Vec<&[u8]> = (0..=data.len()).map(|length| &data[..length]).collect();
        for (message, hash) in all.iter().zip(digests(&all)) {
            assert_eq!(hash, theirs(message), "{} bytes", message.len());
        }
    }

    proptest! {
        #[test]
        fn many_at_once_are_as_one_by_one(messages in messages(12, 3000)) {
            let slices: Vec<&[u8]> = messages.iter().map(Vec::as_slice).collect();
            let expected: Vec<[u8; 32]> = messages.iter().map(|message| theirs(message)).collect();
            prop_assert_eq!(digests(&slices), expected);
        }

        #[test]
        fn pieces_are_as_the_whole(rounds in prop::collection::vec(messages(6, 300), 1..6)) {
            let mut hashes = vec![Sha256::new(); 6];
            let mut wholes = vec![Vec::new(); 6];
            for (turn, pieces) in rounds.iter().enumerate() {
                for (whole, piece) in wholes.iter_mut().zip(pieces) {
                    whole.extend_from_slice(piece);
                }
                let mut both: Vec<_> = hashes.iter_mut().zip(pieces.iter().map(Vec::as_slice)).collect();
                // Together and one by one in turns: both continue what the other began.
                if turn % 2 == 0 {
                    update_all(&mut both);
                } else {
                    for (hash, piece) in &mut both {
                        hash.update(piece);
                    }
                }
            }
            for (hash, whole) in hashes.into_iter().zip(&wholes) {
                prop_assert_eq!(hash.finalize(), theirs(whole));
            }
        }
    }
}

//! The bytes of stored objects, written down by hand: an encoder and a decoder that change together stay a pair, and
//! every repository out there becomes unreadable. And what becomes of each of those bytes when somebody changes it.

mod envelopes;
mod json;
mod packs;
mod trees;

use crate::crypto::MasterKey;

fn key() -> MasterKey {
    MasterKey::from_bytes(&std::array::from_fn(|at| at as u8 ^ 0x5a))
}

/// An id of 32 times the same byte, as digits.
fn digits(byte: u8) -> String {
    format!("{byte:02x}").repeat(32)
}

/// Every beginning of `whole` but itself.
fn beginnings(whole: &[u8]) -> impl Iterator<Item = &[u8]> {
    (0..whole.len()).map(|length| &whole[..length])
}

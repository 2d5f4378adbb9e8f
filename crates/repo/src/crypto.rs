//! Sealing and opening, as restic does it: AES-256-CTR, then Poly1305-AES over the ciphertext.
//!
//! A sealed message is `nonce (16) ‖ ciphertext ‖ tag (16)`. Nonces are random, 16 bytes: two messages under one key
//! share a nonce with probability 2⁻⁶⁴ only after 2³² messages. The tag covers the ciphertext and, through the nonce's
//! use in its one-time key, the nonce. Source: restic's repository specification, "Keys, Encryption and MAC"; D. J.
//! Bernstein, "The Poly1305-AES message-authentication code".
//!
//! Keys of our own lanes are derived from the master key with HKDF-SHA-256, one label each ([`MasterKey::subkey`]).

use aes::Aes256;
use aes::cipher::{BlockCipherEncrypt, KeyInit as _, KeyIvInit, StreamCipher};
use hkdf::Hkdf;
use poly1305::Poly1305;
use retoma_core::{Error, ErrorKind, Result, error::codes, units::counted};
use sha2::Sha256;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Length of the nonce in front of a sealed message.
pub const NONCE_BYTES: usize = 16;
/// Length of the tag at its end.
pub const TAG_BYTES: usize = 16;
/// What sealing adds to a message.
pub const OVERHEAD_BYTES: usize = NONCE_BYTES + TAG_BYTES;

/// The keys that seal everything in a repository.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct MasterKey {
    /// AES-256 key of the cipher.
    pub(crate) encrypt: [u8; 32],
    /// AES-128 key that makes Poly1305's one-time key from the nonce.
    pub(crate) mac_k: [u8; 16],
    /// The polynomial's key.
    pub(crate) mac_r: [u8; 16],
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

/// Fills `bytes` from the system's random number generator.
///
/// # Errors
/// `Unavailable` where the system gives none.
pub fn random(bytes: &mut [u8]) -> Result<()> {
    getrandom::fill(bytes).map_err(|error| {
        Error::new(ErrorKind::Unavailable, codes::IO_FAILED, format!("no random numbers: {error}"))
    })
}

impl MasterKey {
    /// A new random key.
    ///
    /// # Errors
    /// `Unavailable` where the system gives no random numbers.
    pub fn generate() -> Result<Self> {
        let mut bytes = [0; 64];
        random(&mut bytes)?;
        let key = Self::from_bytes(&bytes);
        bytes.zeroize();
        Ok(key)
    }

    /// The key made of 64 bytes: cipher key, then `k` and `r` of the authentication code.
    pub fn from_bytes(bytes: &[u8; 64]) -> Self {
        let mut key = Self { encrypt: [0; 32], mac_k: [0; 16], mac_r: [0; 16] };
        key.encrypt.copy_from_slice(&bytes[..32]);
        key.mac_k.copy_from_slice(&bytes[32..48]);
        key.mac_r.copy_from_slice(&bytes[48..]);
        key
    }

    /// What [`MasterKey::from_bytes`] takes.
    pub(crate) fn to_bytes(&self) -> Zeroizing<[u8; 64]> {
        let mut bytes = Zeroizing::new([0; 64]);
        bytes[..32].copy_from_slice(&self.encrypt);
        bytes[32..48].copy_from_slice(&self.mac_k);
        bytes[48..].copy_from_slice(&self.mac_r);
        bytes
    }

    /// A key of its own for one lane or use; `label` is part of the format (`docs/format.md`).
    pub fn subkey(&self, label: &str) -> [u8; 32] {
        let input = self.to_bytes();
        let mut output = [0; 32];
        // HKDF expands to at most 255 × 32 bytes, and 32 are asked for.
        let expanded = Hkdf::<Sha256>::new(Some(b"retoma/1"), &*input).expand(label.as_bytes(), &mut output);
        debug_assert!(expanded.is_ok());
        output
    }

    /// Seals `buffer[NONCE_BYTES..]` in place: the nonce is written in front, the tag appended.
    ///
    /// # Errors
    /// `Unavailable` where the system gives no random numbers.
    pub fn seal_in_place(&self, buffer: &mut Vec<u8>) -> Result<()> {
        assert!(buffer.len() >= NONCE_BYTES, "the caller leaves room for the nonce");
        let mut nonce = [0; NONCE_BYTES];
        random(&mut nonce)?;
        buffer[..NONCE_BYTES].copy_from_slice(&nonce);
        self.cipher(&nonce).apply_keystream(&mut buffer[NONCE_BYTES..]);
        let tag = self.tag(&nonce, &buffer[NONCE_BYTES..]);
        buffer.extend_from_slice(&tag);
        Ok(())
    }

    /// Seals a copy of `plaintext`.
    ///
    /// # Errors
    /// `Unavailable` where the system gives no random numbers.
    pub fn seal(&self, plaintext: &[u8]) -> Result<Vec<u8>> {
        let mut buffer = Vec::with_capacity(plaintext.len() + OVERHEAD_BYTES);
        buffer.resize(NONCE_BYTES, 0);
        buffer.extend_from_slice(plaintext);
        self.seal_in_place(&mut buffer)?;
        Ok(buffer)
    }

    /// Opens a sealed message in place and gives the part of `sealed` that is the plaintext.
    ///
    /// # Errors
    /// `Corrupt` with `R0203` when the tag does not fit; then `sealed` is as it was.
    pub fn open_in_place<'a>(&self, sealed: &'a mut [u8]) -> Result<&'a mut [u8]> {
        let Some(body_end) = sealed.len().checked_sub(TAG_BYTES).filter(|end| *end >= NONCE_BYTES) else {
            let found = counted(sealed.len(), "byte", "bytes");
            return Err(not_authentic(format!(
                "{found} instead of the {OVERHEAD_BYTES} or more of a sealed message"
            )));
        };
        let mut nonce = [0; NONCE_BYTES];
        nonce.copy_from_slice(&sealed[..NONCE_BYTES]);
        let tag = self.tag(&nonce, &sealed[NONCE_BYTES..body_end]);
        let different =
            tag.iter().zip(&sealed[body_end..]).fold(0, |sum, (ours, theirs)| sum | (ours ^ theirs));
        if different != 0 {
            return Err(not_authentic("the authentication code does not fit".to_owned()));
        }
        let body = &mut sealed[NONCE_BYTES..body_end];
        self.cipher(&nonce).apply_keystream(body);
        Ok(body)
    }

    /// Opens a copy of a sealed message.
    ///
    /// # Errors
    /// See [`MasterKey::open_in_place`].
    pub fn open(&self, sealed: &[u8]) -> Result<Vec<u8>> {
        let mut buffer = sealed.to_vec();
        let length = self.open_in_place(&mut buffer)?.len();
        buffer.copy_within(NONCE_BYTES..NONCE_BYTES + length, 0);
        buffer.truncate(length);
        Ok(buffer)
    }

    fn cipher(&self, nonce: &[u8; NONCE_BYTES]) -> ctr::Ctr128BE<Aes256> {
        ctr::Ctr128BE::new(&self.encrypt.into(), &(*nonce).into())
    }

    fn tag(&self, nonce: &[u8; NONCE_BYTES], ciphertext: &[u8]) -> [u8; TAG_BYTES] {
        let mut pad = (*nonce).into();
        aes::Aes128::new(&self.mac_k.into()).encrypt_block(&mut pad);
        let mut one_time = [0; 32];
        one_time[..16].copy_from_slice(&self.mac_r);
        one_time[16..].copy_from_slice(&pad);
        let tag = Poly1305::new(&one_time.into()).compute_unpadded(ciphertext);
        one_time.zeroize();
        tag.into()
    }
}

fn not_authentic(message: String) -> Error {
    Error::new(ErrorKind::Corrupt, codes::NOT_AUTHENTIC, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> MasterKey {
        MasterKey::from_bytes(&std::array::from_fn(|i| i as u8))
    }

    /// From restic's own test of its authentication code (Bernstein's appendix B, first vector).
    #[test]
    fn the_tag_is_poly1305_aes() {
        let key = MasterKey {
            encrypt: [0; 32],
            mac_k: *b"\xec\x07\x4c\x83\x55\x80\x74\x17\x01\x42\x5b\x62\x32\x35\xad\xd6",
            mac_r: *b"\x85\x1f\xc4\x0c\x34\x67\xac\x0b\xe0\x5c\xc2\x04\x04\xf3\xf7\x00",
        };
        let nonce = b"\xfb\x44\x73\x50\xc4\xe8\x68\xc5\x2a\xc3\x27\x5c\xf9\xd4\x32\x7e";
        let tag = b"\xf4\xc6\x33\xc3\x04\x4f\xc1\x45\xf8\x4f\x33\x5c\xb8\x19\x53\xde";
        assert_eq!(&key.tag(nonce, b"\xf3\xf6"), tag);
    }

    proptest! {
        #[test]
        fn sealed_messages_open(plaintext: Vec<u8>) {
            let sealed = key().seal(&plaintext).unwrap();
            prop_assert_eq!(sealed.len(), plaintext.len() + OVERHEAD_BYTES);
            prop_assert_eq!(key().open(&sealed).unwrap(), plaintext);
        }

        #[test]
        fn every_flipped_bit_and_every_cut_is_found(plaintext in prop::collection::vec(any::<u8>(), 0..40)) {
            let sealed = key().seal(&plaintext).unwrap();
            for bit in 0..sealed.len() * 8 {
                let mut damaged = sealed.clone();
                damaged[bit / 8] ^= 1 << (bit % 8);
                prop_assert_eq!(key().open(&damaged).unwrap_err().code(), codes::NOT_AUTHENTIC);
            }
            for length in 0..sealed.len() {
                prop_assert!(key().open(&sealed[..length]).is_err());
            }
        }
    }

    #[test]
    fn subkeys_differ_by_label_and_key_and_stay_the_same() {
        let other = MasterKey::from_bytes(&[1; 64]);
        assert_ne!(key().subkey("a"), key().subkey("b"));
        assert_ne!(key().subkey("a"), other.subkey("a"));
        // Stored chunks depend on this value: a change here is a change of the format.
        let hex = crate::id::hex(&key().subkey("chunker/1"));
        assert_eq!(hex, "a4dc352836d2ee3fe37b340d50eeb951ce0cda0231674413f13b6ab91b4330d3");
    }
}

//! The envelope of objects that are not in packs: index files, snapshots, locks (restic: "unpacked data").
//!
//! Plaintext is the byte 2 followed by zstd, or, in repositories of version 1, bare JSON (`{` or `[`). The config is
//! never compressed. The stored bytes are sealed; their SHA-256 is the object's name.

use super::malformed;
use crate::compress;
use crate::crypto::{MasterKey, NONCE_BYTES, OVERHEAD_BYTES};
use retoma_core::Result;

/// The largest plaintext that is believed: no index or snapshot comes near.
const LIMIT_BYTES: usize = 1 << 30;

/// Seals `json`, compressed where the repository's version has compression.
///
/// # Errors
/// `Unavailable` where the system gives no random numbers.
pub fn seal(key: &MasterKey, json: &[u8], compressed: bool) -> Result<Vec<u8>> {
    if !compressed {
        return key.seal(json);
    }
    let mut buffer = Vec::with_capacity(json.len() / 2 + OVERHEAD_BYTES + 64);
    buffer.resize(NONCE_BYTES, 0);
    buffer.push(2);
    compress::append(json, &mut buffer)?;
    key.seal_in_place(&mut buffer)?;
    Ok(buffer)
}

/// Opens and decompresses what [`seal`] made, or what restic wrote in either version.
///
/// # Errors
/// `Corrupt`: not authentic, or authentic and not understood.
pub fn open(key: &MasterKey, mut sealed: Vec<u8>) -> Result<Vec<u8>> {
    let plaintext = key.open_in_place(&mut sealed)?;
    match plaintext.first() {
        Some(b'{' | b'[') => Ok(plaintext.to_vec()),
        Some(2) => compress::decompress_unknown(&plaintext[1..], LIMIT_BYTES),
        Some(other) => Err(malformed(format!("encoding {other} is not known"))),
        None => Err(malformed("the object is empty")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn sealed_json_opens(body in ".{0,200}") {
            let key = MasterKey::from_bytes(&[7; 64]);
            let json = serde_json::to_vec(&body).unwrap();
            prop_assert_eq!(open(&key, seal(&key, &json, true).unwrap()).unwrap(), json);
        }

        #[test]
        fn anything_authentic_is_read_or_refused_but_never_panics(plaintext: Vec<u8>) {
            let key = MasterKey::from_bytes(&[7; 64]);
            let _ = open(&key, key.seal(&plaintext).unwrap());
        }
    }

    #[test]
    fn version_one_objects_are_bare_json() {
        let key = MasterKey::from_bytes(&[7; 64]);
        assert_eq!(open(&key, key.seal(b"{}").unwrap()).unwrap(), b"{}");
        assert!(open(&key, key.seal(b"\x03{}").unwrap()).is_err());
        assert!(open(&key, key.seal(b"").unwrap()).is_err());
    }
}

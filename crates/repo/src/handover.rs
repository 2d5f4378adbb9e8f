//! Keys of open repositories, as one process hands them to another of its own that shall not derive them anew.
//!
//! A key fits one repository, by the id in its config, and only as long as the key file is there that it came from: whoever
//! removes a password takes effect here too. Nothing of this is ever stored; bytes that held a key are overwritten.

use crate::Repository;
use crate::crypto::MasterKey;
use crate::id::{KeyId, RepositoryId};
use std::sync::Arc;
use zeroize::{Zeroize as _, Zeroizing};

/// What the bytes begin with: what they are, and in which form.
const MAGIC: &[u8; 16] = b"retoma keys 1\r\n\0";
/// Repository, key file, master key.
const RECORD_BYTES: usize = 32 + 32 + 64;
/// More keys are not handed over; with these, everything fits into a pipe of one page.
pub const KEYS: usize = 31;
/// The longest form, in bytes.
pub const LIMIT_BYTES: usize = MAGIC.len() + KEYS * RECORD_BYTES;

/// What opens one repository in place of its password.
#[derive(Debug, Clone)]
pub struct HandedKey {
    pub(crate) repository: RepositoryId,
    pub(crate) key_id: KeyId,
    pub(crate) key: Arc<MasterKey>,
}

impl HandedKey {
    /// The key of an open repository.
    pub fn of(repository: &Repository) -> Self {
        Self { repository: repository.config().id, key_id: repository.key_id(), key: repository.shared_key() }
    }

    /// Which repository it opens.
    pub fn repository(&self) -> RepositoryId {
        self.repository
    }
}

/// The first [`KEYS`] of these as bytes, to be sent where nobody else reads.
pub fn pack(keys: &[HandedKey]) -> Zeroizing<Vec<u8>> {
    // Never grown: a smaller copy would be left behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(LIMIT_BYTES));
    bytes.extend_from_slice(MAGIC);
    for HandedKey { repository, key_id, key } in keys.iter().take(KEYS) {
        bytes.extend_from_slice(&repository.0);
        bytes.extend_from_slice(&key_id.0);
        bytes.extend_from_slice(&*key.to_bytes());
    }
    bytes
}

/// Reads what [`pack`] wrote; nothing of what is not whole.
pub fn unpack(bytes: &[u8]) -> Vec<HandedKey> {
    let Some(records) = bytes.strip_prefix(MAGIC) else { return Vec::new() };
    if records.len() % RECORD_BYTES != 0 {
        return Vec::new();
    }
    records.chunks_exact(RECORD_BYTES).map(record).collect()
}

fn record(bytes: &[u8]) -> HandedKey {
    let (mut repository, mut key_id, mut key) = ([0; 32], [0; 32], [0; 64]);
    repository.copy_from_slice(&bytes[..32]);
    key_id.copy_from_slice(&bytes[32..64]);
    key.copy_from_slice(&bytes[64..RECORD_BYTES]);
    let master = Arc::new(MasterKey::from_bytes(&key));
    key.zeroize();
    HandedKey { repository: RepositoryId(repository), key_id: KeyId(key_id), key: master }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn some(number: u8) -> HandedKey {
        let key = Arc::new(MasterKey::from_bytes(&[number; 64]));
        HandedKey { repository: RepositoryId([number; 32]), key_id: KeyId([!number; 32]), key }
    }

    fn shown(keys: &[HandedKey]) -> Vec<(RepositoryId, KeyId, Vec<u8>)> {
        keys.iter().map(|it| (it.repository, it.key_id, it.key.to_bytes().to_vec())).collect()
    }

    #[test]
    fn what_is_packed_is_unpacked_up_to_the_limit() {
        for count in [0, 1, 2, KEYS, KEYS + 1] {
            let keys: Vec<HandedKey> = (0..count).map(|number| some(u8::try_from(number).unwrap())).collect();
            let packed = pack(&keys);
            assert!(packed.len() <= LIMIT_BYTES && LIMIT_BYTES <= 4096);
            assert_eq!(shown(&unpack(&packed)), shown(&keys[..count.min(KEYS)]));
        }
    }

    #[test]
    fn a_key_is_in_no_debug_text() {
        let shown = format!("{:?}", some(7));
        assert!(shown.contains("MasterKey(…)") && !shown.contains("[7, 7"), "{shown}");
    }

    proptest! {
        #[test]
        fn what_is_not_whole_is_nothing(cut in 1_usize..RECORD_BYTES, bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let packed = pack(&[some(1), some(2)]);
            prop_assert!(unpack(&packed[..packed.len() - cut]).is_empty());
            prop_assert!(bytes.starts_with(MAGIC) || unpack(&bytes).is_empty());
        }
    }
}

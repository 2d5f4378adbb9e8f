//! Names of stored things: SHA-256 hashes, 32 bytes, written as 64 lower-case hexadecimal digits.
//!
//! Each kind has its own type, so that a pack's id can't be passed where a blob's is wanted.

use retoma_core::{Error, ErrorKind, Result, error::codes};
use sha2::{Digest, Sha256};
use std::fmt;

/// Writes `bytes` as lower-case hexadecimal digits.
pub(crate) fn hex(bytes: &[u8; 32]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = String::with_capacity(64);
    for byte in bytes {
        text.push(char::from(DIGITS[usize::from(byte >> 4)]));
        text.push(char::from(DIGITS[usize::from(byte & 15)]));
    }
    text
}

/// Reads 64 hexadecimal digits, lower case only, as restic writes them.
pub(crate) fn unhex(text: &str) -> Option<[u8; 32]> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let text = text.as_bytes();
    if text.len() != 64 {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(bytes)
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident)*) => {$(
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(pub [u8; 32]);

        impl $name {
            /// The id of `bytes`: their SHA-256.
            pub fn of(bytes: &[u8]) -> Self {
                Self(Sha256::digest(bytes).into())
            }

            /// The id of each of them, hashed side by side: several in much less than the sum of their times.
            pub fn of_each(each: &[&[u8]]) -> Vec<Self> {
                retoma_sha256::digests(each).into_iter().map(Self).collect()
            }

            /// Reads 64 lower-case hexadecimal digits.
            ///
            /// # Errors
            /// `Invalid` for anything else.
            pub fn parse(text: &str) -> Result<Self> {
                unhex(text).map(Self).ok_or_else(|| {
                    let shown: String = text.chars().take(80).collect();
                    Error::new(ErrorKind::Invalid, codes::MALFORMED, format!("`{}` is not an id", shown.escape_debug()))
                })
            }

            /// 64 lower-case hexadecimal digits.
            pub fn to_hex(self) -> String {
                hex(&self.0)
            }

            /// The first eight digits: enough for people.
            pub fn short(self) -> String {
                self.to_hex()[..8].to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.to_hex())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.to_hex())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Visitor;
                impl serde::de::Visitor<'_> for Visitor {
                    type Value = $name;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str("64 lower-case hexadecimal digits")
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$name, E> {
                        unhex(text).map($name).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
                    }
                }
                deserializer.deserialize_str(Visitor)
            }
        }
    )*};
}

ids! {
    /// A blob: the SHA-256 of its plaintext.
    BlobId
    /// A pack: the SHA-256 of the stored file.
    PackId
    /// An index file: the SHA-256 of the stored file.
    IndexId
    /// A snapshot: the SHA-256 of the stored file.
    SnapshotId
    /// A key file: the SHA-256 of the stored file.
    KeyId
    /// A recipient: the SHA-256 of the stored file.
    RecipientId
    /// A lock: the SHA-256 of the stored file.
    LockId
    /// A mark of prune: the SHA-256 of the stored file.
    MarkId
    /// A repository: 32 random bytes, from its config.
    RepositoryId
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn hex_round_trips(bytes: [u8; 32]) {
            prop_assert_eq!(BlobId::parse(&BlobId(bytes).to_hex()).unwrap(), BlobId(bytes));
        }

        #[test]
        fn other_text_is_refused(text in ".{0,70}") {
            if !(text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))) {
                prop_assert!(BlobId::parse(&text).is_err());
            }
        }
    }

    #[test]
    fn the_hash_is_sha_256() {
        let empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(BlobId::of(b"").to_hex(), empty);
    }
}

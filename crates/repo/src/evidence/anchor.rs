//! An anchor: one record's place and hash, kept where a forger of the repository does not reach.

use super::record::RecordHash;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// A record's place in its chain and its hash. As text `SEQUENCE:HASH`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Anchor {
    /// Its place, from 1.
    pub sequence: u64,
    /// Its hash.
    pub hash: RecordHash,
}

impl fmt::Display for Anchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.sequence, self.hash)
    }
}

impl FromStr for Anchor {
    type Err = Error;
    fn from_str(text: &str) -> Result<Self> {
        let parse = || {
            let (sequence, hash) = text.split_once(':')?;
            let sequence = sequence.bytes().all(|b| b.is_ascii_digit()).then(|| sequence.parse().ok())??;
            Some(Self { sequence, hash: RecordHash::parse(hash).ok()? })
        };
        parse().filter(|anchor| anchor.sequence > 0).ok_or_else(|| {
            let shown: String = text.chars().take(100).collect();
            let message = format!("`{}` is not an anchor", shown.escape_debug());
            Error::new(ErrorKind::Invalid, codes::EVIDENCE_KEY, message)
                .with_hint("write `SEQUENCE:HASH`, as `evidence verify` and reports print it")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn anchors_round_trip(sequence in 1u64.., hash: [u8; 32]) {
            let anchor = Anchor { sequence, hash: RecordHash(hash) };
            prop_assert_eq!(anchor.to_string().parse::<Anchor>().unwrap(), anchor);
        }

        #[test]
        fn other_text_is_refused(text in ".{0,80}") {
            prop_assert!(text.parse::<Anchor>().is_err());
        }
    }

    #[test]
    fn no_record_has_the_sequence_zero() {
        assert!(format!("0:{}", "0".repeat(64)).parse::<Anchor>().is_err());
        assert!(format!("+1:{}", "0".repeat(64)).parse::<Anchor>().is_err());
        assert!(format!("1:{}", "0".repeat(64)).parse::<Anchor>().is_ok());
    }
}

//! A share of a split key, as people keep it: in a file, on paper, in a QR code. `docs/keys.md`, "Shares".
//!
//! What is written down is typed again on the worst day. So each line has a checksum that finds every single wrong character and
//! every two that changed places, and says which line it is; the whole has one more. What is read is hostile.

mod lines;

use crate::error::codes;
use crate::{Error, ErrorKind, Result};
use sha2::{Digest, Sha256};
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// Bytes of the secret that is split, and so of each share's value.
pub const VALUE_BYTES: usize = 32;
/// The largest text that is looked at as a share.
pub const LIMIT_BYTES: usize = 64 * 1024;
/// Version, set, threshold, total, index, value, checksum.
const BYTES: usize = 1 + 8 + 3 + VALUE_BYTES + CHECKSUM_BYTES;
const CHECKSUM_BYTES: usize = 6;
const VERSION: u8 = 1;
/// Five bits each.
const SYMBOLS: usize = BYTES * 8 / 5;
/// What a share on one line begins with, as in its QR code.
const PREFIX: &str = "RETOMA-SHARE:";

/// Which shares belong together: a hash of the secret, so that a joined secret can be told from a wrong one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SetId(pub [u8; 8]);

impl SetId {
    /// The set that `secret` is split into.
    pub fn of(secret: &[u8; VALUE_BYTES]) -> Self {
        let mut set = [0; 8];
        set.copy_from_slice(
            &Sha256::new().chain_update(b"retoma/share-set/1").chain_update(secret).finalize()[..8],
        );
        Self(set)
    }

    /// Reads what [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<Self> {
        let is_written_so =
            text.len() == 16 && text.bytes().all(|c| c.is_ascii_digit() || (b'a'..=b'f').contains(&c));
        let number = is_written_so.then(|| u64::from_str_radix(text, 16).ok()).flatten()?;
        Some(Self(number.to_be_bytes()))
    }
}

impl fmt::Display for SetId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// One share. Not printable: who has enough of them has the key.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Share {
    #[zeroize(skip)]
    set: SetId,
    threshold: u8,
    total: u8,
    index: u8,
    value: [u8; VALUE_BYTES],
}

impl fmt::Debug for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Share({} of {}, set {}, …)", self.index, self.total, self.set)
    }
}

impl Share {
    /// Share `index` of `total`, of which `threshold` open.
    ///
    /// # Errors
    /// `Invalid` with `R0231` unless 1 ≤ `threshold` ≤ `total` and 1 ≤ `index` ≤ `total`.
    pub fn new(
        set: SetId,
        (threshold, total): (u8, u8),
        index: u8,
        value: [u8; VALUE_BYTES],
    ) -> Result<Self> {
        if threshold == 0 || threshold > total || index == 0 || index > total {
            return Err(malformed(format!(
                "no share is number {index} of {total} with a threshold of {threshold}"
            )));
        }
        Ok(Self { set, threshold, total, index, value })
    }

    /// Which shares it belongs to.
    pub fn set(&self) -> SetId {
        self.set
    }

    /// How many are needed.
    pub fn threshold(&self) -> u8 {
        self.threshold
    }

    /// How many there are.
    pub fn total(&self) -> u8 {
        self.total
    }

    /// Its number, from 1.
    pub fn index(&self) -> u8 {
        self.index
    }

    /// The secret part.
    pub fn value(&self) -> &[u8; VALUE_BYTES] {
        &self.value
    }

    /// What may be stored in the open to tell this share from an altered one: a hash of 256 random bits.
    pub fn check(&self) -> [u8; 16] {
        let hash = Sha256::new().chain_update(b"retoma/share-check/1").chain_update(self.set.0);
        let hash = hash.chain_update([self.threshold, self.total, self.index]).chain_update(self.value);
        let mut check = [0; 16];
        check.copy_from_slice(&hash.finalize()[..16]);
        check
    }

    /// The lines that are printed and typed: `1  ABCD EFGH JKMN PQRS  T0`.
    pub fn lines(&self) -> Vec<Zeroizing<String>> {
        lines::write(&self.symbols())
    }

    /// All on one line, as in the QR code.
    pub fn code(&self) -> Zeroizing<String> {
        let mut code = Zeroizing::new(String::with_capacity(PREFIX.len() + SYMBOLS));
        code.push_str(PREFIX);
        self.symbols().iter().for_each(|symbol| code.push(lines::letter(*symbol)));
        code
    }

    /// Reads a share from lines or from one line; what stands on lines that begin with `#` is passed over.
    ///
    /// # Errors
    /// `Invalid` with `R0231`, which names the line and never its contents; `Unsupported` for a newer version.
    pub fn parse(text: &str) -> Result<Self> {
        if text.len() > LIMIT_BYTES {
            return Err(malformed("the text is too long for a share"));
        }
        let mut said =
            text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).peekable();
        let is_one_line = said
            .peek()
            .is_some_and(|line| line.get(..PREFIX.len()).is_some_and(|it| it.eq_ignore_ascii_case(PREFIX)));
        let symbols = if is_one_line {
            let code = said.next().and_then(|line| line.get(PREFIX.len()..)).unwrap_or_default();
            if said.next().is_some() {
                return Err(malformed("a share on one line is followed by more"));
            }
            lines::read_code(code)?
        } else {
            lines::read(said)?
        };
        Self::from_symbols(&symbols)
    }

    fn symbols(&self) -> Zeroizing<[u8; SYMBOLS]> {
        let mut bytes = Zeroizing::new([0; BYTES]);
        bytes[0] = VERSION;
        bytes[1..9].copy_from_slice(&self.set.0);
        bytes[9..12].copy_from_slice(&[self.threshold, self.total, self.index]);
        bytes[12..12 + VALUE_BYTES].copy_from_slice(&self.value);
        let sum = checksum(&bytes[..BYTES - CHECKSUM_BYTES]);
        bytes[BYTES - CHECKSUM_BYTES..].copy_from_slice(&sum);
        let mut symbols = Zeroizing::new([0; SYMBOLS]);
        for (at, symbol) in symbols.iter_mut().enumerate() {
            *symbol = (0..5).fold(0, |symbol, bit| {
                let bit = at * 5 + bit;
                symbol << 1 | (bytes[bit / 8] >> (7 - bit % 8) & 1)
            });
        }
        symbols
    }

    fn from_symbols(symbols: &[u8; SYMBOLS]) -> Result<Self> {
        let mut bytes = Zeroizing::new([0_u8; BYTES]);
        for bit in 0..BYTES * 8 {
            bytes[bit / 8] = bytes[bit / 8] << 1 | (symbols[bit / 5] >> (4 - bit % 5) & 1);
        }
        let (told, sum) = bytes.split_at(BYTES - CHECKSUM_BYTES);
        if checksum(told) != sum {
            return Err(malformed("its checksum does not fit, though each line fits its own"));
        }
        if told[0] != VERSION {
            let message = format!("it is of version {}, and this program knows {VERSION}", told[0]);
            return Err(Error::new(ErrorKind::Unsupported, codes::SHARE_MALFORMED, message)
                .with_hint("use the version of Retoma that made the share, or a newer one"));
        }
        let (mut set, mut value) = ([0; 8], Zeroizing::new([0; VALUE_BYTES]));
        set.copy_from_slice(&told[1..9]);
        value.copy_from_slice(&told[12..]);
        Self::new(SetId(set), (told[9], told[10]), told[11], *value)
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut sum = [0; CHECKSUM_BYTES];
    sum.copy_from_slice(
        &Sha256::new().chain_update(b"retoma/share/1").chain_update(bytes).finalize()[..CHECKSUM_BYTES],
    );
    sum
}

fn malformed(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Invalid, codes::SHARE_MALFORMED, why.into())
        .with_hint("compare it with the printed page, character by character, or use another share")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn any_share() -> impl Strategy<Value = Share> {
        (any::<[u8; 8]>(), any::<[u8; 32]>(), 1..=255_u8).prop_flat_map(|(set, value, total)| {
            (1..=total, 1..=total).prop_map(move |(threshold, index)| {
                Share::new(SetId(set), (threshold, total), index, value).unwrap()
            })
        })
    }

    fn typed(share: &Share) -> String {
        share.lines().iter().flat_map(|line| [line.as_str(), "\n"]).collect()
    }

    proptest! {
        #[test]
        fn a_share_is_read_as_it_was_written(share in any_share()) {
            prop_assert_eq!(&Share::parse(&typed(&share)).unwrap(), &share);
            prop_assert_eq!(&Share::parse(&share.code()).unwrap(), &share);
            // As people type: in small letters, with O for 0 and l for 1, with other spaces, in another order.
            let sloppy = typed(&share).to_lowercase().replace("  ", "\t");
            let mut lines: Vec<String> = sloppy.lines().map(|line| {
                let (number, rest) = line.split_at(1);
                format!("# a note\n {number}: {}", rest.replace('0', "o").replace('1', "l"))
            }).collect();
            lines.reverse();
            prop_assert_eq!(&Share::parse(&lines.join("\n\n")).unwrap(), &share);
        }

        #[test]
        fn whatever_is_read_does_no_harm(text in "\\PC{0,200}", bytes in any::<Vec<u8>>()) {
            prop_assert!(Share::parse(&text).is_err());
            let code = format!("{PREFIX}{text}");
            prop_assert!(Share::parse(&code).is_err());
            prop_assert!(Share::parse(&String::from_utf8_lossy(&bytes)).is_err());
        }
    }

    #[test]
    fn each_wrong_character_and_each_exchange_is_found_and_its_line_named() {
        let share = Share::new(SetId([7; 8]), (3, 5), 2, [0x5a; 32]).unwrap();
        let text = typed(&share);
        let places: Vec<usize> =
            text.char_indices().filter(|(_, c)| c.is_ascii_alphanumeric()).map(|(at, _)| at).collect();
        for &at in &places {
            let line = text[..at].lines().count();
            if text[..at].is_empty() || text[..at].ends_with('\n') {
                continue; // The line's number.
            }
            for wrong in lines::ALPHABET.chars().filter(|c| !text[at..].starts_with(*c)) {
                let changed = format!("{}{wrong}{}", &text[..at], &text[at + 1..]);
                let error = Share::parse(&changed).unwrap_err();
                assert!(error.to_string().contains(&format!("line {line}")), "{error}");
            }
        }
        for pair in places.windows(2) {
            let (a, b) = (&text[pair[0]..=pair[0]], &text[pair[1]..=pair[1]]);
            if a == b
                || text[..pair[0]].is_empty()
                || text[..pair[0]].ends_with('\n')
                || text[..pair[1]].ends_with('\n')
            {
                continue;
            }
            let changed =
                format!("{}{b}{}{a}{}", &text[..pair[0]], &text[pair[0] + 1..pair[1]], &text[pair[1] + 1..]);
            assert!(Share::parse(&changed).unwrap_err().to_string().contains("line "));
        }
    }

    #[test]
    fn what_is_missing_or_too_much_is_said() {
        let share = Share::new(SetId([7; 8]), (3, 5), 2, [0x5a; 32]).unwrap();
        let text = typed(&share);
        let lines: Vec<&str> = text.lines().collect();
        let said = |text: String| Share::parse(&text).unwrap_err().to_string();
        assert!(said(String::new()).contains("line 1 is missing"));
        assert!(said([&lines[..2], &lines[3..]].concat().join("\n")).contains("line 3 is missing"));
        assert!(said(format!("{text}{}", lines[1])).contains("line 2 is there twice"));
        assert!(said(text.replacen(lines[4], &lines[4][..20], 1)).contains("line 5 has"));
        assert!(said(text.replacen("2  ", "3  ", 1)).contains("line 3"));
        assert!(said(format!("hello\n{text}")).contains("does not begin with"));
        assert!(said("x".repeat(LIMIT_BYTES + 1)).contains("too long"));
        assert!(said(format!("{}\nmore", share.code().as_str())).contains("followed by more"));
        let other = Share::new(SetId([7; 8]), (3, 5), 3, [0x5b; 32]).unwrap();
        let other = typed(&other);
        assert!(
            said(text.replacen(lines[3], other.lines().nth(3).unwrap(), 1))
                .contains("each line fits its own")
        );
        let debug = format!("{share:?}");
        assert!(!debug.contains("5a5a") && !debug.contains("90"), "{debug}");
    }

    #[test]
    fn a_share_outside_of_its_set_is_refused_and_a_newer_one_too() {
        for (threshold, total, index) in [(0, 5, 1), (6, 5, 1), (3, 5, 0), (3, 5, 6), (0, 0, 0)] {
            assert!(Share::new(SetId([0; 8]), (threshold, total), index, [0; 32]).is_err());
        }
        assert_eq!(SetId::parse("0707070707070707"), Some(SetId([7; 8])));
        for text in ["", "07", "070707070707070G", "+70707070707070 ", "0707070707070A07"] {
            assert_eq!(SetId::parse(text), None);
        }
    }
}

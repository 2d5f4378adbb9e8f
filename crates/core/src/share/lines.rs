//! Symbols of five bits as lines that are typed, and back.

use super::{SYMBOLS, malformed};
use crate::Result;
use zeroize::Zeroizing;

/// Crockford's: without I, L, O and U. Those three are read as what they look like.
pub(super) const ALPHABET: &str = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Symbols on a line, before its checksum of two.
const ON_A_LINE: usize = 16;
const LINES: usize = SYMBOLS / ON_A_LINE;
const CHECK: usize = 2;
/// A prime below 32²: then a sum with different weights finds each wrong symbol and each exchange of two.
const PRIME: u32 = 1021;
const WEIGHT: u32 = 37;

/// How a symbol is written.
pub(super) fn letter(symbol: u8) -> char {
    char::from(ALPHABET.as_bytes()[usize::from(symbol & 31)])
}

fn symbol(letter: char) -> Option<u8> {
    let letter = match letter.to_ascii_uppercase() {
        'O' => '0',
        'I' | 'L' => '1',
        other => other,
    };
    ALPHABET.find(letter).and_then(|at| u8::try_from(at).ok())
}

fn check(line: usize, symbols: &[u8]) -> [u8; CHECK] {
    let line = u32::try_from(line).unwrap_or_default();
    let sum = symbols.iter().fold(line, |sum, symbol| (sum * WEIGHT + u32::from(*symbol)) % PRIME);
    // Once more, so that the last symbol has a weight too.
    let sum = sum * WEIGHT % PRIME;
    [sum / 32, sum % 32].map(|part| u8::try_from(part).unwrap_or_default())
}

/// Numbered lines.
pub(super) fn write(symbols: &[u8; SYMBOLS]) -> Vec<Zeroizing<String>> {
    let line = |(at, part): (usize, &[u8])| {
        let mut text = Zeroizing::new(String::with_capacity(32));
        text.push_str(&(at + 1).to_string());
        for (at, symbol) in part.iter().chain(&check(at + 1, part)).enumerate() {
            match at {
                0 | ON_A_LINE => text.push_str("  "),
                at if at.is_multiple_of(4) => text.push(' '),
                _ => {}
            }
            text.push(letter(*symbol));
        }
        text
    };
    symbols.chunks(ON_A_LINE).enumerate().map(line).collect()
}

/// Numbered lines in any order.
pub(super) fn read<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Zeroizing<[u8; SYMBOLS]>> {
    let (mut symbols, mut seen) = (Zeroizing::new([0; SYMBOLS]), [false; LINES]);
    for line in lines {
        let mut letters = line.chars();
        let number =
            letters.next().and_then(|c| c.to_digit(10)).and_then(|number| usize::try_from(number).ok());
        let number = number.filter(|number| (1..=LINES).contains(number));
        let Some(number) = number else {
            return Err(malformed(format!("a line does not begin with its number, 1 to {LINES}")));
        };
        let rest = letters.as_str();
        let rest = rest.strip_prefix([':', '.']).unwrap_or(rest);
        let part = read_line(number, rest)?;
        if std::mem::replace(&mut seen[number - 1], true) {
            return Err(malformed(format!("line {number} is there twice")));
        }
        symbols[(number - 1) * ON_A_LINE..number * ON_A_LINE].copy_from_slice(&part[..ON_A_LINE]);
    }
    match seen.iter().position(|seen| !seen) {
        Some(missing) => Err(malformed(format!("line {} is missing", missing + 1))),
        None => Ok(symbols),
    }
}

fn read_line(number: usize, text: &str) -> Result<Zeroizing<[u8; ON_A_LINE + CHECK]>> {
    let mut part = Zeroizing::new([0; ON_A_LINE + CHECK]);
    let count = fill(text, &mut *part).map_err(|place| unknown(&format!("line {number}"), place))?;
    if count != part.len() {
        let wanted = part.len();
        return Err(malformed(format!(
            "line {number} has {count} characters after its number, and {wanted} belong there"
        )));
    }
    if check(number, &part[..ON_A_LINE]) != part[ON_A_LINE..] {
        return Err(malformed(format!(
            "line {number} does not fit its checksum, so something on it was read or typed wrongly"
        )));
    }
    Ok(part)
}

/// What follows the prefix of a share on one line.
pub(super) fn read_code(text: &str) -> Result<Zeroizing<[u8; SYMBOLS]>> {
    let mut symbols = Zeroizing::new([0; SYMBOLS]);
    let count = fill(text, &mut *symbols).map_err(|place| unknown("the code", place))?;
    if count != SYMBOLS {
        return Err(malformed(format!("the code has {count} characters, and {SYMBOLS} belong there")));
    }
    Ok(symbols)
}

/// Puts the symbols of `text` into `symbols`, and tells how many there are, or the place of a character that is none.
fn fill(text: &str, symbols: &mut [u8]) -> std::result::Result<usize, usize> {
    let mut count = 0;
    for letter in text.chars().filter(|c| !c.is_whitespace() && *c != '-') {
        let symbol = symbol(letter).ok_or(count + 1)?;
        if let Some(place) = symbols.get_mut(count) {
            *place = symbol;
        }
        count += 1;
    }
    Ok(count)
}

fn unknown(whose: &str, place: usize) -> crate::Error {
    malformed(format!("{whose}: character {place} is none that a share is written with"))
}

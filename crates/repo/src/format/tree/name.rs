//! Names of nodes inside JSON: Go's `strconv.Quote` without the quotes around it.

use super::malformed;
use retoma_core::Result;
use std::borrow::Cow;

/// Refuses what can't be the name of a file within a directory.
pub(super) fn check(name: &[u8]) -> Result<()> {
    let bad = name.is_empty() || name == b"." || name == b".." || name.contains(&b'/') || name.contains(&0);
    if bad {
        return Err(malformed(format!("tree: `{}` cannot be the name of a file", name.escape_ascii())));
    }
    Ok(())
}

/// Quotes `name`: bytes that are not UTF-8, control characters, `"` and `\` become escapes.
pub(super) fn quote(name: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(name)
        && !text.chars().any(|c| c.is_control() || c == '"' || c == '\\')
    {
        return Cow::Borrowed(text);
    }
    let mut quoted = String::with_capacity(name.len() + 8);
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            match c {
                '"' => quoted.push_str("\\\""),
                '\\' => quoted.push_str("\\\\"),
                '\n' => quoted.push_str("\\n"),
                '\r' => quoted.push_str("\\r"),
                '\t' => quoted.push_str("\\t"),
                c if c.is_ascii_control() => push_hex(&mut quoted, 'x', u32::from(c), 2),
                c if c.is_control() => push_hex(&mut quoted, 'u', u32::from(c), 4),
                c => quoted.push(c),
            }
        }
        for &byte in chunk.invalid() {
            push_hex(&mut quoted, 'x', u32::from(byte), 2);
        }
    }
    Cow::Owned(quoted)
}

/// Appends `\\`, the kind of the escape and so many hexadecimal digits.
fn push_hex(quoted: &mut String, kind: char, value: u32, digits: u32) {
    quoted.extend(['\\', kind]);
    let digit = |place: u32| char::from_digit(value >> (4 * place) & 15, 16);
    quoted.extend((0..digits).rev().filter_map(digit));
}

/// Reads what [`quote`] or Go's `strconv.Quote` wrote.
pub(super) fn unquote(quoted: &str) -> Result<Vec<u8>> {
    let bad = || malformed(format!("tree: the name `{}` is not quoted right", quoted.escape_debug()));
    let mut name = Vec::with_capacity(quoted.len());
    let mut rest = quoted;
    while let Some(at) = rest.find('\\') {
        name.extend_from_slice(&rest.as_bytes()[..at]);
        let escape = &rest[at + 1..];
        let kind = escape.bytes().next().ok_or_else(bad)?;
        let digits = |from: usize, count: usize, radix: u32| {
            let digits =
                escape.get(from..from + count).filter(|text| text.bytes().all(|b| b.is_ascii_hexdigit()));
            digits.and_then(|text| u32::from_str_radix(text, radix).ok()).ok_or_else(bad)
        };
        let simple = |byte: u8| Some((vec![byte], 1));
        let decoded = match kind {
            b'a' => simple(7),
            b'b' => simple(8),
            b'f' => simple(12),
            b'n' => simple(b'\n'),
            b'r' => simple(b'\r'),
            b't' => simple(b'\t'),
            b'v' => simple(11),
            b'\\' | b'"' | b'\'' => simple(kind),
            b'x' => u8::try_from(digits(1, 2, 16)?).ok().map(|byte| (vec![byte], 3)),
            b'0'..=b'7' => u8::try_from(digits(0, 3, 8)?).ok().map(|byte| (vec![byte], 3)),
            b'u' => char::from_u32(digits(1, 4, 16)?).map(|c| (c.to_string().into_bytes(), 5)),
            b'U' => char::from_u32(digits(1, 8, 16)?).map(|c| (c.to_string().into_bytes(), 9)),
            _ => None,
        };
        let (bytes, length) = decoded.ok_or_else(bad)?;
        name.extend_from_slice(&bytes);
        rest = escape.get(length..).ok_or_else(bad)?;
    }
    name.extend_from_slice(rest.as_bytes());
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_name_round_trips(name: Vec<u8>) {
            prop_assert_eq!(unquote(&quote(&name)).unwrap(), name);
        }

        #[test]
        fn any_text_is_read_or_refused_but_never_panics(text in "(\\\\|x|u|U|[0-9a-f]|é|.){0,12}") {
            let _ = unquote(&text);
        }
    }

    #[test]
    fn gos_escapes_are_understood() {
        let cases: [(&str, &[u8]); 6] = [
            (r"a\xffb", b"a\xffb"),
            (r"\u00e9", "é".as_bytes()),
            (r"\U0001f600", "😀".as_bytes()),
            (r"\101", b"A"),
            (r#"\"\\"#, b"\"\\"),
            (r"\a\b\f\n\r\t\v", b"\x07\x08\x0c\n\r\t\x0b"),
        ];
        for (quoted, name) in cases {
            assert_eq!(unquote(quoted).unwrap(), name, "{quoted}");
        }
        for bad in [r"\", r"\x1", r"\xzz", r"\u12", r"\ud800", r"\400", r"\q", r"\x+1"] {
            assert!(unquote(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_that_lead_elsewhere_are_refused() {
        for bad in [&b""[..], b".", b"..", b"a/b", b"/", b"a\0b"] {
            assert!(check(bad).is_err());
        }
        for good in [&b"a"[..], b"...", b".a", b"\xff", b"a b"] {
            assert!(check(good).is_ok());
        }
    }
}

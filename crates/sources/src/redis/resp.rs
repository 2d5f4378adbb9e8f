//! Answers of a server (RESP 2), cut out of a buffer; bounded in length, number and depth.

use bytes::Buf as _;
use bytes::BytesMut;

/// The longest text or bulk string, in bytes.
pub(super) const BULK_BYTES: usize = 64 << 20;
/// The longest line (texts, errors, numbers, lengths), in bytes.
pub(super) const LINE_BYTES: usize = 64 << 10;
/// How many values an answer has, with those inside of others.
const VALUES: usize = 1 << 16;
const DEPTH: u32 = 8;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// A short text such as `OK`.
    Text(Vec<u8>),
    /// The server's complaint.
    Error(Vec<u8>),
    /// A number.
    Integer(i64),
    /// Bytes.
    Bulk(Vec<u8>),
    /// Nothing.
    Null,
    /// Several answers.
    Array(Vec<Value>),
}

impl Value {
    /// A text or bytes.
    pub fn bytes(&self) -> Option<&[u8]> {
        if let Self::Text(bytes) | Self::Bulk(bytes) = self { Some(bytes) } else { None }
    }
}

/// Takes the answer at the front of `input`; `None` while it is not all there, and an error that says what is wrong.
pub(super) fn take(input: &mut BytesMut) -> Result<Option<Value>, &'static str> {
    let mut reader = Reader { rest: input, left: VALUES };
    let before = reader.rest.len();
    let value = reader.value(DEPTH)?;
    let used = before - reader.rest.len();
    if value.is_some() {
        input.advance(used);
    }
    Ok(value)
}

/// A line without its end, and what follows.
type Line<'a> = (&'a [u8], &'a [u8]);

/// The line at the front of `bytes`, without its end, and what follows.
pub(super) fn line(bytes: &[u8]) -> Result<Option<Line<'_>>, &'static str> {
    let within = &bytes[..bytes.len().min(LINE_BYTES)];
    match within.iter().position(|byte| *byte == b'\n') {
        Some(at) => {
            let line = &bytes[..at];
            Ok(Some((line.strip_suffix(b"\r").unwrap_or(line), &bytes[at + 1..])))
        }
        None if within.len() == LINE_BYTES => Err("a line without end"),
        None => Ok(None),
    }
}

struct Reader<'a> {
    rest: &'a [u8],
    left: usize,
}

impl Reader<'_> {
    fn value(&mut self, depth: u32) -> Result<Option<Value>, &'static str> {
        self.left = self.left.checked_sub(1).ok_or("too many values in one answer")?;
        let Some((line, rest)) = line(self.rest)? else { return Ok(None) };
        let (kind, text) = line.split_first().ok_or("an empty line where an answer begins")?;
        self.rest = rest;
        let length = || number(text).and_then(|number| usize::try_from(number).ok());
        Ok(Some(match kind {
            b'+' => Value::Text(text.to_vec()),
            b'-' => Value::Error(text.to_vec()),
            b':' => Value::Integer(number(text).ok_or("a number that is none")?),
            b'$' | b'*' if text == b"-1" => Value::Null,
            b'$' => {
                let length =
                    length().filter(|length| *length <= BULK_BYTES).ok_or("a length beyond our limits")?;
                let Some((bytes, rest)) = self.rest.split_at_checked(length) else { return Ok(None) };
                let Some((end, rest)) = rest.split_first_chunk::<2>() else { return Ok(None) };
                if end != b"\r\n" {
                    return Err("bytes behind their announced length");
                }
                self.rest = rest;
                Value::Bulk(bytes.to_vec())
            }
            b'*' => {
                let count = length()
                    .filter(|count| *count <= VALUES)
                    .ok_or("a number of values beyond our limits")?;
                let depth = depth.checked_sub(1).ok_or("answers inside of answers beyond our limits")?;
                let mut values = Vec::new();
                for _ in 0..count {
                    let Some(value) = self.value(depth)? else { return Ok(None) };
                    values.push(value);
                }
                Value::Array(values)
            }
            _ => return Err("an answer of an unknown kind"),
        }))
    }
}

fn number(text: &[u8]) -> Option<i64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    mod round_trip;

    use super::*;
    use proptest::prelude::*;

    fn all(bytes: &[u8]) -> Result<Option<Value>, &'static str> {
        take(&mut BytesMut::from(bytes))
    }

    #[test]
    fn answers_of_all_kinds_are_read() {
        let bulk = |text: &str| Value::Bulk(text.into());
        for (text, value) in [
            ("+OK\r\n", Value::Text(b"OK".to_vec())),
            ("-ERR no\r\n", Value::Error(b"ERR no".to_vec())),
            (":-12\r\n", Value::Integer(-12)),
            ("$-1\r\n", Value::Null),
            ("*-1\r\n", Value::Null),
            ("$4\r\na\r\nb\r\n", bulk("a\r\nb")),
            (
                "*2\r\n$1\r\na\r\n*1\r\n:1\r\n",
                Value::Array(vec![bulk("a"), Value::Array(vec![Value::Integer(1)])]),
            ),
        ] {
            let mut input = BytesMut::from(format!("{text}rest").as_bytes());
            assert_eq!(take(&mut input), Ok(Some(value)), "{text}");
            assert_eq!(&input[..], b"rest", "{text}");
            for cut in 0..text.len() {
                let mut part = BytesMut::from(&text.as_bytes()[..cut]);
                assert_eq!(take(&mut part), Ok(None), "{text} {cut}");
                assert_eq!(part.len(), cut, "what is not whole stays");
            }
        }
    }

    #[test]
    fn what_goes_beyond_the_limits_is_refused_at_once() {
        for text in ["$99999999999\r\n", "*9999999\r\n", "$-2\r\n", ":x\r\n", "?\r\n", "\r\n", "$1\r\nabc"] {
            assert!(all(text.as_bytes()).is_err(), "{text}");
        }
        assert!(all("*1\r\n".repeat(10).as_bytes()).is_err(), "depth");
        assert!(all(&vec![b'+'; LINE_BYTES]).is_err(), "a line without end");
        let many = format!("*60000\r\n{}", "*60000\r\n".repeat(3));
        assert_eq!(all(many.as_bytes()), Ok(None));
        assert!(all([many.as_bytes(), &b":1\r\n".repeat(70_000)].concat().as_slice()).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_taken_or_refused(bytes in prop::collection::vec(prop_oneof![Just(b'*'), Just(b'$'), Just(b'\r'), Just(b'\n'), Just(b'1'), any::<u8>()], 0..60)) {
            let _value = all(&bytes);
        }
    }
}

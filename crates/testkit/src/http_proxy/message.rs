//! As much of HTTP/1.1 as a proxy must know: where a message's head and body end.

use std::io::{self, BufRead, Read as _};

/// The longest head that is read.
const HEAD_LIMIT_BYTES: usize = 256 << 10;

/// The first line and the headers of a message, with the empty line at their end.
#[derive(Debug)]
pub(super) struct Head {
    pub(super) raw: Vec<u8>,
    text: String,
}

/// How long a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Length {
    Bytes(u64),
    Chunked,
    UntilEnd,
}

impl Head {
    /// The next head; `None` when the connection ends before it.
    pub(super) fn read(from: &mut impl BufRead) -> io::Result<Option<Self>> {
        let mut raw = Vec::new();
        while !raw.ends_with(b"\r\n\r\n") {
            let room = HEAD_LIMIT_BYTES - raw.len();
            if from.take(room as u64).read_until(b'\n', &mut raw)? == 0 {
                return if raw.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
        }
        let text = String::from_utf8_lossy(&raw).into_owned();
        Ok(Some(Self { raw, text }))
    }

    /// A word of the first line.
    pub(super) fn word(&self, number: usize) -> &str {
        self.text.lines().next().unwrap_or_default().split(' ').nth(number).unwrap_or_default()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.text.lines().skip(1).find_map(|line| {
            let (known, value) = line.split_once(':')?;
            known.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    fn announced(&self) -> Option<Length> {
        if self.header("transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
            return Some(Length::Chunked);
        }
        Some(Length::Bytes(self.header("content-length")?.parse().ok()?))
    }

    /// The length of a request's body.
    pub(super) fn request_length(&self) -> Length {
        self.announced().unwrap_or(Length::Bytes(0))
    }

    /// The length of the body of an answer to `method`.
    pub(super) fn answer_length(&self, method: &str) -> Length {
        match self.word(1) {
            _ if method == "HEAD" => Length::Bytes(0),
            "204" | "304" => Length::Bytes(0),
            _ => self.announced().unwrap_or(Length::UntilEnd),
        }
    }
}

/// Shows `each` the body piece by piece, with whether it is content (and not the marks between chunks).
pub(super) fn body(
    from: &mut impl BufRead,
    length: Length,
    each: &mut dyn FnMut(&[u8], bool) -> io::Result<()>,
) -> io::Result<()> {
    match length {
        Length::Bytes(bytes) => exactly(from, bytes, each),
        Length::UntilEnd => loop {
            let piece = from.fill_buf()?;
            if piece.is_empty() {
                return Ok(());
            }
            each(piece, true)?;
            let taken = piece.len();
            from.consume(taken);
        },
        Length::Chunked => loop {
            let line = line(from)?;
            each(&line, false)?;
            let digits = String::from_utf8_lossy(&line).trim().to_owned();
            let digits = digits.split(';').next().unwrap_or_default();
            let size =
                u64::from_str_radix(digits, 16).map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
            exactly(from, size, each)?;
            if size > 0 {
                each(&self::line(from)?, false)?;
                continue;
            }
            loop {
                let trailer = self::line(from)?;
                each(&trailer, false)?;
                if trailer == b"\r\n" {
                    return Ok(());
                }
            }
        },
    }
}

fn line(from: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    from.take(8 << 10).read_until(b'\n', &mut line)?;
    if line.ends_with(b"\n") { Ok(line) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

fn exactly(
    from: &mut impl BufRead,
    mut left: u64,
    each: &mut dyn FnMut(&[u8], bool) -> io::Result<()>,
) -> io::Result<()> {
    while left > 0 {
        let piece = from.fill_buf()?;
        if piece.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let taken = piece.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        each(&piece[..taken], true)?;
        from.consume(taken);
        left -= taken as u64;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[allow(clippy::unwrap_used)]
    fn content(text: &str, method: &str) -> (String, String) {
        let mut from = text.as_bytes();
        let head = Head::read(&mut from).unwrap().unwrap();
        let (mut content, mut raw) = (Vec::new(), Vec::new());
        let length = head.answer_length(method);
        body(&mut from, length, &mut |piece, is_content| {
            raw.extend_from_slice(piece);
            content.extend(piece.iter().filter(|_| is_content));
            Ok(())
        })
        .unwrap();
        (String::from_utf8(content).unwrap(), String::from_utf8(raw).unwrap())
    }

    #[test]
    fn bodies_end_where_their_heads_say() {
        let (content_, raw) = content("HTTP/1.1 200 OK\r\ncontent-LENGTH: 3\r\n\r\nabcdef", "GET");
        assert_eq!((content_.as_str(), raw.as_str()), ("abc", "abc"));
        let chunks = "3\r\nabc\r\n2;x=y\r\nde\r\n0\r\ntrailer: 1\r\n\r\n";
        let chunked = format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}more");
        assert_eq!(content(&chunked, "GET"), ("abcde".to_owned(), chunks.to_owned()));
        assert_eq!(content("HTTP/1.1 200 OK\r\n\r\nall of it", "GET").0, "all of it");
        assert_eq!(content("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n", "HEAD").0, "");
        assert_eq!(content("HTTP/1.1 204 No Content\r\n\r\n", "DELETE").0, "");
    }
}

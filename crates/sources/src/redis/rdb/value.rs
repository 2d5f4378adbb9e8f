//! Values as their elements, so that two encodings of the same value can be compared.
//!
//! Loading may change an encoding (a hash that has shrunk becomes a listpack again), and the order in a table is by
//! chance: what is compared is the elements, in order only where the type has one.

/// The longest string that is unpacked, in bytes.
const STRING_BYTES: usize = 16 << 20;

/// The elements of an encoded value, in an order that depends on nothing but them; `None` for encodings that are not read
/// (those of servers before 7.0, modules) and for what is malformed.
pub fn elements(encoding: u8, bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut reader = Reader(bytes);
    let mut elements = match encoding {
        0 => vec![reader.string()?],
        1 | 2 => reader.strings(1)?,
        4 => pairs(&reader.strings(2)?),
        5 => {
            let count = reader.length()?;
            let mut elements = Vec::new();
            for _ in 0..count {
                let member = reader.string()?;
                let score = f64::from_le_bytes(*reader.fixed::<8>()?);
                elements.push(joined(&member, &score.to_bits().to_be_bytes()));
            }
            elements
        }
        11 => integers(&reader.string()?)?,
        16 => {
            let both = listpack(&reader.string()?)?;
            if both.len() % 2 == 1 {
                return None;
            }
            pairs(&both)
        }
        17 => {
            let both = listpack(&reader.string()?)?;
            let scored = |pair: &[Vec<u8>]| {
                let score: f64 = std::str::from_utf8(&pair[1]).ok()?.parse().ok()?;
                Some(joined(&pair[0], &score.to_bits().to_be_bytes()))
            };
            if both.len() % 2 == 1 {
                return None;
            }
            both.chunks(2).map(scored).collect::<Option<_>>()?
        }
        18 => {
            let count = reader.length()?;
            let mut elements = Vec::new();
            for _ in 0..count {
                match reader.length()? {
                    1 => elements.push(reader.string()?),
                    2 => elements.extend(listpack(&reader.string()?)?),
                    _ => return None,
                }
            }
            elements
        }
        20 => listpack(&reader.string()?)?,
        15 | 19 | 21 => reader.stream(encoding)?,
        _ => return None,
    };
    if !reader.0.is_empty() {
        return None;
    }
    if !matches!(encoding, 0 | 1 | 18 | 15 | 19 | 21) {
        elements.sort_unstable();
    }
    Some(elements)
}

/// Two strings as one, so that no other two give the same.
fn joined(first: &[u8], second: &[u8]) -> Vec<u8> {
    [&(first.len() as u64).to_be_bytes()[..], first, second].concat()
}

fn pairs(both: &[Vec<u8>]) -> Vec<Vec<u8>> {
    both.chunks(2).map(|pair| joined(&pair[0], pair.get(1).map_or(&[][..], Vec::as_slice))).collect()
}

/// The string at the front of `bytes`, and what follows.
pub(super) fn string(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut reader = Reader(bytes);
    let string = reader.string()?;
    Some((string, reader.0))
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn fixed<const N: usize>(&mut self) -> Option<&'a [u8; N]> {
        let (fixed, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(fixed)
    }

    fn bytes(&mut self, length: u64) -> Option<&'a [u8]> {
        let (bytes, rest) = self.0.split_at_checked(usize::try_from(length).ok()?)?;
        self.0 = rest;
        Some(bytes)
    }

    /// A length, or how a string is encoded.
    fn header(&mut self) -> Option<Result<u64, u8>> {
        let [first] = *self.fixed::<1>()?;
        let low = first & 0x3f;
        Some(match (first >> 6, first) {
            (0, _) => Ok(low.into()),
            (1, _) => Ok(u64::from(low) << 8 | u64::from(self.fixed::<1>()?[0])),
            (_, 0x80) => Ok(u32::from_be_bytes(*self.fixed()?).into()),
            (_, 0x81) => Ok(u64::from_be_bytes(*self.fixed()?)),
            (3, _) => Err(low),
            _ => return None,
        })
    }

    fn length(&mut self) -> Option<u64> {
        self.header()?.ok()
    }

    fn string(&mut self) -> Option<Vec<u8>> {
        Some(match self.header()? {
            Ok(length) => self.bytes(length)?.to_vec(),
            Err(0) => i8::from_le_bytes(*self.fixed()?).to_string().into_bytes(),
            Err(1) => i16::from_le_bytes(*self.fixed()?).to_string().into_bytes(),
            Err(2) => i32::from_le_bytes(*self.fixed()?).to_string().into_bytes(),
            Err(3) => {
                let (compressed, length) = (self.length()?, self.length()?);
                let length = usize::try_from(length).ok().filter(|length| *length <= STRING_BYTES)?;
                unpacked(self.bytes(compressed)?, length)?
            }
            Err(_) => return None,
        })
    }

    /// A stream's parts in their order: its nodes are loaded as they are, only strings may be packed otherwise.
    fn stream(&mut self, encoding: u8) -> Option<Vec<Vec<u8>>> {
        let mut parts = vec![vec![encoding]];
        parts.extend(self.strings(2)?);
        self.lengths(if encoding == 15 { 3 } else { 8 }, &mut parts)?;
        for _ in 0..self.length()? {
            parts.push(self.string()?);
            self.lengths(if encoding == 15 { 2 } else { 3 }, &mut parts)?;
            for _ in 0..self.length()? {
                parts.push(self.bytes(24)?.to_vec());
                self.lengths(1, &mut parts)?;
            }
            for _ in 0..self.length()? {
                parts.push(self.string()?);
                parts.push(self.bytes(if encoding == 21 { 16 } else { 8 })?.to_vec());
                for _ in 0..self.length()? {
                    parts.push(self.bytes(16)?.to_vec());
                }
            }
        }
        Some(parts)
    }

    fn lengths(&mut self, count: u32, parts: &mut Vec<Vec<u8>>) -> Option<()> {
        for _ in 0..count {
            parts.push(self.length()?.to_be_bytes().to_vec());
        }
        Some(())
    }

    /// A number, and so many times `each` strings.
    fn strings(&mut self, each: u64) -> Option<Vec<Vec<u8>>> {
        let count = self.length()?.checked_mul(each)?;
        (0..count).map(|_| self.string()).collect()
    }
}

/// What LZF has packed.
fn unpacked(bytes: &[u8], length: usize) -> Option<Vec<u8>> {
    let mut output: Vec<u8> = Vec::new();
    let mut rest = bytes;
    while let Some((&control, tail)) = rest.split_first() {
        rest = tail;
        let control = usize::from(control);
        if control < 32 {
            let (literal, tail) = rest.split_at_checked(control + 1)?;
            output.extend(literal);
            rest = tail;
        } else {
            let mut run = control >> 5;
            if run == 7 {
                let (&more, tail) = rest.split_first()?;
                (run, rest) = (run + usize::from(more), tail);
            }
            let (&low, tail) = rest.split_first()?;
            rest = tail;
            let back = ((control & 0x1f) << 8 | usize::from(low)) + 1;
            let start = output.len().checked_sub(back)?;
            // The run may reach into what it makes.
            for at in start..start + run + 2 {
                output.push(*output.get(at)?);
            }
        }
        if output.len() > length {
            return None;
        }
    }
    (output.len() == length).then_some(output)
}

/// The members of a set of numbers, as text.
fn integers(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut reader = Reader(bytes);
    let (width, count) = (u32::from_le_bytes(*reader.fixed()?), u32::from_le_bytes(*reader.fixed()?));
    let mut members = Vec::new();
    for _ in 0..count {
        let number = match width {
            2 => i16::from_le_bytes(*reader.fixed()?).into(),
            4 => i32::from_le_bytes(*reader.fixed()?).into(),
            8 => i64::from_le_bytes(*reader.fixed()?),
            _ => return None,
        };
        members.push(number.to_string().into_bytes());
    }
    reader.0.is_empty().then_some(members)
}

/// The elements of a listpack; numbers as text.
fn listpack(bytes: &[u8]) -> Option<Vec<Vec<u8>>> {
    let mut reader = Reader(bytes);
    if usize::try_from(u32::from_le_bytes(*reader.fixed()?)).ok()? != bytes.len() {
        return None;
    }
    reader.fixed::<2>()?;
    let mut elements = Vec::new();
    loop {
        let before = reader.0.len();
        let [first] = *reader.fixed::<1>()?;
        let low = u64::from(first);
        let integer = |number: i64| number.to_string().into_bytes();
        let element = match first {
            0xff => return reader.0.is_empty().then_some(elements),
            0..=0x7f => integer(i64::from(first)),
            0x80..=0xbf => reader.bytes(low & 0x3f)?.to_vec(),
            0xc0..=0xdf => {
                let number = i64::from(first & 0x1f) << 8 | i64::from(reader.fixed::<1>()?[0]);
                integer(if number >= 1 << 12 { number - (1 << 13) } else { number })
            }
            0xe0..=0xef => {
                let length = (low & 0x0f) << 8 | u64::from(reader.fixed::<1>()?[0]);
                reader.bytes(length)?.to_vec()
            }
            0xf0 => {
                let length = u32::from_le_bytes(*reader.fixed()?);
                reader.bytes(length.into())?.to_vec()
            }
            0xf1 => integer(i16::from_le_bytes(*reader.fixed()?).into()),
            0xf2 => {
                let [a, b, c] = *reader.fixed::<3>()?;
                integer((i32::from_le_bytes([0, a, b, c]) >> 8).into())
            }
            0xf3 => integer(i32::from_le_bytes(*reader.fixed()?).into()),
            0xf4 => integer(i64::from_le_bytes(*reader.fixed()?)),
            _ => return None,
        };
        // Its length again, for who reads from behind.
        let back: u64 = match before - reader.0.len() {
            0..=127 => 1,
            128..=16_382 => 2,
            16_383..=2_097_150 => 3,
            2_097_151..=268_435_454 => 4,
            _ => 5,
        };
        reader.bytes(back)?;
        elements.push(element);
    }
}

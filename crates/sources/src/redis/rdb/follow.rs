//! Follows a data set from value to value. What is to come is a stack; each step takes one header or passes over bytes.

use super::sample::{Sample, Sampling};
use super::{COUNTED_VERSION, Counts};
use std::collections::BTreeMap;

/// A key's name or a text of the server that is longer is passed over, in bytes.
const TEXT_BYTES: usize = 1 << 10;
/// So many texts of the server are kept.
const TEXTS: usize = 100;

/// What comes next.
#[derive(Debug, Clone, Copy)]
enum Next {
    Header,
    /// A record's first byte.
    Record,
    /// So many bytes.
    Skip(u64),
    /// So many strings.
    Strings(u64),
    /// So many lengths.
    Lengths(u64),
    /// A number, and so many of these.
    Count(Part),
    Repeat(u64, Part),
    /// A score as text, of the oldest kind.
    OldScore,
    /// A module's own value, up to its end.
    Module,
    AuxiliaryName,
    AuxiliaryValue,
    Database,
    /// A key's name and value of this encoding.
    Key(u8),
    /// The value ends.
    Value,
    /// Nothing.
    End,
}

/// What is repeated.
#[derive(Debug, Clone, Copy)]
enum Part {
    String,
    Pair,
    /// A member and its score.
    Scored,
    OldScored,
    /// A list's node: its container, and its elements.
    Node,
    /// A stream's group of this encoding.
    Group(u8),
    Pending,
    Consumer(u8),
    /// An entry that a consumer has not confirmed.
    Id,
}

/// Where a header ends, or why there is none.
enum Read<T> {
    Got(T, usize),
    /// It goes on beyond what is there.
    More,
    Wrong(&'static str),
}

#[derive(Debug)]
pub(super) struct Follower {
    pub(super) version: Option<u32>,
    stack: Vec<Next>,
    /// The beginning of a header.
    held: Vec<u8>,
    lost: Option<String>,
    has_ended: bool,
    counts: Counts,
    auxiliary: BTreeMap<String, String>,
    name: String,
    database: u64,
    expires_ms: Option<u64>,
    times: [u64; 2],
    sampling: Sampling,
    /// The sample whose value passes.
    current: Option<Sample>,
}

impl Follower {
    pub(super) fn new(times: [u64; 2], sampling: Sampling) -> Self {
        Self {
            version: None,
            stack: vec![Next::Header],
            held: Vec::new(),
            lost: None,
            has_ended: false,
            counts: Counts::default(),
            auxiliary: BTreeMap::new(),
            name: String::new(),
            database: 0,
            expires_ms: None,
            times,
            sampling,
            current: None,
        }
    }

    pub(super) fn finish(self) -> (Result<Counts, String>, BTreeMap<String, String>, Vec<Sample>) {
        let lost = self.lost.or_else(|| (!self.has_ended).then(|| "it has no end".to_owned()));
        match lost {
            None => (Ok(self.counts), self.auxiliary, self.sampling.finish()),
            Some(why) => (Err(why), self.auxiliary, Vec::new()),
        }
    }

    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while self.lost.is_none() && !(bytes.is_empty() && self.held.is_empty()) {
            let Some(next) = self.stack.pop() else { return };
            if let Next::Skip(count) = next {
                self.skip(count, &mut bytes);
                if bytes.is_empty() {
                    return;
                }
                continue;
            }
            if self.held.is_empty() {
                match self.step(next, bytes) {
                    Read::Got((), used) => bytes = &bytes[used..],
                    Read::More => {
                        self.stack.push(next);
                        self.held.extend(bytes);
                        return;
                    }
                    Read::Wrong(why) => self.lose(why),
                }
                continue;
            }
            // A header that was cut: a few more bytes go behind its beginning.
            let before = self.held.len();
            let more = bytes.len().min(2 * TEXT_BYTES);
            let mut held = std::mem::take(&mut self.held);
            held.extend(&bytes[..more]);
            match self.step(next, &held) {
                // At least what was held before belongs to it.
                Read::Got((), used) if used >= before => bytes = &bytes[used - before..],
                Read::Got((), used) => {
                    held.truncate(before);
                    held.drain(..used);
                    self.held = held;
                }
                Read::More => {
                    self.stack.push(next);
                    self.held = held;
                    return;
                }
                Read::Wrong(why) => self.lose(why),
            }
        }
    }

    fn lose(&mut self, why: &str) {
        self.lost = Some(format!("it cannot be followed: {why}"));
    }

    fn skip(&mut self, count: u64, bytes: &mut &[u8]) {
        let held = usize::try_from(count).unwrap_or(usize::MAX).min(self.held.len());
        let from_held: Vec<u8> = self.held.drain(..held).collect();
        self.record(&from_held);
        let left = count - held as u64;
        let now = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
        self.record(&bytes[..now]);
        *bytes = &bytes[now..];
        if left > now as u64 {
            self.stack.push(Next::Skip(left - now as u64));
        }
    }

    /// What passes belongs to the value that is sampled, if one is.
    fn record(&mut self, bytes: &[u8]) {
        let Some(sample) = &mut self.current else { return };
        if let Some(value) = &mut sample.value {
            if value.len() + bytes.len() > Sampling::VALUE_BYTES {
                sample.value = None;
            } else {
                value.extend(bytes);
            }
        }
    }

    /// One header at the front of `bytes`.
    fn step(&mut self, next: Next, bytes: &[u8]) -> Read<()> {
        match next {
            Next::Header => self.header(bytes),
            Next::Record => self.record_start(bytes),
            Next::AuxiliaryName | Next::AuxiliaryValue => self.auxiliary(next, bytes),
            Next::Key(encoding) => self.key(encoding, bytes),
            Next::Database => match plain_length(bytes) {
                Read::Got(number, used) => {
                    self.database = number;
                    Read::Got((), used)
                }
                Read::More => Read::More,
                Read::Wrong(why) => Read::Wrong(why),
            },
            Next::Value => {
                self.end_value();
                Read::Got((), 0)
            }
            Next::End => Read::Wrong("there is something behind its end"),
            Next::Skip(_) => Read::Wrong("a mistake of ours"),
            _ => {
                let read = self.inside(next, bytes);
                if let Read::Got((), used) = read {
                    self.record(&bytes[..used]);
                }
                read
            }
        }
    }

    /// A header inside of a value.
    fn inside(&mut self, next: Next, bytes: &[u8]) -> Read<()> {
        match next {
            Next::Repeat(0, _) | Next::Strings(0) | Next::Lengths(0) => Read::Got((), 0),
            Next::Repeat(left, part) => {
                self.stack.push(Next::Repeat(left - 1, part));
                self.push_part(part);
                Read::Got((), 0)
            }
            Next::Strings(left) => match string_length(bytes) {
                Read::Got(length, used) => {
                    self.stack.extend([Next::Strings(left - 1), Next::Skip(length)]);
                    Read::Got((), used)
                }
                Read::More => Read::More,
                Read::Wrong(why) => Read::Wrong(why),
            },
            Next::Lengths(left) => match plain_length(bytes) {
                Read::Got(_, used) => {
                    self.stack.push(Next::Lengths(left - 1));
                    Read::Got((), used)
                }
                Read::More => Read::More,
                Read::Wrong(why) => Read::Wrong(why),
            },
            Next::Count(part) => match plain_length(bytes) {
                Read::Got(count, used) => {
                    self.stack.push(Next::Repeat(count, part));
                    Read::Got((), used)
                }
                Read::More => Read::More,
                Read::Wrong(why) => Read::Wrong(why),
            },
            Next::OldScore => match bytes.first() {
                None => Read::More,
                Some(253..=255) => Read::Got((), 1),
                Some(length) => {
                    self.stack.push(Next::Skip(u64::from(*length)));
                    Read::Got((), 1)
                }
            },
            Next::Module => self.module(bytes),
            _ => Read::Wrong("a mistake of ours"),
        }
    }

    fn push_part(&mut self, part: Part) {
        match part {
            Part::String => self.stack.push(Next::Strings(1)),
            Part::Pair => self.stack.push(Next::Strings(2)),
            Part::Scored => self.stack.extend([Next::Skip(8), Next::Strings(1)]),
            Part::OldScored => self.stack.extend([Next::OldScore, Next::Strings(1)]),
            Part::Node => self.stack.extend([Next::Strings(1), Next::Lengths(1)]),
            Part::Group(encoding) => self.stack.extend([
                Next::Count(Part::Consumer(encoding)),
                Next::Count(Part::Pending),
                Next::Lengths(if encoding >= STREAM_2 { 3 } else { 2 }),
                Next::Strings(1),
            ]),
            Part::Pending => self.stack.extend([Next::Lengths(1), Next::Skip(24)]),
            Part::Consumer(encoding) => self.stack.extend([
                Next::Count(Part::Id),
                Next::Skip(if encoding >= STREAM_3 { 16 } else { 8 }),
                Next::Strings(1),
            ]),
            Part::Id => self.stack.push(Next::Skip(16)),
        }
    }

    fn header(&mut self, bytes: &[u8]) -> Read<()> {
        let Some(head) = bytes.first_chunk::<9>() else { return Read::More };
        let digits = head.strip_prefix(b"REDIS").and_then(|digits| std::str::from_utf8(digits).ok());
        self.version = digits.and_then(|digits| digits.parse().ok());
        match self.version {
            None => Read::Wrong("it is none"),
            Some(version) if version > COUNTED_VERSION => {
                Read::Wrong("its version is newer than what we know")
            }
            Some(_) => {
                self.stack.push(Next::Record);
                Read::Got((), 9)
            }
        }
    }

    fn record_start(&mut self, bytes: &[u8]) -> Read<()> {
        let Some((&code, rest)) = bytes.split_first() else { return Read::More };
        if code == 0xff {
            let checksum =
                if self.version.is_some_and(|version| version < super::CHECKSUM_VERSION) { 0 } else { 8 };
            self.has_ended = true;
            self.stack.extend([Next::End, Next::Skip(checksum)]);
            return Read::Got((), 1);
        }
        let mut used = 1;
        let next: &[Next] = match code {
            // Expiry in milliseconds, in seconds: the key follows as a record.
            0xfc => {
                let Some(time) = rest.first_chunk::<8>() else { return Read::More };
                self.expires_ms = Some(u64::from_le_bytes(*time));
                used += 8;
                &[]
            }
            0xfd => {
                let Some(time) = rest.first_chunk::<4>() else { return Read::More };
                self.expires_ms = Some(u64::from(u32::from_le_bytes(*time)) * 1000);
                used += 4;
                &[]
            }
            0xfe => &[Next::Database],
            // How large the tables will be: two numbers.
            0xfb => &[Next::Lengths(2)],
            0xfa => &[Next::AuxiliaryValue, Next::AuxiliaryName],
            // How often a key is used, how long it was not.
            0xf9 => &[Next::Skip(1)],
            0xf8 => &[Next::Lengths(1)],
            // A module's own data beside the keys; a library of functions.
            0xf7 => &[Next::Module, Next::Lengths(3)],
            0xf5 => &[Next::Strings(1)],
            encoding if kind(encoding).is_some() => &[Next::Key(encoding)],
            _ => return Read::Wrong("it has a record of an unknown kind"),
        };
        self.stack.push(Next::Record);
        self.stack.extend(next);
        Read::Got((), used)
    }

    fn auxiliary(&mut self, next: Next, bytes: &[u8]) -> Read<()> {
        let (text, used, skip) = match text(bytes) {
            Read::Got((text, skip), used) => (text, used, skip),
            Read::More => return Read::More,
            Read::Wrong(why) => return Read::Wrong(why),
        };
        if skip > 0 {
            self.stack.push(Next::Skip(skip));
        }
        let text = text.map(|text| String::from_utf8_lossy(&text).into_owned()).unwrap_or_default();
        if matches!(next, Next::AuxiliaryName) {
            self.name = text;
        } else if self.auxiliary.len() < TEXTS {
            self.auxiliary.insert(std::mem::take(&mut self.name), text);
        }
        Read::Got((), used)
    }

    fn key(&mut self, encoding: u8, bytes: &[u8]) -> Read<()> {
        let Some(kind) = kind(encoding) else { return Read::Wrong("it has a value of an unknown kind") };
        let name = if self.sampling.wants_names() { text(bytes) } else { passed_over(bytes) };
        let (name, used, skip) = match name {
            Read::Got((name, skip), used) => (name, used, skip),
            Read::More => return Read::More,
            Read::Wrong(why) => return Read::Wrong(why),
        };
        let keys = self.counts.databases.entry(self.database).or_default();
        keys.keys += 1;
        *self.counts.types.entry(kind).or_default() += 1;
        let expires_ms = self.expires_ms.take();
        if let Some(time) = expires_ms {
            keys.expires += 1;
            for (count, now) in keys.expired.iter_mut().zip(self.times) {
                *count += u64::from(time <= now);
            }
        }
        if let Some(key) = name
            && self.sampling.wants(kind, self.database, &key)
        {
            let (database, value) = (self.database, Some(Vec::new()));
            self.current = Some(Sample { database, key, kind, encoding, expires_ms, value });
        }
        self.stack.push(Next::Value);
        self.push_value(encoding);
        if skip > 0 {
            // The name's own bytes, which are no part of the value.
            self.stack.push(Next::Skip(skip));
        }
        Read::Got((), used)
    }

    fn push_value(&mut self, encoding: u8) {
        let next: &[Next] = match encoding {
            1 | 2 | 14 => &[Next::Count(Part::String)],
            3 => &[Next::Count(Part::OldScored)],
            4 => &[Next::Count(Part::Pair)],
            5 => &[Next::Count(Part::Scored)],
            7 => &[Next::Module, Next::Lengths(1)],
            18 => &[Next::Count(Part::Node)],
            15 | STREAM_2 | STREAM_3 => {
                let lengths = if encoding == 15 { 3 } else { 8 };
                &[Next::Count(Part::Group(encoding)), Next::Lengths(lengths), Next::Count(Part::Pair)]
            }
            // One string holds it all.
            _ => &[Next::Strings(1)],
        };
        self.stack.extend(next);
    }

    fn module(&mut self, bytes: &[u8]) -> Read<()> {
        let (code, used) = match plain_length(bytes) {
            Read::Got(code, used) => (code, used),
            Read::More => return Read::More,
            Read::Wrong(why) => return Read::Wrong(why),
        };
        let next = match code {
            0 => return Read::Got((), used),
            1 | 2 => Next::Lengths(1),
            3 => Next::Skip(4),
            4 => Next::Skip(8),
            5 => Next::Strings(1),
            _ => return Read::Wrong("a module's value has a part of an unknown kind"),
        };
        self.stack.extend([Next::Module, next]);
        Read::Got((), used)
    }

    fn end_value(&mut self) {
        if let Some(sample) = self.current.take() {
            self.sampling.take(sample);
        }
    }
}

const STREAM_2: u8 = 19;
const STREAM_3: u8 = 21;

/// The type of a value with this encoding, as `TYPE` says it.
fn kind(encoding: u8) -> Option<&'static str> {
    Some(match encoding {
        0 => "string",
        1 | 10 | 14 | 18 => "list",
        2 | 11 | 20 => "set",
        3 | 5 | 12 | 17 => "zset",
        4 | 9 | 13 | 16 => "hash",
        15 | STREAM_2 | STREAM_3 => "stream",
        7 => "module",
        _ => return None,
    })
}

/// A length or number, or, with `true`, how a string is encoded.
fn length(bytes: &[u8]) -> Read<(u64, bool)> {
    let Some((&first, rest)) = bytes.split_first() else { return Read::More };
    let low = u64::from(first & 0x3f);
    match (first >> 6, first) {
        (0, _) => Read::Got((low, false), 1),
        (1, _) => rest.first().map_or(Read::More, |next| Read::Got((low << 8 | u64::from(*next), false), 2)),
        (_, 0x80) => rest
            .first_chunk()
            .map_or(Read::More, |four| Read::Got((u32::from_be_bytes(*four).into(), false), 5)),
        (_, 0x81) => {
            rest.first_chunk().map_or(Read::More, |eight| Read::Got((u64::from_be_bytes(*eight), false), 9))
        }
        (3, _) => Read::Got((low, true), 1),
        _ => Read::Wrong("it has a length of an unknown kind"),
    }
}

fn plain_length(bytes: &[u8]) -> Read<u64> {
    match length(bytes) {
        Read::Got((length, false), used) => Read::Got(length, used),
        Read::Got((_, true), _) => Read::Wrong("it has a string where a number belongs"),
        Read::More => Read::More,
        Read::Wrong(why) => Read::Wrong(why),
    }
}

/// The number of bytes that follow a string's header.
fn string_length(bytes: &[u8]) -> Read<u64> {
    match length(bytes) {
        Read::Got((length, false), used) => Read::Got(length, used),
        Read::Got((encoding @ 0..=2, true), used) => Read::Got(1 << encoding, used),
        Read::Got((3, true), used) => {
            let compressed = match plain_length(&bytes[used..]) {
                Read::Got(compressed, more) => (compressed, used + more),
                Read::More => return Read::More,
                Read::Wrong(why) => return Read::Wrong(why),
            };
            match plain_length(&bytes[compressed.1..]) {
                Read::Got(_, more) => Read::Got(compressed.0, compressed.1 + more),
                Read::More => Read::More,
                Read::Wrong(why) => Read::Wrong(why),
            }
        }
        Read::Got(..) => Read::Wrong("it has a string of an unknown kind"),
        Read::More => Read::More,
        Read::Wrong(why) => Read::Wrong(why),
    }
}

/// A string that is not too long, whole; of others, how much of them follows.
fn text(bytes: &[u8]) -> Read<(Option<Vec<u8>>, u64)> {
    let (length, used) = match string_length(bytes) {
        Read::Got(length, used) => (length, used),
        Read::More => return Read::More,
        Read::Wrong(why) => return Read::Wrong(why),
    };
    let Some(length) = usize::try_from(length).ok().filter(|length| *length <= TEXT_BYTES) else {
        return Read::Got((None, length), used);
    };
    let Some(whole) = bytes.get(..used + length) else { return Read::More };
    match super::value::string(whole) {
        Some((text, [])) => Read::Got((Some(text), 0), used + length),
        _ => Read::Wrong("it has a string that cannot be read"),
    }
}

/// A string that nobody wants to see.
fn passed_over(bytes: &[u8]) -> Read<(Option<Vec<u8>>, u64)> {
    match string_length(bytes) {
        Read::Got(length, used) => Read::Got((None, length), used),
        Read::More => Read::More,
        Read::Wrong(why) => Read::Wrong(why),
    }
}

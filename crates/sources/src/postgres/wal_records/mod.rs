//! Reads the records of the write-ahead log: where transactions ended, when, and where restore points are.
//!
//! In: the bytes of WAL, in order, in pieces of any length. Out: each record, its checksum verified. Where the server would
//! stop replaying, reading stops, and says why. Nothing is replayed; what a record changes in tables is not looked at.
//!
//! Source: `xlogrecord.h`, `xlog_internal.h`, `xlogreader.c` and `xact.h` of PostgreSQL 13 to 18, on a machine of the same
//! byte order.

mod meaning;
#[cfg(test)]
mod tests;

pub use meaning::Meaning;

use retoma_core::postgres::{Lsn, SegmentHeader, SegmentSize};

/// Bytes of the header of a record (`SizeOfXLogRecord`).
const HEADER_BYTES: usize = 24;
/// Bytes of its length, which is its first field.
const LENGTH_BYTES: usize = 4;
/// Where in the header its checksum is; it covers what lies before it, and the data.
const CRC_AT: usize = 20;
/// Headers of pages: the first of a segment has the long one.
const SHORT_PAGE_HEADER_BYTES: usize = 24;
/// The largest record that a server writes (`XLogRecordMaxSize`).
const MAX_RECORD_BYTES: u64 = 1020 << 20;
/// `xlp_info`: the page begins within a record.
const CONTINUES: u16 = 1;
/// `xlp_info`: the page has a long header.
const LONG: u16 = 2;
/// `xlp_info`: the record that was to go on here was given up.
const OVERWRITES: u16 = 8;
/// Pages have this size in every server that was not built otherwise.
const PAGE_BYTES: u64 = 8192;

/// One record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WalRecord {
    /// Its first byte; what PostgreSQL compares with `recovery_target_lsn`.
    pub start: Lsn,
    /// Behind its last byte.
    pub end: Lsn,
    /// The transaction that wrote it; 0 for none.
    pub xid: u32,
    /// Which part of the server replays it (`RmgrId`).
    pub resource_manager: u8,
    /// What of that part it is (`xl_info`).
    pub info: u8,
    /// What it means for whoever looks for a point in time.
    pub meaning: Meaning,
}

/// Why there are no more records.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Where the record would have begun that is not there.
    pub at: Lsn,
    /// What is there instead.
    pub why: String,
}

/// Reads records; one for each stretch of WAL.
#[derive(Debug)]
pub struct RecordReader {
    size: SegmentSize,
    system_identifier: u64,
    /// The position of the next byte that comes in.
    at: Lsn,
    /// The beginning of a page, as long as it is not whole.
    page_header: Vec<u8>,
    /// Bytes of records, page headers not counted, that are passed over.
    skip_bytes: u64,
    /// Everything before this position is passed over, page headers too: the rest of a segment that was left.
    resume_at: Lsn,
    /// The record that is being put together, and where it begins.
    record: Option<(Lsn, Vec<u8>)>,
    /// Where the previous record began, which the next one repeats.
    previous: Option<Lsn>,
    /// The magic number of the pages, which tells the version.
    magic: u16,
    end: Option<End>,
}

impl RecordReader {
    /// Reads from `start` on, the beginning of a segment. What is left there of an earlier record is passed over.
    pub fn new(start: Lsn, size: SegmentSize, system_identifier: u64) -> Self {
        Self {
            size,
            system_identifier,
            at: start,
            page_header: Vec::new(),
            skip_bytes: 0,
            resume_at: start,
            record: None,
            previous: None,
            magic: 0,
            end: None,
        }
    }

    /// The position of the byte that must come next.
    pub fn position(&self) -> Lsn {
        self.at
    }

    /// Why nothing more is read, once that is so.
    pub fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Takes the bytes that follow on those before, and gives each record that ends in them to `each`.
    pub fn read(&mut self, mut bytes: &[u8], each: &mut dyn FnMut(WalRecord)) {
        while !bytes.is_empty() && self.end.is_none() {
            let used = self.step(bytes, each);
            bytes = bytes.get(used..).unwrap_or_default();
        }
    }

    /// Does one thing with the bytes that come next. Gives how many it used, at least one unless this is the end.
    fn step(&mut self, bytes: &[u8], each: &mut dyn FnMut(WalRecord)) -> usize {
        if self.at < self.resume_at {
            return self.take(bytes, self.resume_at.bytes_since(self.at));
        }
        let in_page = self.at.0 % PAGE_BYTES;
        if in_page == 0 || !self.page_header.is_empty() {
            return self.page(bytes);
        }
        let rest_of_page = PAGE_BYTES - in_page;
        if self.skip_bytes > 0 {
            let used = self.take(bytes, self.skip_bytes.min(rest_of_page));
            self.skip_bytes -= used as u64;
            return used;
        }
        if self.record.is_none() {
            let padding = self.at.0.next_multiple_of(8) - self.at.0;
            if padding > 0 {
                return self.take(bytes, padding);
            }
        }
        self.record(bytes, rest_of_page, each)
    }

    /// Passes over up to `count` bytes.
    fn take(&mut self, bytes: &[u8], count: u64) -> usize {
        let used = usize::try_from(count).map_or(bytes.len(), |count| count.min(bytes.len()));
        self.at = Lsn(self.at.0 + used as u64);
        used
    }

    fn stop(&mut self, why: impl Into<String>) -> usize {
        let at = self.record.as_ref().map_or(self.at, |(start, _)| *start);
        self.end = Some(End { at, why: why.into() });
        0
    }

    /// Puts the header of a page together, and looks at it when it is whole.
    fn page(&mut self, bytes: &[u8]) -> usize {
        let is_first = self.size.offset_of(Lsn(self.at.0 - self.page_header.len() as u64)) == 0;
        let length = if is_first { SegmentHeader::BYTES } else { SHORT_PAGE_HEADER_BYTES };
        let missing = length - self.page_header.len();
        let used = self.take(bytes, missing as u64);
        self.page_header.extend_from_slice(&bytes[..used]);
        if used == missing {
            let header = std::mem::take(&mut self.page_header);
            if let Err(why) = self.enter_page(&header, is_first) {
                self.stop(why);
            }
        }
        used
    }

    fn enter_page(&mut self, header: &[u8], is_first: bool) -> Result<(), String> {
        let field = Fields(header);
        let (magic, info) = (field.u16(0), field.u16(2));
        let start = Lsn(self.at.0 - header.len() as u64);
        if magic >> 8 != 0xD1 || (self.magic != 0 && magic != self.magic) {
            return Err(format!("a page with the magic number {magic:04X}"));
        }
        if field.u64(8) != start.0 {
            return Err(format!("a page of {}", Lsn(field.u64(8))));
        }
        if (info & LONG != 0) != is_first {
            return Err("a page header of the wrong kind".to_owned());
        }
        if let Some(segment) = is_first.then(|| SegmentHeader::parse(header)).flatten() {
            if segment.system_identifier != self.system_identifier {
                return Err(format!("a segment of server {}", segment.system_identifier));
            }
            if u64::from(segment.segment_bytes) != self.size.bytes() || u64::from(field.u32(36)) != PAGE_BYTES
            {
                return Err("a segment with other sizes".to_owned());
            }
        }
        self.magic = magic;
        self.go_on_in_page(info, u64::from(field.u32(16)))
    }

    /// `rest_bytes`: what the page says is left of the record that goes on in it.
    fn go_on_in_page(&mut self, info: u16, rest_bytes: u64) -> Result<(), String> {
        if info & OVERWRITES != 0 {
            self.record = None;
            self.previous = None;
            self.skip_bytes = 0;
            return Ok(());
        }
        let continues = info & CONTINUES != 0;
        let expected = match &self.record {
            Some((_, gathered)) => record_length(gathered) - gathered.len() as u64,
            None => self.skip_bytes,
        };
        match (continues, expected) {
            (false, 0) => Ok(()),
            // The first page that is read: its record began before.
            (true, 0) if self.previous.is_none() => {
                self.skip_bytes = rest_bytes;
                Ok(())
            }
            (true, expected) if expected == rest_bytes => Ok(()),
            _ => Err(format!("a page with {rest_bytes} bytes of a record of which {expected} are left")),
        }
    }

    /// Adds to the record that is being put together, within this page, and gives it out when it is whole.
    fn record(&mut self, bytes: &[u8], rest_of_page: u64, each: &mut dyn FnMut(WalRecord)) -> usize {
        let (start, mut gathered) = self.record.take().unwrap_or_else(|| (self.at, Vec::new()));
        // Records begin at multiples of 8: the length is always within the page.
        let wanted =
            if gathered.len() < LENGTH_BYTES { LENGTH_BYTES as u64 } else { record_length(&gathered) };
        let used = self.take(bytes, (wanted - gathered.len() as u64).min(rest_of_page));
        gathered.extend_from_slice(&bytes[..used]);
        let (count, length) = (gathered.len(), record_length(&gathered));
        self.record = Some((start, gathered));
        if count == LENGTH_BYTES && !(HEADER_BYTES as u64..=MAX_RECORD_BYTES).contains(&length) {
            return self.stop(match length {
                0 => "zeros".to_owned(),
                _ => format!("a record of {length} bytes"),
            });
        }
        if count > LENGTH_BYTES && count as u64 == length {
            self.finish(each);
        }
        used
    }

    fn finish(&mut self, each: &mut dyn FnMut(WalRecord)) {
        let Some((start, bytes)) = &self.record else { return };
        let start = *start;
        let field = Fields(bytes);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&bytes[HEADER_BYTES..]), &bytes[..CRC_AT]);
        if crc != field.u32(CRC_AT) {
            self.stop("a record whose checksum is wrong");
            return;
        }
        let before = Lsn(field.u64(8));
        if self.previous.is_some_and(|previous| previous != before) || before >= start {
            self.stop(format!("a record that follows on one at {before}"));
            return;
        }
        let (info, resource_manager) = (bytes[16], bytes[17]);
        let Some(meaning) = meaning::of(resource_manager, info, field.u32(4), bytes, self.magic) else {
            self.stop("a record that cannot be read");
            return;
        };
        let end = Lsn(self.at.0.next_multiple_of(8));
        let record = WalRecord { start, end, xid: field.u32(4), resource_manager, info, meaning };
        if meaning::is_switch(resource_manager, info) && self.size.offset_of(self.at) != 0 {
            self.resume_at = Lsn(self.size.start_of(self.at).0 + self.size.bytes());
        }
        self.previous = Some(start);
        self.record = None;
        each(record);
    }
}

/// The length that a record says it has; 0 before its first [`LENGTH_BYTES`] are there.
fn record_length(bytes: &[u8]) -> u64 {
    u64::from(Fields(bytes).u32(0))
}

/// Numbers within bytes, in the machine's order; zero where the bytes end before.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn array<const N: usize>(&self, at: usize) -> [u8; N] {
        self.0.get(at..at + N).and_then(|bytes| bytes.try_into().ok()).unwrap_or([0; N])
    }

    fn u16(&self, at: usize) -> u16 {
        u16::from_ne_bytes(self.array(at))
    }

    fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.array(at))
    }

    fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.array(at))
    }
}

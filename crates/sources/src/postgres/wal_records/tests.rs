use super::*;
use proptest::prelude::*;

const SERVER: u64 = 7_000_000_000_000_000_001;
/// PostgreSQL 15.
const MAGIC: u16 = 0xD110;
/// 2026-01-01 in the server's count.
const NEW_YEAR: i64 = 820_540_800_000_000;

fn size() -> SegmentSize {
    SegmentSize::new(1 << 20).unwrap()
}

/// Writes WAL as a server does.
struct Writer {
    wal: Vec<u8>,
    start: u64,
    previous: u64,
}

impl Writer {
    fn new(start: u64) -> Self {
        Self { wal: Vec::new(), start, previous: start.saturating_sub(64) }
    }

    fn at(&self) -> u64 {
        self.start + self.wal.len() as u64
    }

    fn page_header(&mut self, rest_bytes: usize, flags: u16) {
        let (at, is_first) = (self.at(), self.at().is_multiple_of(size().bytes()));
        let mut info = flags | if rest_bytes > 0 { CONTINUES } else { 0 };
        if is_first {
            info |= LONG;
        }
        self.wal.extend(MAGIC.to_ne_bytes());
        self.wal.extend(info.to_ne_bytes());
        self.wal.extend(1u32.to_ne_bytes());
        self.wal.extend(at.to_ne_bytes());
        self.wal.extend(u32::try_from(rest_bytes).unwrap().to_ne_bytes());
        self.wal.extend([0; 4]);
        if is_first {
            self.wal.extend(SERVER.to_ne_bytes());
            self.wal.extend((1u32 << 20).to_ne_bytes());
            self.wal.extend(8192u32.to_ne_bytes());
        }
    }

    /// Appends bytes of a record, with page headers where they belong.
    fn bytes(&mut self, mut record: &[u8]) {
        while !record.is_empty() {
            let in_page = self.at() % PAGE_BYTES;
            if in_page == 0 {
                self.page_header(record.len(), 0);
                continue;
            }
            let count = record.len().min(usize::try_from(PAGE_BYTES - in_page).unwrap());
            self.wal.extend(&record[..count]);
            record = &record[count..];
        }
    }

    /// Appends a record. Gives where it begins.
    fn record(&mut self, resource_manager: u8, info: u8, xid: u32, headers: &[u8], data: &[u8]) -> Lsn {
        if self.at().is_multiple_of(PAGE_BYTES) {
            self.page_header(0, 0);
        }
        let start = self.at();
        let length = HEADER_BYTES + headers.len() + 5 + data.len();
        let mut record = Vec::new();
        record.extend(u32::try_from(length).unwrap().to_ne_bytes());
        record.extend(xid.to_ne_bytes());
        record.extend(self.previous.to_ne_bytes());
        record.extend([info, resource_manager, 0, 0]);
        let mut body = headers.to_vec();
        body.push(254);
        body.extend(u32::try_from(data.len()).unwrap().to_ne_bytes());
        body.extend(data);
        let crc = crc32c::crc32c_append(crc32c::crc32c(&body), &record);
        record.extend(crc.to_ne_bytes());
        record.extend(body);
        self.bytes(&record);
        self.wal.resize(self.wal.len().next_multiple_of(8), 0);
        self.previous = start;
        Lsn(start)
    }

    fn fill_segment(&mut self) {
        self.wal.resize(self.wal.len().next_multiple_of(1 << 20), 0);
    }
}

/// Gives `wal` to a reader in pieces; all records, and the reader.
fn read(start: u64, wal: &[u8], piece_bytes: usize) -> (Vec<WalRecord>, RecordReader) {
    let mut reader = RecordReader::new(Lsn(start), size(), SERVER);
    let mut records = Vec::new();
    for piece in wal.chunks(piece_bytes) {
        reader.read(piece, &mut |record| records.push(record));
    }
    (records, reader)
}

fn commit(time: i64) -> Vec<u8> {
    time.to_ne_bytes().to_vec()
}

proptest! {
    #[test]
    fn records_of_any_length_come_back_from_pieces_of_any_length(
        lengths in prop::collection::vec(0usize..30_000, 1..40),
        piece_bytes in 1usize..20_000,
    ) {
        let start = 5 << 20;
        let mut writer = Writer::new(start);
        let starts: Vec<Lsn> =
            lengths.iter().map(|length| writer.record(10, 0, 7, &[], &vec![0xAB; *length])).collect();
        let (records, reader) = read(start, &writer.wal, piece_bytes);
        prop_assert_eq!(reader.end(), None);
        prop_assert_eq!(reader.position().0, writer.at());
        prop_assert_eq!(records.iter().map(|record| record.start).collect::<Vec<_>>(), starts);
        prop_assert_eq!(records.last().map(|record| record.end.0), Some(writer.at()));
    }

    #[test]
    fn a_changed_byte_ends_reading_at_its_record_at_the_latest(at: prop::sample::Index, flip in 1u8..) {
        let mut writer = Writer::new(0x100_0000);
        for number in 0..200 {
            writer.record(10, 0, 7, &[], &vec![number; 37 * usize::from(number)]);
        }
        let (all, _) = read(0x100_0000, &writer.wal, 1 << 20);
        let at = at.index(writer.wal.len());
        let hit = Lsn(0x100_0000 + at as u64);
        writer.wal[at] ^= flip;
        let (records, _) = read(0x100_0000, &writer.wal, 1 << 20);
        // Padding, and what a page header does not need, may change; a record never does.
        let before = all.iter().filter(|record| record.end <= hit).count();
        prop_assert!(records.len() >= before);
        prop_assert_eq!(&records[..], &all[..records.len()]);
    }

    #[test]
    fn any_bytes_are_read_or_end_reading(wal: Vec<u8>, keep in 0usize..200) {
        let mut writer = Writer::new(1 << 20);
        writer.record(1, 0x80, 7, &[], &wal);
        writer.record(0, 0x70, 0, &wal, &wal);
        let keep = keep.min(writer.wal.len());
        let bytes = [&writer.wal[..keep], &wal[..]].concat();
        read(1 << 20, &bytes, 100);
        read(1 << 20, &writer.wal, 100);
    }
}

#[test]
fn ends_of_transactions_and_restore_points_are_told() {
    let mut writer = Writer::new(0);
    let mut point = commit(NEW_YEAR);
    point.extend(b"before the change");
    point.resize(8 + 64, 0);
    let name = |at| Meaning::RestorePoint { name: "before the change".to_owned(), at };
    // A block with a compressed image with a hole, one of the same relation, an origin, a top transaction.
    let mut headers = vec![0, 0x10, 0, 0, 9, 0, 9, 0, 0x05, 9, 0];
    headers.extend([0; 16]);
    headers.extend([1, 0x80, 0, 0, 5, 0, 0, 0, 253, 1, 0, 252, 3, 0, 0, 0]);
    // Database, two subtransactions, one relation, one statistic, one message, the prepared transaction.
    let mut prepared = commit(NEW_YEAR + 1_000_000);
    prepared.extend(0b1_0001_1111u32.to_ne_bytes());
    prepared.extend([0; 8]);
    for (count, bytes) in [(2u32, 8), (1, 12), (1, 12), (1, 16)] {
        prepared.extend(count.to_ne_bytes());
        prepared.resize(prepared.len() + bytes, 0xEE);
    }
    prepared.extend(4711u32.to_ne_bytes());

    writer.record(1, 0x00, 42, &[], &commit(NEW_YEAR));
    writer.record(1, 0x20, 43, &headers, &commit(NEW_YEAR));
    writer.record(0, 0x70, 0, &[], &point);
    writer.record(1, 0x30 | 0x80, 0, &[], &prepared);
    writer.record(1, 0x10, 44, &[], b"");
    writer.record(5, 0x00, 45, &[], b"\x10\x40\0\0/srv/fast\0");
    writer.record(5, 0x00, 45, &[], b"\x11\x40\0\0\0");
    writer.record(5, 0x10, 46, &[], b"\x10\x40\0\0");
    let (records, reader) = read(0, &writer.wal, 1 << 20);
    assert_eq!(reader.end(), None);
    let at = "2026-01-01T00:00:00Z".parse().unwrap();
    let later = "2026-01-01T00:00:01Z".parse().unwrap();
    let expected = [
        Meaning::Commit { xid: 42, at },
        Meaning::Abort { xid: 43, at },
        name(at),
        Meaning::Commit { xid: 4711, at: later },
        Meaning::Other,
        Meaning::Tablespace { oid: 16400, location: "/srv/fast".to_owned() },
        Meaning::Other,
        Meaning::Other,
    ];
    assert_eq!(records.into_iter().map(|record| record.meaning).collect::<Vec<_>>(), expected);
}

#[test]
fn what_a_prepared_transaction_must_have_is_asked_for() {
    let mut writer = Writer::new(0);
    writer.record(1, 0x30 | 0x80, 0, &[], &commit(NEW_YEAR));
    let (records, reader) = read(0, &writer.wal, 1 << 20);
    assert_eq!(records, []);
    assert_eq!(reader.end().unwrap().why, "a record that cannot be read");
}

#[test]
fn a_segment_that_was_left_is_passed_over() {
    let mut writer = Writer::new(0);
    let first = writer.record(0, 0x40, 0, &[], b"");
    writer.fill_segment();
    let second = writer.record(10, 0, 7, &[], b"next");
    let (records, reader) = read(0, &writer.wal, 777);
    assert_eq!(reader.end(), None);
    assert_eq!(records.iter().map(|record| record.start).collect::<Vec<_>>(), [first, second]);
}

#[test]
fn the_rest_of_an_earlier_record_is_passed_over() {
    let mut writer = Writer::new(0);
    writer.record(10, 0, 7, &[], &vec![1; (1 << 20) + 20_000]);
    let next = writer.record(10, 0, 8, &[], b"next");
    let (records, reader) = read(1 << 20, &writer.wal[1 << 20..], 1000);
    assert_eq!(reader.end(), None);
    assert_eq!(records.iter().map(|record| record.start).collect::<Vec<_>>(), [next]);
}

#[test]
fn a_record_that_was_given_up_is_forgotten() {
    let mut writer = Writer::new(0);
    writer.record(10, 0, 7, &[], b"whole");
    writer.record(10, 0, 8, &[], &vec![2; 20_000]);
    // The server crashed before the second page was there, and went on in it.
    writer.wal.truncate(8192);
    writer.page_header(0, OVERWRITES);
    let next = writer.record(10, 0, 9, &[], b"overwritten");
    let (records, reader) = read(0, &writer.wal, 1000);
    assert_eq!(reader.end(), None);
    assert_eq!(records.iter().map(|record| record.xid).collect::<Vec<_>>(), [7, 9]);
    assert_eq!(records[1].start, next);
}

#[test]
fn where_a_server_would_stop_reading_stops() {
    let after = |change: &dyn Fn(&mut Writer)| {
        let mut writer = Writer::new(0);
        writer.record(10, 0, 7, &[], b"good");
        change(&mut writer);
        let (records, reader) = read(0, &writer.wal, 1 << 20);
        assert_eq!(records.len(), 1);
        reader.end().cloned().unwrap()
    };
    let zeros = after(&|writer| writer.wal.extend([0; 100]));
    assert_eq!((zeros.at, zeros.why.as_str()), (Lsn(80), "zeros"));
    assert_eq!(after(&|writer| writer.wal.extend([9, 0, 0, 0, 0, 0, 0, 0])).why, "a record of 9 bytes");
    let huge = after(&|writer| writer.wal.extend([0xFF; 8]));
    assert_eq!(huge.why, "a record of 4294967295 bytes");
    let other = after(&|writer| {
        writer.previous = 24;
        writer.record(10, 0, 7, &[], b"of another history");
    });
    assert_eq!(other.why, "a record that follows on one at 0/18");
    let page = after(&|writer| {
        writer.record(10, 0, 8, &[], &[1; 9000]);
        writer.wal[8192 + 8] ^= 1;
    });
    assert_eq!((page.at, page.why.as_str()), (Lsn(80), "a page of 0/2001"));
}

#[test]
fn wal_of_another_server_or_size_is_none() {
    let mut writer = Writer::new(0);
    writer.record(10, 0, 7, &[], b"good");
    let end = |server, bytes| {
        let mut reader = RecordReader::new(Lsn(0), SegmentSize::new(bytes).unwrap(), server);
        reader.read(&writer.wal, &mut |_| panic!("a record of another server"));
        reader.end().unwrap().why.clone()
    };
    assert_eq!(end(1, 1 << 20), format!("a segment of server {SERVER}"));
    assert_eq!(end(SERVER, 16 << 20), "a segment with other sizes");
}

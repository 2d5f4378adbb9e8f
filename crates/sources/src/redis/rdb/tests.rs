//! Data sets made by hand, cut anywhere, and any bytes.

mod encode;
mod followed;
mod values;

use super::*;
use proptest::prelude::*;

fn passed(bytes: &[u8], pieces: usize) -> Result<Passed> {
    let mut rdb = Rdb::asking([10, 2_000], Sampling::new(2));
    for piece in bytes.chunks(pieces.max(1)) {
        rdb.pass(piece);
    }
    rdb.finish()
}

fn string(text: &[u8]) -> Vec<u8> {
    [&[0x40 | u8::try_from(text.len() >> 8).unwrap(), u8::try_from(text.len() & 0xff).unwrap()], text]
        .concat()
}

/// Keys of every encoding that is followed, in two databases.
fn sample_set() -> Vec<u8> {
    let mut bytes = b"REDIS0011\xfa".to_vec();
    bytes.extend([string(b"redis-ver"), string(b"7.2.0")].concat());
    bytes.extend(b"\xfa\x09repl-time\xc1\xe8\x03");
    bytes.extend(b"\xf5");
    bytes.extend(string(b"#!lua name=x"));
    // A module's data beside the keys.
    bytes.extend(b"\xf7\x81\0\0\0\0\0\0\0\x01\x02\x01\x05\x03abc\x04\0\0\0\0\0\0\0\0\0");
    bytes.extend(b"\xfe\0\xfb\x05\x02");
    let mut key = |name: &str, encoding: u8, value: &[u8]| {
        bytes.push(encoding);
        bytes.extend(string(name.as_bytes()));
        bytes.extend(value);
    };
    key("int8", 0, &[0xc0, 0xff]);
    key("int32", 0, &[0xc2, 1, 2, 3, 4]);
    key("lzf", 0, &[0xc3, 4, 10, 0, b'a', 0xe0, 0]);
    key("list", 1, &[2, 1, b'a', 1, b'b']);
    key("quicklist", 14, &[1, 1, b'z']);
    key("nodes", 18, &[2, 1, 1, b'p', 2, 1, b'l']);
    key("set", 2, &[1, 1, b'm']);
    key("oldzset", 3, &[3, 1, b'a', 3, b'1', b'.', b'5', 1, b'b', 254, 1, b'c', 253]);
    key("hash", 4, &[1, 1, b'f', 1, b'v']);
    key("zset", 5, &[&[1, 1, b'm'][..], &1.5f64.to_le_bytes()].concat());
    key(
        "module",
        7,
        &[0x81, 0, 0, 0, 0, 0, 0, 0, 7, 2, 9, 4, 0, 0, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 0, 5, 1, b's', 0],
    );
    for encoding in [9, 10, 11, 12, 13, 16, 17, 20] {
        key(&format!("blob{encoding}"), encoding, &[3, b'x', b'y', b'z']);
    }
    for (encoding, group) in
        [(15, &[1, 1, b'g', 1, 2][..]), (19, &[1, 1, b'g', 1, 2, 3]), (21, &[1, 1, b'g', 1, 2, 3])]
    {
        let mut value = vec![1, 2, b'i', b'd', 2, b'l', b'p', 5, 1, 2];
        if encoding > 15 {
            value.extend([1, 1, 2, 2, 9]);
        }
        value.extend(group);
        // One entry that was delivered, one consumer who has it.
        value.extend([&[1][..], &[0; 24], &[3, 1, 1, b'c'], &[0; 8]].concat());
        if encoding == 21 {
            value.extend([0; 8]);
        }
        value.extend([&[1][..], &[0; 16]].concat());
        key(&format!("stream{encoding}"), encoding, &value);
    }
    bytes.extend(b"\xfe\x40\x40\xf8\x05\xf9\x07\xfc");
    bytes.extend(1_000u64.to_le_bytes());
    bytes.extend(b"\x00\x01e\x01v\xfd");
    bytes.extend(1u32.to_le_bytes());
    bytes.extend(b"\x00\x01f\x01v\xfc");
    bytes.extend(3_000u64.to_le_bytes());
    bytes.extend(b"\x00");
    bytes.extend(string(&[b'n'; 3_000]));
    bytes.extend(b"\x01v\xff");
    let sum = crc64::update(0, &bytes);
    bytes.extend(sum.to_le_bytes());
    bytes
}

#[test]
fn every_encoding_is_passed_over_however_it_is_cut() {
    let bytes = sample_set();
    let whole = passed(&bytes, bytes.len()).unwrap();
    let counts = whole.counts.clone().unwrap();
    assert_eq!(counts.databases[&0], Keys { keys: 22, expires: 0, expired: [0, 0] });
    assert_eq!(counts.databases[&64], Keys { keys: 3, expires: 3, expired: [0, 2] });
    let types: Vec<_> = counts.types.iter().map(|(name, count)| (*name, *count)).collect();
    assert_eq!(
        types,
        [("hash", 4), ("list", 4), ("module", 1), ("set", 3), ("stream", 3), ("string", 6), ("zset", 4)]
    );
    assert_eq!((whole.version, whole.has_checksum, whole.bytes), (11, true, bytes.len() as u64));
    assert_eq!(whole.auxiliary["redis-ver"], "7.2.0");
    assert_eq!(whole.auxiliary["repl-time"], "1000");
    assert!(whole.samples.len() > 8);
    for pieces in 1..40 {
        assert_eq!(passed(&bytes, pieces).unwrap(), whole, "in pieces of {pieces}");
    }
}

#[test]
fn samples_hold_the_value_alone() {
    let mut bytes =
        b"REDIS0010\xfe\0\x04\x01h\x01\x01f\x01v\x00\x01s\xc3\x05\x0a\x00a\xe0\x00\x00\xff".to_vec();
    let sum = crc64::update(0, &bytes);
    bytes.extend(sum.to_le_bytes());
    let samples = passed(&bytes, 3).unwrap().samples;
    let shown: Vec<_> = samples.iter().map(|it| (it.kind, it.value.as_deref().unwrap())).collect();
    assert_eq!(shown, [("hash", &b"\x01\x01f\x01v"[..]), ("string", b"\xc3\x05\x0a\x00a\xe0\x00\x00")]);
    assert_eq!(value::elements(0, samples[1].value.as_ref().unwrap()), Some(vec![b"a".repeat(10)]));
}

#[test]
fn damage_anywhere_is_found() {
    let bytes = sample_set();
    for at in 0..bytes.len() - 8 {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        assert_eq!(passed(&damaged, 64).unwrap_err().code(), codes::REDIS_DAMAGED, "{at}");
    }
    for length in 0..bytes.len() {
        assert!(passed(&bytes[..length], 64).is_err(), "{length}");
    }
}

#[test]
fn what_is_not_known_is_not_counted_as_long_as_the_checksum_fits() {
    for body in [&b"REDIS0010\x63\0\xff"[..], b"REDIS0012\xfe\0\xff", b"REDIS0010\xfe\xc0\xff"] {
        let sum = crc64::update(0, body);
        let found = passed(&[body, &sum.to_le_bytes()].concat(), 5).unwrap();
        assert!(found.counts.is_err() && found.samples.is_empty(), "{found:?}");
        let error = passed(&[body, &[0; 8]].concat(), 5).unwrap_err();
        assert!(error.hint().unwrap().contains("rdbchecksum yes"), "{error:?}");
    }
}

#[test]
fn encodings_of_the_same_value_have_the_same_elements() {
    let pack = |entries: &[&[u8]]| {
        let body: Vec<u8> = entries
            .iter()
            .flat_map(|entry| [entry, &[u8::try_from(entry.len()).unwrap()][..]].concat())
            .collect();
        let length = u32::try_from(body.len() + 7).unwrap();
        string(&[&length.to_le_bytes()[..], &[0, 0], &body, &[0xff]].concat())
    };
    let numbers = pack(&[
        &[5],
        &[0xdf, 0xff],
        &[0xf1, 0, 0x80],
        &[0xf2, 1, 0, 0x80],
        &[0xf3, 0, 0, 0, 0x80],
        &[0xf4, 1, 0, 0, 0, 0, 0, 0, 0],
        &[0x81, b'x'],
        &[0xe0, 1, b'y'],
        &[0xf0, 1, 0, 0, 0, b'z'],
    ]);
    let texts = ["5", "-1", "-32768", "-8388607", "-2147483648", "1", "x", "y", "z"];
    let list: Vec<Vec<u8>> = texts.iter().map(|text| text.as_bytes().to_vec()).collect();
    assert_eq!(value::elements(18, &[&[1, 2], &numbers[..]].concat()), Some(list.clone()));
    let mut sorted = list;
    sorted.sort();
    assert_eq!(value::elements(20, &numbers), Some(sorted));
    // A set of numbers, as one and as a table.
    let intset = string(&[2, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0xff, 0xff]);
    assert_eq!(value::elements(11, &intset), value::elements(2, &[2, 2, b'-', b'1', 1, b'1']));
    // A hash and a sorted set, packed and as tables.
    let packed = pack(&[&[0x81, b'f'], &[1], &[0x81, b'g'], &[0x81, b'v']]);
    assert_eq!(value::elements(16, &packed), value::elements(4, &[2, 1, b'g', 1, b'v', 1, b'f', 0xc0, 1]));
    let packed = pack(&[&[0x81, b'm'], &[0x83, b'1', b'.', b'5']]);
    let table = [&[1, 1, b'm'][..], &1.5f64.to_le_bytes()].concat();
    assert_eq!(value::elements(17, &packed), value::elements(5, &table));
    assert!(value::elements(5, &table).is_some());
    assert_ne!(
        value::elements(4, &[1, 1, b'a', 2, b'b', b'c']),
        value::elements(4, &[1, 2, b'a', b'b', 1, b'c'])
    );
}

proptest! {
    #[test]
    fn any_bytes_pass_or_are_refused(bytes in prop::collection::vec(any::<u8>(), 0..300), pieces in 1usize..50, at: prop::sample::Index) {
        let _passed = passed(&[b"REDIS0010\xfe\0", &bytes[..]].concat(), pieces).is_ok();
        let mut set = sample_set();
        let at = at.index(set.len());
        set.splice(at.., bytes.clone());
        let counts = |pieces| passed(&set, pieces).map(|found| found.counts).ok();
        prop_assert_eq!(counts(pieces), counts(set.len()));
        for encoding in 0..22 {
            let _elements = value::elements(encoding, &bytes);
        }
    }
}

//! Data sets by chance, beside what was put into them: keys, types, expiries and samples are counted right, however the
//! bytes come in.

use super::super::{Counts, Keys, Passed, Rdb, Sample, Sampling};
use super::encode::{length, listpack, string};
use crate::redis::crc64;
use proptest::prelude::*;
use std::collections::BTreeMap;

const TIMES: [u64; 2] = [5_000, 50_000];

/// A key as it is put in.
#[derive(Debug, Clone)]
struct Key {
    database: u8,
    name: Vec<u8>,
    /// When it expires, and whether that is written in seconds.
    expires: Option<(u16, bool)>,
    encoding: u8,
    texts: Vec<Vec<u8>>,
    form: u8,
    /// Whether it says how often it is used, and how long it was not.
    used: Option<u8>,
}

impl Key {
    fn kind(&self) -> &'static str {
        match self.encoding {
            0 => "string",
            1 | 18 => "list",
            2 | 20 => "set",
            4 | 16 => "hash",
            5 => "zset",
            19 => "stream",
            other => panic!("{other}"),
        }
    }

    fn expires_ms(&self) -> Option<u64> {
        self.expires
            .map(|(time, in_seconds)| if in_seconds { u64::from(time / 1000) * 1000 } else { time.into() })
    }

    /// What is too long is never packed here: its length as stored decides.
    fn name_form(&self) -> u8 {
        if self.name.len() > 1000 { 0 } else { self.form }
    }

    fn value(&self) -> Vec<u8> {
        let (texts, form) = (&self.texts, self.form);
        let count = |each: usize| length((texts.len() / each) as u64, form);
        let all =
            |texts: &[Vec<u8>]| -> Vec<u8> { texts.iter().flat_map(|text| string(text, form)).collect() };
        let even = &texts[..texts.len() / 2 * 2];
        match self.encoding {
            0 => string(texts.first().map_or(&[][..], Vec::as_slice), form),
            1 | 2 => [count(1), all(texts)].concat(),
            4 => [count(2), all(even)].concat(),
            5 => {
                let scored = texts.iter().flat_map(|text| [string(text, form), vec![form; 8]].concat());
                count(1).into_iter().chain(scored).collect()
            }
            16 => string(&listpack(even, form), form),
            20 => string(&listpack(texts, form), form),
            18 => [
                length(2, form),
                length(1, form),
                all(&[b"alone".to_vec()]),
                length(2, form),
                string(&listpack(texts, form), 0),
            ]
            .concat(),
            // One node; how long it is, its last id, four more numbers; no groups.
            19 => {
                let numbers: Vec<u8> =
                    (0..8).flat_map(|number| length(number * u64::from(form) * 300, form)).collect();
                [
                    length(1, form),
                    string(b"id", 0),
                    string(&listpack(texts, form), 0),
                    numbers,
                    length(0, form),
                ]
                .concat()
            }
            other => panic!("{other}"),
        }
    }

    fn record(&self) -> Vec<u8> {
        let mut record = Vec::new();
        match self.expires {
            Some((time, true)) => {
                record.extend([&[0xfd][..], &u32::from(time / 1000).to_le_bytes()].concat());
            }
            Some((time, false)) => record.extend([&[0xfc][..], &u64::from(time).to_le_bytes()].concat()),
            None => {}
        }
        match self.used {
            Some(often) if often % 2 == 0 => record.extend([0xf9, often]),
            Some(idle) => record.extend([vec![0xf8], length(u64::from(idle) * 1000, idle)].concat()),
            None => {}
        }
        [record, vec![self.encoding], string(&self.name, self.name_form()), self.value()].concat()
    }
}

fn key() -> impl Strategy<Value = Key> {
    let name = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..12),
        (0u32..3000).prop_map(|number| number.to_string().into_bytes()),
        (1000usize..1100).prop_map(|bytes| vec![b'n'; bytes]),
    ];
    let encoding = prop::sample::select(vec![0u8, 1, 2, 4, 5, 16, 18, 19, 20]);
    let text =
        prop_oneof![prop::collection::vec(any::<u8>(), 0..40), "-?[0-9]{1,6}".prop_map(String::into_bytes)];
    let expires = prop::option::of((any::<u16>(), any::<bool>()));
    let texts = prop::collection::vec(text, 0..5);
    (0u8..3, name, expires, encoding, texts, any::<u8>(), prop::option::of(any::<u8>())).prop_map(
        |(database, name, expires, encoding, texts, form, used)| Key {
            database,
            name,
            expires,
            encoding,
            texts,
            form,
            used,
        },
    )
}

fn data_set(keys: &[Key]) -> Vec<u8> {
    let mut bytes = b"REDIS0011\xfa".to_vec();
    bytes.extend([string(b"redis-ver", 0), string(b"7.2.0", 0)].concat());
    let mut database = None;
    for key in keys {
        if database != Some(key.database) {
            database = Some(key.database);
            bytes.extend([vec![0xfe], length(u64::from(key.database) * 100, key.form)].concat());
            bytes.extend([vec![0xfb], length(7, key.form), length(70_000, key.form)].concat());
        }
        bytes.extend(key.record());
    }
    bytes.push(0xff);
    let sum = crc64::update(0, &bytes);
    bytes.extend(sum.to_le_bytes());
    bytes
}

fn counts(keys: &[Key]) -> Counts {
    let mut counts = Counts::default();
    for key in keys {
        let of: &mut Keys = counts.databases.entry(u64::from(key.database) * 100).or_default();
        of.keys += 1;
        if let Some(time) = key.expires_ms() {
            of.expires += 1;
            for (count, now) in of.expired.iter_mut().zip(TIMES) {
                *count += u64::from(time <= now);
            }
        }
        *counts.types.entry(key.kind()).or_default() += 1;
    }
    counts
}

/// Sum of the name, database, name.
type Rank = (u64, u64, Vec<u8>);

/// Of each type the keys with the smallest sums; a name that is too long is never one of them.
fn samples(keys: &[Key], per_type: usize) -> Vec<Sample> {
    let mut by_type: BTreeMap<&str, BTreeMap<Rank, Sample>> = BTreeMap::new();
    for key in keys.iter().filter(|key| key.name.len() <= 1024) {
        let database = u64::from(key.database) * 100;
        let sample = Sample {
            database,
            key: key.name.clone(),
            kind: key.kind(),
            encoding: key.encoding,
            expires_ms: key.expires_ms(),
            value: Some(key.value()),
        };
        by_type
            .entry(key.kind())
            .or_default()
            .insert((crc64::update(0, &key.name), database, key.name.clone()), sample);
    }
    by_type.into_values().flat_map(|all| all.into_values().take(per_type)).collect()
}

fn pass(bytes: &[u8], pieces: &[usize], per_type: usize) -> retoma_core::Result<Passed> {
    let mut rdb = Rdb::asking(TIMES, Sampling::new(per_type));
    let (mut rest, mut sizes) = (bytes, pieces.iter().cycle());
    while !rest.is_empty() {
        let (piece, behind) = rest.split_at(sizes.next().copied().unwrap_or(64).clamp(1, rest.len()));
        rdb.pass(piece);
        rest = behind;
    }
    rdb.finish()
}

/// Names of keys are told apart within a database, as in a server.
fn distinct(mut keys: Vec<Key>) -> Vec<Key> {
    let mut seen = std::collections::HashSet::new();
    keys.retain(|key| seen.insert((key.database, key.name.clone())));
    keys
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn what_was_put_in_is_counted_and_sampled(
        keys in prop::collection::vec(key(), 0..25),
        pieces in prop::collection::vec(1usize..90, 1..6),
        per_type in 0usize..4,
    ) {
        let keys = distinct(keys);
        let bytes = data_set(&keys);
        let passed = pass(&bytes, &pieces, per_type).unwrap();
        prop_assert_eq!(passed.counts.as_ref().unwrap(), &counts(&keys));
        prop_assert_eq!(passed.counts.as_ref().unwrap().keys(), keys.len() as u64);
        prop_assert_eq!(passed.samples, samples(&keys, per_type));
        prop_assert_eq!((passed.bytes, passed.version, passed.has_checksum), (bytes.len() as u64, 11, true));
        prop_assert_eq!(&passed.auxiliary["redis-ver"], "7.2.0");
    }

    /// A server without checksums: then the structure alone tells that all is there.
    #[test]
    fn without_a_checksum_what_is_not_whole_is_refused(keys in prop::collection::vec(key(), 1..6), cut: prop::sample::Index) {
        let keys = distinct(keys);
        let mut bytes = data_set(&keys);
        let end = bytes.len() - 8;
        bytes[end..].fill(0);
        let passed = pass(&bytes, &[64], 1).unwrap();
        prop_assert!(!passed.has_checksum);
        prop_assert_eq!(passed.counts.unwrap(), counts(&keys));
        let cut = cut.index(end);
        let shortened = [&bytes[..cut], &[0; 8]].concat();
        prop_assert!(pass(&shortened, &[64], 1).is_err(), "cut at {} of {}", cut, end);
    }
}

/// A value that is too long is counted, and compared by its type alone: it must not be kept.
#[test]
fn a_value_that_is_too_long_is_counted_and_not_kept() {
    let of = |bytes: usize| {
        let texts = vec![vec![b'v'; bytes]];
        let key =
            Key { database: 0, name: b"k".to_vec(), expires: None, encoding: 0, texts, form: 0, used: None };
        let passed = pass(&data_set(&[key]), &[4096], 1).unwrap();
        assert_eq!(passed.counts.unwrap().keys(), 1);
        passed.samples.into_iter().next().unwrap().value.map(|value| value.len())
    };
    let header = length(Sampling::VALUE_BYTES as u64, 0).len();
    assert_eq!(of(Sampling::VALUE_BYTES - header), Some(Sampling::VALUE_BYTES));
    assert_eq!(of(Sampling::VALUE_BYTES - header + 1), None);
}

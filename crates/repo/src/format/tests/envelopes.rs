//! What lies around the JSON: seals, compression, key files, the chunker's polynomial, times and ids.

use super::{beginnings, key};
use crate::crypto::{MasterKey, OVERHEAD_BYTES};
use crate::format::key::{KeyFile, Maker, Origin};
use crate::format::polynomial::is_irreducible;
use crate::format::time::Time;
use crate::format::unpacked;
use crate::id::{BlobId, PackId};
use proptest::prelude::*;
use retoma_core::error::codes;
use retoma_core::{ErrorKind, Secret};

#[test]
fn what_is_compressed_begins_with_a_two_and_what_is_not_with_its_json() {
    let json = format!("{{\"a\":\"{}\"}}", "x".repeat(1000));
    let packed = key().open(&unpacked::seal(&key(), json.as_bytes(), true).unwrap()).unwrap();
    assert_eq!(packed[..5], [2, 0x28, 0xB5, 0x2F, 0xFD], "two, and the magic number of zstd");
    assert!(packed.len() < 100);
    let bare = unpacked::seal(&key(), json.as_bytes(), false).unwrap();
    assert_eq!(bare.len(), json.len() + OVERHEAD_BYTES);
    assert_eq!(unpacked::open(&key(), bare).unwrap(), json.as_bytes());
}

#[test]
fn a_compressed_object_that_ends_early_is_refused_wherever_it_ends() {
    let json = br#"{"a":[1,2,3,4,5,6,7,8,9]}"#;
    let whole = key().open(&unpacked::seal(&key(), json, true).unwrap()).unwrap();
    for beginning in beginnings(&whole) {
        let opened = unpacked::open(&key(), key().seal(beginning).unwrap());
        assert!(opened.is_err(), "{} of {} bytes", beginning.len(), whole.len());
    }
}

#[test]
fn an_encoding_is_one_of_those_that_were_ever_written() {
    for first in 0..=255u8 {
        let opened = unpacked::open(&key(), key().seal(&[first, b'}']).unwrap());
        let is_json = matches!(first, b'{' | b'[');
        assert_eq!(opened.is_ok(), is_json, "{first}");
    }
}

#[test]
fn one_seal_is_never_made_twice() {
    let (one, two) = (key().seal(b"same").unwrap(), key().seal(b"same").unwrap());
    assert_ne!(one[..16], two[..16], "nonces are random");
    assert_ne!(one[16..20], two[16..20], "and so the ciphertexts differ");
}

/// Each part of the key counts: with any of the three changed nothing opens, or something else comes out.
#[test]
fn every_byte_of_the_master_key_counts() {
    let bytes: [u8; 64] = std::array::from_fn(|at| at as u8 ^ 0x5a);
    let sealed = key().seal(b"secret").unwrap();
    let (mut ignored, mut subkeys) = (Vec::new(), std::collections::HashSet::from([key().subkey("x")]));
    for at in 0..64 {
        let mut changed = bytes;
        // The top bits of some bytes of `r` are cleared by Poly1305: change one that it keeps.
        changed[at] ^= 0x04;
        let changed = MasterKey::from_bytes(&changed);
        if changed.open(&sealed).is_ok_and(|opened| opened == b"secret") {
            ignored.push(at);
        }
        assert!(subkeys.insert(changed.subkey("x")), "byte {at} changes no subkey");
    }
    assert_eq!(ignored, [0; 0]);
}

fn maker() -> Maker {
    Maker { username: "u".to_owned(), hostname: "h".to_owned(), now: Time::default() }
}

#[test]
fn a_key_file_says_what_it_costs_and_refuses_what_it_cannot_be() {
    let password = Secret::new("right".to_owned());
    let file = KeyFile::create(&key(), &password, Origin::Chosen, maker()).unwrap();
    let json: serde_json::Value = serde_json::from_slice(&file.to_json().unwrap()).unwrap();
    let cost = ["N", "r", "p"].map(|name| json[name].as_u64().unwrap());
    assert_eq!((json["kdf"].as_str(), cost), (Some("scrypt"), [32768, 8, 1]));
    let changed = |change: fn(&mut KeyFile)| {
        let mut file = file.clone();
        change(&mut file);
        file.open(&Secret::new("right".to_owned())).map(|key| key.is_some())
    };
    assert!(changed(|_| ()).unwrap());
    assert_eq!(
        changed(|file| file.salt = file.salt.replacen(&file.salt[..1], "!", 1)).unwrap_err().kind(),
        ErrorKind::Corrupt
    );
    assert_eq!(changed(|file| file.data = "§".to_owned()).unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(changed(|file| file.kdf = "argon2".to_owned()).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(changed(|file| file.n = 1 << 21).unwrap_err().kind(), ErrorKind::Unsupported, "2 GiB");
    assert!(!changed(|file| file.n = 2).unwrap(), "another derivation gives another key");
    // What is too short to be sealed at all opens with no password.
    assert!(!changed(|file| file.data = "QUFB".to_owned()).unwrap());
    let other = KeyFile::create(&key(), &password, Origin::Chosen, maker()).unwrap();
    assert!(other.salt != file.salt && other.data != file.data, "a salt is never used twice");
}

/// Multiplies without carries.
fn product(a: u64, b: u64) -> u64 {
    (0..64).filter(|bit| b >> bit & 1 == 1).fold(0, |sum, bit| sum ^ a << bit)
}

/// By trying every divisor: for small degrees only.
fn has_no_divisor(f: u64) -> bool {
    let remainder = |mut a: u64, d: u64| {
        while a != 0 && a.ilog2() >= d.ilog2() {
            a ^= d << (a.ilog2() - d.ilog2());
        }
        a
    };
    (2..1 << (f.ilog2() / 2 + 1)).all(|divisor| remainder(f, divisor) != 0)
}

/// The worst case for a test of irreducibility: two factors as large as possible. It is the last step that finds it.
#[test]
fn a_product_of_large_irreducible_polynomials_is_found() {
    let irreducible = |degree: u32| (1u64 << degree..1 << (degree + 1)).find(|f| has_no_divisor(*f)).unwrap();
    for degrees in [&[26, 27][..], &[26, 25, 2], &[24, 26, 3], &[13, 14, 26], &[26, 26, 1], &[17, 18, 18]] {
        let f = degrees.iter().map(|degree| irreducible(*degree)).fold(1, product);
        assert_eq!(f.ilog2(), 53);
        assert!(!is_irreducible(f), "{degrees:?}: {f:#x}");
    }
}

#[test]
fn a_polynomial_of_another_degree_is_refused_though_it_is_irreducible() {
    for (f, degree) in [(0b111, 2), (0x11B, 8), (1 << 54 | 0b11, 54), (1, 0)] {
        assert!(!is_irreducible(f), "{degree}");
    }
    assert!(!is_irreducible(0) && !is_irreducible(u64::MAX));
}

#[test]
fn parts_of_a_second_out_of_bounds_do_not_leave_their_second() {
    for (nanoseconds, becomes) in [(-1, 0), (0, 0), (999_999_999, 999_999_999), (1_000_000_000, 999_999_999)]
    {
        assert_eq!(Time::from_unix(5, nanoseconds).to_unix(), (5, becomes));
    }
    assert_eq!(Time::from_unix(-1, 250_000_000).0.to_string(), "1969-12-31T23:59:59.25Z");
    for text in ["", "2026-01-01", "2026-01-01T00:00:00", "2026-13-01T00:00:00Z", "1767225600"] {
        assert_eq!(Time::parse(text), None, "{text}");
    }
}

#[test]
fn an_id_shows_eight_digits_of_itself_and_its_kind() {
    let id = PackId(std::array::from_fn(|at| at as u8));
    assert_eq!((id.short(), format!("{id:?}")), ("00010203".to_owned(), "PackId(00010203)".to_owned()));
    assert_eq!(id.to_string(), "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f");
    for text in
        ["0".repeat(63), "0".repeat(65), "A".repeat(64), format!("{}g", "0".repeat(63)), "é".repeat(32)]
    {
        let quoted = serde_json::to_string(&text).unwrap();
        assert!(serde_json::from_str::<BlobId>(&quoted).is_err(), "{text}");
        assert_eq!(BlobId::parse(&text).unwrap_err().code(), codes::MALFORMED);
    }
    let error = BlobId::parse(&"x".repeat(10_000)).unwrap_err();
    assert!(error.to_string().len() < 200, "an error does not repeat a file that was given instead");
}

proptest! {
    #[test]
    fn times_are_read_with_whatever_offset_they_are_written(seconds in 0i64..4_000_000_000, minutes in -720i32..=720) {
        let time = Time::from_unix(seconds, 123_456_789);
        let offset = jiff::tz::Offset::from_seconds(minutes * 60).unwrap();
        let text = time.zoned(jiff::tz::TimeZone::fixed(offset)).to_string();
        let text = text.split('[').next().unwrap();
        prop_assert_eq!(Time::parse(text), Some(time), "{}", text);
    }
}

use super::*;
use crate::postgres::stream::tar::tests::written;
use proptest::prelude::*;
use std::collections::VecDeque;

struct Given(VecDeque<BackupPiece>);

impl Pieces for Given {
    fn next(&mut self) -> Result<BackupPiece> {
        let gone = || Error::new(ErrorKind::Unavailable, codes::POSTGRES_UNAVAILABLE, "the server is gone");
        self.0.pop_front().ok_or_else(gone)
    }
}

fn entry(path: &str, kind: Kind, size_bytes: usize) -> Entry {
    Entry {
        path: path.as_bytes().to_vec(),
        kind,
        mode: 0o600,
        uid: 1,
        gid: 2,
        size_bytes: size_bytes as u64,
        modified_seconds: 3,
    }
}

fn archive(files: &[(&str, &[u8])], has_end: bool) -> Vec<u8> {
    let mut bytes = written(&entry("base", Kind::Folder, 0)).to_vec();
    for (path, contents) in files {
        bytes.extend_from_slice(&written(&entry(path, Kind::File, contents.len())));
        bytes.extend_from_slice(contents);
        bytes.resize(bytes.len() + tar::padding_bytes(contents.len() as u64), 0);
    }
    if has_end {
        bytes.resize(bytes.len() + 2 * BLOCK_BYTES, 0);
    }
    bytes
}

/// An archive and a manifest, in pieces of so many bytes.
fn given(archive: &[u8], piece: usize) -> Incoming<Given> {
    let data = |bytes: &[u8]| BackupPiece::Data(Bytes::copy_from_slice(bytes));
    let mut pieces = VecDeque::from([BackupPiece::Archive(None)]);
    pieces.extend(archive.chunks(piece).map(data));
    pieces.extend([BackupPiece::Manifest, data(b"li"), data(b""), data(b"st")]);
    pieces.push_back(BackupPiece::End(Lsn(9), TimelineId::FIRST));
    Incoming::new(Given(pieces))
}

/// Everything that comes, files with their contents.
fn all(incoming: &mut Incoming<Given>, buffer: usize) -> Result<Vec<(String, Vec<u8>)>> {
    let mut found = Vec::new();
    loop {
        match incoming.next()? {
            Step::Entry(entry) => {
                let (mut contents, mut buffer) = (Vec::new(), vec![0; buffer]);
                loop {
                    let count = incoming.read(&mut buffer)?;
                    contents.extend_from_slice(&buffer[..count]);
                    if count == 0 {
                        break;
                    }
                }
                let sum = incoming.take_sum();
                assert_eq!(sum.crc, crc32c::crc32c(&contents));
                assert_eq!(sum.size_bytes, contents.len() as u64);
                found.push((String::from_utf8(entry.path).unwrap(), contents));
            }
            Step::Manifest(list) => found.push(("manifest".to_owned(), list)),
            Step::Archive(_) => {}
            Step::End(..) => return Ok(found),
        }
    }
}

#[test]
fn entries_come_out_however_the_pieces_are_cut() {
    let contents = retoma_testkit::bytes(1, 70_000);
    let files: [(&str, &[u8]); 4] =
        [("base/1", &contents), ("base/2", b""), ("base/3", &contents[..512]), ("base/4", b"x")];
    for has_end in [true, false] {
        let archive = archive(&files, has_end);
        for piece in [1, 511, 512, 8192, 32 << 10, 1 << 20] {
            for buffer in [7, 8192, 1 << 20] {
                let found = all(&mut given(&archive, piece), buffer).unwrap();
                let paths: Vec<&str> = found.iter().map(|(path, _)| path.as_str()).collect();
                assert_eq!(paths, ["base", "base/1", "base/2", "base/3", "base/4", "manifest"]);
                assert!(found[1].1 == contents && found[3].1 == contents[..512] && found[5].1 == b"list");
            }
        }
    }
}

#[test]
fn an_archive_that_ends_anywhere_within_is_refused() {
    let archive = archive(&[("base/1", &[7; 600]), ("base/2", b"x")], false);
    // A header, a file of two blocks, a header, a file of one: only between entries it may end.
    for length in (1..archive.len()).filter(|length| ![512, 512 + 1536].contains(length)) {
        let mut incoming = given(&archive[..length], 100);
        let error = all(&mut incoming, 1000).unwrap_err();
        assert_eq!(error.code(), codes::POSTGRES_PROTOCOL, "{length}");
    }
}

#[test]
fn a_broken_connection_within_a_file_ends_the_backup_with_its_own_error() {
    let archive = archive(&[("base/1", &[7; 6000])], true);
    let pieces = [BackupPiece::Archive(None), BackupPiece::Data(archive[..3000].to_vec().into())];
    let mut incoming = Incoming::new(Given(pieces.into()));
    assert!(matches!(incoming.next().unwrap(), Step::Archive(None)));
    assert!(matches!(incoming.next().unwrap(), Step::Entry(_)));
    assert!(matches!(incoming.next().unwrap(), Step::Entry(_)));
    let mut buffer = [0; 10_000];
    let error = loop {
        match incoming.read(&mut buffer) {
            Ok(count) => assert!(count > 0),
            Err(error) => break error,
        }
    };
    assert_eq!(error.code(), codes::POSTGRES_UNAVAILABLE);
    assert_eq!(incoming.next().unwrap_err().code(), codes::POSTGRES_UNAVAILABLE);
}

#[test]
fn a_file_that_was_left_half_read_is_a_bug() {
    let mut incoming = given(&archive(&[("base/1", &[7; 600])], true), 100);
    for _ in 0..3 {
        incoming.next().unwrap();
    }
    assert_eq!(incoming.next().unwrap_err().kind(), ErrorKind::Internal);
}

#[test]
fn something_behind_the_end_or_outside_of_an_archive_is_refused() {
    let mut archive = archive(&[], true);
    archive.extend_from_slice(b"more");
    assert_eq!(all(&mut given(&archive, 100), 10).unwrap_err().code(), codes::POSTGRES_PROTOCOL);
    let mut stray = Incoming::new(Given([BackupPiece::Data(Bytes::from_static(b"x"))].into()));
    assert_eq!(stray.next().unwrap_err().code(), codes::POSTGRES_PROTOCOL);
}

/// A server that goes on for ever.
struct Endless(VecDeque<BackupPiece>, &'static [u8]);

impl Pieces for Endless {
    fn next(&mut self) -> Result<BackupPiece> {
        Ok(self.0.pop_front().unwrap_or(BackupPiece::Data(Bytes::from_static(self.1))))
    }
}

#[test]
fn nothing_and_zeros_without_an_end_are_refused() {
    let header = written(&entry("base/1", Kind::File, 10)).to_vec();
    for (given, more) in [
        (vec![BackupPiece::Archive(None)], &b""[..]),
        (vec![BackupPiece::Archive(None)], &[0; 8192]),
        (vec![BackupPiece::Archive(None), BackupPiece::Data(header.into())], &b""[..]),
        (vec![BackupPiece::Manifest], &b""[..]),
    ] {
        let mut incoming = Incoming::new(Endless(given.into(), more));
        let mut outcome = Ok(());
        while outcome.is_ok() {
            outcome = incoming.next().map(drop);
            while outcome.is_ok() && incoming.left_bytes > 0 {
                outcome = incoming.read(&mut [0; 100]).map(drop);
            }
        }
        assert_eq!(outcome.unwrap_err().code(), codes::POSTGRES_PROTOCOL);
    }
}

fn page(seed: u64, block: u32) -> [u8; PAGE_BYTES] {
    let mut page: [u8; PAGE_BYTES] = retoma_testkit::bytes(seed, PAGE_BYTES)[..].try_into().unwrap();
    page[..8].copy_from_slice(&[0, 0, 0, 0, 9, 0, 0, 0]);
    page[14] |= 1;
    let sum = page::checksum(&page, block);
    page[8..10].copy_from_slice(&sum.to_le_bytes());
    page
}

proptest! {
    #[test]
    fn wrong_pages_are_named_however_they_come(piece in 1..20_000usize, buffer in 1..20_000usize, wrong in 0..5u32) {
        let mut contents: Vec<u8> = (0..5).flat_map(|at| page(u64::from(at), 131_072 + at)).collect();
        contents[wrong as usize * PAGE_BYTES + 4000] ^= 1;
        // The beginning of a page is none.
        contents.extend_from_slice(&[7; 100]);
        let mut incoming = given(&archive(&[("base/5.1", &contents)], true), piece);
        for _ in 0..3 {
            incoming.next().unwrap();
        }
        incoming.look_at_pages(131_072);
        let mut buffer = vec![0; buffer];
        while incoming.read(&mut buffer).unwrap() > 0 {}
        let sum = incoming.take_sum();
        prop_assert_eq!((sum.wrong_pages, sum.wrong_more), (vec![(131_072 + wrong, 9)], 0));
    }
}

//! Ranges of files without restoring them.

use super::support::*;
use proptest::prelude::*;
use retoma_repo::restore::FileMap;

#[test]
fn every_range_is_what_the_file_has_there() {
    let fixture = Fixture::new();
    let bytes = noise(1, 9_000_000);
    let tree = fixture.backup(&[file("empty", ""), file("file", bytes.clone()), directory("x")]);
    let index = fixture.repository.load_index().unwrap();
    let nodes = fixture.repository.read_tree(&index, &tree).unwrap();
    let map = FileMap::new(&index, &nodes[1]).unwrap();
    assert_eq!(map.size_bytes(), 9_000_000);
    let check = |offset: u64, length: u64| {
        let found = fixture.repository.read_mapped(&index, &map, offset, length).unwrap();
        let start = offset.min(bytes.len() as u64);
        let end = start.saturating_add(length).min(bytes.len() as u64);
        let (start, end) = (usize::try_from(start).unwrap(), usize::try_from(end).unwrap());
        assert!(found == bytes[start..end], "{length} at {offset}");
    };
    for (offset, length) in
        [(0, u64::MAX), (0, 0), (u64::MAX, 5), (9_000_000, 1), (8_999_999, 9), (5, u64::MAX)]
    {
        check(offset, length);
    }
    let mut end = 0;
    for id in &nodes[1].content {
        end += index.plaintext_bytes(retoma_repo::format::BlobKind::Data, id).unwrap();
        check(end - 1, 1);
        check(end - 1, 2);
        check(end, 1);
    }
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(64));
    let ranges = (0u64..9_100_000, 0u64..3_000_000);
    runner
        .run(&ranges, |(offset, length)| {
            check(offset, length);
            Ok(())
        })
        .unwrap();
    assert_eq!(fixture.repository.read_range(&index, &nodes[0], 0, 10).unwrap(), b"");
    assert!(fixture.repository.read_range(&index, &nodes[2], 0, 10).is_err());
}

#[test]
fn only_the_chunks_that_hold_the_range_are_read_and_damage_in_them_is_seen() {
    let fixture = Fixture::new();
    let (bad, good) = (noise(1, 1000), noise(2, 1000));
    let tree = fixture.backup(&[file("bad", bad.clone()), file("good", good.clone())]);
    fixture.damage(&bad);
    let index = fixture.repository.load_index().unwrap();
    let nodes = fixture.repository.read_tree(&index, &tree).unwrap();
    let error = fixture.repository.read_range(&index, &nodes[0], 10, 10).unwrap_err();
    assert_eq!(error.kind(), retoma_core::ErrorKind::Corrupt);
    assert_eq!(fixture.repository.read_range(&index, &nodes[1], 10, 10).unwrap(), good[10..20]);
}

//! Which pages with wrong checksums count, and what is said about them.

use super::*;
use proptest::prelude::*;

#[test]
fn what_the_wal_of_the_backup_replaces_may_be_anything_and_nothing_else() {
    let wrong = [(1, 99), (2, 100), (3, 150), (4, 200), (5, 201), (6, 0), (7, u64::MAX)];
    assert_eq!(bad_blocks(&wrong, &(100..=200)), [1, 5, 6, 7]);
    assert_eq!(
        bad_blocks(&wrong, &RangeInclusive::new(1, 0)),
        [1, 2, 3, 4, 5, 6, 7],
        "no WAL replaces nothing"
    );
    assert_eq!(bad_blocks(&[], &(0..=u64::MAX)), [0; 0]);
}

fn said(bad: &[u32], unknown: u64) -> String {
    let mut noted = vec!["before".to_owned()];
    let path = b"base/5/\xff";
    let Event::Unreadable(at, error) = event(&mut noted, Path::new("/pg"), path, bad, unknown) else {
        panic!()
    };
    assert_eq!(at, "/pg/base/5/\u{fffd}".as_bytes());
    assert_eq!((error.kind(), error.code()), (ErrorKind::Corrupt, codes::POSTGRES_BAD_PAGE));
    assert_eq!(noted.len(), 2, "and what was noted before stays");
    assert_eq!(noted[1], error.message());
    noted.pop().unwrap()
}

#[test]
fn a_few_pages_are_named_and_all_are_counted() {
    let shown = "`base/5/\u{fffd}` has";
    assert_eq!(said(&[7], 0), format!("{shown} 1 page whose checksums do not fit: 7"));
    assert_eq!(
        said(&[1, 2, 3, 4, 5], 0),
        format!("{shown} 5 pages whose checksums do not fit: 1, 2, 3, 4, 5")
    );
    assert_eq!(
        said(&[1, 2, 3, 4, 5, 6], 0),
        format!("{shown} 6 pages whose checksums do not fit: 1, 2, 3, 4, 5 and 1 more")
    );
    assert_eq!(said(&[1, 2], 9), format!("{shown} 11 pages whose checksums do not fit: 1, 2 and 9 more"));
}

proptest! {
    #[test]
    fn a_block_is_bad_exactly_when_its_lsn_lies_outside(lsns in prop::collection::vec(0u64..20, 0..20), start in 0u64..20, end in 0u64..20) {
        let wrong: Vec<(u32, u64)> = (0u32..).zip(lsns).collect();
        let bad = bad_blocks(&wrong, &(start..=end));
        for (block, lsn) in &wrong {
            prop_assert_eq!(bad.contains(block), *lsn < start || *lsn > end);
        }
        prop_assert!(bad.is_sorted());
    }
}

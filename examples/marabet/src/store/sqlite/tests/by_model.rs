//! The store beside a plain list of what was put into it. Its counts of markers decide whether a drill lost a write.

use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// Markers of three runs in any order, some again, with a new connection now and then.
fn steps() -> impl Strategy<Value = Vec<(u8, u64, bool)>> {
    prop::collection::vec(
        (0u8..3, prop_oneof![1u64..12, Just(i64::MAX as u64), 90u64..99], any::<bool>()),
        0..30,
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8))]

    #[test]
    fn a_run_has_exactly_the_markers_that_were_added_to_it(steps in steps()) {
        let (_folder, path) = database();
        let mut store = SqliteStore::new(&path);
        let mut expected: BTreeMap<String, BTreeSet<u64>> = BTreeMap::new();
        for (run, number, anew) in steps {
            let run = format!("run-{run}");
            store.add_marker(&run, number).unwrap();
            expected.entry(run).or_default().insert(number);
            if anew {
                store = SqliteStore::new(&path);
            }
        }
        for run in ["run-0", "run-1", "run-2", "run"] {
            let found = store.markers(run).unwrap();
            let numbers = expected.get(run).cloned().unwrap_or_default();
            prop_assert_eq!(&found.run, run);
            prop_assert_eq!(found.count, numbers.len() as u64);
            prop_assert_eq!(found.max, numbers.last().copied().unwrap_or(0));
            // Gaps and numbers together are everything up to the largest, without a hole and without overlap.
            let mut next = 1;
            let mut gaps = found.missing.iter().copied().peekable();
            for number in &numbers {
                if let Some((first, last)) = gaps.next_if(|(first, _)| *first == next) {
                    prop_assert!(first <= last);
                    next = last + 1;
                }
                prop_assert_eq!(*number, next);
                next += 1;
            }
            prop_assert_eq!(gaps.next(), None);
            for number in (0..100).chain([i64::MAX as u64, u64::MAX]) {
                prop_assert_eq!(found.contains(number), numbers.contains(&number), "{}", number);
            }
        }
    }

    #[test]
    fn predictions_come_back_bit_by_bit_and_the_newest_first(
        kept in prop::collection::vec((any::<u32>(), -1.0e300f64..1.0e300, prop::collection::vec(any::<f32>(), 0..9)), 0..9),
        limit in 0u32..12,
    ) {
        let (_folder, path) = database();
        let store = SqliteStore::new(&path);
        let mut ids = Vec::new();
        for (model_version, score, features) in &kept {
            let new = NewPrediction { user_id: None, model_version: *model_version, score: *score, features: features.clone() };
            ids.push(store.add_prediction(&new).unwrap());
        }
        prop_assert!(ids.is_sorted_by(|a, b| a < b), "a number is never given twice: {:?}", ids);
        let bits = |features: &[f32]| features.iter().map(|feature| feature.to_bits()).collect::<Vec<_>>();
        for (id, (model_version, score, features)) in ids.iter().zip(&kept) {
            let found = store.prediction(*id).unwrap().unwrap();
            prop_assert_eq!((found.id, found.model_version, found.user_id), (*id, *model_version, None));
            prop_assert_eq!(found.score.to_bits(), score.to_bits());
            prop_assert_eq!(bits(&found.features), bits(features));
        }
        let newest: Vec<i64> = store.latest_predictions(limit).unwrap().iter().map(|found| found.id).collect();
        let expected: Vec<i64> = ids.iter().rev().copied().take(limit as usize).collect();
        prop_assert_eq!(newest, expected);
        prop_assert_eq!(store.count_predictions().unwrap(), kept.len() as u64);
    }
}

#[test]
fn a_row_that_does_not_fit_the_tables_is_the_request_s_fault_and_the_store_goes_on() {
    let (_folder, path) = database();
    let store = SqliteStore::new(&path);
    let nobodys = NewPrediction { user_id: Some(4711), ..example() };
    let error = store.add_prediction(&nobodys).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, codes::SAMPLE_REQUEST));
    let too_large = store.add_marker("a", u64::MAX).unwrap_err();
    assert_eq!(too_large.kind(), ErrorKind::Invalid);
    store.add_prediction(&example()).unwrap();
    assert_eq!((store.count_predictions().unwrap(), store.markers("a").unwrap().count), (1, 0));
}

#[test]
fn what_another_process_damaged_is_told_from_what_is_away() {
    let (_folder, path) = database();
    fs::write(&path, "this is no database, and has not been one for a long time").unwrap();
    assert_eq!(SqliteStore::new(&path).check().unwrap_err().kind(), ErrorKind::Corrupt);
    fs::remove_file(&path).unwrap();
    assert_eq!(SqliteStore::new(&path).check().unwrap_err().kind(), ErrorKind::Unavailable);
    fs::create_dir(&path).unwrap();
    assert!(SqliteStore::new(&path).check().is_err());
}

#[test]
fn a_write_waits_for_another_process_and_is_seen_by_it() {
    let (_folder, path) = database();
    let store = SqliteStore::new(&path);
    store.add_marker("a", 1).unwrap();
    let other = Connection::open(&path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE; INSERT INTO markers VALUES ('a', 2, 0)").unwrap();
    assert_eq!(store.markers("a").unwrap().count, 1, "a reader does not wait, and sees nothing half done");
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| store.add_marker("a", 3));
        other.execute_batch("COMMIT").unwrap();
        waiting.join().unwrap().unwrap();
    });
    let count: i64 = other.query_row("SELECT count(*) FROM markers", (), |row| row.get(0)).unwrap();
    assert_eq!((count, store.markers("a").unwrap().missing.len()), (3, 0));
}

use jiff::{SignedDuration, Timestamp};
use retoma_core::decide::staleness::{Facts, StaleReason, staleness};
use std::time::Duration;

const DAY: Duration = Duration::from_hours(24);

fn facts(time: Timestamp) -> Facts<'static> {
    Facts { manifest_hash: "m1", tool_version: "0.1.0", key_id: "k1", data_bytes: 1_000, time }
}

fn now() -> Timestamp {
    "2026-11-21T14:00:00Z".parse().expect("a time")
}

#[test]
fn what_did_not_change_counts() {
    assert_eq!(staleness(&facts(now()), &facts(now()), DAY), []);
}

#[test]
fn size_counts_up_to_exactly_a_half_more_or_less() {
    let table = [
        (1_000, 500, false),
        (1_000, 499, true),
        (1_000, 1_500, false),
        (1_000, 1_501, true),
        (1_000, 0, true),
        (3, 2, false),
        (3, 1, true),
        (3, 4, false),
        (3, 5, true),
        (0, 0, false),
        (0, 1, true),
        (u64::MAX, u64::MAX, false),
        (u64::MAX, u64::MAX / 2, true),
        (u64::MAX, u64::MAX / 2 + 1, false),
    ];
    for (recorded_bytes, current_bytes, stale) in table {
        let record = Facts { data_bytes: recorded_bytes, ..facts(now()) };
        let current = Facts { data_bytes: current_bytes, ..facts(now()) };
        let expected =
            if stale { vec![StaleReason::DataSizeChanged { recorded_bytes, current_bytes }] } else { vec![] };
        assert_eq!(staleness(&record, &current, DAY), expected, "{recorded_bytes} → {current_bytes}");
    }
}

#[test]
fn age_counts_up_to_exactly_the_maximum() {
    let table = [
        (86_400_000, None),
        (86_400_001, Some(StaleReason::TooOld { age_seconds: 86_400, max_age_seconds: 86_400 })),
        (0, None),
        (-300_000, None),
        (-300_001, Some(StaleReason::FromTheFuture { ahead_seconds: 300 })),
    ];
    for (age_millis, expected) in table {
        let record = facts(now() - SignedDuration::from_millis(age_millis));
        let found = staleness(&record, &facts(now()), DAY);
        assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{age_millis} ms old");
    }
}

#[test]
fn each_change_is_named_alone_and_all_together() {
    let both = |a: &str, b: &str| (a.to_owned(), b.to_owned());
    let (recorded, current) = both("m1", "m2");
    let manifest = StaleReason::ManifestChanged { recorded, current };
    let (recorded, current) = both("0.1.0", "0.1.1");
    let version = StaleReason::ToolVersionChanged { recorded, current };
    let (recorded, current) = both("k1", "k2");
    let key = StaleReason::KeyChanged { recorded, current };
    let same = facts(now());
    let changed = |current: &Facts<'_>| staleness(&facts(now()), current, DAY);
    assert_eq!(changed(&Facts { manifest_hash: "m2", ..same.clone() }), vec![manifest.clone()]);
    assert_eq!(changed(&Facts { tool_version: "0.1.1", ..same.clone() }), vec![version.clone()]);
    assert_eq!(changed(&Facts { key_id: "k2", ..same }), vec![key.clone()]);
    let all = Facts {
        manifest_hash: "m2",
        tool_version: "0.1.1",
        key_id: "k2",
        data_bytes: 5_000,
        time: now() + DAY * 2,
    };
    let found = changed(&all);
    assert_eq!(found[..3], [manifest, version, key]);
    assert!(matches!(found[3], StaleReason::DataSizeChanged { .. }));
    assert!(matches!(found[4], StaleReason::TooOld { .. }));
    assert_eq!(found.len(), 5);
}

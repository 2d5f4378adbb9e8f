//! Keys by database: what the capture knew, what the copy holds, what a server loaded, and what expired meanwhile.

use super::*;
use crate::redis::facts::DatabaseKeys;
use crate::redis::rdb::Counts;
use proptest::prelude::*;

fn facts(databases: &[(u64, u64)]) -> RedisFacts {
    let keys = |(number, keys): &(u64, u64)| (*number, DatabaseKeys { keys: *keys, expires: 0 });
    let json = serde_json::json!({
        "schema": "retoma.redis/1", "kind": "redis", "path": "/dump.rdb", "replication_id": "", "replication_offset": 0,
        "bytes": 100, "rdb_version": 10, "has_checksum": true, "not_counted": null, "databases": {}, "types": {},
        "server": {"version": "7", "mode": "standalone", "role": "master", "run_id": "", "used_memory_bytes": 1,
                   "settings": {"databases": "4"}, "modules": []},
    });
    let facts = RedisFacts::from_json(json.to_string().as_bytes()).unwrap();
    RedisFacts { databases: databases.iter().map(keys).collect(), ..facts }
}

/// A copy with these databases: number, keys, and how many have expired before and after the server ran.
fn copy(databases: &[(u64, u64, [u64; 2])]) -> Passed {
    let keys = |(number, keys, expired): &(u64, u64, [u64; 2])| {
        (*number, Keys { keys: *keys, expires: expired[1], expired: *expired })
    };
    let counts = Counts { databases: databases.iter().map(keys).collect(), types: BTreeMap::new() };
    let (auxiliary, samples) = (BTreeMap::new(), Vec::new());
    Passed { bytes: 100, version: 10, has_checksum: true, counts: Ok(counts), auxiliary, samples }
}

fn compared(
    facts: Option<&RedisFacts>,
    copy: Option<&Passed>,
    loaded: Option<&[(u64, u64)]>,
) -> Vec<(String, CheckOutcome)> {
    let loaded = loaded.map(|loaded| loaded.iter().copied().collect());
    let checks = compare_keys(facts, copy, loaded.as_ref());
    checks.into_iter().map(|check| (check.name, check.outcome)).collect()
}

#[test]
fn each_database_is_compared_with_what_was_captured_and_with_what_was_loaded() {
    use CheckOutcome::{Failed, Passed};
    let name = |number| format!("keys of database `{number}`");
    let outcome = |captured: &[(u64, u64)], copied: &[(u64, u64)], loaded: &[(u64, u64)]| {
        let copied: Vec<_> = copied.iter().map(|(number, keys)| (*number, *keys, [0, 0])).collect();
        compared(Some(&facts(captured)), Some(&copy(&copied)), Some(loaded))
    };
    assert_eq!(outcome(&[(0, 5)], &[(0, 5)], &[(0, 5)]), [(name(0), Passed)]);
    for (captured, copied, loaded) in [(5, 4, 4), (5, 5, 4), (5, 4, 5), (5, 5, 6), (4, 5, 5), (5, 0, 0)] {
        let found = outcome(&[(0, captured)], &[(0, copied)], &[(0, loaded)]);
        assert_eq!(found, [(name(0), Failed)], "{captured} {copied} {loaded}");
    }
    // One too many is as wrong as one that is missing, wherever it is.
    assert_eq!(
        outcome(&[(0, 5)], &[(0, 5), (3, 1)], &[(0, 5), (3, 1)]),
        [(name(0), Passed), (name(3), Failed)]
    );
    assert_eq!(outcome(&[(0, 5), (3, 1)], &[(0, 5)], &[(0, 5)]), [(name(0), Passed), (name(3), Failed)]);
    assert_eq!(outcome(&[(0, 5)], &[(0, 5)], &[(0, 5), (2, 1)]), [(name(0), Passed), (name(2), Failed)]);
    assert_eq!(outcome(&[], &[], &[]), [("keys".to_owned(), Passed)], "an empty server is one, too");
}

#[test]
fn what_expired_before_is_gone_and_what_expires_meanwhile_may_be() {
    let found = |loaded: u64| {
        let copied = copy(&[(0, 10, [2, 4])]);
        compare_keys(Some(&facts(&[(0, 10)])), Some(&copied), Some(&[(0, loaded)].into())).remove(0)
    };
    for loaded in 0..=12 {
        let outcome = found(loaded).outcome;
        assert_eq!(outcome == CheckOutcome::Passed, (6..=8).contains(&loaded), "{loaded}");
    }
    assert_eq!(found(7).expected.unwrap(), "6 to 8, since 2 to 4 of 10 have expired");
    assert_eq!(found(7).found.unwrap(), "7");
}

#[test]
fn a_copy_that_is_not_sound_passes_nothing() {
    use CheckOutcome::NotRun;
    let known = facts(&[(0, 5), (2, 1)]);
    let both = [("keys of database `0`".to_owned(), NotRun), ("keys of database `2`".to_owned(), NotRun)];
    assert_eq!(compared(Some(&known), None, Some(&[(0, 5), (2, 1)])), both, "its end does not fit");
    assert_eq!(compared(Some(&known), Some(&copy(&[(0, 5, [0, 0])])), None), both, "no server loads it");
    let uncounted = Passed { counts: Err("a module".into()), ..copy(&[]) };
    assert_eq!(compared(Some(&known), Some(&uncounted), Some(&[(0, 5)])), both);
    assert_eq!(compared(None, None, None), [("keys".to_owned(), NotRun)]);
    let report = CheckReport { checks: Vec::new(), databases: BTreeMap::new() };
    assert!(!report.passed(), "no check at all is no pass");
}

#[test]
fn without_facts_the_copy_is_compared_with_what_a_server_loads_of_it() {
    let copied = copy(&[(0, 5, [1, 1]), (1, 2, [0, 0])]);
    let outcomes = |loaded: &[(u64, u64)]| -> Vec<bool> {
        compared(None, Some(&copied), Some(loaded))
            .iter()
            .map(|(_, outcome)| *outcome == CheckOutcome::Passed)
            .collect()
    };
    assert_eq!(outcomes(&[(0, 4), (1, 2)]), [true, true]);
    assert_eq!(outcomes(&[(0, 5), (1, 2)]), [false, true]);
    assert_eq!(outcomes(&[(0, 4)]), [true, false]);
    // Facts that could not be counted are no facts about keys.
    let uncounted = RedisFacts { not_counted: Some("a module".into()), ..facts(&[(0, 99)]) };
    assert_eq!(compared(Some(&uncounted), Some(&copied), Some(&[(0, 4), (1, 2)])).len(), 2);
    assert!(
        compared(Some(&uncounted), Some(&copied), Some(&[(0, 4), (1, 2)]))
            .iter()
            .all(|(_, o)| *o == CheckOutcome::Passed)
    );
}

#[test]
fn a_checksum_is_compared_with_what_was_captured() {
    let passed = copy(&[]);
    let outcome = |bytes, has_checksum| {
        checksum(Some(&RedisFacts { bytes, has_checksum, ..facts(&[]) }), &passed).outcome
            == CheckOutcome::Passed
    };
    assert_eq!((outcome(100, true), outcome(101, true), outcome(100, false)), (true, false, false));
    assert_eq!(checksum(None, &passed).outcome, CheckOutcome::Passed, "then only its own sum counts");
    assert_eq!(checksum(None, &passed).found.unwrap(), "right over 100 bytes");
}

#[test]
fn as_many_databases_are_asked_as_the_server_had() {
    assert_eq!(configured_databases(Some(&facts(&[]))), 4);
    assert_eq!(configured_databases(None), 16);
    let mut silent = facts(&[]);
    silent.server.settings = None;
    assert_eq!(configured_databases(Some(&silent)), 16);
    silent.server.settings = Some([("databases".to_owned(), "many".to_owned())].into());
    assert_eq!(configured_databases(Some(&silent)), 16);
}

proptest! {
    /// Whatever the numbers: a database passes only when the copy has what was captured and the server loads what has not expired.
    #[test]
    fn no_loss_passes(captured in 0u64..30, copied in 0u64..30, loaded in 0u64..30, expired in (0u64..5, 0u64..5)) {
        let (before, after) = (expired.0, expired.0 + expired.1);
        let facts = facts(&[(0, captured)]);
        let checks = compare_keys(Some(&facts), Some(&copy(&[(0, copied, [before, after])])), Some(&[(0, loaded)].into()));
        let lost = captured.saturating_sub(loaded);
        let passed = checks.iter().all(|check| check.outcome == CheckOutcome::Passed);
        prop_assert!(!passed || captured == copied && loaded <= captured && lost <= after);
        if captured == copied && after <= captured && loaded + after >= captured && loaded + before <= captured {
            prop_assert!(passed);
        }
    }
}

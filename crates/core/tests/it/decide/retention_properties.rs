use jiff::{Span, Timestamp, tz::TimeZone};
use proptest::prelude::*;
use retoma_core::decide::retention::{
    ALL, GroupKey, HOLD_TAG, Holds, MANIFEST_TAG, MASS_CHANGE_TAG, Plan, Policy, SnapshotFacts, plan,
};
use std::collections::BTreeSet;

/// 2026-11-22 00:00 UTC.
const NOW: i64 = 1_795_305_600;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

/// Times in clusters, so that periods have several snapshots and some times are equal.
fn any_time() -> impl Strategy<Value = i64> {
    prop_oneof![
        (0i64..40).prop_map(|hours| hours * 1_800),
        (0i64..90).prop_map(|days| days * 86_400 / 2),
        (0i64..900).prop_map(|days| days * 86_400),
        (-5i64..0).prop_map(|hours| hours * 3_600),
    ]
}

fn any_snapshots() -> impl Strategy<Value = Vec<SnapshotFacts>> {
    let one = (any_time(), 0u8..2, prop::bool::weighted(0.3), 0u8..16);
    prop::collection::vec(one, 0..40).prop_map(|all| {
        let snapshot = |(index, (ago, group, incomplete, tag)): (usize, (i64, u8, bool, u8))| SnapshotFacts {
            id: format!("{index:03}"),
            time: Timestamp::from_second(NOW - ago).unwrap(),
            group: GroupKey { host: format!("h{group}"), ..GroupKey::default() },
            tags: match tag {
                0 => BTreeSet::from([HOLD_TAG.to_owned()]),
                1 => BTreeSet::from([MANIFEST_TAG.to_owned()]),
                2 | 3 => BTreeSet::from(["keep".to_owned()]),
                _ => BTreeSet::new(),
            },
            incomplete,
        };
        all.into_iter().enumerate().map(snapshot).collect()
    })
}

fn any_count() -> impl Strategy<Value = u32> {
    prop_oneof![3 => Just(0u32), 6 => 1u32..6, 1 => Just(ALL)]
}

/// With at least one rule: a policy without rules keeps everything, and is not the smallest of all policies.
fn any_policy() -> impl Strategy<Value = Policy> {
    let counts = prop::array::uniform6(any_count());
    (counts, prop::option::weighted(0.3, 1i64..60), any::<bool>())
        .prop_map(|([last, hourly, daily, weekly, monthly, yearly], within, tagged)| Policy {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
            within: within.map(|days| Span::new().days(days)),
            tags: if tagged { vec!["keep".to_owned()] } else { Vec::new() },
        })
        .prop_filter("has a rule", |policy| !policy.is_empty())
}

fn decide(snapshots: &[SnapshotFacts], policy: &Policy) -> Plan {
    plan(snapshots, policy, &Holds::default(), now(), &TimeZone::UTC)
}

fn removed(plan: &Plan) -> BTreeSet<String> {
    plan.removed().map(str::to_owned).collect()
}

fn larger(policy: &Policy, by: [u32; 6]) -> Policy {
    Policy {
        last: policy.last.saturating_add(by[0]),
        hourly: policy.hourly.saturating_add(by[1]),
        daily: policy.daily.saturating_add(by[2]),
        weekly: policy.weekly.saturating_add(by[3]),
        monthly: policy.monthly.saturating_add(by[4]),
        yearly: policy.yearly.saturating_add(by[5]),
        within: policy.within.map(|span| span.days(i64::from(by[0]) + i64::from(span.get_days()))),
        tags: policy.tags.clone(),
    }
}

/// What restic keeps for one rule, written down again from its manual: newest first, the newest of each period, only
/// periods that have snapshots count, and the oldest stays while counts are left.
fn restic_daily(mut times: Vec<(i64, String)>, count: usize) -> BTreeSet<String> {
    times.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
    let (mut kept, mut days) = (BTreeSet::new(), BTreeSet::new());
    for (index, (time, id)) in times.iter().enumerate() {
        if days.len() == count {
            break;
        }
        if days.insert(time.div_euclid(86_400)) || index + 1 == times.len() {
            kept.insert(id.clone());
        }
    }
    kept
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn every_snapshot_is_decided_once_and_has_a_reason(snapshots in any_snapshots(), policy in any_policy()) {
        let plan = decide(&snapshots, &policy);
        let decided: BTreeSet<&str> = plan.decisions.iter().map(|decision| decision.id.as_str()).collect();
        prop_assert_eq!(plan.decisions.len(), snapshots.len());
        prop_assert_eq!(decided.len(), snapshots.len());
        for decision in &plan.decisions {
            prop_assert_eq!(decision.is_kept(), !decision.keep_reasons().is_empty());
        }
    }

    #[test]
    fn the_newest_complete_one_of_a_group_is_never_removed(snapshots in any_snapshots(), policy in any_policy()) {
        let removed = removed(&decide(&snapshots, &policy));
        for group in ["h0", "h1"] {
            let complete = snapshots
                .iter()
                .filter(|facts| facts.group.host == group && !facts.incomplete && facts.time <= now());
            if let Some(time) = complete.clone().map(|facts| facts.time).max() {
                let mut newest = complete.filter(|facts| facts.time == time);
                prop_assert!(newest.any(|facts| !removed.contains(&facts.id)));
            }
        }
    }

    #[test]
    fn planning_again_removes_nothing_more(snapshots in any_snapshots(), policy in any_policy()) {
        let gone = removed(&decide(&snapshots, &policy));
        let rest: Vec<SnapshotFacts> =
            snapshots.into_iter().filter(|facts| !gone.contains(&facts.id)).collect();
        prop_assert_eq!(removed(&decide(&rest, &policy)), BTreeSet::new());
    }

    #[test]
    fn a_larger_policy_never_removes_more(
        snapshots in any_snapshots(),
        policy in any_policy(),
        by in prop::array::uniform6(0u32..4),
    ) {
        let small = removed(&decide(&snapshots, &policy));
        let large = removed(&decide(&snapshots, &larger(&policy, by)));
        prop_assert!(large.is_subset(&small), "{large:?} is more than {small:?}");
    }

    #[test]
    fn holds_and_the_future_and_a_manifest_stay(snapshots in any_snapshots(), policy in any_policy()) {
        let removed = removed(&decide(&snapshots, &policy));
        for facts in &snapshots {
            if facts.tags.contains(HOLD_TAG) || facts.time > now() {
                prop_assert!(!removed.contains(&facts.id));
            }
        }
        let manifest = |facts: &&SnapshotFacts| facts.tags.contains(MANIFEST_TAG);
        if snapshots.iter().any(|facts| manifest(&facts)) {
            prop_assert!(snapshots.iter().filter(manifest).any(|facts| !removed.contains(&facts.id)));
        }
    }

    #[test]
    fn nothing_that_is_not_newer_than_a_mass_change_goes(
        snapshots in any_snapshots(),
        policy in any_policy(),
        tagged in prop::collection::btree_set(0usize..40, 1..4),
    ) {
        let mut snapshots = snapshots;
        for facts in tagged.iter().filter_map(|at| Some((*at, snapshots.get(*at)?.clone()))).collect::<Vec<_>>() {
            snapshots[facts.0].tags.insert(MASS_CHANGE_TAG.to_owned());
        }
        let newest = snapshots.iter().filter(|facts| facts.tags.contains(MASS_CHANGE_TAG)).map(|facts| facts.time).max();
        let gone = removed(&decide(&snapshots, &policy));
        for facts in snapshots.iter().filter(|facts| gone.contains(&facts.id)) {
            prop_assert!(newest.is_none_or(|newest| facts.time > newest), "{facts:?}");
        }
        snapshots.retain(|facts| !gone.contains(&facts.id));
        prop_assert_eq!(removed(&decide(&snapshots, &policy)), BTreeSet::new());
    }

    #[test]
    fn the_order_of_the_input_does_not_matter(
        snapshots in any_snapshots(),
        policy in any_policy(),
        turn in 0usize..40,
    ) {
        let mut turned = snapshots.clone();
        turned.reverse();
        let middle = turn % turned.len().max(1);
        turned.rotate_left(middle);
        prop_assert_eq!(decide(&snapshots, &policy), decide(&turned, &policy));
    }

    #[test]
    fn complete_snapshots_are_kept_as_restic_keeps_them(
        times in prop::collection::vec(0i64..40, 1..30),
        count in 1u32..8,
    ) {
        let facts = |(index, halves): (usize, &i64)| SnapshotFacts {
            id: format!("{index:03}"),
            time: Timestamp::from_second(NOW - halves * 20_000).unwrap(),
            group: GroupKey::default(),
            tags: BTreeSet::new(),
            incomplete: false,
        };
        let snapshots: Vec<SnapshotFacts> = times.iter().enumerate().map(facts).collect();
        let plan = decide(&snapshots, &Policy { daily: count, ..Policy::default() });
        let kept: BTreeSet<String> = plan.kept().map(str::to_owned).collect();
        let plain = snapshots.iter().map(|facts| (facts.time.as_second(), facts.id.clone())).collect();
        prop_assert_eq!(kept, restic_daily(plain, count as usize));
    }
}

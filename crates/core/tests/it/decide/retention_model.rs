//! Retention against a model: slow, in the words of the module's documentation, and with nothing taken from it.

use jiff::{Span, Timestamp, tz::TimeZone};
use proptest::prelude::*;
use retoma_core::decide::retention::{
    ALL, GroupKey, HOLD_TAG, Holds, MANIFEST_TAG, MASS_CHANGE_TAG, Policy, SnapshotFacts, plan,
};
use std::collections::BTreeSet;

/// 2026-11-02 00:00 UTC: a Monday; in the middle of its past, clocks were put back in Europe.
const NOW: i64 = 1_793_577_600;

fn now() -> Timestamp {
    Timestamp::from_second(NOW).unwrap()
}

fn zones() -> [TimeZone; 4] {
    [
        TimeZone::UTC,
        TimeZone::fixed(jiff::tz::offset(-3)),
        TimeZone::fixed(jiff::tz::offset(13)),
        TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap(),
    ]
}

/// The name of the period that a rule counts; two snapshots have the same one exactly when they are of one period.
fn period(rule: usize, facts: &SnapshotFacts, zone: &TimeZone) -> String {
    let local = facts.time.to_zoned(zone.clone());
    let format = match rule {
        // Each is one of its own.
        0 => return facts.id.clone(),
        1 => "%Y-%m-%d %H %z",
        2 => "%Y-%m-%d",
        3 => "%G %V",
        4 => "%Y-%m",
        _ => "%Y",
    };
    local.strftime(format).to_string()
}

/// The newest of each period, as many as `count`.
fn newest_of_each<'a>(
    rule: usize,
    count: u32,
    snapshots: &[&'a SnapshotFacts],
    zone: &TimeZone,
) -> Vec<&'a SnapshotFacts> {
    let mut seen = BTreeSet::new();
    let firsts = snapshots.iter().filter(|facts| seen.insert(period(rule, facts, zone)));
    firsts.copied().take(usize::try_from(count).unwrap()).collect()
}

/// What one rule keeps of a group's snapshots, newest first.
fn one_rule(rule: usize, count: u32, group: &[&SnapshotFacts], zone: &TimeZone) -> BTreeSet<String> {
    let complete: Vec<_> = group.iter().copied().filter(|facts| !facts.incomplete).collect();
    let incomplete: Vec<_> = group.iter().copied().filter(|facts| facts.incomplete).collect();
    let of_complete: BTreeSet<String> = complete.iter().map(|facts| period(rule, facts, zone)).collect();
    let mut kept: BTreeSet<String> =
        newest_of_each(rule, count, &complete, zone).iter().map(|facts| facts.id.clone()).collect();
    // While counts are left, the oldest stays.
    if of_complete.len() < usize::try_from(count).unwrap() {
        kept.extend(complete.last().map(|facts| facts.id.clone()));
    }
    for facts in newest_of_each(rule, count, &incomplete, zone) {
        let stands_alone =
            if rule == 0 { complete.is_empty() } else { !of_complete.contains(&period(rule, facts, zone)) };
        if stands_alone {
            kept.insert(facts.id.clone());
        }
    }
    kept
}

/// The ids of all that stay.
fn model(snapshots: &[SnapshotFacts], policy: &Policy, holds: &Holds, zone: &TimeZone) -> BTreeSet<String> {
    let mut sorted: Vec<&SnapshotFacts> = snapshots.iter().collect();
    sorted.sort_by(|a, b| b.time.cmp(&a.time).then(a.id.cmp(&b.id)));
    let has = |facts: &SnapshotFacts, tag: &str| facts.tags.iter().any(|own| own == tag);
    let mut kept = BTreeSet::new();
    for facts in &sorted {
        let is_held = has(facts, HOLD_TAG)
            || holds.tags.iter().any(|tag| has(facts, tag))
            || holds.ids.iter().any(|id| !id.is_empty() && facts.id.starts_with(id.as_str()));
        let is_under_mass_change = sorted.iter().any(|other| {
            has(other, MASS_CHANGE_TAG)
                && other.group.component == facts.group.component
                && other.time >= facts.time
        });
        if is_held || is_under_mass_change || facts.time > now() {
            kept.insert(facts.id.clone());
        }
    }
    let past: Vec<_> = sorted.into_iter().filter(|facts| facts.time <= now()).collect();
    let manifests: Vec<_> = past.iter().filter(|facts| has(facts, MANIFEST_TAG)).collect();
    let newest = manifests.iter().find(|facts| !facts.incomplete).or(manifests.first());
    kept.extend(newest.map(|facts| facts.id.clone()));
    let groups: BTreeSet<&GroupKey> = past.iter().map(|facts| &facts.group).collect();
    let counts = [policy.last, policy.hourly, policy.daily, policy.weekly, policy.monthly, policy.yearly];
    let is_empty = counts == [0; 6] && policy.within.is_none() && policy.tags.is_empty();
    for key in groups {
        let group: Vec<_> = past.iter().copied().filter(|facts| facts.group == *key).collect();
        for (rule, count) in counts.into_iter().enumerate().filter(|(_, count)| *count > 0) {
            kept.extend(one_rule(rule, count, &group, zone));
        }
        let since = policy.within.map(|within| {
            let newest = group[0].time.to_zoned(zone.clone());
            newest.checked_sub(within).unwrap().timestamp()
        });
        for facts in &group {
            let is_tagged = policy.tags.iter().any(|tag| has(facts, tag));
            if is_empty || is_tagged || since.is_some_and(|since| facts.time > since) {
                kept.insert(facts.id.clone());
            }
        }
        kept.extend(group.iter().find(|facts| !facts.incomplete).map(|facts| facts.id.clone()));
        kept.extend(group.first().map(|facts| facts.id.clone()).filter(|_| group[0].incomplete));
    }
    kept
}

/// Times around the night when clocks were put back, around now, in a year, and in ten of them.
fn any_time() -> impl Strategy<Value = i64> {
    prop_oneof![
        (-3i64..60).prop_map(|steps| NOW - steps * 1_200),
        (0i64..40).prop_map(|steps| NOW - 8 * 86_400 + steps * 900),
        (0i64..400).prop_map(|days| NOW - days * 86_400),
        (0i64..120).prop_map(|months| NOW - months * 30 * 86_400 - 1),
    ]
}

fn any_snapshots() -> impl Strategy<Value = Vec<SnapshotFacts>> {
    let tag = prop_oneof![
        12 => Just(None),
        1 => Just(Some(HOLD_TAG)),
        1 => Just(Some(MANIFEST_TAG)),
        1 => Just(Some(MASS_CHANGE_TAG)),
        2 => Just(Some("kept")),
        1 => Just(Some("audit")),
    ];
    let one = (any_time(), 0u8..3, prop::bool::weighted(0.35), tag);
    prop::collection::vec(one, 0..40).prop_map(|all| {
        let facts = |(number, (time, group, incomplete, tag)): (usize, (i64, u8, bool, Option<&str>))| {
            // The third group is the first one's component on another host.
            let (host, component) =
                [("h", Some("db")), ("h", None), ("other", Some("db"))][usize::from(group)];
            SnapshotFacts {
                id: format!("{number:02x}ff"),
                time: Timestamp::from_second(time).unwrap(),
                group: GroupKey {
                    host: host.to_owned(),
                    component: component.map(str::to_owned),
                    paths: Vec::new(),
                },
                tags: tag.map(str::to_owned).into_iter().collect(),
                incomplete,
            }
        };
        all.into_iter().enumerate().map(facts).collect()
    })
}

fn any_policy() -> impl Strategy<Value = Policy> {
    let count = || prop_oneof![5 => Just(0u32), 5 => 1u32..6, 1 => Just(ALL)];
    let within = prop_oneof![
        3 => Just(None),
        1 => (1i64..80).prop_map(|hours| Some(Span::new().hours(hours))),
        1 => (1i64..40).prop_map(|days| Some(Span::new().days(days))),
        1 => (1i64..14).prop_map(|months| Some(Span::new().months(months))),
    ];
    (prop::array::uniform6(count()), within, any::<bool>()).prop_map(
        |([last, hourly, daily, weekly, monthly, yearly], within, is_tagged)| Policy {
            last,
            hourly,
            daily,
            weekly,
            monthly,
            yearly,
            within,
            tags: if is_tagged { vec!["kept".to_owned()] } else { Vec::new() },
        },
    )
}

fn any_holds() -> impl Strategy<Value = Holds> {
    let ids = prop::collection::btree_set(prop::sample::select(vec!["", "0", "1f", "05ff", "zz"]), 0..3);
    (ids, prop::bool::weighted(0.3)).prop_map(|(ids, is_audited)| Holds {
        ids: ids.into_iter().map(str::to_owned).collect(),
        tags: is_audited.then(|| "audit".to_owned()).into_iter().collect(),
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    #[test]
    fn the_plan_keeps_exactly_what_the_model_keeps(
        snapshots in any_snapshots(), policy in any_policy(), holds in any_holds(), zone in 0usize..4,
    ) {
        let zone = &zones()[zone];
        let kept: BTreeSet<String> =
            plan(&snapshots, &policy, &holds, now(), zone).kept().map(str::to_owned).collect();
        prop_assert_eq!(kept, model(&snapshots, &policy, &holds, zone));
    }

    /// As long as rules see no incomplete snapshot, another host's groups and what is newer than now change nothing.
    #[test]
    fn groups_do_not_see_each_other(snapshots in any_snapshots(), policy in any_policy(), zone in 0usize..4) {
        // These two reach across groups by design.
        let mut snapshots = snapshots;
        for facts in &mut snapshots {
            facts.tags.retain(|tag| tag != MASS_CHANGE_TAG && tag != MANIFEST_TAG);
        }
        let kept = |snapshots: &[SnapshotFacts]| -> BTreeSet<String> {
            plan(snapshots, &policy, &Holds::default(), now(), &zones()[zone]).kept().map(str::to_owned).collect()
        };
        let groups: BTreeSet<&GroupKey> = snapshots.iter().map(|facts| &facts.group).collect();
        let apart = groups.into_iter().flat_map(|key| {
            let alone: Vec<SnapshotFacts> = snapshots.iter().filter(|facts| facts.group == *key).cloned().collect();
            kept(&alone)
        });
        prop_assert_eq!(apart.collect::<BTreeSet<String>>(), kept(&snapshots));
    }

    #[test]
    fn a_hold_that_fits_nothing_is_told_and_one_that_fits_is_not(
        snapshots in any_snapshots(), policy in any_policy(), holds in any_holds(),
    ) {
        let unmatched = plan(&snapshots, &policy, &holds, now(), &TimeZone::UTC).unmatched_holds;
        let fits = |hold: &String| !hold.is_empty() && snapshots.iter().any(|facts| facts.id.starts_with(hold.as_str()));
        let is_used = |tag: &String| snapshots.iter().any(|facts| facts.tags.contains(tag));
        let expected: Vec<String> = holds.ids.iter().filter(|id| !fits(id))
            .chain(holds.tags.iter().filter(|tag| !is_used(tag))).cloned().collect();
        prop_assert_eq!(unmatched, expected);
    }
}

use jiff::{Span, Timestamp, ToSpan, tz::TimeZone};
use retoma_core::decide::retention::{ALL, GroupKey, Holds, Plan, Policy, SnapshotFacts, plan};
use std::collections::BTreeSet;

/// A snapshot written as `id time flags`: `!` incomplete, `#tag`, `@component`.
pub(super) fn snapshot(line: &str) -> SnapshotFacts {
    let mut words = line.split_whitespace();
    let id = words.next().expect("an id").to_owned();
    let time: Timestamp = words.next().expect("a time").parse().expect("a time");
    let rest: Vec<&str> = words.collect();
    SnapshotFacts {
        id,
        time,
        group: GroupKey {
            host: "h1".to_owned(),
            component: rest.iter().find_map(|word| word.strip_prefix('@')).map(str::to_owned),
            paths: vec!["/srv".to_owned()],
        },
        tags: rest.iter().filter_map(|word| word.strip_prefix('#')).map(str::to_owned).collect(),
        incomplete: rest.contains(&"!"),
    }
}

fn run(lines: &[&str], policy: &Policy, holds: &Holds, zone: &TimeZone) -> Plan {
    let snapshots: Vec<SnapshotFacts> = lines.iter().map(|line| snapshot(line)).collect();
    plan(&snapshots, policy, holds, "2026-11-22T00:00:00Z".parse().expect("a time"), zone)
}

/// One line per snapshot: what happens to it and why.
fn story(plan: &Plan) -> String {
    use retoma_core::decide::retention::Action;
    let line = |decision: &retoma_core::decide::retention::Decision| match &decision.action {
        Action::Keep { reasons } => {
            let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
            format!("keep   {} {}: {}", decision.id, decision.time, reasons.join("; "))
        }
        Action::Remove { reason } => format!("remove {} {}: {reason}", decision.id, decision.time),
    };
    plan.decisions.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn kept(lines: &[&str], policy: &Policy) -> Vec<String> {
    let plan = run(lines, policy, &Holds::default(), &TimeZone::UTC);
    plan.kept().map(str::to_owned).collect()
}

/// Two a day for ten days, then one a month.
const HISTORY: [&str; 16] = [
    "a20 2026-11-21T18:00:00Z",
    "a19 2026-11-21T06:00:00Z",
    "a18 2026-11-20T18:00:00Z",
    "a17 2026-11-20T06:00:00Z",
    "a16 2026-11-19T18:00:00Z",
    "a15 2026-11-19T06:00:00Z",
    "a14 2026-11-18T18:00:00Z",
    "a13 2026-11-17T18:00:00Z",
    "a12 2026-11-15T18:00:00Z",
    "a11 2026-11-14T18:00:00Z",
    "a10 2026-10-31T18:00:00Z",
    "a09 2026-09-30T18:00:00Z",
    "a08 2026-01-05T18:00:00Z",
    "a07 2025-12-31T18:00:00Z",
    "a06 2025-06-01T18:00:00Z",
    "a05 2024-06-01T18:00:00Z",
];

#[test]
fn grandfather_father_son_as_a_story() {
    let policy = Policy { last: 1, daily: 3, weekly: 3, monthly: 3, yearly: 2, ..Policy::default() };
    insta::assert_snapshot!(story(&run(&HISTORY, &policy, &Holds::default(), &TimeZone::UTC)));
}

/// What `restic forget` of version 0.14.0 keeps for the same times and counts, tried with it.
#[test]
fn each_rule_alone_keeps_the_newest_of_its_periods() {
    let table: [(Policy, &[&str]); 9] = [
        (Policy { last: 3, ..Policy::default() }, &["a20", "a19", "a18"]),
        (Policy { hourly: 2, ..Policy::default() }, &["a20", "a19"]),
        (Policy { daily: 4, ..Policy::default() }, &["a20", "a18", "a16", "a14"]),
        // Weeks begin on Monday: a12 is a Sunday, and a11 the Saturday before it.
        (Policy { weekly: 2, ..Policy::default() }, &["a20", "a12"]),
        (Policy { monthly: 4, ..Policy::default() }, &["a20", "a10", "a09", "a08"]),
        (Policy { yearly: 2, ..Policy::default() }, &["a20", "a07"]),
        // Counts are left over, so the oldest stays too.
        (Policy { yearly: 9, ..Policy::default() }, &["a20", "a07", "a05"]),
        (
            Policy { last: ALL, ..Policy::default() },
            &[
                "a20", "a19", "a18", "a17", "a16", "a15", "a14", "a13", "a12", "a11", "a10", "a09", "a08",
                "a07", "a06", "a05",
            ],
        ),
        (Policy { within: Some(3.days()), ..Policy::default() }, &["a20", "a19", "a18", "a17", "a16", "a15"]),
    ];
    for (policy, expected) in table {
        assert_eq!(kept(&HISTORY, &policy), expected, "{policy:?}");
    }
}

#[test]
fn the_oldest_stays_while_counts_are_left() {
    let lines = ["c 2026-11-21T18:00:00Z", "b 2026-11-21T12:00:00Z", "a 2026-11-21T06:00:00Z"];
    assert_eq!(kept(&lines, &Policy { daily: 2, ..Policy::default() }), ["c", "a"]);
    assert_eq!(kept(&lines, &Policy { daily: 1, ..Policy::default() }), ["c"]);
}

#[test]
fn a_window_looks_back_from_the_newest_snapshot_and_excludes_its_edge() {
    let lines = ["c 2026-06-30T12:00:00Z", "b 2026-05-30T12:00:01Z", "a 2026-05-30T12:00:00Z"];
    assert_eq!(kept(&lines, &Policy { within: Some(1.month()), ..Policy::default() }), ["c", "b"]);
    let endless = Span::new().years(19_000);
    assert_eq!(kept(&lines, &Policy { within: Some(endless), ..Policy::default() }), ["c", "b", "a"]);
}

#[test]
fn days_and_hours_are_those_of_the_zone() {
    let lines = ["b 2026-11-21T02:30:00Z", "a 2026-11-21T01:30:00Z", "z 2026-11-01T00:00:00Z"];
    let policy = Policy { daily: 2, ..Policy::default() };
    let in_zone = |name: &str| {
        let zone = TimeZone::fixed(jiff::tz::offset(if name == "UTC" { 0 } else { -2 }));
        run(&lines, &policy, &Holds::default(), &zone).kept().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(in_zone("UTC"), ["b", "z"]);
    assert_eq!(in_zone("two hours west"), ["b", "a"], "a is of the day before there");
}

#[test]
fn the_hour_that_clocks_repeat_is_two_hours() {
    let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a zone");
    let lines = ["c 2026-10-25T01:30:00Z", "b 2026-10-25T00:30:00Z", "a 2026-10-24T23:30:00Z"];
    let plan = run(&lines, &Policy { hourly: 2, ..Policy::default() }, &Holds::default(), &zone);
    assert_eq!(plan.kept().collect::<Vec<_>>(), ["c", "b"]);
    assert!(story(&plan).matches("hourly 2026-10-25 02:00").count() == 2, "{}", story(&plan));
}

#[test]
fn an_incomplete_snapshot_never_stands_where_a_complete_one_can() {
    let lines = [
        "d2 2026-11-21T18:00:00Z !",
        "d1 2026-11-21T06:00:00Z",
        "c2 2026-11-20T18:00:00Z !",
        "c1 2026-11-20T06:00:00Z !",
        "b2 2026-11-19T18:00:00Z !",
        "b1 2026-11-19T06:00:00Z",
        "a1 2026-11-18T06:00:00Z",
    ];
    let policy = Policy { daily: 3, ..Policy::default() };
    insta::assert_snapshot!(story(&run(&lines, &policy, &Holds::default(), &TimeZone::UTC)));
}

#[test]
fn many_incomplete_snapshots_cannot_push_the_complete_one_out() {
    let lines = [
        "e 2026-11-21T06:00:00Z !",
        "d 2026-11-20T06:00:00Z !",
        "c 2026-11-19T06:00:00Z !",
        "b 2026-11-18T06:00:00Z",
        "a 2026-11-17T06:00:00Z",
    ];
    assert_eq!(kept(&lines, &Policy { last: 1, ..Policy::default() }), ["e", "b"]);
    assert_eq!(kept(&lines, &Policy { daily: 2, ..Policy::default() }), ["e", "d", "b", "a"]);
    let only_incomplete = &lines[..3];
    assert_eq!(kept(only_incomplete, &Policy { last: 1, ..Policy::default() }), ["e"]);
}

#[test]
fn the_only_complete_one_stays_whatever_the_policy_says() {
    let lines = ["b 2026-11-21T06:00:00Z !", "a 2020-01-01T00:00:00Z"];
    let policy = Policy { tags: vec!["nothing has it".to_owned()], ..Policy::default() };
    let plan = run(&lines, &policy, &Holds::default(), &TimeZone::UTC);
    assert!(
        story(&plan).contains("keep   a 2020-01-01T00:00:00Z: the only complete snapshot of its component")
    );
}

#[test]
fn groups_are_looked_at_apart() {
    let lines = [
        "d 2026-11-21T06:00:00Z @database",
        "c 2026-11-20T06:00:00Z @database",
        "b 2026-11-19T06:00:00Z @models",
        "a 2026-11-18T06:00:00Z @models",
    ];
    assert_eq!(kept(&lines, &Policy { last: 1, ..Policy::default() }), ["d", "b"]);
}

#[test]
fn holds_tags_manifests_and_the_future_stay() {
    let lines = [
        "ff01 2026-11-22T00:00:01Z",
        "f 2026-11-21T06:00:00Z",
        "e 2026-11-20T06:00:00Z #retoma:hold",
        "d 2026-11-19T06:00:00Z #audit",
        "c 2026-11-18T06:00:00Z #before-upgrade",
        "b12345 2026-11-17T06:00:00Z",
        "a 2026-11-16T06:00:00Z",
        "n3 2026-11-15T06:00:00Z #retoma:manifest ! @manifest",
        "n2 2026-11-14T06:00:00Z #retoma:manifest @manifest",
        "n1 2026-11-13T06:00:00Z #retoma:manifest @manifest",
    ];
    let holds = Holds {
        ids: ["b12", "b99", ""].map(str::to_owned).into(),
        tags: BTreeSet::from(["audit".to_owned(), "trial".to_owned()]),
    };
    let policy = Policy { last: 1, tags: vec!["before-upgrade".to_owned()], ..Policy::default() };
    let plan = run(&lines, &policy, &holds, &TimeZone::UTC);
    assert_eq!(plan.from_the_future().collect::<Vec<_>>(), ["ff01"]);
    assert_eq!(plan.unmatched_holds, ["", "b99", "trial"]);
    insta::assert_snapshot!(story(&plan));
}

#[test]
fn without_a_rule_everything_stays() {
    assert_eq!(kept(&HISTORY, &Policy::default()).len(), HISTORY.len());
    assert_eq!(
        run(&[], &Policy { last: 1, ..Policy::default() }, &Holds::default(), &TimeZone::UTC).decisions,
        []
    );
}

#[test]
fn a_plan_is_json_too() {
    let lines = ["b 2026-11-21T06:00:00Z", "a 2026-11-20T06:00:00Z"];
    let plan = run(&lines, &Policy { last: 1, ..Policy::default() }, &Holds::default(), &TimeZone::UTC);
    insta::assert_snapshot!(serde_json::to_string_pretty(&plan).expect("JSON"));
}

/// Whoever encrypts the data may also have changed the host's name: the hold is of the component.
#[test]
fn what_is_not_newer_than_a_mass_change_stays_until_it_is_accepted() {
    let lines = [
        "m5 2026-11-21T06:00:00Z @models",
        "m4 2026-11-20T06:00:00Z @models",
        "m3 2026-11-19T06:00:00Z #retoma:mass-change @models",
        "m2 2026-11-18T06:00:00Z ! @models",
        "m1 2026-11-17T06:00:00Z #retoma:mass-change @models",
        "o2 2026-11-18T06:00:00Z @other",
        "o1 2026-11-17T06:00:00Z @other",
    ];
    let mut snapshots: Vec<SnapshotFacts> = lines.iter().map(|line| snapshot(line)).collect();
    snapshots[4].group.host = "h2".to_owned();
    let policy = Policy { last: 1, ..Policy::default() };
    let now = "2026-11-22T00:00:00Z".parse().expect("a time");
    let decided =
        |snapshots: &[SnapshotFacts]| plan(snapshots, &policy, &Holds::default(), now, &TimeZone::UTC);
    insta::assert_snapshot!(story(&decided(&snapshots)));
    for facts in &mut snapshots {
        facts.tags.clear();
    }
    let left: BTreeSet<String> = decided(&snapshots).kept().map(str::to_owned).collect();
    assert_eq!(left, ["m5", "m1", "o2"].map(str::to_owned).into());
}

use super::*;
use crate::decide::alerts::{AlertKey, Condition, Severity};
use crate::decide::archiving::Archive;
use crate::decide::observed::{
    Mark, Marks, ObservedBackup, ObservedComponent, ObservedDrill, ObservedRepository, ObservedTask, Slot,
};
use crate::manifest::{ComponentKind, Tier};
use crate::units::Duration;
use jiff::SignedDuration;
use proptest::prelude::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

/// Everything is known.
fn full() -> Observed {
    Observed {
        version: "0.1.0".to_owned(),
        started: at(0),
        since: at(0),
        decided: at(9),
        journal_errors: 0,
        components: vec![ObservedComponent {
            name: "db".to_owned(),
            kind: ComponentKind::Postgres,
            tier: Tier::Critical,
            objectives: Tier::Critical.default_objectives(),
            age_limit: Duration::from_seconds(90_000),
            newest: vec![("near".to_owned(), Some(at(5))), ("far".to_owned(), Some(at(4)))],
            copies: Vec::new(),
            copy_age_limit: Duration::HOUR,
            oldest: Some(at(-100)),
            backup: Some(ObservedBackup { duration_seconds: 1.5, stored_bytes: 10, total_bytes: 1 << 40 }),
        }],
        tasks: vec![ObservedTask {
            name: "backup/db".to_owned(),
            is_running: true,
            last_good: Some(at(4)),
            next: at(270),
            failures: 2,
            error_code: Some("R0303".to_owned()),
        }],
        repositories: vec![ObservedRepository {
            name: "near".to_owned(),
            looked: Some(at(8)),
            error_code: None,
            mass_changes: Vec::new(),
            snapshots: Some(12),
        }],
        streams: vec![Stream {
            component: "db".to_owned(),
            is_wanted: true,
            lag_bytes: Some(16),
            lag_seconds: Some(0.125),
            slot: Some(Slot { is_read: true, retained_bytes: 25, limit_bytes: 100 }),
            archive: Some(Archive {
                is_on: true,
                timeout_seconds: 60,
                is_failing: false,
                waiting_segments: 2,
                stuck_since: None,
                writing: None,
            }),
            gaps: Some(1),
            open_gaps: Some(0),
            missing_histories: Some(2),
            window_start: Some(at(-100)),
            window_end_lsn: Some(0x0300_0138),
            marks: Some(Marks { last: Some(Mark { number: 42, written: at(8) }), trouble: None }),
            ..Stream::default()
        }],
        damaged: Some(false),
        drill_every: Some(Duration::from_seconds(600)),
        drill: Some(ObservedDrill {
            scenario: "deletion".to_owned(),
            started: at(1),
            is_green: true,
            rto_measured_seconds: Some(3.25),
            rpo_measured_seconds: vec![("db".to_owned(), 0.5)],
        }),
        drill_good: Some(at(1)),
        spool_bytes: 7,
    }
}

fn raised(component: &str) -> Alerts {
    let mut alerts = Alerts::default();
    let key =
        AlertKey { alert: "wal_gap".to_owned(), component: Some(component.to_owned()), repository: None };
    let lasting = SignedDuration::ZERO;
    let condition = Condition { key, severity: Severity::Critical, summary: "x".to_owned(), lasting };
    alerts.observe(vec![condition], at(0));
    alerts
}

#[test]
fn the_text_has_every_metric_of_the_table_and_no_other() {
    let text = text(&full(), &raised("d\"b"), at(10));
    insta::assert_snapshot!("metrics", text);
    for metric in TABLE {
        assert!(text.contains(&format!("# TYPE {} {}\n", metric.name, metric.kind)), "{}", metric.name);
    }
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let metric = TABLE.iter().find(|metric| metric.name == name).unwrap_or_else(|| panic!("{line}"));
        let labels: Vec<&str> = line
            .split(['{', ',', '}'])
            .filter_map(|part| part.split_once("=\""))
            .map(|(name, _)| name)
            .collect();
        assert_eq!(labels.join(", "), metric.labels, "{line}");
    }
}

#[test]
fn what_was_not_observed_has_no_sample() {
    let mut observed = full();
    observed.components[0].newest[1].1 = None;
    observed.repositories[0].looked = None;
    observed.drill = None;
    observed.tasks[0].next = Timestamp::MIN;
    observed.streams[0] = Stream { component: "db".to_owned(), ..Stream::default() };
    let text = text(&observed, &Alerts::default(), at(10));
    for absent in [
        "last_success_timestamp_seconds{component",
        "age_seconds",
        "retoma_drill",
        "retoma_wal_stream",
        "retoma_wal_archive_up",
        "retoma_wal_archive_waiting_segments",
        "retoma_wal_gaps",
        "retoma_wal_open_gaps",
        "next_",
        "retoma_alert",
    ] {
        assert!(!text.contains(absent), "{absent}: {text}");
    }
    assert!(text.contains("retoma_repository_up{repository=\"near\"} 0\n"), "{text}");
}

#[test]
fn numbers_are_as_the_format_wants_them() {
    let text = [1.0, 0.125, 1_800_000_000.5, 1e18, f64::INFINITY, f64::NEG_INFINITY, f64::NAN].map(number);
    assert_eq!(text, ["1", "0.125", "1800000000.5", "1000000000000000000", "+Inf", "-Inf", "NaN"]);
}

proptest! {
    #[test]
    fn a_label_is_read_back_as_it_was(value in "(?s).{0,30}") {
        let escaped = escaped(&value);
        prop_assert!(!escaped.contains('\n'));
        let mut read = String::new();
        let mut chars = escaped.chars();
        while let Some(c) = chars.next() {
            prop_assert!(c != '"', "a quote ends the value");
            if c == '\\' {
                match chars.next() {
                    Some('n') => read.push('\n'),
                    Some(c @ ('\\' | '"')) => read.push(c),
                    other => prop_assert!(false, "{other:?}"),
                }
            } else {
                read.push(c);
            }
        }
        prop_assert_eq!(read, value);
    }
}

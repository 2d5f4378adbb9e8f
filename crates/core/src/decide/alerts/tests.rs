use super::*;
use crate::decide::archiving::{Archive, Writing};
use crate::decide::observed::{
    MarkTrouble, Marks, ObservedComponent, ObservedDrill, ObservedMassChange, ObservedRepository,
    ObservedTask, Slot,
};
use crate::manifest::{ComponentKind, Tier};
use crate::postgres::TimelineId;
use proptest::prelude::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

/// Everything is well at second 1000.
fn well() -> Observed {
    Observed {
        version: "1".to_owned(),
        started: at(0),
        since: at(0),
        decided: at(1000),
        journal_errors: 0,
        components: vec![ObservedComponent {
            name: "db".to_owned(),
            kind: ComponentKind::Postgres,
            tier: Tier::Critical,
            objectives: Tier::Critical.default_objectives(),
            age_limit: Duration::from_seconds(300),
            newest: vec![("near".to_owned(), Some(at(900))), ("far".to_owned(), Some(at(800)))],
            copies: Vec::new(),
            copy_age_limit: Duration::HOUR,
            oldest: Some(at(100)),
            backup: None,
        }],
        tasks: vec![ObservedTask {
            name: "backup/db".to_owned(),
            is_running: false,
            last_good: Some(at(900)),
            next: at(1100),
            failures: 0,
            error_code: None,
        }],
        repositories: vec![ObservedRepository {
            name: "near".to_owned(),
            looked: Some(at(990)),
            error_code: None,
            snapshots: Some(3),
            mass_changes: Vec::new(),
        }],
        streams: vec![Stream {
            component: "db".to_owned(),
            is_wanted: true,
            slot: Some(Slot { is_read: true, retained_bytes: 1, limit_bytes: 100 }),
            gaps: Some(0),
            ..Stream::default()
        }],
        damaged: Some(false),
        drill_every: Some(Duration::from_seconds(600)),
        drill: Some(ObservedDrill {
            scenario: "deletion".to_owned(),
            started: at(500),
            is_green: true,
            rto_measured_seconds: Some(1.0),
            rpo_measured_seconds: Vec::new(),
        }),
        drill_good: Some(at(500)),
        spool_bytes: 0,
    }
}

/// The names of what is wrong after `change`, with the severity's first letter.
fn wrong(now: i64, change: impl FnOnce(&mut Observed)) -> String {
    let mut observed = well();
    change(&mut observed);
    let name = |it: &Condition| format!("{}:{}", it.key.alert, &it.severity.as_str()[..1]);
    conditions(&observed, at(now)).iter().map(name).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_copy_is_late_when_it_is_old_and_its_source_has_something_newer() {
    let copied = |source: i64, copy: Option<i64>| {
        move |it: &mut Observed| {
            let component = &mut it.components[0];
            component.newest = vec![("near".to_owned(), Some(at(source)))];
            component.copies = vec![("off".to_owned(), copy.map(at))];
            component.copy_age_limit = Duration::from_seconds(500);
            component.age_limit = Duration::from_seconds(5000);
        }
    };
    assert_eq!(wrong(1000, copied(900, Some(900))), "");
    assert_eq!(wrong(1000, copied(900, Some(500))), "");
    assert_eq!(wrong(1001, copied(900, Some(500))), "copy_late:c");
    assert_eq!(wrong(1001, copied(500, Some(500))), "", "there is nothing newer to copy");
    assert_eq!(wrong(500, copied(400, None)), "", "the agent has just begun");
    assert_eq!(wrong(1000, copied(900, None)), "copy_late:c");
    let nothing = |it: &mut Observed| {
        copied(900, None)(it);
        it.components[0].newest[0].1 = None;
        it.components[0].age_limit = Duration::from_seconds(100);
    };
    assert_eq!(wrong(1000, nothing), "backup_late:c");
    let mut late = well();
    copied(900, Some(100))(&mut late);
    let found = conditions(&late, at(1000));
    assert_eq!(
        (found[0].key.component.as_deref(), found[0].key.repository.as_deref()),
        (Some("db"), Some("off"))
    );
}

#[test]
fn a_mass_change_is_an_alert_of_its_component_and_repository() {
    let mut changed = well();
    let change =
        ObservedMassChange { component: "db".to_owned(), snapshot: "0123abcd".to_owned(), time: at(900) };
    changed.repositories[0].mass_changes.push(change);
    // It is one also while its repository does not answer.
    changed.repositories[0].error_code = Some("R0303".to_owned());
    let found = conditions(&changed, at(1000));
    let one = found.iter().find(|it| it.key.alert == "mass_change").unwrap();
    assert_eq!((one.severity, one.lasting), (Severity::Critical, SignedDuration::ZERO));
    assert_eq!((one.key.component.as_deref(), one.key.repository.as_deref()), (Some("db"), Some("near")));
    assert_eq!(
        one.summary,
        "much of `db` changed at once, as seen in snapshot 0123abcd of 2027-01-15T08:15:00Z; nothing older is removed from `near` until \
         `retoma forget --accept 0123abcd --repository near` says that it was meant"
    );
}

#[test]
fn each_rule_alone() {
    assert_eq!(wrong(1000, |_| {}), "");
    let slot = |it: &mut Observed, kept| it.streams[0].slot.as_mut().unwrap().retained_bytes = kept;
    assert_eq!(wrong(1101, |it| it.repositories.clear()), "backup_late:c");
    assert_eq!(wrong(1100, |it| it.repositories.clear()), "");
    assert_eq!(wrong(1000, |it| it.components[0].newest[1].1 = None), "backup_late:c");
    assert_eq!(wrong(300, |it| it.components[0].newest[1].1 = None), "", "the agent has just begun");
    assert_eq!(wrong(1000, |it| it.tasks[0].failures = 1), "task_failing:w");
    assert_eq!(
        wrong(1000, |it| it.repositories[0].error_code = Some("R0303".into())),
        "repository_unavailable:c"
    );
    assert_eq!(
        wrong(1000, |it| it.repositories[0].looked = None),
        "repository_unavailable:c",
        "no look is no good one"
    );
    assert_eq!(wrong(1000, |it| it.repositories[0].looked = Some(at(690))), "repository_unavailable:c");
    assert_eq!(wrong(1000, |it| it.streams[0].down = Some("x".into())), "wal_stream_down:c");
    assert_eq!(wrong(1000, |it| it.streams[0].slot.as_mut().unwrap().is_read = false), "wal_stream_down:c");
    let blind = |it: &mut Observed| (it.streams[0].slot, it.streams[0].slot_unknown) = (None, true);
    assert_eq!(wrong(1000, blind), "wal_stream_down:c");
    assert_eq!(
        wrong(1000, |it| it.streams[0].stuck_repositories.push("far".into())),
        "wal_stream_repository:c"
    );
    assert_eq!(wrong(1000, |it| it.streams[0].lag_seconds = Some(30.1)), "wal_lag:c");
    assert_eq!(wrong(1000, |it| it.streams[0].open_gaps = Some(1)), "wal_gap:c");
    assert_eq!(wrong(1000, |it| it.streams[0].gaps = Some(1)), "", "a newer backup begins behind it");
    let tablespace =
        |it: &mut Observed| (it.streams[0].open_gaps, it.streams[0].has_new_tablespace) = (Some(1), true);
    assert_eq!(wrong(1000, tablespace), "wal_gap:c", "once");
    assert_eq!(wrong(1000, |it| it.streams[0].missing_histories = Some(1)), "wal_history_missing:c");
    assert_eq!(wrong(1000, |it| it.streams[0].missing_histories = Some(0)), "");
    assert_eq!(wrong(1000, |it| slot(it, 49)), "");
    assert_eq!(wrong(1000, |it| slot(it, 50)), "slot_filling:w");
    assert_eq!(wrong(1000, |it| slot(it, 80)), "slot_filling:c");
    assert_eq!(wrong(1000, |it| it.damaged = Some(true)), "damage_found:c");
    assert_eq!(wrong(1000, |it| it.drill.as_mut().unwrap().is_green = false), "drill_failed:c");
    assert_eq!(wrong(1000, |it| (it.drill, it.drill_good) = (None, None)), "");
    assert_eq!(wrong(1000, |it| it.streams[0].archive_unknown = true), "wal_archive_down:c");
    let archive = |it: &mut Observed, is_failing| {
        it.streams[0].archive = Some(Archive {
            is_on: true,
            timeout_seconds: 60,
            is_failing,
            waiting_segments: 0,
            stuck_since: None,
            writing: Some(Writing { system_identifier: 7, timeline: TimelineId::FIRST }),
        });
    };
    let newest = |it: &mut Observed, number| {
        archive(it, false);
        it.streams[0].newest_timeline = TimelineId::new(number);
    };
    assert_eq!(wrong(1000, |it| newest(it, 1)), "");
    assert_eq!(wrong(1000, |it| newest(it, 2)), "wal_split:c");
    assert_eq!(wrong(1000, |it| archive(it, false)), "");
    assert_eq!(wrong(1000, |it| archive(it, true)), "wal_archive_down:c");
    let marks = |it: &mut Observed, trouble: Option<MarkTrouble>| {
        it.streams[0].marks = Some(Marks { last: None, trouble });
    };
    assert_eq!(wrong(1000, |it| marks(it, None)), "");
    assert_eq!(wrong(1000, |it| marks(it, Some(MarkTrouble::MayNot("x".into())))), "marks_not_allowed:w");
    assert_eq!(wrong(1000, |it| marks(it, Some(MarkTrouble::NotTaken("x".into())))), "marks_stopped:c");
    let never = |it: &mut Observed| {
        (it.drill, it.drill_good) = (None, None);
        it.components.clear();
        it.repositories.clear();
    };
    assert_eq!(wrong(1201, never), "drill_late:w");
}

#[test]
fn what_may_be_older_is_late_later() {
    let streamed = |it: &mut Observed| {
        it.components[0].age_limit = Duration::from_seconds(270 + 3600);
        it.repositories.clear();
        it.drill_every = None;
    };
    assert_eq!(wrong(800 + 270 + 3600, streamed), "");
    assert_eq!(wrong(800 + 270 + 3601, streamed), "backup_late:c");
}

fn condition(lasting_seconds: i64) -> Condition {
    Condition {
        key: AlertKey { alert: "a".to_owned(), component: None, repository: None },
        severity: Severity::Critical,
        summary: "it is so".to_owned(),
        lasting: SignedDuration::from_secs(lasting_seconds),
    }
}

#[test]
fn an_alert_is_raised_when_it_lasts_and_cleared_when_it_stays_away() {
    let mut alerts = Alerts::default();
    let mut state = |seconds: i64, is_bad: bool| {
        alerts.observe(if is_bad { vec![condition(5)] } else { Vec::new() }, at(seconds));
        assert_eq!(alerts.is_healthy(), alerts.active().count() == 0);
        alerts.active().count()
    };
    assert_eq!(state(0, true), 0);
    assert_eq!(state(4, true), 0);
    assert_eq!(state(5, false), 0, "it did not last");
    assert_eq!(state(6, true), 0);
    assert_eq!(state(11, true), 1);
    assert_eq!(state(12, false), 1, "it may come again");
    assert_eq!(state(20, true), 1);
    assert_eq!(state(21, false), 1);
    assert_eq!(state(30, false), 1);
    assert_eq!(state(31, false), 0);
}

proptest! {
    #[test]
    fn nothing_flickers(steps in prop::collection::vec((0i64..8, any::<bool>()), 1..100), lasting in 0i64..15) {
        let mut alerts = Alerts::default();
        let (mut now, mut was, mut bad_at) = (0, false, None::<i64>);
        for (seconds, is_bad) in steps {
            now += seconds;
            alerts.observe(if is_bad { vec![condition(lasting)] } else { Vec::new() }, at(now));
            let is = alerts.active().next().is_some();
            if is_bad {
                bad_at = Some(now);
                prop_assert!(is || !was, "cleared while it is wrong");
                prop_assert!(is || lasting > 0, "what needs not last is raised at once");
            } else {
                prop_assert!(was || !is, "raised while nothing is wrong");
            }
            if was && !is {
                // The first look without it comes after the last one with it.
                prop_assert!(now - bad_at.unwrap() >= 10, "cleared too early");
            }
            was = is;
        }
    }

    #[test]
    fn a_clock_that_jumps_does_not_lose_an_alert(times in prop::collection::vec(-100_000i64..100_000, 2..30)) {
        let mut alerts = Alerts::default();
        for seconds in times {
            alerts.observe(vec![condition(0)], at(seconds));
            prop_assert_eq!(alerts.active().count(), 1);
        }
    }
}

use super::*;
use proptest::prelude::*;

const PLENTY: Places = Places { backups: 100, copies: 100, maintenance: 100 };

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn backup(every: u64) -> Task {
    Task {
        every: Duration::from_seconds(every),
        class: Class::Backup,
        rank: 0,
        seed: seed("backup/db", "host"),
    }
}

fn maintenance(every: u64) -> Task {
    Task { class: Class::Maintenance, ..backup(every) }
}

fn known(last_good: Option<i64>, failures: u32, failed_at: Option<i64>) -> Known {
    Known { last_good: last_good.map(at), failures, failed_at: failed_at.map(at), ..Known::new(at(0)) }
}

/// Whether the task alone is started at `now`.
fn starts(task: &Task, known: &Known, now: i64) -> bool {
    plan(std::slice::from_ref(task), std::slice::from_ref(known), PLENTY, at(now)).start == [0]
}

#[test]
fn a_copy_waits_for_no_maintenance() {
    let copy = Task { class: Class::Copy, ..backup(60) };
    let tasks = [maintenance(60), maintenance(60), copy.clone(), copy];
    let mut known = [Known::new(at(0)); 4];
    let places = Places { backups: 0, copies: 1, maintenance: 1 };
    let start = |known: &[Known], now| plan(&tasks, known, places, at(now)).start;
    assert!(start(&known, 1).is_empty(), "neither is due at once");
    known[0].begin();
    assert_eq!(start(&known, 10), [2]);
    known[2].begin();
    assert!(start(&known, 10).is_empty());
}

#[test]
fn each_case_of_what_is_known() {
    let (hourly, weekly) = (backup(3600), maintenance(7 * 86_400));
    for (name, task, it, now, expected) in [
        ("a backup that never ran", &hourly, known(None, 0, None), 0, true),
        ("a fresh one", &hourly, known(Some(0), 0, None), 1, false),
        ("before the earliest jitter", &hourly, known(Some(0), 0, None), 3239, false),
        ("at its interval", &hourly, known(Some(0), 0, None), 3600, true),
        ("long after it", &hourly, known(Some(0), 0, None), 9_999_999, true),
        ("dated in the future", &hourly, known(Some(50), 0, None), 49, true),
        ("just failed", &hourly, known(None, 1, Some(100)), 101, false),
        ("failed before the pause ended", &hourly, known(None, 1, Some(100)), 129, false),
        ("failed and waited", &hourly, known(None, 1, Some(100)), 130, true),
        ("failed twice", &hourly, known(None, 2, Some(100)), 159, false),
        ("failed twice and waited", &hourly, known(None, 2, Some(100)), 160, true),
        ("failed for ever", &hourly, known(None, u32::MAX, Some(100)), 100 + 899, false),
        ("failed for ever and waited", &hourly, known(None, u32::MAX, Some(100)), 100 + 900, true),
        ("a failure from the future", &hourly, known(None, 3, Some(200)), 100, true),
        ("a failed retry of one that is not due by itself", &hourly, known(Some(0), 1, Some(10)), 60, false),
        ("maintenance that never ran", &weekly, known(None, 0, None), 3599, false),
        ("maintenance after the first wait", &weekly, known(None, 0, None), 3600, true),
        ("maintenance of short intervals", &maintenance(20), known(None, 0, None), 2, true),
        ("maintenance in its week", &weekly, known(Some(0), 0, None), 6 * 86_400, false),
        ("maintenance after its week", &weekly, known(Some(0), 0, None), 7 * 86_400, true),
    ] {
        assert_eq!(starts(task, &it, now), expected, "{name}");
        if it.failures == 0 && now >= 50 {
            let needed = Known { needed_since: Some(at(now)), ..it };
            assert!(starts(task, &needed, now) || it.last_good.is_none(), "{name}, needed since then");
            let is_good_enough = Known { needed_since: it.last_good, ..it };
            assert_eq!(starts(task, &is_good_enough, now), expected, "{name}, needed before");
        }
        let running = Known { is_running: true, ..it };
        assert!(!starts(task, &running, now), "{name}, running");
    }
}

#[test]
fn the_important_goes_first_and_places_are_not_exceeded() {
    let tasks = [
        Task { rank: 2, ..backup(60) },
        Task { rank: 1, ..backup(60) },
        Task { rank: 1, ..backup(60) },
        maintenance(60),
        maintenance(60),
    ];
    let fresh = known(Some(100), 0, None);
    let late = |good| known(Some(good), 0, None);
    let places = Places { backups: 2, copies: 1, maintenance: 1 };
    let all = [late(0), late(10), late(5), late(7), late(3)];
    assert_eq!(plan(&tasks, &all, places, at(100)).start, [4, 2, 1]);
    let one_runs = [all[0], Known { is_running: true, ..all[1] }, all[2], fresh, fresh];
    let plan = plan(&tasks, &one_runs, places, at(100));
    assert_eq!(plan.start, [2]);
    let wake = plan.wake.unwrap();
    assert!(wake > at(100) && wake <= at(160), "{wake}");
}

#[test]
fn hosts_and_tasks_have_jitters_of_their_own_that_stay() {
    assert_ne!(seed("a", "bc"), seed("ab", "c"));
    let on = |host| jitter(&Task { seed: seed("backup/db", host), ..backup(3600) }, at(0));
    assert_eq!(on("one"), on("one"));
    assert_ne!(on("one"), on("two"));
}

#[test]
fn what_others_saw_counts_when_it_is_newer() {
    let mut it = known(Some(10), 2, Some(30));
    it.saw_good(at(5), at(100));
    assert_eq!(it, known(Some(10), 2, Some(30)));
    it.saw_good(at(20), at(100));
    assert_eq!(it, known(Some(20), 2, Some(30)), "older than the failure");
    it.saw_good(at(40), at(100));
    assert_eq!(it, known(Some(40), 0, None));
    it.saw_good(at(200), at(100));
    assert_eq!(it, known(Some(40), 0, None), "from the future");
    it.end(at(50), at(51), Ended::Stopped);
    assert_eq!(it, known(Some(40), 0, None));
}

/// One step of a life: so many seconds pass, awake or not, and a run that ends does so like this.
#[derive(Debug, Clone)]
struct Pass {
    seconds: i64,
    how: Ended,
}

fn passes() -> impl Strategy<Value = Vec<Pass>> {
    let how = prop_oneof![3 => Just(Ended::Good), 1 => Just(Ended::Failed), 1 => Just(Ended::Stopped)];
    let seconds = prop_oneof![8 => 1i64..5, 1 => 1i64..10_000];
    prop::collection::vec((seconds, how).prop_map(|(seconds, how)| Pass { seconds, how }), 1..200)
}

proptest! {
    #[test]
    fn a_task_never_runs_twice_at_once_and_never_late(every in 1u64..2000, is_backup: bool, passes in passes()) {
        let task = if is_backup { backup(every) } else { maintenance(every) };
        let mut it = Known::new(at(0));
        let (mut now, mut run) = (0i64, None::<i64>);
        for pass in passes {
            let plan = plan(std::slice::from_ref(&task), &[it], PLENTY, at(now));
            prop_assert!(plan.start.len() <= 1);
            if run.is_some() {
                prop_assert!(plan.start.is_empty(), "two at once");
            } else if plan.start.is_empty() {
                // What is not due says when it will be, and that is in time.
                let wake = plan.wake.unwrap();
                prop_assert!(wake > at(now));
                let every = i64::try_from(every).unwrap();
                let failed = it.failed_at.map_or(Timestamp::MIN, |failed| failed + SignedDuration::from_secs(every.min(900)));
                let good = it.last_good.unwrap_or(at(0)) + SignedDuration::from_secs(every);
                prop_assert!(wake <= good.max(failed), "late: {} after {:?}", wake, it);
            } else {
                it.begin();
                run = Some(now);
            }
            now += pass.seconds;
            if let Some(started) = run.take_if(|_| pass.seconds > 1) {
                it.end(at(started), at(now), pass.how);
                // Whatever the downtime was, one good run is enough for now.
                if pass.how == Ended::Good && now - started < i64::try_from(every).unwrap() * 9 / 10 {
                    prop_assert!(!starts(&task, &it, now), "again at once");
                }
            }
        }
    }

    #[test]
    fn jitter_is_less_than_a_tenth(every in 1u64..10_000_000, good in -1_000_000i64..1_000_000, seed: u64) {
        let task = Task { seed, ..backup(every) };
        let due = due(&task, &known(Some(good), 0, None), at(20_000_000));
        let (end, tenth) = (at(good).as_second() + i64::try_from(every).unwrap(), i64::try_from(every / 10).unwrap());
        prop_assert!(due <= Timestamp::from_second(end).unwrap());
        prop_assert!(due >= Timestamp::from_second(end - tenth - 1).unwrap());
    }

    #[test]
    fn any_times_give_a_plan(good: Option<i64>, failed: Option<i64>, failures: u32, now: i64, every in 1u64..u64::MAX) {
        let time = |seconds: i64| Timestamp::from_second(seconds % 200_000_000_000).unwrap();
        let it = Known {
            since: time(now), last_good: good.map(time), failures, failed_at: failed.map(time), is_running: false,
            needed_since: None,
        };
        let task = Task { every: Duration::from_seconds(every), ..backup(1) };
        let plan = plan(&[task], &[it], PLENTY, time(now));
        prop_assert!(plan.start == [0] || plan.wake.is_some());
    }
}

use super::*;
use proptest::prelude::*;
use std::time::Duration;

/// Microseconds of a decimal as it is printed, `1.5e-5` too.
fn micros_of(decimal: &str) -> u64 {
    let (digits, exponent) = decimal.split_once('e').unwrap_or((decimal, "0"));
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let scale = 6 + exponent.parse::<i32>().unwrap() - i32::try_from(fraction.len()).unwrap();
    let number: u64 = format!("{whole}{fraction}").parse().unwrap();
    let power = 10u64.pow(scale.unsigned_abs());
    if scale >= 0 {
        return number * power;
    }
    assert_eq!(number % power, 0, "`{decimal}` has parts of a microsecond");
    number / power
}

proptest! {
    #[test]
    fn seconds_keep_every_microsecond(micros in 0..=Seconds::MAX.as_micros()) {
        let seconds = Seconds::from_micros(micros);
        let json = serde_json::to_string(&seconds).unwrap();
        prop_assert_eq!(serde_json::from_str::<Seconds>(&json).unwrap(), seconds);
        prop_assert_eq!(micros_of(&seconds.to_string()), micros);
        prop_assert_eq!(micros_of(&json), micros);
    }

    #[test]
    fn steps_touch_and_add_up(
        disaster in 0..u64::from(u32::MAX),
        steps in proptest::collection::vec((0usize..8, 0..10_000_000_000u64), 1..40),
        last in 0..10_000_000_000u64,
    ) {
        let mut at = Duration::from_nanos(disaster);
        let disaster = at;
        let mut recorder = WaterfallRecorder::start(at, StepName::Detect);
        for (name, nanos) in steps {
            at += Duration::from_nanos(nanos);
            recorder.begin(StepName::ALL[name], None, at).unwrap();
        }
        at += Duration::from_nanos(last);
        let waterfall = recorder.finish(at).unwrap();
        prop_assert_eq!(waterfall.total(), Seconds::from_duration(at.checked_sub(disaster).unwrap()));
        let sum: u64 = waterfall.steps().iter().map(|step| step.duration_seconds.as_micros()).sum();
        prop_assert_eq!(sum, waterfall.total().as_micros());
        for pair in waterfall.steps().windows(2) {
            prop_assert_eq!(pair[0].end_seconds(), pair[1].start_seconds);
        }
        // And the same with the digits in the JSON.
        let json = serde_json::to_string_pretty(&waterfall).unwrap();
        let printed: Vec<&str> = json
            .lines()
            .filter_map(|line| line.trim().strip_prefix("\"duration_seconds\": "))
            .collect();
        prop_assert_eq!(printed.len(), waterfall.steps().len());
        prop_assert_eq!(printed.into_iter().map(micros_of).sum::<u64>(), sum);
        prop_assert_eq!(serde_json::from_str::<Waterfall>(&json).unwrap(), waterfall);
    }
}

#[test]
fn what_is_no_time_span_is_refused() {
    for json in ["-1", "-0.000001", "1e9", "1e300", "\"1\"", "null"] {
        assert!(serde_json::from_str::<Seconds>(json).is_err(), "{json}");
    }
    assert_eq!(serde_json::from_str::<Seconds>("900").unwrap(), Seconds::from_secs(900));
    assert_eq!(Seconds::from_secs(u64::MAX), Seconds::MAX);
    assert_eq!(Seconds::from_duration(Duration::MAX), Seconds::MAX);
    assert_eq!(Seconds::MAX.plus(Seconds::MAX), Seconds::MAX);
}

#[test]
fn a_clock_that_goes_back_is_a_bug_and_not_a_negative_step() {
    let mut recorder = WaterfallRecorder::start(Duration::from_secs(5), StepName::Detect);
    recorder.begin(StepName::Fetch, None, Duration::from_secs(7)).unwrap();
    let error = recorder.begin(StepName::Start, None, Duration::from_millis(6_999)).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Internal, codes::DRILL_CLOCK));
    assert!(recorder.finish(Duration::from_secs(6)).is_err());
}

#[test]
fn the_dominating_step_is_counted_over_all_its_bars() {
    let mut recorder = WaterfallRecorder::start(Duration::ZERO, StepName::Detect);
    let seconds = Duration::from_secs;
    recorder.begin(StepName::Fetch, Some("database"), seconds(1)).unwrap();
    recorder.begin(StepName::Replay, Some("database"), seconds(4)).unwrap();
    recorder.begin(StepName::Fetch, Some("models"), seconds(9)).unwrap();
    let waterfall = recorder.finish(seconds(12)).unwrap();
    assert_eq!(waterfall.dominating(), Some((StepName::Fetch, Seconds::from_secs(6))));
    assert_eq!(Waterfall::default().dominating(), None);
}

#[test]
fn a_waterfall_with_a_gap_or_an_overlap_cannot_be_read() {
    let json = |second_start: &str| {
        format!(
            r#"[{{"name":"detect","start_seconds":0,"duration_seconds":1.5}},
                {{"name":"cut_over","start_seconds":{second_start},"duration_seconds":1}}]"#
        )
    };
    assert!(serde_json::from_str::<Waterfall>(&json("1.5")).is_ok());
    for wrong in ["1.6", "1.4", "1.500001", "0"] {
        let error = serde_json::from_str::<Waterfall>(&json(wrong)).unwrap_err().to_string();
        assert!(error.contains("step 2 of the waterfall"), "{error}");
    }
    let late = r#"[{"name":"detect","start_seconds":1,"duration_seconds":1}]"#;
    assert!(serde_json::from_str::<Waterfall>(late).is_err(), "the first one starts at the disaster");
}

#[test]
fn every_control_is_judged_by_its_codes() {
    use ControlKind::{Negative, Positive};
    use ControlOutcome::{AsExpected, Wrong};
    let table = [
        (Negative, Some("A"), Some("A"), AsExpected),
        (Negative, Some("A"), Some("B"), Wrong),
        (Negative, Some("A"), None, Wrong),
        (Negative, None, Some("A"), Wrong),
        (Negative, None, None, Wrong),
        (Negative, Some(""), Some(""), Wrong),
        (Positive, None, None, AsExpected),
        (Positive, None, Some("A"), Wrong),
        (Positive, Some("A"), Some("A"), Wrong),
        (Positive, Some("A"), None, Wrong),
    ];
    for (kind, expected, found, outcome) in table {
        assert_eq!(ControlResult::judge(kind, expected, found), outcome, "{kind:?} {expected:?} {found:?}");
    }
}

#[test]
fn of_steps_that_take_equally_long_the_one_that_comes_first_in_a_recovery_dominates() {
    let mut recorder = WaterfallRecorder::start(Duration::ZERO, StepName::Check);
    let seconds = Duration::from_secs;
    recorder.begin(StepName::Start, None, seconds(2)).unwrap();
    recorder.begin(StepName::Decide, None, seconds(4)).unwrap();
    let waterfall = recorder.finish(seconds(5)).unwrap();
    assert_eq!(waterfall.dominating(), Some((StepName::Start, Seconds::from_secs(2))));
}

#[test]
fn shares_lie_between_nothing_and_all_and_milliseconds_are_rounded_to_the_nearest() {
    let micros = Seconds::from_micros;
    for (part, whole, share) in
        [(0, 0, 0.0), (5, 0, 0.0), (0, 5, 0.0), (1, 4, 0.25), (4, 4, 1.0), (5, 4, 1.0)]
    {
        assert!((micros(part).share_of(micros(whole)) - share).abs() < f64::EPSILON, "{part} of {whole}");
    }
    for (time, millis) in [(0, 0), (499, 0), (500, 1), (1_499, 1), (1_500, 2)] {
        assert_eq!(micros(time).as_millis_rounded(), millis);
    }
    assert_eq!(micros(5).minus(micros(7)), Seconds::ZERO);
}

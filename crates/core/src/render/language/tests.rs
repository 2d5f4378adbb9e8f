use super::*;
use crate::drill::{Contradiction, Evidence, Reason, RpoBasis, Seconds};
use std::collections::BTreeSet;

/// The names in braces.
fn names(text: &str) -> BTreeSet<&str> {
    text.split('{').skip(1).map(|piece| piece.split('}').next().unwrap()).collect()
}

#[test]
fn both_languages_have_every_text_with_the_same_names() {
    let (english, portuguese) = (english::TEXTS.all(), portuguese::TEXTS.all());
    assert_eq!(english.len(), portuguese.len());
    for ((key, english), (_, portuguese)) in english.into_iter().zip(portuguese) {
        assert!(!english.is_empty() && !portuguese.is_empty(), "`{key}` is empty");
        assert_eq!(names(english), names(portuguese), "`{key}`");
        let is_sentence = |text: &str| text.len() > 1 && text.ends_with('.');
        assert_eq!(
            is_sentence(english),
            key != "short_checks" && is_sentence(portuguese),
            "`{key}`: full stop"
        );
    }
}

#[test]
fn nothing_was_left_untranslated() {
    // Words that both languages share.
    let shared = ["rto", "total", "word_snapshot", "reason_no_evidence"];
    for ((key, english), (_, portuguese)) in english::TEXTS.all().into_iter().zip(portuguese::TEXTS.all()) {
        if english == portuguese {
            assert!(shared.contains(&key), "`{key}` is the same in both: `{english}`");
        }
    }
}

#[test]
fn a_value_is_not_searched_for_names() {
    assert_eq!(fill("{a}-{b}", &[("a", "{b}"), ("b", "x")]), "{b}-x");
    assert_eq!(fill("{unknown} {", &[("a", "x")]), "{unknown} {");
    assert_eq!(fill("é{a}é", &[("a", "ç")]), "éçé");
}

#[test]
fn durations_read_as_people_say_them() {
    let text = |micros| Language::English.duration(Seconds::from_micros(micros));
    assert_eq!(text(0), "0 s");
    assert_eq!(text(1), "< 0.001 s");
    assert_eq!(text(4_312_250), "4.312 s");
    assert_eq!(text(4_250_000), "4.25 s");
    assert_eq!(text(59_999_600), "1 min");
    assert_eq!(text(900_000_000), "15 min");
    assert_eq!(text(900_000_001), "15 min 0.1 s", "what missed never reads like what met");
    assert_eq!(text(3_600_000_000), "1 h");
    assert_eq!(text(5_025_340_000), "1 h 23 min 45.4 s");
    assert_eq!(Language::Portuguese.duration(Seconds::from_micros(64_180_000)), "1 min 4,2 s");
}

#[test]
fn numbers_have_the_marks_of_their_language() {
    let both = |value| Language::ALL.map(|language| language.integer(value));
    assert_eq!(both(0), ["0", "0"]);
    assert_eq!(both(999), ["999", "999"]);
    assert_eq!(both(1_000), ["1,000", "1.000"]);
    assert_eq!(both(12_345_678), ["12,345,678", "12.345.678"]);
    assert_eq!(Language::Portuguese.bytes(1536), "1,5 KiB");
    assert_eq!(Language::Portuguese.milliseconds(1_234_005), "1.234,005 s");
    assert_eq!(
        [percent(0.0), percent(0.004), percent(0.614), percent(1.0)],
        ["0 %", "< 1 %", "61 %", "100 %"]
    );
}

/// One of each kind.
fn every_reason() -> Vec<Reason> {
    let control = || "C".to_owned();
    let component = || "K".to_owned();
    let mut reasons = vec![
        Reason::Failed { code: "R0204".to_owned(), message: "M".to_owned() },
        Reason::NoNegativeControl,
        Reason::NoPositiveControl,
        Reason::ControlMalformed { control: control() },
        Reason::ControlMisjudged { control: control() },
        Reason::ControlAccepted { control: control(), expected_code: "E".to_owned() },
        Reason::ControlOtherCode {
            control: control(),
            expected_code: "E".to_owned(),
            found_code: "F".to_owned(),
        },
        Reason::ControlRefused { control: control(), found_code: "F".to_owned() },
        Reason::NothingRequired,
        Reason::ComponentMissing { component: component() },
        Reason::ComponentTwice { component: component() },
        Reason::RtoMissed {
            component: component(),
            objective_seconds: Seconds::from_secs(60),
            measured_seconds: Seconds::from_secs(61),
        },
        Reason::CheckFailed { component: component(), check: "H".to_owned() },
        Reason::CheckNotRun { component: component(), check: "H".to_owned() },
        Reason::EmptyBytes { component: component(), before: 1 },
        Reason::EmptyRows { component: component(), before: 1 },
    ];
    let evidence = [
        Evidence::Waterfall,
        Evidence::Checks,
        Evidence::Rto,
        Evidence::Markers,
        Evidence::RpoWorstCase,
        Evidence::Rows,
        Evidence::Snapshot,
    ];
    reasons.extend(evidence.map(|evidence| Reason::NoEvidence { component: None, evidence }));
    reasons.extend([RpoBasis::Counted, RpoBasis::WorstCase].map(|basis| Reason::RpoMissed {
        component: component(),
        objective_seconds: Seconds::from_secs(60),
        measured_seconds: Seconds::from_secs(61),
        basis,
    }));
    let contradictions = [Contradiction::RtoBeyondWaterfall, Contradiction::MarkersLostBeyondWritten];
    reasons.extend(contradictions.map(|what| Reason::Contradiction { component: component(), what }));
    reasons
}

#[test]
fn every_reason_has_its_sentence() {
    for language in Language::ALL {
        let sentences: BTreeSet<String> =
            every_reason().iter().map(|reason| sentence::reason(reason, language)).collect();
        assert_eq!(sentences.len(), every_reason().len(), "no two are the same");
        for sentence in &sentences {
            assert!(!sentence.contains(['{', '}']), "a name was not filled in: `{sentence}`");
        }
    }
    let all: Vec<String> = every_reason()
        .iter()
        .map(|reason| format!("{} {}", reason.code(), sentence::reason(reason, Language::English)))
        .collect();
    insta::assert_snapshot!(all.join("\n"));
}

use crate::render::sample;
use retoma_core::ErrorKind;
use retoma_core::drill::{DrillReport, Seconds};

#[test]
fn every_report_is_read_as_it_was_written() {
    for report in [sample::green(), sample::red(), sample::broken(), sample::hostile()] {
        let json = report.to_json().unwrap();
        assert_eq!(DrillReport::from_json(&json).unwrap(), report);
    }
}

#[test]
fn the_json_of_a_red_drill() {
    insta::assert_snapshot!(sample::red().to_json().unwrap());
}

#[test]
fn a_field_that_is_not_known_is_ignored_and_a_missing_one_is_not() {
    let json = sample::green().to_json().unwrap();
    let more = json.replacen('{', "{ \"later\": 1,", 1);
    assert!(DrillReport::from_json(&more).is_ok());
    let less = json.replacen("\"scenario\"", "\"scenery\"", 1);
    assert_eq!(DrillReport::from_json(&less).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn an_edited_report_is_refused() {
    let mut report = sample::green();
    report.rto_measured_seconds = Seconds::from_micros(report.rto_measured_seconds.as_micros() - 1);
    let error = DrillReport::from_json(&report.to_json().unwrap()).unwrap_err();
    assert_eq!((error.kind(), error.code().as_str()), (ErrorKind::Corrupt, "R0709"));

    let turned_green = sample::red().to_json().unwrap().replace("\"red\"", "\"green\"");
    assert_eq!(DrillReport::from_json(&turned_green).unwrap_err().kind(), ErrorKind::Corrupt);
    let turned_red = sample::green().to_json().unwrap().replace("\"green\"", "\"red\"");
    assert_eq!(DrillReport::from_json(&turned_red).unwrap_err().kind(), ErrorKind::Corrupt);
}

#[test]
fn another_schema_is_not_guessed_at() {
    let json = sample::green().to_json().unwrap().replace("retoma.drill/1", "retoma.drill/2");
    assert_eq!(DrillReport::from_json(&json).unwrap_err().kind(), ErrorKind::Unsupported);
    for text in ["", "{}", "[]", "{\"schema\":1}", "\u{0}"] {
        assert_eq!(DrillReport::from_json(text).unwrap_err().kind(), ErrorKind::Corrupt, "{text:?}");
    }
}

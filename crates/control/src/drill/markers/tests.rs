use super::*;
use crate::probe::tests::{answer, with_body};

fn numbers(set: &MarkSet) -> Vec<u64> {
    set.ranges().flatten().collect()
}

#[test]
fn what_is_not_missing_is_present() {
    assert_eq!(numbers(&present(5, vec![])), [1, 2, 3, 4, 5]);
    assert_eq!(numbers(&present(6, vec![(4, 5), (1, 1)])), [2, 3, 6]);
    assert_eq!(numbers(&present(3, vec![(1, 9)])), Vec::<u64>::new());
    assert_eq!(numbers(&present(0, vec![])), Vec::<u64>::new());
}

#[test]
fn each_sink_keeps_what_it_acknowledged_and_tells_runs_apart() {
    let folder = tempfile::tempdir().unwrap();
    let database = folder.path().join("db");
    rusqlite::Connection::open(&database).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    std::fs::create_dir(folder.path().join("models")).unwrap();
    let mut sinks = vec![Sink::Database(database), Sink::Folder(folder.path().join("models"))];
    let file = folder.path().join("file");
    std::fs::write(&file, "x").unwrap();
    if xattr::set(&file, XATTR, b"").is_ok() {
        sinks.push(Sink::File(file));
    }
    for sink in sinks {
        assert!(sink.survived("a").unwrap().is_empty());
        for number in 1..=3 {
            sink.write("a", number).unwrap();
        }
        assert_eq!(numbers(&sink.survived("a").unwrap()), [1, 2, 3], "{sink:?}");
        assert!(sink.survived("b").unwrap().is_empty());
    }
}

#[test]
fn a_folder_that_is_gone_acknowledges_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let sink = Sink::Folder(folder.path().join("gone"));
    assert!(sink.write("a", 1).is_err());
    assert!(!folder.path().join("gone").exists());
    let database = folder.path().join("gone.db");
    assert!(Sink::Database(database.clone()).write("a", 1).is_err());
    assert!(!database.exists());
}

fn service(answers: &[String]) -> (Sink, std::sync::mpsc::Receiver<String>) {
    let (url, requests) = answer(answers.to_vec());
    let sink = Sink::Service { write_url: url.clone(), read_url: url, agent: probe::agent(READ_LIMIT) };
    (sink, requests)
}

#[test]
fn a_mark_through_the_service_counts_only_with_a_receipt_of_that_very_mark() {
    for (status, body, is_kept) in [
        ("200 OK", r#"{"run":"r","number":3}"#, true),
        ("200 OK", r#"{"number":3,"run":"r","more":1}"#, true),
        ("200 OK", r#"{"run":"r","number":2}"#, false),
        ("200 OK", r#"{"run":"s","number":3}"#, false),
        ("200 OK", r#"{"run":"r"}"#, false),
        ("200 OK", "ok", false),
        ("202 Later", r#"{"run":"r","number":3}"#, false),
        ("500 No", r#"{"run":"r","number":3}"#, false),
    ] {
        let (sink, requests) = service(&[with_body(status, body)]);
        let kept = sink.write("r", 3).map_err(|error| error.code());
        assert_eq!(kept, if is_kept { Ok(()) } else { Err(codes::NO_FIRST_WRITE) }, "{status} {body}");
        let request = requests.recv().unwrap();
        let (head, sent) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST / "), "{head}");
        assert_eq!(serde_json::from_str::<Value>(sent).unwrap(), json!({"run": "r", "number": 3}));
    }
}

#[test]
fn the_service_is_asked_for_the_marks_of_this_run_alone_and_an_odd_answer_proves_nothing() {
    let (sink, requests) = service(&[with_body("200 OK", r#"{"max":4,"missing":[[2,2]]}"#)]);
    assert_eq!(numbers(&sink.survived("run-7").unwrap()), [1, 3, 4]);
    assert!(requests.recv().unwrap().starts_with("GET /?run=run-7 "));
    for (status, body) in [
        ("404 Not Found", r#"{"max":4,"missing":[]}"#),
        ("200 OK", r#"{"max":4}"#),
        ("200 OK", r#"{"max":-1,"missing":[]}"#),
        ("200 OK", ""),
    ] {
        let (sink, _requests) = service(&[with_body(status, body)]);
        assert_eq!(sink.survived("r").unwrap_err().code(), codes::NO_EVIDENCE, "{status} {body}");
    }
}

/// A manifest with a folder and a database, both of which get their marks directly.
fn markers(root: &Path) -> Markers {
    let text = "version = 1\n[service]\nname = \"s\"\n[[repository]]\nname = \"r\"\nurl = \"file:///r\"\n\
         password = \"env:P\"\n[[component]]\nname = \"models\"\nkind = \"files\"\ntier = \"low\"\npath = \"models\"\n\
         [[component]]\nname = \"database\"\nkind = \"sqlite\"\ntier = \"low\"\npath = \"db\"\n";
    std::fs::create_dir_all(root.join("models")).unwrap();
    rusqlite::Connection::open(root.join("db")).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
    let origin = retoma_core::manifest::Origin { file_name: "retoma.toml".to_owned(), dir: root.to_owned() };
    Markers::new(&retoma_core::manifest::parse(text, &origin).unwrap(), "run", Stopwatch::start())
}

#[test]
fn marks_are_written_only_while_the_gate_is_open_and_their_numbers_have_no_gap() {
    let folder = tempfile::tempdir().unwrap();
    let markers = markers(folder.path());
    let step = || markers.writers.iter().for_each(|writer| writer.step("run", markers.clock));
    step();
    assert_eq!(markers.counts(), [0, 0]);
    markers.open(Which::Service);
    step();
    assert_eq!(markers.counts(), [0, 0], "neither goes through the service");
    markers.open(Which::All);
    step();
    // An outage: what is not acknowledged gets the same number again.
    std::fs::rename(folder.path().join("models"), folder.path().join("away")).unwrap();
    step();
    std::fs::rename(folder.path().join("away"), folder.path().join("models")).unwrap();
    step();
    assert_eq!(markers.counts(), [2, 3]);
    markers.close(Which::Service);
    step();
    markers.close(Which::All);
    step();
    assert_eq!(markers.counts(), [3, 4]);
    for writer in &markers.writers {
        let acknowledged: Vec<u64> = writer.state().acknowledged.iter().map(|mark| mark.number).collect();
        assert_eq!(numbers(&writer.sink.survived("run").unwrap()), acknowledged, "{}", writer.component);
    }
    assert!(!markers.has_service());
    assert_eq!(markers.first_through_service(Duration::ZERO), None);
    markers.write_one().unwrap();
    assert_eq!(numbers(&markers.writers[0].sink.survived("run").unwrap()), [1, 2, 3, 4]);
}

#[test]
fn a_component_that_takes_no_marks_is_named_with_its_error() {
    let folder = tempfile::tempdir().unwrap();
    let markers = markers(folder.path());
    markers.open(Which::All);
    let interrupt = Interrupt::default();
    std::fs::remove_dir(folder.path().join("models")).unwrap();
    markers.writers.iter().for_each(|writer| writer.step("run", markers.clock));
    let error = markers.wait_for(1, Duration::ZERO, &interrupt).unwrap_err();
    assert_eq!(error.code(), codes::DRILL_UNSUITED);
    assert!(error.message().contains("`models`"), "{error}");
    assert!(error.hint().unwrap().contains("No such file"), "{:?}", error.hint());
    // Those that are there already are not the ones that are waited for.
    std::fs::create_dir(folder.path().join("models")).unwrap();
    markers.writers.iter().for_each(|writer| writer.step("run", markers.clock));
    assert!(markers.wait_for(0, Duration::ZERO, &interrupt).is_ok());
    assert!(markers.wait_for(1, Duration::ZERO, &interrupt).is_err());
}

#[test]
fn what_was_acknowledged_before_the_recovery_and_is_gone_is_lost() {
    let folder = tempfile::tempdir().unwrap();
    let markers = markers(folder.path());
    let second = Duration::from_secs;
    let mark = |number, at| Mark { number, acknowledged_at: second(at) };
    let (disaster, recovered) = (second(10), second(20));
    // The last one was acknowledged in the very moment of the recovery: it went to the new data.
    markers.writers[0].state().acknowledged =
        vec![mark(1, 1), mark(2, 8), mark(3, 9), mark(4, 20), mark(5, 30)];
    markers.writers[0].sink.write("run", 1).unwrap();
    let count = |component: &str| markers.count(component, disaster, recovered).unwrap();
    let lost = count("models").unwrap();
    assert_eq!((lost.markers_written, lost.markers_lost), (3, 2));
    assert_eq!(count("nobody"), None);
    std::fs::remove_dir_all(folder.path().join("models")).unwrap();
    let error = markers.count("models", disaster, recovered).unwrap_err();
    assert!(error.to_string().contains("`models`"), "marks that cannot be read are not lost marks: {error}");
}

#[test]
fn only_a_mark_after_the_recovery_is_the_first_write() {
    let folder = tempfile::tempdir().unwrap();
    let mut markers = markers(folder.path());
    markers.writers[1].sink = service(&[]).0;
    let mark = |number, at| Mark { number, acknowledged_at: Duration::from_secs(at) };
    markers.writers[0].state().acknowledged = vec![mark(1, 9)];
    markers.writers[1].state().acknowledged = vec![mark(1, 1), mark(2, 5), mark(3, 7)];
    let first = |since| markers.first_through_service(Duration::from_secs(since)).map(|mark| mark.number);
    assert_eq!(
        [first(0), first(1), first(4), first(5), first(7)],
        [Some(1), Some(2), Some(2), Some(3), None]
    );
    assert!(markers.has_service());
    assert_eq!(markers.service_error(), None);
    markers.writers[1].state().last_error = Some("why".to_owned());
    assert_eq!(markers.service_error().as_deref(), Some("why"));
}

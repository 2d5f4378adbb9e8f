use super::*;
use proptest::prelude::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + seconds).unwrap()
}

fn begun(id: u64, task: &str, started: i64) -> Line {
    Line {
        event: Event::Begun,
        id,
        task: task.to_owned(),
        verb: "backup".to_owned(),
        component: None,
        started: at(started),
        ended: None,
        duration_seconds: None,
        outcome: None,
        exit_code: None,
        error_code: None,
        snapshot: None,
        total_bytes: None,
        stored_bytes: None,
        details: Value::Null,
    }
}

fn ended(id: u64, task: &str, started: i64, outcome: Outcome) -> Line {
    Line {
        event: Event::Ended,
        ended: Some(at(started + 1)),
        outcome: Some(outcome),
        ..begun(id, task, started)
    }
}

fn open(folder: &Path) -> Journal {
    Journal::open(folder, at(1000)).unwrap()
}

#[test]
fn what_was_written_is_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path());
    assert_eq!((journal.since(), journal.next_id()), (None, 1));
    journal.write(begun(1, "a", 5));
    journal.write(ended(1, "a", 5, Outcome::Good));
    journal.write(begun(2, "a", 10));
    journal.write(ended(2, "a", 10, Outcome::Failed));
    journal.write(begun(3, "a", 20));
    journal.write(ended(3, "a", 20, Outcome::Stopped));
    let mut again = open(folder.path());
    assert_eq!((again.since(), again.next_id(), again.errors), (Some(at(5)), 4, 0));
    let past = again.past("a").unwrap();
    assert_eq!(past.good.as_ref().unwrap().started, at(5));
    assert_eq!((past.last.as_ref().unwrap().id, past.failures), (2, 1));
    assert_eq!(again.past("b"), None);
}

#[test]
fn a_run_without_an_end_is_lost_once() {
    let folder = tempfile::tempdir().unwrap();
    open(folder.path()).write(begun(7, "a", 5));
    for _ in 0..2 {
        let journal = open(folder.path());
        let past = journal.past("a").unwrap();
        assert_eq!((past.failures, past.last.as_ref().unwrap().outcome), (1, Some(Outcome::Lost)));
    }
}

#[test]
fn a_torn_or_foreign_line_is_passed_over_and_does_not_swallow_the_next() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(NAME);
    open(folder.path()).write(ended(1, "a", 5, Outcome::Good));
    let whole = std::fs::read_to_string(&path).unwrap();
    let newer = whole.replace("\"id\":1", "\"id\":2,\"more\":true").replace("good", "splendid");
    std::fs::write(&path, format!("not JSON\n{whole}\u{0}\n{newer}{{\"event\":\"beg")).unwrap();
    let mut journal = open(folder.path());
    assert_eq!(journal.past("a").unwrap().good.as_ref().unwrap().id, 1);
    assert_eq!(journal.next_id(), 3);
    journal.write(ended(3, "a", 9, Outcome::Failed));
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(!text.contains("beg"), "{text}");
    assert_eq!(open(folder.path()).past("a").unwrap().failures, 1);
}

#[test]
fn a_journal_that_cannot_be_written_is_counted_and_goes_on_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(folder.path());
    std::fs::create_dir(folder.path().join(NAME)).unwrap();
    journal.write(ended(1, "a", 5, Outcome::Good));
    assert_eq!(journal.errors, 1);
    assert!(journal.past("a").unwrap().good.is_some());
    std::fs::remove_dir(folder.path().join(NAME)).unwrap();
    journal.write(ended(2, "a", 6, Outcome::Good));
    assert_eq!((journal.errors, open(folder.path()).past("a").unwrap().good.as_ref().unwrap().id), (1, 2));
}

#[test]
fn rotation_keeps_what_is_needed_of_each_task_and_has_a_bound() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::open_with(folder.path(), at(0), 4000).unwrap();
    journal.write(ended(1, "drill", 0, Outcome::Good));
    journal.write(begun(2, "verify", 1));
    for id in 3..300 {
        journal.write(begun(id, "a", 5));
        journal.write(ended(id, "a", 5, if id % 2 == 0 { Outcome::Good } else { Outcome::Failed }));
        let size = |name| std::fs::metadata(folder.path().join(name)).map_or(0, |file| file.len());
        assert!(size(NAME) < 6000 && size(OLD_NAME) < 6000);
    }
    assert_eq!(journal.errors, 0);
    let again = open(folder.path());
    assert_eq!(again.past("drill").unwrap().good.as_ref().unwrap().id, 1);
    assert_eq!(again.past("verify").unwrap().last.as_ref().unwrap().outcome, Some(Outcome::Lost));
    let past = again.past("a").unwrap();
    assert_eq!((past.good.as_ref().unwrap().id, past.failures), (298, 1));
    // Killed between the two steps of a rotation.
    std::fs::rename(folder.path().join(NAME), folder.path().join(OLD_NAME)).unwrap();
    assert_eq!(open(folder.path()).past("drill").unwrap().good.as_ref().unwrap().id, 1);
}

proptest! {
    #[test]
    fn whatever_the_file_holds_it_opens_and_takes_a_line(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(NAME), bytes).unwrap();
        let mut journal = open(folder.path());
        let id = journal.next_id();
        journal.write(ended(id, "a", 5, Outcome::Good));
        prop_assert_eq!(open(folder.path()).past("a").unwrap().good.as_ref().unwrap().id, id);
    }
}

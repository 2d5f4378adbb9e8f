//! The bridge for plain threads.

use super::{key, memory, text};
use retoma_repo::ErrorKind;
use retoma_repo::store::{BlockingStore, LocalStore, PutMode, Verb};
use retoma_testkit::{Fault, FaultyStore, Folder, Rule, When, bytes};
use std::sync::Arc;
use std::thread;

#[test]
fn all_verbs_from_many_threads() {
    let folder = Folder::new();
    let store = BlockingStore::new(Arc::new(LocalStore::new(folder.path()).unwrap())).unwrap();
    thread::scope(|scope| {
        for number in 0..8 {
            let store = store.clone();
            scope.spawn(move || {
                let name = key(&format!("data/{number}"));
                store.put(&name, bytes(number, 1000), PutMode::Create).unwrap();
                assert_eq!(store.get(&name).unwrap(), bytes(number, 1000));
                assert_eq!(store.get_range(&name, 5..9).unwrap(), bytes(number, 1000)[5..9]);
                assert_eq!(store.head(&name).unwrap().size_bytes, 1000);
            });
        }
    });
    assert_eq!(store.list("data").unwrap().len(), 8);
    store.delete(&key("data/0")).unwrap();
    assert_eq!(store.get(&key("data/0")).unwrap_err().kind(), ErrorKind::NotFound);
    assert_eq!(store.list("..").unwrap_err().kind(), ErrorKind::Invalid);
    assert_eq!(store.remove_leftovers(jiff::Timestamp::MAX).unwrap().count, 0);
}

#[test]
fn tickets_tell_how_their_put_ended() {
    let faulty = FaultyStore::new(memory());
    faulty.add(Rule::new(Verb::Put, "data/3", When::Always, Fault::Error(ErrorKind::Exhausted)));
    let store = BlockingStore::new(Arc::new(faulty)).unwrap();
    let tickets: Vec<_> = (0..10)
        .map(|number| store.put_later(key(&format!("data/{number}")), bytes(number, 100), PutMode::Create))
        .collect();
    for (number, ticket) in tickets.into_iter().enumerate() {
        let kind = ticket.wait().err().map(|error| error.kind());
        assert_eq!(kind, (number == 3).then_some(ErrorKind::Exhausted));
    }
    assert_eq!(store.list("").unwrap().len(), 9);
}

/// A put that hangs holds its place until its ticket is dropped; then the next one gets it.
#[test]
fn puts_in_flight_are_bounded_and_a_dropped_ticket_gives_up() {
    let faulty =
        Arc::new(FaultyStore::new(memory()).with(Rule::new(Verb::Put, "hangs", When::Always, Fault::Hang)));
    let store = BlockingStore::new(faulty.clone()).unwrap().puts_in_flight(1);
    let hanging = store.put_later(key("hangs"), text("x"), PutMode::Create);
    let next = {
        let store = store.clone();
        thread::spawn(move || store.put_later(key("next"), text("y"), PutMode::Create).wait())
    };
    assert!(!hanging.is_finished());
    assert!(faulty.log().iter().all(|call| call.name != "next"), "it has no place yet");
    drop(hanging);
    next.join().unwrap().unwrap();
    assert_eq!(store.get(&key("next")).unwrap(), "y");
    assert_eq!(store.get(&key("hangs")).unwrap_err().kind(), ErrorKind::NotFound);
}

#[test]
fn a_runtime_of_the_caller_is_used() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let store = BlockingStore::with_runtime(memory(), runtime.handle().clone());
    store.put_later(key("a"), text("x"), PutMode::Create).wait().unwrap();
    assert_eq!(store.get(&key("a")).unwrap(), "x");
    assert_eq!(store.store().location(), "memory:");
}

//! A store that fails: what was called stored is there, and "not there" is never said about what is.

use super::{archive_in, file, name, repository_in, segment, size};
use retoma_core::ErrorKind;
use retoma_core::error::codes;
use retoma_repo::store::layer::{Layers, stack};
use retoma_repo::store::{ObjectStore, Verb};
use retoma_repo::wal::{Archive, Pushed};
use retoma_testkit::{Fault, FaultyStore, ManualClock, Rates, Rule, When};
use std::sync::Arc;

/// An archive whose store fails, with all layers around it and a clock on which waits take no time; and one that sees
/// what is really stored.
fn troubled(faulty: impl FnOnce(Arc<ObjectStore>) -> FaultyStore) -> (Arc<FaultyStore>, Archive, Archive) {
    let calm = Arc::new(ObjectStore::memory());
    let truth = archive_in(calm.clone());
    let faulty = Arc::new(faulty(calm.clone()));
    let layers = Layers { clock: Arc::new(ManualClock::moving()), ..Layers::default() };
    let layered = stack(faulty.clone(), layers);
    let store = retoma_repo::store::BlockingStore::new(layered.store).unwrap();
    let repository = repository_in(calm).through(store);
    (faulty, Archive::new(&repository, "db", super::SERVER).unwrap(), truth)
}

const FAULTS: [Fault; 5] = [
    Fault::Error(ErrorKind::Unavailable),
    Fault::Error(ErrorKind::Exhausted),
    Fault::Hang,
    Fault::HalfWrite,
    Fault::DoneButError,
];

#[test]
fn a_push_that_says_it_is_stored_has_stored_it() {
    for fault in FAULTS {
        for when in [When::Always, When::First(1), When::Call(2)] {
            let (faulty, archive, truth) = troubled(|store| FaultyStore::new(store));
            faulty.add(Rule::new(Verb::Put, "wal/*", when, fault));
            let whole = segment(1, 7);
            let results = [archive.push(file(1, 7), &whole), archive.push(file(1, 7), &whole)];
            for result in results {
                match result {
                    Ok(_) => {
                        assert_eq!(truth.fetch(file(1, 7)).unwrap().unwrap(), whole, "{fault:?} {when:?}");
                    }
                    Err(error) => assert!(
                        matches!(
                            error.kind(),
                            ErrorKind::Unavailable | ErrorKind::Exhausted | ErrorKind::Corrupt
                        ),
                        "{fault:?} {when:?}: {error:?}"
                    ),
                }
            }
        }
    }
}

#[test]
fn a_lost_answer_is_no_conflict() {
    let rule = || Rule::new(Verb::Put, "wal/*", When::First(1), Fault::DoneButError);
    let (faulty, archive, truth) = troubled(|store| FaultyStore::new(store).with(rule()));
    archive.push(file(1, 7), &segment(1, 7)).unwrap();
    assert_eq!(truth.fetch(file(1, 7)).unwrap(), Some(segment(1, 7)));
    assert_eq!(faulty.faults(), 1);
    // Also where nothing below us tries again, but whoever called us does.
    let archive = archive_in(Arc::new(FaultyStore::new(Arc::new(ObjectStore::memory())).with(rule())));
    assert_eq!(archive.push(file(1, 7), &segment(1, 7)).unwrap_err().kind(), ErrorKind::Unavailable);
    assert_eq!(archive.push(file(1, 7), &segment(1, 7)).unwrap(), Pushed::Same);
}

#[test]
fn a_half_written_object_is_never_called_stored() {
    let (faulty, archive, _) = troubled(|store| FaultyStore::new(store));
    faulty.add(Rule::new(Verb::Put, "wal/*", When::First(1), Fault::HalfWrite));
    for _ in 0..2 {
        assert_eq!(archive.push(file(1, 7), &segment(1, 7)).unwrap_err().code(), codes::NOT_AUTHENTIC);
    }
    assert_eq!(archive.fetch(file(1, 7)).unwrap_err().code(), codes::NOT_AUTHENTIC);
}

#[test]
fn what_cannot_be_known_is_an_error_and_not_absence() {
    for fault in FAULTS {
        for verb in [Verb::Get, Verb::List, Verb::Head] {
            let (faulty, archive, truth) = troubled(|store| FaultyStore::new(store));
            truth.push_part(name(1, 7), size(), 0, &segment(1, 7)[..300]).unwrap();
            faulty.add(Rule::new(verb, "*", When::Always, fault));
            let error = archive.fetch_or_assemble(file(1, 7)).unwrap_err();
            assert!(error.kind() != ErrorKind::NotFound, "{verb:?} {fault:?}: {error:?}");
        }
    }
}

#[test]
fn a_folder_that_is_empty_because_its_disk_is_gone_is_not_absence() {
    let (faulty, archive, _) = troubled(|store| FaultyStore::new(store));
    faulty.add(Rule::new(None, "*", When::Always, Fault::Error(ErrorKind::NotFound)));
    assert_eq!(archive.fetch(file(1, 7)).unwrap_err().kind(), ErrorKind::Unavailable);
}

#[test]
fn random_faults_never_give_a_wrong_answer() {
    let mut stored = 0;
    for seed in 0..12 {
        let rates = Rates { error: 150, hang: 50, half_write: 20, done_but_error: 150, corrupt: 50 };
        let (_, archive, truth) = troubled(|store| FaultyStore::random(store, seed, rates));
        for number in 1..=12 {
            let whole = segment(1, number);
            if archive.push(file(1, number), &whole).is_ok() {
                stored += 1;
                assert_eq!(truth.fetch(file(1, number)).unwrap().unwrap(), whole, "seed {seed}");
            }
            match archive.fetch(file(1, number)) {
                Ok(Some(found)) => assert_eq!(found, whole, "seed {seed}"),
                Ok(None) => assert_eq!(truth.fetch(file(1, number)).unwrap(), None, "seed {seed}"),
                Err(_) => {}
            }
        }
    }
    assert!(stored > 50, "the test shows something: {stored}");
}

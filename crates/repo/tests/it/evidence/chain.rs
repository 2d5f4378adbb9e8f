//! Append, read and list.

use super::{chain_of, draft, key, repository, repository_in};
use bytes::Bytes;
use retoma_core::decide::staleness::{Facts, StaleReason};
use retoma_core::error::codes;
use retoma_repo::evidence::{
    Anchor, Chain, Entry, Listing, Outcome, RecordHash, SigningKey, What, export, list, stale, verify_export,
};
use retoma_repo::store::{Key, PutMode};
use retoma_repo::{ErrorKind, Repository};
use retoma_testkit::{FaultyStore, Rule, When};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

fn object(writer: &str, sequence: u64) -> Key {
    Key::new(format!("evidence/{writer}/{sequence:020}")).unwrap()
}

fn the_chain(repository: &Repository) -> Listing {
    let pins = BTreeMap::from([("ana".to_owned(), key().public_key())]);
    let mut listings = list(repository, &pins).unwrap();
    assert_eq!(listings.len(), 1);
    listings.remove(0)
}

/// What a listing shows, in short: sequences of sound records and codes of damages.
fn shown(listing: &Listing) -> Vec<String> {
    let show = |entry: &Entry| match entry {
        Entry::Record(record) => record.sequence().to_string(),
        Entry::Damage(damage) => damage.error.code().to_string(),
    };
    listing.entries.iter().map(show).collect()
}

#[test]
fn a_chain_grows_and_is_read_back() {
    let repository = repository();
    let (chain, records) = chain_of(&repository, "ana", &key(), 3);
    assert_eq!(chain.head().unwrap().as_ref(), records.last());
    assert_eq!(records[0].payload().previous, None);
    assert_eq!(records[2].payload().previous, Some(records[1].hash()));
    assert_eq!(records[1].payload().details, json!({ "number": 2 }));
    assert_eq!(records[1].payload().repository_id, repository.config().id);
    let read: Vec<_> = chain.newest_first().unwrap().map(Result::unwrap).collect();
    assert_eq!(read, records.iter().rev().cloned().collect::<Vec<_>>());
    let listing = the_chain(&repository);
    assert!(listing.pinned);
    assert_eq!(listing.records().cloned().collect::<Vec<_>>(), records);
    assert_eq!(listing.damages().count(), 0);
}

#[test]
fn a_repository_without_evidence_has_no_chains() {
    let repository = repository();
    assert!(list(&repository, &BTreeMap::new()).unwrap().is_empty());
    assert_eq!(Chain::open(&repository, "ana").unwrap().head().unwrap(), None);
}

#[test]
fn nothing_of_a_record_is_stored_in_the_clear() {
    let repository = repository();
    chain_of(&repository, "ana", &key(), 1);
    let stored = repository.store().get(&object("ana", 1)).unwrap();
    let public_key = key().public_key().to_string();
    for needle in ["payload", "sqlite", public_key.as_str()] {
        assert!(!stored.windows(needle.len()).any(|window| window == needle.as_bytes()), "{needle}");
    }
}

#[test]
fn writers_have_chains_of_their_own() {
    let repository = repository();
    let other = SigningKey::generate().unwrap();
    chain_of(&repository, "ana", &key(), 2);
    chain_of(&repository, "bob", &other, 1);
    let pins = BTreeMap::from([("ana".to_owned(), key().public_key())]);
    let listings = list(&repository, &pins).unwrap();
    let short: Vec<_> =
        listings.iter().map(|one| (one.writer.as_str(), one.pinned, shown(one).join(" "))).collect();
    assert_eq!(short, [("ana", true, "1 2".to_owned()), ("bob", false, "1".to_owned())]);
}

#[test]
fn a_pinned_key_refuses_the_records_of_another() {
    let repository = repository();
    let other = SigningKey::generate().unwrap();
    let (chain, _) = chain_of(&repository, "ana", &other, 2);
    assert_eq!(shown(&the_chain(&repository)), ["R0803", "R0803"]);
    assert_eq!(chain.append(&key(), &draft(3)).unwrap_err().code(), codes::EVIDENCE_SIGNER);
    let pinned = chain.pin(key().public_key());
    assert_eq!(pinned.head().unwrap_err().code(), codes::EVIDENCE_SIGNER);
    assert_eq!(pinned.append(&other, &draft(3)).unwrap_err().code(), codes::EVIDENCE_SIGNER);
}

#[test]
fn ten_threads_lose_no_record() {
    let repository = repository();
    std::thread::scope(|scope| {
        for thread in 0..10 {
            let chain = Chain::open(&repository, "ana").unwrap();
            scope.spawn(move || {
                for number in 0..10 {
                    // The same draft comes from every thread: each must still become a record of its own.
                    let details = if number % 2 == 0 { json!([thread, number]) } else { json!("same") };
                    chain.append(&key(), &super::Draft { details, ..draft(number) }).unwrap();
                }
            });
        }
    });
    let listing = the_chain(&repository);
    assert_eq!(shown(&listing), (1..=100).map(|sequence: u64| sequence.to_string()).collect::<Vec<_>>());
    let details: Vec<String> = listing.records().map(|record| record.payload().details.to_string()).collect();
    assert_eq!(details.iter().filter(|details| *details == "\"same\"").count(), 50);
    assert_eq!(details.into_iter().collect::<BTreeSet<_>>().len(), 51);
}

#[test]
fn missing_changed_and_moved_records_are_named() {
    let repository = repository();
    chain_of(&repository, "ana", &key(), 9);
    let store = repository.store();
    store.delete(&object("ana", 1)).unwrap();
    store.delete(&object("ana", 4)).unwrap();
    store.delete(&object("ana", 5)).unwrap();
    store.put(&object("ana", 7), Bytes::from_static(b"\x01garbage"), PutMode::Overwrite).unwrap();
    let eighth = store.get(&object("ana", 8)).unwrap();
    store.put(&object("ana", 9), eighth, PutMode::Overwrite).unwrap();
    store.put(&Key::new("evidence/ana/note.txt").unwrap(), Bytes::new(), PutMode::Create).unwrap();
    let listing = the_chain(&repository);
    assert_eq!(shown(&listing), ["R0804", "2", "3", "R0804", "6", "R0203", "8", "R0203", "R0806"]);
    let messages: Vec<_> = listing.damages().map(|damage| damage.error.message().to_owned()).collect();
    assert_eq!(messages[0], "record 1 is missing");
    assert_eq!(messages[1], "records 4 to 5 are missing");
    let error = Chain::open(&repository, "ana").unwrap().append(&key(), &draft(10)).unwrap_err();
    assert_eq!((error.kind(), error.code()), (ErrorKind::Corrupt, codes::NOT_AUTHENTIC));
    assert!(error.hint().unwrap().contains("another writer's name"));
}

/// Whoever has the repository's key can seal; only the signature stops a forger.
#[test]
fn a_sealed_record_of_another_place_is_refused() {
    let repository = repository();
    let (_, records) = chain_of(&repository, "ana", &key(), 3);
    let lane = retoma_repo::lane::Lane::new(repository.key(), "evidence", 1 << 20);
    let put = |name: Key, text: &str| {
        let sealed = lane.seal(&name, text.as_bytes()).unwrap();
        repository.store().put(&name, sealed.into(), PutMode::Overwrite).unwrap();
    };
    put(object("ana", 3), records[0].envelope());
    put(object("ana", 4), &records[2].envelope().replacen("\"payload\":\"e", "\"payload\":\"f", 1));
    put(object("ana", 5), "{}");
    assert_eq!(shown(&the_chain(&repository)), ["1", "2", "R0806", "R0802", "R0801"]);
}

#[test]
fn two_chains_of_one_key_cannot_be_spliced() {
    let (one, two) = (repository(), repository());
    let (_, records) = chain_of(&one, "ana", &key(), 3);
    // The same repository, copied and continued elsewhere: same id, same writer, same key, other records.
    for meta in two.store().list("").unwrap() {
        two.store().delete(&meta.key).unwrap();
    }
    for meta in one.store().list("").unwrap() {
        two.store().put(&meta.key, one.store().get(&meta.key).unwrap(), PutMode::Create).unwrap();
    }
    let two = repository_in(two.store().store().clone());
    two.store().delete(&object("ana", 2)).unwrap();
    two.store().delete(&object("ana", 3)).unwrap();
    let chain = Chain::open(&two, "ana").unwrap();
    let other = chain.append(&key(), &draft(77)).unwrap();
    let spliced = export([&records[0], &other, &records[2]]).unwrap_err();
    assert_eq!(spliced.code(), codes::EVIDENCE_CHAIN);
    let forged = two.store().get(&object("ana", 2)).unwrap();
    one.store().put(&object("ana", 2), forged, PutMode::Overwrite).unwrap();
    assert_eq!(shown(&the_chain(&one)), ["1", "2", "R0805"]);
    let newest: Vec<_> = Chain::open(&one, "ana").unwrap().newest_first().unwrap().collect();
    assert_eq!(newest.len(), 2);
    assert_eq!(newest[1].as_ref().unwrap_err().code(), codes::EVIDENCE_CHAIN);
}

#[test]
fn an_anchor_shows_a_cut_tail() {
    let repository = repository();
    let (_, records) = chain_of(&repository, "ana", &key(), 3);
    let anchor = records[2].anchor();
    the_chain(&repository).check_anchor(&anchor).unwrap();
    let other = Anchor { hash: RecordHash([0; 32]), ..anchor };
    assert_eq!(the_chain(&repository).check_anchor(&other).unwrap_err().code(), codes::EVIDENCE_ANCHOR);
    repository.store().delete(&object("ana", 3)).unwrap();
    let listing = the_chain(&repository);
    assert_eq!(shown(&listing), ["1", "2"], "without an anchor nothing is seen");
    let error = listing.check_anchor(&anchor).unwrap_err();
    assert_eq!(error.code(), codes::EVIDENCE_ANCHOR);
    assert!(error.message().contains("the chain ends with record 2"), "{error}");
}

#[test]
fn newest_first_stops_at_a_missing_record() {
    let repository = repository();
    let (chain, _) = chain_of(&repository, "ana", &key(), 4);
    repository.store().delete(&object("ana", 2)).unwrap();
    let read: Vec<_> = chain.newest_first().unwrap().map(|one| one.map(|record| record.sequence())).collect();
    assert_eq!(read.len(), 3);
    assert!(matches!(read[..2], [Ok(4), Ok(3)]));
    assert_eq!(read[2].as_ref().unwrap_err().code(), codes::EVIDENCE_SEQUENCE);
}

#[test]
fn evidence_needs_no_right_to_delete() {
    let faulty = Arc::new(FaultyStore::new(Arc::new(retoma_repo::store::ObjectStore::memory())));
    let repository = repository_in(faulty.clone());
    let denied = retoma_testkit::Fault::Error(ErrorKind::Unauthorized);
    faulty.add(Rule::new(retoma_repo::store::Verb::Delete, "*", When::Always, denied));
    chain_of(&repository, "ana", &key(), 3);
    assert_eq!(shown(&the_chain(&repository)), ["1", "2", "3"]);
    assert_eq!(faulty.calls(retoma_repo::store::Verb::Delete), 0);
}

#[test]
fn a_record_with_a_megabyte_of_details() {
    let repository = repository();
    let chain = Chain::open(&repository, "ana").unwrap();
    let details = json!({ "log": "0123456789abcdef".repeat(1 << 16), "float": -5.213_838_816_177_501_4e70, "max": u64::MAX });
    chain.append(&key(), &super::Draft { details: details.clone(), ..draft(1) }).unwrap();
    let records: Vec<_> = the_chain(&repository).records().cloned().collect();
    assert_eq!(records[0].payload().details, details);
    let text = export(&records).unwrap();
    assert_eq!(verify_export(&text, &key().public_key(), &[]).unwrap().records, 1);
}

#[test]
fn details_that_nobody_could_read_again_are_not_signed() {
    let repository = repository();
    let deep = (0..200).fold(json!(1), |inner, _| json!([inner]));
    let chain = Chain::open(&repository, "ana").unwrap();
    let error = chain.append(&key(), &super::Draft { details: deep, ..draft(1) }).unwrap_err();
    assert_eq!(error.code(), codes::EVIDENCE_MALFORMED);
    assert_eq!(chain.head().unwrap(), None);
}

#[test]
fn names_that_are_none_are_refused() {
    let repository = repository();
    for name in ["", "..", "a/b", "Ana", "-a", "a b", &"a".repeat(64)] {
        assert_eq!(Chain::open(&repository, name).unwrap_err().code(), codes::EVIDENCE_WRITER, "{name}");
    }
    assert!(Chain::open(&repository, &"a".repeat(63)).is_ok());
}

#[test]
fn a_record_goes_stale_with_what_it_was_about() {
    let repository = repository();
    let (_, records) = chain_of(&repository, "ana", &key(), 1);
    let payload = records[0].payload();
    let key_id = payload.subject.key_id.to_hex();
    let now = Facts {
        manifest_hash: &payload.subject.manifest_hash,
        tool_version: "0.1.0",
        key_id: &key_id,
        data_bytes: 1500,
        time: payload.time,
    };
    let day = Duration::from_hours(24);
    assert_eq!(stale(&records[0], &now, day), []);
    let changed = StaleReason::DataSizeChanged { recorded_bytes: 1000, current_bytes: 1501 };
    assert_eq!(stale(&records[0], &Facts { data_bytes: 1501, ..now.clone() }, day), [changed]);
    let all = Facts {
        manifest_hash: "x",
        tool_version: "0.2.0",
        key_id: "y",
        data_bytes: 0,
        time: payload.time + 2 * day,
    };
    assert_eq!(stale(&records[0], &all, day).len(), 5);
}

#[test]
fn what_another_version_writes_is_kept() {
    let repository = repository();
    let chain = Chain::open(&repository, "ana").unwrap();
    let what = What::Other("teleport".to_owned());
    let outcome = Outcome::Other("half".to_owned());
    chain.append(&key(), &super::Draft { what: what.clone(), outcome: outcome.clone(), ..draft(1) }).unwrap();
    let read = chain.head().unwrap().unwrap();
    assert_eq!((&read.payload().what, &read.payload().outcome), (&what, &outcome));
}

//! Listing what is damaged: each record is blamed for what is wrong with itself, and for nothing else.

use super::{chain_of, draft, key, repository};
use bytes::Bytes;
use retoma_core::error::codes;
use retoma_repo::evidence::{
    Anchor, Chain, Entry, Record, RecordHash, SigningKey, export, list, verify_export,
};
use retoma_repo::lane::Lane;
use retoma_repo::store::{Key, PutMode};
use retoma_repo::{ErrorKind, Repository};
use std::collections::BTreeMap;

fn object(sequence: u64) -> Key {
    Key::new(format!("evidence/ana/{sequence:020}")).unwrap()
}

/// Puts `text` where record `sequence` lies, sealed as whoever has the repository's key can.
fn put(repository: &Repository, sequence: u64, text: &str) {
    let lane = Lane::new(repository.key(), "evidence", 1 << 20);
    let name = object(sequence);
    let sealed = lane.seal(&name, text.as_bytes()).unwrap();
    repository.store().put(&name, sealed.into(), PutMode::Overwrite).unwrap();
}

/// Sequences of sound records and codes of damages, with the names of the damaged ones' objects.
fn shown(repository: &Repository) -> Vec<String> {
    let listing = list(repository, &BTreeMap::new()).unwrap().remove(0);
    let show = |entry: &Entry| match entry {
        Entry::Record(record) => record.sequence().to_string(),
        Entry::Damage(damage) => {
            format!(
                "{} {}",
                damage.error.code(),
                damage.name.trim_start_matches("evidence/ana/0000000000000000")
            )
        }
    };
    listing.entries.iter().map(show).collect()
}

#[test]
fn after_a_gap_the_chain_goes_on_and_its_key_still_counts() {
    let repository = repository();
    let (_, records) = chain_of(&repository, "ana", &key(), 6);
    // Another key's chain in the same repository, moved to the same writer.
    let stranger = SigningKey::generate().unwrap();
    for sequence in 1..=6 {
        repository.store().delete(&object(sequence)).unwrap();
    }
    let (_, foreign) = chain_of(&repository, "ana", &stranger, 6);
    let lay = |sequence: u64, records: &[Record]| {
        put(&repository, sequence, records[usize::try_from(sequence).unwrap() - 1].envelope());
    };
    for sequence in [1, 2, 5, 6] {
        lay(sequence, &records);
    }
    lay(4, &foreign);
    repository.store().delete(&object(3)).unwrap();
    // The record after the gap is signed by somebody else: it is the wrong one, and not those of the chain's own key.
    assert_eq!(shown(&repository), ["1", "2", "R0804 0004", "R0803 0004", "R0805 0005", "6"]);
}

#[test]
fn only_a_time_before_the_one_before_it_is_a_clock_that_went_back() {
    let repository = repository();
    let chain = Chain::open(&repository, "ana").unwrap();
    let records: Vec<Record> =
        [3, 3, 4, 2, 2].into_iter().map(|number| chain.append(&key(), &draft(number)).unwrap()).collect();
    let report = verify_export(&export(&records).unwrap(), &key().public_key(), &[]).unwrap();
    assert_eq!(report.clock_went_back, [4]);
}

#[test]
fn a_store_that_does_not_answer_is_no_damage() {
    use retoma_repo::store::{ObjectStore, Verb};
    use retoma_testkit::{Fault, FaultyStore, Rule, When};
    let faulty = std::sync::Arc::new(FaultyStore::new(std::sync::Arc::new(ObjectStore::memory())));
    let repository = super::repository_in(faulty.clone());
    chain_of(&repository, "ana", &key(), 2);
    let broken = Fault::Error(ErrorKind::Unauthorized);
    faulty.add(Rule::new(Verb::Get, "evidence/*", When::Always, broken));
    let error = list(&repository, &BTreeMap::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unauthorized, "{error}");
}

#[test]
fn an_object_that_is_no_record_is_named_and_leaves_the_chain_whole() {
    let repository = repository();
    chain_of(&repository, "ana", &key(), 2);
    let name = Key::new("evidence/ana/00000000000000000001.bak").unwrap();
    repository.store().put(&name, Bytes::from_static(b"x"), PutMode::Create).unwrap();
    let listing = list(&repository, &BTreeMap::new()).unwrap().remove(0);
    assert_eq!(listing.records().count(), 2);
    assert!(!listing.pinned, "nobody vouched for the key");
    let damages: Vec<_> = listing.damages().map(|it| (it.name.clone(), it.error.code())).collect();
    assert_eq!(damages, [(name.as_str().to_owned(), codes::EVIDENCE_MISPLACED)]);
}

#[test]
fn an_anchor_of_a_record_that_is_missing_in_the_middle_says_so_and_not_that_the_tail_is_cut() {
    let repository = repository();
    let (chain, records) = chain_of(&repository, "ana", &key(), 4);
    repository.store().delete(&object(2)).unwrap();
    let listing = list(&repository, &BTreeMap::new()).unwrap().remove(0);
    let message = |anchor: &Anchor| listing.check_anchor(anchor).unwrap_err().message().to_owned();
    assert!(message(&records[1].anchor()).ends_with("record 2 is not there"));
    let later = Anchor { sequence: 5, hash: RecordHash([0; 32]) };
    assert!(message(&later).contains("the chain ends with record 4"));
    let last = Anchor { hash: RecordHash([0; 32]), ..records[3].anchor() };
    assert!(message(&last).contains("is not the one that was anchored"));
    listing.check_anchor(&records[3].anchor()).unwrap();
    // A gap before the end does not keep anybody from going on.
    let appended = chain.append(&key(), &draft(5)).unwrap();
    assert_eq!((appended.sequence(), appended.payload().previous), (5, Some(records[3].hash())));
    assert!(
        Chain::open(&repository, "ana").unwrap().read(2).is_err_and(|it| it.kind() == ErrorKind::NotFound)
    );
}

#[test]
fn of_several_anchors_the_newest_says_what_is_left_open() {
    let repository = repository();
    let (_, records) = chain_of(&repository, "ana", &key(), 4);
    let text = export(&records).unwrap();
    let open = |anchors: &[Anchor]| {
        let report = verify_export(&text, &key().public_key(), anchors).unwrap();
        report.not_proven.into_iter().find(|open| open.contains("was the last one")).unwrap()
    };
    let [first, _, third, _] = [0, 1, 2, 3].map(|at: usize| records[at].anchor());
    assert!(open(&[third, first]).ends_with("the newest anchor names record 3"));
    assert!(open(&[first]).ends_with("the newest anchor names record 1"));
    assert!(open(&[]).contains("without an anchor"));
}

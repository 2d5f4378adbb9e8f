//! All chains of a repository, with whatever is wrong in them.

use super::chain::{Chain, parse_name};
use super::key::PublicKey;
use super::links::Links;
use super::record::Record;
use super::{Anchor, FOLDER};
use crate::repository::Repository;
use retoma_core::{Error, ErrorKind, Result, ResultExt as _, error::codes};
use std::collections::BTreeMap;

/// One chain.
#[derive(Debug)]
pub struct Listing {
    /// Whose it is.
    pub writer: String,
    /// Whether its signatures were checked against a key that the caller pinned. Otherwise they show only that records
    /// are whole and that all are by the same key.
    pub pinned: bool,
    /// Its records and what is wrong, oldest first.
    pub entries: Vec<Entry>,
}

/// A record or what is wrong at its place.
#[derive(Debug)]
pub enum Entry {
    /// A record that is authentic and continues the one before it.
    Record(Box<Record>),
    /// Something wrong.
    Damage(Damage),
}

/// A record that is missing, cannot be read, is not authentic or does not fit its place.
#[derive(Debug)]
pub struct Damage {
    /// The object; for missing records the one after the gap.
    pub name: String,
    /// What is wrong.
    pub error: Error,
}

impl Listing {
    /// The sound records, oldest first.
    pub fn records(&self) -> impl DoubleEndedIterator<Item = &Record> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Record(record) => Some(record.as_ref()),
            Entry::Damage(_) => None,
        })
    }

    /// What is wrong.
    pub fn damages(&self) -> impl Iterator<Item = &Damage> {
        self.entries.iter().filter_map(|entry| match entry {
            Entry::Damage(damage) => Some(damage),
            Entry::Record(_) => None,
        })
    }

    /// Checks that the record which `anchor` names is still there, unchanged.
    ///
    /// # Errors
    /// `Corrupt` with `R0807`.
    pub fn check_anchor(&self, anchor: &Anchor) -> Result<()> {
        let record = self.records().find(|record| record.sequence() == anchor.sequence);
        check_anchor(anchor, record, self.records().last())
    }

    fn damage(&mut self, name: &str, error: Error) {
        self.entries.push(Entry::Damage(Damage { name: name.to_owned(), error }));
    }
}

/// Compares `anchor` with the `record` at its place, if there is one; `head` is the newest record.
pub(super) fn check_anchor(anchor: &Anchor, record: Option<&Record>, head: Option<&Record>) -> Result<()> {
    let message = match (record, head) {
        (Some(record), _) if record.hash() == anchor.hash => return Ok(()),
        (Some(record), _) => {
            format!(
                "record {} is not the one that was anchored: its hash is `{}`",
                anchor.sequence,
                record.hash()
            )
        }
        (None, Some(head)) if head.sequence() < anchor.sequence => {
            format!(
                "the chain ends with record {}: records were cut off, {} among them",
                head.sequence(),
                anchor.sequence
            )
        }
        (None, _) => format!("record {} is not there", anchor.sequence),
    };
    Err(Error::new(ErrorKind::Corrupt, codes::EVIDENCE_ANCHOR, format!("anchor `{anchor}`: {message}"))
        .with_hint("look for the records in another copy of the repository or in an earlier export"))
}

/// Reads and checks every chain. `pins` are the keys that the caller trusts, by writer.
///
/// # Errors
/// What the store says; damaged, forged and missing records are part of the result.
pub fn list(repository: &Repository, pins: &BTreeMap<String, PublicKey>) -> Result<Vec<Listing>> {
    let objects = repository.store().list(FOLDER).with_context(|| format!("list `{FOLDER}`"))?;
    let mut names: Vec<&str> = objects.iter().map(|meta| meta.key.as_str()).collect();
    names.sort_unstable();
    let mut by_writer: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for name in names {
        by_writer.entry(name.split('/').nth(1).unwrap_or_default()).or_default().push(name);
    }
    by_writer
        .into_iter()
        .map(|(writer, names)| list_chain(repository, writer, &names, pins.get(writer)))
        .collect()
}

fn list_chain(
    repository: &Repository,
    writer: &str,
    names: &[&str],
    pinned: Option<&PublicKey>,
) -> Result<Listing> {
    let mut listing = Listing { writer: writer.to_owned(), pinned: pinned.is_some(), entries: Vec::new() };
    let mut links = Links::new(repository.config().id, writer, 1);
    for name in names {
        let Some((_, sequence)) = parse_name(name) else {
            let message = "the object is no record of evidence";
            listing.damage(name, Error::new(ErrorKind::Corrupt, codes::EVIDENCE_MISPLACED, message));
            continue;
        };
        let mut chain = Chain::open(repository, writer)?;
        if let Some(pinned) = pinned {
            chain = chain.pin(*pinned);
        }
        if let Some(next) = links.next().filter(|next| *next < sequence) {
            listing.damage(name, missing(next, sequence - 1));
            links.skip_to(sequence);
        }
        match chain.read(sequence) {
            Ok(record) => match links.follow(&record) {
                Ok(()) => listing.entries.push(Entry::Record(Box::new(record))),
                Err(error) => listing.damage(name, error),
            },
            Err(error) if is_damage(error.kind()) => {
                listing.damage(name, error);
                links.skip_to(sequence.saturating_add(1));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(listing)
}

/// What the record is to blame for, not the store. `NotFound`: it was deleted since it was listed.
fn is_damage(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::Corrupt | ErrorKind::Unsupported | ErrorKind::NotFound)
}

fn missing(first: u64, last: u64) -> Error {
    let message = if first == last {
        format!("record {first} is missing")
    } else {
        format!("records {first} to {last} are missing")
    };
    Error::new(ErrorKind::Corrupt, codes::EVIDENCE_SEQUENCE, message)
        .with_hint("look for them in another copy of the repository or in an export")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evidence::chain::RECORD_LIMIT_BYTES;
    use crate::evidence::envelope::Envelope;
    use crate::evidence::{Draft, Outcome, SigningKey, Subject, What};
    use crate::id::KeyId;
    use crate::lane::Lane;
    use crate::store::{BlockingStore, Key, ObjectStore, PutMode};
    use retoma_core::Secret;

    #[test]
    fn a_record_that_a_later_version_wrote_is_told_in_its_place() {
        let store = BlockingStore::new(std::sync::Arc::new(ObjectStore::memory())).unwrap();
        let repository = Repository::init(store, &Secret::new("a test".to_owned())).unwrap();
        let subject =
            Subject { manifest_hash: "00".repeat(32), key_id: KeyId([7; 32]), components: Vec::new() };
        let draft = Draft {
            time: jiff::Timestamp::from_second(1).unwrap(),
            tool_version: "1".to_owned(),
            what: What::Backup,
            outcome: Outcome::Passed,
            subject,
            details: serde_json::Value::Null,
        };
        let key = SigningKey::generate().unwrap();
        let chain = Chain::open(&repository, "ana").unwrap();
        chain.append(&key, &draft).unwrap();
        let second = chain.append(&key, &draft).unwrap();
        let later = serde_json::to_string(second.payload()).unwrap().replace("evidence/1", "evidence/2");
        let text = Envelope::sign(&key, later.into_bytes()).unwrap().text;
        let name = Key::new("evidence/ana/00000000000000000002").unwrap();
        let lane = Lane::new(repository.key(), FOLDER, RECORD_LIMIT_BYTES);
        let sealed = lane.seal(&name, text.as_bytes()).unwrap();
        repository.store().put(&name, sealed.into(), PutMode::Overwrite).unwrap();
        let listing = list(&repository, &BTreeMap::new()).unwrap().remove(0);
        assert_eq!(listing.records().map(Record::sequence).collect::<Vec<_>>(), [1]);
        let codes: Vec<_> = listing.damages().map(|damage| damage.error.code()).collect();
        assert_eq!(codes, [codes::EVIDENCE_SCHEMA]);
    }
}

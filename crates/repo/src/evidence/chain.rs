//! The chain of one writer in a repository: append and read.

use super::envelope::Envelope;
use super::key::{PublicKey, SigningKey};
use super::record::{Draft, Payload, Record, SCHEMA};
use super::{FOLDER, malformed};
use crate::id::RepositoryId;
use crate::lane::Lane;
use crate::repository::Repository;
use crate::store::{BlockingStore, Key, PutMode};
use bytes::Bytes;
use retoma_core::{Error, ErrorKind, Result, ResultExt as _, error::codes};

/// The largest envelope of a record. What a drill found is some hundred times smaller.
pub const RECORD_LIMIT_BYTES: usize = 64 << 20;
/// How often an append starts anew because somebody else took its place. Each time somebody else has got on.
const ATTEMPTS: usize = 256;
/// Digits of the largest sequence, so that names sort as numbers.
const SEQUENCE_DIGITS: usize = 20;
/// As in the manifest.
const WRITER_LIMIT: usize = 63;

/// The chain of one writer.
#[derive(Debug, Clone)]
pub struct Chain {
    store: BlockingStore,
    lane: Lane,
    repository_id: RepositoryId,
    writer: String,
    pinned: Option<PublicKey>,
}

impl Chain {
    /// The chain of `writer`, which need not have a record yet. Does no I/O.
    ///
    /// # Errors
    /// `Invalid` with `R0814` for a name that is none.
    pub fn open(repository: &Repository, writer: &str) -> Result<Self> {
        if !is_writer(writer) {
            let message = format!("`{}` cannot be a writer's name", writer.escape_debug());
            return Err(Error::new(ErrorKind::Invalid, codes::EVIDENCE_WRITER, message).with_hint(
                "take up to 63 small letters a to z, digits, `_` and `-`, and begin with a letter or digit",
            ));
        }
        Ok(Self {
            store: repository.store().clone(),
            lane: Lane::new(repository.key(), FOLDER, RECORD_LIMIT_BYTES),
            repository_id: repository.config().id,
            writer: writer.to_owned(),
            pinned: None,
        })
    }

    /// Accepts only records that `key` verifies. Without a pinned key, a signature shows only that a record is whole.
    #[must_use]
    pub fn pin(mut self, key: PublicKey) -> Self {
        self.pinned = Some(key);
        self
    }

    /// Signs a record and stores it at the end of the chain. Durable on return.
    ///
    /// Of several that append at once each gets a place of its own. After an error the record may be stored or not, as
    /// after every put whose answer was lost; the one that is stored is whole.
    ///
    /// # Errors
    /// `Corrupt` when the newest record cannot be read or is not authentic: nothing is signed on top of it. `Invalid`
    /// with `R0803` when the chain has another key, with `R0813` when the record is too large. `Conflict` with `R0812`
    /// when others were faster again and again. What the store says.
    pub fn append(&self, key: &SigningKey, draft: &Draft) -> Result<Record> {
        let doing = || format!("append to the evidence of `{}`", self.writer);
        if let Some(pinned) = &self.pinned {
            key.check_pinned(pinned).with_context(doing)?;
        }
        for _ in 0..ATTEMPTS {
            let head = self.head().map_err(blocked).with_context(doing)?;
            let record = self.sign(key, draft, head.as_ref()).with_context(doing)?;
            if self.store_new(&record).with_context(doing)? {
                return Ok(record);
            }
        }
        let message = format!("{ATTEMPTS} times somebody else wrote the next record first");
        Err(Error::new(ErrorKind::Conflict, codes::EVIDENCE_CONTENDED, message)
            .with_hint("give each host a writer's name of its own")
            .context(doing()))
    }

    /// The newest record; `None` when there is none.
    ///
    /// # Errors
    /// See [`Chain::read`].
    pub fn head(&self) -> Result<Option<Record>> {
        match self.sequences()?.last() {
            Some(&newest) => self.read(newest).map(Some),
            None => Ok(None),
        }
    }

    /// Reads record `sequence` and checks its signature and that it is the one that belongs there. The link to the
    /// record before it is not checked.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` with `R0203` (not sealed by this repository), `R0801` to `R0803`, `R0806`; `Unsupported`
    /// with `R0809`; what the store says.
    pub fn read(&self, sequence: u64) -> Result<Record> {
        let name = self.name(sequence)?;
        let read = || {
            let text = self.lane.open(&name, &self.store.get(&name)?)?;
            let text = String::from_utf8(text).map_err(|_| malformed("the record is not text"))?;
            let record = Record::from_envelope(Envelope::open(&text, self.pinned.as_ref())?)?;
            let payload = record.payload();
            let place = (payload.repository_id, payload.writer.as_str(), payload.sequence);
            if place == (self.repository_id, self.writer.as_str(), sequence) {
                return Ok(record);
            }
            let writer: String = payload.writer.chars().take(WRITER_LIMIT).collect();
            let message = format!(
                "it is record {} of the writer `{}` in the repository `{}`",
                payload.sequence,
                writer.escape_debug(),
                payload.repository_id
            );
            Err(Error::new(ErrorKind::Corrupt, codes::EVIDENCE_MISPLACED, message))
        };
        read().with_context(|| format!("read `{name}`"))
    }

    /// The records from the newest to the first, each read when it is asked for, each checked against the one after
    /// it. Ends after an error.
    ///
    /// # Errors
    /// See [`Chain::read`]; `Corrupt` with `R0804` for a missing record, with `R0805` for one that does not fit.
    pub fn newest_first(&self) -> Result<impl Iterator<Item = Result<Record>> + '_> {
        let mut next = self.sequences()?.last().copied();
        let mut expected = None;
        Ok(std::iter::from_fn(move || {
            let sequence = next.take()?;
            let record = match self.read(sequence) {
                Err(error) if error.kind() == ErrorKind::NotFound => {
                    let message = format!("record {sequence} of `{}` is missing", self.writer);
                    Err(Error::new(ErrorKind::Corrupt, codes::EVIDENCE_SEQUENCE, message))
                }
                Ok(record) if expected.is_some_and(|hash| hash != record.hash()) => {
                    let message = format!("record {} does not continue record {sequence}", sequence + 1);
                    Err(Error::new(ErrorKind::Corrupt, codes::EVIDENCE_CHAIN, message))
                }
                other => other,
            };
            if let Ok(record) = &record {
                expected = record.payload().previous;
                next = expected.and(sequence.checked_sub(1));
            }
            Some(record)
        }))
    }

    /// The sequences of the records in the store, in order. Objects with other names are passed over.
    fn sequences(&self) -> Result<Vec<u64>> {
        let folder = format!("{FOLDER}/{}", self.writer);
        let objects = self.store.list(&folder).with_context(|| format!("list `{folder}`"))?;
        let mut sequences: Vec<u64> =
            objects.iter().filter_map(|meta| Some(parse_name(meta.key.as_str())?.1)).collect();
        sequences.sort_unstable();
        Ok(sequences)
    }

    fn name(&self, sequence: u64) -> Result<Key> {
        Key::new(format!("{FOLDER}/{}/{sequence:0SEQUENCE_DIGITS$}", self.writer))
    }

    fn sign(&self, key: &SigningKey, draft: &Draft, head: Option<&Record>) -> Result<Record> {
        let public_key = key.public_key();
        let mut sequence = Some(1);
        if let Some(head) = head {
            let own = head.payload().public_key;
            if own != public_key {
                let message = format!("the chain is signed with `{own}`, and this key is `{public_key}`");
                return Err(Error::new(ErrorKind::Invalid, codes::EVIDENCE_SIGNER, message)
                    .with_hint("a chain has one key; take another writer's name for the new key"));
            }
            sequence = head.sequence().checked_add(1);
        }
        let sequence = sequence.ok_or_else(|| {
            Error::new(
                ErrorKind::Exhausted,
                codes::EVIDENCE_SEQUENCE,
                "the chain has its last possible record",
            )
        })?;
        let payload = Payload {
            schema: SCHEMA.to_owned(),
            repository_id: self.repository_id,
            writer: self.writer.clone(),
            sequence,
            previous: head.map(Record::hash),
            time: draft.time,
            tool_version: draft.tool_version.clone(),
            what: draft.what.clone(),
            outcome: draft.outcome.clone(),
            subject: draft.subject.clone(),
            details: draft.details.clone(),
            public_key,
        };
        let json =
            serde_json::to_vec(&payload).map_err(|error| Error::internal(format!("payload: {error}")))?;
        let envelope = Envelope::sign(key, json)?;
        if envelope.text.len() > RECORD_LIMIT_BYTES {
            let message = format!("a record of {} bytes is larger than evidence may be", envelope.text.len());
            return Err(Error::new(ErrorKind::Invalid, codes::EVIDENCE_TOO_LARGE, message)
                .with_hint("keep large files beside the record and put their hashes into its details"));
        }
        // Read as anybody will read it: what cannot be read again (numbers, depth) must not get into the chain.
        Record::from_envelope(envelope)
    }

    /// Stores a record at its place. `false` when somebody else has that place.
    fn store_new(&self, record: &Record) -> Result<bool> {
        let name = self.name(record.sequence())?;
        let sealed = Bytes::from(self.lane.seal(&name, record.envelope().as_bytes())?);
        let is_atomic = self.store.store().capabilities().conditional_create;
        match self.store.put(&name, sealed.clone(), PutMode::Create) {
            Ok(()) if is_atomic => Ok(true),
            // Somebody may have written over it.
            Ok(()) => Ok(self.store.get(&name)? == sealed),
            // Perhaps it is our own, stored by a put whose answer was lost. No two seals are the same.
            Err(error) if error.kind() == ErrorKind::Conflict => Ok(self.store.get(&name)? == sealed),
            Err(error) => match self.store.get(&name) {
                Ok(stored) if stored == sealed => Ok(true),
                _ => Err(error),
            },
        }
    }
}

fn blocked(error: Error) -> Error {
    match error.kind() {
        ErrorKind::Corrupt => error.with_hint(
            "nothing is signed on top of a record that is not authentic; look at `retoma evidence list`, and go on \
             under another writer's name",
        ),
        _ => error,
    }
}

/// Whether `text` may name a writer: the rule for names in the manifest.
fn is_writer(text: &str) -> bool {
    let is_word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    text.len() <= WRITER_LIMIT
        && text.bytes().next().is_some_and(is_word)
        && text.bytes().all(|b| is_word(b) || b == b'_' || b == b'-')
}

/// Writer and sequence of the record in the object `name`; `None` when it has no record's name.
pub(super) fn parse_name(name: &str) -> Option<(&str, u64)> {
    let (writer, digits) = name.strip_prefix(FOLDER)?.strip_prefix('/')?.split_once('/')?;
    let fits =
        is_writer(writer) && digits.len() == SEQUENCE_DIGITS && digits.bytes().all(|b| b.is_ascii_digit());
    let sequence = fits.then(|| digits.parse().ok())??;
    (sequence > 0).then_some((writer, sequence))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_records_name_is_one() {
        assert_eq!(parse_name("evidence/ana/00000000000000000012"), Some(("ana", 12)));
        assert_eq!(parse_name("evidence/ana/18446744073709551615"), Some(("ana", u64::MAX)));
        for other in [
            "evidence/ana/12",
            "evidence/ana/00000000000000000000",
            "evidence/ana/18446744073709551616",
            "evidence/ana/+0000000000000000012",
            "evidence/Ana/00000000000000000012",
            "evidence/00000000000000000012",
            "evidence/ana/x/00000000000000000012",
            "other/ana/00000000000000000012",
        ] {
            assert_eq!(parse_name(other), None, "{other}");
        }
    }
}

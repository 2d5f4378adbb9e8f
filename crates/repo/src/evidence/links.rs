//! What makes records a chain; the same rules for a repository and for an export.

use super::key::PublicKey;
use super::record::{Record, RecordHash};
use crate::id::RepositoryId;
use retoma_core::{Error, ErrorKind, Result, error::codes};

/// Walks along a chain, oldest record first.
#[derive(Debug)]
pub(super) struct Links {
    repository_id: RepositoryId,
    writer: String,
    /// The key of the records so far.
    key: Option<PublicKey>,
    /// The sequence that must come now; none after the last possible one.
    next: Option<u64>,
    /// The hash that the next record must name; not known at the start and after a gap.
    previous: Option<RecordHash>,
}

impl Links {
    /// A walk over the chain of `writer` in a repository that starts at `first`.
    pub(super) fn new(repository_id: RepositoryId, writer: &str, first: u64) -> Self {
        Self { repository_id, writer: writer.to_owned(), key: None, next: Some(first), previous: None }
    }

    /// The sequence that must come now.
    pub(super) fn next(&self) -> Option<u64> {
        self.next
    }

    /// Goes on at `sequence`, of which the record before can't be read.
    pub(super) fn skip_to(&mut self, sequence: u64) {
        self.next = Some(sequence);
        self.previous = None;
    }

    /// Goes on after `record` whether it fits or not.
    fn advance(&mut self, record: &Record) {
        self.next = record.sequence().checked_add(1);
        self.previous = Some(record.hash());
    }

    /// Checks that `record` is the next one, and goes on after it in any case.
    ///
    /// # Errors
    /// `Corrupt` with `R0803` to `R0806`.
    pub(super) fn follow(&mut self, record: &Record) -> Result<()> {
        let checked = self.check(record);
        self.key.get_or_insert(record.payload().public_key);
        self.advance(record);
        checked
    }

    fn check(&self, record: &Record) -> Result<()> {
        let corrupt = |code, message| Err(Error::new(ErrorKind::Corrupt, code, message));
        let payload = record.payload();
        if payload.repository_id != self.repository_id {
            let message = format!("it belongs to the repository `{}`", payload.repository_id);
            return corrupt(codes::EVIDENCE_MISPLACED, message);
        }
        if payload.writer != self.writer {
            let message = format!("it belongs to the writer `{}`", payload.writer.escape_debug());
            return corrupt(codes::EVIDENCE_MISPLACED, message);
        }
        if let Some(key) = self.key.filter(|key| *key != payload.public_key) {
            let message =
                format!("it is signed with `{}`, and the ones before with `{key}`", payload.public_key);
            return corrupt(codes::EVIDENCE_SIGNER, message);
        }
        if self.next != Some(payload.sequence) {
            let message = match self.next {
                Some(next) => format!("record {} stands where record {next} belongs", payload.sequence),
                None => format!("record {} stands after the last possible one", payload.sequence),
            };
            return corrupt(codes::EVIDENCE_SEQUENCE, message);
        }
        if let Some(previous) = self.previous.filter(|hash| payload.previous != Some(*hash)) {
            let message = format!("it does not continue the record before it, `{previous}`");
            return corrupt(codes::EVIDENCE_CHAIN, message);
        }
        Ok(())
    }
}

//! One record: what was done, how it ended, with what, and which record came before.

use super::envelope::Envelope;
use super::key::PublicKey;
use super::malformed;
use crate::id::{KeyId, RepositoryId, SnapshotId};
use jiff::Timestamp;
use retoma_core::{Error, ErrorKind, Result, error::codes};
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::fmt;

/// The value of a payload's field `schema`.
pub const SCHEMA: &str = "retoma.evidence/1";

/// The SHA-256 of a record's envelope, as the next record and anchors name it: 64 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RecordHash(pub [u8; 32]);

impl RecordHash {
    /// The hash of an envelope's text.
    pub(super) fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// Reads 64 lower-case hexadecimal digits.
    ///
    /// # Errors
    /// `Invalid` with `R0810` for anything else.
    pub fn parse(text: &str) -> Result<Self> {
        crate::id::unhex(text).map(Self).ok_or_else(|| {
            Error::new(
                ErrorKind::Invalid,
                codes::EVIDENCE_KEY,
                "a record's hash has 64 digits 0 to 9, a to f",
            )
        })
    }
}

impl fmt::Display for RecordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::id::hex(&self.0))
    }
}

impl fmt::Debug for RecordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RecordHash({self})")
    }
}

impl TryFrom<String> for RecordHash {
    type Error = Error;
    fn try_from(text: String) -> Result<Self> {
        Self::parse(&text)
    }
}

impl From<RecordHash> for String {
    fn from(hash: RecordHash) -> Self {
        hash.to_string()
    }
}

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A backup.
    Backup,
    /// A drill: destroyed, recovered, measured.
    Drill,
    /// Files were restored.
    Restore,
    /// A service was recovered.
    Recover,
    /// The repository was examined.
    Verify,
    /// Snapshots were forgotten.
    Forget,
    /// Unused data were deleted.
    Prune,
    /// A key was added or removed.
    Key,
    /// Another machine took over.
    Failover,
    /// A secret was replaced.
    Rotation,
    /// What another version of the program may write.
    #[serde(untagged)]
    Other(String),
}

/// How it ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Well: done, and every objective met.
    Passed,
    /// Not, or an objective or check was missed.
    Failed,
    /// A part is missing.
    Incomplete,
    /// What another version of the program may write.
    #[serde(untagged)]
    Other(String),
}

/// A component that it was about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubjectComponent {
    /// Its name in the manifest.
    pub component: String,
    /// What it is: `sqlite`, `files`.
    pub kind: String,
    /// The snapshot that was made, restored or examined.
    pub snapshot: Option<SnapshotId>,
    /// The size of its data.
    pub data_bytes: u64,
}

/// What it was about. A change of these makes the record stale.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// SHA-256 of the manifest, hexadecimal.
    pub manifest_hash: String,
    /// The key file that opened the repository.
    pub key_id: KeyId,
    /// The components.
    pub components: Vec<SubjectComponent>,
}

impl Subject {
    /// The size of the data of all components together.
    pub fn data_bytes(&self) -> u64 {
        self.components.iter().fold(0, |sum, component| sum.saturating_add(component.data_bytes))
    }
}

/// What a caller says about a record; the chain adds its place.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// When it ended, by the clock of this machine.
    pub time: Timestamp,
    /// Version of the program.
    pub tool_version: String,
    /// What was done.
    pub what: What,
    /// How it ended.
    pub outcome: Outcome,
    /// What it was about.
    pub subject: Subject,
    /// Anything more, for example the whole report of a drill. Without secrets: `evidence export` shows it.
    pub details: serde_json::Value,
}

/// What is signed. Readers ignore fields that they do not know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Payload {
    /// Always [`SCHEMA`].
    pub schema: String,
    /// The repository whose evidence it is.
    pub repository_id: RepositoryId,
    /// The chain that it belongs to.
    pub writer: String,
    /// Its place in the chain, from 1.
    pub sequence: u64,
    /// The hash of the record before it; none for the first.
    pub previous: Option<RecordHash>,
    /// When it ended, by the clock of the machine that signed.
    pub time: Timestamp,
    /// Version of the program.
    pub tool_version: String,
    /// What was done.
    pub what: What,
    /// How it ended.
    pub outcome: Outcome,
    /// What it was about.
    pub subject: Subject,
    /// Anything more.
    pub details: serde_json::Value,
    /// The key that verifies the signature.
    pub public_key: PublicKey,
}

/// A signed record: read and found authentic, or just made.
#[derive(Debug, Clone, PartialEq)]
pub struct Record {
    payload: Payload,
    hash: RecordHash,
    text: String,
}

impl Record {
    pub(super) fn from_envelope(envelope: Envelope) -> Result<Self> {
        #[derive(Deserialize)]
        struct Schema {
            schema: String,
        }
        let bad = |error: serde_json::Error| malformed(format!("payload: {error}"));
        let Schema { schema } = serde_json::from_slice(&envelope.payload).map_err(bad)?;
        if schema != SCHEMA {
            return Err(unknown_schema(&schema));
        }
        let payload: Payload = serde_json::from_slice(&envelope.payload).map_err(bad)?;
        if payload.public_key != envelope.public_key {
            let message = format!("its payload names the key `{}`", payload.public_key);
            return Err(Error::new(ErrorKind::Corrupt, codes::EVIDENCE_SIGNER, message));
        }
        let link_fits = (payload.sequence == 1) == payload.previous.is_none();
        if payload.sequence == 0 || !link_fits {
            return Err(malformed(format!("sequence {} does not fit its link", payload.sequence)));
        }
        Ok(Self { payload, hash: RecordHash::of(&envelope.text), text: envelope.text })
    }

    /// What was signed.
    pub fn payload(&self) -> &Payload {
        &self.payload
    }

    /// Its place in the chain, from 1.
    pub fn sequence(&self) -> u64 {
        self.payload.sequence
    }

    /// Its name for the next record and for anchors.
    pub fn hash(&self) -> RecordHash {
        self.hash
    }

    /// Place and hash together: kept elsewhere, they show later that this record and all before it are still there.
    pub fn anchor(&self) -> super::Anchor {
        super::Anchor { sequence: self.sequence(), hash: self.hash }
    }

    /// The envelope as one line of JSON, without line end: what is stored and exported.
    pub fn envelope(&self) -> &str {
        &self.text
    }
}

pub(super) fn unknown_schema(schema: &str) -> Error {
    let shown: String = schema.chars().take(80).collect();
    let message = format!("the schema `{}` is not known", shown.escape_debug());
    Error::new(ErrorKind::Unsupported, codes::EVIDENCE_SCHEMA, message)
        .with_hint("use the version of Retoma that wrote it, or a newer one")
}

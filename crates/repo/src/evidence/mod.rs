//! Evidence: signed records of what was backed up, drilled, restored and recovered, and how it ended.
//!
//! Each writer has one chain, `evidence/<writer>/<sequence>`; each record holds the hash of the one before it and is
//! signed (Ed25519). Records are sealed in the repository like everything there, and exported in the clear. An export
//! is verified offline with the public key alone.
//!
//! Invariants: a record is one object, written by conditional create and never changed; a chain has one key; what is
//! signed is never written a second time in another form; nothing here deletes.
//!
//! Not shown by a chain: that its end is still there, without an [`Anchor`] kept elsewhere; that the signer's clock and
//! claims are right. `docs/evidence.md` says more, and describes every byte.

mod anchor;
mod chain;
pub mod controls;
mod envelope;
mod export;
mod key;
mod links;
mod list;
mod record;
mod stale;

pub use anchor::Anchor;
pub use chain::{Chain, RECORD_LIMIT_BYTES};
pub use export::{EXPORT_SCHEMA, VerifyReport, export, verify_export};
pub use key::{PublicKey, SigningKey};
pub use list::{Damage, Entry, Listing, list};
pub use record::{Draft, Outcome, Payload, Record, RecordHash, SCHEMA, Subject, SubjectComponent, What};
pub use stale::stale;

use retoma_core::{Error, ErrorKind, error::codes};

/// The lane's folder in the repository.
pub const FOLDER: &str = "evidence";

fn malformed(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::Corrupt, codes::EVIDENCE_MALFORMED, message)
        .with_hint("run `retoma evidence list`: it names every damaged record")
}

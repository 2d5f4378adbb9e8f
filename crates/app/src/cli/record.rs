//! Signed records of what was done, where the manifest names a key.

use crate::context::Context;
use retoma_core::manifest::{Manifest, SecretRef};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::evidence::{Chain, Draft, Outcome, PublicKey, SigningKey, Subject, SubjectComponent, What};
use retoma_repo::{Repository, host};
use serde_json::Value;

/// Appends a record. The operation itself is done: a record that can't be written is a warning, and said.
pub(super) fn keep(
    context: &Context,
    manifest: &Manifest,
    repository: &Repository,
    what: What,
    outcome: Outcome,
    components: Vec<SubjectComponent>,
    details: Value,
) {
    let Some(reference) = &manifest.evidence.signing_key else { return };
    let subject =
        Subject { manifest_hash: manifest.hash().to_owned(), key_id: repository.key_id(), components };
    let draft = Draft {
        time: host::now().0,
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        what,
        outcome,
        subject,
        details,
    };
    match append(manifest, reference, repository, &draft) {
        Ok(anchor) => context.printer.note(&format!("signed record {anchor}")),
        Err(error) => {
            context.printer.warning("no record of this was written:");
            context.printer.explain(&error);
        }
    }
}

fn append(
    manifest: &Manifest,
    reference: &SecretRef,
    repository: &Repository,
    draft: &Draft,
) -> Result<String> {
    let key = signing_key(reference)?;
    let pinned = pinned(manifest)?;
    if let Some(pinned) = &pinned {
        key.check_pinned(pinned)?;
    }
    let chain = Chain::open(repository, &manifest.evidence.writer)?.pin(key.public_key());
    Ok(chain.append(&key, draft)?.anchor().to_string())
}

/// The key that signs; a file must be ours alone.
pub(super) fn signing_key(reference: &SecretRef) -> Result<SigningKey> {
    match reference {
        SecretRef::File(path) => SigningKey::load(path),
        SecretRef::Env(_) | SecretRef::Transit(_) => {
            SigningKey::parse(&retoma_control::open::secret(reference)?)
        }
    }
}

/// The key that the manifest pins.
pub(super) fn pinned(manifest: &Manifest) -> Result<Option<PublicKey>> {
    manifest.evidence.public_key.as_ref().map(PublicKey::from_bytes).transpose()
}

/// The pinned key, or what to do without one.
pub(super) fn required(manifest: &Manifest) -> Result<PublicKey> {
    pinned(manifest)?.ok_or_else(|| {
        Error::new(ErrorKind::Invalid, codes::USAGE, "the manifest pins no public key")
            .with_hint("write `public_key` under `[evidence]`; `retoma evidence new-key FILE` makes a pair and prints it")
    })
}

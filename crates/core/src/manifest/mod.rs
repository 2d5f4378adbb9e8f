//! The manifest, `retoma.toml`: from its text to [`Manifest`], or to all that is wrong with it.
//!
//! `parse` goes through four steps: `raw` (TOML with positions), `check` (each key alone, driven by the table in
//! `fields`), `resolve` (defaults, relative paths, rules about several keys), and, when something is wrong, `problem`
//! (how it is shown). The JSON Schema for editors and the reference page come from the same table.
//!
//! Invariants:
//! * An unknown key is an error: a typo must not silently mean "no backups".
//! * All problems are reported in one run. Only an error of TOML's syntax ends the run early.
//! * No message and no excerpt holds the value of a secret, also not when it stands where it does not belong.
//! * Nothing outside the text is asked: whether a path exists or a server answers is the business of `doctor`.

mod address;
mod agent;
mod backup_way;
mod check;
mod component_kind;
mod fields;
mod init;
mod mail;
mod model;
mod object_lock;
mod paths;
mod problem;
mod raw;
mod redact;
mod reference;
mod resolve;
mod schema;
mod secret_ref;
mod source;
mod suggest;
pub mod tier;
mod transit;
mod wal;

pub use address::Scheme;
pub use agent::{AgentOptions, AlertOptions, Receiver};
pub use backup_way::BackupWay;
pub use component_kind::ComponentKind;
pub use init::{Findings, FoundPath, init, quote};
pub use mail::{Email, MailSecurity};
pub use model::{
    Check, Command, Component, DrillOptions, Evidence, HttpCheck, Manifest, Markers, Repository, Retention,
    Schedule, ServerUrl, Service, Source, SqlExpectation,
};
pub use object_lock::{LockMode, ObjectLock};
pub use problem::{Problem, Severity, render, summary};
pub use reference::{reference_markdown, with_reference};
pub use schema::json_schema;
pub use secret_ref::SecretRef;
pub use tier::{Objectives, Tier};
pub use transit::TransitKey;
pub use wal::{SlotPolicy, WalMode, WalSettings};

use crate::error::codes;
use problem::Draft;
use sha2::{Digest as _, Sha256};
use std::path::PathBuf;

/// The longest text that is read. A manifest has a few kilobytes; checking takes time that grows faster than the text.
const TEXT_LIMIT_BYTES: usize = 256 * 1024;

/// Where a manifest's text comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    /// The file's name for messages.
    pub file_name: String,
    /// The directory of the file, absolute: relative paths start there.
    pub dir: PathBuf,
}

/// Reads a manifest. Warnings of an accepted one are in [`Manifest::warnings`].
///
/// # Errors
/// All problems, warnings too, in the order of the text; at least one has the severity `Error`.
pub fn parse(text: &str, origin: &Origin) -> Result<Manifest, Vec<Problem>> {
    let parsed = if text.len() > TEXT_LIMIT_BYTES {
        let message = format!("this file has more than {TEXT_LIMIT_BYTES} bytes");
        Err(Draft::error(codes::MANIFEST_SYNTAX, &(0..0), message).hint("is it the right file?"))
    } else {
        raw::parse(text)
    };
    let root = match parsed {
        Ok(root) => root,
        Err(draft) => return Err(problem::locate(&source::Source::new(text, Vec::new(), true), vec![draft])),
    };
    let mut found = Vec::new();
    check::table(&root, &fields::ROOT, &(0..0), &mut found);
    let manifest = resolve::manifest(&root, origin, hash(text), &mut found);
    let has_errors = found.iter().any(Draft::is_error);
    if manifest.is_none() && !has_errors {
        // A rule that refuses without saying why would hide a component; it is a bug, and it must not pass.
        let draft = Draft::error(
            codes::INTERNAL,
            &(0..0),
            "this manifest cannot be resolved, and no reason is known",
        );
        found.push(draft.hint("this is a bug in Retoma; please report it with the manifest"));
    }
    let source = source::Source::new(text, redact::in_document(text, &root, &fields::ROOT), false);
    let problems = problem::locate(&source, found);
    match manifest {
        Some(manifest) if !has_errors => Ok(Manifest { warnings: problems, ..manifest }),
        _ => Err(problems),
    }
}

/// SHA-256 over the bytes of a manifest's text, in lower-case hex. Snapshots and records of evidence carry it.
pub fn hash(text: &str) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = |byte: u8| [byte >> 4, byte & 15].map(|half| char::from(DIGITS[usize::from(half)]));
    Sha256::digest(text.as_bytes()).into_iter().flat_map(digits).collect()
}

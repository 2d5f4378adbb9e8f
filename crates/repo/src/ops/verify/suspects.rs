//! Packs that are known to be damaged: which of their blobs can't be had, and whether another copy can.
//!
//! This is the rare path: here single blobs are read by the index.

use super::report::{Draft, Scope, Severity};
use super::{Run, object_name};
use crate::format::BlobKind;
use crate::format::pack::PackedBlob;
use crate::id::{BlobId, PackId};
use crate::index::{Index, Location};
use crate::repository::Folder;
use retoma_core::{Code, Error, ErrorKind, Result, error::codes};
use std::collections::{BTreeMap, HashMap, HashSet};

/// A copy of a blob that can't be had.
#[derive(Debug)]
pub(super) struct Bad {
    pub(super) pack: PackId,
    pub(super) blob: PackedBlob,
    pub(super) error: Error,
}

/// What the packs' checks leave to be looked at.
#[derive(Debug, Default)]
pub(super) struct Suspects {
    /// Packs that are not there, with the findings that say so.
    pub(super) missing: HashMap<PackId, usize>,
    /// Packs whose every indexed blob must be tried, with a finding that a bad blob belongs to, if there is one.
    pub(super) unclear: HashMap<PackId, Option<usize>>,
    /// Copies that are known to be bad.
    pub(super) bad: Vec<Bad>,
}

type Place = (BlobKind, BlobId, PackId, u32);

fn place(pack: PackId, blob: &PackedBlob) -> Place {
    (blob.kind, blob.id, pack, blob.offset_bytes)
}

/// Tries what is unclear and turns bad copies into findings.
pub(super) fn settle(run: &Run<'_>, index: &Index, mut suspects: Suspects) -> Result<()> {
    let unclear = std::mem::take(&mut suspects.unclear);
    let mut bad = std::mem::take(&mut suspects.bad);
    if !unclear.is_empty() || !suspects.missing.is_empty() {
        let all = index.iter(BlobKind::Data).chain(index.iter(BlobKind::Tree));
        let mut to_try: Vec<Location> = Vec::new();
        for location in all {
            if suspects.missing.contains_key(&location.pack) {
                let error = Error::new(ErrorKind::Corrupt, codes::PACK_MISSING, "the pack is missing");
                bad.push(Bad { pack: location.pack, blob: location.blob, error });
            } else if unclear.contains_key(&location.pack) {
                to_try.push(location);
            }
        }
        to_try.sort_unstable_by_key(|location| (location.pack, location.blob.offset_bytes));
        for location in to_try {
            run.check_not_cancelled()?;
            if let Err(error) = run.repository.read_at(&location) {
                bad.push(Bad { pack: location.pack, blob: location.blob, error: run.is_finding(error)? });
            }
        }
    }
    bad.sort_by_key(|bad| (bad.pack, bad.blob.offset_bytes));
    let cause = |pack: &PackId| suspects.missing.get(pack).copied().or(unclear.get(pack).copied().flatten());
    record(run, index, &bad, cause)
}

/// Blobs that are bad here and can't be had elsewhere are damage; the others are notes.
fn record(run: &Run<'_>, index: &Index, bad: &[Bad], cause: impl Fn(&PackId) -> Option<usize>) -> Result<()> {
    let places: HashSet<Place> = bad.iter().map(|bad| place(bad.pack, &bad.blob)).collect();
    let elsewhere = |blob: &PackedBlob| {
        let others =
            index.all(blob.kind, &blob.id).filter(|other| !places.contains(&place(other.pack, &other.blob)));
        others.into_iter().any(|other| run.repository.read_at(&other).is_ok())
    };
    let mut groups: BTreeMap<(PackId, Code, Severity), usize> = BTreeMap::new();
    for Bad { pack, blob, error } in bad {
        run.check_not_cancelled()?;
        let severity = if elsewhere(blob) { Severity::Note } else { Severity::Damage };
        let number = match cause(pack) {
            // The pack as a whole is damaged, which is said already; this blob is not lost.
            Some(_) if severity == Severity::Note => continue,
            Some(cause) => cause,
            None => *groups
                .entry((*pack, error.code(), severity))
                .or_insert_with(|| run.add(draft(*pack, blob, error, severity))),
        };
        let mut state = run.state();
        let draft = &mut state.drafts[number];
        draft.add_blob(blob.id);
        draft.offset_bytes.get_or_insert(u64::from(blob.offset_bytes));
        if severity == Severity::Damage {
            state.damaged.entry((blob.kind, blob.id)).or_default().push(number);
        }
    }
    Ok(())
}

fn draft(pack: PackId, blob: &PackedBlob, error: &Error, severity: Severity) -> Draft {
    let elsewhere = if severity == Severity::Note { "; another copy is whole" } else { "" };
    let message = format!("blob {}: {}{elsewhere}", blob.id.short(), error.message());
    Draft::new(severity, error.code(), object_name(Folder::Data, pack.0), message)
        .scope(if severity == Severity::Damage { Scope::Blobs } else { Scope::Nothing })
        .at(u64::from(blob.offset_bytes))
}

//! An intruder: data encrypted in place, backed up like that, and the repository attacked with what a writer may do.
//! `docs/drill.md`, "An intruder".
//!
//! What is done to the repository only adds to it. A local copy could not withstand more, whatever the real one does.

use super::{Context, Patient};
use crate::backup;
use crate::check::{self, Copy};
use crate::recover::{self, RecoveredComponent, run_restore};
use crate::watch::Note;
use jiff::Timestamp;
use retoma_core::drill::ControlResult;
use retoma_core::manifest::Component;
use retoma_core::{Error, ErrorKind, Result, ResultExt, error::codes};
use retoma_repo::backup::Progress;
use retoma_repo::{Repository, SnapshotId, restore};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// So many backups run before anybody notices.
const BACKUPS: usize = 2;

/// An attack that has happened.
#[derive(Debug)]
pub(super) struct Attack {
    /// Everything that was backed up until then is sound.
    pub(super) at: Timestamp,
    /// The newest snapshots of encrypted data, by component.
    encrypted: Vec<(String, SnapshotId)>,
    /// The text of the newest manifest from before, where there was one.
    manifest: Option<String>,
}

impl Attack {
    /// Attacks `repository` after the data were encrypted at `at`: backups run as the schedule would have them, and a manifest that
    /// starts something else is stored.
    ///
    /// # Errors
    /// `Cancelled`; the repository cannot be read or written. A backup that refuses what it sees is no error.
    pub(super) fn run(
        at: Timestamp,
        patient: &Patient,
        repository: &Repository,
        context: &Context<'_>,
    ) -> Result<Self> {
        let manifest = recover::stored_manifest(repository, None).ok().map(|(_, _, text)| text);
        let mut encrypted = Vec::new();
        for _ in 0..BACKUPS {
            encrypted.clear();
            for component in patient.manifest.recovery_order() {
                encrypted.extend(back_up(patient, component, repository, context)?);
            }
        }
        let forged = format!("{}# This line is the intruder's.\n", patient.manifest_text);
        let progress = Progress::default();
        let store = || backup::backup_manifest(&patient.manifest, &forged, repository, &progress);
        context.interrupt.during(&progress, store).context("store a forged manifest")?;
        Ok(Self { at, encrypted, manifest })
    }

    /// Adds to `recovered` whether it came from a snapshot that ended before the attack.
    ///
    /// # Errors
    /// The snapshot cannot be read.
    pub(super) fn judge(&self, repository: &Repository, recovered: &mut [RecoveredComponent]) -> Result<()> {
        for component in recovered {
            let until = repository.snapshot(component.snapshot)?.until();
            let (expected, found) = (format!("at most {}", self.at), until.to_string());
            let check = check::ran("snapshot from before the attack", until <= self.at, &expected, &found);
            component.checked.checks.push(check);
        }
        Ok(())
    }

    /// Encrypted data must be told from what was there before, and the manifest from before must still be had.
    ///
    /// # Errors
    /// `Cancelled`.
    pub(super) fn controls(
        &self,
        repository: &Repository,
        recovered: &[RecoveredComponent],
        scratch: &Path,
        context: &Context<'_>,
    ) -> Result<Vec<ControlResult>> {
        let mut results = Vec::new();
        let both = self.encrypted.iter().find_map(|(name, newest)| {
            // What has no bytes was not changed.
            let good = recovered.iter().find(|it| it.component == *name && it.checked.bytes > 0)?;
            Some((*newest, good))
        });
        if let Some((newest, good)) = both {
            let told = tell_apart(repository, newest, good, &scratch.join("encrypted"), context);
            let found = told.as_ref().err().map(|error| error.code().as_str());
            let detail = told.as_ref().map_or_else(ToString::to_string, |()| "accepted".to_owned());
            let expected = codes::CHECK_FAILED.as_str();
            results.push(ControlResult::negative("backup of encrypted data", expected, found, &detail));
        }
        if let Some(before) = &self.manifest {
            let had = recover::stored_manifest(repository, Some(self.at));
            let had =
                had.and_then(|(_, _, text)| if text == *before { Ok(()) } else { Err(other_manifest()) });
            let found = had.as_ref().err().map(|error| error.code().as_str());
            let detail = had.as_ref().map_or_else(ToString::to_string, |()| "accepted".to_owned());
            results.push(ControlResult::positive("manifest from before the attack", found, &detail));
        }
        context.interrupt.check()?;
        Ok(results)
    }
}

fn other_manifest() -> Error {
    Error::new(ErrorKind::Corrupt, codes::CHECK_FAILED, "the manifest from before the attack is another one")
}

/// A backup as the schedule makes it; none where it was refused.
fn back_up(
    patient: &Patient,
    component: &Component,
    repository: &Repository,
    context: &Context<'_>,
) -> Result<Option<(String, SnapshotId)>> {
    let progress = Progress::default();
    let done = context
        .interrupt
        .during(&progress, || backup::backup(&patient.manifest, component, repository, &progress));
    context.interrupt.check()?;
    let name = &component.name;
    let (what, stored) = match done {
        Ok(done) => (format!("`{name}` was backed up, encrypted"), Some((name.clone(), done.snapshot()))),
        Err(error) => {
            (format!("the backup of the encrypted `{name}` was refused: {} ({error})", error.code()), None)
        }
    };
    context.watch.note(&Note::Doing(what));
    Ok(stored)
}

/// Restores encrypted data, and compares them with the snapshot from before.
fn tell_apart(
    repository: &Repository,
    newest: SnapshotId,
    good: &RecoveredComponent,
    target: &Path,
    context: &Context<'_>,
) -> Result<()> {
    let index = repository.load_index()?;
    let (encrypted, before) = (repository.snapshot(newest)?, repository.snapshot(good.snapshot)?);
    let from = PathBuf::from(encrypted.paths.first().cloned().unwrap_or_default());
    let options =
        restore::Options { strip: Some(from.as_os_str().as_bytes().to_vec()), ..restore::Options::default() };
    run_restore(repository, &index, encrypted.tree, &options, target, context.interrupt)?;
    let name = from.file_name().filter(|_| !good.path.is_dir());
    let place = name.map_or_else(|| target.to_owned(), |name| target.join(name));
    let path = before.paths.first().cloned().unwrap_or_default();
    let copy = Copy {
        repository,
        index: &index,
        snapshot: (good.snapshot, &before),
        path: path.as_bytes(),
        place: &place,
    };
    let hashed = check::hashes::compare(&copy, context.interrupt)?;
    check::require_all(&good.component, &[hashed.check])
}

/// Overwrites every file at or below `root` with random bytes; names and sizes stay.
///
/// # Errors
/// What the file system says.
pub(super) fn encrypt(root: &Path) -> Result<()> {
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let failed = |error| Error::io(path.display(), error);
        // What vanishes while we look is the running service's.
        let Ok(metadata) = std::fs::symlink_metadata(&path) else { continue };
        if metadata.is_dir() {
            for entry in std::fs::read_dir(&path).map_err(failed)? {
                waiting.push(entry.map_err(failed)?.path());
            }
        } else if metadata.is_file() {
            let mut permissions = metadata.permissions();
            permissions.set_mode(permissions.mode() | 0o200);
            std::fs::set_permissions(&path, permissions).map_err(failed)?;
            overwrite(&path, metadata.len())?;
        }
    }
    Ok(())
}

fn overwrite(path: &Path, bytes: u64) -> Result<()> {
    let failed = |error| Error::io(path.display(), error);
    let mut file = std::fs::File::options().write(true).open(path).map_err(failed)?;
    let mut left = bytes;
    let mut noise = vec![0; 64 * 1024];
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(noise.len());
        retoma_repo::crypto::random(&mut noise[..part])?;
        file.write_all(&noise[..part]).map_err(failed)?;
        left -= part as u64;
    }
    file.sync_all().map_err(failed)
}

#[cfg(test)]
mod tests;

//! Keys: several ways to open the same repository. `docs/keys.md`.
//!
//! A key file seals the one master key under a password. Adding and removing them costs one write each; the data stay
//! as they are. Removing a key does not revoke what its holder has seen. The last key can't be removed.

use crate::format::lock::Holder;
use crate::format::recipient::Wrapping;
use crate::format::time::Time;
use crate::id::KeyId;
use crate::lock;
use crate::recipients;
use crate::repository::{Folder, Repository};
use retoma_core::{Error, ErrorKind, Result, ResultExt, Secret, error::codes};
use std::collections::BTreeSet;

/// What is known about a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyInfo {
    /// Its name.
    pub id: KeyId,
    /// Who made it.
    pub username: String,
    /// Where.
    pub hostname: String,
    /// When.
    pub created: Time,
    /// Whether it opened the repository this time.
    pub is_current: bool,
    /// How its password is wrapped; `None` when somebody knows it.
    pub wrapping: Option<Wrapping>,
}

impl KeyInfo {
    /// What it is called: `password`, or the kind of its recipient.
    pub fn kind(&self) -> &str {
        self.wrapping.as_ref().map_or("password", Wrapping::kind)
    }
}

/// What is listed.
#[derive(Debug)]
pub struct Listed {
    /// All keys, oldest first.
    pub keys: Vec<KeyInfo>,
    /// Recipients whose key is not there: what a killed `add` or `remove` left, or what somebody else put there.
    pub of_nothing: Vec<KeyId>,
    /// Recipients that could not be read.
    pub damaged: Vec<Error>,
}

/// All keys, oldest first.
///
/// # Errors
/// `Corrupt` when one is damaged; what the store says.
pub fn list(repository: &Repository) -> Result<Vec<KeyInfo>> {
    Ok(list_all(repository)?.keys)
}

/// All keys, and what `recipients/` holds beside them.
///
/// # Errors
/// `Corrupt` when a key is damaged; what the store says.
pub fn list_all(repository: &Repository) -> Result<Listed> {
    let known = recipients::read(repository.store())?;
    let info = |(id, file): (KeyId, crate::format::key::KeyFile)| KeyInfo {
        id,
        username: file.username,
        hostname: file.hostname,
        created: file.created,
        is_current: id == repository.key_id(),
        wrapping: known.of(id).cloned(),
    };
    let mut keys: Vec<KeyInfo> = repository.keys()?.into_iter().map(info).collect();
    keys.sort_by_key(|key| (key.created, key.id));
    let is_there = |key: &KeyId| keys.iter().any(|it| it.id == *key);
    let mut of_nothing: Vec<KeyId> =
        known.recipients.iter().map(|(_, it)| it.key).filter(|key| !is_there(key)).collect();
    of_nothing.dedup();
    Ok(Listed { keys, of_nothing, damaged: known.damaged })
}

/// Adds a key that opens the repository with `password`. One write.
///
/// # Errors
/// `Invalid` for an empty password; `Exhausted` with `R0219` for one too many; what the store says.
pub fn add(repository: &Repository, password: &Secret<String>) -> Result<KeyId> {
    repository.add_key(password).context("add a key")
}

/// Adds a key that opens the repository with `password`, which is wrapped so; without a wrapping, somebody knows it.
///
/// # Errors
/// As [`add`].
pub fn add_wrapped(
    repository: &Repository,
    password: &Secret<String>,
    wrapping: Option<Wrapping>,
) -> Result<KeyId> {
    match wrapping {
        Some(wrapping) => recipients::add(repository, password, wrapping).context("add a key"),
        None => add(repository, password),
    }
}

/// Removes the key whose id starts with `prefix`, then what tells how its password is had, and gives its id. Under a lock:
/// two that remove each other's key at once would leave none. A recipient whose key is gone already is removed too.
///
/// # Errors
/// `NotFound` with `R0301`, `Invalid` with `R0212` when several fit and with `R0210` for the key that opened the
/// repository or the last one; `Conflict` with `R0601` while somebody else deletes; what the store says.
pub fn remove(repository: &Repository, prefix: &str) -> Result<KeyId> {
    let guard = lock::acquire(repository, Holder::Prune)?;
    let id = find(repository, prefix)?;
    remove_both(repository, id)?;
    guard.release();
    Ok(id)
}

/// The key first: it is what opens. Killed in between, a recipient of nothing is left.
fn remove_both(repository: &Repository, id: KeyId) -> Result<()> {
    if repository.list(Folder::Keys)?.iter().any(|(known, _)| *known == id.0) {
        repository.remove_key(id).context("remove a key")?;
    }
    recipients::forget(repository.store(), id)
}

/// Replaces the key that opened the repository by one for `password`, and gives the repository opened with it.
///
/// # Errors
/// As [`rotate`].
pub fn change_password(repository: &Repository, password: &Secret<String>) -> Result<Repository> {
    rotate(repository, &repository.key_id().to_hex(), password, None)
}

/// Replaces the key whose id starts with `old` by one for `password`, and gives the repository opened with the new one. The data
/// stay as they are. The new key is written and has opened before the old one is deleted: whoever is killed in between has both.
///
/// # Errors
/// `NotFound` with `R0301`, `Invalid` with `R0212` when several keys fit; `Invalid` for an empty password; `Conflict` with
/// `R0601` while somebody else deletes; what the store says.
pub fn rotate(
    repository: &Repository,
    old: &str,
    password: &Secret<String>,
    wrapping: Option<Wrapping>,
) -> Result<Repository> {
    let guard = lock::acquire(repository, Holder::Prune)?;
    let old = find(repository, old)?;
    let new = add_wrapped(repository, password, wrapping)?;
    let reopened = Repository::open(repository.store().clone(), password).context("open with the new key")?;
    if reopened.key_id() == old {
        // The new password is the old one: both keys open, and the older was found first.
        repository.store().delete(&Folder::Keys.key(&new.to_hex())?)?;
        recipients::forget(repository.store(), new)?;
        return Ok(reopened);
    }
    remove_both(&reopened, old)?;
    guard.release();
    Ok(reopened)
}

fn find(repository: &Repository, prefix: &str) -> Result<KeyId> {
    let keys = repository.list(Folder::Keys)?.into_iter().map(|(id, _)| KeyId(id));
    let left = recipients::read(repository.store())?.recipients.into_iter().map(|(_, it)| it.key);
    let fits = |id: &KeyId| !prefix.is_empty() && id.to_hex().starts_with(prefix);
    let fitting: BTreeSet<KeyId> = keys.chain(left).filter(fits).collect();
    let mut fitting = fitting.into_iter();
    let shown: String = prefix.chars().take(64).collect();
    let shown = shown.escape_debug();
    match (fitting.next(), fitting.next()) {
        (Some(id), None) => Ok(id),
        (None, _) => {
            let message = format!("the repository has no key `{shown}`");
            Err(Error::new(ErrorKind::NotFound, codes::OBJECT_NOT_FOUND, message)
                .with_hint("`retoma key list` shows the keys"))
        }
        (Some(_), Some(_)) => {
            let message = format!("`{shown}` fits several keys");
            Err(Error::new(ErrorKind::Invalid, codes::AMBIGUOUS_ID, message).with_hint("give more digits"))
        }
    }
}

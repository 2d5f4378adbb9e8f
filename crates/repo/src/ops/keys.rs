//! Keys: several passwords that open the same repository.
//!
//! A key file seals the one master key under a password. Adding and removing them costs one write each; the data stay
//! as they are. Removing a key does not revoke what its holder has seen. The last key can't be removed.

use crate::format::lock::Holder;
use crate::format::time::Time;
use crate::id::KeyId;
use crate::lock;
use crate::repository::{Folder, Repository};
use retoma_core::{Error, ErrorKind, Result, ResultExt, Secret, error::codes};

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
}

/// All keys, oldest first.
///
/// # Errors
/// `Corrupt` when one is damaged; what the store says.
pub fn list(repository: &Repository) -> Result<Vec<KeyInfo>> {
    let info = |(id, file): (KeyId, crate::format::key::KeyFile)| KeyInfo {
        id,
        username: file.username,
        hostname: file.hostname,
        created: file.created,
        is_current: id == repository.key_id(),
    };
    let mut keys: Vec<KeyInfo> = repository.keys()?.into_iter().map(info).collect();
    keys.sort_by_key(|key| (key.created, key.id));
    Ok(keys)
}

/// Adds a key that opens the repository with `password`. One write.
///
/// # Errors
/// `Invalid` for an empty password; `Exhausted` with `R0219` for one too many; what the store says.
pub fn add(repository: &Repository, password: &Secret<String>) -> Result<KeyId> {
    repository.add_key(password).context("add a key")
}

/// Removes the key whose id starts with `prefix`, and gives its id. One deletion, under a lock: two that remove each
/// other's key at once would leave none.
///
/// # Errors
/// `NotFound` with `R0301`, `Invalid` with `R0212` when several fit and with `R0210` for the key that opened the
/// repository or the last one; `Conflict` with `R0601` while somebody else deletes; what the store says.
pub fn remove(repository: &Repository, prefix: &str) -> Result<KeyId> {
    let guard = lock::acquire(repository, Holder::Prune)?;
    let id = find(repository, prefix)?;
    repository.remove_key(id).context("remove a key")?;
    guard.release();
    Ok(id)
}

/// Replaces the key that opened the repository by one for `password`, and gives the repository opened with it. The new
/// key is written and opened before the old one is deleted: whoever is killed in between has both.
///
/// # Errors
/// `Invalid` for an empty password; `Conflict` with `R0601` while somebody else deletes; what the store says.
pub fn change_password(repository: &Repository, password: &Secret<String>) -> Result<Repository> {
    let guard = lock::acquire(repository, Holder::Prune)?;
    let old = repository.key_id();
    let new = add(repository, password)?;
    let reopened = Repository::open(repository.store().clone(), password).context("open with the new key")?;
    if reopened.key_id() == old {
        // The new password is the old one: both keys open, and the older was found first.
        repository.store().delete(&Folder::Keys.key(&new.to_hex())?)?;
        return Ok(reopened);
    }
    reopened.remove_key(old).context("remove the old key")?;
    guard.release();
    Ok(reopened)
}

fn find(repository: &Repository, prefix: &str) -> Result<KeyId> {
    let keys = repository.list(Folder::Keys)?;
    let fits = |id: &KeyId| !prefix.is_empty() && id.to_hex().starts_with(prefix);
    let mut fitting = keys.into_iter().map(|(id, _)| KeyId(id)).filter(fits);
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

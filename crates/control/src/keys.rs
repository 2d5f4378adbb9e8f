//! New keys, whatever wraps their passwords: what people keep is durable first, then the repository gets its halves, then what was
//! written is read back and opens. `docs/keys.md`, "Order of writes".

use crate::durable::{self, PRIVATE};
use crate::open::secret;
use crate::transit;
use crate::unlock::read_share;
use retoma_core::manifest::{self, Manifest, SecretRef, TransitKey};
use retoma_core::render::{Language, share as page};
use retoma_core::{Error, ErrorKind, Result, ResultExt, Secret, error::codes};
use retoma_repo::Repository;
use retoma_repo::format::recipient::Wrapping;
use retoma_repo::id::KeyId;
use retoma_repo::ops::keys;
use retoma_repo::recipients;
use retoma_repo::shares;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

/// Which key is wanted.
#[derive(Debug)]
pub enum Wanted {
    /// A password that somebody knows.
    Password(Secret<String>),
    /// A split one.
    Shares {
        /// How many shares open.
        threshold: u8,
        /// How many there are.
        total: u8,
        /// Where their files are written.
        folder: PathBuf,
        /// The language of their pages.
        language: Language,
    },
    /// A random password in a file.
    KeyFile(PathBuf),
    /// A random password that a transit engine wraps.
    Transit(TransitKey),
}

/// What the pages of shares say beside the share.
#[derive(Debug, Clone, Copy)]
pub struct About<'a> {
    /// The manifest.
    pub manifest: &'a Manifest,
    /// The repository that gets the key.
    pub described: &'a manifest::Repository,
    /// The version of this program.
    pub version: &'a str,
}

/// A key that was made.
#[derive(Debug)]
pub struct Made {
    /// Its name.
    pub id: KeyId,
    /// What was written for people to keep.
    pub files: Vec<PathBuf>,
    /// The repository, opened with it.
    pub repository: Repository,
}

/// A password that is not in the repository yet.
struct New {
    password: Secret<String>,
    wrapping: Option<Wrapping>,
    files: Vec<PathBuf>,
}

/// Adds a key, or puts it in place of the one whose id starts with `instead_of`.
///
/// # Errors
/// `Conflict` with `R0502` when a file that would be written is there; as [`keys::add`] and [`keys::rotate`].
pub fn make(
    repository: &Repository,
    wanted: &Wanted,
    instead_of: Option<&str>,
    about: About<'_>,
) -> Result<Made> {
    let new = prepare(wanted, about)?;
    let write = || {
        if let Some(old) = instead_of {
            return keys::rotate(repository, old, &new.password, new.wrapping.clone());
        }
        keys::add_wrapped(repository, &new.password, new.wrapping.clone())?;
        Repository::open(repository.store().clone(), &new.password).context("open with the new key")
    };
    match write() {
        Ok(opened) => {
            prove(&opened, &new, wanted)?;
            Ok(Made { id: opened.key_id(), files: new.files, repository: opened })
        }
        Err(error) => {
            // They might open: what failed may have been done nevertheless. Only what surely opens nothing is taken away.
            let is_there = Repository::open(repository.store().clone(), &new.password);
            if is_there.is_err_and(|error| error.code() == codes::WRONG_KEY) {
                new.files.iter().for_each(|file| drop(std::fs::remove_file(file)));
            }
            Err(error)
        }
    }
}

fn prepare(wanted: &Wanted, about: About<'_>) -> Result<New> {
    match wanted {
        Wanted::Password(password) => {
            Ok(New { password: password.clone(), wrapping: None, files: Vec::new() })
        }
        Wanted::KeyFile(path) => {
            refuse_existing(path)?;
            let password = recipients::new_password()?;
            let text = zeroize::Zeroizing::new(format!("{}\n", password.expose()));
            durable::write(path, text.as_bytes(), PRIVATE)?;
            Ok(New { password, wrapping: Some(Wrapping::KeyFile), files: vec![path.clone()] })
        }
        Wanted::Transit(key) => {
            let password = recipients::new_password()?;
            let wrapping = Some(transit::wrap(key, &password)?);
            Ok(New { password, wrapping, files: Vec::new() })
        }
        Wanted::Shares { threshold, total, folder, language } => {
            let split = shares::split(*threshold, *total)?;
            let files = write_shares(&split.shares, folder, *language, about)?;
            Ok(New { wrapping: Some(split.wrapping()), password: split.password, files })
        }
    }
}

/// Two files for each share, none of which is there already.
fn write_shares(
    shares: &[retoma_core::share::Share],
    folder: &Path,
    language: Language,
    about: About<'_>,
) -> Result<Vec<PathBuf>> {
    let About { manifest, described, version } = about;
    let path = |index: u8, ending: &str| {
        folder.join(format!("{}-share-{index}-of-{}.{ending}", described.name, shares.len()))
    };
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder);
    made.map_err(|error| Error::io(folder.display(), error))?;
    let mut files = Vec::new();
    for share in shares {
        for ending in ["txt", "html"] {
            refuse_existing(&path(share.index(), ending))?;
        }
    }
    for share in shares {
        let (text, html) = (path(share.index(), "txt"), path(share.index(), "html"));
        durable::write(&text, page::file(manifest, described, share).as_bytes(), PRIVATE)?;
        let page = zeroize::Zeroizing::new(page::page(manifest, described, share, version, language));
        durable::write(&html, page.as_bytes(), PRIVATE)?;
        files.extend([text, html]);
    }
    Ok(files)
}

fn refuse_existing(path: &Path) -> Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(Error::io(path.display(), error)),
        Ok(_) => {
            let message = format!("{} is there already, and may be a key that opens", path.display());
            Err(Error::new(ErrorKind::Conflict, codes::RESTORE_TARGET, message)
                .with_hint("name another place, or move it away"))
        }
    }
}

/// What people will keep opens the repository, as it lies on the disk.
fn prove(opened: &Repository, new: &New, wanted: &Wanted) -> Result<()> {
    let proven = match wanted {
        Wanted::Password(_) => return Ok(()),
        Wanted::KeyFile(path) => {
            let password = secret(&SecretRef::File(path.clone()))?;
            password.expose() == new.password.expose()
        }
        Wanted::Transit(key) => transit::open(opened.store(), key)?.1.expose() == new.password.expose(),
        Wanted::Shares { threshold, .. } => {
            let texts = new.files.iter().filter(|file| file.extension().is_some_and(|it| it == "txt"));
            let read = texts.map(|file| read_share(file)).collect::<Result<Vec<_>>>()?;
            let last = read.len().saturating_sub(usize::from(*threshold));
            shares::open(opened.store(), &read[last..])?.0.key_id() == opened.key_id()
        }
    };
    if proven { Ok(()) } else { Err(Error::internal("what was written does not open the repository")) }
}

#[cfg(test)]
mod tests;

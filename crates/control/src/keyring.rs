//! The keys of repositories that this process has opened, so that it and its children need not derive them again: a
//! derivation takes 32 MiB and some tenths of a second, by design.
//!
//! Only the agent keeps keys, and only its children get them, by a pipe that is their standard input: never by arguments,
//! the environment or a file. What is kept opens repositories that a manifest describes; who gives a password has it tried.
//! A key that fits no repository any more is no error: then the password is asked for.

use retoma_core::{Error, Result};
use retoma_repo::Repository;
use retoma_repo::handover::{self, HandedKey, LIMIT_BYTES};
use retoma_repo::store::BlockingStore;
use std::io::{PipeReader, Write as _};
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use zeroize::Zeroizing;

/// One for the process, as its children are: whoever opens a repository deep inside knows of no agent. `None`: not kept.
static RING: Mutex<Option<Vec<HandedKey>>> = Mutex::new(None);

/// Keys are kept until this is dropped, and overwritten then, but for those of repositories that are still open.
#[derive(Debug)]
pub struct Kept(());

impl Drop for Kept {
    fn drop(&mut self) {
        *ring() = None;
    }
}

fn ring() -> MutexGuard<'static, Option<Vec<HandedKey>>> {
    RING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Keeps the keys of what is opened from now on.
pub fn keep() -> Kept {
    ring().get_or_insert_default();
    Kept(())
}

/// Takes the keys that the agent handed over on standard input, and leaves nothing there to read for anybody else. To be
/// called first of all.
///
/// # Errors
/// Standard input cannot be read or replaced.
pub fn receive() -> Result<Kept> {
    let failed = |errno: rustix::io::Errno| Error::io("the keys from the agent", errno.into());
    let bytes = read(rustix::stdio::stdin()).map_err(failed)?;
    let nothing = std::fs::File::open("/dev/null").map_err(|error| Error::io("/dev/null", error))?;
    rustix::stdio::dup2_stdin(&nothing).map_err(failed)?;
    *ring() = Some(handover::unpack(&bytes));
    Ok(Kept(()))
}

/// Everything up to the end. The standard library's reader would keep a copy in its buffer.
fn read(input: impl AsFd) -> rustix::io::Result<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(vec![0; LIMIT_BYTES]);
    let mut length = 0;
    while length < bytes.len() {
        match rustix::io::read(&input, &mut bytes[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    bytes.truncate(length);
    Ok(bytes)
}

/// A pipe with all keys that are kept, perhaps none, for the standard input of one child.
///
/// # Errors
/// The system has no pipe.
pub(crate) fn pipe() -> std::io::Result<PipeReader> {
    let packed = handover::pack(ring().as_deref().unwrap_or_default());
    // It fits into the pipe, so nobody has to read yet. Its end is the end of what is written.
    let (reader, mut writer) = std::io::pipe()?;
    writer.write_all(&packed)?;
    Ok(reader)
}

/// A pipe with no key, for who is to show that the password opens.
///
/// # Errors
/// The system has no pipe.
pub(crate) fn empty_pipe() -> std::io::Result<PipeReader> {
    std::io::pipe().map(|(reader, _)| reader)
}

/// The repository there, if its key is kept.
///
/// # Errors
/// What the store says.
pub(crate) fn open(store: &BlockingStore) -> Result<Option<Repository>> {
    let keys = ring().clone().unwrap_or_default();
    if keys.is_empty() { Ok(None) } else { Repository::open_with(store.clone(), &keys) }
}

/// Keeps the key of a repository that was opened with its password; nothing where keys are not kept.
pub(crate) fn note(repository: &Repository) {
    let key = HandedKey::of(repository);
    if let Some(keys) = ring().as_mut() {
        keys.retain(|known| known.repository() != key.repository());
        keys.push(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::open::{address, open_repository, open_store};
    use retoma_core::error::codes;
    use retoma_core::manifest::{self, Scheme, SecretRef};
    use retoma_repo::ops::keys;
    use std::os::fd::OwnedFd;
    use std::path::Path;

    fn described(folder: &Path, name: &str) -> manifest::Repository {
        let password = folder.join("password");
        crate::durable::write(&password, b"one", crate::durable::PRIVATE).unwrap();
        manifest::Repository {
            name: name.to_owned(),
            url: format!("file://{}/{name}", folder.display()),
            scheme: Scheme::File,
            password: SecretRef::File(password),
            copy_of: None,
            region: None,
            lock: None,
            price: None,
        }
    }

    fn store(described: &manifest::Repository) -> BlockingStore {
        open_store(&address(described).unwrap()).unwrap()
    }

    #[test]
    fn keys_go_through_a_pipe_and_open_their_own_repository_alone() {
        let folder = tempfile::tempdir().unwrap();
        let (near, far) = (described(folder.path(), "near"), described(folder.path(), "far"));
        let opened = open_repository(&near, true).unwrap().repository;
        open_repository(&far, true).unwrap();
        let (reader, mut writer) = std::io::pipe().unwrap();
        writer.write_all(&handover::pack(&[HandedKey::of(&opened)])).unwrap();
        drop(writer);
        let keys = handover::unpack(&read(OwnedFd::from(reader)).unwrap());
        let again = Repository::open_with(store(&near), &keys).unwrap().unwrap();
        assert_eq!((again.config(), again.key_id()), (opened.config(), opened.key_id()));
        assert!(Repository::open_with(store(&far), &keys).unwrap().is_none(), "another's key");
        // The same key, with the name of another repository, as after a copy whose config was made anew.
        let mut bytes = handover::pack(&keys).to_vec();
        bytes[16] ^= 1;
        assert!(Repository::open_with(store(&near), &handover::unpack(&bytes)).unwrap().is_none());
        std::fs::remove_dir_all(folder.path().join("far")).unwrap();
        assert!(Repository::open_with(store(&far), &keys).unwrap().is_none(), "no repository");
    }

    #[test]
    fn a_key_whose_password_was_removed_opens_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let near = described(folder.path(), "near");
        let opened = open_repository(&near, true).unwrap().repository;
        let handed = [HandedKey::of(&opened)];
        opened.add_key(&retoma_core::Secret::new("two".to_owned())).unwrap();
        let before: Vec<_> = keys::list(&opened).unwrap().iter().map(|key| key.id).collect();
        assert_eq!(before.len(), 2);
        std::fs::remove_file(folder.path().join("near/keys").join(opened.key_id().to_hex())).unwrap();
        assert!(Repository::open_with(store(&near), &handed).unwrap().is_none());
    }

    /// The one test that keeps keys for the process: what is kept is seen by every other.
    #[test]
    fn what_was_opened_once_is_opened_again_without_its_password_as_long_as_keys_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let near = described(folder.path(), "near");
        let kept = keep();
        open_repository(&near, true).unwrap();
        std::fs::remove_file(folder.path().join("password")).unwrap();
        assert!(!open_repository(&near, false).unwrap().created);
        let keys = handover::unpack(&read(OwnedFd::from(pipe().unwrap())).unwrap());
        assert!(Repository::open_with(store(&near), &keys).unwrap().is_some());
        drop(kept);
        assert_eq!(open_repository(&near, false).unwrap_err().code(), codes::SECRET_MISSING);
        assert!(handover::unpack(&read(OwnedFd::from(pipe().unwrap())).unwrap()).is_empty());
    }
}

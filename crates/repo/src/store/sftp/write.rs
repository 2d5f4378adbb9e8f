//! The order of a durable put and delete on a server; `docs/stores.md` has it step by step.

use super::Inner;
use super::failure;
use super::files::Handle;
use super::session::{Failure, Session, status};
use super::wire::{CREATE_NEW, FSYNC, HARD_LINK, POSIX_RENAME, READ};
use crate::store::file::TEMPORARY_MARK;
use crate::store::{Key, PutMode, error};
use bytes::Bytes;
use futures::future::BoxFuture;
use retoma_core::{Error, Result};
use std::sync::PoisonError;
use std::sync::atomic::Ordering;

/// The name of the folder of a key; `""` is the root.
fn folder_of(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(folder, _)| folder)
}

/// Writes an object, durably.
pub(super) async fn put(
    inner: &Inner,
    session: &Session,
    key: &Key,
    data: &Bytes,
    mode: PutMode,
) -> Result<()> {
    for needed in [FSYNC, HARD_LINK, POSIX_RENAME] {
        if !session.offers(needed) {
            let why = format!("it has no `{needed}`, without which no write is safe");
            return Err(failure::unsupported(&inner.location, &why));
        }
    }
    let put = Put { inner, session, key, data, mode };
    let outcome = match put.attempt().await {
        // Somebody removed the folder since we made it. A root that was there and is not is a disk that is not mounted,
        // or a repository that was moved: it is not made anew.
        Err(Refused { failure, .. }) if failure.is(status::NO_SUCH_FILE) && put.root_is_there().await => {
            inner.durable.lock().unwrap_or_else(PoisonError::into_inner).clear();
            put.attempt().await
        }
        other => other,
    };
    match outcome {
        Ok(()) => Ok(()),
        Err(Refused { error: Some(error), .. }) => Err(error),
        Err(Refused { failure, error: None }) => Err(put.unwritten(&failure, "").await),
    }
}

/// A step that failed; with an error when the failure alone does not tell.
struct Refused {
    failure: Failure,
    error: Option<Error>,
}

impl From<Failure> for Refused {
    fn from(failure: Failure) -> Self {
        Self { failure, error: None }
    }
}

struct Put<'a> {
    inner: &'a Inner,
    session: &'a Session,
    key: &'a Key,
    data: &'a Bytes,
    mode: PutMode,
}

impl Put<'_> {
    async fn attempt(&self) -> Result<(), Refused> {
        let (inner, session) = (self.inner, self.session);
        let (folder, path) = (folder_of(self.key.as_str()), inner.target.path(self.key.as_str()));
        make_durable(inner, session, folder).await.map_err(|failure| self.in_the_way(failure))?;
        // Looking first saves writing what can't be kept; the atomic step decides.
        if self.mode == PutMode::Create && session.link_status(path.clone()).await.is_ok() {
            return self.exists(folder).await;
        }
        let temporary = inner.target.path(&temporary_name(folder)?);
        let handle = session.open(temporary.clone(), CREATE_NEW).await?;
        let published = self.publish(&handle, &temporary, &path).await;
        session.close(handle).await;
        let Err(failure) = published else { return Ok(sync_folder(inner, session, folder).await?) };
        // Before the temporary file goes: then there may be room again.
        let refused = self.explained(failure, folder, &path).await;
        let _is_removed = session.remove(temporary).await.is_ok();
        match refused {
            None => self.exists(folder).await,
            Some(refused) => Err(refused),
        }
    }

    /// Writes the contents, and gives them their name when they are on the disk.
    async fn publish(&self, handle: &Handle, temporary: &Bytes, path: &Bytes) -> Result<(), Failure> {
        let session = self.session;
        session.write(handle, self.data).await?;
        session.fsync(handle).await?;
        if self.mode == PutMode::Overwrite {
            return session.posix_rename(temporary.clone(), path.clone()).await;
        }
        session.hard_link(temporary.clone(), path.clone()).await?;
        // What can't be removed now is a leftover, which `remove_leftovers` takes later; the object stays.
        let _is_removed = session.remove(temporary.clone()).await.is_ok();
        Ok(())
    }

    /// Why the object was not written; `None` when its name is taken.
    async fn explained(&self, failure: Failure, folder: &str, path: &Bytes) -> Option<Refused> {
        if matches!(failure, Failure::Status { .. }) && !failure.is(status::NO_SUCH_FILE) {
            match (self.mode, self.session.link_status(path.clone()).await) {
                (PutMode::Create, Ok(_)) => return None,
                (PutMode::Overwrite, Ok(there)) if there.is_folder() => return Some(self.is_folder(failure)),
                _ => {}
            }
        }
        let error = self.unwritten(&failure, folder).await;
        Some(Refused { failure, error: Some(error) })
    }

    /// The error of a write, by what room the file system has.
    async fn unwritten(&self, failure: &Failure, folder: &str) -> Error {
        let room = self.session.room(self.inner.target.path(folder)).await;
        let size_bytes = self.data.len().max(1);
        failure::refused_write(&self.inner.location, self.key, failure, room, size_bytes)
    }

    fn is_folder(&self, failure: Failure) -> Refused {
        let error = error::exists(&self.inner.location, self.key)
            .with_hint("a name cannot be an object and a folder at once");
        Refused { failure, error: Some(error) }
    }

    /// A part of the folder's name that is an object is said as such.
    fn in_the_way(&self, failure: Failure) -> Refused {
        match failure {
            Failure::Nonsense(NOT_A_FOLDER) => self.is_folder(failure),
            other => other.into(),
        }
    }

    /// The object may be our own, from an attempt whose sync of the folder failed: whoever compares it and calls it
    /// written must be right.
    async fn exists(&self, folder: &str) -> Result<(), Refused> {
        sync_folder(self.inner, self.session, folder).await?;
        let error = error::exists(&self.inner.location, self.key);
        Err(Refused { failure: Failure::Nonsense("it exists"), error: Some(error) })
    }

    async fn root_is_there(&self) -> bool {
        let root = self.session.status(self.inner.target.path("")).await;
        root.is_ok_and(|attributes| attributes.is_folder())
    }
}

/// The name is random, since another host may write to the same folder.
fn temporary_name(folder: &str) -> Result<String, Refused> {
    let number = getrandom::u64().map_err(|error| Refused {
        failure: Failure::Nonsense("no random number"),
        error: Some(Error::internal(format!("the system has no random numbers: {error}"))),
    })?;
    let slash = if folder.is_empty() { "" } else { "/" };
    Ok(format!("{folder}{slash}{TEMPORARY_MARK}{number:016x}"))
}

/// Deletes an object, durably; one that is not there counts as deleted.
pub(super) async fn delete(inner: &Inner, session: &Session, key: &Key) -> Result<()> {
    let path = inner.target.path(key.as_str());
    let failed = |failure: Failure| inner.failed(key, &failure);
    match session.remove(path.clone()).await {
        Ok(()) => {}
        Err(failure) if failure.is(status::NO_SUCH_FILE) => {}
        // A folder is no object. The protocol has no word for it.
        Err(failure) => match session.link_status(path).await {
            Ok(there) if there.is_folder() => return Ok(()),
            Err(gone) if gone.is(status::NO_SUCH_FILE) => {}
            _ => return Err(failed(failure)),
        },
    }
    // Also when it was gone already: an earlier attempt may have failed in just this step.
    match sync_folder(inner, session, folder_of(key.as_str())).await {
        Err(failure) if !failure.is(status::NO_SUCH_FILE) => Err(failed(failure)),
        _ => Ok(()),
    }
}

/// Makes the names in a folder durable, where the server lets folders be opened (OpenSSH does, on systems that do).
async fn sync_folder(inner: &Inner, session: &Session, folder: &str) -> Result<(), Failure> {
    sync_path(session, inner.target.path(folder)).await
}

async fn sync_path(session: &Session, path: Bytes) -> Result<(), Failure> {
    let handle = match session.open(path, READ).await {
        Ok(handle) => handle,
        // It says no to folders, or to this one: a folder above the root may be closed to us.
        Err(failure @ Failure::Status { .. }) if !failure.is(status::NO_SUCH_FILE) => return Ok(()),
        Err(failure) => return Err(failure),
    };
    let synced = session.fsync(&handle).await;
    session.close(handle).await;
    match synced {
        // Some file systems can't sync a folder and say so (`EINVAL`); there is no more that can be done there.
        Err(failure) if failure.is(status::BAD_MESSAGE) || failure.is(status::UNSUPPORTED) => Ok(()),
        other => other,
    }
}

/// In the way of a folder lies something else.
const NOT_A_FOLDER: &str = "something else than a folder has a folder's name";

/// Makes a folder with its parents, and their names durable; once a process.
fn make_durable<'a>(
    inner: &'a Inner,
    session: &'a Session,
    folder: &'a str,
) -> BoxFuture<'a, Result<(), Failure>> {
    Box::pin(async move {
        let known =
            |folder: &str| inner.durable.lock().unwrap_or_else(PoisonError::into_inner).contains(folder);
        if known(folder) {
            return Ok(());
        }
        if folder.is_empty() {
            make_root(inner, session).await?;
        } else {
            make_durable(inner, session, folder_of(folder)).await?;
            make_folder(session, inner.target.path(folder)).await?;
            sync_folder(inner, session, folder_of(folder)).await?;
        }
        inner.durable.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.to_owned());
        Ok(())
    })
}

async fn make_root(inner: &Inner, session: &Session) -> Result<(), Failure> {
    let root = inner.target.path("");
    match session.status(root.clone()).await {
        Ok(there) if there.is_folder() => return sync_path(session, parent(&root)).await,
        Ok(_) => return Err(Failure::Nonsense(NOT_A_FOLDER)),
        Err(failure) if failure.is(status::NO_SUCH_FILE) && !inner.is_there.load(Ordering::Relaxed) => {}
        Err(failure) => return Err(failure),
    }
    // From the top: each folder is there before the next is made in it.
    let ends = root.iter().enumerate().skip(1).filter(|(_, byte)| **byte == b'/').map(|(at, _)| at);
    for end in ends.chain([root.len()]) {
        let folder = root.slice(..end);
        match session.status(folder.clone()).await {
            Ok(there) if there.is_folder() => {}
            _ => {
                make_folder(session, folder.clone()).await?;
                sync_path(session, parent(&folder)).await?;
            }
        }
    }
    Ok(())
}

fn parent(path: &Bytes) -> Bytes {
    match path.iter().rposition(|byte| *byte == b'/') {
        Some(0) => Bytes::from_static(b"/"),
        Some(at) => path.slice(..at),
        None => Bytes::from_static(b"."),
    }
}

/// One that is there already is as good.
async fn make_folder(session: &Session, path: Bytes) -> Result<(), Failure> {
    let failure = match session.make_folder(path.clone()).await {
        Ok(()) => return Ok(()),
        Err(failure) => failure,
    };
    match session.status(path).await {
        Ok(there) if there.is_folder() => Ok(()),
        Ok(_) => Err(Failure::Nonsense(NOT_A_FOLDER)),
        Err(_) => Err(failure),
    }
}

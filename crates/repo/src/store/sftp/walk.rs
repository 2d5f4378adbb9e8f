//! Going through the folders of a server: listings, and the removal of temporary files of killed writers.

use super::session::{Failure, Session, status};
use super::wire::{Attributes, Entry};
use super::{Inner, SftpStore};
use crate::store::file::TEMPORARY_MARK;
use crate::store::{Key, Leftovers, ObjectMeta};
use futures::future::try_join_all;
use futures::stream::{self, Stream, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use retoma_core::{Error, ErrorKind, Result};

/// A folder with so many segments can hold no object, since names have no more; links go round in a circle.
const MAX_DEPTH: usize = 16;
/// Folders read at once: a repository has 256 folders of packs, and each takes some ways to the server and back.
const FOLDERS_AT_ONCE: usize = 16;

/// What one folder holds: objects, and the names of folders in it.
#[derive(Default)]
struct Folder {
    objects: Vec<ObjectMeta>,
    folders: Vec<String>,
}

/// Every object below `folder`, some folders read at a time.
pub(super) fn objects<'a>(
    store: &'a SftpStore,
    folder: &str,
) -> impl Stream<Item = Result<ObjectMeta>> + use<'a> {
    let first = match folder {
        "" => vec![Ok(String::new())],
        name => vec![Key::new(name).map(|key| key.as_str().to_owned())],
    };
    stream::try_unfold(first, move |mut waiting| async move {
        if waiting.is_empty() {
            return Ok(None);
        }
        let now = waiting.split_off(waiting.len().saturating_sub(FOLDERS_AT_ONCE));
        let now = now.into_iter().collect::<Result<Vec<String>>>()?;
        let read = now.into_iter().map(|name| {
            store.run(move |inner, session| async move { read_folder(&inner, &session, &name).await })
        });
        let mut objects = Vec::new();
        for found in try_join_all(read).await? {
            waiting.extend(found.folders.into_iter().map(Ok));
            objects.extend(found.objects);
        }
        Ok::<_, Error>(Some((stream::iter(objects).map(Ok), waiting)))
    })
    .try_flatten()
}

/// Files that are no objects (temporary names, `lost+found`, notes of a person) are passed over.
async fn read_folder(inner: &Inner, session: &Session, name: &str) -> Result<Folder> {
    let mut found = Folder::default();
    for entry in entries(inner, session, name).await? {
        let Some(key) = key_of(name, &entry) else { continue };
        let Some(attributes) = followed(inner, session, &key, &entry).await? else { continue };
        if attributes.is_file() {
            found.objects.push(object_meta(key, &attributes));
        } else if attributes.is_folder() {
            found.folders.push(key.as_str().to_owned());
        }
    }
    Ok(found)
}

/// Removes temporary files last written before `modified_before`, in all folders.
pub(super) async fn remove_leftovers(
    inner: &Inner,
    session: &Session,
    modified_before: Timestamp,
) -> Result<Leftovers> {
    let mut removed = Leftovers::default();
    let mut waiting = vec![String::new()];
    while let Some(name) = waiting.pop() {
        for entry in entries(inner, session, &name).await? {
            if let Some(key) = key_of(&name, &entry) {
                let attributes = followed(inner, session, &key, &entry).await?;
                if attributes.is_some_and(|attributes| attributes.is_folder()) {
                    waiting.push(key.as_str().to_owned());
                }
                continue;
            }
            let Some(temporary) = temporary_of(&name, &entry) else { continue };
            if !entry.attributes.is_file() || modified(&entry.attributes) >= modified_before {
                continue;
            }
            match session.remove(inner.target.path(&temporary)).await {
                Ok(()) => {
                    removed.count += 1;
                    removed.size_bytes += entry.attributes.size_bytes.unwrap_or_default();
                }
                Err(failure) if failure.is(status::NO_SUCH_FILE) => {}
                Err(failure) => return Err(inner.failed(temporary, &failure)),
            }
        }
    }
    Ok(removed)
}

/// What is in a folder; nothing is in one that is not there.
async fn entries(inner: &Inner, session: &Session, folder: &str) -> Result<Vec<Entry>> {
    if folder.split('/').count() >= MAX_DEPTH {
        let message =
            format!("folders in `{}` lie deeper than `{MAX_DEPTH}` levels: `{folder}`", inner.location);
        return Err(Error::new(ErrorKind::Invalid, retoma_core::error::codes::STORE_ADDRESS, message)
            .with_hint("look for a link that points to a folder above it"));
    }
    match session.entries(inner.target.path(folder)).await {
        Err(failure) if failure.is(status::NO_SUCH_FILE) => Ok(Vec::new()),
        // Not every server has a word for "that is no folder".
        Err(failure @ Failure::Status { .. }) => {
            let there = session.status(inner.target.path(folder)).await;
            let is_folder = !there.is_ok_and(|attributes| attributes.is_file());
            if is_folder {
                let shown = if folder.is_empty() { "/" } else { folder };
                Err(inner.failed(shown, &failure))
            } else {
                Ok(Vec::new())
            }
        }
        other => {
            other.map_err(|failure| inner.failed(if folder.is_empty() { "/" } else { folder }, &failure))
        }
    }
}

/// The attributes of an entry, or of what it points to when it is a link; `None` when it vanished meanwhile.
async fn followed(inner: &Inner, session: &Session, key: &Key, entry: &Entry) -> Result<Option<Attributes>> {
    if entry.attributes.mode.is_some() && !entry.attributes.is_link() {
        return Ok(Some(entry.attributes));
    }
    match session.status(inner.target.path(key.as_str())).await {
        Ok(attributes) => Ok(Some(attributes)),
        Err(failure) if failure.is(status::NO_SUCH_FILE) => Ok(None),
        Err(failure) => Err(inner.failed(key, &failure)),
    }
}

fn key_of(folder: &str, entry: &Entry) -> Option<Key> {
    let name = std::str::from_utf8(&entry.name).ok()?;
    // A server may say anything here, but a name in a folder has no `/`.
    if name.contains('/') {
        return None;
    }
    let full = if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") };
    Key::new(full).ok()
}

/// The path below the root of a temporary file.
fn temporary_of(folder: &str, entry: &Entry) -> Option<String> {
    let name = std::str::from_utf8(&entry.name).ok()?;
    let digits = name.strip_prefix(TEMPORARY_MARK)?;
    let is_ours = digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    let slash = if folder.is_empty() { "" } else { "/" };
    is_ours.then(|| format!("{folder}{slash}{name}"))
}

pub(super) fn object_meta(key: Key, attributes: &Attributes) -> ObjectMeta {
    let size_bytes = attributes.size_bytes.unwrap_or_default();
    ObjectMeta { key, size_bytes, modified: modified(attributes) }
}

/// In whole seconds; a time that is not told counts as the distant past.
fn modified(attributes: &Attributes) -> Timestamp {
    let seconds = attributes.modified_seconds.map(i64::from);
    seconds.and_then(|seconds| Timestamp::from_second(seconds).ok()).unwrap_or(Timestamp::MIN)
}

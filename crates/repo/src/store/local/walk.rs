//! Going through the folders of a local store: listings, and the removal of temporary files of killed writers.

use super::{Inner, LocalStore};
use crate::store::{Key, Leftovers, ObjectMeta, error, file};
use futures::stream::{self, Stream, StreamExt as _, TryStreamExt as _};
use jiff::Timestamp;
use retoma_core::{Error, ErrorKind, Result};
use std::fs::Metadata;
use std::io;

/// A folder with so many segments can hold no object, since names have no more; links go round in a circle.
const MAX_DEPTH: usize = 16;

/// What one folder holds: objects, and the names of folders in it (relative to the root, `/` between segments).
struct Folder {
    objects: Vec<ObjectMeta>,
    folders: Vec<String>,
}

/// Every object below `folder`, one folder read at a time.
pub(super) fn objects<'a>(
    store: &'a LocalStore,
    folder: &str,
) -> impl Stream<Item = Result<ObjectMeta>> + use<'a> {
    let start = match folder {
        "" => Ok(String::new()),
        name => Key::new(name).map(|key| key.as_str().to_owned()),
    };
    let first = match start {
        Ok(name) => vec![Ok(name)],
        Err(error) => vec![Err(error)],
    };
    stream::try_unfold(first, move |mut waiting| async move {
        let Some(name) = waiting.pop().transpose()? else { return Ok(None) };
        let found = store.run(move |inner| read_folder(inner, &name)).await?;
        waiting.extend(found.folders.into_iter().map(Ok));
        Ok::<_, Error>(Some((stream::iter(found.objects).map(Ok), waiting)))
    })
    .try_flatten()
}

/// Files that are no objects (temporary names, `lost+found`, notes of a person) are passed over.
fn read_folder(inner: &Inner, name: &str) -> Result<Folder> {
    let mut found = Folder { objects: Vec::new(), folders: Vec::new() };
    each_entry(inner, name, |_, metadata, key| {
        match key {
            Some(key) if metadata.is_file() => found.objects.push(object_meta(key, metadata)),
            Some(key) if metadata.is_dir() => found.folders.push(key.as_str().to_owned()),
            _ => {}
        }
        Ok(())
    })?;
    Ok(found)
}

/// Removes temporary files last written before `modified_before`, in all folders.
pub(super) fn remove_leftovers(inner: &Inner, modified_before: Timestamp) -> Result<Leftovers> {
    let mut removed = Leftovers::default();
    let mut waiting = vec![String::new()];
    while let Some(name) = waiting.pop() {
        each_entry(inner, &name, |entry, metadata, key| {
            if let Some(key) = key.filter(|_| metadata.is_dir()) {
                waiting.push(key.as_str().to_owned());
                return Ok(());
            }
            if metadata.is_file() && is_temporary(entry) && modified(metadata) < modified_before {
                match std::fs::remove_file(entry.path()) {
                    Ok(()) => {
                        removed.count += 1;
                        removed.size_bytes += metadata.len();
                    }
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(())
        })?;
    }
    Ok(removed)
}

/// Calls `visit` for each entry of a folder, with its metadata (of what a link points to) and its name as a key, if it
/// can be one. What vanishes meanwhile is passed over; a missing folder has no entries.
fn each_entry(
    inner: &Inner,
    folder: &str,
    mut visit: impl FnMut(&std::fs::DirEntry, &Metadata, Option<Key>) -> io::Result<()>,
) -> Result<()> {
    let failed = |source| error::io(&inner.location, if folder.is_empty() { "/" } else { folder }, source);
    let absent =
        |error: &io::Error| matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory);
    if folder.split('/').count() >= MAX_DEPTH {
        let message =
            format!("folders in `{}` lie deeper than `{MAX_DEPTH}` levels: `{folder}`", inner.location);
        return Err(Error::new(ErrorKind::Invalid, retoma_core::error::codes::STORE_ADDRESS, message)
            .with_hint("look for a link that points to a folder above it"));
    }
    let entries = match std::fs::read_dir(inner.root.join(folder)) {
        Err(error) if absent(&error) => return Ok(()),
        entries => entries.map_err(failed)?,
    };
    for entry in entries {
        let entry = entry.map_err(failed)?;
        let metadata = match entry.metadata() {
            Ok(metadata) if metadata.is_symlink() => std::fs::metadata(entry.path()),
            other => other,
        };
        let metadata = match metadata {
            Err(error) if absent(&error) => continue,
            metadata => metadata.map_err(failed)?,
        };
        visit(&entry, &metadata, key_of(folder, &entry)).map_err(failed)?;
    }
    Ok(())
}

fn key_of(folder: &str, entry: &std::fs::DirEntry) -> Option<Key> {
    let name = entry.file_name().into_string().ok()?;
    let full = if folder.is_empty() { name } else { format!("{folder}/{name}") };
    Key::new(full).ok()
}

fn is_temporary(entry: &std::fs::DirEntry) -> bool {
    entry.file_name().to_str().is_some_and(|name| {
        name.strip_prefix(file::TEMPORARY_MARK)
            .is_some_and(|rest| rest.len() == 16 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
    })
}

pub(super) fn object_meta(key: Key, metadata: &Metadata) -> ObjectMeta {
    ObjectMeta { key, size_bytes: metadata.len(), modified: modified(metadata) }
}

/// A time that cannot be told counts as the distant past.
fn modified(metadata: &Metadata) -> Timestamp {
    metadata.modified().ok().and_then(|time| Timestamp::try_from(time).ok()).unwrap_or(Timestamp::MIN)
}

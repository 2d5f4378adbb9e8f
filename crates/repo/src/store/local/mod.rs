//! A store in a folder of a local (or mounted) file system.
//!
//! An object is a file with mode 0600 at its name below the root; folders are made when needed, with mode 0700. All
//! file work runs on tokio's blocking threads. Objects are opened for each read: `open` costs two or three
//! microseconds, and a kept descriptor would go on reading an object that was replaced or deleted.
//!
//! Not done here: locks against other programs that write to the same folder, and checks of what is read.

mod walk;

use super::file::{self, Temporary};
use super::{Capabilities, Key, Leftovers, ObjectMeta, PutMode, Store, error};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use jiff::Timestamp;
use retoma_core::{Error, Result};
use rustix::buffer::spare_capacity;
use rustix::io::Errno;
use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// A [`Store`] in a folder. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LocalStore {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    root: PathBuf,
    location: String,
    /// Folders whose own names this process made durable. A folder that exists proves nothing: another thread, or a
    /// process that was killed, may have made it without the sync that has to follow.
    durable: Mutex<HashSet<PathBuf>>,
    /// Whether something was read here: then the root was there, and is not made.
    is_there: AtomicBool,
}

impl LocalStore {
    /// A store in the folder `root`. The folder need not exist: the first `put` makes it.
    ///
    /// # Errors
    /// `Invalid` when the path is not absolute.
    pub fn new(root: impl Into<PathBuf>) -> Result<Self> {
        let root = root.into();
        let location = match url::Url::from_file_path(&root) {
            Ok(url) => url.to_string(),
            Err(()) => return Err(error::bad_name(&root.to_string_lossy())),
        };
        Ok(Self {
            inner: Arc::new(Inner {
                root,
                location,
                durable: Mutex::default(),
                is_there: AtomicBool::new(false),
            }),
        })
    }

    /// Runs `work` where blocking is allowed. If the caller goes away, the work still ends.
    async fn run<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&Inner) -> Result<T> + Send + 'static,
    {
        let inner = self.inner.clone();
        tokio::task::spawn_blocking(move || work(&inner))
            .await
            .map_err(|error| Error::internal(format!("file work did not end: {error}")))?
    }
}

impl Inner {
    fn path(&self, key: &Key) -> PathBuf {
        self.root.join(key.as_str())
    }

    fn failed(&self, key: &Key) -> impl Fn(io::Error) -> Error {
        move |source| error::io(&self.location, key, source)
    }

    fn put(&self, key: &Key, data: &[u8], mode: PutMode) -> Result<()> {
        let path = self.path(key);
        let folder = path.parent().unwrap_or(&self.root);
        match self.write(folder, &path, data, mode) {
            // Somebody removed the folder since we made it, and who knows which of those above. A root that was there and is
            // not is a disk that is not mounted, or a repository that was moved: it is not made anew.
            Err(error) if error.kind() == io::ErrorKind::NotFound && self.root.is_dir() => {
                self.durable().clear();
                self.write(folder, &path, data, mode)
            }
            other => other,
        }
        .map_err(|source| match source.kind() {
            io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => error::exists(&self.location, key)
                .with_hint("a name cannot be an object and a folder at once"),
            _ => self.failed(key)(source),
        })
    }

    fn write(&self, folder: &Path, path: &Path, data: &[u8], mode: PutMode) -> io::Result<()> {
        self.make_durable(folder)?;
        let published = match mode {
            PutMode::Overwrite => Temporary::write_durably(folder, data)?.replace(path),
            // Looking first saves writing what can't be kept; the atomic step decides.
            PutMode::Create if path.symlink_metadata().is_ok() => Err(io::ErrorKind::AlreadyExists.into()),
            PutMode::Create => Temporary::write_durably(folder, data)?.publish_new(path),
        };
        match published {
            // The object may be our own, from an attempt whose sync of the folder failed: whoever compares it and
            // calls it written must be right.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                file::sync_folder(folder)?;
                Err(error)
            }
            Err(error) => Err(error),
            Ok(()) => file::sync_folder(folder),
        }
    }

    /// Makes `folder` with its parents, and their names durable up to the root of the file system; once a process.
    fn make_durable(&self, folder: &Path) -> io::Result<()> {
        if self.durable().contains(folder) {
            return Ok(());
        }
        let existed = folder.is_dir();
        if !existed && folder == self.root && self.is_there.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let parent = folder.parent().filter(|_| !existed || folder.starts_with(&self.root));
        if let Some(parent) = parent {
            self.make_durable(parent)?;
            if !existed {
                file::make_folder(folder)?;
            }
            match file::sync_folder(parent) {
                // Above the root, folders may be closed to us; what existed there before is not ours to sync.
                Err(error)
                    if error.kind() == io::ErrorKind::PermissionDenied && existed && folder == self.root => {}
                synced => synced?,
            }
        }
        self.durable().insert(folder.to_owned());
        Ok(())
    }

    fn durable(&self) -> std::sync::MutexGuard<'_, HashSet<PathBuf>> {
        self.durable.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Opens an object and gives its size. A folder is no object.
    fn open(&self, key: &Key) -> Result<(File, u64)> {
        let file = File::open(self.path(key)).map_err(self.failed(key))?;
        let metadata = file.metadata().map_err(self.failed(key))?;
        if !metadata.is_file() {
            return Err(error::not_found(&self.location, key));
        }
        self.is_there.store(true, Ordering::Relaxed);
        Ok((file, metadata.len()))
    }

    fn read(&self, key: &Key, range: Option<Range<u64>>) -> Result<Bytes> {
        let (file, size_bytes) = self.open(key)?;
        let range = range.unwrap_or(0..size_bytes);
        if range.start > range.end {
            return Err(error::reversed(key, &range));
        }
        // Before the buffer is made: whoever asks may have got the numbers from a hostile index.
        if range.end > size_bytes {
            return Err(error::short(&self.location, key, &range, size_bytes));
        }
        let length = usize::try_from(range.end - range.start)
            .map_err(|_| error::short(&self.location, key, &range, size_bytes))?;
        // Not `vec![0; length]`: every byte is read, so zeroing them first would be work for nothing.
        let mut buffer = Vec::with_capacity(length);
        while buffer.len() < length {
            let at = range.start + buffer.len() as u64;
            match rustix::io::pread(&file, spare_capacity(&mut buffer), at) {
                Ok(0) => return Err(error::short(&self.location, key, &range, size_bytes)),
                Ok(_) | Err(Errno::INTR) => {}
                Err(errno) => return Err(self.failed(key)(errno.into())),
            }
        }
        buffer.truncate(length);
        Ok(buffer.into())
    }

    fn head(&self, key: &Key) -> Result<ObjectMeta> {
        let metadata = std::fs::metadata(self.path(key)).map_err(self.failed(key))?;
        if !metadata.is_file() {
            return Err(error::not_found(&self.location, key));
        }
        Ok(walk::object_meta(key.clone(), &metadata))
    }

    fn delete(&self, key: &Key) -> Result<()> {
        let path = self.path(key);
        let gone = |error: &io::Error| {
            use io::ErrorKind::{IsADirectory, NotADirectory, NotFound};
            matches!(error.kind(), NotFound | NotADirectory | IsADirectory)
        };
        match std::fs::remove_file(&path) {
            Err(error) if !gone(&error) => return Err(self.failed(key)(error)),
            _ => {}
        }
        // Also when it was gone already: an earlier attempt may have failed in just this step.
        match file::sync_folder(path.parent().unwrap_or(&self.root)) {
            Err(error) if !gone(&error) => Err(self.failed(key)(error)),
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Store for LocalStore {
    fn location(&self) -> String {
        self.inner.location.clone()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { conditional_create: true, delete: true, versions: false, far: false }
    }

    async fn put(&self, key: &Key, data: Bytes, mode: PutMode) -> Result<()> {
        let key = key.clone();
        self.run(move |inner| inner.put(&key, &data, mode)).await
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        let key = key.clone();
        self.run(move |inner| inner.read(&key, None)).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let key = key.clone();
        self.run(move |inner| inner.read(&key, Some(range))).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        let key = key.clone();
        self.run(move |inner| inner.head(&key)).await
    }

    fn list<'a>(&'a self, folder: &'a str) -> BoxStream<'a, Result<ObjectMeta>> {
        walk::objects(self, folder).boxed()
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        let key = key.clone();
        self.run(move |inner| inner.delete(&key)).await
    }

    async fn remove_leftovers(&self, modified_before: Timestamp) -> Result<Leftovers> {
        self.run(move |inner| walk::remove_leftovers(inner, modified_before)).await
    }
}

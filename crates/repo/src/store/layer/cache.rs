//! Keeps small immutable objects in a local folder, so that reading them again costs no request.
//!
//! * The predicate chooses by name, and callers tell of more ([`Store::keep`]: packs of trees); keys and locks are never kept,
//!   whatever they say.
//! * What is kept is as the store has it: sealed. Files have mode 0600, their folders 0700.
//! * An object whose name is a SHA-256, as those of index files and snapshots, is given out only when that is the one of what
//!   is kept; otherwise it is read from the store again. A process compares once, as long as nobody touches the file. What
//!   has another name is checked by its reader alone: when that fails, it calls [`Cache::invalidate`] and reads once more. A
//!   file that is empty or too short for the part asked for is discarded here.
//! * Trouble with the cache is never an error: the store is asked instead.
//! * The folder belongs to one repository. Other processes may use it at the same time. An object that another host
//!   deleted stays here until it is evicted or until [`Cache::retain`] hears of it.

use crate::id;
use crate::store::file::{self, Temporary};
use crate::store::{Capabilities, Key, Leftovers, ObjectMeta, PutMode, Store};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use retoma_core::Result;
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

/// Which objects are kept, where, and how many bytes of them.
#[derive(Clone)]
pub struct CacheSettings {
    /// A folder for this repository alone; it is made when needed.
    pub folder: PathBuf,
    /// Whether an object is kept. True only for objects that never change: a part of one is read by fetching it whole.
    pub keep: Arc<dyn Fn(&Key) -> bool + Send + Sync>,
    /// When the files take more than this, the oldest go until three quarters are left.
    pub max_bytes: u64,
}

impl CacheSettings {
    /// Keeps the objects below `index/` and `snapshots/`, up to 1 GiB, in `folder`.
    pub fn metadata(folder: impl Into<PathBuf>) -> Self {
        let keep = |key: &Key| ["index/", "snapshots/"].iter().any(|kind| key.as_str().starts_with(kind));
        Self { folder: folder.into(), keep: Arc::new(keep), max_bytes: 1 << 30 }
    }
}

impl fmt::Debug for CacheSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheSettings")
            .field("folder", &self.folder)
            .field("max_bytes", &self.max_bytes)
            .finish_non_exhaustive()
    }
}

/// See the module.
#[derive(Debug)]
pub struct Cache {
    inner: Arc<dyn Store>,
    files: Arc<Files>,
    /// What callers want to be kept beside what the settings choose.
    told: RwLock<HashSet<Key>>,
}

#[derive(Debug)]
struct Files {
    settings: CacheSettings,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Grows with every removal. What was read from the store before a removal is not kept after it.
    generation: u64,
    /// Bytes of all files, once they were counted. Other processes make it drift; each eviction counts anew.
    used_bytes: Option<u64>,
    /// Those whose hash was compared, as they were then. Parts of them are given out without reading the whole again.
    verified: HashMap<Key, FileId>,
}

/// A file that nobody has changed: inode, size, time of change in seconds and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FileId(u64, u64, i64, i64);

impl FileId {
    fn of(metadata: &std::fs::Metadata) -> Self {
        Self(metadata.ino(), metadata.size(), metadata.ctime(), metadata.ctime_nsec())
    }
}

impl Cache {
    /// Keeps objects of `inner` as `settings` say.
    pub fn new(inner: Arc<dyn Store>, settings: CacheSettings) -> Self {
        let files = Files { settings, state: Mutex::default() };
        Self { inner, files: Arc::new(files), told: RwLock::default() }
    }

    /// Forgets what is kept of `key`, since the reader's check of it failed. The next read asks the store.
    pub fn invalidate(&self, key: &Key) {
        self.files.remove(key);
    }

    /// Forgets what is kept below `folder` and not in `present`, the names that a listing of the store gave.
    ///
    /// # Errors
    /// When the cache's folder cannot be read.
    pub fn retain(&self, folder: &str, present: &HashSet<Key>) -> Result<()> {
        let start = self.files.settings.folder.join(folder);
        let found =
            file::all_files(&start).map_err(|source| retoma_core::Error::io(start.display(), source))?;
        for (path, _) in found {
            let name = path.strip_prefix(&self.files.settings.folder).ok().and_then(|name| name.to_str());
            if let Some(key) = name.and_then(|name| Key::new(name).ok())
                && !present.contains(&key)
            {
                self.files.remove(&key);
            }
        }
        Ok(())
    }

    fn keeps(&self, key: &Key) -> bool {
        let never = ["keys/", "locks/"].iter().any(|kind| key.as_str().starts_with(kind));
        let is_told = || self.told.read().unwrap_or_else(PoisonError::into_inner).contains(key);
        !never && ((self.files.settings.keep)(key) || is_told())
    }

    /// Runs `work` on the files where blocking is allowed; `None` when that ended badly.
    async fn on_files<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Files) -> T + Send + 'static,
    ) -> Option<T> {
        let files = self.files.clone();
        tokio::task::spawn_blocking(move || work(&files)).await.ok()
    }

    async fn kept(&self, key: &Key, range: Option<Range<u64>>) -> Option<Bytes> {
        let key = key.clone();
        self.on_files(move |files| files.read(&key, range)).await?
    }

    /// Reads the whole object from the store and keeps it.
    async fn fetch(&self, key: &Key) -> Result<Bytes> {
        let generation = self.files.generation();
        let data = self.inner.get(key).await?;
        self.fill(key, data.clone(), generation).await;
        Ok(data)
    }

    async fn fill(&self, key: &Key, data: Bytes, generation: u64) {
        let key = key.clone();
        self.on_files(move |files| files.write(&key, &data, generation).ok()).await;
    }

    async fn forget(&self, key: &Key) -> u64 {
        let key = key.clone();
        // A generation that was never there fits no later fill.
        self.on_files(move |files| files.remove(&key)).await.unwrap_or(u64::MAX)
    }
}

impl Files {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn generation(&self) -> u64 {
        self.state().generation
    }

    fn path(&self, key: &Key) -> PathBuf {
        self.settings.folder.join(key.as_str())
    }

    /// Removes what is kept of `key`; gives the new generation.
    fn remove(&self, key: &Key) -> u64 {
        let mut state = self.state();
        state.generation += 1;
        state.verified.remove(key);
        // Most often nothing is kept. `used_bytes` is left too high, which the next eviction corrects.
        std::fs::remove_file(self.path(key)).ok();
        state.generation
    }

    fn read(&self, key: &Key, range: Option<Range<u64>>) -> Option<Bytes> {
        let file = File::open(self.path(key)).ok()?;
        let metadata = file.metadata().ok()?;
        let size_bytes = metadata.len();
        let range = range.unwrap_or(0..size_bytes);
        // An empty file is what a power cut leaves of an unsynced one.
        if size_bytes == 0 || !metadata.is_file() || range.start > range.end || range.end > size_bytes {
            self.remove(key);
            return None;
        }
        let part = |range: Range<u64>| {
            let mut buffer = vec![0; usize::try_from(range.end - range.start).ok()?];
            file.read_exact_at(&mut buffer, range.start).ok()?;
            Some(Bytes::from(buffer))
        };
        let Some(hash) = key.as_str().rsplit('/').next().and_then(id::unhex) else { return part(range) };
        let is = FileId::of(&metadata);
        if self.state().verified.get(key) == Some(&is) {
            return part(range);
        }
        let whole = part(0..size_bytes)?;
        if retoma_sha256::digests(&[&whole]) != [hash] {
            self.remove(key);
            return None;
        }
        self.state().verified.insert(key.clone(), is);
        Some(whole.slice(usize::try_from(range.start).ok()?..usize::try_from(range.end).ok()?))
    }

    fn write(&self, key: &Key, data: &[u8], generation: u64) -> io::Result<()> {
        let size_bytes = data.len() as u64;
        if size_bytes == 0 || size_bytes > self.settings.max_bytes / 4 {
            return Ok(());
        }
        let path = self.path(key);
        let folder = path.parent().unwrap_or(&self.settings.folder);
        file::make_folders(folder)?;
        let temporary = Temporary::write(folder, data)?;
        let mut state = self.state();
        if state.generation != generation {
            return Ok(());
        }
        temporary.replace(&path)?;
        let used_bytes = match state.used_bytes {
            Some(used_bytes) => used_bytes + size_bytes,
            None => total(&file::all_files(&self.settings.folder)?),
        };
        state.used_bytes = Some(used_bytes);
        if used_bytes > self.settings.max_bytes {
            state.used_bytes = Some(self.evict()?);
        }
        Ok(())
    }

    /// Removes the oldest files until three quarters of the bytes allowed are left; gives the bytes left.
    fn evict(&self) -> io::Result<u64> {
        let mut found = file::all_files(&self.settings.folder)?;
        found.sort_by_key(|(_, metadata)| metadata.modified().ok());
        let mut used_bytes = total(&found);
        for (path, metadata) in found {
            if used_bytes <= self.settings.max_bytes / 4 * 3 {
                break;
            }
            if std::fs::remove_file(path).is_ok() {
                used_bytes = used_bytes.saturating_sub(metadata.len());
            }
        }
        Ok(used_bytes)
    }
}

fn total(files: &[(PathBuf, std::fs::Metadata)]) -> u64 {
    files.iter().map(|(_, metadata)| metadata.len()).sum()
}

#[async_trait]
impl Store for Cache {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn keep(&self, key: &Key) {
        self.told.write().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        self.inner.keep(key);
    }

    async fn put(&self, key: &Key, data: Bytes, mode: PutMode) -> Result<()> {
        if !self.keeps(key) {
            return self.inner.put(key, data, mode).await;
        }
        let written = self.inner.put(key, data.clone(), mode).await;
        // After an error nobody knows which bytes the store has now.
        let generation = self.forget(key).await;
        written?;
        self.fill(key, data, generation).await;
        Ok(())
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        if !self.keeps(key) {
            return self.inner.get(key).await;
        }
        match self.kept(key, None).await {
            Some(data) => Ok(data),
            None => self.fetch(key).await,
        }
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        if !self.keeps(key) {
            return self.inner.get_range(key, range).await;
        }
        if let Some(data) = self.kept(key, Some(range.clone())).await {
            return Ok(data);
        }
        let data = self.fetch(key).await?;
        let (Ok(start), Ok(end)) = (usize::try_from(range.start), usize::try_from(range.end)) else {
            return self.inner.get_range(key, range).await;
        };
        if start > end || end > data.len() {
            // The store says what is wrong with it.
            return self.inner.get_range(key, range).await;
        }
        Ok(data.slice(start..end))
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        self.inner.head(key).await
    }

    fn list<'a>(&'a self, folder: &'a str) -> BoxStream<'a, Result<ObjectMeta>> {
        self.inner.list(folder)
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        if !self.keeps(key) {
            return self.inner.delete(key).await;
        }
        // Before, so that a caller that goes away leaves nothing; after, so that no read in between does.
        self.forget(key).await;
        let deleted = self.inner.delete(key).await;
        self.forget(key).await;
        deleted
    }

    async fn remove_leftovers(&self, modified_before: jiff::Timestamp) -> Result<Leftovers> {
        self.inner.remove_leftovers(modified_before).await
    }
}

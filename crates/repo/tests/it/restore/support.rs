//! A repository in a folder, and a source that is a list of entries in memory.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use retoma_core::Secret;
use retoma_repo::backup::{self, Content, Event, Progress, Reader, Source};
use retoma_repo::format::time::Time;
use retoma_repo::format::tree::{Node, NodeKind};
use retoma_repo::restore::{Options, Outcome, apply, plan};
use retoma_repo::store::{BlockingStore, Capabilities, Key, LocalStore, ObjectMeta, PutMode, Store};
use retoma_repo::{BlobId, Repository, Result};
use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

/// Something to be backed up: its path, its node, its bytes.
pub(crate) type Item = (&'static str, Node, Vec<u8>);

/// A time that no clock shows by chance.
pub(crate) fn time(seconds: i64) -> Time {
    Time::from_unix(1_500_000_000 + seconds, 123_456_789)
}

pub(crate) fn node(path: &str, kind: NodeKind) -> Node {
    let (uid, gid) = retoma_repo::host::ids();
    let name = path.rsplit('/').next().unwrap();
    Node { mtime: time(0), atime: time(0), uid, gid, ..Node::new(name, kind) }
}

pub(crate) fn file(path: &'static str, bytes: impl Into<Vec<u8>>) -> Item {
    (path, node(path, NodeKind::File), bytes.into())
}

pub(crate) fn directory(path: &'static str) -> Item {
    (path, node(path, NodeKind::Directory), Vec::new())
}

pub(crate) fn symlink(path: &'static str, to: &Path) -> Item {
    use std::os::unix::ffi::OsStrExt as _;
    let mut node = node(path, NodeKind::Symlink);
    node.link_target = Some(to.as_os_str().as_bytes().into());
    (path, node, Vec::new())
}

/// Bytes that don't repeat.
pub(crate) fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[4]
    };
    std::iter::repeat_with(next).take(length).collect()
}

/// The items as a source: in order, each directory before what is in it.
pub(crate) struct Memory(VecDeque<Event>);

impl Memory {
    pub(crate) fn new(items: &[Item]) -> Self {
        let mut events = VecDeque::new();
        let mut inside: Vec<&str> = Vec::new();
        for (path, node, bytes) in items {
            let outer: Vec<&str> =
                path.split('/').rev().skip(1).collect::<Vec<_>>().into_iter().rev().collect();
            while !outer.starts_with(&inside) {
                inside.pop();
                events.push_back(Event::Leave);
            }
            assert_eq!(outer, inside, "the directory of `{path}` comes before it");
            if node.kind == NodeKind::Directory {
                inside.push(node_name(path));
                events.push_back(Event::Enter(Box::new(node.clone())));
            } else {
                let content = Box::new(InMemory(node.link_target.clone(), bytes.clone()));
                events.push_back(Event::Entry(Box::new(node.clone()), content));
            }
        }
        events.extend(inside.iter().map(|_| Event::Leave));
        Self(events)
    }
}

fn node_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap()
}

impl Source for Memory {
    fn next(&mut self) -> Result<Option<Event>> {
        Ok(self.0.pop_front())
    }
}

struct InMemory(Option<Box<[u8]>>, Vec<u8>);

impl Content for InMemory {
    fn describe(&mut self, node: &mut Node) -> Result<()> {
        node.link_target.clone_from(&self.0);
        Ok(())
    }

    fn open(&mut self) -> Result<Box<dyn Reader>> {
        Ok(Box::new(InMemoryReader { bytes: std::mem::take(&mut self.1), at: 0 }))
    }
}

struct InMemoryReader {
    bytes: Vec<u8>,
    at: usize,
}

impl Reader for InMemoryReader {
    fn size_bytes(&self) -> Option<u64> {
        Some(self.bytes.len() as u64)
    }

    fn read(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let count = buffer.len().min(self.bytes.len() - self.at);
        buffer[..count].copy_from_slice(&self.bytes[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }

    fn finish(&mut self, _read_bytes: u64) -> Result<()> {
        Ok(())
    }
}

/// What happens at a read of a store.
type Hook = Box<dyn FnMut(&Key) -> Result<()> + Send>;

/// A store that does something else before it reads a part of a pack.
#[derive(Clone)]
pub(crate) struct Hooked {
    inner: Arc<dyn Store>,
    hook: Arc<Mutex<Option<Hook>>>,
}

impl std::fmt::Debug for Hooked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Hooked({:?})", self.inner)
    }
}

#[async_trait]
impl Store for Hooked {
    fn location(&self) -> String {
        self.inner.location()
    }
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }
    async fn put(&self, key: &Key, data: Bytes, mode: PutMode) -> Result<()> {
        self.inner.put(key, data, mode).await
    }
    async fn get(&self, key: &Key) -> Result<Bytes> {
        self.inner.get(key).await
    }
    async fn get_range(&self, key: &Key, range: std::ops::Range<u64>) -> Result<Bytes> {
        if let Some(hook) = self.hook.lock().unwrap().as_mut() {
            hook(key)?;
        }
        self.inner.get_range(key, range).await
    }
    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        self.inner.head(key).await
    }
    fn list<'a>(&'a self, folder: &'a str) -> BoxStream<'a, Result<ObjectMeta>> {
        self.inner.list(folder)
    }
    async fn delete(&self, key: &Key) -> Result<()> {
        self.inner.delete(key).await
    }
}

/// A folder with a repository, a target, and a place that nothing may touch.
pub(crate) struct Fixture {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) repository: Repository,
    hook: Arc<Mutex<Option<Hook>>>,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::open_or_make(tempfile::tempdir().unwrap())
    }

    /// Opens the repository in `folder`, which may be restic's, with the password `pw`.
    pub(crate) fn open_or_make(folder: tempfile::TempDir) -> Self {
        let inner: Arc<dyn Store> = Arc::new(LocalStore::new(folder.path().join("repository")).unwrap());
        let hook = Arc::<Mutex<Option<Hook>>>::default();
        let store = BlockingStore::new(Arc::new(Hooked { inner, hook: Arc::clone(&hook) })).unwrap();
        let (repository, _) = Repository::open_or_init(store, &Secret::new("pw".to_owned())).unwrap();
        std::fs::create_dir_all(folder.path().join("outside")).unwrap();
        Self { folder, repository, hook }
    }

    pub(crate) fn set_hook(&self, hook: impl FnMut(&Key) -> Result<()> + Send + 'static) {
        *self.hook.lock().unwrap() = Some(Box::new(hook));
    }

    pub(crate) fn target(&self) -> PathBuf {
        self.folder.path().join("target")
    }

    pub(crate) fn outside(&self) -> PathBuf {
        self.folder.path().join("outside")
    }

    pub(crate) fn at(&self, path: &str) -> PathBuf {
        self.target().join(path)
    }

    pub(crate) fn read(&self, path: &str) -> Vec<u8> {
        std::fs::read(self.at(path)).unwrap()
    }

    /// Backs `items` up and gives the root tree.
    pub(crate) fn backup(&self, items: &[Item]) -> BlobId {
        let mut source = Memory::new(items);
        let options = backup::Options::default();
        let summary = backup::backup(&self.repository, &mut source, &options, &Progress::default()).unwrap();
        assert!(summary.unreadable.is_empty(), "{:?}", summary.unreadable);
        summary.tree
    }

    pub(crate) fn try_restore(
        &self,
        tree: BlobId,
        options: &Options,
        progress: &Progress,
    ) -> Result<Outcome> {
        let index = self.repository.load_index()?;
        apply(plan(&self.repository, &index, tree, options, &self.target())?, progress)
    }

    pub(crate) fn restore(&self, tree: BlobId, options: &Options) -> Outcome {
        self.try_restore(tree, options, &Progress::default()).unwrap()
    }

    /// Restores, and everything must be there.
    pub(crate) fn restore_all(&self, tree: BlobId, options: &Options) -> Outcome {
        let outcome = self.restore(tree, options);
        assert!(outcome.is_complete(), "{outcome:?}");
        outcome
    }

    /// The pack in which a file's only blob lies first, and where.
    pub(crate) fn pack_of(&self, content: &[u8]) -> (PathBuf, usize) {
        let index = self.repository.load_index().unwrap();
        let location = index.get(retoma_repo::format::BlobKind::Data, &BlobId::of(content)).unwrap();
        let key = self.repository.pack_key(location.pack).unwrap();
        let path = self.folder.path().join("repository").join(key.as_str());
        (path, location.blob.offset_bytes as usize + 20)
    }

    /// Flips a byte of the blob that is `content`.
    pub(crate) fn damage(&self, content: &[u8]) {
        let (path, at) = self.pack_of(content);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[at] ^= 1;
        std::fs::write(&path, bytes).unwrap();
    }
}

pub(crate) fn paths(paths: &[&str]) -> Vec<Vec<u8>> {
    paths.iter().map(|path| path.as_bytes().to_vec()).collect()
}

pub(crate) fn mtime(path: &Path) -> Time {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = path.symlink_metadata().unwrap();
    Time::from_unix(metadata.mtime(), metadata.mtime_nsec())
}

pub(crate) fn inode(path: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt as _;
    path.symlink_metadata().unwrap().ino()
}

//! A repository in a folder, and sources that are lists of entries in memory.

use retoma_core::Secret;
use retoma_repo::backup::{self, Progress};
use retoma_repo::format::time::Time;
use retoma_repo::format::tree::{Node, NodeKind};
use retoma_repo::restore::{Options, Outcome, apply, plan};
use retoma_repo::store::{BlockingStore, LocalStore, Verb};
use retoma_repo::{BlobId, Repository, Result};
pub(crate) use retoma_testkit::noise;
use retoma_testkit::{FaultyStore, MemorySource};
use std::path::{Path, PathBuf};
use std::sync::Arc;

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

/// The items as a source: in order, each directory before what is in it.
pub(crate) fn source(items: &[Item]) -> MemorySource {
    let mut source = MemorySource::default();
    let mut inside: Vec<&str> = Vec::new();
    for (path, node, bytes) in items {
        let mut outer: Vec<&str> = path.split('/').collect();
        let name = outer.pop().unwrap();
        while !outer.starts_with(&inside) {
            inside.pop();
            source.leave();
        }
        assert_eq!(outer, inside, "the directory of `{path}` comes before it");
        if node.kind == NodeKind::Directory {
            inside.push(name);
            source.enter(node.clone());
        } else {
            source.entry(node.clone(), bytes);
        }
    }
    for _ in &inside {
        source.leave();
    }
    source
}

/// A folder with a repository, a target, and a place that nothing may touch.
pub(crate) struct Fixture {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) repository: Repository,
    store: Arc<FaultyStore>,
}

impl Fixture {
    pub(crate) fn new() -> Self {
        Self::open_or_make(tempfile::tempdir().unwrap())
    }

    /// Opens the repository in `folder`, which may be restic's, with the password `pw`.
    pub(crate) fn open_or_make(folder: tempfile::TempDir) -> Self {
        let local = LocalStore::new(folder.path().join("repository")).unwrap();
        let store = Arc::new(FaultyStore::new(Arc::new(local)));
        let blocking = BlockingStore::new(store.clone()).unwrap();
        let (repository, _) = Repository::open_or_init(blocking, &Secret::new("pw".to_owned())).unwrap();
        std::fs::create_dir_all(folder.path().join("outside")).unwrap();
        Self { folder, repository, store }
    }

    /// Does something else before each part of a pack is read.
    pub(crate) fn set_hook(&self, mut hook: impl FnMut(&str) -> Result<()> + Send + 'static) {
        self.store.before_calls(move |verb, name| if verb == Verb::GetRange { hook(name) } else { Ok(()) });
    }

    /// How many parts of packs were read.
    pub(crate) fn reads(&self) -> usize {
        self.store.calls(Verb::GetRange)
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
        let mut source = source(items);
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

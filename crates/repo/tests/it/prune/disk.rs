//! A store in memory that can die after a given write, and be read afterwards as a disk is after a power cut.

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _};
use retoma_core::{Error, ErrorKind, Result, error::codes};
use retoma_repo::store::{BlockingStore, Capabilities, Key, ObjectMeta, PutMode, Store};
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};

/// What is stored, by name.
pub(crate) type Objects = BTreeMap<String, Bytes>;

/// How a disk dies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Death {
    /// The write does not happen.
    Before,
    /// The write happens, and nobody learns of it.
    After,
}

#[derive(Debug, Default)]
struct State {
    objects: Objects,
    /// Every write that happened, such as `put snapshots`.
    log: Vec<String>,
    dies: Option<(usize, Death)>,
    dead: bool,
}

/// Clones are the same disk.
#[derive(Debug, Clone, Default)]
pub(crate) struct Disk(Arc<Mutex<State>>);

fn failure(kind: ErrorKind, key: &str) -> Error {
    let code = match kind {
        ErrorKind::NotFound => codes::OBJECT_NOT_FOUND,
        ErrorKind::Conflict => codes::OBJECT_EXISTS,
        ErrorKind::Corrupt => codes::OBJECT_SHORT,
        _ => codes::STORE_UNAVAILABLE,
    };
    Error::new(kind, code, format!("`{key}`"))
}

impl Disk {
    pub(crate) fn with(objects: Objects) -> Self {
        Self(Arc::new(Mutex::new(State { objects, ..State::default() })))
    }

    /// Dies at the write number `write`, counted from 0.
    pub(crate) fn dying(objects: Objects, write: usize, death: Death) -> Self {
        Self(Arc::new(Mutex::new(State { objects, dies: Some((write, death)), ..State::default() })))
    }

    pub(crate) fn store(&self) -> BlockingStore {
        BlockingStore::new(Arc::new(self.clone())).unwrap()
    }

    pub(crate) fn objects(&self) -> Objects {
        self.0.lock().unwrap().objects.clone()
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.0.lock().unwrap().dead
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.0.lock().unwrap().log.clone()
    }

    fn read<T>(&self, key: &Key, read: impl FnOnce(&Bytes) -> Option<T>) -> Result<T> {
        let state = self.0.lock().unwrap();
        if state.dead {
            return Err(failure(ErrorKind::Unavailable, key.as_str()));
        }
        let object = state.objects.get(key.as_str());
        let object = object.ok_or_else(|| failure(ErrorKind::NotFound, key.as_str()))?;
        read(object).ok_or_else(|| failure(ErrorKind::Corrupt, key.as_str()))
    }

    fn write(&self, verb: &str, key: &Key, write: impl FnOnce(&mut Objects) -> Result<()>) -> Result<()> {
        let mut state = self.0.lock().unwrap();
        let dying = state.dies.and_then(|(at, death)| (at == state.log.len()).then_some(death));
        if state.dead || dying == Some(Death::Before) {
            state.dead = true;
            return Err(failure(ErrorKind::Unavailable, key.as_str()));
        }
        write(&mut state.objects)?;
        let folder = key.as_str().split('/').next().unwrap();
        state.log.push(format!("{verb} {folder}"));
        if dying == Some(Death::After) {
            state.dead = true;
            return Err(failure(ErrorKind::Unavailable, key.as_str()));
        }
        Ok(())
    }
}

/// Writes objects as files, for restic. restic wants all its folders.
pub(crate) fn write_files(objects: &Objects, folder: &Path) {
    for name in ["data", "index", "snapshots", "keys", "locks"] {
        std::fs::create_dir_all(folder.join(name)).unwrap();
    }
    for (name, bytes) in objects {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
}

#[async_trait]
impl Store for Disk {
    fn location(&self) -> String {
        "disk:".to_owned()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { conditional_create: true, delete: true, versions: false, far: false }
    }

    async fn put(&self, key: &Key, data: Bytes, mode: PutMode) -> Result<()> {
        self.write("put", key, |objects| {
            if mode == PutMode::Create && objects.contains_key(key.as_str()) {
                return Err(failure(ErrorKind::Conflict, key.as_str()));
            }
            objects.insert(key.as_str().to_owned(), data);
            Ok(())
        })
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        self.read(key, |bytes| Some(bytes.clone()))
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        let range = usize::try_from(range.start).unwrap()..usize::try_from(range.end).unwrap();
        self.read(key, |bytes| (range.end <= bytes.len()).then(|| bytes.slice(range)))
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        let size_bytes = self.read(key, |bytes| Some(bytes.len() as u64))?;
        Ok(ObjectMeta { key: key.clone(), size_bytes, modified: jiff::Timestamp::UNIX_EPOCH })
    }

    fn list<'a>(&'a self, folder: &'a str) -> BoxStream<'a, Result<ObjectMeta>> {
        let state = self.0.lock().unwrap();
        if state.dead {
            return stream::iter([Err(failure(ErrorKind::Unavailable, folder))]).boxed();
        }
        let inside = |name: &String| folder.is_empty() || name.starts_with(&format!("{folder}/"));
        let found = state.objects.iter().filter(|(name, _)| inside(name)).map(|(name, bytes)| {
            let modified = jiff::Timestamp::UNIX_EPOCH;
            Ok(ObjectMeta { key: Key::new(name.clone())?, size_bytes: bytes.len() as u64, modified })
        });
        stream::iter(found.collect::<Vec<_>>()).boxed()
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.write("delete", key, |objects| {
            objects.remove(key.as_str());
            Ok(())
        })
    }
}

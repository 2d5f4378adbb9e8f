//! A repository that is open: its store, its keys, and the objects that are not in packs.

use crate::around::Around;
use crate::copies::Copies;
use crate::crypto::MasterKey;
use crate::format::config::Config;
use crate::format::index::IndexFile;
use crate::format::key::{KeyFile, Maker, Origin};
use crate::format::lock::Lock;
use crate::format::snapshot::Snapshot;
use crate::format::unpacked;
use crate::handover::HandedKey;
use crate::host;
use crate::id::{IndexId, KeyId, LockId, PackId, SnapshotId};
use crate::store::{BlockingStore, Key, ObjectMeta, PutMode};
use bytes::Bytes;
use retoma_core::units::counted;
use retoma_core::{Error, ErrorKind, Result, ResultExt, Secret, error::codes};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

/// Where each kind of object lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Folder {
    /// Packs, in 256 folders by the first two digits of their names.
    Data,
    /// Index files.
    Index,
    /// Snapshots.
    Snapshots,
    /// Key files.
    Keys,
    /// Locks.
    Locks,
    /// Marks of prune: a lane of ours, which restic ignores.
    Marks,
    /// How the passwords of key files are had: a lane of ours.
    Recipients,
}

impl Folder {
    /// The folder's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Data => "data",
            Self::Index => "index",
            Self::Snapshots => "snapshots",
            Self::Keys => "keys",
            Self::Locks => "locks",
            Self::Marks => "marks",
            Self::Recipients => "recipients",
        }
    }

    /// The name of an object, given its id as hexadecimal digits.
    ///
    /// # Errors
    /// `Invalid` when `id` is not an id.
    pub fn key(self, id: &str) -> Result<Key> {
        match self {
            Self::Data => Key::new(format!("data/{}/{id}", id.get(..2).unwrap_or_default())),
            _ => Key::new(format!("{}/{id}", self.name())),
        }
    }
}

/// An open repository. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Repository {
    store: BlockingStore,
    key: Arc<MasterKey>,
    key_id: KeyId,
    config: Arc<Config>,
    /// Asked for blobs that this one has lost.
    copies: Option<Arc<Copies>>,
    around: Arc<Around>,
}

/// restic stops after so many keys; each costs a derivation.
const KEYS_TRIED: usize = 20;

fn config_key() -> Result<Key> {
    Key::new("config")
}

/// A snapshot and its id.
pub type Found = (SnapshotId, Snapshot);

impl Repository {
    /// Makes a new repository.
    ///
    /// The key is written before the config, and the config is what makes a repository: whoever is killed in between
    /// leaves a key that the next attempt takes over. Of several that start at once, one config wins. Where more than keys
    /// is left, there was a repository: a new config would make its data unreadable for good.
    ///
    /// # Errors
    /// `Conflict` with `R0207` when there is one already, `Corrupt` with `R0220` when only its config is gone; what the
    /// store says.
    pub fn init(store: BlockingStore, password: &Secret<String>) -> Result<Self> {
        if exists(&store)? {
            return Err(already(&store));
        }
        refuse_remains(&store)?;
        let (key, key_id, fresh) =
            if let Some((key, id)) = first_key(&store, password, |key, id| Ok((key, id)))? {
                (key, id, false)
            } else {
                let master = MasterKey::generate()?;
                let id = add_key_file(&store, &master, password)?;
                (master, id, true)
            };
        let config = Config::generate()?;
        let sealed = Bytes::from(config.seal(&key)?);
        match store.put(&config_key()?, sealed, PutMode::Create) {
            Ok(()) => Ok(Self::opened(store, Arc::new(key), key_id, config)),
            Err(error) if error.kind() == ErrorKind::Conflict => {
                if fresh {
                    take_key_back(&store, &key, key_id)?;
                }
                Err(already(&store))
            }
            Err(error) => Err(error.context("write the repository's config")),
        }
    }

    /// Opens a repository with a password.
    ///
    /// # Errors
    /// `NotFound` with `R0201` when there is none, `Corrupt` with `R0220` when only its config is gone, `Unauthorized` with `R0202` for a wrong password, `Corrupt`,
    /// `Unsupported` when it is too new.
    pub fn open(store: BlockingStore, password: &Secret<String>) -> Result<Self> {
        let sealed = match store.get(&config_key()?) {
            Ok(sealed) => sealed,
            Err(error) if error.kind() == ErrorKind::NotFound => {
                refuse_remains(&store)?;
                return Err(missing(&store));
            }
            Err(error) => return Err(error.context("read the repository's config")),
        };
        let accept = |key: MasterKey, key_id| {
            let config = Config::open(&key, &sealed).context("open the repository's config")?;
            Ok((key, key_id, config))
        };
        match first_key(&store, password, accept)? {
            Some((key, key_id, config)) => Ok(Self::opened(store, Arc::new(key), key_id, config)),
            None => Err(wrong_key(&store)),
        }
    }

    /// Opens a repository with one of these keys, without a password. `None` when none of them is this repository's, or its
    /// key file is gone, or there is no repository: [`Repository::open`] knows more.
    ///
    /// # Errors
    /// What the store says.
    pub fn open_with(store: BlockingStore, keys: &[HandedKey]) -> Result<Option<Self>> {
        let sealed = match store.get(&config_key()?) {
            Ok(sealed) => sealed,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error.context("read the repository's config")),
        };
        for HandedKey { repository, key_id, key } in keys {
            // A config that does not open is another repository's, or damaged, which the password's way tells apart.
            let Ok(config) = Config::open(key, &sealed) else { continue };
            if config.id != *repository {
                continue;
            }
            match store.head(&Folder::Keys.key(&key_id.to_hex())?) {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::NotFound => continue,
                Err(error) => return Err(error.context("look for the repository's key")),
            }
            return Ok(Some(Self::opened(store, Arc::clone(key), *key_id, config)));
        }
        Ok(None)
    }

    /// Opens the repository, or makes it when there is none. The flag tells whether it was made.
    ///
    /// # Errors
    /// See [`Repository::open`] and [`Repository::init`].
    pub fn open_or_init(store: BlockingStore, password: &Secret<String>) -> Result<(Self, bool)> {
        match Self::open(store.clone(), password) {
            Err(error) if error.code() == codes::NO_REPOSITORY => {}
            other => return other.map(|repository| (repository, false)),
        }
        match Self::init(store.clone(), password) {
            Err(error) if error.code() == codes::REPOSITORY_EXISTS => {
                Ok((Self::open(store, password)?, false))
            }
            other => other.map(|repository| (repository, true)),
        }
    }

    fn opened(store: BlockingStore, key: Arc<MasterKey>, key_id: KeyId, config: Config) -> Self {
        Self { store, key, key_id, config: Arc::new(config), copies: None, around: Arc::default() }
    }

    /// The same repository; blobs that it has lost are read from `copies`. For who restores: whoever examines a repository, or
    /// writes into it, must see what it has itself.
    #[must_use]
    pub fn with_copies(&self, copies: Arc<Copies>) -> Self {
        Self { copies: Some(copies), ..self.clone() }
    }

    /// Where blobs come from that this repository has lost.
    pub fn copies(&self) -> Option<&Copies> {
        self.copies.as_deref()
    }

    /// The same repository through another store: a layer around this one, or a copy of it.
    #[must_use]
    pub fn through(&self, store: BlockingStore) -> Self {
        Self { store, around: Arc::default(), ..self.clone() }
    }

    /// What was read last around a tree.
    pub(crate) fn around(&self) -> &Around {
        &self.around
    }

    /// The store.
    pub fn store(&self) -> &BlockingStore {
        &self.store
    }

    /// The master key.
    pub fn key(&self) -> &MasterKey {
        &self.key
    }

    /// The master key, shared.
    pub(crate) fn shared_key(&self) -> Arc<MasterKey> {
        Arc::clone(&self.key)
    }

    /// The key file that opened it.
    pub fn key_id(&self) -> KeyId {
        self.key_id
    }

    /// The config.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// Whether this version of the format has compression: version 1 has none.
    pub fn compresses(&self) -> bool {
        self.config.version >= 2
    }

    /// Seals `json`, stores it and gives the object's id as hexadecimal digits. Durable on return.
    ///
    /// # Errors
    /// What the store says.
    pub fn save_unpacked(&self, folder: Folder, json: &[u8]) -> Result<[u8; 32]> {
        let sealed = unpacked::seal(&self.key, json, self.compresses())?;
        let id = SnapshotId::of(&sealed);
        let doing = || format!("write {}/{}", folder.name(), id.short());
        let key = folder.key(&id.to_hex())?;
        self.store.put(&key, Bytes::from(sealed), PutMode::Create).with_context(doing)?;
        Ok(id.0)
    }

    /// Reads, checks and opens an object that is not a pack.
    ///
    /// # Errors
    /// `NotFound`; `Corrupt` with `R0204` when its hash is not its name, with `R0203` when it is not authentic.
    pub fn load_unpacked(&self, folder: Folder, id: [u8; 32]) -> Result<Vec<u8>> {
        let id = SnapshotId(id);
        let load = || {
            let sealed = self.store.get(&folder.key(&id.to_hex())?)?;
            if SnapshotId::of(&sealed) != id {
                return Err(Error::new(
                    ErrorKind::Corrupt,
                    codes::HASH_MISMATCH,
                    "the contents do not fit the name",
                ));
            }
            unpacked::open(&self.key, sealed.into())
        };
        let told = |error: Error| match error.kind() {
            ErrorKind::Corrupt => error.with_hint(without(folder)),
            _ => error,
        };
        load().map_err(told).with_context(|| format!("read {}/{id}", folder.name()))
    }

    /// What is in a folder, with ids; objects whose names are not ids are passed over, as restic does.
    ///
    /// # Errors
    /// What the store says.
    pub fn list(&self, folder: Folder) -> Result<Vec<([u8; 32], ObjectMeta)>> {
        list_ids(&self.store, folder)
    }

    /// Loads a snapshot.
    ///
    /// # Errors
    /// See [`Repository::load_unpacked`].
    pub fn snapshot(&self, id: SnapshotId) -> Result<Snapshot> {
        let json = self.load_unpacked(Folder::Snapshots, id.0)?;
        Snapshot::from_json(&json).with_context(|| format!("read snapshot {id}"))
    }

    /// All snapshots, oldest first. One that is forgotten meanwhile may be missing.
    ///
    /// # Errors
    /// The first that can't be read stops: a recovery must not overlook one.
    pub fn snapshots(&self) -> Result<Vec<(SnapshotId, Snapshot)>> {
        self.snapshots_by_id().map(by_time)
    }

    /// The snapshots that can be read, oldest first, and an error for each that is damaged. For those to whom a damaged
    /// one is no reason to do nothing: a new backup, a list.
    ///
    /// # Errors
    /// What the store says.
    pub fn readable_snapshots(&self) -> Result<(Vec<Found>, Vec<Error>)> {
        let mut damaged = Vec::new();
        let found = self.snapshots_where(&mut |error| match error.kind() {
            ErrorKind::Corrupt => {
                damaged.push(error);
                Ok(())
            }
            _ => Err(error),
        })?;
        Ok((by_time(found), damaged))
    }

    /// All snapshots. One that is being rewritten (a hold) is written anew before the old one is deleted, and a single
    /// listing may miss both; so it is listed until nothing new appears.
    ///
    /// # Errors
    /// See [`Repository::snapshots`].
    pub(crate) fn snapshots_by_id(&self) -> Result<BTreeMap<SnapshotId, Snapshot>> {
        self.snapshots_where(&mut Err)
    }

    /// As [`Repository::snapshots_by_id`]; `unreadable` decides whether one that can't be read is passed over.
    fn snapshots_where(
        &self,
        unreadable: &mut dyn FnMut(Error) -> Result<()>,
    ) -> Result<BTreeMap<SnapshotId, Snapshot>> {
        let (mut seen, mut found) = (HashSet::new(), BTreeMap::new());
        loop {
            let listed = self.list(Folder::Snapshots)?;
            let fresh: Vec<SnapshotId> =
                listed.into_iter().map(|(id, _)| SnapshotId(id)).filter(|id| seen.insert(*id)).collect();
            if fresh.is_empty() {
                return Ok(found);
            }
            for id in fresh {
                match self.snapshot(id) {
                    Ok(snapshot) => drop(found.insert(id, snapshot)),
                    Err(error) if error.kind() == ErrorKind::NotFound => {}
                    Err(error) => unreadable(error)?,
                }
            }
        }
    }

    /// Stores a snapshot: the commit of a backup. Everything that it needs must be durable.
    ///
    /// # Errors
    /// What the store says.
    pub fn save_snapshot(&self, snapshot: &Snapshot) -> Result<SnapshotId> {
        self.save_unpacked(Folder::Snapshots, &snapshot.to_json()?).map(SnapshotId)
    }

    /// Loads an index file.
    ///
    /// # Errors
    /// See [`Repository::load_unpacked`].
    pub fn index_file(&self, id: IndexId) -> Result<IndexFile> {
        let json = self.load_unpacked(Folder::Index, id.0)?;
        IndexFile::from_json(&json).with_context(|| format!("read index {id}"))
    }

    /// Stores an index file. Its packs must be durable.
    ///
    /// # Errors
    /// What the store says.
    pub fn save_index_file(&self, file: &IndexFile) -> Result<IndexId> {
        self.save_unpacked(Folder::Index, &file.to_json()?).map(IndexId)
    }

    /// Stores a lock.
    ///
    /// # Errors
    /// What the store says.
    pub fn save_lock(&self, lock: &Lock) -> Result<LockId> {
        self.save_unpacked(Folder::Locks, &lock.to_json()?).map(LockId)
    }

    /// Loads a lock.
    ///
    /// # Errors
    /// See [`Repository::load_unpacked`].
    pub fn lock(&self, id: LockId) -> Result<Lock> {
        Lock::from_json(&self.load_unpacked(Folder::Locks, id.0)?)
    }

    /// The name of a pack's object.
    ///
    /// # Errors
    /// None: an id is always a name.
    pub fn pack_key(&self, id: PackId) -> Result<Key> {
        Folder::Data.key(&id.to_hex())
    }

    /// Adds a key file that opens this repository with `password`.
    ///
    /// # Errors
    /// `Invalid` for an empty password; `Exhausted` with `R0219` when there are so many that it might never be tried;
    /// what the store says.
    pub fn add_key(&self, password: &Secret<String>) -> Result<KeyId> {
        let (id, file) = self.new_key(password, Origin::Chosen)?;
        self.save_key(id, file)?;
        Ok(id)
    }

    /// A key file that would open this repository with `password`, and its name. Nothing is stored.
    ///
    /// # Errors
    /// As [`Repository::add_key`].
    pub(crate) fn new_key(&self, password: &Secret<String>, origin: Origin) -> Result<(KeyId, Bytes)> {
        if self.list(Folder::Keys)?.len() >= KEYS_TRIED {
            let message =
                format!("the repository has {KEYS_TRIED} keys, and no more are tried when it is opened");
            return Err(Error::new(ErrorKind::Exhausted, codes::TOO_MANY_KEYS, message)
                .with_hint("remove one that is no longer used: `retoma key list`, `retoma key remove ID`"));
        }
        new_key_file(&self.key, password, origin)
    }

    /// Stores what [`Repository::new_key`] gave.
    pub(crate) fn save_key(&self, id: KeyId, file: Bytes) -> Result<()> {
        save_key_file(&self.store, id, file)
    }

    /// Every key file.
    ///
    /// # Errors
    /// What the store says; `Corrupt` when one is damaged.
    pub fn keys(&self) -> Result<Vec<(KeyId, KeyFile)>> {
        let load = |(id, _): ([u8; 32], ObjectMeta)| Ok((KeyId(id), load_key_file(&self.store, KeyId(id))?));
        self.list(Folder::Keys)?.into_iter().map(load).collect()
    }

    /// Removes a key file. It does not revoke what its holder has seen: the master key stays the same.
    ///
    /// # Errors
    /// `Invalid` with `R0210` for the key that opened the repository or the last one; `NotFound`.
    pub fn remove_key(&self, id: KeyId) -> Result<()> {
        let keys = self.list(Folder::Keys)?;
        if !keys.iter().any(|(known, _)| *known == id.0) {
            let message = format!("the repository has no key `{}`", id.short());
            return Err(Error::new(ErrorKind::NotFound, codes::OBJECT_NOT_FOUND, message));
        }
        if id == self.key_id || keys.len() < 2 {
            return Err(Error::new(
                ErrorKind::Invalid,
                codes::LAST_KEY,
                format!("key `{}` is in use", id.short()),
            )
            .with_hint("open the repository with another key and remove this one then"));
        }
        self.store.delete(&Folder::Keys.key(&id.to_hex())?)
    }
}

fn by_time(snapshots: BTreeMap<SnapshotId, Snapshot>) -> Vec<(SnapshotId, Snapshot)> {
    let mut snapshots: Vec<_> = snapshots.into_iter().collect();
    snapshots.sort_by_key(|(id, snapshot)| (snapshot.time, *id));
    snapshots
}

/// What to do about a damaged object of `folder`.
fn without(folder: Folder) -> &'static str {
    match folder {
        Folder::Snapshots => {
            "put this file back from another copy of the repository; the snapshots that `retoma snapshots` lists are not hit"
        }
        Folder::Index => {
            "put this file back from another copy of the repository, or let `retoma repair` make it anew; \
             `retoma restore` works meanwhile"
        }
        _ => "put this file back from another copy of the repository",
    }
}

fn exists(store: &BlockingStore) -> Result<bool> {
    match store.head(&config_key()?) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error.context("look for a repository")),
    }
}

pub(crate) fn list_ids(store: &BlockingStore, folder: Folder) -> Result<Vec<([u8; 32], ObjectMeta)>> {
    let objects = store.list(folder.name()).with_context(|| format!("list {}", folder.name()))?;
    let with_id = |meta: ObjectMeta| {
        let name = meta.key.as_str().rsplit('/').next()?;
        Some((crate::id::unhex(name)?, meta))
    };
    Ok(objects.into_iter().filter_map(with_id).collect())
}

fn load_key_file(store: &BlockingStore, id: KeyId) -> Result<KeyFile> {
    let load = || {
        let json = store.get(&Folder::Keys.key(&id.to_hex())?)?;
        if KeyId::of(&json) != id {
            return Err(Error::new(
                ErrorKind::Corrupt,
                codes::HASH_MISMATCH,
                "the contents do not fit the name",
            ));
        }
        KeyFile::from_json(&json)
    };
    load().with_context(|| format!("read keys/{id}"))
}

/// What `accept` makes of the first key file that `password` opens and that it takes; those that cost the least are tried first.
/// A damaged one is passed over while another is taken.
fn first_key<T>(
    store: &BlockingStore,
    password: &Secret<String>,
    accept: impl Fn(MasterKey, KeyId) -> Result<T>,
) -> Result<Option<T>> {
    let (mut files, mut damaged, mut refused) = (Vec::new(), None, None);
    for (id, _) in list_ids(store, Folder::Keys)?.into_iter().take(KEYS_TRIED) {
        match load_key_file(store, KeyId(id)) {
            Ok(file) => files.push((KeyId(id), file)),
            Err(error) => damaged = Some(error),
        }
    }
    files.sort_by_key(|(_, file)| file.work());
    for (id, file) in files {
        match file.open(password) {
            Ok(Some(master)) => match accept(master, id) {
                Ok(taken) => return Ok(Some(taken)),
                Err(error) => refused = Some(error),
            },
            Ok(None) => {}
            Err(error) => damaged = Some(error.context(format!("read keys/{id}"))),
        }
    }
    refused.or(damaged).map_or(Ok(None), Err)
}

/// Takes away the key that we made, unless whoever made the repository before us found and took it.
fn take_key_back(store: &BlockingStore, key: &MasterKey, id: KeyId) -> Result<()> {
    let config = store.get(&config_key()?).context("read the repository's config")?;
    if Config::open(key, &config).is_ok() {
        return Ok(());
    }
    store.delete(&Folder::Keys.key(&id.to_hex())?)
}

fn add_key_file(store: &BlockingStore, master: &MasterKey, password: &Secret<String>) -> Result<KeyId> {
    let (id, file) = new_key_file(master, password, Origin::Chosen)?;
    save_key_file(store, id, file)?;
    Ok(id)
}

fn new_key_file(master: &MasterKey, password: &Secret<String>, origin: Origin) -> Result<(KeyId, Bytes)> {
    let maker = Maker { username: host::username(), hostname: host::hostname(), now: host::now() };
    let json = KeyFile::create(master, password, origin, maker)?.to_json()?;
    Ok((KeyId::of(&json), Bytes::from(json)))
}

fn save_key_file(store: &BlockingStore, id: KeyId, file: Bytes) -> Result<()> {
    store.put(&Folder::Keys.key(&id.to_hex())?, file, PutMode::Create).context("write a key file")
}

/// What only a repository that was in use has. Keys are not among it: a new one has them before its config.
const REMAINS: [&str; 6] = ["snapshots", "index", "data", "marks", "evidence", "wal"];

/// Without a config: nobody may have written anything but keys.
fn refuse_remains(store: &BlockingStore) -> Result<()> {
    for folder in REMAINS {
        let count = store.list(folder).with_context(|| format!("list {folder}"))?.len();
        // Of two that make a repository at once, the other may be done and at work by now.
        if count > 0 && !exists(store)? {
            let place = store.store().location();
            let message = format!(
                "the repository at `{place}` has lost its `config`: {} in `{folder}`, and nothing tells how to read them",
                counted(count, "object is", "objects are")
            );
            return Err(Error::new(ErrorKind::Corrupt, codes::CONFIG_MISSING, message).with_hint(
                "put the file `config` back from another copy of this repository; for a new repository name another place",
            ));
        }
    }
    Ok(())
}

fn missing(store: &BlockingStore) -> Error {
    let place = store.store().location();
    Error::new(ErrorKind::NotFound, codes::NO_REPOSITORY, format!("there is no repository at `{place}`"))
        .with_hint("name the address of one, and look whether what it lies on is mounted; the first `retoma backup` makes one at the address in the manifest")
}

fn already(store: &BlockingStore) -> Error {
    let place = store.store().location();
    Error::new(
        ErrorKind::Conflict,
        codes::REPOSITORY_EXISTS,
        format!("there is a repository at `{place}` already"),
    )
}

fn wrong_key(store: &BlockingStore) -> Error {
    let place = store.store().location();
    let message = format!("no key of the repository at `{place}` opens with this password");
    Error::new(ErrorKind::Unauthorized, codes::WRONG_KEY, message)
        .with_hint("check the file or variable that the manifest's `password` names")
}

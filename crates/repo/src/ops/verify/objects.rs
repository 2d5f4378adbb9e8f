//! Everything that is not a pack: config, keys, locks, snapshots, index files, and the listing of the packs.

use super::report::{Draft, Scope, Severity};
use super::{Run, Snapshots, object_name};
use crate::crypto::OVERHEAD_BYTES;
use crate::format::config::Config;
use crate::format::index::IndexPack;
use crate::format::key::KeyFile;
use crate::format::pack::PackedBlob;
use crate::id::{IndexId, KeyId, LockId, MarkId, PackId, RecipientId, SnapshotId, unhex};
use crate::index::Index;
use crate::recipients;
use crate::repository::{Folder, Repository};
use crate::store::Key;
use crate::threads;
use retoma_core::{Error, ErrorKind, Result, ResultExt, error::codes};
use sha2::{Digest, Sha256};
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, PoisonError};

/// Lists a folder. What is none of its objects becomes a note.
fn list(run: &Run<'_>, folder: Folder) -> Result<Vec<([u8; 32], u64)>> {
    let objects =
        run.repository.store().list(folder.name()).with_context(|| format!("list {}", folder.name()))?;
    let mut found = Vec::with_capacity(objects.len());
    for meta in objects {
        let name = meta.key.as_str();
        let id = name.rsplit('/').next().and_then(unhex);
        if let Some(id) = id.filter(|id| object_name(folder, *id) == name) {
            found.push((id, meta.size_bytes));
        } else {
            let message = format!("this is none of the objects that belong into `{}`", folder.name());
            run.add(Draft::note(name, codes::FOREIGN_OBJECT, message));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Checks the key files. While one is whole, the others' damage hits no snapshot.
pub(super) fn check_keys(run: &Run<'_>) -> Result<()> {
    let keys = list(run, Folder::Keys)?;
    run.state().counts.keys = keys.len() as u64;
    let mut damaged = Vec::new();
    for (id, _) in &keys {
        let name = object_name(Folder::Keys, *id);
        let check = || {
            let json = run.repository.store().get(&Key::new(name.clone())?)?;
            if KeyId::of(&json).0 != *id {
                let message = "the contents do not fit the name";
                return Err(Error::new(ErrorKind::Corrupt, codes::HASH_MISMATCH, message));
            }
            KeyFile::from_json(&json).map(drop)
        };
        if let Err(error) = check() {
            damaged.push(Draft::damage(name, &run.is_finding(error)?));
        }
    }
    let own = run.repository.key_id();
    if !keys.iter().any(|(id, _)| *id == own.0) {
        let message = "the key that opened the repository is not there any more";
        damaged.push(Draft::new(
            Severity::Damage,
            codes::OBJECT_NOT_FOUND,
            object_name(Folder::Keys, own.0),
            message,
        ));
    }
    let broken = damaged.iter().filter(|draft| draft.code != codes::OBJECT_NOT_FOUND).count();
    let one_left = keys.len() > broken;
    let scope = if one_left { Scope::Nothing } else { Scope::AllSnapshots };
    for draft in damaged {
        run.add(draft.scope(scope.clone()));
    }
    Ok(())
}

/// Checks that the config opens and is the one that was there when the repository was opened.
pub(super) fn check_config(run: &Run<'_>) -> Result<()> {
    let check = || {
        let sealed = run.repository.store().get(&Key::new("config")?)?;
        let config = Config::open(run.repository.key(), &sealed)?;
        if config == *run.repository.config() {
            return Ok(());
        }
        let message = "the config is not the one that the repository was opened with";
        Err(Error::new(ErrorKind::Corrupt, codes::MALFORMED, message))
    };
    if let Err(error) = check() {
        run.add(Draft::damage("config", &run.is_finding(error)?).scope(Scope::AllSnapshots));
    }
    Ok(())
}

/// A lock that can't be read hits no snapshot, but makes others wait for half an hour: a note.
pub(super) fn check_locks(run: &Run<'_>) -> Result<()> {
    each_readable(run, Folder::Locks, Severity::Note, |id| run.repository.lock(LockId(id)).map(drop))
}

/// A mark that can't be read hits no snapshot, but stops every backup and prune: damage.
pub(super) fn check_marks(run: &Run<'_>) -> Result<()> {
    each_readable(run, Folder::Marks, Severity::Damage, |id| run.repository.mark(MarkId(id)).map(drop))
}

/// A recipient that can't be read hits no snapshot; the way in that it tells of may be lost: a note.
pub(super) fn check_recipients(run: &Run<'_>) -> Result<()> {
    each_readable(run, Folder::Recipients, Severity::Note, |id| {
        recipients::read_one(run.repository.store(), RecipientId(id)).map(drop)
    })
}

/// What can't be read in a folder whose objects come and go becomes a finding that hits no snapshot.
fn each_readable(
    run: &Run<'_>,
    folder: Folder,
    severity: Severity,
    read: impl Fn([u8; 32]) -> Result<()>,
) -> Result<()> {
    for (id, _) in list(run, folder)? {
        match read(id) {
            Ok(()) => {}
            // It was taken away meanwhile.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => {
                let error = run.is_finding(error)?;
                run.add(Draft::new(severity, error.code(), object_name(folder, id), error.message()));
            }
        }
    }
    Ok(())
}

/// The snapshots, oldest first, and all that were listed.
pub(super) struct LoadedSnapshots {
    pub(super) readable: Snapshots,
    listed: Vec<[u8; 32]>,
}

pub(super) fn load_snapshots(run: &Run<'_>) -> Result<LoadedSnapshots> {
    let listed: Vec<[u8; 32]> = list(run, Folder::Snapshots)?.into_iter().map(|(id, _)| id).collect();
    let mut readable = Snapshots::with_capacity(listed.len());
    for id in listed.iter().copied().map(SnapshotId) {
        run.check_not_cancelled()?;
        match run.repository.snapshot(id) {
            Ok(snapshot) => readable.push((id, snapshot)),
            Err(error) => {
                let error = run.is_finding(error)?;
                let object = object_name(Folder::Snapshots, id.0);
                run.add(Draft::damage(object, &error).scope(Scope::Snapshot(id)));
            }
        }
    }
    readable.sort_by_key(|(id, snapshot)| (snapshot.time, *id));
    run.state().counts.snapshots = listed.len() as u64;
    Ok(LoadedSnapshots { readable, listed })
}

/// What the index tells about a pack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PackInfo {
    pub(super) blobs: u32,
    /// Size of the file.
    pub(super) bytes: u64,
    /// Of all its entries: two index files must tell the same.
    digest: [u8; 16],
    /// Its blobs follow one another without a gap.
    pub(super) is_whole: bool,
}

impl PackInfo {
    fn new(pack: &mut IndexPack) -> Self {
        pack.blobs.sort_unstable_by_key(|blob| (blob.offset_bytes, blob.id));
        let (mut hash, mut end, mut is_whole) = (Sha256::new(), 0u32, true);
        for PackedBlob { id, kind, offset_bytes, length_bytes, uncompressed_bytes } in &pack.blobs {
            hash.update(id.0);
            hash.update([*kind as u8]);
            for number in [*offset_bytes, *length_bytes, uncompressed_bytes.unwrap_or(0)] {
                hash.update(number.to_le_bytes());
            }
            is_whole &= *offset_bytes == end && *length_bytes as usize >= OVERHEAD_BYTES;
            end = offset_bytes.saturating_add(*length_bytes);
        }
        let mut digest = [0; 16];
        digest.copy_from_slice(&hash.finalize()[..16]);
        let blobs = u32::try_from(pack.blobs.len()).unwrap_or(u32::MAX);
        Self { blobs, bytes: pack.pack_bytes(), digest, is_whole }
    }
}

/// The index, as far as it could be read.
#[derive(Default)]
pub(super) struct LoadedIndex {
    pub(super) index: Index,
    pub(super) packs: HashMap<PackId, PackInfo>,
    listed: Vec<[u8; 32]>,
}

/// Index files that are read at the same time.
const READERS: usize = 4;

pub(super) fn load_index(run: &Run<'_>) -> Result<LoadedIndex> {
    let listed: Vec<[u8; 32]> = list(run, Folder::Index)?.into_iter().map(|(id, _)| id).collect();
    run.state().counts.index_files = listed.len() as u64;
    let loaded = Mutex::new(LoadedIndex::default());
    threads::for_each("verify", READERS, &listed, |id| {
        run.check_not_cancelled()?;
        match run.repository.index_file(IndexId(*id)) {
            Ok(file) => {
                let mut loaded = loaded.lock().unwrap_or_else(PoisonError::into_inner);
                file.packs.into_iter().for_each(|pack| add_pack(run, &mut loaded, pack));
            }
            Err(error) => {
                let error = run.is_finding(error)?;
                run.add(Draft::damage(object_name(Folder::Index, *id), &error).scope(Scope::Missing));
            }
        }
        Ok(())
    })?;
    let mut loaded = loaded.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut state = run.state();
    state.counts.packs = loaded.packs.len() as u64;
    state.counts.blobs = loaded.index.len() as u64;
    drop(state);
    loaded.listed = listed;
    Ok(loaded)
}

fn add_pack(run: &Run<'_>, loaded: &mut LoadedIndex, mut pack: IndexPack) {
    let info = PackInfo::new(&mut pack);
    let object = || object_name(Folder::Data, pack.id.0);
    let differs = |message| Draft::new(Severity::Damage, codes::INDEX_MISMATCH, object(), message);
    match loaded.packs.get_mut(&pack.id) {
        Some(known) if known.digest == info.digest => {}
        Some(known) => {
            known.is_whole = false;
            run.add(differs("two index files tell different things about this pack"));
        }
        None => {
            if !info.is_whole {
                run.add(differs("the blobs that the index names overlap or leave gaps"));
            }
            loaded.packs.insert(pack.id, info);
            loaded.index.add_pack(&pack);
        }
    }
}

/// The packs that are there, with their sizes in bytes. Those that no index names become notes.
pub(super) fn list_packs(run: &Run<'_>, loaded: &LoadedIndex) -> Result<HashMap<PackId, u64>> {
    let listed: HashMap<PackId, u64> =
        list(run, Folder::Data)?.into_iter().map(|(id, size_bytes)| (PackId(id), size_bytes)).collect();
    for id in listed.keys().filter(|id| !loaded.packs.contains_key(id)) {
        let message = "no index names this pack: the rest of a backup that was stopped, or its index is lost";
        run.add(Draft::note(object_name(Folder::Data, id.0), codes::PACK_UNINDEXED, message));
    }
    Ok(listed)
}

/// A prune or forget that ran meanwhile makes what it deleted look like damage.
pub(super) fn check_nobody_deleted(
    repository: &Repository,
    snapshots: &LoadedSnapshots,
    loaded: &LoadedIndex,
) -> Result<()> {
    for (folder, before) in [(Folder::Index, &loaded.listed), (Folder::Snapshots, &snapshots.listed)] {
        let now: HashSet<[u8; 32]> = repository.list(folder)?.into_iter().map(|(id, _)| id).collect();
        if let Some(gone) = before.iter().find(|id| !now.contains(*id)) {
            let message =
                format!("`{}` was deleted while the repository was examined", object_name(folder, *gone));
            return Err(Error::new(ErrorKind::Conflict, codes::CHANGED_MEANWHILE, message)
                .with_hint("wait until no prune or forget runs, and verify again"));
        }
    }
    Ok(())
}

//! What can really be restored, found without verify: everything is read and compared with what was backed up.

use super::Fixture;
use super::memory_source::Files;
use retoma_core::Result;
use retoma_repo::format::BlobKind;
use retoma_repo::format::config::Config;
use retoma_repo::format::key::KeyFile;
use retoma_repo::index::Index;
use retoma_repo::store::Key;
use retoma_repo::{BlobId, Folder, IndexId, KeyId, Repository, SnapshotId};
use std::collections::{BTreeMap, BTreeSet};

/// The paths of each snapshot that can't be restored. A snapshot of which nothing can be had has all of them.
pub(super) fn lost(fixture: &Fixture) -> BTreeMap<SnapshotId, BTreeSet<Vec<u8>>> {
    let all = |files: &Files| files.keys().map(|path| [b"/", path.as_slice()].concat()).collect();
    let Some(index) = open(&fixture.repository) else {
        return fixture.known.iter().map(|(id, files)| (*id, all(files))).collect();
    };
    let mut lost = BTreeMap::new();
    for (id, files) in &fixture.known {
        let mut paths: BTreeSet<Vec<u8>> = all(files);
        if let Ok(snapshot) = fixture.repository.snapshot(*id) {
            remove_readable(&fixture.repository, &index, &snapshot.tree, b"", files, &mut paths);
        }
        if !paths.is_empty() {
            lost.insert(*id, paths);
        }
    }
    lost
}

/// The index as far as it can be had; `None` when the repository doesn't open.
fn open(repository: &Repository) -> Option<Index> {
    let store = repository.store();
    let keys = repository.list(Folder::Keys).unwrap();
    let opens = |id: [u8; 32]| {
        let json = store.get(&Folder::Keys.key(&KeyId(id).to_hex()).unwrap()).ok()?;
        (KeyId::of(&json).0 == id).then(|| KeyFile::from_json(&json).ok())?
    };
    keys.into_iter().find_map(|(id, _)| opens(id))?;
    let config = store.get(&Key::new("config").unwrap()).ok()?;
    Config::open(repository.key(), &config).ok()?;
    let mut index = Index::default();
    for (id, _) in repository.list(Folder::Index).unwrap() {
        if let Ok(file) = repository.index_file(IndexId(id)) {
            file.packs.iter().for_each(|pack| index.add_pack(pack));
        }
    }
    Some(index)
}

fn remove_readable(
    repository: &Repository,
    index: &Index,
    tree: &BlobId,
    path: &[u8],
    files: &Files,
    paths: &mut BTreeSet<Vec<u8>>,
) {
    let Ok(nodes) = repository.read_tree(index, tree) else { return };
    for node in nodes {
        let path = [path, b"/", &node.name].concat();
        if let Some(tree) = node.subtree {
            remove_readable(repository, index, &tree, &path, files, paths);
            continue;
        }
        let read: Result<Vec<Vec<u8>>> =
            node.content.iter().map(|id| repository.read_blob(index, BlobKind::Data, id)).collect();
        if let Ok(pieces) = read {
            let shown = path.escape_ascii();
            assert_eq!(Some(&pieces.concat()), files.get(&path[1..]), "{shown} was read with wrong bytes");
            paths.remove(&path);
        }
    }
}

//! What each fuzz target does with its input. Shared by `fuzz_targets/` and by `crates/repo/tests/it/fuzz_corpus.rs`,
//! which replays the corpus on every test run.
//!
//! Nothing may panic, and where decoding succeeds, encoding what was decoded must be stable. Inputs are sealed here, so
//! that they get past the authentication code, as those of somebody who has the key do.

use retoma_core::Secret;
use retoma_repo::crypto::MasterKey;
use retoma_repo::format::config::Config;
use retoma_repo::format::index::{IndexFile, IndexPack};
use retoma_repo::format::key::KeyFile;
use retoma_repo::format::snapshot::Snapshot;
use retoma_repo::format::{pack, tree};

fn key() -> MasterKey {
    MasterKey::from_bytes(&[7; 64])
}

/// Eight bytes: how much lies before the header (little endian). The rest: the header's plaintext.
pub fn pack_header(data: &[u8]) {
    pack::open_header(&key(), data, 0).ok();
    let Some((blobs_bytes, header)) = data.split_first_chunk::<8>() else { return };
    let blobs_bytes = u64::from_le_bytes(*blobs_bytes);
    if let Some(trailer) = header.last_chunk() {
        pack::header_length(*trailer, blobs_bytes).ok();
    }
    let Ok(blobs) = pack::open_header(&key(), &key().seal(header).unwrap(), blobs_bytes) else { return };
    let sealed = pack::seal_header(&key(), &blobs).unwrap();
    assert_eq!(sealed.len(), pack::header_bytes(&blobs));
    let (sealed, trailer) = sealed.split_last_chunk::<{ pack::TRAILER_BYTES }>().unwrap();
    let pack_bytes = blobs_bytes + (sealed.len() + pack::TRAILER_BYTES) as u64;
    assert_eq!(pack::header_length(*trailer, pack_bytes).unwrap() as usize, sealed.len());
    assert_eq!(pack::open_header(&key(), sealed, blobs_bytes).unwrap(), blobs);
}

/// An index file's JSON.
pub fn index(data: &[u8]) {
    let Ok(file) = IndexFile::from_json(data) else { return };
    let sizes: Vec<u64> = file.packs.iter().map(IndexPack::pack_bytes).collect();
    assert_eq!(sizes.len(), file.packs.len());
    assert_eq!(IndexFile::from_json(&file.to_json().unwrap()).unwrap(), file);
}

/// A tree's JSON.
pub fn tree(data: &[u8]) {
    let Ok(nodes) = tree::from_json(data) else { return };
    let json = tree::to_json(&nodes).unwrap();
    let again = tree::from_json(&json).unwrap();
    assert_eq!(tree::to_json(&again).unwrap(), json);
    for (node, again) in nodes.iter().zip(&again) {
        assert_eq!(
            (&node.name, &node.link_target, &node.xattrs),
            (&again.name, &again.link_target, &again.xattrs)
        );
        assert_eq!((node.mode, node.mtime, node.subtree), (again.mode, again.mtime, again.subtree));
    }
}

/// A snapshot's JSON.
pub fn snapshot(data: &[u8]) {
    let Ok(snapshot) = Snapshot::from_json(data) else { return };
    let values = [snapshot.component(), snapshot.kind(), snapshot.manifest_hash()];
    assert!(values.into_iter().flatten().all(|value| value.len() <= data.len()));
    assert_eq!(Snapshot::from_json(&snapshot.to_json().unwrap()).unwrap(), snapshot);
}

/// A key file. It is opened when that is quick, or when its costs are absurd and must be refused quickly.
pub fn key_file(data: &[u8]) {
    let Ok(file) = KeyFile::from_json(data) else { return };
    assert_eq!(KeyFile::from_json(&file.to_json().unwrap()).unwrap(), file);
    let work = u128::from(file.n) * u128::from(file.r) * u128::from(file.p) * 128;
    if work <= 1 << 18 || work > 1 << 30 {
        file.open(&Secret::new("password".to_owned())).ok();
    }
}

/// A config's JSON.
pub fn config(data: &[u8]) {
    Config::open(&key(), data).ok();
    let Ok(config) = Config::open(&key(), &key().seal(data).unwrap()) else { return };
    assert_eq!(Config::open(&key(), &config.seal(&key()).unwrap()).unwrap(), config);
}

//! Index files: which blob lies where in which pack. JSON, compressed, sealed.

use super::{BlobKind, malformed, pack::PackedBlob};
use crate::id::{BlobId, IndexId, PackId};
use retoma_core::{Error, Result};
use serde::{Deserialize, Serialize};

/// An index file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct IndexFile {
    /// Index files that this one replaces (restic writes it, readers may ignore it).
    pub supersedes: Vec<IndexId>,
    /// The packs with their blobs.
    pub packs: Vec<IndexPack>,
}

/// One pack in an index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexPack {
    /// The pack.
    pub id: PackId,
    /// Its blobs.
    pub blobs: Vec<PackedBlob>,
}

impl IndexPack {
    /// The size of the pack's file: blobs, header and trailer.
    pub fn pack_bytes(&self) -> u64 {
        let blobs: u64 = self.blobs.iter().map(|blob| u64::from(blob.length_bytes)).sum();
        blobs + super::pack::header_bytes(&self.blobs) as u64
    }
}

#[derive(Serialize, Deserialize)]
struct FileJson {
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    supersedes: Vec<IndexId>,
    packs: Vec<PackJson>,
}

#[derive(Serialize, Deserialize)]
struct PackJson {
    id: PackId,
    blobs: Vec<BlobJson>,
}

#[derive(Serialize, Deserialize)]
struct BlobJson {
    id: BlobId,
    #[serde(rename = "type")]
    kind: BlobKind,
    offset: u32,
    length: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uncompressed_length: Option<u32>,
}

/// Go writes `null` for an empty list.
pub(crate) fn null_is_empty<'de, D, T>(deserializer: D) -> std::result::Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

impl IndexFile {
    /// JSON, as restic writes it.
    ///
    /// # Errors
    /// None in practice.
    pub fn to_json(&self) -> Result<Vec<u8>> {
        let blob = |blob: &PackedBlob| BlobJson {
            id: blob.id,
            kind: blob.kind,
            offset: blob.offset_bytes,
            length: blob.length_bytes,
            uncompressed_length: blob.uncompressed_bytes,
        };
        let packs = self.packs.iter();
        let packs = packs.map(|pack| PackJson { id: pack.id, blobs: pack.blobs.iter().map(blob).collect() });
        let json = FileJson { supersedes: self.supersedes.clone(), packs: packs.collect() };
        serde_json::to_vec(&json).map_err(|error| Error::internal(format!("index: {error}")))
    }

    /// Reads an index file.
    ///
    /// # Errors
    /// `Corrupt` when it is not the JSON of an index or a blob ends beyond 4 GiB.
    pub fn from_json(json: &[u8]) -> Result<Self> {
        let json: FileJson =
            serde_json::from_slice(json).map_err(|error| malformed(format!("index: {error}")))?;
        let blob = |blob: BlobJson| {
            if blob.offset.checked_add(blob.length).is_none() {
                return Err(malformed(format!("index: blob {} ends beyond 4 GiB", blob.id)));
            }
            // Go's `omitempty` and a length of zero mean: not compressed.
            let uncompressed_bytes = blob.uncompressed_length.filter(|length| *length != 0);
            Ok(PackedBlob {
                id: blob.id,
                kind: blob.kind,
                offset_bytes: blob.offset,
                length_bytes: blob.length,
                uncompressed_bytes,
            })
        };
        let pack = |pack: PackJson| {
            let blobs = pack.blobs.into_iter().map(blob).collect::<Result<Vec<_>>>()?;
            Ok(IndexPack { id: pack.id, blobs })
        };
        let packs = json.packs.into_iter().map(pack).collect::<Result<Vec<_>>>()?;
        Ok(Self { supersedes: json.supersedes, packs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn index_files_round_trip(ids in prop::collection::vec(any::<([u8; 32], bool, u16, Option<u16>)>(), 0..20)) {
            let blobs = ids.iter().map(|(id, tree, length, plain)| PackedBlob {
                id: BlobId(*id),
                kind: if *tree { BlobKind::Tree } else { BlobKind::Data },
                offset_bytes: u32::from(*length) * 3,
                length_bytes: u32::from(*length),
                uncompressed_bytes: plain.filter(|plain| *plain != 0).map(u32::from),
            });
            let file = IndexFile {
                supersedes: vec![IndexId([1; 32])],
                packs: vec![IndexPack { id: PackId([2; 32]), blobs: blobs.collect() }],
            };
            prop_assert_eq!(IndexFile::from_json(&file.to_json().unwrap()).unwrap(), file);
        }
    }

    #[test]
    fn what_restic_writes_is_read() {
        let hex = "73d04e6125cf3c28a299cc2f3cca3b78ceac396e4fcf9575e34536b26782413c";
        let json = format!(
            r#"{{"supersedes":null,"packs":[{{"id":"{hex}","blobs":[{{"id":"{hex}","type":"data","offset":0,"length":38,"uncompressed_length":1000}}]}}]}}"#
        );
        let file = IndexFile::from_json(json.as_bytes()).unwrap();
        assert_eq!(file.packs[0].blobs[0].uncompressed_bytes, Some(1000));
        assert_eq!(file.packs[0].id.to_hex(), hex);
    }

    #[test]
    fn absurd_offsets_are_refused() {
        let hex = "73d04e6125cf3c28a299cc2f3cca3b78ceac396e4fcf9575e34536b26782413c";
        let json = format!(
            r#"{{"packs":[{{"id":"{hex}","blobs":[{{"id":"{hex}","type":"tree","offset":4294967295,"length":2}}]}}]}}"#
        );
        assert!(IndexFile::from_json(json.as_bytes()).is_err());
    }
}

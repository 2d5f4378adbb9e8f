//! Copies blobs that are needed out of packs that are going. Each is opened and its hash checked before it is believed;
//! the sealed bytes are then stored as they were.

use super::choose::Known;
use super::state::Current;
use crate::backup::{Progress, packer::Packer};
use crate::blob;
use crate::format::BlobKind;
use crate::id::{BlobId, PackId};
use crate::index::{Index, Location};
use crate::repository::Repository;
use retoma_core::{Error, ErrorKind, Result, ResultExt, error::codes};
use std::collections::{BTreeMap, HashSet};
use std::sync::RwLock;

/// Blobs to copy, by the pack that they are read from.
#[derive(Debug, Default)]
pub(super) struct Copies {
    packs: BTreeMap<PackId, Vec<Location>>,
}

impl Copies {
    /// Looks at every needed blob that lies in `doomed` packs only. Where one of them is in `sources`, it is copied;
    /// otherwise its pack is taken off `doomed` and told in `needed_again`.
    pub(super) fn find(
        current: &Current,
        known: &Known,
        doomed: &mut HashSet<PackId>,
        sources: &HashSet<PackId>,
        needed_again: &mut Vec<PackId>,
    ) -> Result<Self> {
        let mut copies = Self::default();
        let mut endangered = Vec::new();
        for (kind, id) in known.blobs() {
            if let Some(places) = endangered_places(current, doomed, kind, id)? {
                endangered.push(places);
            }
        }
        // What can't be copied keeps its pack, which may in turn make copies needless: so it comes first.
        for places in &endangered {
            let safe = places.iter().any(|place| !doomed.contains(&place.pack));
            if safe || places.iter().any(|place| sources.contains(&place.pack)) {
                continue;
            }
            if let Some(pack) = places.iter().map(|place| place.pack).min() {
                doomed.remove(&pack);
                needed_again.push(pack);
            }
        }
        for places in endangered {
            let from =
                places.iter().filter(|place| sources.contains(&place.pack)).min_by_key(|place| place.pack);
            match from {
                Some(place) if places.iter().all(|place| doomed.contains(&place.pack)) => {
                    copies.packs.entry(place.pack).or_default().push(*place);
                }
                _ => {}
            }
        }
        for blobs in copies.packs.values_mut() {
            blobs.sort_by_key(|place| place.blob.offset_bytes);
        }
        Ok(copies)
    }

    /// Copies; gives the bytes of the new packs. They and their index are durable on return.
    pub(super) fn copy(self, repository: &Repository, index: Index, progress: &Progress) -> Result<u64> {
        let index = RwLock::new(index);
        let packer = Packer::new(repository.clone());
        for (pack, blobs) in &self.packs {
            progress.check("the prune")?;
            copy_pack(repository, &packer, &index, *pack, blobs)
                .with_context(|| format!("copy from pack {pack}"))?;
        }
        packer.finish(&index)?;
        Ok(packer.stored_bytes())
    }
}

/// The places of a blob when all of them are doomed; `None` when it is safe.
fn endangered_places(
    current: &Current,
    doomed: &HashSet<PackId>,
    kind: BlobKind,
    id: &BlobId,
) -> Result<Option<Vec<Location>>> {
    let mut places = Vec::new();
    for place in current.index.all(kind, id).filter(|place| current.sizes.contains_key(&place.pack)) {
        if !doomed.contains(&place.pack) {
            return Ok(None);
        }
        places.push(place);
    }
    if places.is_empty() {
        let message = format!("blob {id} is needed and in no pack that is there");
        return Err(Error::new(ErrorKind::Corrupt, codes::BLOB_MISSING, message)
            .with_hint("run `retoma verify` to see which snapshots are hit; nothing was deleted"));
    }
    Ok(Some(places))
}

fn copy_pack(
    repository: &Repository,
    packer: &Packer,
    index: &RwLock<Index>,
    pack: PackId,
    blobs: &[Location],
) -> Result<()> {
    let (Some(first), Some(last)) = (blobs.first(), blobs.last()) else { return Ok(()) };
    let start = first.blob.offset_bytes;
    let end = u64::from(last.blob.offset_bytes) + u64::from(last.blob.length_bytes);
    let bytes = repository.store().get_range(&repository.pack_key(pack)?, u64::from(start)..end)?;
    for Location { blob, .. } in blobs {
        let from = (blob.offset_bytes - start) as usize;
        let sealed = bytes.get(from..from + blob.length_bytes as usize).unwrap_or_default();
        blob::open(repository.key(), blob, sealed.to_vec())
            .with_context(|| format!("read blob {}", blob.id))?;
        packer.add(index, blob.kind, blob.id, sealed, blob.uncompressed_bytes)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests;

//! Objects that no backup of ours writes.

use retoma_repo::format::BlobKind;
use retoma_repo::format::index::IndexPack;
use retoma_repo::format::pack::{self, PackedBlob};
use retoma_repo::store::PutMode;
use retoma_repo::{BlobId, PackId, Repository, blob};

/// Stores `plaintexts` as a pack that is sealed and hashed right, whatever is in it.
pub(crate) fn pack(
    repository: &Repository,
    kind: BlobKind,
    plaintexts: &[&[u8]],
    claimed: Option<BlobId>,
) -> IndexPack {
    let (mut bytes, mut sealed, mut blobs) = (Vec::new(), Vec::new(), Vec::new());
    for plaintext in plaintexts {
        let uncompressed_bytes = blob::seal(repository, plaintext, &mut sealed).unwrap();
        blobs.push(PackedBlob {
            id: claimed.unwrap_or_else(|| BlobId::of(plaintext)),
            kind,
            offset_bytes: u32::try_from(bytes.len()).unwrap(),
            length_bytes: u32::try_from(sealed.len()).unwrap(),
            uncompressed_bytes,
        });
        bytes.extend_from_slice(&sealed);
    }
    bytes.extend(pack::seal_header(repository.key(), &blobs).unwrap());
    let id = PackId::of(&bytes);
    let key = repository.pack_key(id).unwrap();
    repository.store().put(&key, bytes.into(), PutMode::Create).unwrap();
    IndexPack { id, blobs }
}

//! Small files of a snapshot, read whole: what a capture said about itself.

use retoma_core::{Error, ErrorKind, Result, ResultExt, error::codes};
use retoma_repo::Repository;
use retoma_repo::format::BlobKind;
use retoma_repo::id::BlobId;
use retoma_repo::index::Index;
use retoma_repo::ops::find;

/// The contents of the file at `path` in the snapshot whose root is `tree`; `None` where there is none.
///
/// # Errors
/// `R0408` when it is longer than `limit_bytes`; what reading the repository says.
pub(crate) fn file(
    repository: &Repository,
    index: &Index,
    tree: &BlobId,
    path: &str,
    limit_bytes: u64,
) -> Result<Option<Vec<u8>>> {
    let node = match find::node(repository, index, tree, path.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        node => node?,
    };
    if node.size_bytes > limit_bytes {
        let message = format!("`{path}` has `{}` bytes", node.size_bytes);
        return Err(Error::new(ErrorKind::Corrupt, codes::CAPTURE_FACTS_MALFORMED, message));
    }
    let mut bytes = Vec::new();
    for id in &node.content {
        let blob = repository.read_blob(index, BlobKind::Data, id);
        bytes.extend(blob.with_context(|| format!("read `{path}` of the snapshot"))?);
    }
    Ok(Some(bytes))
}

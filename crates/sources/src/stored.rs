//! What a capture says about itself: small files of a snapshot, read whole, in JSON with a schema.

use retoma_core::{Error, ErrorKind, Result, ResultExt, error::codes};
use retoma_repo::Repository;
use retoma_repo::format::BlobKind;
use retoma_repo::id::BlobId;
use retoma_repo::index::Index;
use retoma_repo::ops::find;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

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

/// Facts as JSON.
///
/// # Errors
/// `Internal` only.
pub(crate) fn to_json(facts: &impl Serialize) -> Result<Vec<u8>> {
    let mut json = serde_json::to_vec_pretty(facts).map_err(|error| {
        Error::internal("the facts of a capture cannot be written as JSON").with_source(error)
    })?;
    json.push(b'\n');
    Ok(json)
}

/// Reads facts of this `schema`; `path` is named in errors.
///
/// # Errors
/// `R0408`: `Unsupported` for another schema, `Corrupt` for what are no facts.
pub(crate) fn from_json<T: DeserializeOwned>(json: &[u8], path: &str, schema: &str) -> Result<T> {
    #[derive(Deserialize)]
    struct Head {
        schema: String,
    }
    let malformed = |error: serde_json::Error| {
        let message = format!("`{path}` cannot be read: {error}");
        Error::new(ErrorKind::Corrupt, codes::CAPTURE_FACTS_MALFORMED, message)
            .with_hint("run `retoma verify` to see whether the snapshot is whole, or use another snapshot")
    };
    let head: Head = serde_json::from_slice(json).map_err(malformed)?;
    if head.schema != schema {
        let message = format!("`{path}` has the schema `{}`, not `{schema}`", head.schema.escape_debug());
        return Err(Error::new(ErrorKind::Unsupported, codes::CAPTURE_FACTS_MALFORMED, message)
            .with_hint("read it with the version of the program that wrote it"));
    }
    serde_json::from_slice(json).map_err(malformed)
}

//! A repository in a folder.

use crate::Folder;
use retoma_core::Secret;
use retoma_repo::Repository;
use retoma_repo::store::{BlockingStore, LocalStore};
use std::sync::Arc;

/// A new repository in `repository` below `folder`; its password is `correct horse`.
///
/// # Panics
/// When it cannot be made.
#[allow(clippy::panic)]
pub fn repository(folder: &Folder) -> Repository {
    let made = LocalStore::new(folder.join("repository"))
        .and_then(|store| BlockingStore::new(Arc::new(store)))
        .and_then(|store| Repository::init(store, &Secret::new("correct horse".to_owned())));
    made.unwrap_or_else(|error| panic!("make a repository: {error}"))
}

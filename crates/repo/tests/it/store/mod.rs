//! Every store and every layer keeps the same contract, also when things fail.

mod as_of;
mod blocking;
mod buckets;
mod cache;
mod conformance;
mod crash;
mod faults;
mod held;
mod http;
mod layers;
mod local;
mod model;
mod outages;
mod sftp;
mod suite;

use bytes::Bytes;
use futures::TryStreamExt as _;
use retoma_repo::Result;
use retoma_repo::store::{Key, ObjectStore, Store};
use std::sync::Arc;

/// A key that is known to be good.
fn key(name: &str) -> Key {
    Key::new(name).unwrap()
}

fn memory() -> Arc<dyn Store> {
    Arc::new(ObjectStore::memory())
}

/// The names below `folder`, sorted.
async fn names(store: &dyn Store, folder: &str) -> Result<Vec<String>> {
    let mut names: Vec<_> =
        store.list(folder).map_ok(|meta| meta.key.as_str().to_owned()).try_collect().await?;
    names.sort();
    Ok(names)
}

fn text(bytes: &'static str) -> Bytes {
    Bytes::from_static(bytes.as_bytes())
}

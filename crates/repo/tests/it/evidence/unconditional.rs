//! A store without an atomic create: of two that write the same record at once, who was written over goes on.

use super::{chain_of, draft, key, repository_in};
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::BoxStream;
use retoma_core::Result;
use retoma_repo::evidence::{Chain, list};
use retoma_repo::store::{Capabilities, Key, ObjectMeta, ObjectStore, PutMode, Store};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex};

/// Whatever is created may be written over by somebody who looked at the same moment.
#[derive(Debug)]
struct Unconditional {
    inner: ObjectStore,
    /// What a rival writes right after the next create of this object.
    rival: Mutex<Option<(Key, Bytes)>>,
}

#[async_trait]
impl Store for Unconditional {
    fn location(&self) -> String {
        self.inner.location()
    }

    fn capabilities(&self) -> Capabilities {
        Capabilities { conditional_create: false, ..self.inner.capabilities() }
    }

    async fn put(&self, key: &Key, data: Bytes, mode: PutMode) -> Result<()> {
        self.inner.put(key, data, mode).await?;
        let rival = self.rival.lock().unwrap().take_if(|(name, _)| name == key);
        match rival {
            Some((_, data)) => self.inner.put(key, data, PutMode::Overwrite).await,
            None => Ok(()),
        }
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        self.inner.get(key).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        self.inner.get_range(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        self.inner.head(key).await
    }

    fn list<'a>(&'a self, folder: &'a str) -> BoxStream<'a, Result<ObjectMeta>> {
        self.inner.list(folder)
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.inner.delete(key).await
    }
}

#[test]
fn a_record_that_was_written_over_is_appended_again_at_the_next_place() {
    let store = Arc::new(Unconditional { inner: ObjectStore::memory(), rival: Mutex::default() });
    let repository = repository_in(store.clone());
    chain_of(&repository, "ana", &key(), 1);
    let chain = Chain::open(&repository, "ana").unwrap();
    // What the rival writes is a sound record for the same place.
    let theirs = chain.append(&key(), &draft(77)).unwrap();
    let name = Key::new("evidence/ana/00000000000000000002").unwrap();
    let bytes = repository.store().get(&name).unwrap();
    repository.store().delete(&name).unwrap();
    *store.rival.lock().unwrap() = Some((name, bytes));

    let ours = chain.append(&key(), &draft(3)).unwrap();
    assert_eq!((ours.sequence(), ours.payload().previous), (3, Some(theirs.hash())));
    let listing = list(&repository, &BTreeMap::new()).unwrap().remove(0);
    let hashes: Vec<_> = listing.records().map(retoma_repo::evidence::Record::hash).collect();
    assert_eq!(hashes[1..], [theirs.hash(), ours.hash()], "neither is lost");
    assert_eq!(listing.damages().count(), 0);
    // Alone, a record is not written twice.
    assert_eq!(chain.append(&key(), &draft(4)).unwrap().sequence(), 4);
}

//! Runs the suite on every store, on a local store behind every layer, and behind all of them.

use super::memory;
use super::suite::CHECKS;
use retoma_repo::store::layer::{
    Cache, CacheSettings, Layers, Limit, Limits, Meter, Retry, RetryPolicy, TimeLimits, Timeout, stack,
};
use retoma_repo::store::{Address, LocalStore, Store, SystemClock, open};
use retoma_testkit::{FaultyStore, Folder};
use std::num::NonZeroU64;
use std::path::Path;
use std::sync::Arc;

/// Runs every check, each on a store that `make` makes of a local one in a new folder.
fn conforms(make: impl Fn(Arc<dyn Store>, &Path) -> Arc<dyn Store>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for (name, check) in CHECKS {
        let folder = Folder::new();
        let local = Arc::new(LocalStore::new(folder.join("not/made/yet")).unwrap());
        let store = make(local, folder.path());
        let outcome = runtime.block_on(async { tokio::spawn(check(store)).await });
        assert!(outcome.is_ok(), "check `{name}` failed; its panic is above");
    }
}

fn clock() -> Arc<SystemClock> {
    Arc::new(SystemClock::default())
}

#[test]
fn memory_conforms() {
    conforms(|_, _| memory());
}

#[test]
fn local_conforms() {
    conforms(|local, _| local);
}

#[test]
fn an_opened_address_conforms() {
    conforms(|_, folder| {
        let address: Address = format!("file://{}/new%20folder", folder.display()).parse().unwrap();
        open(&address).unwrap()
    });
}

#[test]
fn retry_conforms() {
    conforms(|local, _| Arc::new(Retry::new(local, RetryPolicy::default(), clock())));
}

#[test]
fn limit_conforms() {
    let limits = Limits {
        calls: 3,
        upload_bytes_per_second: NonZeroU64::new(10 << 30),
        download_bytes_per_second: NonZeroU64::new(10 << 30),
    };
    conforms(|local, _| Arc::new(Limit::new(local, limits, clock())));
}

#[test]
fn meter_conforms() {
    conforms(|local, _| Arc::new(Meter::new(local)));
}

#[test]
fn timeout_conforms() {
    conforms(|local, _| Arc::new(Timeout::new(local, TimeLimits::default(), clock())));
}

/// Keeps everything, so that each check meets the cache.
fn cache_settings(folder: &Path) -> CacheSettings {
    CacheSettings { folder: folder.join("cache"), keep: Arc::new(|_| true), max_bytes: 1 << 30 }
}

#[test]
fn cache_conforms() {
    conforms(|local, folder| Arc::new(Cache::new(local, cache_settings(folder))));
}

#[test]
fn a_faulty_store_without_faults_conforms() {
    conforms(|local, _| Arc::new(FaultyStore::new(local)));
}

#[test]
fn all_layers_together_conform() {
    conforms(|local, folder| {
        let cache = Some(cache_settings(folder));
        stack(local, Layers { cache, ..Layers::default() }).store
    });
}

/// A layer that forgets to pass this verb on would answer "nothing was left" by the trait's default.
#[test]
fn every_layer_passes_the_removal_of_leftovers_on() {
    type Make = fn(Arc<dyn Store>, &Path) -> Arc<dyn Store>;
    let layers: [(&str, Make); 7] = [
        ("retry", |local, _| Arc::new(Retry::new(local, RetryPolicy::default(), clock()))),
        ("limit", |local, _| Arc::new(Limit::new(local, Limits::default(), clock()))),
        ("meter", |local, _| Arc::new(Meter::new(local))),
        ("timeout", |local, _| Arc::new(Timeout::new(local, TimeLimits::default(), clock()))),
        ("cache", |local, folder| Arc::new(Cache::new(local, cache_settings(folder)))),
        ("faulty", |local, _| Arc::new(FaultyStore::new(local))),
        ("all", |local, _| stack(local, Layers::default()).store),
    ];
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for (name, make) in layers {
        let folder = Folder::new();
        std::fs::write(folder.join("#0123456789abcdef"), "half").unwrap();
        let store = make(Arc::new(LocalStore::new(folder.path()).unwrap()), folder.path());
        let removed = runtime.block_on(store.remove_leftovers(jiff::Timestamp::MAX)).unwrap();
        assert_eq!((removed.count, removed.size_bytes), (1, 4), "{name}");
    }
}

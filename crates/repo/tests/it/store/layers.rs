//! What each layer adds, beyond keeping the contract.

use super::{key, memory, names, text};
use futures::future::{FutureExt as _, join_all};
use retoma_core::error::codes;
use retoma_repo::ErrorKind;
use retoma_repo::store::layer::{
    DryRun, Layers, Limit, Limits, Meter, RetryPolicy, TimeLimits, Timeout, VerbCounts, stack,
};
use retoma_repo::store::{Clock as _, PutMode, Store, Verb};
use retoma_testkit::{Fault, FaultyStore, ManualClock, Rule, When, bytes};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

#[tokio::test]
async fn a_hanging_store_ends_with_a_timeout() {
    let hanging = FaultyStore::new(memory()).with(Rule::new(None, "*", When::Always, Fault::Hang));
    let clock = Arc::new(ManualClock::standing());
    let limits = TimeLimits { request: seconds(30), transfer: seconds(300) };
    let store = Timeout::new(Arc::new(hanging), limits, clock.clone());
    let name = key("a/b");
    let calls = async {
        [
            store.put(&name, text("x"), PutMode::Create).await.unwrap_err(),
            store.get(&name).await.unwrap_err(),
            store.get_range(&name, 0..1).await.unwrap_err(),
            store.head(&name).await.unwrap_err(),
            store.delete(&name).await.unwrap_err(),
            names(&store, "a").await.unwrap_err(),
        ]
    };
    let time = async {
        for sleeps in 1..=6 {
            clock.wait_for_sleeps(sleeps).await;
            clock.advance(*clock.sleeps().last().unwrap());
        }
    };
    let (errors, ()) = tokio::join!(calls, time);
    for error in errors {
        assert_eq!((error.kind(), error.code()), (ErrorKind::Unavailable, codes::STORE_TIMEOUT), "{error}");
    }
    assert_eq!(clock.sleeps(), [300, 300, 300, 30, 30, 30].map(seconds));
}

#[tokio::test]
async fn an_answer_within_the_time_is_passed() {
    let store = Timeout::new(
        memory(),
        TimeLimits { request: Duration::ZERO, transfer: Duration::ZERO },
        Arc::new(ManualClock::moving()),
    );
    store.put(&key("a"), text("x"), PutMode::Create).await.unwrap();
    assert_eq!(store.get(&key("a")).await.unwrap(), "x");
    assert_eq!(store.get(&key("b")).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn no_more_calls_than_allowed_run_at_once() {
    let hanging =
        Arc::new(FaultyStore::new(memory()).with(Rule::new(Verb::Get, "*", When::First(2), Fault::Hang)));
    let limits = Limits { calls: 2, ..Limits::default() };
    let store = Limit::new(hanging.clone(), limits, Arc::new(ManualClock::standing()));
    let name = key("a");
    let mut running: Vec<_> = (0..5).map(|_| store.get(&name)).collect();
    for call in &mut running {
        assert!(call.now_or_never().is_none());
    }
    assert_eq!(hanging.calls(Verb::Get), 2);
    // One that is dropped gives its place to the next.
    drop(running.remove(0));
    let ended = join_all(running.split_off(1)).await;
    assert!(ended.iter().all(|result| result.as_ref().unwrap_err().kind() == ErrorKind::NotFound));
    assert_eq!(hanging.calls(Verb::Get), 5);
}

#[tokio::test]
async fn bytes_wait_for_their_turn() {
    let clock = Arc::new(ManualClock::moving());
    let limits = Limits {
        upload_bytes_per_second: NonZeroU64::new(1000),
        download_bytes_per_second: NonZeroU64::new(500),
        ..Limits::default()
    };
    let store = Limit::new(memory(), limits, clock.clone());
    for number in 0..10 {
        store.put(&key(&format!("a/{number}")), bytes(number, 1000), PutMode::Create).await.unwrap();
    }
    assert_eq!(clock.now(), seconds(9), "10 000 bytes at 1000 a second, one second's worth at once");
    for number in 0..10 {
        store.get_range(&key(&format!("a/{number}")), 0..500).await.unwrap();
        store.get(&key(&format!("a/{number}"))).await.unwrap();
    }
    assert_eq!(clock.now(), seconds(9 + 29), "15 000 bytes at 500 a second");
}

#[tokio::test]
async fn the_meter_counts_calls_errors_and_bytes() {
    let faulty = FaultyStore::new(memory()).with(Rule::error_then_ok(Verb::List, "broken", 1));
    let meter = Meter::new(Arc::new(faulty));
    meter.put(&key("a"), bytes(1, 700), PutMode::Create).await.unwrap();
    meter.put(&key("a"), bytes(1, 700), PutMode::Create).await.unwrap_err();
    meter.get(&key("a")).await.unwrap();
    meter.get(&key("b")).await.unwrap_err();
    meter.get_range(&key("a"), 0..30).await.unwrap();
    meter.head(&key("a")).await.unwrap();
    names(&meter, "").await.unwrap();
    names(&meter, "broken").await.unwrap_err();
    meter.delete(&key("a")).await.unwrap();
    let counted = meter.snapshot();
    let expected = [(2, 1, 700), (2, 1, 700), (1, 0, 30), (1, 0, 0), (2, 1, 0), (1, 0, 0)];
    for (verb, (calls, errors, bytes)) in Verb::ALL.into_iter().zip(expected) {
        assert_eq!(counted.verb(verb), VerbCounts { calls, errors, bytes }, "{}", verb.as_str());
    }
    assert_eq!((counted.calls(), counted.written_bytes(), counted.read_bytes()), (9, 700, 730));
}

#[tokio::test]
async fn a_dry_run_counts_and_changes_nothing() {
    let under = Arc::new(FaultyStore::new(memory()));
    under.put(&key("a/there"), text("x"), PutMode::Create).await.unwrap();
    let store = DryRun::new(under.clone());
    store.put(&key("a/new"), bytes(1, 50), PutMode::Create).await.unwrap();
    store.put(&key("a/there"), bytes(1, 7), PutMode::Overwrite).await.unwrap();
    let error = store.put(&key("a/there"), text("y"), PutMode::Create).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    store.delete(&key("a/there")).await.unwrap();
    store.remove_leftovers(jiff::Timestamp::MAX).await.unwrap();

    let counts = store.counts();
    assert_eq!((counts.puts, counts.put_bytes, counts.deletes), (2, 57, 1));
    assert_eq!(store.get(&key("a/there")).await.unwrap(), "x");
    assert_eq!(store.get_range(&key("a/there"), 0..1).await.unwrap(), "x");
    assert_eq!(names(&store, "").await.unwrap(), ["a/there"]);
    assert_eq!((under.calls(Verb::Put), under.calls(Verb::Delete)), (1, 0));
}

#[tokio::test]
async fn a_dry_run_does_not_hide_that_the_store_fails() {
    let faulty = FaultyStore::new(memory()).with(Rule::error_then_ok(Verb::Head, "a", 1));
    let store = DryRun::new(Arc::new(faulty));
    let error = store.put(&key("a"), text("x"), PutMode::Create).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert_eq!(store.counts().puts, 0);
}

/// The order of the layers: each attempt gets its own deadline, and the meter sees each attempt.
#[tokio::test]
async fn the_stack_retries_timeouts_and_counts_attempts() {
    let under =
        Arc::new(FaultyStore::new(memory()).with(Rule::new(Verb::Put, "a", When::First(2), Fault::Hang)));
    let clock = Arc::new(ManualClock::moving());
    let layers = Layers {
        clock: clock.clone(),
        retry: RetryPolicy { attempts: 3, ..RetryPolicy::default() },
        ..Layers::default()
    };
    let stacked = stack(under.clone(), layers);
    stacked.store.put(&key("a"), text("x"), PutMode::Create).await.unwrap();
    assert_eq!(under.calls(Verb::Put), 3);
    assert_eq!(stacked.meter.snapshot().verb(Verb::Put), VerbCounts { calls: 3, errors: 0, bytes: 1 });
    assert!(stacked.cache.is_none() && stacked.dry_run.is_none());
    // Deadline, back-off, deadline, back-off; the third attempt was answered at once.
    assert_eq!(clock.sleeps().len(), 4);
}

#[tokio::test]
async fn a_dry_stack_never_reaches_the_store() {
    let under = Arc::new(FaultyStore::new(memory()));
    let folder = retoma_testkit::Folder::new();
    let cache = Some(retoma_repo::store::layer::CacheSettings::metadata(folder.join("cache")));
    let stacked = stack(under.clone(), Layers { dry_run: true, cache, ..Layers::default() });
    stacked.store.put(&key("index/a"), text("x"), PutMode::Overwrite).await.unwrap();
    assert_eq!(stacked.dry_run.unwrap().counts().puts, 1);
    assert!(under.log().is_empty());
    assert!(!folder.join("cache").exists(), "nor the cache");
}

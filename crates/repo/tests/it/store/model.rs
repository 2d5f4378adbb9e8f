//! Lives of the layers by chance, each beside a simple model: what a layer may save, delay or repeat, and what it may
//! never change. Every message tells the seed.

use super::{key, memory, names};
use bytes::Bytes;
use futures::future::{BoxFuture, FutureExt as _};
use retoma_repo::ErrorKind;
use retoma_repo::store::layer::{
    Cache, CacheSettings, DryRun, Layers, Limit, Limits, Meter, Retry, RetryPolicy, stack,
};
use retoma_repo::store::{Clock as _, Key, PutMode, Store, Verb};
use retoma_testkit::{Fault, FaultyStore, Folder, ManualClock, Random, Rates, Rule, When, bytes};
use std::collections::{BTreeMap, HashSet};
use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

fn object(random: &mut Random) -> Key {
    let folder = ["index", "snapshots", "data"][random.index(3)];
    key(&format!("{folder}/{}", random.below(6)))
}

fn cache(under: &Arc<FaultyStore>, folder: &Folder) -> Cache {
    let settings = CacheSettings { max_bytes: 8_000, ..CacheSettings::metadata(folder.join("cache")) };
    Cache::new(under.clone(), settings)
}

/// Whether what the cache gives is what the store has, whole or in part; and the same error where it has none.
async fn reads_agree(cache: &Cache, under: &dyn Store, name: &Key, random: &mut Random, seed: u64) {
    let stored = under.get(name).await;
    let whole = cache.get(name).await;
    match (&stored, &whole) {
        (Ok(stored), Ok(whole)) => assert_eq!(stored, whole, "seed {seed}: {name}"),
        (Err(stored), Err(whole)) => assert_eq!(stored.kind(), whole.kind(), "seed {seed}: {name}"),
        other => panic!("seed {seed}: {name}: {other:?}"),
    }
    let length = stored.map_or(0, |stored| stored.len() as u64);
    let start = random.below(length + 2);
    let range = start..start + random.below(length + 2);
    let (part, expected) =
        (cache.get_range(name, range.clone()).await, under.get_range(name, range.clone()).await);
    match (part, expected) {
        (Ok(part), Ok(expected)) => assert_eq!(part, expected, "seed {seed}: {name} {range:?}"),
        (Err(part), Err(expected)) => {
            assert_eq!(part.kind(), expected.kind(), "seed {seed}: {name} {range:?}");
        }
        other => panic!("seed {seed}: {name} {range:?}: {other:?}"),
    }
}

/// Whatever was written, deleted, evicted, given up or begun anew, with whatever failures: a read gives what the store has.
#[tokio::test]
async fn a_cache_never_gives_anything_but_what_the_store_has() {
    for seed in 0..16 {
        let (folder, inner, mut random) = (Folder::new(), memory(), Random::new(seed));
        let under = Arc::new(FaultyStore::new(inner.clone()));
        let mut layer = cache(&under, &folder);
        for step in 0..120 {
            let name = object(&mut random);
            let data = bytes(seed * 1000 + step, 1 + random.index(1500));
            let fault = [Fault::DoneButError, Fault::HalfWrite, Fault::Error(ErrorKind::Unavailable)]
                [random.index(3)];
            if random.below(4) == 0 {
                under.add(Rule::new(None, name.as_str(), When::Call(1), fault));
            }
            match random.below(10) {
                0..=3 => drop(layer.put(&name, data, PutMode::Overwrite).await),
                4 => drop(layer.put(&name, data, PutMode::Create).await),
                5 => drop(layer.delete(&name).await),
                6 => drop(layer.get(&name).await),
                7 => layer.invalidate(&name),
                8 => layer = cache(&under, &folder),
                // Another host deletes, and a listing is told.
                _ => {
                    inner.delete(&name).await.unwrap();
                    for folder in ["index", "snapshots"] {
                        let present: HashSet<Key> =
                            names(&*inner, folder).await.unwrap().iter().map(|name| key(name)).collect();
                        layer.retain(folder, &present).unwrap();
                    }
                }
            }
            under.clear_rules();
            reads_agree(&layer, &*inner, &name, &mut random, seed).await;
        }
        let names = names(&*inner, "").await.unwrap();
        for name in names {
            reads_agree(&layer, &*inner, &key(&name), &mut random, seed).await;
        }
        let kept = retained_bytes(&folder.join("cache"));
        assert!(kept <= 8_000, "seed {seed}: {kept} bytes are kept");
    }
}

fn retained_bytes(folder: &std::path::Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(folder) else { return 0 };
    entries
        .map(|entry| entry.unwrap())
        .map(|entry| {
            if entry.path().is_dir() {
                retained_bytes(&entry.path())
            } else {
                entry.metadata().unwrap().len()
            }
        })
        .sum()
}

/// A read that was under way while the object went must not bring it back.
#[tokio::test]
async fn a_read_that_a_delete_overtakes_leaves_nothing_in_the_cache() {
    let (folder, under) = (Folder::new(), Arc::new(FaultyStore::new(memory())));
    let layer = Arc::new(cache(&under, &folder));
    let name = key("index/a");
    under.put(&name, bytes(1, 100), PutMode::Create).await.unwrap();
    let (cached, deleting) = (layer.clone(), name.clone());
    // Between the store's answer to the read and the file: the cache is told that the object goes.
    under.before_calls(move |verb, _| {
        if verb == Verb::Get {
            cached.invalidate(&deleting);
        }
        Ok(())
    });
    layer.get(&name).await.unwrap();
    assert!(!folder.join("cache/index/a").exists(), "what was read before is not kept after");
    under.before_calls(|_, _| Ok(()));
    layer.get(&name).await.unwrap();
    assert!(folder.join("cache/index/a").exists());
}

type Running<'a> = BoxFuture<'a, retoma_repo::Result<()>>;

fn call<'a>(store: &'a Limit, name: &'a Key, random: &mut Random) -> Running<'a> {
    match random.below(5) {
        0 => store.put(name, Bytes::from_static(b"x"), PutMode::Overwrite),
        1 => async move { store.get(name).await.map(drop) }.boxed(),
        2 => async move { store.get_range(name, 0..1).await.map(drop) }.boxed(),
        3 => async move { store.head(name).await.map(drop) }.boxed(),
        _ => store.delete(name),
    }
}

/// Calls begin, hang, are dropped and begin again: never more at once than allowed, and never fewer while some wait.
///
/// Without a runtime: it would have each poll count against the budget of a task.
#[test]
fn a_limit_is_kept_and_used_whatever_becomes_of_the_calls() {
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let allowed = random.index(5);
        let under =
            Arc::new(FaultyStore::new(memory()).with(Rule::new(None, "*", When::Always, Fault::Hang)));
        let limits = Limits { calls: allowed, ..Limits::default() };
        let store = Limit::new(under.clone(), limits, Arc::new(ManualClock::standing()));
        let allowed = allowed.max(1);
        let name = key("a");
        let mut calls: Vec<Running<'_>> = Vec::new();
        let mut ended = 0;
        for _ in 0..200 {
            if calls.is_empty() || random.below(3) > 0 {
                calls.push(call(&store, &name, &mut random));
            } else {
                // Those that began first are the ones that run.
                let at = random.index(calls.len());
                ended += usize::from(at < allowed);
                drop(calls.remove(at));
            }
            for call in &mut calls {
                assert!(call.now_or_never().is_none());
            }
            let begun = under.log().len();
            assert_eq!(begun - ended, calls.len().min(allowed), "seed {seed}");
        }
    }
}

/// Over any stretch of time no more passes than the rate allows, and one burst.
#[tokio::test]
async fn bytes_never_pass_faster_than_allowed_over_any_stretch_of_time() {
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let rate = 100 + random.below(5_000);
        let clock = Arc::new(ManualClock::moving());
        let limits = Limits { upload_bytes_per_second: NonZeroU64::new(rate), ..Limits::default() };
        let store = Limit::new(memory(), limits, clock.clone());
        let mut passed: Vec<(Duration, u64)> = Vec::new();
        for number in 0..60 {
            if random.below(4) == 0 {
                clock.advance(Duration::from_millis(random.below(5_000)));
            }
            let size = random.below(3 * rate);
            let data = bytes(number, usize::try_from(size).unwrap());
            store.put(&key("a"), data, PutMode::Overwrite).await.unwrap();
            passed.push((clock.now(), size));
        }
        let in_time = |time: Duration| time.as_nanos() * u128::from(rate) / 1_000_000_000;
        for (first, (from, before)) in passed.iter().enumerate() {
            let mut total = 0;
            for (to, size) in &passed[first..] {
                total += u128::from(*size);
                // The first one may have been paid for before the stretch began.
                let allowed = in_time(to.saturating_sub(*from)) + u128::from(rate + before + 1);
                assert!(total <= allowed, "seed {seed}: {total} bytes from {from:?} to {to:?} at {rate}");
            }
        }
        let total: u64 = passed.iter().map(|(_, size)| size).sum();
        let allowed = in_time(clock.now()) + u128::from(2 * rate);
        assert!(u128::from(total) <= allowed, "seed {seed}: too early");
    }
}

/// For each sequence of answers the outcome can be told: the first that is no passing failure, if it comes in time.
#[tokio::test]
async fn attempts_end_with_the_first_answer_that_is_for_good() {
    use ErrorKind::{Conflict, Corrupt, Exhausted, NotFound, Unauthorized, Unavailable};
    for seed in 0..200 {
        let mut random = Random::new(seed);
        let attempts = u32::try_from(random.below(6)).unwrap();
        let answers: Vec<Option<ErrorKind>> = (0..8)
            .map(|_| match random.below(8) {
                0 => None,
                1 => Some([Conflict, Corrupt, Exhausted, NotFound, Unauthorized][random.index(5)]),
                _ => Some(Unavailable),
            })
            .collect();
        let under = Arc::new(FaultyStore::new(memory()));
        under.put(&key("a"), Bytes::from_static(b"data"), PutMode::Create).await.unwrap();
        for (number, answer) in (1..).zip(&answers) {
            if let Some(kind) = answer {
                under.add(Rule::new(None, "a", When::Call(number), Fault::Error(*kind)));
            }
        }
        let before = under.log().len();
        let clock = Arc::new(ManualClock::moving());
        let policy = RetryPolicy { attempts, seed, ..RetryPolicy::default() };
        let store = Retry::new(under.clone(), policy, clock.clone());
        let (name, verb) = (key("a"), random.below(4));
        let outcome = match verb {
            0 => store.get(&name).await.map(drop),
            1 => store.head(&name).await.map(drop),
            2 => store.get_range(&name, 1..2).await.map(drop),
            _ => store.put(&name, Bytes::from_static(b"new"), PutMode::Overwrite).await,
        };
        let most = attempts.max(1) as usize;
        let for_good = answers.iter().position(|answer| *answer != Some(Unavailable)).unwrap_or(usize::MAX);
        let made = most.min(for_good.saturating_add(1));
        let expected = answers[made - 1];
        assert_eq!(under.log().len() - before, made, "seed {seed}: {answers:?}");
        assert_eq!(
            outcome.as_ref().err().map(retoma_repo::Error::kind),
            expected,
            "seed {seed}: {answers:?}"
        );
        assert_eq!(clock.sleeps().len(), made - 1, "one wait between two attempts, none behind the last");
        let gave_up = expected == Some(Unavailable) && attempts > 1;
        let says_so =
            outcome.is_err_and(|error| error.to_string().starts_with(&format!("try `{attempts}` times")));
        assert_eq!(says_so, gave_up, "seed {seed}: {answers:?}");
    }
}

/// Hosts that failed together do not come back together; one alone does the same in each run.
#[tokio::test]
async fn waits_depend_on_the_seed() {
    let waits = async |seed| {
        let under = FaultyStore::new(memory()).with(Rule::error_then_ok(Verb::Get, "*", 9));
        let clock = Arc::new(ManualClock::moving());
        let policy = RetryPolicy { attempts: 6, seed, ..RetryPolicy::default() };
        Retry::new(Arc::new(under), policy, clock.clone()).get(&key("a")).await.unwrap_err();
        clock.sleeps()
    };
    assert_eq!(waits(1).await, waits(1).await);
    let all: HashSet<Vec<Duration>> = [waits(1).await, waits(2).await, waits(3).await].into();
    assert_eq!(all.len(), 3);
    let total: Duration = waits(1).await.iter().sum();
    assert!(total > Duration::from_secs(7) && total < Duration::from_secs(20), "{total:?}");
}

/// The meter is what costs are told by: each request that reaches the store counts, whatever became of it.
#[tokio::test]
async fn the_meter_counts_what_reaches_the_store_and_its_errors() {
    for seed in 0..30 {
        let rates = Rates { error: 150, done_but_error: 100, half_write: 50, ..Rates::default() };
        let under = Arc::new(FaultyStore::random(memory(), seed, rates));
        let retry = RetryPolicy { attempts: 3, seed, ..RetryPolicy::default() };
        let layers = Layers { clock: Arc::new(ManualClock::moving()), retry, ..Layers::default() };
        let stacked = stack(under.clone(), layers);
        let mut random = Random::new(seed);
        for step in 0..100 {
            let name = object(&mut random);
            match random.below(6) {
                0 => drop(stacked.store.put(&name, bytes(step, 64), PutMode::Create).await),
                1 => drop(stacked.store.put(&name, bytes(step, 64), PutMode::Overwrite).await),
                2 => drop(stacked.store.get(&name).await),
                3 => drop(stacked.store.get_range(&name, 0..10).await),
                4 => drop(stacked.store.head(&name).await),
                _ => drop(names(&*stacked.store, "index").await),
            }
        }
        let counted = stacked.meter.snapshot();
        let mut sum = 0;
        for verb in Verb::ALL {
            let (calls, faults) =
                under.log().iter().filter(|call| call.verb == verb).fold((0, 0), |(calls, faults), call| {
                    (calls + 1, faults + u64::from(call.fault.is_some()))
                });
            assert_eq!(counted.verb(verb).calls, calls, "seed {seed}: {verb:?}");
            assert!(counted.verb(verb).errors >= faults, "seed {seed}: {verb:?}");
            assert!(counted.verb(verb).errors <= calls, "seed {seed}: {verb:?}");
            sum += calls;
        }
        assert_eq!(counted.calls(), sum, "seed {seed}");
    }
}

/// A dry run beside a store on which everything is done: the same answers to writes, the same number of them, no change.
#[tokio::test]
async fn a_dry_run_answers_first_writes_as_the_store_would() {
    for seed in 0..40 {
        let mut random = Random::new(seed);
        let (real, untouched) = (memory(), memory());
        for number in 0..3 {
            let name = key(&format!("index/{number}"));
            for store in [&real, &untouched] {
                store.put(&name, bytes(number, 50), PutMode::Create).await.unwrap();
            }
        }
        let before = names(&*untouched, "").await.unwrap();
        let dry = DryRun::new(untouched.clone());
        let mut model: BTreeMap<&str, u64> = BTreeMap::new();
        for number in 0..6 {
            let name = key(&format!("index/{number}"));
            let data = bytes(number, random.index(100));
            let mode = if random.below(2) == 0 { PutMode::Create } else { PutMode::Overwrite };
            let size = data.len() as u64;
            let (done, told) = (real.put(&name, data.clone(), mode).await, dry.put(&name, data, mode).await);
            assert_eq!(
                done.as_ref().err().map(retoma_repo::Error::kind),
                told.as_ref().err().map(retoma_repo::Error::kind),
                "seed {seed}"
            );
            if told.is_ok() {
                *model.entry("puts").or_default() += 1;
                *model.entry("bytes").or_default() += size;
            }
            if random.below(3) == 0 {
                dry.delete(&name).await.unwrap();
                *model.entry("deletes").or_default() += 1;
            }
        }
        let counts = dry.counts();
        let of = |name| model.get(name).copied().unwrap_or(0);
        assert_eq!((counts.puts, counts.put_bytes, counts.deletes), (of("puts"), of("bytes"), of("deletes")));
        assert_eq!(names(&*untouched, "").await.unwrap(), before, "seed {seed}");
    }
}

/// A listing in which the store falls silent: what came before is given, then the error, then nothing.
#[tokio::test]
async fn the_meter_counts_a_listing_once_and_its_failure_once() {
    let under = memory();
    for number in 0..5 {
        under.put(&key(&format!("a/{number}")), bytes(number, 5), PutMode::Create).await.unwrap();
    }
    let faulty = FaultyStore::new(under).with(Rule::new(Verb::List, "a", When::Call(2), Fault::DoneButError));
    let meter = Meter::new(Arc::new(faulty));
    assert_eq!(names(&meter, "a").await.unwrap().len(), 5);
    names(&meter, "a").await.unwrap_err();
    let counted = meter.snapshot().verb(Verb::List);
    assert_eq!((counted.calls, counted.errors, counted.bytes), (2, 1, 0));
}

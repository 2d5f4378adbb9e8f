//! Every fault on every verb behind the retry layer: bounded, typed, and never a wrong success.

use super::{key, memory, names, text};
use retoma_repo::ErrorKind;
use retoma_repo::store::layer::{Layers, Retry, RetryPolicy, TimeLimits, stack};
use retoma_repo::store::{PutMode, Store, Verb};
use retoma_testkit::{Fault, FaultyStore, ManualClock, Rates, Rule, When, bytes};
use std::sync::Arc;
use std::time::Duration;

const ATTEMPTS: u32 = 4;

fn policy() -> RetryPolicy {
    RetryPolicy { attempts: ATTEMPTS, seed: 7, ..RetryPolicy::default() }
}

/// A store with faults behind a retry layer, on a clock that never waits.
fn retried(rules: impl IntoIterator<Item = Rule>) -> (Retry, Arc<FaultyStore>, Arc<ManualClock>) {
    let faulty = Arc::new(FaultyStore::new(memory()));
    rules.into_iter().for_each(|rule| faulty.add(rule));
    let clock = Arc::new(ManualClock::moving());
    (Retry::new(faulty.clone(), policy(), clock.clone()), faulty, clock)
}

async fn call(store: &dyn Store, verb: Verb) -> retoma_repo::Result<()> {
    let name = key("a/b");
    match verb {
        Verb::Put => store.put(&name, text("data"), PutMode::Overwrite).await,
        Verb::Get => store.get(&name).await.map(|data| assert_eq!(data, "data")),
        Verb::GetRange => store.get_range(&name, 1..3).await.map(|data| assert_eq!(data, "at")),
        Verb::Head => store.head(&name).await.map(|meta| assert_eq!(meta.size_bytes, 4)),
        Verb::List => names(store, "a").await.map(|names| assert_eq!(names, ["a/b"])),
        Verb::Delete => store.delete(&name).await,
    }
}

#[tokio::test]
async fn what_passes_is_waited_for() {
    for verb in Verb::ALL {
        let (store, faulty, clock) = retried([]);
        store.put(&key("a/b"), text("data"), PutMode::Overwrite).await.unwrap();
        let before = faulty.calls(verb);
        faulty.add(Rule::error_then_ok(verb, "a*", u64::from(ATTEMPTS) - 1));
        call(&store, verb).await.unwrap();
        assert_eq!(faulty.calls(verb) - before, ATTEMPTS as usize, "{verb:?}");
        let waits = clock.sleeps();
        assert_eq!(waits.len(), ATTEMPTS as usize - 1);
        assert!(waits.is_sorted(), "they grow: {waits:?}");
    }
}

#[tokio::test]
async fn what_lasts_ends_after_the_attempts_allowed() {
    for verb in Verb::ALL {
        for fault in [Fault::Error(ErrorKind::Unavailable), Fault::DoneButError, Fault::HalfWrite] {
            let (store, faulty, clock) = retried([]);
            store.put(&key("a/b"), text("data"), PutMode::Overwrite).await.unwrap();
            let before = faulty.calls(verb);
            faulty.add(Rule::new(verb, "a*", When::Always, fault));
            let error = call(&store, verb).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{verb:?} {fault:?}");
            assert!(error.to_string().starts_with("try `4` times: "), "{error}");
            assert_eq!(faulty.calls(verb) - before, ATTEMPTS as usize);
            assert_eq!(clock.sleeps().len(), ATTEMPTS as usize - 1);
        }
    }
}

#[tokio::test]
async fn what_cannot_pass_is_not_repeated() {
    use ErrorKind::{
        Conflict, Corrupt, Exhausted, Fenced, Internal, Invalid, NotFound, Unauthorized, Unsupported,
    };
    for verb in Verb::ALL {
        for kind in
            [Conflict, Corrupt, Exhausted, Fenced, Internal, Invalid, NotFound, Unauthorized, Unsupported]
        {
            let (store, faulty, clock) = retried([Rule::new(verb, "a*", When::Always, Fault::Error(kind))]);
            assert_eq!(call(&store, verb).await.unwrap_err().kind(), kind);
            assert_eq!((faulty.calls(verb), clock.sleeps().len()), (1, 0), "{verb:?} {kind:?}");
        }
    }
}

#[tokio::test]
async fn a_listing_that_broke_off_is_given_once_and_whole() {
    let (store, faulty, _) = retried([Rule::new(Verb::List, "", When::First(2), Fault::DoneButError)]);
    for number in 0..20 {
        store.put(&key(&format!("a/{number:02}")), text("x"), PutMode::Create).await.unwrap();
    }
    let found = names(&store, "").await.unwrap();
    assert_eq!(found.len(), 20, "{found:?}");
    assert_eq!(faulty.calls(Verb::List), 3);
}

/// The answer to a `Create` was lost; the next attempt meets our own object.
#[tokio::test]
async fn a_create_that_was_done_counts_as_done() {
    let (store, faulty, _) = retried([Rule::new(Verb::Put, "lock", When::Call(1), Fault::DoneButError)]);
    store.put(&key("lock"), text("mine"), PutMode::Create).await.unwrap();
    assert_eq!((faulty.calls(Verb::Put), faulty.calls(Verb::Get)), (2, 1));
    // The look at the stored bytes may fail in passing, too.
    let (store, faulty, _) = retried([
        Rule::new(Verb::Put, "lock", When::Call(1), Fault::DoneButError),
        Rule::error_then_ok(Verb::Get, "lock", 1),
    ]);
    store.put(&key("lock"), text("mine"), PutMode::Create).await.unwrap();
    assert_eq!((faulty.calls(Verb::Put), faulty.calls(Verb::Get)), (3, 2));
}

#[tokio::test]
async fn a_create_that_somebody_else_did_is_a_conflict() {
    // On the first attempt, even with equal bytes: nothing was ours yet.
    let (store, faulty, _) = retried([]);
    faulty.put(&key("lock"), text("mine"), PutMode::Create).await.unwrap();
    let error = store.put(&key("lock"), text("mine"), PutMode::Create).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    // After a retry, with other bytes.
    let (store, faulty, _) = retried([Rule::error_then_ok(Verb::Put, "lock", 1)]);
    faulty.clear_rules();
    faulty.put(&key("lock"), text("theirs"), PutMode::Create).await.unwrap();
    faulty.add(Rule::error_then_ok(Verb::Put, "lock", 1));
    let error = store.put(&key("lock"), text("mine"), PutMode::Create).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict);
    assert_eq!(store.get(&key("lock")).await.unwrap(), "theirs");
}

#[tokio::test]
async fn half_an_object_is_never_called_written() {
    let half = Rule::new(Verb::Put, "data", When::Call(1), Fault::HalfWrite);
    let (store, faulty, _) = retried([half.clone()]);
    let error = store.put(&key("data"), text("all of it"), PutMode::Create).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Conflict, "what is there is not ours in full");
    assert_eq!(faulty.get(&key("data")).await.unwrap(), "all ");
    // Overwriting heals it.
    let (store, faulty, _) = retried([half]);
    store.put(&key("data"), text("all of it"), PutMode::Overwrite).await.unwrap();
    assert_eq!(faulty.get(&key("data")).await.unwrap(), "all of it");
}

#[tokio::test]
async fn a_flipped_bit_is_passed_on_for_the_reader_to_find() {
    let faulty = FaultyStore::new(memory());
    let data = bytes(1, 1000);
    faulty.put(&key("a"), data.clone(), PutMode::Create).await.unwrap();
    faulty.add(Rule::new(Verb::Get, "a", When::Call(2), Fault::Corrupt));
    faulty.add(Rule::new(Verb::GetRange, "a", When::Always, Fault::Corrupt));
    assert_eq!(faulty.get(&key("a")).await.unwrap(), data);
    let flipped = faulty.get(&key("a")).await.unwrap();
    let different: u32 = flipped.iter().zip(&data).map(|(one, two)| (one ^ two).count_ones()).sum();
    assert_eq!(different, 1);
    assert_ne!(faulty.get_range(&key("a"), 10..20).await.unwrap(), data[10..20]);
    assert_eq!(faulty.faults(), 2);
}

/// Random faults over a life of many objects: what was called stored is stored, what was called deleted is gone.
#[tokio::test]
async fn random_faults_never_give_a_wrong_success() {
    let mut outcomes = (0, 0);
    for seed in 0..30 {
        let rates = Rates { error: 150, hang: 50, half_write: 50, done_but_error: 150, corrupt: 0 };
        let under = memory();
        let faulty = Arc::new(FaultyStore::random(under.clone(), seed, rates));
        let layers = Layers {
            clock: Arc::new(ManualClock::moving()),
            retry: RetryPolicy { attempts: 3, ..policy() },
            time_limits: TimeLimits { request: Duration::from_secs(1), transfer: Duration::from_secs(1) },
            ..Layers::default()
        };
        let store = stack(faulty.clone(), layers).store;
        for number in 0..40 {
            let (name, data) = (key(&format!("data/{number}")), bytes(number, 200));
            let mode = if number % 2 == 0 { PutMode::Create } else { PutMode::Overwrite };
            match store.put(&name, data.clone(), mode).await {
                Ok(()) => {
                    outcomes.0 += 1;
                    assert_eq!(under.get(&name).await.unwrap(), data, "seed {seed}: not stored: {name}");
                    if let Ok(read) = store.get(&name).await {
                        assert_eq!(read, data, "seed {seed}");
                    }
                    if store.delete(&name).await.is_ok() {
                        let gone = under.get(&name).await.unwrap_err();
                        assert_eq!(gone.kind(), ErrorKind::NotFound, "seed {seed}: not deleted: {name}");
                    }
                }
                Err(error) => {
                    outcomes.1 += 1;
                    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Conflict), "{error}");
                }
            }
            if let Ok(found) = names(&*store, "data").await {
                assert_eq!(found, names(&*under, "data").await.unwrap(), "seed {seed}");
            }
        }
        assert!(faulty.faults() > 20, "seed {seed}: hardly a fault");
    }
    assert!(outcomes.0 > 100 && outcomes.1 > 20, "both outcomes are met: {outcomes:?}");
}

#[tokio::test]
async fn the_same_seed_gives_the_same_faults() {
    let run = async |seed| {
        let rates = Rates { error: 300, done_but_error: 200, ..Rates::default() };
        let faulty = FaultyStore::random(memory(), seed, rates);
        for number in 0..50 {
            faulty.put(&key(&format!("a/{}", number % 10)), text("x"), PutMode::Overwrite).await.ok();
        }
        faulty.log()
    };
    assert_eq!(run(1).await, run(1).await);
    assert_ne!(run(1).await, run(2).await);
}

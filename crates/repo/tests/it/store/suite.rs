//! The conformance suite: what each store promises, as checks that know nothing of the store.

use super::{key, names, text};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::future::{BoxFuture, join_all};
use jiff::Timestamp;
use retoma_core::error::codes;
use retoma_repo::ErrorKind;
use retoma_repo::store::{Key, PutMode, Store};
use retoma_testkit::bytes;
use std::sync::Arc;

type Check = fn(Arc<dyn Store>) -> BoxFuture<'static, ()>;

macro_rules! checks {
    ($($name:ident),* $(,)?) => { &[$((stringify!($name), |store| Box::pin($name(store)))),*] };
}

/// Every check with its name; each gets an empty store.
pub(crate) const CHECKS: &[(&str, Check)] = checks![
    what_is_put_is_got,
    overwriting_replaces,
    creating_keeps_what_is_there,
    ranges_are_parts_of_the_object,
    a_range_beyond_the_end_is_corrupt,
    what_is_missing_is_not_found,
    head_tells_size_and_time,
    listings_hold_to_folders,
    deleting_is_idempotent,
    large_objects,
    empty_objects,
    many_puts_at_once,
    one_of_two_creators_wins,
    readers_see_whole_objects,
    folders_that_are_no_names_are_refused,
    leftovers_of_an_empty_store_are_none,
];

async fn what_is_put_is_got(store: Arc<dyn Store>) {
    for (name, seed) in [("config", 1), ("data/ab/abcdef", 2), ("wal/db/1/2/000.part-1_x", 3)] {
        let data = bytes(seed, 1000);
        store.put(&key(name), data.clone(), PutMode::Create).await.unwrap();
        assert_eq!(store.get(&key(name)).await.unwrap(), data, "{name}");
    }
    assert!(!store.location().is_empty());
}

async fn overwriting_replaces(store: Arc<dyn Store>) {
    for data in ["longer than the next", "short", ""] {
        store.put(&key("a/b"), text(data), PutMode::Overwrite).await.unwrap();
        assert_eq!(store.get(&key("a/b")).await.unwrap(), data);
        assert_eq!(store.head(&key("a/b")).await.unwrap().size_bytes, data.len() as u64);
    }
}

async fn creating_keeps_what_is_there(store: Arc<dyn Store>) {
    assert!(store.capabilities().conditional_create);
    store.put(&key("a/b"), text("first"), PutMode::Create).await.unwrap();
    for data in ["second", "first"] {
        let error = store.put(&key("a/b"), text(data), PutMode::Create).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Conflict, codes::OBJECT_EXISTS));
    }
    assert_eq!(store.get(&key("a/b")).await.unwrap(), "first");
    assert_eq!(names(&*store, "").await.unwrap(), ["a/b"]);
}

async fn ranges_are_parts_of_the_object(store: Arc<dyn Store>) {
    let data = bytes(5, 100_000);
    store.put(&key("data/x"), data.clone(), PutMode::Overwrite).await.unwrap();
    for range in [0..1, 0..100_000, 99_999..100_000, 1234..56_789, 0..0, 500..500, 100_000..100_000] {
        let got = store.get_range(&key("data/x"), range.start as u64..range.end as u64).await.unwrap();
        assert_eq!(got, data[range.clone()], "{range:?}");
    }
}

async fn a_range_beyond_the_end_is_corrupt(store: Arc<dyn Store>) {
    store.put(&key("data/x"), text("0123456789"), PutMode::Overwrite).await.unwrap();
    for range in [0..11, 9..11, 10..11, 11..12, 11..11, 0..u64::MAX, u64::MAX - 1..u64::MAX] {
        let error = store.get_range(&key("data/x"), range.clone()).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Corrupt, codes::OBJECT_SHORT), "{range:?}");
    }
    #[allow(clippy::reversed_empty_ranges)]
    let error = store.get_range(&key("data/x"), 5..4).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Internal);
}

async fn what_is_missing_is_not_found(store: Arc<dyn Store>) {
    store.put(&key("folder/x"), text("x"), PutMode::Overwrite).await.unwrap();
    for name in ["missing", "folder", "folder/y", "folder/x/y"] {
        let errors = [
            store.get(&key(name)).await.unwrap_err(),
            store.get_range(&key(name), 0..1).await.unwrap_err(),
            store.get_range(&key(name), 0..0).await.unwrap_err(),
            store.head(&key(name)).await.unwrap_err(),
        ];
        for error in errors {
            assert_eq!(
                (error.kind(), error.code()),
                (ErrorKind::NotFound, codes::OBJECT_NOT_FOUND),
                "{name}"
            );
        }
    }
}

async fn head_tells_size_and_time(store: Arc<dyn Store>) {
    store.put(&key("a/b"), bytes(1, 12_345), PutMode::Overwrite).await.unwrap();
    let meta = store.head(&key("a/b")).await.unwrap();
    assert_eq!((meta.key.as_str(), meta.size_bytes), ("a/b", 12_345));
    let day = jiff::SignedDuration::from_hours(24);
    let now = Timestamp::now();
    assert!(now - day < meta.modified && meta.modified < now + day, "{}", meta.modified);
    let listed: Vec<_> = store.list("a").collect().await;
    assert_eq!(listed.len(), 1);
    assert_eq!(*listed[0].as_ref().unwrap(), meta);
}

async fn listings_hold_to_folders(store: Arc<dyn Store>) {
    assert_eq!(names(&*store, "").await.unwrap(), [""; 0]);
    let all = ["a/1", "a/b/2", "a/b/c/3", "a-c", "ab/4", "b/5", "z"];
    for name in all {
        store.put(&key(name), text("x"), PutMode::Overwrite).await.unwrap();
    }
    assert_eq!(names(&*store, "").await.unwrap(), ["a-c", "a/1", "a/b/2", "a/b/c/3", "ab/4", "b/5", "z"]);
    assert_eq!(names(&*store, "a").await.unwrap(), ["a/1", "a/b/2", "a/b/c/3"]);
    assert_eq!(names(&*store, "a/b").await.unwrap(), ["a/b/2", "a/b/c/3"]);
    for empty in ["c", "z", "a/1", "a/b/c/3/d"] {
        assert_eq!(names(&*store, empty).await.unwrap(), [""; 0], "{empty}");
    }
}

async fn deleting_is_idempotent(store: Arc<dyn Store>) {
    store.put(&key("a/b"), text("x"), PutMode::Create).await.unwrap();
    store.put(&key("a/c"), text("y"), PutMode::Create).await.unwrap();
    for _ in 0..2 {
        store.delete(&key("a/b")).await.unwrap();
        assert_eq!(names(&*store, "").await.unwrap(), ["a/c"]);
    }
    for missing in ["never", "never/there", "a", "a/c/d"] {
        store.delete(&key(missing)).await.unwrap();
    }
    assert_eq!(store.get(&key("a/c")).await.unwrap(), "y");
    store.put(&key("a/b"), text("again"), PutMode::Create).await.unwrap();
    assert_eq!(store.get(&key("a/b")).await.unwrap(), "again");
}

async fn large_objects(store: Arc<dyn Store>) {
    let data = bytes(9, 32 << 20);
    store.put(&key("data/large"), data.clone(), PutMode::Overwrite).await.unwrap();
    assert!(store.get(&key("data/large")).await.unwrap() == data);
    let part = store.get_range(&key("data/large"), (16 << 20) - 3..(16 << 20) + 5).await.unwrap();
    assert_eq!(part, data[(16 << 20) - 3..(16 << 20) + 5]);
}

async fn empty_objects(store: Arc<dyn Store>) {
    store.put(&key("a/empty"), Bytes::new(), PutMode::Create).await.unwrap();
    assert_eq!(store.get(&key("a/empty")).await.unwrap(), "");
    assert_eq!(store.get_range(&key("a/empty"), 0..0).await.unwrap(), "");
    assert_eq!(store.get_range(&key("a/empty"), 0..1).await.unwrap_err().kind(), ErrorKind::Corrupt);
    assert_eq!(store.head(&key("a/empty")).await.unwrap().size_bytes, 0);
    assert_eq!(names(&*store, "a").await.unwrap(), ["a/empty"]);
}

async fn many_puts_at_once(store: Arc<dyn Store>) {
    let name = |number: u64| key(&format!("data/{:02x}/{number}", number % 7));
    let puts = (0..100).map(|number| {
        let store = store.clone();
        tokio::spawn(async move {
            store.put(&name(number), bytes(number, 5000), PutMode::Create).await.unwrap();
        })
    });
    for put in join_all(puts).await {
        put.unwrap();
    }
    for number in 0..100 {
        assert_eq!(store.get(&name(number)).await.unwrap(), bytes(number, 5000));
    }
    assert_eq!(names(&*store, "data").await.unwrap().len(), 100);
}

async fn one_of_two_creators_wins(store: Arc<dyn Store>) {
    for round in 0..100 {
        let name = key(&format!("locks/{round}"));
        let create = |writer: u64| {
            let (store, name) = (store.clone(), name.clone());
            tokio::spawn(async move { store.put(&name, bytes(writer, 100), PutMode::Create).await })
        };
        let (one, two) = tokio::join!(create(1), create(2));
        let (winner, loser) = match (one.unwrap(), two.unwrap()) {
            (Ok(()), Err(error)) => (1, error),
            (Err(error), Ok(())) => (2, error),
            other => panic!("round {round}: {other:?}"),
        };
        assert_eq!(loser.kind(), ErrorKind::Conflict);
        assert_eq!(store.get(&name).await.unwrap(), bytes(winner, 100), "round {round}");
    }
}

async fn readers_see_whole_objects(store: Arc<dyn Store>) {
    const SIZE: usize = 1 << 20;
    let filled = |byte: u8| Bytes::from(vec![byte; SIZE]);
    store.put(&key("a/x"), filled(0), PutMode::Overwrite).await.unwrap();
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            for byte in 1..=50 {
                store.put(&key("a/x"), filled(byte), PutMode::Overwrite).await.unwrap();
            }
        })
    };
    let mut last = 0;
    while last != 50 {
        let ended = writer.is_finished();
        let data = store.get(&key("a/x")).await.unwrap();
        assert_eq!(data.len(), SIZE);
        assert!(data.iter().all(|byte| *byte == data[0]), "a mixture of objects");
        assert!(data[0] >= last, "went back from {last} to {}", data[0]);
        assert!(names(&*store, "").await.unwrap() == ["a/x"], "only objects are listed");
        last = data[0];
        assert!(!ended || last == 50, "the last put is not seen");
        // A store in memory never waits, and the writer may stand in this very thread's queue.
        tokio::task::yield_now().await;
    }
    writer.await.unwrap();
}

async fn folders_that_are_no_names_are_refused(store: Arc<dyn Store>) {
    for folder in ["/", "a/", "/a", "..", "a/../b", "a//b", "a b", "#1"] {
        let error = names(&*store, folder).await.unwrap_err();
        assert_eq!((error.kind(), error.code()), (ErrorKind::Invalid, codes::STORE_ADDRESS), "{folder}");
    }
    let long = "x".repeat(256);
    let deep = vec!["x"; 17].join("/");
    for name in ["", "/", "a/", "/a", "..", "a/../b", ".", "a b", "a#1", "a\0", "é", &long, &deep] {
        assert_eq!(Key::new(name).unwrap_err().kind(), ErrorKind::Invalid, "{name}");
    }
    for name in ["x".repeat(255), vec!["x"; 16].join("/"), "...".to_owned(), ".hidden/-".to_owned()] {
        store.put(&key(&name), text("x"), PutMode::Create).await.unwrap();
        assert_eq!(store.get(&key(&name)).await.unwrap(), "x");
    }
    assert_eq!(names(&*store, "").await.unwrap().len(), 4);
}

async fn leftovers_of_an_empty_store_are_none(store: Arc<dyn Store>) {
    store.put(&key("a/b"), text("x"), PutMode::Create).await.unwrap();
    let removed = store.remove_leftovers(Timestamp::MAX).await.unwrap();
    assert_eq!((removed.count, removed.size_bytes), (0, 0));
    assert_eq!(store.get(&key("a/b")).await.unwrap(), "x");
}

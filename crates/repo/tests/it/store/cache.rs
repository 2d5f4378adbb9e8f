//! The cache saves requests, and never gives what was replaced, deleted or damaged for good.

use super::{key, memory, names, text};
use retoma_repo::store::layer::{Cache, CacheSettings};
use retoma_repo::store::{PutMode, Store, Verb};
use retoma_repo::{BlobId, ErrorKind};
use retoma_testkit::{Fault, FaultyStore, Folder, Rule, When, bytes};
use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

struct Case {
    folder: Folder,
    under: Arc<FaultyStore>,
    cache: Cache,
}

/// A cache that keeps whatever it may, `max_bytes` of it.
fn case(max_bytes: u64) -> Case {
    let folder = Folder::new();
    let under = Arc::new(FaultyStore::new(memory()));
    let settings = CacheSettings { folder: folder.join("cache"), keep: Arc::new(|_| true), max_bytes };
    Case { cache: Cache::new(under.clone(), settings), under, folder }
}

impl Case {
    fn file(&self, name: &str) -> std::path::PathBuf {
        self.folder.join("cache").join(name)
    }

    fn requests(&self) -> usize {
        self.under.calls(Verb::Get) + self.under.calls(Verb::GetRange)
    }
}

#[tokio::test]
async fn what_was_read_or_written_once_costs_no_request() {
    let case = case(1 << 20);
    let (name, data) = (key("index/a"), bytes(1, 500));
    case.under.put(&name, data.clone(), PutMode::Create).await.unwrap();
    assert_eq!(case.cache.get_range(&name, 10..20).await.unwrap(), data[10..20]);
    for _ in 0..3 {
        assert_eq!(case.cache.get(&name).await.unwrap(), data);
        assert_eq!(case.cache.get_range(&name, 100..500).await.unwrap(), data[100..500]);
    }
    assert_eq!(case.requests(), 1);
    case.cache.put(&key("index/b"), text("written"), PutMode::Create).await.unwrap();
    assert_eq!(case.cache.get(&key("index/b")).await.unwrap(), "written");
    assert_eq!(case.requests(), 1);
    let metadata = fs::metadata(case.file("index/b")).unwrap();
    assert_eq!(metadata.mode() & 0o7777, 0o600);
    assert_eq!(fs::metadata(case.file("index")).unwrap().mode() & 0o7777, 0o700);
}

#[tokio::test]
async fn keys_and_locks_are_never_kept() {
    let case = case(1 << 20);
    for name in ["keys/a", "locks/b"] {
        case.cache.put(&key(name), text("x"), PutMode::Create).await.unwrap();
        case.cache.get(&key(name)).await.unwrap();
        case.cache.get_range(&key(name), 0..1).await.unwrap();
        assert!(!case.file(name).exists(), "{name}");
    }
    assert_eq!(case.requests(), 4);
}

#[tokio::test]
async fn by_default_only_metadata_are_kept() {
    let settings = CacheSettings::metadata("/unused");
    for (name, kept) in
        [("index/a", true), ("snapshots/a", true), ("config", false), ("data/ab/x", false), ("keys/a", false)]
    {
        assert_eq!((settings.keep)(&key(name)), kept, "{name}");
    }
}

/// Packs of trees: they are named as all others, so who knows them tells of them.
#[tokio::test]
async fn what_callers_tell_of_is_kept_too_as_a_whole_but_never_a_key() {
    let Case { folder, under, .. } = case(1 << 20);
    let settings = || CacheSettings::metadata(folder.join("cache"));
    let cache = Cache::new(under.clone(), settings());
    let data = bytes(1, 500);
    let hash = BlobId::of(&data).to_hex();
    let (pack, other) = (key(&format!("data/{}/{hash}", &hash[..2])), key("data/ab/other"));
    for name in [&pack, &other] {
        under.put(name, data.clone(), PutMode::Create).await.unwrap();
    }
    for name in [&pack, &key("keys/a")] {
        cache.keep(name);
    }
    for from in 0..5u8 {
        let part = cache.get_range(&pack, u64::from(from)..100).await.unwrap();
        assert_eq!(part, data[usize::from(from)..100]);
    }
    assert_eq!(
        (under.calls(Verb::Get), under.calls(Verb::GetRange)),
        (1, 0),
        "the first one takes all of it"
    );
    cache.get_range(&other, 0..10).await.unwrap();
    cache.get_range(&other, 0..10).await.unwrap();
    assert_eq!(under.calls(Verb::GetRange), 2, "nobody told of it");
    cache.put(&key("keys/a"), text("x"), PutMode::Create).await.unwrap();
    assert!(!folder.join("cache/keys/a").exists());
    // Another process finds it, and one that is damaged is none.
    let file = folder.join("cache").join(pack.as_str());
    let mut damaged = data.to_vec();
    damaged[499] ^= 1;
    fs::write(&file, &damaged).unwrap();
    let again = Cache::new(under.clone(), settings());
    again.keep(&pack);
    assert_eq!(again.get_range(&pack, 0..10).await.unwrap(), data[..10]);
    assert_eq!(under.calls(Verb::Get), 2, "it was read from the store again");
}

#[tokio::test]
async fn what_is_replaced_or_deleted_is_forgotten() {
    let case = case(1 << 20);
    let name = key("index/a");
    for data in ["one", "two"] {
        case.cache.put(&name, text(data), PutMode::Overwrite).await.unwrap();
        assert_eq!(case.cache.get(&name).await.unwrap(), data);
    }
    case.cache.delete(&name).await.unwrap();
    assert!(!case.file("index/a").exists());
    assert_eq!(case.cache.get(&name).await.unwrap_err().kind(), ErrorKind::NotFound);
}

#[tokio::test]
async fn after_a_failed_write_the_store_is_asked() {
    let case = case(1 << 20);
    let name = key("index/a");
    case.cache.put(&name, text("old"), PutMode::Overwrite).await.unwrap();
    case.under.add(Rule::new(Verb::Put, "index/a", When::Always, Fault::DoneButError));
    case.cache.put(&name, text("new"), PutMode::Overwrite).await.unwrap_err();
    assert_eq!(case.cache.get(&name).await.unwrap(), "new");
}

/// The reader's own check fails, it says so, and the next read is right.
#[tokio::test]
async fn a_damaged_file_is_discarded_when_the_reader_says_so() {
    let case = case(1 << 20);
    let (name, data) = (key("index/a"), bytes(1, 500));
    case.cache.put(&name, data.clone(), PutMode::Create).await.unwrap();
    let mut damaged = data.to_vec();
    damaged[250] ^= 1;
    fs::write(case.file("index/a"), &damaged).unwrap();
    assert_eq!(case.cache.get(&name).await.unwrap(), damaged);
    case.cache.invalidate(&name);
    assert_eq!(case.cache.get(&name).await.unwrap(), data);
    assert_eq!(fs::read(case.file("index/a")).unwrap(), data, "and it is kept again");
}

#[tokio::test]
async fn what_is_named_by_its_hash_is_read_again_when_it_has_another_one() {
    let case = case(1 << 20);
    let data = bytes(1, 500);
    let path = format!("index/{}", BlobId::of(&data));
    let name = key(&path);
    case.under.put(&name, data.clone(), PutMode::Create).await.unwrap();
    assert_eq!(case.cache.get(&name).await.unwrap(), data);
    let mut damages = vec![b"x".to_vec(), [&data[..], b"longer"].concat()];
    damages.extend([0, 250, 499].map(|at| {
        let mut damaged = data.to_vec();
        damaged[at] ^= 1;
        damaged
    }));
    for (turn, damaged) in damages.iter().enumerate() {
        fs::write(case.file(&path), damaged).unwrap();
        // Also a part that is not damaged: nobody could tell.
        if turn % 2 == 0 {
            assert_eq!(case.cache.get(&name).await.unwrap(), data);
        } else {
            assert_eq!(case.cache.get_range(&name, 100..200).await.unwrap(), data[100..200]);
        }
        assert_eq!(case.requests(), 2 + turn, "asked once for each");
        assert_eq!(fs::read(case.file(&path)).unwrap(), data, "and it is kept again");
        assert_eq!(case.cache.get_range(&name, 499..500).await.unwrap(), data[499..]);
    }
    assert_eq!(case.requests(), 1 + damages.len());
}

#[tokio::test]
async fn an_empty_or_short_file_is_discarded() {
    let case = case(1 << 20);
    let (name, data) = (key("index/a"), bytes(1, 500));
    case.cache.put(&name, data.clone(), PutMode::Create).await.unwrap();
    fs::write(case.file("index/a"), "").unwrap();
    assert_eq!(case.cache.get(&name).await.unwrap(), data);
    fs::write(case.file("index/a"), &data[..100]).unwrap();
    assert_eq!(case.cache.get_range(&name, 90..110).await.unwrap(), data[90..110]);
    assert_eq!(fs::read(case.file("index/a")).unwrap(), data);
}

#[tokio::test]
async fn a_cache_that_cannot_be_written_is_no_error() {
    let case = case(1 << 20);
    fs::write(case.folder.join("cache"), "a file where the folder should be").unwrap();
    case.cache.put(&key("index/a"), text("x"), PutMode::Create).await.unwrap();
    assert_eq!(case.cache.get(&key("index/a")).await.unwrap(), "x");
    case.cache.delete(&key("index/a")).await.unwrap();
    assert_eq!(names(&case.cache, "").await.unwrap(), [""; 0]);
}

#[tokio::test]
async fn the_oldest_go_when_there_is_too_much() {
    let case = case(10_000);
    let start = SystemTime::now() - Duration::from_secs(1000);
    for number in 0..10 {
        let name = format!("index/{number}");
        case.cache.put(&key(&name), bytes(number, 1000), PutMode::Create).await.unwrap();
        let file = fs::File::options().write(true).open(case.file(&name)).unwrap();
        file.set_modified(start + Duration::from_secs(number)).unwrap();
    }
    case.cache.put(&key("index/last"), bytes(10, 1000), PutMode::Create).await.unwrap();
    let kept = |name: &str| case.file(&format!("index/{name}")).exists();
    assert!(["0", "1", "2", "3"].iter().all(|name| !kept(name)));
    assert!(["4", "5", "6", "7", "8", "9", "last"].iter().all(|name| kept(name)));
    assert_eq!(case.cache.get(&key("index/0")).await.unwrap(), bytes(0, 1000), "the store still has it");
    case.cache.put(&key("index/huge"), bytes(1, 2501), PutMode::Create).await.unwrap();
    assert!(!kept("huge"), "one object may not push out all others");
}

#[tokio::test]
async fn what_others_deleted_goes_when_the_listing_is_told() {
    let case = case(1 << 20);
    for name in ["index/a", "index/b", "snapshots/c"] {
        case.cache.put(&key(name), text("x"), PutMode::Create).await.unwrap();
    }
    let present = HashSet::from([key("index/b")]);
    case.cache.retain("index", &present).unwrap();
    let kept = ["index/a", "index/b", "snapshots/c"].map(|name| case.file(name).exists());
    assert_eq!(kept, [false, true, true]);
}

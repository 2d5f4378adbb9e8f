use super::*;
use retoma_core::Secret;
use retoma_repo::Repository;
use retoma_repo::store::{BlockingStore, Key, ObjectStore, PutMode, Store, Verb};
use retoma_testkit::wal::segment;
use retoma_testkit::{Fault, FaultyStore, Rule, When};
use std::sync::{Arc, LazyLock};

const SERVER: u64 = 77;
const COUNT: u64 = 6;
const HISTORY: &str = "1\t0/700000\tno recovery target specified\n";

fn name(number: u64) -> String {
    format!("00000001000000000000000{number}")
}

/// The same repository in every store.
fn archive(store: Arc<dyn Store>) -> Archive {
    static MADE: LazyLock<Repository> = LazyLock::new(|| {
        let store = BlockingStore::new(Arc::new(ObjectStore::memory())).unwrap();
        Repository::init(store, &Secret::new("correct horse".to_owned())).unwrap()
    });
    let config = Key::new("config").unwrap();
    let store = BlockingStore::new(store).unwrap();
    if store.head(&config).is_err() {
        store.put(&config, MADE.store().get(&config).unwrap(), PutMode::Create).unwrap();
    }
    Archive::new(&MADE.through(store), "db", SERVER).unwrap()
}

/// A `pg_wal` in which segments wait, and a spool.
struct Place {
    folder: tempfile::TempDir,
    spool: Spool,
}

impl Place {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("pg_wal/archive_status")).unwrap();
        let spool = Spool::open(&folder.path().join("spool"), SERVER).unwrap();
        let place = Self { folder, spool };
        for number in 1..=COUNT {
            std::fs::write(place.path(number), segment(&name(number), SERVER, number)).unwrap();
            let ready = place.path(number).with_file_name("archive_status").join(name(number) + ".ready");
            std::fs::write(ready, "").unwrap();
        }
        place
    }

    /// Adds a waiting segment of the second timeline, and its history.
    fn on_a_second_timeline(&self) -> PathBuf {
        let segment_name = "000000020000000000000007";
        let path = self.folder.path().join("pg_wal").join(segment_name);
        std::fs::write(&path, segment(segment_name, SERVER, 7)).unwrap();
        let ready = path.with_file_name("archive_status").join(format!("{segment_name}.ready"));
        std::fs::write(ready, "").unwrap();
        std::fs::write(path.with_file_name("00000002.history"), HISTORY).unwrap();
        path
    }

    fn path(&self, number: u64) -> PathBuf {
        self.folder.path().join("pg_wal").join(name(number))
    }

    fn file(number: u64) -> WalFileName {
        name(number).parse().unwrap()
    }

    /// Pushes the first one, as `push` does.
    fn push(&self, archives: &[Archive]) -> Result<Done> {
        self.push_file(&self.path(1), archives)
    }

    fn push_file(&self, path: &Path, archives: &[Archive]) -> Result<Done> {
        let own = file_name(path).parse().unwrap();
        let right = self.spool.try_ahead().map(|right| (&self.spool, right));
        let mut files = vec![Waiting { path: path.to_owned(), name: own }];
        files.extend(waiting(path, own));
        Batch::new(archives, right.as_ref(), files).run()
    }

    fn acknowledged(&self) -> Vec<u64> {
        let is_acknowledged = |number: &u64| {
            let id = FileId::from(&self.path(*number).metadata().unwrap());
            self.spool.is_acknowledged(name(*number).parse().unwrap(), id)
        };
        (1..=COUNT).filter(is_acknowledged).collect()
    }
}

#[test]
fn what_waits_is_taken_along_and_acknowledged() {
    let place = Place::new();
    let store = Arc::new(ObjectStore::memory());
    let archive = archive(store);
    let done = place.push(std::slice::from_ref(&archive)).unwrap();
    assert_eq!((done.own, done.ahead), (Stored::New, 5));
    assert_eq!(place.acknowledged(), [2, 3, 4, 5, 6], "the own one has its answer");
    for number in 1..=COUNT {
        let stored = archive.fetch(Place::file(number)).unwrap();
        assert_eq!(stored.unwrap(), segment(&name(number), SERVER, number));
    }
    // Once more: all is there. Acknowledgements of what waits no longer go.
    std::fs::remove_file(place.path(1).with_file_name("archive_status").join(name(6) + ".ready")).unwrap();
    let done = place.push(std::slice::from_ref(&archive)).unwrap();
    assert_eq!((done.own, done.ahead), (Stored::Same, 4));
    assert_eq!(place.acknowledged(), [2, 3, 4, 5]);
}

#[test]
fn without_the_right_nothing_is_taken_along() {
    let place = Place::new();
    let _held = place.spool.try_ahead().unwrap();
    let files = vec![Waiting { path: place.path(1), name: Place::file(1) }];
    let done = Batch::new(&[archive(Arc::new(ObjectStore::memory()))], None, files).run().unwrap();
    assert_eq!((done.own, done.ahead), (Stored::New, 0));
    assert!(place.acknowledged().is_empty());
}

/// Dies before the store's `last`th write, or after it, in one of two repositories.
#[test]
fn whenever_it_dies_nothing_is_acknowledged_that_is_not_in_every_repository() {
    let mut acknowledged = 0;
    for is_done in [false, true] {
        for last in 1..=COUNT {
            let place = Place::new();
            let truth: [Arc<ObjectStore>; 2] = [(); 2].map(|()| Arc::new(ObjectStore::memory()));
            let faulty = Arc::new(FaultyStore::new(truth[1].clone()));
            let archives = [archive(truth[0].clone()), archive(faulty.clone())];
            let fault = if is_done { Fault::DoneButError } else { Fault::Error(ErrorKind::Unavailable) };
            faulty.add(Rule::new(Verb::Put, "wal/*", When::From(last), fault));
            let result = place.push(&archives);
            for number in place.acknowledged() {
                acknowledged += 1;
                for store in &truth {
                    let stored = archive(store.clone()).fetch(Place::file(number)).unwrap();
                    assert!(stored.is_some(), "{number} is acknowledged and not there ({last}, {is_done})");
                }
            }
            if result.is_ok() {
                assert!(archive(truth[1].clone()).fetch(Place::file(1)).unwrap().is_some());
            }
            assert!(place.acknowledged().len() < usize::try_from(last).unwrap());
        }
    }
    assert!(acknowledged > 10, "the test shows something: {acknowledged}");
}

#[test]
fn what_an_empty_mount_point_took_is_not_called_stored() {
    let place = Place::new();
    let store = Arc::new(ObjectStore::memory());
    let archives = [archive(store.clone())];
    BlockingStore::new(store).unwrap().delete(&Key::new("config").unwrap()).unwrap();
    assert_eq!(place.push(&archives).err().unwrap().code(), codes::STORE_UNAVAILABLE);
    assert!(place.acknowledged().is_empty());
}

#[test]
fn one_repository_that_fails_fails_the_push() {
    let place = Place::new();
    let faulty = FaultyStore::new(Arc::new(ObjectStore::memory()));
    faulty.add(Rule::new(Verb::Put, "wal/*", When::Always, Fault::Error(ErrorKind::Exhausted)));
    let archives = [archive(Arc::new(ObjectStore::memory())), archive(Arc::new(faulty))];
    assert_eq!(place.push(&archives).err().unwrap().kind(), ErrorKind::Exhausted);
    assert!(place.acknowledged().is_empty());
}

#[test]
fn what_is_wrong_with_another_segment_is_not_told_about_this_one() {
    let place = Place::new();
    std::fs::write(place.path(3), segment(&name(3), SERVER + 1, 3)).unwrap();
    let archive = archive(Arc::new(ObjectStore::memory()));
    assert_eq!(place.push(std::slice::from_ref(&archive)).unwrap().own, Stored::New);
    assert!(!place.acknowledged().contains(&3));
    assert_eq!(archive.fetch(Place::file(3)).unwrap(), None);
}

#[test]
fn with_its_first_wal_comes_the_history_of_a_timeline() {
    let history: WalFileName = "00000002.history".parse().unwrap();
    let stored =
        |archive: &Archive| archive.fetch(history).unwrap().map(|bytes| String::from_utf8(bytes).unwrap());
    let place = Place::new();
    let path = place.on_a_second_timeline();
    let archives = [(); 2].map(|()| archive(Arc::new(ObjectStore::memory())));
    assert_eq!(place.push_file(&path, &archives).unwrap().own, Stored::New);
    assert!(archives.iter().all(|archive| stored(archive).as_deref() == Some(HISTORY)));
    // The history itself: its own push tells that it is stored already; WAL of its timeline waits for it.
    let own = path.with_file_name("00000002.history");
    assert_eq!(place.push_file(&own, &archives).unwrap().own, Stored::Same);
    let fresh = [archive(Arc::new(ObjectStore::memory()))];
    let done = place.push_file(&own, &fresh).unwrap();
    assert_eq!((done.own, done.ahead), (Stored::New, 6));
    assert_eq!(fresh[0].fetch(file_name(&path).parse().unwrap()).unwrap(), None);
    // Taken along too: the segment and what leads to it.
    let fresh = [archive(Arc::new(ObjectStore::memory()))];
    let done = place.push(&fresh).unwrap();
    assert_eq!((done.own, done.ahead), (Stored::New, 6));
    assert_eq!(stored(&fresh[0]).as_deref(), Some(HISTORY));
}

/// Two servers of one origin began a second timeline each: the WAL of the other one must not get under the first one's.
#[test]
fn no_wal_is_stored_of_a_timeline_that_has_another_history_there() {
    let place = Place::new();
    let path = place.on_a_second_timeline();
    let archives = [archive(Arc::new(ObjectStore::memory()))];
    let history: WalFileName = "00000002.history".parse().unwrap();
    let other = HISTORY.replace("0/7", "0/6");
    archives[0].push(history, other.as_bytes()).unwrap();
    let refused = place.push_file(&path, &archives).err().unwrap();
    assert_eq!(refused.code(), codes::WAL_CONFLICT);
    let segment: WalFileName = file_name(&path).parse().unwrap();
    assert_eq!(archives[0].fetch(segment).unwrap(), None);
    // Nor when it is taken along; the WAL of the common timeline goes on.
    let done = place.push(&archives).unwrap();
    assert_eq!((done.own, done.ahead), (Stored::New, 5));
    assert_eq!(archives[0].fetch(segment).unwrap(), None);
    assert_eq!(archives[0].fetch(history).unwrap().unwrap(), other.as_bytes());
}

/// Another server of the same identity wrote there before: whatever is behind its first other segment is not ours either.
#[test]
fn nothing_gets_behind_a_segment_that_another_server_wrote() {
    let stored = |archive: &Archive| -> Vec<u64> {
        (1..=COUNT).filter(|number| archive.fetch(Place::file(*number)).unwrap().is_some()).collect()
    };
    let put = |archive: &Archive, number, seed| {
        archive.push(Place::file(number), &segment(&name(number), SERVER, seed)).unwrap();
    };
    // Its first segment is another one than ours.
    let (place, archives) = (Place::new(), [archive(Arc::new(ObjectStore::memory()))]);
    put(&archives[0], 1, 99);
    assert_eq!(place.push(&archives).err().unwrap().code(), codes::WAL_CONFLICT);
    assert_eq!((stored(&archives[0]), place.acknowledged()), (vec![1], vec![]));
    // Its first segment is the same, the third another one.
    let (place, archives) = (Place::new(), [(); 2].map(|()| archive(Arc::new(ObjectStore::memory()))));
    put(&archives[1], 1, 1);
    put(&archives[1], 3, 99);
    let done = place.push(&archives).unwrap();
    assert_eq!((done.own, done.ahead), (Stored::New, 1));
    assert_eq!((stored(&archives[1]), place.acknowledged()), (vec![1, 2, 3], vec![2]));
}

#[test]
fn names_that_are_no_wal_files_are_refused() {
    let job =
        Job { component: "db".into(), repositories: Vec::new(), spool: None, system_identifier: Some(1) };
    for wrong in ["/x/postgresql.conf", "/", "x/000000010000000000000007.ready"] {
        assert_eq!(push(&job, Path::new(wrong)).unwrap_err().code(), codes::WAL_MALFORMED);
    }
}

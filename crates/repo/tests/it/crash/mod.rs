//! The process dies at every single write of every operation. Afterwards: every committed snapshot reads back, restic
//! finds nothing wrong, and the next prune gives all space back.

mod wrapped_keys;

use crate::prune::disk::{Death, Disk, Objects};
use crate::prune::kit::*;
use retoma_core::{ErrorKind, Result, error::codes};
use retoma_repo::backup::Progress;
use retoma_repo::ops::copy::{Choice, Copy};
use retoma_repo::ops::{forget, keys, repair};
use retoma_repo::{Repository, SnapshotId};
use std::collections::BTreeSet;

fn contents(repository: &Repository) -> BTreeSet<Files> {
    read_all(repository).into_values().collect()
}

/// A dead process holds no lock.
fn without_locks(mut objects: Objects) -> Objects {
    objects.retain(|name, _| !name.starts_with("locks/"));
    objects
}

/// Lets `operation` die at each of its writes. What survives must hold all that is there both `before` and `after`, and
/// nothing that is in neither.
fn die_everywhere(
    repository: &Repository,
    objects: &Objects,
    before: &BTreeSet<Files>,
    after: &BTreeSet<Files>,
    operation: &dyn Fn(&Repository) -> Result<()>,
) -> Vec<String> {
    let whole = Disk::with(objects.clone());
    operation(&repository.through(whole.store())).unwrap();
    let writes = whole.log();
    assert_eq!(&contents(&repository.through(whole.store())), after);
    for write in 0..writes.len() {
        for death in [Death::Before, Death::After] {
            let disk = Disk::dying(objects.clone(), write, death);
            let outcome = operation(&repository.through(disk.store()));
            // Taking the lock away is the last write, and nothing depends on it.
            assert!(disk.is_dead(), "{write}: {writes:?}");
            assert!(outcome.is_err() || write + 1 >= writes.len() || writes[write] == "delete locks");
            let disk = Disk::with(without_locks(disk.objects()));
            let survivor = repository.through(disk.store());
            let found = contents(&survivor);
            assert!(
                before.intersection(after).all(|files| found.contains(files)),
                "{death:?} write {write} of {writes:?}"
            );
            assert!(found.is_subset(&before.union(after).cloned().collect()));
            check_structure(&survivor);
            if death == Death::After {
                restic_check_objects(&disk.objects());
            }
            // The same once more goes through.
            prune(&survivor, &at_once()).unwrap_or_else(|error| panic!("{death:?} {write}: {error}"));
            assert_eq!(contents(&survivor), found);
            check_structure(&survivor);
            check_no_garbage(&survivor);
        }
    }
    writes
}

struct World {
    repository: Repository,
    objects: Objects,
    first: SnapshotId,
    contents: BTreeSet<Files>,
}

/// Two snapshots, and garbage: whole packs, parts of packs, one of two packs of an index file, and a pack in no index.
fn world() -> World {
    let (disk, repository) = new_repository();
    let old = back_up(&repository, &files(0..6)).unwrap();
    let first = back_up(&repository, &files(4..12)).unwrap();
    let data_only = back_up(&repository, &files(10..15)).unwrap();
    back_up(&repository, &files(10..16)).unwrap();
    drop_snapshot(&repository, old);
    drop_snapshot(&repository, data_only);
    let orphan = bytes::Bytes::from_static(b"what a killed backup left");
    let id = retoma_repo::PackId::of(&orphan);
    let key = repository.pack_key(id).unwrap();
    repository.store().put(&key, orphan, retoma_repo::store::PutMode::Create).unwrap();
    World { first, contents: contents(&repository), objects: disk.objects(), repository }
}

#[test]
fn of_backup() {
    let World { repository, objects, contents, .. } = world();
    let after = contents.iter().cloned().chain([files(2..20)]).collect();
    let writes = die_everywhere(&repository, &objects, &contents, &after, &|repository| {
        back_up(repository, &files(2..20)).map(drop)
    });
    let expected = ["put locks", "put data", "put data", "put index", "put snapshots", "delete locks"];
    assert_eq!(writes, expected);
}

/// Whoever dies has sent what the next copy need not send again, and committed nothing that is not whole.
#[test]
fn of_copy() {
    let World { repository, objects, contents, .. } = world();
    let (source_disk, source) = new_repository();
    let wanted = [files(20..24), files(22..30)];
    let ids = wanted.each_ref().map(|files| back_up(&source, files).unwrap());
    let at_first = source_disk.objects();
    let copy = |to: &Repository| {
        let progress = Progress::default();
        for id in &ids {
            let copy = Copy::begin(&source, to)?;
            let plan = copy.plan(&Choice::Id(id.to_hex()), &progress)?;
            copy.apply(plan, &progress)?;
        }
        Ok(())
    };
    let after = contents.iter().cloned().chain(wanted).collect();
    let writes = die_everywhere(&repository, &objects, &contents, &after, &copy);
    let once = ["put locks", "put data", "put data", "put index", "put snapshots", "delete locks"];
    assert_eq!(writes, [once, once].concat());
    // The same again goes on from there.
    for write in 0..writes.len() {
        let disk = Disk::dying(objects.clone(), write, Death::After);
        copy(&repository.through(disk.store())).ok();
        let disk = Disk::with(without_locks(disk.objects()));
        let survivor = repository.through(disk.store());
        copy(&survivor).unwrap();
        assert_eq!(self::contents(&survivor), after);
        let has_index = write % once.len() >= 3;
        let sent = disk.log().iter().filter(|write| *write == "put data").count();
        let whole = if write < once.len() { 2 } else { 0 };
        assert_eq!(sent, whole + if has_index { 0 } else { 2 }, "{write}");
    }
    assert_eq!(source_disk.objects(), at_first, "the source is only read");
}

#[test]
fn of_forget_and_hold() {
    let World { repository, objects, first, contents } = world();
    let kept = BTreeSet::from([files(10..16)]);
    let writes = die_everywhere(&repository, &objects, &contents, &kept, &|repository| {
        remove_first(repository, first)
    });
    assert_eq!(writes, ["put locks", "delete snapshots", "delete locks"]);
    let writes = die_everywhere(&repository, &objects, &contents, &contents, &|repository| {
        forget::hold(repository, first, true).map(drop)
    });
    assert_eq!(writes, ["put locks", "put snapshots", "delete snapshots", "delete locks"]);
}

fn remove_first(repository: &Repository, id: SnapshotId) -> Result<()> {
    let plan = forget::plan_removal(repository, &BTreeSet::from([id]), later(1).0)?;
    forget::apply(repository, &plan).map(drop)
}

#[test]
fn of_prune_at_once() {
    let World { repository, objects, contents, .. } = world();
    let writes = die_everywhere(&repository, &objects, &contents, &contents, &|repository| {
        prune(repository, &at_once()).map(drop)
    });
    let kinds: Vec<&str> = writes.iter().map(String::as_str).fold(Vec::new(), |mut kinds, write| {
        if kinds.last() != Some(&write) {
            kinds.push(write);
        }
        kinds
    });
    let expected = ["put locks", "put data", "put index", "delete index", "delete data", "delete locks"];
    assert_eq!(kinds, expected);
}

#[test]
fn of_prune_that_marks_and_of_prune_that_sweeps() {
    let World { repository, objects, contents, .. } = world();
    let writes = die_everywhere(&repository, &objects, &contents, &contents, &|repository| {
        prune(repository, &options(now())).map(drop)
    });
    assert_eq!(writes, ["put locks", "put data", "put index", "put marks", "delete locks"]);
    let marked = Disk::with(objects);
    prune(&repository.through(marked.store()), &options(later(-26))).unwrap();
    let writes = die_everywhere(&repository, &marked.objects(), &contents, &contents, &|repository| {
        prune(repository, &options(now())).map(drop)
    });
    let last = writes.len() - 2;
    assert_eq!(writes[..3], ["put locks", "put index", "delete index"]);
    assert_eq!(writes[last..], ["delete marks", "delete locks"]);
    assert!(writes[4..last].iter().all(|write| write == "delete data" || write == "delete index"));
}

/// One index file cannot be read and another one is gone. Whoever dies has written the new index before the old one went.
#[test]
fn of_repair() {
    let World { repository, mut objects, contents: expected, .. } = world();
    let indexes: Vec<String> = objects.keys().filter(|name| name.starts_with("index/")).cloned().collect();
    objects.remove(&indexes[0]);
    objects.insert(indexes[1].clone(), bytes::Bytes::from_static(b"damaged"));
    let repair = |repository: &Repository| {
        let progress = Progress::default();
        repair::apply(
            repository,
            &repair::plan(repository, repair::Options::default(), &progress)?,
            &progress,
        )
        .map(drop)
    };
    let whole = Disk::with(objects.clone());
    repair(&repository.through(whole.store())).unwrap();
    assert_eq!(whole.log(), ["put locks", "put index", "delete index", "delete locks"]);
    for write in 0..whole.log().len() - 1 {
        for death in [Death::Before, Death::After] {
            let disk = Disk::dying(objects.clone(), write, death);
            assert!(repair(&repository.through(disk.store())).is_err());
            let disk = Disk::with(without_locks(disk.objects()));
            let survivor = repository.through(disk.store());
            let readable = survivor.load_readable_index().unwrap();
            let has_new = write > 1 || (write == 1 && death == Death::After);
            assert_eq!(
                readable.packs().len() >= whole_packs(&repository, &whole),
                has_new,
                "{death:?} {write}"
            );
            repair(&survivor).unwrap();
            assert_eq!(contents(&survivor), expected, "{death:?} {write}");
            check_structure(&survivor);
            prune(&survivor, &at_once()).unwrap();
            assert_eq!(contents(&survivor), expected);
            check_no_garbage(&survivor);
        }
    }
}

#[test]
fn of_repair_that_rebuilds() {
    let World { repository, objects, contents, .. } = world();
    let options = repair::Options { rebuild_index: true, ..repair::Options::default() };
    let writes = die_everywhere(&repository, &objects, &contents, &contents, &|repository| {
        let progress = Progress::default();
        repair::apply(repository, &repair::plan(repository, options, &progress)?, &progress).map(drop)
    });
    assert_eq!(writes[..2], ["put locks", "put index"]);
    assert!(writes[2..].iter().all(|write| write == "delete index" || write == "delete locks"));
}

fn whole_packs(repository: &Repository, disk: &Disk) -> usize {
    repository.through(disk.store()).load_index().unwrap().packs().len()
}

#[test]
fn a_sweep_that_died_is_finished_by_the_next_one() {
    let World { repository, objects, contents: expected, .. } = world();
    let marked = Disk::with(objects);
    prune(&repository.through(marked.store()), &options(later(-26))).unwrap();
    let sweep = |repository: &Repository| prune(repository, &options(now())).map(drop);
    let whole = Disk::with(marked.objects());
    sweep(&repository.through(whole.store())).unwrap();
    let names = |objects: &Objects| -> BTreeSet<String> {
        objects.keys().filter(|name| name.starts_with("data/")).cloned().collect()
    };
    for write in 1..whole.log().len() - 1 {
        let disk = Disk::dying(marked.objects(), write, Death::After);
        sweep(&repository.through(disk.store())).unwrap_err();
        let disk = Disk::with(without_locks(disk.objects()));
        let survivor = repository.through(disk.store());
        sweep(&survivor).unwrap();
        assert_eq!(names(&disk.objects()), names(&whole.objects()), "{write}");
        assert_eq!(contents(&survivor), expected);
        assert!(survivor.marks().unwrap().is_empty());
        check_structure(&survivor);
    }
}

#[test]
fn of_init() {
    let whole = Disk::default();
    Repository::init(whole.store(), &secret(PASSWORD)).unwrap();
    assert_eq!(whole.log(), ["put keys", "put config"]);
    for write in 0..2 {
        for death in [Death::Before, Death::After] {
            let disk = Disk::dying(Objects::new(), write, death);
            Repository::init(disk.store(), &secret(PASSWORD)).unwrap_err();
            let disk = Disk::with(disk.objects());
            let (repository, _) = Repository::open_or_init(disk.store(), &secret(PASSWORD)).unwrap();
            assert_eq!(repository.keys().unwrap().len(), 1);
            back_up(&repository, &files(0..2)).unwrap();
            restic_check_objects(&disk.objects());
        }
    }
}

/// Also when the new one is made with the same password, whose key opens: a new config has another id and polynomial.
#[test]
fn a_repository_that_lost_its_config_is_never_taken_for_none() {
    let (disk, repository) = new_repository();
    back_up(&repository, &files(0..2)).unwrap();
    let mut without = disk.objects();
    without.remove("config");
    for folder in ["snapshots/", "index/", "data/", ""] {
        let only = without.iter().filter(|(name, _)| name.starts_with(folder) || name.starts_with("keys/"));
        let objects: Objects = only.map(|(name, bytes)| (name.clone(), bytes.clone())).collect();
        let disk = Disk::with(objects.clone());
        for result in [
            Repository::init(disk.store(), &secret(PASSWORD)),
            Repository::open(disk.store(), &secret(PASSWORD)),
            Repository::open_or_init(disk.store(), &secret("another")).map(|(repository, _)| repository),
        ] {
            let error = result.unwrap_err();
            assert_eq!((error.kind(), error.code()), (ErrorKind::Corrupt, codes::CONFIG_MISSING), "{folder}");
        }
        assert_eq!(disk.objects(), objects, "nothing was written");
    }
    // Keys alone are what a first backup leaves that was killed.
    let keys: Objects = without.into_iter().filter(|(name, _)| name.starts_with("keys/")).collect();
    let disk = Disk::with(keys);
    assert_eq!(Repository::open(disk.store(), &secret(PASSWORD)).unwrap_err().code(), codes::NO_REPOSITORY);
    assert!(Repository::open_or_init(disk.store(), &secret(PASSWORD)).unwrap().1);
}

type Operation<'a> = &'a dyn Fn(&Repository) -> Result<()>;

#[test]
fn of_key_add_remove_and_change() {
    let (disk, repository) = new_repository();
    back_up(&repository, &files(0..2)).unwrap();
    let removable = keys::add(&repository, &secret("removable")).unwrap();
    let objects = disk.objects();
    let operations: [(Operation<'_>, &[&str]); 3] = [
        (&|repository| keys::add(repository, &secret("other")).map(drop), &["put keys"]),
        (
            &|repository| keys::remove(repository, &removable.to_hex()).map(drop),
            &["put locks", "delete keys", "delete locks"],
        ),
        (
            &|repository| keys::change_password(repository, &secret("other")).map(drop),
            &["put locks", "put keys", "delete keys", "delete locks"],
        ),
    ];
    for (operation, expected) in operations {
        let whole = Disk::with(objects.clone());
        operation(&repository.through(whole.store())).unwrap();
        assert_eq!(whole.log(), expected);
        for write in 0..expected.len() {
            for death in [Death::Before, Death::After] {
                let dying = Disk::dying(objects.clone(), write, death);
                let outcome = operation(&repository.through(dying.store()));
                // Taking the lock away is the last write, and nothing depends on it.
                assert!(outcome.is_err() || expected[write] == "delete locks");
                let disk = Disk::with(dying.objects());
                let opens = |password: &str| Repository::open(disk.store(), &secret(password));
                let opened = opens(PASSWORD).or_else(|_| opens("other")).unwrap();
                assert_eq!(contents(&opened), BTreeSet::from([files(0..2)]));
                let written = &expected[..write + usize::from(death == Death::After)];
                let changed = ["put keys", "delete keys"].iter().all(|write| written.contains(write));
                assert_eq!(opens(PASSWORD).is_err(), changed, "the old password goes last");
            }
        }
    }
}

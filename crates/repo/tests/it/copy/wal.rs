//! The archive of WAL in a copy.

use crate::prune::disk::{Death, Disk};
use crate::prune::kit::new_repository;
use retoma_core::ErrorKind;
use retoma_core::error::codes;
use retoma_core::postgres::{SegmentName, SegmentSize, TimelineId, WalFileName};
use retoma_repo::Repository;
use retoma_repo::backup::Progress;
use retoma_repo::wal::copy::{WalCopied, apply, plan};
use retoma_repo::wal::{Archive, PartName, WalObject};
use std::collections::BTreeMap;

const SERVER: u64 = 7_000_000_000_000_000_001;

fn size() -> SegmentSize {
    SegmentSize::new(1 << 20).unwrap()
}

fn name(number: u64) -> SegmentName {
    SegmentName::new(TimelineId::new(1).unwrap(), number, size()).unwrap()
}

fn segment(number: u64) -> Vec<u8> {
    retoma_testkit::wal::segment(&name(number).to_string(), SERVER, number)
}

fn archive(repository: &Repository, component: &str) -> Archive {
    Archive::new(repository, component, SERVER).unwrap()
}

fn copy(from: &Repository, to: &Repository) -> retoma_core::Result<WalCopied> {
    let plan = plan(from, to, &["db".to_owned()])?;
    apply(from, to, &plan, &Progress::default())
}

/// Three segments, a history, the label of a backup, and two parts of a segment that is not finished; beside them the parts of
/// one that is, and another component's.
fn filled() -> (Disk, Repository) {
    let (disk, repository) = new_repository();
    let own = archive(&repository, "db");
    for number in 3..6 {
        own.push(WalFileName::Segment(name(number)), &segment(number)).unwrap();
    }
    own.push("00000002.history".parse().unwrap(), b"1\t0/5000000\tno recovery target specified\n").unwrap();
    own.push("000000010000000000000003.00000028.backup".parse().unwrap(), b"START WAL LOCATION: 0/3000028")
        .unwrap();
    own.push_part(name(6), size(), 0, &segment(6)[..10_000]).unwrap();
    own.push_part(name(6), size(), 10_000, &segment(6)[10_000..12_000]).unwrap();
    own.push_part(name(5), size(), 0, &segment(5)[..10_000]).unwrap();
    archive(&repository, "other").push(WalFileName::Segment(name(3)), &segment(3)).unwrap();
    (disk, repository)
}

/// What the archive of `db` holds, opened.
fn opened(repository: &Repository) -> BTreeMap<String, Vec<u8>> {
    let own = archive(repository, "db");
    let mut names = Vec::new();
    own.for_each(|object, _| names.push(object)).unwrap();
    let bytes = |object| match object {
        WalObject::File(name) => own.fetch(name).unwrap().unwrap(),
        WalObject::Part(part) => own.assemble(part.segment).unwrap().unwrap().bytes,
    };
    names.into_iter().map(|object| (object.to_string(), bytes(object))).collect()
}

#[test]
fn every_object_comes_under_its_name_and_once() {
    let (source_disk, source) = filled();
    let (target_disk, target) = new_repository();
    let copied = copy(&source, &target).unwrap();
    assert_eq!((copied.objects, copied.damaged.len()), (7, 0));
    let mut expected = opened(&source);
    let part = PartName::new(name(5), 0, 10_000).unwrap().to_string();
    assert!(expected.remove(&part).is_some(), "parts of whole segments stay");
    assert_eq!(opened(&target), expected);
    let (theirs, ours) = (source_disk.objects(), target_disk.objects());
    let is_wal = |name: &&String| name.starts_with("wal/");
    assert!(ours.keys().filter(is_wal).all(|name| name.starts_with("wal/db/") && theirs[name] != ours[name]));
    assert_eq!(copy(&source, &target).unwrap().objects, 0);
    assert_eq!(target_disk.objects(), ours);
    // The segment is finished: its parts are not sent any more, the whole is.
    archive(&source, "db").push(WalFileName::Segment(name(6)), &segment(6)).unwrap();
    assert_eq!(copy(&source, &target).unwrap().objects, 1);
    assert_eq!(archive(&target, "db").fetch(WalFileName::Segment(name(6))).unwrap().unwrap(), segment(6));
}

#[test]
fn what_is_damaged_or_other_there_is_named_and_the_rest_comes() {
    let (disk, source) = filled();
    let mut objects = disk.objects();
    let damaged = WalObject::File(WalFileName::Segment(name(4))).key("db", SERVER).unwrap();
    let mut bytes = objects[damaged.as_str()].to_vec();
    bytes[500] ^= 1;
    objects.insert(damaged.as_str().to_owned(), bytes.into());
    let source = source.through(Disk::with(objects).store());
    let (_, target) = new_repository();
    let planned = plan(&source, &target, &["db".to_owned()]).unwrap();
    // Between the plan and the copy another server writes here.
    let other = retoma_testkit::wal::segment(&name(5).to_string(), SERVER, 99);
    archive(&target, "db").push(WalFileName::Segment(name(5)), &other).unwrap();
    let copied = apply(&source, &target, &planned, &Progress::default()).unwrap();
    assert_eq!(copied.objects, 5);
    let mut named: Vec<_> = copied.damaged.iter().map(|error| (error.code(), error.kind())).collect();
    named.sort_unstable_by_key(|(code, _)| code.as_str());
    assert_eq!(
        named,
        [(codes::NOT_AUTHENTIC, ErrorKind::Corrupt), (codes::WAL_CONFLICT, ErrorKind::Conflict)]
    );
    assert!(copied.damaged.iter().any(|error| error.to_string().contains(damaged.as_str())));
    assert_eq!(archive(&target, "db").fetch(WalFileName::Segment(name(5))).unwrap().unwrap(), other);
}

/// Names of all objects of WAL, of whichever component.
fn names(disk: &Disk) -> Vec<String> {
    disk.objects().into_keys().filter(|name| name.starts_with("wal/")).collect()
}

fn key(object: WalObject) -> String {
    object.key("db", SERVER).unwrap().as_str().to_owned()
}

#[test]
fn parts_of_a_segment_that_either_side_has_whole_are_not_copied() {
    let (_, source) = new_repository();
    let (target_disk, target) = new_repository();
    let (ours, theirs) = (archive(&source, "db"), archive(&target, "db"));
    // 3 is whole here, 4 is whole there, 5 is whole nowhere.
    for number in 3..6 {
        ours.push_part(name(number), size(), 0, &segment(number)[..10_000]).unwrap();
    }
    ours.push(WalFileName::Segment(name(3)), &segment(3)).unwrap();
    theirs.push(WalFileName::Segment(name(4)), &segment(4)).unwrap();
    // The same segment of another timeline covers nothing.
    let other = name(5).on(TimelineId::new(2).unwrap());
    let bytes = retoma_testkit::wal::segment(&other.to_string(), SERVER, 5);
    ours.push(WalFileName::Segment(other), &bytes).unwrap();
    let planned = plan(&source, &target, &["db".to_owned()]).unwrap();
    assert_eq!(planned.objects, 3);
    assert_eq!(apply(&source, &target, &planned, &Progress::default()).unwrap().objects, 3);
    let whole = |number| key(WalObject::File(WalFileName::Segment(name(number))));
    let mut expected = vec![
        whole(3),
        whole(4),
        key(WalObject::File(WalFileName::Segment(other))),
        key(WalObject::Part(PartName::new(name(5), 0, 10_000).unwrap())),
    ];
    expected.sort();
    assert_eq!(names(&target_disk), expected);
}

#[test]
fn only_the_components_that_are_named_are_copied_with_all_of_their_servers() {
    let (_, source) = filled();
    // A new server in the place of the old one.
    let again = Archive::new(&source, "db", SERVER + 1).unwrap();
    let bytes = retoma_testkit::wal::segment(&name(3).to_string(), SERVER + 1, 3);
    again.push(WalFileName::Segment(name(3)), &bytes).unwrap();
    // What only begins with the name is another's.
    archive(&source, "db-2").push(WalFileName::Segment(name(3)), &segment(3)).unwrap();
    for (components, expected) in [
        (&["other"][..], &[("other", 1)][..]),
        (&["db"], &[("db", 8)]),
        (&["db-2", "other"], &[("db-2", 1), ("other", 1)]),
        (&["d", "nobody"], &[]),
        (&[], &[]),
    ] {
        let (disk, target) = new_repository();
        let components: Vec<String> = components.iter().map(|name| (*name).to_owned()).collect();
        let planned = plan(&source, &target, &components).unwrap();
        let copied = apply(&source, &target, &planned, &Progress::default()).unwrap();
        let mut found: BTreeMap<String, u64> = BTreeMap::new();
        for name in names(&disk) {
            *found.entry(name.split('/').nth(1).unwrap().to_owned()).or_default() += 1;
        }
        let expected: BTreeMap<String, u64> =
            expected.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
        assert_eq!((copied.objects, &found), (expected.values().sum(), &expected), "{components:?}");
    }
}

/// Of each kind one, with a flipped bit, and one that was put under another's name.
#[test]
fn whatever_is_damaged_is_named_and_not_copied() {
    let (disk, source) = filled();
    let part = |from, to| key(WalObject::Part(PartName::new(name(6), from, to).unwrap()));
    let (first, second) = (part(0, 10_000), part(10_000, 12_000));
    let history = key(WalObject::File("00000002.history".parse().unwrap()));
    let label = key(WalObject::File("000000010000000000000003.00000028.backup".parse().unwrap()));
    let whole = key(WalObject::File(WalFileName::Segment(name(3))));
    for damaged in [&first, &second, &history, &label, &whole] {
        let mut objects = disk.objects();
        let mut bytes = objects[damaged].to_vec();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        objects.insert(damaged.clone(), bytes.into());
        assert_not_copied(&source, objects, damaged);
    }
    let mut objects = disk.objects();
    objects.insert(second.clone(), objects[&first].clone());
    assert_not_copied(&source, objects, &second);
}

/// Of these objects of `source`, all are copied but one that is not what its name says.
fn assert_not_copied(source: &Repository, objects: crate::prune::disk::Objects, damaged: &String) {
    let source = source.through(Disk::with(objects).store());
    let (disk, target) = new_repository();
    let copied = copy(&source, &target).unwrap();
    let told: Vec<String> = copied.damaged.iter().map(ToString::to_string).collect();
    let [told] = &told[..] else { panic!("{damaged}: {told:?}") };
    assert!(told.contains(damaged.as_str()), "{damaged}: {told}");
    assert_eq!((copied.objects, names(&disk).len()), (6, 6), "{damaged}");
    assert!(!names(&disk).contains(damaged), "{damaged}");
}

#[test]
fn killed_at_any_write_the_next_copy_goes_on() {
    let (_, source) = filled();
    let (empty, target) = new_repository();
    copy(&source, &target).unwrap();
    let expected = opened(&target);
    let whole = empty.log().iter().filter(|write| *write == "put wal").count();
    assert_eq!(whole, 7);
    let before: crate::prune::disk::Objects =
        empty.objects().into_iter().filter(|(name, _)| !name.starts_with("wal/")).collect();
    for write in 0..whole {
        for death in [Death::Before, Death::After] {
            let disk = Disk::dying(before.clone(), write, death);
            let error = copy(&source, &target.through(disk.store())).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            let survivor = target.through(Disk::with(disk.objects()).store());
            copy(&source, &survivor).unwrap();
            assert_eq!(opened(&survivor), expected, "{death:?} {write}");
        }
    }
}

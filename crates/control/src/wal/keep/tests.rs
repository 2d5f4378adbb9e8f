use super::super::check::SnapshotWindow;
use super::*;
use retoma_core::Secret;
use retoma_core::postgres::{TimelineHistory, TimelineId};
use retoma_repo::SnapshotId;
use retoma_repo::store::{BlockingStore, ObjectStore};
use retoma_testkit::wal::{name, size, timeline};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

const MIB: u64 = 1 << 20;
const SERVER: u64 = 7;
const DAY: Duration = Duration::from_hours(24);

struct World {
    repository: Repository,
    archive: Archive,
    snapshots: Vec<(u32, u64)>,
}

fn at(hours: i64) -> Time {
    Time::from_unix(2_000_000_000 + hours * 3600, 0)
}

impl World {
    /// Timeline 1 with segments 1 to 8, timeline 2 from segment 6 on, which leaves it in the middle of that.
    fn new() -> Self {
        let store = BlockingStore::new(Arc::new(ObjectStore::memory())).unwrap();
        let repository = Repository::init(store, &Secret::new("a test".to_owned())).unwrap();
        let archive = Archive::new(&repository, "db", SERVER).unwrap();
        let world = Self { repository, archive, snapshots: Vec::new() };
        (1..=8).for_each(|number| world.push(1, number));
        (6..=9).for_each(|number| world.push(2, number));
        let history = format!("1\t{}\tpromoted\n", Lsn(6 * MIB + MIB / 2));
        world.archive.push(WalFileName::History(timeline(2)), history.as_bytes()).unwrap();
        world
    }

    fn push(&self, on: u32, number: u64) {
        let bytes = retoma_testkit::wal::segment(&name(on, number).to_string(), SERVER, number);
        self.archive.push(WalFileName::Segment(name(on, number)), &bytes).unwrap();
    }

    fn part(&self, on: u32, number: u64, to: usize) {
        let bytes = retoma_testkit::wal::segment(&name(on, number).to_string(), SERVER, number);
        self.archive.push_part(name(on, number), size(), 0, &bytes[..to]).unwrap();
    }

    fn server(&self) -> ServerWal {
        let listing = self.archive.list(size()).unwrap();
        let mut histories: BTreeMap<TimelineId, TimelineHistory> = BTreeMap::new();
        for timeline in listing.timelines.keys() {
            histories.extend(self.archive.history(*timeline).unwrap().map(|history| (*timeline, history)));
        }
        let snapshot = |(number, (on, start)): (usize, &(u32, u64))| SnapshotWindow {
            id: SnapshotId([u8::try_from(number).unwrap(); 32]),
            time: at(0),
            timeline: timeline(*on),
            start: Lsn(*start),
            stop: Lsn(*start + 100),
            stopped: at(0).0,
            ended: None,
            tablespaces: Vec::new(),
            is_complete: true,
            ways: Vec::new(),
        };
        ServerWal {
            component: "db".to_owned(),
            system_identifier: SERVER,
            snapshots: self.snapshots.iter().enumerate().map(snapshot).collect(),
            listing,
            gaps: BTreeSet::new(),
            without_history: Vec::new(),
            histories,
        }
    }

    fn plan(&self, hours: i64, grace: Duration) -> ServerPlan {
        plan_server(&self.repository, &self.server(), &[], at(hours), grace).unwrap()
    }

    /// Plans and applies. Gives the segments that are left, and how many parts are.
    fn prune(&self, hours: i64, grace: Duration) -> (Vec<(u32, u64)>, usize) {
        let plan = self.plan(hours, grace);
        let interrupt = Interrupt::new(Arc::default());
        apply(&self.repository, &[plan], at(hours), grace, &interrupt).unwrap();
        let listing = self.archive.list(size()).unwrap();
        assert!(listing.timelines[&timeline(2)].has_history);
        let segments = listing.timelines.iter().flat_map(|(on, timeline)| {
            let numbers = timeline.segments.ranges().flat_map(|(first, last)| first..=last);
            numbers.map(|number| (on.get(), number))
        });
        let parts =
            listing.timelines.values().flat_map(|timeline| timeline.parts.values()).map(BTreeSet::len);
        (segments.collect(), parts.sum())
    }
}

fn all() -> Vec<(u32, u64)> {
    (1..=8).map(|number| (1, number)).chain((6..=9).map(|number| (2, number))).collect()
}

fn from(first: u64) -> Vec<(u32, u64)> {
    all().into_iter().filter(|(on, number)| *on == 2 || *number >= first).collect()
}

#[test]
fn what_nobody_needs_goes_a_grace_period_after_that_was_seen() {
    let mut world = World::new();
    world.snapshots = vec![(1, MIB + 5), (1, 4 * MIB + 5)];
    assert_eq!(world.prune(0, DAY).0, all());
    world.snapshots.remove(0);
    assert_eq!(world.prune(10, DAY).0, all(), "it is seen now");
    assert_eq!(world.plan(33, DAY).objects, [], "23 hours later");
    assert_eq!(world.prune(34, DAY).0, from(4));
    assert!(world.plan(34, DAY).is_empty());
    let floors: Vec<Time> = world.archive.floors().unwrap().iter().map(|floor| floor.time).collect();
    assert_eq!(floors, [at(10)], "what is done with is gone, but for the newest");
}

#[test]
fn what_is_needed_again_stays() {
    let mut world = World::new();
    world.snapshots = vec![(1, 4 * MIB + 5)];
    world.prune(0, DAY);
    world.snapshots.push((1, 2 * MIB + 5));
    assert_eq!(world.prune(50, DAY).0, from(2));
}

#[test]
fn at_once_without_a_grace_period_and_all_of_what_was_left_behind() {
    let mut world = World::new();
    world.snapshots = vec![(2, 7 * MIB + 5)];
    assert_eq!(world.prune(0, Duration::ZERO).0, [(2, 7), (2, 8), (2, 9)]);
    assert_eq!(world.archive.floors().unwrap(), []);
}

#[test]
fn without_a_snapshot_everything_stays() {
    let world = World::new();
    assert!(world.plan(0, Duration::ZERO).is_without_snapshot);
    assert_eq!(world.prune(0, Duration::ZERO).0, all());
    assert_eq!(world.prune(50, DAY).0, all());
}

#[test]
fn the_newest_timeline_waits_for_a_snapshot_that_leads_to_it() {
    let mut world = World::new();
    world.snapshots = vec![(1, 7 * MIB + 5)];
    assert_eq!(world.prune(0, Duration::ZERO).0, from(7));
}

#[test]
fn parts_go_when_the_whole_is_there_and_not_before() {
    let mut world = World::new();
    world.snapshots = vec![(1, MIB)];
    world.part(2, 9, 100_000);
    world.part(2, 9, 200_000);
    world.part(2, 10, 100_000);
    assert_eq!(world.prune(0, DAY), (all(), 1));
}

#[test]
fn a_backup_that_runs_since_before_the_floor_puts_it_off() {
    let mut world = World::new();
    world.snapshots = vec![(1, 4 * MIB)];
    world.prune(0, DAY);
    let plan =
        |since: i64| plan_server(&world.repository, &world.server(), &[at(since)], at(40), DAY).unwrap();
    assert!(plan(0).is_postponed && plan(1).is_postponed, "clocks may be an hour apart");
    assert_eq!((plan(1).objects, plan(1).done), (Vec::new(), Vec::new()));
    assert!(!plan(2).is_postponed);
    assert_eq!(plan(2).objects.len(), 3);
    let at_once = plan_server(&world.repository, &world.server(), &[at(40)], at(40), Duration::ZERO).unwrap();
    assert!(at_once.is_postponed);
}

#[test]
fn each_timeline_goes_from_its_oldest_segment_on() {
    let mut world = World::new();
    world.part(1, 2, 100_000);
    world.snapshots = vec![(2, 8 * MIB)];
    let named: Vec<String> = world.plan(0, Duration::ZERO).objects.iter().map(ToString::to_string).collect();
    let mut sorted = named.clone();
    sorted.sort_by_key(|name| (name[..24].to_owned(), name.len() == 24));
    assert_eq!((named.len(), &named), (1 + 8 + 2, &sorted));
}

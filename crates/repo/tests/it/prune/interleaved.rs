//! Backups, marks and sweeps in adversarial orders: a seeded scheduler lets one actor do one store operation at a time.
//!
//! An actor waits in front of every operation until it is chosen. The choice is made when all actors wait, so the
//! order is that of the seed (a backup may have two packs under way; their order among each other is the runtime's).

use super::disk::Disk;
use super::kit::*;
use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream, StreamExt as _, TryStreamExt as _};
use retoma_core::Result;
use retoma_repo::store::{BlockingStore, Capabilities, Key, ObjectMeta, PutMode, Store};
use retoma_repo::{Repository, SnapshotId};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex};
use tokio::sync::oneshot;

#[derive(Debug, Default)]
struct Turns {
    waiting: Vec<VecDeque<oneshot::Sender<()>>>,
    ended: Vec<bool>,
}

#[derive(Debug, Default)]
struct Scheduler {
    turns: Mutex<Turns>,
    changed: Condvar,
}

impl Scheduler {
    fn new(actors: usize) -> Arc<Self> {
        let turns =
            Turns { waiting: (0..actors).map(|_| VecDeque::new()).collect(), ended: vec![false; actors] };
        Arc::new(Self { turns: Mutex::new(turns), changed: Condvar::new() })
    }

    async fn turn(&self, actor: usize) {
        let (go, gone) = oneshot::channel();
        self.turns.lock().unwrap().waiting[actor].push_back(go);
        self.changed.notify_all();
        gone.await.unwrap();
    }

    fn end(&self, actor: usize) {
        self.turns.lock().unwrap().ended[actor] = true;
        self.changed.notify_all();
    }

    /// Lets one actor after the other do something until all have ended.
    fn run(&self, seed: u64) {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ 0x5851_f42d_4c95_7f2d;
        let mut random = move |below: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % below
        };
        let (mut favourite, mut burst) = (0, 0);
        loop {
            let mut turns = self.turns.lock().unwrap();
            while turns.waiting.iter().zip(&turns.ended).any(|(waiting, ended)| waiting.is_empty() && !ended)
            {
                turns = self.changed.wait(turns).unwrap();
            }
            let ready: Vec<usize> =
                (0..turns.waiting.len()).filter(|actor| !turns.waiting[*actor].is_empty()).collect();
            if ready.is_empty() {
                return;
            }
            // Bursts reach states that a fair choice at each step never would.
            if burst == 0 || !ready.contains(&favourite) {
                favourite = ready[random(ready.len())];
                burst = 1 + random(12);
            }
            burst -= 1;
            let go = turns.waiting[favourite].pop_front().unwrap();
            // An operation whose put was given up is not waited for.
            go.send(()).ok();
        }
    }
}

#[derive(Debug)]
struct Gated {
    disk: Disk,
    actor: usize,
    scheduler: Arc<Scheduler>,
}

#[async_trait]
impl Store for Gated {
    fn location(&self) -> String {
        self.disk.location()
    }

    fn capabilities(&self) -> Capabilities {
        self.disk.capabilities()
    }

    async fn put(&self, key: &Key, data: Bytes, mode: PutMode) -> Result<()> {
        self.scheduler.turn(self.actor).await;
        self.disk.put(key, data, mode).await
    }

    async fn get(&self, key: &Key) -> Result<Bytes> {
        self.scheduler.turn(self.actor).await;
        self.disk.get(key).await
    }

    async fn get_range(&self, key: &Key, range: Range<u64>) -> Result<Bytes> {
        self.scheduler.turn(self.actor).await;
        self.disk.get_range(key, range).await
    }

    async fn head(&self, key: &Key) -> Result<ObjectMeta> {
        self.scheduler.turn(self.actor).await;
        self.disk.head(key).await
    }

    fn list<'a>(&'a self, folder: &'a str) -> BoxStream<'a, Result<ObjectMeta>> {
        let listed = async move {
            self.scheduler.turn(self.actor).await;
            self.disk.list(folder).collect::<Vec<_>>().await
        };
        stream::once(listed).flat_map(stream::iter).map_ok(|meta| meta).boxed()
    }

    async fn delete(&self, key: &Key) -> Result<()> {
        self.scheduler.turn(self.actor).await;
        self.disk.delete(key).await
    }
}

/// Ends the actor also when it panics, so that the test fails instead of waiting.
struct Ending(Arc<Scheduler>, usize);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end(self.1);
    }
}

type Actor<'a> = Box<dyn FnOnce(Repository) + Send + 'a>;

fn play(disk: &Disk, repository: &Repository, seed: u64, actors: Vec<Actor<'_>>) {
    let scheduler = Scheduler::new(actors.len());
    std::thread::scope(|scope| {
        for (actor, act) in actors.into_iter().enumerate() {
            let gated = Gated { disk: disk.clone(), actor, scheduler: scheduler.clone() };
            let repository = repository.through(BlockingStore::new(Arc::new(gated)).unwrap());
            let ending = Ending(scheduler.clone(), actor);
            scope.spawn(move || {
                let _ending = ending;
                act(repository);
            });
        }
        scheduler.run(seed);
    });
}

/// The seeds: the first 150, or the one in `SEED`.
fn seeds() -> impl Iterator<Item = u64> {
    let one = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    one.map_or(0..150, |seed| seed..seed + 1)
}

/// One play: what is on disk first, who acts, and what must be there afterwards.
fn check(seed: u64, disk: &Disk, repository: &Repository, committed: &BTreeMap<SnapshotId, Files>) {
    println!("seed {seed}: {:?}", disk.log());
    assert_eq!(&read_all(repository), committed, "seed {seed}");
    check_structure(repository);
    prune(repository, &at_once()).unwrap();
    assert_eq!(&read_all(repository), committed, "seed {seed}");
    check_no_garbage(repository);
}

/// A repository whose garbage the backups of the play bring back to life.
fn with_garbage() -> (Repository, super::disk::Objects, (SnapshotId, Files)) {
    let (disk, repository) = new_repository();
    let old = back_up(&repository, &files(0..8)).unwrap();
    let partly = back_up(&repository, &files(8..16)).unwrap();
    let kept = back_up(&repository, &files(12..20)).unwrap();
    drop_snapshot(&repository, old);
    drop_snapshot(&repository, partly);
    (repository, disk.objects(), (kept, files(12..20)))
}

/// Backs nine files up and writes down that it did.
fn backup(from: u64, committed: &Mutex<BTreeMap<SnapshotId, Files>>) -> Actor<'_> {
    Box::new(move |repository| {
        let files = files(from..from + 9);
        let id = back_up(&repository, &files).unwrap();
        committed.lock().unwrap().insert(id, files);
    })
}

#[test]
fn backups_that_began_before_the_mark_lose_nothing() {
    let (repository, objects, (kept, contents)) = with_garbage();
    for seed in seeds() {
        let disk = Disk::with(objects.clone());
        let committed = Mutex::new(BTreeMap::from([(kept, contents.clone())]));
        let pruner: Actor<'_> = Box::new(|repository| {
            prune(&repository, &options(now())).unwrap();
            prune(&repository, &options(later(25))).unwrap();
            prune(&repository, &options(later(50))).unwrap();
        });
        play(&disk, &repository, seed, vec![backup(0, &committed), backup(5, &committed), pruner]);
        check(seed, &disk, &repository.through(disk.store()), &committed.into_inner().unwrap());
    }
}

#[test]
fn backups_that_began_after_the_mark_lose_nothing_beside_the_sweep() {
    let (repository, objects, (kept, contents)) = with_garbage();
    let marked = Disk::with(objects);
    prune(&repository.through(marked.store()), &options(later(-26))).unwrap();
    for seed in seeds() {
        let disk = Disk::with(marked.objects());
        let committed = Mutex::new(BTreeMap::from([(kept, contents.clone())]));
        let swept = Mutex::new(0);
        let sweeper: Actor<'_> = Box::new(|repository| {
            *swept.lock().unwrap() = prune(&repository, &options(now())).unwrap().removed_packs;
        });
        play(&disk, &repository, seed, vec![backup(0, &committed), backup(5, &committed), sweeper]);
        assert!(swept.into_inner().unwrap() > 0, "seed {seed}: nothing was swept");
        check(seed, &disk, &repository.through(disk.store()), &committed.into_inner().unwrap());
    }
}

#[test]
fn holds_and_forgetting_beside_a_sweep_lose_nothing() {
    let (repository, objects, (kept, contents)) = with_garbage();
    let marked = Disk::with(objects);
    prune(&repository.through(marked.store()), &options(later(-26))).unwrap();
    let extra = back_up(&repository.through(marked.store()), &files(18..24)).unwrap();
    for seed in seeds() {
        let disk = Disk::with(marked.objects());
        let held = Mutex::new(None);
        let holder: Actor<'_> = Box::new(|repository| {
            let on = retoma_repo::ops::forget::hold(&repository, kept, true).unwrap();
            let off = retoma_repo::ops::forget::hold(&repository, on, false).unwrap();
            *held.lock().unwrap() = Some(retoma_repo::ops::forget::hold(&repository, off, true).unwrap());
        });
        let forgetter: Actor<'_> = Box::new(|repository| drop_snapshot(&repository, extra));
        let sweeper: Actor<'_> = Box::new(|repository| drop(prune(&repository, &options(now())).unwrap()));
        play(&disk, &repository, seed, vec![holder, forgetter, sweeper]);
        let committed = BTreeMap::from([(held.into_inner().unwrap().unwrap(), contents.clone())]);
        check(seed, &disk, &repository.through(disk.store()), &committed);
    }
}

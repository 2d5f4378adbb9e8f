//! The bounded queue between the walk and the workers.
//!
//! Chunks of large files go first: they hold memory, and a file is done only with its last chunk. A worker that cuts a
//! large file offers its chunks to the others and does some itself when the queue is full, so that all cores are busy
//! also when there is just one file, and no thread ever waits for itself.

use retoma_sha256::LANES;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Batches of entries that wait.
const BATCHES: usize = 32;

/// `B`: a batch of entries. `C`: a chunk.
#[derive(Debug)]
pub(super) struct Queue<B, C> {
    state: Mutex<State<B, C>>,
    changed: Condvar,
    chunks_max: usize,
}

#[derive(Debug)]
struct State<B, C> {
    batches: VecDeque<B>,
    chunks: VecDeque<C>,
    /// The walk has not ended.
    walking: bool,
    /// Workers that are doing a batch, and so may still offer chunks.
    busy: usize,
    /// Something failed: everybody stops.
    aborted: bool,
}

impl<B, C> State<B, C> {
    /// The chunks that wait longest, `count` at most.
    fn take_chunks(&mut self, count: usize) -> Vec<C> {
        let count = count.min(self.chunks.len());
        self.chunks.drain(..count).collect()
    }
}

/// What a worker does next.
#[derive(Debug)]
pub(super) enum Job<B, C> {
    /// Entries; [`Queue::batch_done`] must follow.
    Batch(B),
    /// Chunks of large files, to be hashed together.
    Chunks(Vec<C>),
}

impl<B, C> Queue<B, C> {
    pub(super) fn new(chunks_max: usize) -> Self {
        let state = State {
            batches: VecDeque::new(),
            chunks: VecDeque::new(),
            walking: true,
            busy: 0,
            aborted: false,
        };
        Self { state: Mutex::new(state), changed: Condvar::new(), chunks_max }
    }

    fn state(&self) -> MutexGuard<'_, State<B, C>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, state: MutexGuard<'a, State<B, C>>) -> MutexGuard<'a, State<B, C>> {
        self.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a batch; waits while the queue is full. `false` when everybody stops.
    pub(super) fn push_batch(&self, batch: B) -> bool {
        let mut state = self.state();
        while state.batches.len() >= BATCHES && !state.aborted {
            state = self.wait(state);
        }
        state.batches.push_back(batch);
        self.changed.notify_all();
        !state.aborted
    }

    /// Offers a chunk to the other workers. When they have enough, it comes back with others, to be hashed together.
    pub(super) fn offer_chunk(&self, chunk: C) -> Result<(), Vec<C>> {
        let mut state = self.state();
        if state.chunks.len() >= self.chunks_max {
            let mut together = state.take_chunks(LANES - 1);
            together.push(chunk);
            return Err(together);
        }
        state.chunks.push_back(chunk);
        self.changed.notify_one();
        Ok(())
    }

    /// Waits until every batch is done. `false` when everybody stops.
    pub(super) fn settle(&self) -> bool {
        let mut state = self.state();
        while (state.busy > 0 || !state.batches.is_empty()) && !state.aborted {
            state = self.wait(state);
        }
        !state.aborted
    }

    /// The walk has ended.
    pub(super) fn end_walk(&self) {
        self.state().walking = false;
        self.changed.notify_all();
    }

    /// Everybody stops.
    pub(super) fn abort(&self) {
        self.state().aborted = true;
        self.changed.notify_all();
    }

    /// Whether everybody stops.
    pub(super) fn is_aborted(&self) -> bool {
        self.state().aborted
    }

    /// The next job; waits for one. `None` when there will be no more.
    pub(super) fn next(&self) -> Option<Job<B, C>> {
        let mut state = self.state();
        loop {
            if state.aborted {
                return None;
            }
            if !state.chunks.is_empty() {
                return Some(Job::Chunks(state.take_chunks(LANES)));
            }
            if let Some(batch) = state.batches.pop_front() {
                state.busy += 1;
                self.changed.notify_all();
                return Some(Job::Batch(batch));
            }
            if !state.walking && state.busy == 0 {
                return None;
            }
            state = self.wait(state);
        }
    }

    /// A batch is done: its worker offers no more chunks of it.
    pub(super) fn batch_done(&self) {
        self.state().busy -= 1;
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_batch_and_chunk_is_done_once_and_all_workers_end() {
        let queue = Queue::<usize, usize>::new(2);
        let (batches, chunks) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = || {
            while let Some(job) = queue.next() {
                match job {
                    Job::Batch(count) => {
                        batches.fetch_add(1, Ordering::Relaxed);
                        for chunk in 0..count {
                            let done = queue.offer_chunk(chunk).err().map_or(0, |together| together.len());
                            chunks.fetch_add(done, Ordering::Relaxed);
                        }
                        queue.batch_done();
                    }
                    Job::Chunks(together) => {
                        assert!((1..=LANES).contains(&together.len()));
                        chunks.fetch_add(together.len(), Ordering::Relaxed);
                    }
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(work);
            }
            for count in 0..200 {
                assert!(queue.push_batch(count % 7));
            }
            queue.end_walk();
        });
        assert_eq!(batches.into_inner(), 200);
        assert_eq!(chunks.into_inner(), (0..200).map(|count| count % 7).sum::<usize>());
    }

    #[test]
    fn after_an_abort_nobody_waits() {
        let queue = Queue::<usize, usize>::new(2);
        queue.abort();
        assert!(queue.next().is_none());
        assert!((0..=BATCHES).all(|batch| !queue.push_batch(batch)));
    }
}

//! Large buffers that go back to the system when they are freed, and are used again while somebody needs many of them.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// From this size on, a buffer is one of those; below, the allocator does best by itself.
const LARGE_BYTES: usize = 128 << 10;
/// glibc maps what is larger than 32 MiB (`DEFAULT_MMAP_THRESHOLD_MAX`) by itself, and unmaps it when it is freed. When it frees
/// something smaller that was mapped, it raises its threshold to that size, and keeps twice as much for itself from then on,
/// in each thread's arena: a process that once sent some segments of 16 MiB would hold 50 MB for ever.
const MAPPED_BYTES: usize = 33 << 20;

/// Buffers that wait to be used again, at most.
const SPARE: usize = 8;

/// Buffers that were given back, while somebody uses buffers again.
static SPARES: Mutex<Spares> = Mutex::new(Spares { users: 0, buffers: Vec::new() });

struct Spares {
    users: usize,
    buffers: Vec<Vec<u8>>,
}

fn spares() -> MutexGuard<'static, Spares> {
    SPARES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An empty buffer with room for so many bytes. Memory is taken as it is filled, not as it is reserved, and given back at once
/// when it is dropped.
pub fn buffer(room_bytes: usize) -> Vec<u8> {
    if room_bytes < LARGE_BYTES {
        return Vec::with_capacity(room_bytes);
    }
    let spare = spares().buffers.pop().filter(|spare| spare.capacity() >= room_bytes);
    spare.unwrap_or_else(|| Vec::with_capacity(room_bytes.max(MAPPED_BYTES)))
}

/// While one of these lives, large buffers are used again: the system clears each page that it gives, which for what a store answers
/// takes as long as decrypting it.
#[derive(Debug)]
pub struct Reuse(());

impl Reuse {
    /// From now on.
    pub fn begin() -> Self {
        spares().users += 1;
        Self(())
    }

    /// Gives a buffer back that nobody needs any more.
    pub fn give_back(&self, mut buffer: Vec<u8>) {
        let mut spares = spares();
        if buffer.capacity() >= MAPPED_BYTES && spares.buffers.len() < SPARE {
            buffer.clear();
            spares.buffers.push(buffer);
        }
    }
}

impl Drop for Reuse {
    fn drop(&mut self) {
        let mut spares = spares();
        spares.users -= 1;
        if spares.users == 0 {
            spares.buffers = Vec::new();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_given_back_is_used_again_until_nobody_needs_it() {
        let marked = |mut buffer: Vec<u8>| {
            buffer.extend_from_slice(b"from before");
            buffer
        };
        let reuse = Reuse::begin();
        let first = marked(buffer(16 << 20));
        let place = first.as_ptr();
        reuse.give_back(first);
        reuse.give_back(marked(buffer(10)));
        let again = buffer(16 << 20);
        assert_eq!((again.as_ptr(), again.len()), (place, 0));
        reuse.give_back(again);
        assert!(buffer(64 << 20).capacity() >= 64 << 20, "one that is too small is no use");
        for _ in 0..2 * SPARE {
            reuse.give_back(Vec::with_capacity(MAPPED_BYTES));
        }
        assert_eq!(spares().buffers.len(), SPARE);
        drop(reuse);
        assert!(spares().buffers.is_empty());
    }

    #[test]
    fn small_buffers_are_small_and_large_ones_are_mapped() {
        assert_eq!(buffer(0).capacity(), 0);
        assert!(buffer(LARGE_BYTES - 1).capacity() < MAPPED_BYTES);
        for room in [LARGE_BYTES, 16 << 20, MAPPED_BYTES, 40 << 20] {
            assert!(buffer(room).capacity() >= room.max(MAPPED_BYTES));
        }
    }
}

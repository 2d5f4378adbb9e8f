//! Large buffers that go back to the system when they are freed.

/// From this size on, a buffer is one of those; below, the allocator does best by itself.
const LARGE_BYTES: usize = 128 << 10;
/// glibc maps what is larger than 32 MiB (`DEFAULT_MMAP_THRESHOLD_MAX`) by itself, and unmaps it when it is freed. When it frees
/// something smaller that was mapped, it raises its threshold to that size, and keeps twice as much for itself from then on,
/// in each thread's arena: a process that once sent some segments of 16 MiB would hold 50 MB for ever.
const MAPPED_BYTES: usize = 33 << 20;

/// An empty buffer with room for so many bytes. Memory is taken as it is filled, not as it is reserved, and given back at once
/// when it is dropped.
pub fn buffer(room_bytes: usize) -> Vec<u8> {
    Vec::with_capacity(if room_bytes < LARGE_BYTES { room_bytes } else { room_bytes.max(MAPPED_BYTES) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_buffers_are_small_and_large_ones_are_mapped() {
        assert_eq!(buffer(0).capacity(), 0);
        assert!(buffer(LARGE_BYTES - 1).capacity() < MAPPED_BYTES);
        for room in [LARGE_BYTES, 16 << 20, MAPPED_BYTES, 40 << 20] {
            assert!(buffer(room).capacity() >= room.max(MAPPED_BYTES));
        }
    }
}

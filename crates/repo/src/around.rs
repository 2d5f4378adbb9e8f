//! Trees in memory that were read beside another one.

use crate::id::PackId;
use crate::store::{BlockingStore, Key, REQUEST_BYTES};
use bytes::Bytes;
use retoma_core::{Error, Result};
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The last part of a pack of trees that was read from a store that is far: a tree with what lies before it. A directory is stored behind what
/// is in it, so whoever walks down finds the next tree right before the one that leads to it.
#[derive(Debug, Default)]
pub(crate) struct Around(Mutex<Option<Part>>);

#[derive(Debug)]
struct Part {
    pack: PackId,
    start: u64,
    bytes: Bytes,
}

impl Part {
    fn get(&self, pack: PackId, range: &Range<u64>) -> Option<Bytes> {
        let from = usize::try_from(range.start.checked_sub(self.start)?).ok()?;
        let to = usize::try_from(range.end.checked_sub(self.start)?).ok()?;
        (self.pack == pack && from <= to && to <= self.bytes.len()).then(|| self.bytes.slice(from..to))
    }
}

impl Around {
    fn last(&self) -> MutexGuard<'_, Option<Part>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads these bytes of the pack `pack`, which is at `key`.
    ///
    /// # Errors
    /// As [`BlockingStore::get_range`].
    pub(crate) fn read(
        &self,
        store: &BlockingStore,
        pack: PackId,
        key: &Key,
        range: Range<u64>,
    ) -> Result<Bytes> {
        if !store.store().capabilities().far {
            return store.get_range(key, range);
        }
        if let Some(found) = self.last().as_ref().and_then(|part| part.get(pack, &range)) {
            return Ok(found);
        }
        let start = range.start.saturating_sub(REQUEST_BYTES.into());
        let part = Part { pack, start, bytes: store.get_range(key, start..range.end)? };
        let found = part.get(pack, &range);
        *self.last() = Some(part);
        found.ok_or_else(|| Error::internal(format!("`{key}` is shorter than the store says")))
    }

    /// What was read is no good: the store is asked again.
    pub(crate) fn forget(&self) {
        *self.last() = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part() -> Part {
        Part { pack: PackId([1; 32]), start: 100, bytes: Bytes::from_static(b"abcdef") }
    }

    #[test]
    fn a_part_gives_what_lies_in_it_and_nothing_else() {
        let get = |range: Range<u64>| part().get(PackId([1; 32]), &range);
        assert_eq!(get(100..106).unwrap(), "abcdef");
        assert_eq!(get(102..104).unwrap(), "cd");
        assert_eq!(get(99..104), None);
        assert_eq!(get(102..107), None);
        assert_eq!(get(Range { start: 104, end: 102 }), None);
        assert_eq!(part().get(PackId([2; 32]), &(102..104)), None, "another pack");
    }
}

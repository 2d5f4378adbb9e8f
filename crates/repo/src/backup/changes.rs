//! How much of what the parent snapshot has changed, counted beside a backup: what `decide::mass_change` decides from.
//!
//! Nothing is read for it from the source. What the parent had is looked up in its trees and in the index.

use crate::crypto::OVERHEAD_BYTES;
use crate::format::BlobKind;
use crate::format::tree::{Node, NodeKind};
use crate::id::BlobId;
use crate::index::Index;
use retoma_core::decide::mass_change::{Counts, Finding};
use std::sync::PoisonError;
use std::sync::RwLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// What looks like mass change, in a snapshot that has the tag.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MassChange {
    /// What was found; at least one.
    pub findings: Vec<Finding>,
    /// What it was decided from.
    pub counts: Counts,
}

/// The counts of one backup, by all its threads.
#[derive(Debug, Default)]
pub(super) struct Changes {
    files_before: AtomicU64,
    bytes_before: AtomicU64,
    files_changed: AtomicU64,
    files_gone: AtomicU64,
    bytes_gone: AtomicU64,
    redundant_gone_bytes: AtomicU64,
    dense_new_bytes: AtomicU64,
}

/// How much of some contents can be compressed away, and how much not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Weight {
    redundant: u64,
    dense: u64,
    /// Dense bytes that the repository did not know.
    fresh: u64,
}

impl Weight {
    fn of(plain_bytes: u64, sealed_bytes: u64) -> Self {
        let dense = sealed_bytes.saturating_sub(OVERHEAD_BYTES as u64).min(plain_bytes);
        Self { redundant: plain_bytes - dense, dense, fresh: 0 }
    }

    /// Of a blob that was stored just now.
    pub(super) fn stored(plain: &[u8], sealed: &[u8]) -> Self {
        let weight = Self::of(plain.len() as u64, sealed.len() as u64);
        Self { fresh: weight.dense, ..weight }
    }

    /// Of a blob that the index knows. One that is under way in this backup counts where it came first, and here nothing.
    pub(super) fn known(index: &Index, id: &BlobId) -> Self {
        let location = index.get(BlobKind::Data, id);
        location.map_or(Self::default(), |found| {
            Self::of(found.blob.plaintext_bytes(), found.blob.length_bytes.into())
        })
    }

    /// Of zeros.
    pub(super) fn zeros(bytes: u64) -> Self {
        Self { redundant: bytes, ..Self::default() }
    }

    pub(super) fn add(&mut self, other: Self) {
        self.redundant = self.redundant.saturating_add(other.redundant);
        self.dense = self.dense.saturating_add(other.dense);
        self.fresh = self.fresh.saturating_add(other.fresh);
    }

    fn of_contents(index: &RwLock<Index>, node: &Node) -> Self {
        let index = index.read().unwrap_or_else(PoisonError::into_inner);
        let mut weight = Self::default();
        for id in &node.content {
            weight.add(Self::known(&index, id));
        }
        weight
    }
}

fn add(counter: &AtomicU64, count: u64) {
    counter.fetch_add(count, Ordering::Relaxed);
}

impl Changes {
    /// A file of the parent, whatever became of it.
    pub(super) fn before(&self, known: &Node) {
        add(&self.files_before, 1);
        add(&self.bytes_before, known.size_bytes);
    }

    /// A file of the parent that is not in this snapshot.
    pub(super) fn gone(&self, index: &RwLock<Index>, known: &Node) {
        add(&self.files_gone, 1);
        add(&self.bytes_gone, known.size_bytes);
        add(&self.redundant_gone_bytes, Weight::of_contents(index, known).redundant);
    }

    /// A file that was read, and what the parent has at its path.
    pub(super) fn read(&self, index: &RwLock<Index>, known: Option<&Node>, node: &Node, weight: Weight) {
        let Some(known) = known.filter(|known| known.kind == NodeKind::File) else {
            return add(&self.dense_new_bytes, weight.fresh);
        };
        if known.content == node.content {
            return;
        }
        let was = Weight::of_contents(index, known);
        add(&self.files_changed, 1);
        add(&self.redundant_gone_bytes, was.redundant.saturating_sub(weight.redundant));
        add(&self.dense_new_bytes, weight.dense.saturating_sub(was.dense));
    }

    /// The counts, when all threads have ended.
    pub(super) fn counts(&self) -> Counts {
        let of = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            files_before: of(&self.files_before),
            bytes_before: of(&self.bytes_before),
            files_changed: of(&self.files_changed),
            files_gone: of(&self.files_gone),
            bytes_gone: of(&self.bytes_gone),
            redundant_gone_bytes: of(&self.redundant_gone_bytes),
            dense_new_bytes: of(&self.dense_new_bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_no_less_room_is_dense() {
        let of = |plain, sealed| {
            let weight = Weight::of(plain, sealed);
            (weight.redundant, weight.dense)
        };
        assert_eq!(of(1000, 1032), (0, 1000));
        assert_eq!(of(1000, 332), (700, 300));
        assert_eq!(of(1000, 2000), (0, 1000));
        assert_eq!(of(0, 32), (0, 0));
        // No length of an index makes it panic.
        assert_eq!(of(1000, 0), (1000, 0));
    }
}

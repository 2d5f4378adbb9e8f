//! Which keys are compared one by one.

use crate::redis::crc64;
use std::collections::BTreeMap;

/// A key as the data set has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// The number of its database.
    pub database: u64,
    /// Its name.
    pub key: Vec<u8>,
    /// Its type, as `TYPE` says it; `module` for a module's own.
    pub kind: &'static str,
    /// The number of its encoding.
    pub encoding: u8,
    /// When it expires (Unix, in milliseconds).
    pub expires_ms: Option<u64>,
    /// Its encoded value; `None` for one that is too long to be kept.
    pub value: Option<Vec<u8>>,
}

/// A key's sum, its database and its name.
type Rank = (u64, u64, Vec<u8>);

/// How many keys of each type are sampled. Those are taken whose names have the smallest sums: any key may be among
/// them, and each time the same ones.
#[derive(Debug, Default)]
pub struct Sampling {
    per_type: usize,
    taken: BTreeMap<&'static str, BTreeMap<Rank, Sample>>,
}

impl Sampling {
    /// The longest encoded value that is kept, in bytes.
    pub const VALUE_BYTES: usize = 256 << 10;

    /// So many of each type.
    pub fn new(per_type: usize) -> Self {
        Self { per_type, taken: BTreeMap::new() }
    }

    pub(super) fn wants_names(&self) -> bool {
        self.per_type > 0
    }

    fn rank(database: u64, key: &[u8]) -> Rank {
        (crc64::update(0, key), database, key.to_vec())
    }

    pub(super) fn wants(&self, kind: &str, database: u64, key: &[u8]) -> bool {
        let Some(taken) = self.taken.get(kind) else { return self.per_type > 0 };
        let last = taken.last_key_value().map(|(rank, _)| rank);
        taken.len() < self.per_type || last.is_some_and(|last| Self::rank(database, key) < *last)
    }

    pub(super) fn take(&mut self, sample: Sample) {
        let taken = self.taken.entry(sample.kind).or_default();
        taken.insert(Self::rank(sample.database, &sample.key), sample);
        while taken.len() > self.per_type {
            taken.pop_last();
        }
    }

    pub(super) fn finish(self) -> Vec<Sample> {
        self.taken.into_values().flat_map(BTreeMap::into_values).collect()
    }
}

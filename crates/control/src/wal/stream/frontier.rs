//! How far a repository has the WAL of a timeline without a gap.

use retoma_core::postgres::Lsn;
use std::collections::BTreeMap;

/// Everything before a position is durable, and some stretches behind it, since whole segments and parts are stored at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frontier {
    durable: Lsn,
    /// Stretches behind `durable`, by where they begin.
    ahead: BTreeMap<Lsn, Lsn>,
}

impl Frontier {
    pub(super) fn new(durable: Lsn) -> Self {
        Self { durable, ahead: BTreeMap::new() }
    }

    /// Everything before this is durable.
    pub(super) fn durable(&self) -> Lsn {
        self.durable
    }

    /// `[from, to)` is durable.
    pub(super) fn add(&mut self, from: Lsn, to: Lsn) {
        let end = self.ahead.entry(from).or_insert(to);
        *end = (*end).max(to);
        while let Some((&from, &to)) = self.ahead.first_key_value()
            && from <= self.durable
        {
            self.durable = self.durable.max(to);
            self.ahead.remove(&from);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn durable_is_what_joins_from_the_beginning(
            start in 0u64..10, stretches in prop::collection::vec((0u64..60, 1u64..12), 0..30),
        ) {
            let mut frontier = Frontier::new(Lsn(start));
            let mut bytes = [false; 80];
            for (from, length) in stretches {
                frontier.add(Lsn(from), Lsn(from + length));
                (from..from + length).for_each(|at| bytes[usize::try_from(at).unwrap()] = true);
                let begin = usize::try_from(start).unwrap();
                let joined = bytes[begin..].iter().take_while(|is_there| **is_there).count() as u64;
                prop_assert_eq!(frontier.durable(), Lsn(start + joined));
            }
        }
    }
}

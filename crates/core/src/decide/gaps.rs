//! What lies behind a server's newest snapshot and cannot be recovered: since when a backup is needed that begins behind it.
//!
//! Invariant: the same things never ask twice. A backup that did not close a gap will not do so the next time, and a full one each
//! time that somebody looks would be worse than the gap.

use jiff::Timestamp;
use std::collections::BTreeSet;

/// Things that are open, by names that stay the same from one look to the next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Open<T> {
    /// What is open.
    pub what: BTreeSet<T>,
    /// A backup that begins after this is behind all of it, if a backup closes it at all.
    pub since: Timestamp,
}

/// What is open when a look at `looked` found `found`, and `before` was open. `None` when nothing is.
pub fn open<T: Ord>(before: Option<&Open<T>>, found: BTreeSet<T>, looked: Timestamp) -> Option<Open<T>> {
    if found.is_empty() {
        return None;
    }
    let since = before.filter(|before| found.is_subset(&before.what) && before.since <= looked);
    Some(Open { since: since.map_or(looked, |before| before.since), what: found })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::schedule::{Class, Known, Places, Task, plan};
    use crate::units::Duration;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn set(names: &[&'static str]) -> BTreeSet<&'static str> {
        names.iter().copied().collect()
    }

    #[test]
    fn what_is_still_open_is_open_since_it_was_first_seen() {
        let first = open(None, set(&["a", "b"]), at(10)).unwrap();
        assert_eq!(first.since, at(10));
        assert_eq!(open(Some(&first), set(&["a"]), at(20)).unwrap().since, at(10), "one is closed");
        assert_eq!(open(Some(&first), set(&["a", "c"]), at(20)).unwrap().since, at(20), "one is new");
        assert_eq!(open(Some(&first), set(&["a"]), at(5)).unwrap().since, at(5), "the clock was put back");
        assert_eq!(open(Some(&first), set(&[]), at(20)), None);
    }

    #[test]
    fn a_gap_that_no_backup_closes_asks_for_one_backup() {
        let task = Task { every: Duration::from_seconds(86_400), class: Class::Backup, rank: 0, seed: 1 };
        let places = Places { backups: 2, copies: 1, maintenance: 1 };
        let mut known = Known::new(at(0));
        known.begin();
        known.end(at(0), at(1), crate::decide::schedule::Ended::Good);
        let (mut before, mut backups) = (None, Vec::new());
        // A look every five minutes, for six hours; a second gap after four.
        for look in 1..72 {
            let found = if look < 48 { set(&["a"]) } else { set(&["a", "b"]) };
            before = open(before.as_ref(), found, at(look * 300));
            known.needed_since = before.as_ref().map(|open| open.since);
            let now = at(look * 300 + 1);
            if !plan(std::slice::from_ref(&task), &[known], places, now).start.is_empty() {
                backups.push(look);
                known.begin();
                known.end(now, now, crate::decide::schedule::Ended::Good);
            }
        }
        assert_eq!(backups, [1, 48]);
    }
}

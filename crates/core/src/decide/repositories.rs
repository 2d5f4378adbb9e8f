//! Which of several repositories a restore reads: those that are as new as any other, local ones first. `docs/repositories.md`.
//!
//! Whether one is complete costs a look at all its packs; so the order is decided first, and who looks takes the first that is
//! complete.

use jiff::{SignedDuration, Timestamp};
use std::cmp::Reverse;
use std::collections::BTreeMap;

/// Snapshots whose times are no further apart count as equally new: a backup into several repositories makes one after the other.
pub const AS_NEW: SignedDuration = SignedDuration::from_mins(1);

/// What is known of a repository that could be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Whether it lies on this machine.
    pub is_local: bool,
    /// When the newest wanted snapshot of each component began.
    pub newest: BTreeMap<String, Timestamp>,
}

/// The candidates that are as new as any other for most components, best first, by their places in the list.
pub fn order(candidates: &[Candidate]) -> Vec<usize> {
    let newest = newest(candidates);
    let is_as_new = |candidate: &Candidate, (name, newest): (&&str, &Timestamp)| {
        candidate.newest.get(*name).is_some_and(|time| newest.duration_since(*time) <= AS_NEW)
    };
    let score = |at: &usize| newest.iter().filter(|it| is_as_new(&candidates[*at], *it)).count();
    let best = (0..candidates.len()).map(|at| score(&at)).max().unwrap_or(0);
    let mut order: Vec<usize> = (0..candidates.len()).filter(|at| score(at) == best).collect();
    order.sort_by_key(|at| (Reverse(candidates[*at].is_local), *at));
    order
}

/// The components of which another candidate has a newer snapshot than `chosen`, each with that candidate's place.
pub fn newer_elsewhere(candidates: &[Candidate], chosen: usize) -> Vec<(String, usize)> {
    let is_behind = |(name, newest): (&str, Timestamp)| {
        let own = candidates.get(chosen)?.newest.get(name);
        if own.is_some_and(|time| newest.duration_since(*time) <= AS_NEW) {
            return None;
        }
        let holder = candidates.iter().position(|it| it.newest.get(name) == Some(&newest))?;
        Some((name.to_owned(), holder))
    };
    newest(candidates).into_iter().filter_map(is_behind).collect()
}

fn newest(candidates: &[Candidate]) -> BTreeMap<&str, Timestamp> {
    let mut newest: BTreeMap<&str, Timestamp> = BTreeMap::new();
    for (name, time) in candidates.iter().flat_map(|candidate| &candidate.newest) {
        let known = newest.entry(name).or_insert(*time);
        *known = (*known).max(*time);
    }
    newest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A candidate from the seconds of its components' snapshots.
    fn candidate(is_local: bool, newest: &[(&str, i64)]) -> Candidate {
        let time = |seconds| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        let newest = newest.iter().map(|(name, seconds)| ((*name).to_owned(), time(*seconds)));
        Candidate { is_local, newest: newest.collect() }
    }

    #[test]
    fn the_newest_comes_before_what_is_near() {
        let far = candidate(false, &[("a", 3600)]);
        let near = candidate(true, &[("a", 0)]);
        assert_eq!(order(&[near.clone(), far.clone()]), [1]);
        assert_eq!(newer_elsewhere(&[near.clone(), far.clone()], 0), [("a".to_owned(), 1)]);
        assert_eq!(newer_elsewhere(&[near, far], 1), []);
    }

    #[test]
    fn of_those_that_are_as_new_the_local_ones_come_first_then_the_order_of_the_list() {
        let all = [
            candidate(false, &[("a", 60)]),
            candidate(true, &[("a", 0)]),
            candidate(false, &[("a", 60)]),
            candidate(true, &[("a", 59)]),
            candidate(true, &[("a", -1)]),
        ];
        assert_eq!(order(&all), [1, 3, 0, 2]);
        assert_eq!(newer_elsewhere(&all, 1), []);
    }

    #[test]
    fn what_has_most_components_as_new_wins_and_the_rest_is_named() {
        let all = [
            candidate(true, &[("a", 0), ("b", 900)]),
            candidate(false, &[("a", 900), ("b", 900), ("c", 0)]),
            candidate(true, &[("c", 900)]),
            candidate(true, &[]),
        ];
        assert_eq!(order(&all), [1]);
        assert_eq!(newer_elsewhere(&all, 1), [("c".to_owned(), 2)]);
        let names =
            |chosen| newer_elsewhere(&all, chosen).into_iter().map(|(name, _)| name).collect::<Vec<_>>();
        assert_eq!(names(3), ["a", "b", "c"]);
        assert_eq!(names(0), ["a", "c"]);
    }

    #[test]
    fn without_any_snapshot_all_are_equal() {
        let all = [candidate(false, &[]), candidate(true, &[])];
        assert_eq!(order(&all), [1, 0]);
        assert_eq!(order(&[]), [] as [usize; 0]);
    }
}

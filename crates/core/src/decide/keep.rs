//! Which WAL is still needed: from the start of each snapshot on, along the timelines that can be reached from it.

use crate::postgres::{Lsn, TimelineHistory, TimelineId};
use std::collections::BTreeMap;

/// A snapshot, as far as it needs WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Need {
    /// The timeline of its backup.
    pub timeline: TimelineId,
    /// WAL is needed from here on.
    pub start: Lsn,
}

/// Positions, by timeline: nobody needs what lies before.
pub type Floors = BTreeMap<TimelineId, Lsn>;

/// The floor of each timeline of `stored` that has one. Without a snapshot none has: there is nothing to compare with. Neither
/// has a timeline whose history is not known, nor the newest one before a snapshot leads to it.
pub fn floors(
    needs: &[Need],
    histories: &BTreeMap<TimelineId, TimelineHistory>,
    stored: impl IntoIterator<Item = TimelineId>,
) -> Floors {
    let stored: Vec<TimelineId> = stored.into_iter().collect();
    let newest = stored.iter().max().copied();
    if needs.is_empty() {
        return Floors::new();
    }
    let floor = |timeline: TimelineId| {
        let history = histories.get(&timeline)?;
        let leads_here = |need: &&Need| {
            need.timeline == timeline
                || history.switch_of(need.timeline).is_some_and(|left| need.start < left)
        };
        let lowest = needs.iter().filter(leads_here).map(|need| need.start).min();
        lowest.or((Some(timeline) != newest).then_some(Lsn(u64::MAX)))
    };
    stored.into_iter().filter_map(|timeline| Some((timeline, floor(timeline)?))).collect()
}

/// What was not needed at either time.
pub fn lower(one: &Floors, other: &Floors) -> Floors {
    one.iter().filter_map(|(timeline, lsn)| Some((*timeline, *lsn.min(other.get(timeline)?)))).collect()
}

/// Whether `now` lets go of more than `before` did.
pub fn is_less_needed(now: &Floors, before: &Floors) -> bool {
    now.iter().any(|(timeline, lsn)| before.get(timeline).is_none_or(|before| lsn > before))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn timeline(number: u32) -> TimelineId {
        TimelineId::new(number).unwrap()
    }

    fn need(number: u32, start: u64) -> Need {
        Need { timeline: timeline(number), start: Lsn(start) }
    }

    /// 1 ─▶ 2 at 0x100 ─▶ 3 at 0x200, and 1 ─▶ 4 at 0x50.
    fn histories() -> BTreeMap<TimelineId, TimelineHistory> {
        let parse =
            |number, text| (timeline(number), TimelineHistory::parse(timeline(number), text).unwrap());
        BTreeMap::from([
            (timeline(1), TimelineHistory::first()),
            parse(2, "1\t0/100\tx\n"),
            parse(3, "1\t0/100\tx\n2\t0/200\tx\n"),
            parse(4, "1\t0/50\tx\n"),
        ])
    }

    fn found(needs: &[Need], stored: &[u32]) -> Vec<(u32, u64)> {
        let stored = stored.iter().map(|number| timeline(*number));
        floors(needs, &histories(), stored).into_iter().map(|(id, lsn)| (id.get(), lsn.0)).collect()
    }

    #[test]
    fn a_snapshot_needs_its_timeline_and_those_that_leave_it_later() {
        const NOBODY: u64 = u64::MAX;
        assert_eq!(found(&[], &[1, 2, 3]), []);
        assert_eq!(found(&[need(1, 0x60)], &[1, 2, 3]), [(1, 0x60), (2, 0x60), (3, 0x60)]);
        // It begins behind the point where 4 left: 4 is no way for it, but the newest one, which stays.
        assert_eq!(found(&[need(1, 0x60)], &[1, 2, 3, 4]), [(1, 0x60), (2, 0x60), (3, 0x60)]);
        assert_eq!(found(&[need(1, 0x40)], &[1, 4]), [(1, 0x40), (4, 0x40)]);
        assert_eq!(found(&[need(2, 0x150)], &[1, 2, 3]), [(1, NOBODY), (2, 0x150), (3, 0x150)]);
        assert_eq!(found(&[need(2, 0x250)], &[1, 2, 3]), [(1, NOBODY), (2, 0x250)]);
        assert_eq!(found(&[need(2, 0x150), need(1, 0x60)], &[1, 2]), [(1, 0x60), (2, 0x60)]);
        // Exactly where it was left, the next one begins.
        assert_eq!(found(&[need(1, 0x100)], &[1, 2, 3]), [(1, 0x100), (2, NOBODY)]);
    }

    #[test]
    fn what_is_not_known_stays() {
        assert_eq!(found(&[need(1, 0x60)], &[1, 7, 8]), [(1, 0x60)]);
    }

    #[test]
    fn only_what_was_not_needed_at_both_times_goes() {
        let of = |floors: &[(u32, u64)]| -> Floors {
            floors.iter().map(|(number, lsn)| (timeline(*number), Lsn(*lsn))).collect()
        };
        assert_eq!(
            lower(&of(&[(1, 5), (2, 9), (3, 1)]), &of(&[(1, 7), (2, 3), (4, 1)])),
            of(&[(1, 5), (2, 3)])
        );
        assert!(is_less_needed(&of(&[(1, 6)]), &of(&[(1, 5)])));
        assert!(is_less_needed(&of(&[(2, 1)]), &of(&[(1, 5)])));
        assert!(!is_less_needed(&of(&[(1, 5)]), &of(&[(1, 5), (2, 8)])));
        assert!(!is_less_needed(&of(&[(1, 4)]), &of(&[(1, 5)])));
    }

    proptest! {
        #[test]
        fn one_snapshot_more_never_lets_go_of_more(
            needs in prop::collection::vec((1u32..5, 0u64..0x300), 1..6), more in (1u32..5, 0u64..0x300),
        ) {
            let needs: Vec<Need> = needs.into_iter().map(|(on, start)| need(on, start)).collect();
            let all = [1, 2, 3, 4].map(timeline);
            let before = floors(&needs, &histories(), all);
            let after = floors(&[needs, vec![need(more.0, more.1)]].concat(), &histories(), all);
            for (on, floor) in &after {
                prop_assert!(before.get(on).is_none_or(|before| floor <= before));
                // The newest one only gets a floor when a snapshot leads to it.
                prop_assert!(before.contains_key(on) || *on == timeline(4));
            }
            // What any of them needs is never below its floor.
            prop_assert!(after.get(&timeline(more.0)).is_some_and(|floor| floor.0 <= more.1));
        }
    }
}

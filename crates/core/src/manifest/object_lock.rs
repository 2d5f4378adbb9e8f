//! How long a repository's objects are locked in the bucket: `lock_days` and `lock_mode`. `docs/immutability.md`.

use jiff::{SignedDuration, Timestamp};

/// The names of [`LockMode`]'s values, in their order.
pub(super) const MODES: [&str; 2] = ["compliance", "governance"];

/// The longest lock, in days: what was locked by mistake is paid for until it ends.
pub(super) const LONGEST_DAYS: i64 = 3650;

/// Who may take a lock away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LockMode {
    /// Nobody, before it ends.
    #[default]
    Compliance,
    /// Who has a special right.
    Governance,
}

impl LockMode {
    /// The name in the manifest.
    pub fn as_str(self) -> &'static str {
        MODES[self as usize]
    }

    /// The mode of this name.
    pub(super) fn from_name(name: &str) -> Option<Self> {
        [Self::Compliance, Self::Governance].into_iter().find(|mode| mode.as_str() == name)
    }
}

/// The lock that each object gets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObjectLock {
    /// Whatever a kept snapshot needs is locked for so many days more, at any time.
    pub days: u32,
    /// Who may take it away.
    pub mode: LockMode,
}

impl ObjectLock {
    /// Days that a lock lasts beyond [`ObjectLock::days`], so that not every run has to renew all.
    pub fn margin_days(self) -> u32 {
        self.days.div_ceil(4).max(2)
    }

    /// Until when an object is locked that is written or renewed at `now`.
    pub fn until(self, now: Timestamp) -> Timestamp {
        later(now, i64::from(self.days) + i64::from(self.margin_days()))
    }

    /// Whether a lock that ends at `end` (or none) must be renewed at `now`: less than a day more is left than promised.
    pub fn is_due(self, end: Option<Timestamp>, now: Timestamp) -> bool {
        end.is_none_or(|end| end < later(now, i64::from(self.days) + 1))
    }
}

fn later(time: Timestamp, days: i64) -> Timestamp {
    time.checked_add(SignedDuration::from_hours(24 * days)).unwrap_or(Timestamp::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A run each day renews what is due; whatever is left at any moment is at least what was promised.
    #[test]
    fn renewed_once_a_day_a_lock_never_has_less_than_its_days_left() {
        for days in [1, 2, 7, 14, 30, 365] {
            let lock = ObjectLock { days, mode: LockMode::Compliance };
            let start = Timestamp::from_second(1_800_000_000).unwrap();
            let (mut end, mut renewals) = (lock.until(start), 0);
            for day in 1..=1000 {
                let now = later(start, day);
                assert!(end >= later(now, i64::from(days)), "{days} days, on day {day}");
                if lock.is_due(Some(end), now) {
                    (end, renewals) = (lock.until(now), renewals + 1);
                }
            }
            assert!(
                renewals > 0 && renewals <= 1000 / (i64::from(lock.margin_days()) - 1),
                "{days}: {renewals}"
            );
            assert!(lock.is_due(None, start));
        }
    }
}

//! Hours, days, ISO weeks, months and years of a time zone.

use jiff::{Timestamp, Zoned, tz::TimeZone};
use std::fmt;

/// A rule that keeps the newest snapshot of each period.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rule {
    Last,
    Hourly,
    Daily,
    Weekly,
    Monthly,
    Yearly,
}

/// One period. The number tells apart what looks the same: the two hours 01:00 of the night when clocks go back.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Period {
    name: String,
    number: i64,
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl Rule {
    pub(super) const ALL: [Self; 6] =
        [Self::Last, Self::Hourly, Self::Daily, Self::Weekly, Self::Monthly, Self::Yearly];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Last => "last",
            Self::Hourly => "hourly",
            Self::Daily => "daily",
            Self::Weekly => "weekly",
            Self::Monthly => "monthly",
            Self::Yearly => "yearly",
        }
    }

    /// The period of a snapshot made at `time`; for [`Rule::Last`], every `place` is a period of its own.
    pub(super) fn period(self, time: Timestamp, place: usize, zone: &TimeZone) -> Period {
        let local = time.to_zoned(zone.clone());
        let (name, number) = match self {
            Self::Last => (String::new(), i64::try_from(place).unwrap_or(i64::MAX)),
            Self::Hourly => (format!("{} {:02}:00", local.date(), local.hour()), offset(&local)),
            Self::Daily => (local.date().to_string(), 0),
            Self::Weekly => {
                let week = local.date().iso_week_date();
                (format!("{:04}-W{:02}", week.year(), week.week()), 0)
            }
            Self::Monthly => (format!("{:04}-{:02}", local.year(), local.month()), 0),
            Self::Yearly => (format!("{:04}", local.year()), 0),
        };
        Period { name, number }
    }
}

fn offset(local: &Zoned) -> i64 {
    i64::from(local.offset().seconds())
}

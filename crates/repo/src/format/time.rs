//! Points in time as restic writes them: RFC 3339 with nanoseconds and an offset.

use jiff::{Timestamp, Zoned, tz::TimeZone};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A point in time, in nanoseconds since 1970 (negative before). Written in UTC, read with any offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(pub Timestamp);

/// Go's zero time, which restic writes where there is none.
const GO_ZERO: &str = "0001-01-01T00:00:00Z";

impl Time {
    /// From seconds and nanoseconds since 1970, as `stat` gives them; out of range becomes the nearest bound.
    pub fn from_unix(seconds: i64, nanoseconds: i64) -> Self {
        let nanoseconds = i32::try_from(nanoseconds.clamp(0, 999_999_999)).unwrap_or(0);
        let limit = |seconds: i64| if seconds < 0 { Timestamp::MIN } else { Timestamp::MAX };
        Self(Timestamp::new(seconds, nanoseconds).unwrap_or_else(|_| limit(seconds)))
    }

    /// Seconds and nanoseconds since 1970, nanoseconds never negative, as `utimensat` takes them.
    pub fn to_unix(self) -> (i64, i64) {
        let total = self.0.as_nanosecond();
        let seconds = total.div_euclid(1_000_000_000);
        let nanoseconds = total.rem_euclid(1_000_000_000);
        (i64::try_from(seconds).unwrap_or(i64::MAX), i64::try_from(nanoseconds).unwrap_or(0))
    }

    /// Reads RFC 3339; `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        text.parse::<Timestamp>().ok().map(Self)
    }

    /// With the offset of `zone`, as restic shows local time.
    pub fn zoned(self, zone: TimeZone) -> Zoned {
        self.0.to_zoned(zone)
    }
}

impl Default for Time {
    fn default() -> Self {
        Self::parse(GO_ZERO).unwrap_or(Self(Timestamp::UNIX_EPOCH))
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl serde::de::Visitor<'_> for Visitor {
            type Value = Time;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a time such as 2026-01-31T12:00:00.5Z")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Time, E> {
                Time::parse(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Visitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn unix_times_round_trip(seconds in -60_000_000_000i64..250_000_000_000, nanoseconds in 0i64..1_000_000_000) {
            let time = Time::from_unix(seconds, nanoseconds);
            prop_assert_eq!(time.to_unix(), (seconds, nanoseconds));
            prop_assert_eq!(Time::parse(&time.0.to_string()), Some(time));
        }
    }

    #[test]
    fn offsets_are_understood() {
        let text = "2026-08-01T10:00:00.123456789+02:00";
        assert_eq!(Time::parse(text), Time::parse("2026-08-01T08:00:00.123456789Z"));
        assert_eq!(Time::default().0.to_string(), "0001-01-01T00:00:00Z");
    }

    #[test]
    fn times_out_of_range_become_the_nearest_bound() {
        assert_eq!(Time::from_unix(i64::MAX, 0).0, Timestamp::MAX);
        assert_eq!(Time::from_unix(i64::MIN, 0).0, Timestamp::MIN);
    }
}

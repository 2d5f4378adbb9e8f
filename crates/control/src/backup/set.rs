//! A recovery set: components that come back together, and how far apart the moments are that they show.

use jiff::Timestamp;
use serde::Serialize;

/// One component's moment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Point {
    /// The component.
    pub component: String,
    /// Its data are as of this time.
    pub time: Timestamp,
}

/// Components with their moments.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct RecoverySet {
    /// The latest moment of all: a server with WAL can be brought there, the others are there or a little before.
    pub common_point: Timestamp,
    /// The earliest one.
    pub earliest: Timestamp,
    /// Between the two.
    pub skew_seconds: f64,
    /// Each component's.
    pub points: Vec<Point>,
}

impl RecoverySet {
    /// The set of these components; `None` for none.
    pub fn of(points: Vec<Point>) -> Option<Self> {
        let common_point = points.iter().map(|point| point.time).max()?;
        let earliest = points.iter().map(|point| point.time).min()?;
        let skew_seconds = common_point.duration_since(earliest).as_secs_f64();
        Some(Self { common_point, earliest, skew_seconds, points })
    }

    /// A line for people.
    pub fn in_words(&self) -> String {
        format!(
            "recovery set: {} components as of {}, {:.2} s apart",
            self.points.len(),
            self.common_point.strftime("%Y-%m-%dT%H:%M:%S%.3fZ"),
            self.skew_seconds
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_skew_is_between_the_earliest_and_the_latest() {
        let point = |component: &str, millis: i64| Point {
            component: component.to_owned(),
            time: Timestamp::from_millisecond(1_000_000 + millis).unwrap(),
        };
        assert_eq!(RecoverySet::of(Vec::new()), None);
        let set = RecoverySet::of(vec![point("db", 2500), point("cache", 0), point("files", 100)]).unwrap();
        assert!((set.skew_seconds - 2.5).abs() < 1e-9, "{set:?}");
        assert_eq!((set.common_point, set.earliest), (point("db", 2500).time, point("x", 0).time));
        assert_eq!(set.in_words(), "recovery set: 3 components as of 1970-01-01T00:16:42.500Z, 2.50 s apart");
        assert!(RecoverySet::of(vec![point("db", 7)]).unwrap().skew_seconds.abs() < f64::EPSILON);
    }
}

//! A time span in seconds with an exact decimal form.

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::time::Duration;

const MICROS: u64 = 1_000_000;

/// A time span of whole microseconds. It is written as a decimal number of seconds that is exact to its last digit,
/// so that spans that add up in memory also add up on paper.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Seconds(u64);

impl Seconds {
    /// No time at all.
    pub const ZERO: Self = Self(0);
    /// The longest span, almost 32 years: up to here a JSON number keeps every microsecond.
    pub const MAX: Self = Self(999_999_999 * MICROS + 999_999);

    /// From microseconds; more than [`Seconds::MAX`] becomes that.
    pub const fn from_micros(micros: u64) -> Self {
        if micros > Self::MAX.0 { Self::MAX } else { Self(micros) }
    }

    /// From whole seconds; more than [`Seconds::MAX`] becomes that.
    pub const fn from_secs(seconds: u64) -> Self {
        Self::from_micros(seconds.saturating_mul(MICROS))
    }

    /// From a `Duration`; parts of a microsecond are dropped.
    pub fn from_duration(duration: Duration) -> Self {
        Self::from_micros(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX))
    }

    /// In microseconds.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Rounded to the nearest millisecond.
    pub const fn as_millis_rounded(self) -> u64 {
        (self.0 + 500) / 1000
    }

    /// The sum, at most [`Seconds::MAX`].
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self::from_micros(self.0.saturating_add(other.0))
    }

    /// The difference; zero when `other` is longer.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// The share of `whole` that this is, as a number from 0 to 1; 0 when `whole` is zero.
    pub fn share_of(self, whole: Self) -> f64 {
        if whole.0 == 0 { 0.0 } else { (self.as_f64() / whole.as_f64()).clamp(0.0, 1.0) }
    }

    #[allow(clippy::cast_precision_loss)] // Below 2^53 by construction.
    fn as_f64(self) -> f64 {
        self.0 as f64
    }
}

impl fmt::Display for Seconds {
    /// The decimal, without trailing zeros: `4.25`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, micros) = (self.0 / MICROS, self.0 % MICROS);
        if micros == 0 {
            return write!(f, "{whole}");
        }
        let digits = format!("{micros:06}");
        write!(f, "{whole}.{}", digits.trim_end_matches('0'))
    }
}

impl Serialize for Seconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        // At most 15 significant digits: the nearest `f64` prints as exactly these.
        #[allow(clippy::cast_precision_loss)]
        serializer.serialize_f64(self.as_f64() / MICROS as f64)
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = f64::deserialize(deserializer)?;
        #[allow(clippy::cast_precision_loss)]
        let micros = (seconds * MICROS as f64).round();
        #[allow(clippy::cast_precision_loss)]
        if !(0.0..=Self::MAX.0 as f64).contains(&micros) {
            return Err(serde::de::Error::custom(
                "a number of seconds must be between 0 and 999999999.999999",
            ));
        }
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // In range, as just checked.
        Ok(Self(micros as u64))
    }
}

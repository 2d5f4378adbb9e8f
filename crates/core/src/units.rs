//! Numbers with their unit, as people write and read them.

use std::fmt;
use std::str::FromStr;

/// A number of bytes; printed with binary units.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ByteSize(pub u64);

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
        if self.0 < 1024 {
            return write!(f, "{} B", self.0);
        }
        #[allow(clippy::cast_precision_loss)]
        let mut value = self.0 as f64 / 1024.0;
        let mut unit = 0;
        while value >= 1024.0 && unit + 1 < UNITS.len() {
            value /= 1024.0;
            unit += 1;
        }
        write!(f, "{value:.1} {}", UNITS[unit])
    }
}

/// A number with what it counts, in the form that the number asks for: `1 file`, `2 files`, `0 files`.
pub fn counted<N: Copy + fmt::Display + PartialEq + From<u8>>(count: N, one: &str, many: &str) -> String {
    let word = if count == N::from(1) { one } else { many };
    format!("{count} {word}")
}

/// A length of time as people read it, without parts that are zero: `0.25 s`, `20 min 4 s`, `3 d 2 h`. Hours are counted
/// up to two days, since tiers are: `24 h`. `decimal` stands before the thousandths of a second.
pub(crate) fn span_with(millis: u64, decimal: &str) -> String {
    const DAY: u64 = 86_400_000;
    let (days, within) = if millis >= 2 * DAY { (millis / DAY, millis % DAY) } else { (0, millis) };
    let (hours, minutes, rest) = (within / 3_600_000, within / 60_000 % 60, within % 60_000);
    let whole = [(days, "d"), (hours, "h"), (minutes, "min")].into_iter().filter(|(count, _)| *count > 0);
    let mut parts: Vec<String> = whole.map(|(count, unit)| format!("{count} {unit}")).collect();
    if rest > 0 || parts.is_empty() {
        let fraction = format!("{:03}", rest % 1000);
        let fraction = fraction.trim_end_matches('0');
        let mark = if fraction.is_empty() { "" } else { decimal };
        parts.push(format!("{}{mark}{fraction} s", rest / 1000));
    }
    parts.join(" ")
}

/// How long something took or is old, for people: to the hundredth of a second below a minute, whole seconds from there
/// on: `0.25 s`, `20 min 4 s`. The only place that decides how a terminal shows time spans; documents have seconds.
#[must_use]
pub fn span(time: std::time::Duration) -> String {
    let millis = u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let unit = if millis < 60_000 { 10 } else { 1000 };
    // Rounded, and down where the sum would not fit.
    span_with(millis.saturating_add(unit / 2) / unit * unit, ".")
}

/// A length of time in whole seconds; written as `90s`, `15m`, `1h`, `2h30m`, `30d`.
///
/// Printing gives the shortest form with falling units (`90s` becomes `1m30s`), and reading that gives the same value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Duration(u64);

/// Why a text is not a [`Duration`]; prints as a reason without the text itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DurationError(&'static str);

impl fmt::Display for DurationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for DurationError {}

impl Duration {
    /// No time at all.
    pub const ZERO: Self = Self(0);
    /// The longest one that is accepted: 36,500 days. Sums of a few never overflow a signed 64-bit number of seconds.
    pub const MAX: Self = Self(36_500 * 86_400);
    /// One hour.
    pub const HOUR: Self = Self(3600);
    /// One day.
    pub const DAY: Self = Self(86_400);
    /// The units, longest first; weeks are read and printed as days.
    const UNITS: [(char, u64); 5] = [('w', 7 * 86_400), ('d', 86_400), ('h', 3600), ('m', 60), ('s', 1)];

    /// `seconds`, at most [`Duration::MAX`].
    pub const fn from_seconds(seconds: u64) -> Self {
        if seconds < Self::MAX.0 { Self(seconds) } else { Self::MAX }
    }

    /// `minutes`, at most [`Duration::MAX`].
    pub fn from_minutes(minutes: u64) -> Self {
        Self::from_seconds(minutes.saturating_mul(60))
    }

    /// The length in seconds.
    pub fn as_seconds(self) -> u64 {
        self.0
    }

    /// The length as the standard library's type.
    pub fn to_std(self) -> std::time::Duration {
        std::time::Duration::from_secs(self.0)
    }

    /// The length for people, see [`span`]; printing gives the form of the manifest.
    #[must_use]
    pub fn in_words(self) -> String {
        span(self.to_std())
    }

    /// Whether it is no time at all.
    pub fn is_zero(self) -> bool {
        self.0 == 0
    }

    /// The sum, at most [`Duration::MAX`].
    #[must_use]
    pub fn saturating_add(self, other: Self) -> Self {
        Self::from_seconds(self.0.saturating_add(other.0))
    }

    /// The difference, at least zero.
    #[must_use]
    pub fn saturating_sub(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }
}

impl FromStr for Duration {
    type Err = DurationError;

    fn from_str(text: &str) -> Result<Self, DurationError> {
        const SHAPE: DurationError =
            DurationError("numbers with units are expected, such as `90s`, `15m` or `2h30m`");
        const LONG: DurationError = DurationError("it is longer than 36500 days");
        let mut rest = text;
        let mut seconds = 0u64;
        let mut units = Self::UNITS.as_slice();
        while !rest.is_empty() {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let (number, tail) = rest.split_at(digits);
            let unit = tail.chars().next().filter(|_| digits > 0).ok_or(SHAPE)?;
            if !Self::UNITS.iter().any(|(name, _)| *name == unit) {
                return Err(DurationError("the units are `s`, `m`, `h`, `d` and `w`"));
            }
            let at = units.iter().position(|(name, _)| *name == unit);
            let at = at.ok_or(DurationError("units must fall, each at most once, as in `1d2h30m`"))?;
            let part = number.parse::<u64>().ok().and_then(|n| n.checked_mul(units[at].1)).ok_or(LONG)?;
            seconds = seconds.checked_add(part).filter(|sum| *sum <= Self::MAX.0).ok_or(LONG)?;
            units = &units[at + 1..];
            rest = &tail[unit.len_utf8()..];
        }
        if text.is_empty() { Err(SHAPE) } else { Ok(Self(seconds)) }
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_zero() {
            return f.write_str("0s");
        }
        let mut rest = self.0;
        for (unit, seconds) in &Self::UNITS[1..] {
            if rest >= *seconds {
                write!(f, "{}{unit}", rest / seconds)?;
                rest %= seconds;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_time_span_is_written_for_people() {
        let text = |millis| span(std::time::Duration::from_millis(millis));
        for (millis, expected) in [
            (0, "0 s"),
            (4, "0 s"),
            (250, "0.25 s"),
            (4_318, "4.32 s"),
            (59_999, "1 min"),
            (60_400, "1 min"),
            (1_204_000, "20 min 4 s"),
            (3_600_000, "1 h"),
            (86_400_000, "24 h"),
            (2 * 86_400_000, "2 d"),
            (266_460_000, "3 d 2 h 1 min"),
        ] {
            assert_eq!(text(millis), expected, "{millis}");
        }
        assert!(text(u64::MAX).ends_with(" s"));
        assert_eq!(Duration::from_minutes(270).in_words(), "4 h 30 min");
    }

    #[test]
    fn one_thing_is_not_several() {
        assert_eq!(counted(0u64, "entry", "entries"), "0 entries");
        assert_eq!(counted(1usize, "entry", "entries"), "1 entry");
        assert_eq!(counted(2i64, "entry", "entries"), "2 entries");
        assert_eq!(counted(11u32, "entry", "entries"), "11 entries");
    }

    #[test]
    fn durations_are_read_in_falling_units() {
        let seconds = |text: &str| text.parse::<Duration>().map(Duration::as_seconds);
        assert_eq!(seconds("90s"), Ok(90));
        assert_eq!(seconds("15m"), Ok(900));
        assert_eq!(seconds("2h30m"), Ok(9000));
        assert_eq!(seconds("1w1d"), Ok(8 * 86_400));
        assert_eq!(seconds("36500d"), Ok(Duration::MAX.as_seconds()));
        for wrong in ["", "15", "m", "15 m", "-5m", "1.5h", "15min", "5m1h", "5m5m", "1µ", "36501d"] {
            assert!(seconds(wrong).is_err(), "{wrong}");
        }
        assert!(seconds("99999999999999999999s").is_err());
        assert!(seconds("9999999999999999999w").is_err());
    }

    #[test]
    fn durations_are_printed_in_their_shortest_form() {
        let text = |seconds| Duration::from_seconds(seconds).to_string();
        assert_eq!(text(0), "0s");
        assert_eq!(text(90), "1m30s");
        assert_eq!(text(86_400 * 30), "30d");
        assert_eq!(text(90_061), "1d1h1m1s");
        assert_eq!(Duration::from_minutes(270).to_string(), "4h30m");
    }

    proptest! {
        #[test]
        fn a_duration_survives_printing_and_reading(seconds in 0..=Duration::MAX.as_seconds()) {
            let duration = Duration::from_seconds(seconds);
            prop_assert_eq!(duration.to_string().parse::<Duration>(), Ok(duration));
        }

        #[test]
        fn any_text_is_read_or_refused(text in "[0-9smhdw ]{0,12}|.{0,12}") {
            if let Ok(duration) = text.parse::<Duration>() {
                prop_assert!(duration <= Duration::MAX);
            }
        }
    }

    #[test]
    fn bytes_are_printed_with_binary_units() {
        let text = |bytes| ByteSize(bytes).to_string();
        assert_eq!(text(0), "0 B");
        assert_eq!(text(1023), "1023 B");
        assert_eq!(text(1536), "1.5 KiB");
        assert_eq!(text(3 << 30), "3.0 GiB");
        assert_eq!(text(u64::MAX), "16384.0 PiB");
    }
}

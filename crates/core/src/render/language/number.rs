//! Numbers as people of a language write them.

use super::Language;
use crate::drill::Seconds;
use crate::units::ByteSize;

impl Language {
    /// A whole number with marks between thousands: `1,000,000`.
    pub(crate) fn integer(self, value: u64) -> String {
        let digits = value.to_string();
        let mut text = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(3) {
                text.push_str(self.texts().thousands);
            }
            text.push(digit);
        }
        text
    }

    /// Milliseconds as seconds with three digits: `4.312 s`.
    pub(crate) fn milliseconds(self, millis: u64) -> String {
        format!("{}{}{:03} s", self.integer(millis / 1000), self.texts().decimal, millis % 1000)
    }

    /// A time span to the millisecond, without parts that are zero: `15 min`, `2 min 4.25 s`.
    pub(crate) fn duration(self, span: Seconds) -> String {
        let millis = span.as_millis_rounded();
        if millis == 0 {
            return if span == Seconds::ZERO { "0 s".to_owned() } else { self.less_than_a_millisecond() };
        }
        let (hours, minutes, rest) = (millis / 3_600_000, millis / 60_000 % 60, millis % 60_000);
        let mut parts = Vec::new();
        if hours > 0 {
            parts.push(format!("{} h", self.integer(hours)));
        }
        if minutes > 0 {
            parts.push(format!("{minutes} min"));
        }
        if rest > 0 {
            let seconds = Seconds::from_micros(rest * 1000).to_string().replace('.', self.texts().decimal);
            parts.push(format!("{seconds} s"));
        }
        parts.join(" ")
    }

    fn less_than_a_millisecond(self) -> String {
        format!("< 0{}001 s", self.texts().decimal)
    }

    /// A size: `1.5 GiB`.
    pub(crate) fn bytes(self, bytes: u64) -> String {
        ByteSize(bytes).to_string().replace('.', self.texts().decimal)
    }
}

/// A share from 0 to 1, the same in all our languages: `61 %`.
pub(in crate::render) fn percent(share: f64) -> String {
    let percent = share * 100.0;
    if percent > 0.0 && percent < 1.0 { "< 1 %".to_owned() } else { format!("{percent:.0} %") }
}

//! Numbers as people of a language write them.

use super::Language;
use crate::drill::Seconds;
use crate::units::{ByteSize, span_with};

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

    /// A time span without parts that are zero: `4.312 s`, `15 min`, `2 min 4.3 s`. Below a minute it is rounded to
    /// the millisecond; from there on it is rounded up to a tenth, so that what missed its objective never reads like
    /// what met it.
    pub(crate) fn duration(self, span: Seconds) -> String {
        let millis = if span < Seconds::from_secs(60) {
            span.as_millis_rounded()
        } else {
            span.as_micros().div_ceil(100_000) * 100
        };
        if millis == 0 {
            return if span == Seconds::ZERO { "0 s".to_owned() } else { self.less_than_a_millisecond() };
        }
        span_with(millis, self.texts().decimal)
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

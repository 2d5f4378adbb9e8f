//! What a repository costs in a month: bytes and objects as they are listed, requests as they follow from the schedule.
//!
//! Requests are an estimate, and `docs/cost.md` says of what. Money is counted in billionths of a currency's unit, in whole
//! numbers, so that nothing is rounded before the end.

use super::observed::LOOK_SECONDS;
use serde::{Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

/// Billionths in one.
const ONE: u64 = 1_000_000_000;
/// Digits behind the point.
const DIGITS: usize = 9;
/// Nothing costs more.
const MOST: u64 = 1_000_000;
/// Days of a month.
pub const MONTH_DAYS: u64 = 30;
const DAY_SECONDS: u64 = 86_400;
/// Bytes of a GB, as prices have it.
const GB: u64 = 1_000_000_000;
/// Objects in one page of a listing.
const PAGE: u64 = 1000;

/// An amount of money, exactly.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Amount(u64);

impl Amount {
    /// So much for each of `unit`, `count` times.
    fn times(self, count: u64, unit: u64) -> Self {
        let product = u128::from(self.0) * u128::from(count) / u128::from(unit.max(1));
        Self(u64::try_from(product).unwrap_or(u64::MAX))
    }

    fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl FromStr for Amount {
    type Err = &'static str;

    /// Digits, and up to nine more behind a point; at most a million.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WRONG: &str = "is no amount";
        let (whole, rest) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !is_number(whole) || !is_number(rest) || rest.len() > DIGITS || whole.len() > DIGITS {
            return Err(WRONG);
        }
        let whole: u64 = whole.parse().map_err(|_| WRONG)?;
        let rest: u64 = format!("{rest:0<DIGITS$}").parse().map_err(|_| WRONG)?;
        let amount = whole.saturating_mul(ONE).saturating_add(rest);
        if amount <= MOST * ONE { Ok(Self(amount)) } else { Err(WRONG) }
    }
}

impl fmt::Display for Amount {
    /// Rounded to hundredths; what is less than one and not nothing has as many digits as show it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The value of the last digit that is shown, and how many stand behind the point.
        let (mut step, mut digits) = (ONE / 100, 2);
        while self.0 > 0 && self.0 < step {
            (step, digits) = (step / 10, digits + 1);
        }
        let rounded = self.0.saturating_add(step / 2) / step;
        write!(f, "{}.{:0digits$}", rounded / (ONE / step), rounded % (ONE / step))
    }
}

impl Serialize for Amount {
    /// As text, exactly: readers that take it for a binary fraction would round it.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = format!("{}.{:09}", self.0 / ONE, self.0 % ONE);
        serializer.serialize_str(text.trim_end_matches('0').trim_end_matches('.'))
    }
}

/// What a provider asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Prices {
    /// For people: `USD`.
    pub currency: String,
    /// 10^9 bytes for a month.
    pub gb_month: Amount,
    /// A thousand writes or listings.
    pub writes_1000: Amount,
    /// A thousand reads.
    pub reads_1000: Amount,
}

/// What lies in a repository.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Listed {
    /// Objects.
    pub objects: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Those of them that are snapshots.
    pub snapshots: u64,
    /// Those that are index files.
    pub index_files: u64,
    /// Those that are packs.
    pub packs: u64,
    /// Those that are keys.
    pub keys: u64,
    /// Those that were written in the last [`MONTH_DAYS`] days, without locks.
    pub written: u64,
    /// For how many days there has been something; at least 1.
    pub age_days: u64,
}

/// What is done with a repository, and how often.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Runs {
    /// Of each component that is backed up into it: the interval in seconds, and the folders in its newest snapshot.
    pub backups: Vec<(u64, u64)>,
    /// The interval of copies into it, in seconds, where it is a copy.
    pub copy_seconds: Option<u64>,
    /// The interval of `forget` and `prune`, in seconds.
    pub retention_seconds: u64,
    /// The interval of `verify`, in seconds.
    pub verify_seconds: u64,
    /// Percent of the packs that it reads.
    pub verify_percent: u64,
    /// Whether each object's lock is looked at with retention.
    pub has_locks: bool,
}

/// Requests in a month. Deletes cost nothing anywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Requests {
    /// Objects that are written.
    pub writes: u64,
    /// Pages that are listed; providers ask as much for one as for a write.
    pub lists: u64,
    /// Objects, parts and dates that are read.
    pub reads: u64,
}

/// What a month costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
pub struct Cost {
    /// The bytes that are there.
    pub storage: Amount,
    /// Writes and listings.
    pub writes: Amount,
    /// Reads.
    pub reads: Amount,
    /// All of it.
    pub total: Amount,
}

/// The requests of a month, as far as the schedule tells.
pub fn requests(listed: &Listed, runs: &Runs) -> Requests {
    let mut sum = Requests {
        // What was written lately is written again, and what is younger than a month is seen in part only.
        writes: per_month(listed.written, listed.age_days.clamp(1, MONTH_DAYS) * DAY_SECONDS),
        ..Requests::default()
    };
    // Configuration, keys, snapshots and index: what every run reads, after listings of each of these folders.
    let opening = 1 + listed.keys + listed.snapshots + listed.index_files;
    let pages = |objects: u64| objects.div_ceil(PAGE).max(1);
    let listing = pages(listed.keys) + pages(listed.snapshots) + pages(listed.index_files) + pages(0);
    let mut add = |every_seconds: u64, lists: u64, reads: u64| {
        // Each run leaves a lock, which is gone after it.
        sum.writes = sum.writes.saturating_add(per_month(1, every_seconds));
        sum.lists = sum.lists.saturating_add(per_month(lists, every_seconds));
        sum.reads = sum.reads.saturating_add(per_month(reads, every_seconds));
    };
    for (every_seconds, folders) in &runs.backups {
        add(*every_seconds, listing + pages(listed.packs), opening.saturating_add(*folders));
    }
    if let Some(every_seconds) = runs.copy_seconds {
        add(every_seconds, listing + pages(listed.packs), opening);
    }
    let locks = if runs.has_locks { listed.objects } else { 0 };
    add(runs.retention_seconds, listing, opening.saturating_add(locks));
    add(runs.retention_seconds, listing + pages(listed.objects), opening);
    let sample = listed.packs.saturating_mul(runs.verify_percent) / 100;
    add(runs.verify_seconds, listing + pages(listed.objects), opening.saturating_add(sample));
    sum.lists = sum.lists.saturating_add(per_month(pages(listed.snapshots), LOOK_SECONDS));
    sum.reads = sum.reads.saturating_add(per_month(1, LOOK_SECONDS));
    sum
}

/// What happens `count` times in `seconds`, in a month.
fn per_month(count: u64, seconds: u64) -> u64 {
    let all = u128::from(count) * u128::from(MONTH_DAYS * DAY_SECONDS);
    u64::try_from(all.div_ceil(u128::from(seconds.max(1)))).unwrap_or(u64::MAX)
}

/// What that costs at these prices.
pub fn cost(listed: &Listed, requests: &Requests, prices: &Prices) -> Cost {
    let storage = prices.gb_month.times(listed.bytes, GB);
    let writes = prices.writes_1000.times(requests.writes.saturating_add(requests.lists), 1000);
    let reads = prices.reads_1000.times(requests.reads, 1000);
    Cost { storage, writes, reads, total: storage.plus(writes).plus(reads) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: u64 = DAY_SECONDS;

    fn amount(text: &str) -> Amount {
        text.parse().unwrap()
    }

    #[test]
    fn amounts_are_read_and_shown_exactly() {
        for (text, shown) in [
            ("0", "0.00"),
            ("0.023", "0.02"),
            ("0.005", "0.005"),
            ("0.0004", "0.0004"),
            ("12.345", "12.35"),
            ("1000000", "1000000.00"),
            ("0.000000001", "0.000000001"),
        ] {
            assert_eq!(amount(text).to_string(), shown, "{text}");
            assert_eq!(serde_json::to_value(amount(text)).unwrap(), text);
        }
        for wrong in
            ["", ".", "1.", ".5", "-1", "+1", "1e3", "1,5", "0.0000000001", "1000000.1", " 1", "9999999999"]
        {
            assert!(wrong.parse::<Amount>().is_err(), "{wrong}");
        }
    }

    /// 1 TB, a backup each quarter of an hour: by hand.
    #[test]
    fn a_month_by_hand() {
        let listed = Listed {
            objects: 61_512,
            bytes: 1_000_000_000_000,
            snapshots: 500,
            index_files: 10,
            packs: 61_000,
            keys: 1,
            written: 3000,
            age_days: 400,
        };
        let runs = Runs {
            backups: vec![(900, 100)],
            copy_seconds: None,
            retention_seconds: DAY,
            verify_seconds: 7 * DAY,
            verify_percent: 5,
            has_locks: false,
        };
        let found = requests(&listed, &runs);
        // 2,880 backups, 30 times `forget` and `prune`, 30/7 verifies.
        assert_eq!(found.writes, 3000 + 2880 + 60 + 5);
        assert_eq!(found.reads, 2880 * (512 + 100) + 30 * 1024 + (30 * (512u64 + 3050)).div_ceil(7) + 86_400);
        assert_eq!(found.lists, 2880 * (4 + 61) + 30 * (8 + 62) + (30 * (4u64 + 62)).div_ceil(7) + 86_400);
        let prices = Prices {
            currency: "USD".to_owned(),
            gb_month: amount("0.023"),
            writes_1000: amount("0.005"),
            reads_1000: amount("0.0004"),
        };
        let cost = cost(&listed, &found, &prices);
        assert_eq!(cost.storage, amount("23"));
        assert_eq!(cost.total, cost.storage.plus(cost.writes).plus(cost.reads));
        assert_eq!(cost.writes, amount("0.005").times(found.writes + found.lists, 1000));
        let locked = requests(&listed, &Runs { has_locks: true, ..runs });
        assert_eq!(locked.reads - found.reads, 30 * 61_512);
    }

    #[test]
    fn what_was_written_in_few_days_is_taken_for_a_month() {
        let listed = Listed { written: 10, age_days: 3, ..Listed::default() };
        let none = Runs { retention_seconds: u64::MAX, verify_seconds: u64::MAX, ..Runs::default() };
        // One each: whatever is done at all is done once.
        assert_eq!(requests(&listed, &none).writes, 100 + 3);
    }

    proptest! {
        #[test]
        fn an_amount_survives_its_json(billionths in 0..=MOST * ONE) {
            let text = serde_json::to_value(Amount(billionths)).unwrap();
            prop_assert_eq!(text.as_str().unwrap().parse(), Ok(Amount(billionths)));
        }

        #[test]
        fn no_numbers_make_it_panic(numbers in prop::array::uniform8(any::<u64>()), every in prop::array::uniform4(any::<u64>())) {
            let [objects, bytes, snapshots, index_files, packs, keys, written, age_days] = numbers.map(|it| it >> 8);
            let listed = Listed { objects, bytes, snapshots, index_files, packs, keys, written, age_days };
            let runs = Runs {
                backups: vec![(every[0], every[1])],
                copy_seconds: Some(every[2]),
                retention_seconds: every[3],
                verify_seconds: every[0],
                verify_percent: 100,
                has_locks: true,
            };
            let requests = requests(&listed, &runs);
            let most = Amount(MOST * ONE);
            let prices = Prices { currency: String::new(), gb_month: most, writes_1000: most, reads_1000: most };
            let cost = cost(&listed, &requests, &prices);
            prop_assert!(cost.total >= cost.storage);
        }
    }
}

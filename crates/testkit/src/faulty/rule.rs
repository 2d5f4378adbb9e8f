//! Which calls fail, and how.

use retoma_repo::ErrorKind;
use retoma_repo::store::Verb;

/// What happens to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing is done; an error of this kind is returned.
    Error(ErrorKind),
    /// Never returns, until the caller drops it. Nothing is done.
    Hang,
    /// A put leaves the first half of the object for all to see, and fails as `Unavailable`: what a store without
    /// atomic put could do. Other verbs: as [`Fault::DoneButError`].
    HalfWrite,
    /// Done in full, and then failed as `Unavailable`: the answer was lost.
    DoneButError,
    /// One bit of what is read is flipped (`head`: the size is wrong). A put, a delete and a listing pass.
    Corrupt,
}

/// Which of the calls that fit a rule fail; the first is number 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Every one.
    Always,
    /// Only this one.
    Call(u64),
    /// So many at first; later ones pass.
    First(u64),
    /// This one and all later ones.
    From(u64),
}

impl When {
    pub(super) fn is_due(self, call: u64) -> bool {
        match self {
            Self::Always => true,
            Self::Call(number) => call == number,
            Self::First(count) => call <= count,
            Self::From(number) => call >= number,
        }
    }
}

/// Calls of a verb on names of a pattern fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// `None` fits every verb.
    pub verb: Option<Verb>,
    /// A whole name, or the beginning of names and a `*`.
    pub names: String,
    /// Which of the calls that fit.
    pub when: When,
    /// What happens to them.
    pub fault: Fault,
}

impl Rule {
    /// Calls of `verb` on `names` fail with `fault`, `when` it says.
    pub fn new(verb: impl Into<Option<Verb>>, names: &str, when: When, fault: Fault) -> Self {
        Self { verb: verb.into(), names: names.to_owned(), when, fault }
    }

    /// The first `count` calls of `verb` on `names` are `Unavailable`, later ones pass.
    pub fn error_then_ok(verb: impl Into<Option<Verb>>, names: &str, count: u64) -> Self {
        Self::new(verb, names, When::First(count), Fault::Error(ErrorKind::Unavailable))
    }

    pub(super) fn fits(&self, verb: Verb, name: &str) -> bool {
        let named = match self.names.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == self.names,
        };
        named && self.verb.is_none_or(|own| own == verb)
    }
}

/// Of 1000 calls, how many fail in which way. The sum must not be above 1000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Rates {
    /// `Unavailable`, nothing done.
    pub error: u16,
    /// [`Fault::Hang`].
    pub hang: u16,
    /// [`Fault::HalfWrite`], puts only.
    pub half_write: u16,
    /// [`Fault::DoneButError`].
    pub done_but_error: u16,
    /// [`Fault::Corrupt`], reads only.
    pub corrupt: u16,
}

impl Rates {
    pub(super) fn pick(self, verb: Verb, dice: u64) -> Option<Fault> {
        let faults = [
            (self.error, Fault::Error(ErrorKind::Unavailable)),
            (self.hang, Fault::Hang),
            (self.half_write, Fault::HalfWrite),
            (self.done_but_error, Fault::DoneButError),
            (self.corrupt, Fault::Corrupt),
        ];
        let mut rest = dice % 1000;
        for (rate, fault) in faults {
            if rest < u64::from(rate) {
                let reads = matches!(verb, Verb::Get | Verb::GetRange | Verb::Head);
                let applies = match fault {
                    Fault::HalfWrite => verb == Verb::Put,
                    Fault::Corrupt => reads,
                    _ => true,
                };
                return applies.then_some(fault);
            }
            rest -= u64::from(rate);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_fits_a_name_or_a_beginning() {
        let exact = Rule::new(Verb::Put, "data/ab", When::Always, Fault::Hang);
        assert!(exact.fits(Verb::Put, "data/ab") && !exact.fits(Verb::Put, "data/abc"));
        assert!(!exact.fits(Verb::Get, "data/ab"));
        let all = Rule::new(None, "data/*", When::Always, Fault::Hang);
        assert!(all.fits(Verb::Delete, "data/abc") && !all.fits(Verb::Get, "index/a"));
    }

    #[test]
    fn rates_come_out_about_as_often_as_they_say() {
        let rates = Rates { error: 100, half_write: 50, corrupt: 50, ..Rates::default() };
        let picked = |verb| {
            (0..20_000).filter_map(|call| rates.pick(verb, crate::data::mix(call))).collect::<Vec<_>>()
        };
        let count = |faults: &[Fault], fault| faults.iter().filter(|found| **found == fault).count();
        let puts = picked(Verb::Put);
        assert!((1_800..2_200).contains(&count(&puts, Fault::Error(ErrorKind::Unavailable))));
        assert!((800..1_200).contains(&count(&puts, Fault::HalfWrite)));
        assert_eq!(count(&puts, Fault::Corrupt), 0);
        let gets = picked(Verb::Get);
        assert!((800..1_200).contains(&count(&gets, Fault::Corrupt)));
        assert_eq!(count(&gets, Fault::HalfWrite), 0);
    }
}

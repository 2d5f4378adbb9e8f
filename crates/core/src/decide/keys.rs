//! Whether the keys of a repository can be lost, or used, by one person or with one place. `docs/keys.md`, "What `key check` says".

use jiff::{SignedDuration, Timestamp};

/// A key that nobody has tried for so long may open no more, or its holders may have forgotten it.
pub const UNTRIED: SignedDuration = SignedDuration::from_hours(365 * 24);

/// How a key's password is had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Somebody knows it, or it lies in a file.
    Password,
    /// It is in a file that was made for that.
    KeyFile,
    /// It is split.
    Shares {
        /// How many open.
        threshold: u8,
        /// How many there are.
        total: u8,
    },
    /// A transit engine has sealed it.
    Transit,
    /// A later version knows.
    Unknown,
}

/// Where what opens is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// On the machine that is backed up: the manifest names it there.
    ThisHost,
    /// Somewhere else.
    Elsewhere,
    /// Nothing tells.
    Unknown,
}

/// A key, as far as it can be known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// The beginning of its id.
    pub id: String,
    /// How its password is had.
    pub kind: Kind,
    /// Where.
    pub place: Place,
    /// When it was last seen to open: it did when it was made.
    pub tried: Timestamp,
}

/// What is wrong. The order is that of urgency.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Warning {
    /// Who loses that one loses everything.
    SingleKey,
    /// With this host, every way in burns.
    OnlyThisHost,
    /// Nothing shows that a way in is elsewhere.
    NoneKnownElsewhere,
    /// Without this host one thing in one hand is left, which can be lost, or refused.
    OneHolderAfterTheHost(String),
    /// Each share of this key opens alone.
    ThresholdOne(String),
    /// One lost share loses this key.
    AllSharesNeeded(String),
    /// Nobody has seen this key open for so many days.
    Untried(String, i64),
}

impl Warning {
    /// What it is called in JSON; never changes.
    pub fn code(&self) -> &'static str {
        match self {
            Self::SingleKey => "single_key",
            Self::OnlyThisHost => "only_this_host",
            Self::NoneKnownElsewhere => "none_known_elsewhere",
            Self::OneHolderAfterTheHost(_) => "one_holder_after_the_host",
            Self::ThresholdOne(_) => "threshold_one",
            Self::AllSharesNeeded(_) => "all_shares_needed",
            Self::Untried(..) => "untried",
        }
    }

    /// Which key it is about.
    pub fn key(&self) -> Option<&str> {
        match self {
            Self::SingleKey | Self::OnlyThisHost | Self::NoneKnownElsewhere => None,
            Self::OneHolderAfterTheHost(id)
            | Self::ThresholdOne(id)
            | Self::AllSharesNeeded(id)
            | Self::Untried(id, _) => Some(id),
        }
    }

    /// What is wrong, and what to do.
    pub fn texts(&self) -> (String, &'static str) {
        match self {
            Self::SingleKey => (
                "there is one key: who loses it loses everything".to_owned(),
                "add a second way in: `retoma key add --shares 5 --threshold 3 -o DIR`",
            ),
            Self::OnlyThisHost => (
                "every key is on this host: what burns it burns the way into its backups".to_owned(),
                "add a way in that is kept elsewhere: `retoma key add --shares 5 --threshold 3 -o DIR`",
            ),
            Self::NoneKnownElsewhere => (
                "nothing shows that a way in is kept off this host".to_owned(),
                "look where the passwords and key files are, or split a key: `retoma key add --shares 5 --threshold 3 -o DIR`",
            ),
            Self::OneHolderAfterTheHost(id) => (
                format!("without this host only key {id} is left, and it is in one hand"),
                "add a split key, so that no single person or place can lose or refuse it",
            ),
            Self::ThresholdOne(id) => (
                format!("each share of key {id} opens the repository alone"),
                "replace it by one that takes two or more: `retoma key rotate ID --shares 5 --threshold 3 -o DIR`",
            ),
            Self::AllSharesNeeded(id) => (
                format!("key {id} needs all of its shares: one that is lost loses it"),
                "replace it by one with shares to spare: `retoma key rotate ID --shares 5 --threshold 3 -o DIR`",
            ),
            Self::Untried(id, days) => (
                format!("key {id} was made {days} days ago, and nothing shows that it was tried since"),
                "open the repository with it, and replace it with `retoma key rotate ID`: that shows who still has it",
            ),
        }
    }
}

/// What is wrong with `keys` at `now`, most urgent first; nothing for no key at all, since then nothing opened.
pub fn check(keys: &[Key], now: Timestamp) -> Vec<Warning> {
    let mut warnings = Vec::new();
    let off_host: Vec<&Key> = keys.iter().filter(|key| key.place != Place::ThisHost).collect();
    if keys.len() == 1 {
        warnings.push(Warning::SingleKey);
    }
    match off_host.as_slice() {
        [] if keys.is_empty() => {}
        [] => warnings.push(Warning::OnlyThisHost),
        some if some.iter().all(|key| key.place == Place::Unknown) => {
            warnings.push(Warning::NoneKnownElsewhere);
        }
        _ => {}
    }
    if let [one] = off_host.as_slice()
        && keys.len() > 1
        && !is_shared(one.kind)
    {
        warnings.push(Warning::OneHolderAfterTheHost(one.id.clone()));
    }
    for key in keys {
        match key.kind {
            Kind::Shares { threshold: 1, .. } => warnings.push(Warning::ThresholdOne(key.id.clone())),
            Kind::Shares { threshold, total } if threshold == total => {
                warnings.push(Warning::AllSharesNeeded(key.id.clone()));
            }
            _ => {}
        }
    }
    for key in keys {
        let age = now.duration_since(key.tried);
        if age > UNTRIED {
            warnings.push(Warning::Untried(key.id.clone(), age.as_hours() / 24));
        }
    }
    warnings
}

/// Whether no single hand can lose it.
fn is_shared(kind: Kind) -> bool {
    matches!(kind, Kind::Shares { threshold, total } if threshold < total)
}

//! Whether the settings of a Redis server fit what its component promises. What is compared is what a crash of the server
//! alone may cost: when its disk is lost too, only the backup's interval counts, and that is checked with the manifest.

use crate::units::Duration;
use std::collections::BTreeMap;
use std::fmt;

/// What is known of a server. Settings are as `CONFIG GET` gives them.
#[derive(Debug, Clone, Copy)]
pub struct Observed<'a> {
    /// The settings by name; `None` where the server does not tell them.
    pub settings: Option<&'a BTreeMap<String, String>>,
    /// Whether nobody on a network sees what is sent: TLS, a socket, or this machine.
    pub is_private: bool,
}

/// What is promised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Promise {
    /// The longest stretch of time whose writes may be lost.
    pub rpo: Duration,
    /// The longest stretch that lies between two backups.
    pub backup_worst_case: Duration,
}

/// Why a server may lose more than its component promises, or lose it unnoticed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// Settings cannot be seen, so nothing is known.
    Unknown,
    /// A crash loses more than the objective allows.
    LosesMore {
        /// The longest stretch; `None` when it has no bound but the backup's.
        loss: Option<Duration>,
        /// The objective.
        rpo: Duration,
    },
    /// The log of writes is left to the system to write.
    SyncedBySystem,
    /// Writes go on when the server cannot save.
    WritesOnWhenSavingFails,
    /// The server removes keys when its memory is full.
    Evicts {
        /// Its policy.
        policy: String,
    },
    /// Files have no checksum.
    NoChecksum,
    /// Data and password cross a network for all to see.
    Exposed,
}

/// The system writes what it was given within about so many seconds.
const SYSTEM_WRITES_SECONDS: u64 = 30;

/// Every doubt about a server; none when its settings fit.
pub fn doubts(observed: Observed<'_>, promise: Promise) -> Vec<Doubt> {
    let mut doubts = Vec::new();
    if !observed.is_private {
        doubts.push(Doubt::Exposed);
    }
    let Some(settings) = observed.settings else {
        doubts.push(Doubt::Unknown);
        return doubts;
    };
    let is = |name: &str, value: &str| settings.get(name).is_some_and(|found| found == value);
    let has_log = is("appendonly", "yes");
    let loss =
        if has_log { Some(log_loss(settings.get("appendfsync"))) } else { save_loss(settings.get("save")) };
    if loss.is_none_or(|loss| loss > promise.rpo) && promise.backup_worst_case > promise.rpo {
        doubts.push(Doubt::LosesMore { loss, rpo: promise.rpo });
    }
    if has_log && is("appendfsync", "no") {
        doubts.push(Doubt::SyncedBySystem);
    }
    if is("stop-writes-on-bgsave-error", "no") && save_loss(settings.get("save")).is_some() {
        doubts.push(Doubt::WritesOnWhenSavingFails);
    }
    let has_limit = settings.get("maxmemory").is_some_and(|bytes| bytes != "0");
    if let Some(policy) =
        settings.get("maxmemory-policy").filter(|policy| has_limit && *policy != "noeviction")
    {
        doubts.push(Doubt::Evicts { policy: policy.clone() });
    }
    if is("rdbchecksum", "no") {
        doubts.push(Doubt::NoChecksum);
    }
    doubts
}

/// What a crash costs with a log of writes.
fn log_loss(sync: Option<&String>) -> Duration {
    Duration::from_seconds(match sync.map(String::as_str) {
        Some("always") => 0,
        // One second, and a second one when the disk is slow.
        Some("everysec") => 2,
        _ => SYSTEM_WRITES_SECONDS,
    })
}

/// What a crash costs with saves alone: `3600 1 300 100` saves after an hour if there was one write, after five minutes if
/// there were a hundred. A single write waits for the rule that one write is enough for; without one it waits for ever.
fn save_loss(save: Option<&String>) -> Option<Duration> {
    let numbers: Vec<u64> = save?.split_whitespace().map_while(|word| word.parse().ok()).collect();
    let rules = numbers.chunks_exact(2).filter(|rule| rule[1] <= 1);
    rules.map(|rule| rule[0]).min().map(Duration::from_seconds)
}

impl fmt::Display for Doubt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("the server does not tell its settings"),
            Self::LosesMore { loss: Some(loss), rpo } => {
                write!(f, "a crash of the server may cost the writes of {loss}, and the objective is {rpo}")
            }
            Self::LosesMore { loss: None, rpo } => {
                write!(
                    f,
                    "a crash of the server costs all writes since the last backup, and the objective is {rpo}"
                )
            }
            Self::SyncedBySystem => {
                f.write_str("`appendfsync no` leaves it to the system when writes reach the disk")
            }
            Self::WritesOnWhenSavingFails => {
                f.write_str("`stop-writes-on-bgsave-error no` takes writes while the server cannot save them")
            }
            Self::Evicts { policy } => {
                write!(f, "`maxmemory-policy {policy}` removes keys when the memory is full")
            }
            Self::NoChecksum => f.write_str("`rdbchecksum no` leaves damage of the data set unseen"),
            Self::Exposed => f.write_str("data and password cross the network without TLS"),
        }
    }
}

impl Doubt {
    /// What to do about it, as an imperative sentence without a full stop.
    pub fn fix(&self) -> &'static str {
        match self {
            Self::Unknown => "give the user the right `+config|get`",
            Self::LosesMore { .. } => "set `appendonly yes`, or back up more often",
            Self::SyncedBySystem => "set `appendfsync everysec`",
            Self::WritesOnWhenSavingFails => "set `stop-writes-on-bgsave-error yes`",
            Self::Evicts { .. } => "set `maxmemory-policy noeviction`, unless what it holds is only a cache",
            Self::NoChecksum => "set `rdbchecksum yes`, and restart the server",
            Self::Exposed => "use `rediss://`, a socket, or back up on the server's own host",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(settings: &str, rpo_minutes: u64, backup_minutes: u64) -> Vec<Doubt> {
        let settings = settings.split(';').filter_map(|pair| pair.split_once('='));
        let settings = settings.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let minutes = |minutes: u64| Duration::from_seconds(minutes * 60);
        let promise = Promise { rpo: minutes(rpo_minutes), backup_worst_case: minutes(backup_minutes) };
        doubts(Observed { settings: Some(&settings), is_private: true }, promise)
    }

    fn loses(seconds: Option<u64>) -> Vec<Doubt> {
        let loss = seconds.map(Duration::from_seconds);
        vec![Doubt::LosesMore { loss, rpo: Duration::from_seconds(300) }]
    }

    #[test]
    fn losses_are_compared_with_the_objective() {
        for (settings, backup_minutes, expected) in [
            ("appendonly=yes;appendfsync=always;save=", 60, vec![]),
            ("appendonly=yes;appendfsync=everysec;save=", 60, vec![]),
            ("appendonly=yes;appendfsync=no;save=", 60, vec![Doubt::SyncedBySystem]),
            ("appendonly=no;appendfsync=no;save=300 1", 60, vec![]),
            ("appendonly=no;save=301 1", 60, loses(Some(301))),
            ("appendonly=no;save=3600 1 300 100 60 10000", 60, loses(Some(3600))),
            ("appendonly=no;save=3600 1 60 1", 60, vec![]),
            ("appendonly=no;save=60 100", 60, loses(None)),
            ("appendonly=no;save=", 60, loses(None)),
            ("save=nonsense", 60, loses(None)),
            ("", 60, loses(None)),
            // The backup alone is often enough.
            ("appendonly=no;save=", 5, vec![]),
            ("appendonly=no;save=", 6, loses(None)),
        ] {
            assert_eq!(found(settings, 5, backup_minutes), expected, "{settings} {backup_minutes}");
        }
    }

    #[test]
    fn what_loses_data_unnoticed_is_named() {
        let evicts = |policy: &str| vec![Doubt::Evicts { policy: policy.to_owned() }];
        for (settings, expected) in [
            ("maxmemory=0;maxmemory-policy=allkeys-lru", vec![]),
            ("maxmemory=100;maxmemory-policy=noeviction", vec![]),
            ("maxmemory=100;maxmemory-policy=allkeys-lru", evicts("allkeys-lru")),
            ("maxmemory=100;maxmemory-policy=volatile-ttl", evicts("volatile-ttl")),
            ("stop-writes-on-bgsave-error=yes", vec![]),
            ("stop-writes-on-bgsave-error=no", vec![Doubt::WritesOnWhenSavingFails]),
            ("rdbchecksum=no", vec![Doubt::NoChecksum]),
        ] {
            assert_eq!(found(&format!("{settings};appendonly=no;save=60 1"), 5, 60), expected, "{settings}");
        }
        // Who never saves cannot fail to.
        assert_eq!(
            found("appendonly=yes;appendfsync=always;save=;stop-writes-on-bgsave-error=no", 5, 60),
            []
        );
    }

    #[test]
    fn what_cannot_be_seen_is_said() {
        let promise =
            Promise { rpo: Duration::from_seconds(1), backup_worst_case: Duration::from_seconds(1) };
        let found = doubts(Observed { settings: None, is_private: false }, promise);
        assert_eq!(found, [Doubt::Exposed, Doubt::Unknown]);
    }

    #[test]
    fn doubts_are_sentences() {
        let all = [
            Doubt::Unknown,
            Doubt::LosesMore { loss: Some(Duration::from_seconds(3600)), rpo: Duration::from_seconds(300) },
            Doubt::LosesMore { loss: None, rpo: Duration::from_seconds(300) },
            Doubt::SyncedBySystem,
            Doubt::WritesOnWhenSavingFails,
            Doubt::Evicts { policy: "allkeys-lru".to_owned() },
            Doubt::NoChecksum,
            Doubt::Exposed,
        ];
        let lines: Vec<_> = all.iter().map(|doubt| format!("{doubt}: {}", doubt.fix())).collect();
        insta::assert_snapshot!(lines.join("\n"));
    }
}

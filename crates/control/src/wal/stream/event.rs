//! What a stream tells: one event for each change.

use retoma_core::Error;
use retoma_core::decide::streaming::Position;
use retoma_core::units::{ByteSize, span};
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// Something that lasts, and that somebody must look at.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// The server cannot be streamed from.
    Connection,
    /// This repository does not take what it is given, or takes long.
    Repository(String),
    /// The slot keeps more than half of what it may.
    SlotWarning,
    /// The slot keeps more than four fifths of what it may.
    SlotAlarm,
    /// The slot keeps all that it may, or was given up.
    SlotLimit,
}

impl Alarm {
    /// Its name in events.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Repository(_) => "repository",
            Self::SlotWarning => "slot_warning",
            Self::SlotAlarm => "slot_alarm",
            Self::SlotLimit => "slot_limit",
        }
    }

    /// The repository that it is about.
    pub fn repository(&self) -> Option<&str> {
        if let Self::Repository(name) = self { Some(name) } else { None }
    }
}

/// A change. `Display` is a line for people.
#[derive(Debug)]
pub enum StreamEvent<'a> {
    /// The server streams.
    Connected {
        /// The server.
        system_identifier: u64,
        /// From here on.
        start: Position,
        /// The slot, which is also the name for `synchronous_standby_names`.
        slot: &'a str,
    },
    /// WAL before this position is durable in every repository. At most once a second.
    Shipped {
        /// The position.
        position: Position,
        /// How much the server has beyond it, as far as it has told, in bytes.
        lag_bytes: u64,
        /// How long the oldest byte that was received waits.
        lag: Duration,
    },
    /// The server began another timeline.
    Timeline {
        /// Where it begins.
        start: Position,
    },
    /// The server no longer has WAL that the archive does not have either.
    Gap {
        /// Its beginning.
        from: Position,
        /// From here on there is WAL again.
        to: Position,
        /// `R0440`.
        error: &'a Error,
    },
    /// An alarm begins.
    Raised {
        /// Which.
        alarm: &'a Alarm,
        /// Why.
        error: &'a Error,
    },
    /// An alarm ends.
    Cleared {
        /// Which.
        alarm: &'a Alarm,
    },
    /// The stream ends as it was asked to.
    Stopped,
}

impl StreamEvent<'_> {
    /// Its name in events.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Connected { .. } => "connected",
            Self::Shipped { .. } => "shipped",
            Self::Timeline { .. } => "timeline",
            Self::Gap { .. } => "gap",
            Self::Raised { .. } => "alarm_raised",
            Self::Cleared { .. } => "alarm_cleared",
            Self::Stopped => "stopped",
        }
    }
}

impl fmt::Display for StreamEvent<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connected { system_identifier, start, slot } => {
                write!(f, "streaming from server {system_identifier} at {start}, slot `{slot}`")
            }
            Self::Shipped { position, lag_bytes, lag } => {
                write!(f, "stored to {position}; {} and {} behind", ByteSize(*lag_bytes), span(*lag))
            }
            Self::Timeline { start } => write!(f, "the server goes on at {start}"),
            Self::Gap { from, to, error } => {
                write!(f, "gap from {from} to {to} [{}]: make a backup now", error.code())
            }
            Self::Raised { alarm, error } => {
                write!(f, "alarm {}", alarm.as_str())?;
                if let Some(name) = alarm.repository() {
                    write!(f, " `{name}`")?;
                }
                write!(f, ": {error} [{}]", error.code())
            }
            Self::Cleared { alarm } => {
                write!(f, "alarm {} is over", alarm.as_str())?;
                alarm.repository().map_or(Ok(()), |name| write!(f, " (`{name}`)"))
            }
            Self::Stopped => f.write_str("stopped"),
        }
    }
}

/// The alarms that are raised, each told once when it begins and once when it ends.
pub(super) struct Alarms<'a> {
    raised: BTreeSet<Alarm>,
    tell: &'a mut dyn FnMut(&StreamEvent<'_>),
}

impl fmt::Debug for Alarms<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Alarms").field("raised", &self.raised).finish_non_exhaustive()
    }
}

impl<'a> Alarms<'a> {
    pub(super) fn new(tell: &'a mut dyn FnMut(&StreamEvent<'_>)) -> Self {
        Self { raised: BTreeSet::new(), tell }
    }

    pub(super) fn tell(&mut self, event: &StreamEvent<'_>) {
        (self.tell)(event);
    }

    pub(super) fn raise(&mut self, alarm: Alarm, error: &Error) {
        if !self.raised.contains(&alarm) {
            self.tell(&StreamEvent::Raised { alarm: &alarm, error });
            self.raised.insert(alarm);
        }
    }

    pub(super) fn clear(&mut self, alarm: &Alarm) {
        if self.raised.remove(alarm) {
            self.tell(&StreamEvent::Cleared { alarm });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use retoma_core::ErrorKind;
    use retoma_core::error::codes;

    #[test]
    fn an_alarm_is_told_once_when_it_begins_and_once_when_it_ends() {
        let mut told = Vec::new();
        let mut tell = |event: &StreamEvent<'_>| told.push(event.to_string());
        let mut alarms = Alarms::new(&mut tell);
        let error = Error::new(ErrorKind::Unavailable, codes::STORE_UNAVAILABLE, "it is away");
        let far = || Alarm::Repository("far".to_owned());
        alarms.clear(&far());
        alarms.raise(far(), &error);
        alarms.raise(far(), &error);
        alarms.raise(Alarm::SlotWarning, &error);
        alarms.clear(&far());
        alarms.clear(&far());
        drop(alarms);
        assert_eq!(
            told,
            [
                "alarm repository `far`: it is away [R0303]",
                "alarm slot_warning: it is away [R0303]",
                "alarm repository is over (`far`)",
            ]
        );
    }
}

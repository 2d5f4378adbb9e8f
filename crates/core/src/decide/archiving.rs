//! Whether a server's `archive_command` archives: from what `pg_stat_archiver` says, look after look. `docs/agent.md`, "Alerts".
//!
//! It fails when its last failure is newer than its last success; it is stuck when finished segments wait and none is archived,
//! as with a command that hangs. Nothing here knows a server.

use crate::postgres::TimelineId;
use crate::units::Duration;
use jiff::{SignedDuration, Timestamp};

/// How long finished segments may wait while none is archived.
const STUCK_AFTER: SignedDuration = SignedDuration::from_secs(30);

/// Where a primary writes its WAL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Writing {
    /// The server, which its copies say too.
    pub system_identifier: u64,
    /// The timeline.
    pub timeline: TimelineId,
}

/// What a server says at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ArchiverState {
    /// Whether it archives at all: `archive_mode` is on.
    pub is_on: bool,
    /// Its `archive_timeout`, in seconds; 0 for none.
    pub timeout_seconds: u64,
    /// Whether its last failure is newer than its last success.
    pub is_failing: bool,
    /// The number of the last segment that was archived; `None` when there was none, or its statistics were reset.
    pub archived_segment: Option<u64>,
    /// The number of the segment that it writes.
    pub current_segment: u64,
    /// Where it writes; `None` of a standby.
    pub writing: Option<Writing>,
}

/// What follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Archive {
    /// As [`ArchiverState::is_on`].
    pub is_on: bool,
    /// As [`ArchiverState::timeout_seconds`].
    pub timeout_seconds: u64,
    /// As [`ArchiverState::is_failing`].
    pub is_failing: bool,
    /// Finished segments that are not archived.
    pub waiting_segments: u64,
    /// Since when some wait and none was archived.
    pub stuck_since: Option<Timestamp>,
    /// As [`ArchiverState::writing`].
    pub writing: Option<Writing>,
}

/// The looks at one server.
#[derive(Debug, Clone, Copy, Default)]
pub struct Archiving {
    /// The segment that was written when we first looked: what is finished before it is not ours to count.
    first_segment: Option<u64>,
    /// The last archived segment that was seen, and since when there is no newer one while some wait.
    last: Option<(Option<u64>, Option<Timestamp>)>,
}

impl Archiving {
    /// Takes in a look at `now`.
    pub fn see(&mut self, state: &ArchiverState, now: Timestamp) -> Archive {
        let first = *self.first_segment.get_or_insert(state.current_segment);
        let next = state.archived_segment.map_or(first, |archived| archived.saturating_add(1));
        let waiting_segments = if state.is_on { state.current_segment.saturating_sub(next) } else { 0 };
        let before = self.last.filter(|(archived, _)| *archived == state.archived_segment);
        // A clock that was put back begins anew.
        let since = before.and_then(|(_, since)| since).map_or(now, |since| since.min(now));
        let stuck_since = (waiting_segments > 0).then_some(since);
        self.last = Some((state.archived_segment, stuck_since));
        Archive {
            is_on: state.is_on,
            timeout_seconds: state.timeout_seconds,
            is_failing: state.is_on && state.is_failing,
            waiting_segments,
            stuck_since,
            writing: state.writing,
        }
    }
}

impl Archive {
    /// The timeline that the server writes on, when the archive has a newer one, `newest`: whoever wrote that has left it.
    pub fn left_behind_on(&self, newest: Option<TimelineId>) -> Option<TimelineId> {
        let own = self.writing.filter(|_| self.is_on)?.timeline;
        newest.filter(|newest| *newest > own).map(|_| own)
    }

    /// Why what the manifest promises does not hold at `now`; `promised` is the `archive_timeout` that it declares.
    pub fn trouble(&self, promised: Option<Duration>, now: Timestamp) -> Option<String> {
        if let Some(promised) = promised {
            if !self.is_on {
                return Some("`archive_mode` is off on the server".to_owned());
            }
            if let Some(wrong) = self.wrong_timeout(promised) {
                return Some(wrong);
            }
        }
        let is_stuck = self.stuck_since.is_some_and(|since| now.duration_since(since) >= STUCK_AFTER);
        match (self.is_failing, is_stuck) {
            (true, _) => Some("`archive_command` fails".to_owned()),
            (_, true) => Some("finished segments wait, and `archive_command` archives none".to_owned()),
            _ => None,
        }
    }

    /// What is wrong with the server's `archive_timeout`, if this one is promised.
    pub fn wrong_timeout(&self, promised: Duration) -> Option<String> {
        let shown = match self.timeout_seconds {
            0 => "off".to_owned(),
            seconds if seconds > promised.as_seconds() => Duration::from_seconds(seconds).to_string(),
            _ => return None,
        };
        Some(format!("`archive_timeout` is {shown} on the server, and {promised} in the manifest"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + seconds).unwrap()
    }

    fn state(archived: Option<u64>, current: u64) -> ArchiverState {
        ArchiverState {
            is_on: true,
            timeout_seconds: 60,
            is_failing: false,
            archived_segment: archived,
            current_segment: current,
            writing: None,
        }
    }

    const PROMISED: Option<Duration> = Some(Duration::from_seconds(60));

    #[test]
    fn segments_that_wait_are_stuck_when_none_is_archived_for_half_a_minute() {
        let mut archiving = Archiving::default();
        let mut trouble = |archived, current, now| {
            archiving.see(&state(archived, current), at(now)).trouble(PROMISED, at(now)).is_some()
        };
        assert!(!trouble(Some(5), 6, 0), "the one that is written does not wait");
        assert!(!trouble(Some(5), 7, 10) && !trouble(Some(5), 9, 39), "not yet");
        assert!(trouble(Some(5), 9, 40));
        assert!(!trouble(Some(6), 12, 45), "it goes on, however slowly");
        assert!(!trouble(Some(6), 12, 74) && trouble(Some(6), 12, 75));
        assert!(!trouble(Some(11), 12, 80));
        assert!(!trouble(Some(11), 13, 50), "a clock that was put back begins anew");
    }

    #[test]
    fn without_statistics_only_what_we_saw_being_written_waits() {
        let mut archiving = Archiving::default();
        assert_eq!(archiving.see(&state(None, 100), at(0)).waiting_segments, 0);
        let later = archiving.see(&state(None, 102), at(1));
        assert_eq!((later.waiting_segments, later.stuck_since), (2, Some(at(1))));
        assert_eq!(archiving.see(&state(Some(200), 102), at(2)).waiting_segments, 0, "ahead of what we know");
    }

    #[test]
    fn a_server_is_left_behind_when_its_archive_has_a_newer_timeline() {
        let timeline = TimelineId::new;
        let left = |own: Option<u32>, is_on, newest: u32| {
            let writing = own.and_then(timeline).map(|timeline| Writing { system_identifier: 7, timeline });
            let state = ArchiverState { is_on, writing, ..state(Some(5), 6) };
            Archiving::default().see(&state, at(0)).left_behind_on(timeline(newest))
        };
        assert_eq!(left(Some(1), true, 2), timeline(1));
        assert_eq!((left(Some(2), true, 2), left(Some(3), true, 2)), (None, None));
        assert_eq!((left(None, true, 2), left(Some(1), false, 2)), (None, None), "it archives nothing");
        assert_eq!(left(Some(1), true, 0), None, "nothing is known of the archive");
    }

    #[test]
    fn what_is_promised_must_be_set_and_what_is_not_need_not() {
        let trouble = |change: fn(&mut ArchiverState), promised| {
            let mut state = state(Some(5), 6);
            change(&mut state);
            Archiving::default().see(&state, at(0)).trouble(promised, at(0))
        };
        assert_eq!(trouble(|_| {}, PROMISED), None);
        assert_eq!(trouble(|it| it.timeout_seconds = 1, PROMISED), None);
        assert!(
            trouble(|it| it.timeout_seconds = 0, PROMISED).unwrap().contains("off on the server, and 1m")
        );
        assert!(trouble(|it| it.timeout_seconds = 61, PROMISED).unwrap().contains("1m1s"));
        assert!(trouble(|it| it.is_on = false, PROMISED).unwrap().contains("archive_mode"));
        assert!(trouble(|it| it.is_failing = true, PROMISED).unwrap().contains("fails"));
        assert!(trouble(|it| it.is_failing = true, None).unwrap().contains("fails"));
        assert_eq!(trouble(|it| (it.is_on, it.is_failing) = (false, true), None), None);
        assert_eq!(trouble(|it| it.timeout_seconds = 0, None), None);
    }
}

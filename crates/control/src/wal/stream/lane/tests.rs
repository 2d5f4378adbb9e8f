//! The hands are played here: in every order in which they may get done, everything is stored in the end, and what is said to
//! be durable is.

use super::*;
use proptest::prelude::*;
use retoma_core::ErrorKind;
use retoma_core::error::codes;
use std::sync::LazyLock;
use std::sync::mpsc::{Receiver, sync_channel};

const MIB: u64 = 1 << 20;
const TIMELINE: TimelineId = TimelineId::FIRST;

fn size() -> SegmentSize {
    SegmentSize::new(MIB).unwrap()
}

fn archive() -> Archive {
    static ARCHIVE: LazyLock<Archive> = LazyLock::new(|| {
        let folder = retoma_testkit::Folder::new();
        let password = retoma_core::Secret::new("one".to_owned());
        let url = format!("file://{}", folder.join("repository").display());
        let opened = crate::open::open_address(&url, &password, true).unwrap();
        Archive::new(&opened.repository, "db", 7).unwrap()
    });
    ARCHIVE.clone()
}

struct Played {
    lane: Lane,
    parts: Receiver<Job>,
    wholes: Receiver<Job>,
    window: Window,
    /// For each MiB position that was stored: the stretches.
    stored: Vec<(u64, u64)>,
    now: Instant,
}

fn played(start: u64) -> Played {
    let ((parts, take_parts), (wholes, take_wholes)) = (sync_channel(1), sync_channel(1));
    let mut lane = Lane::new("near".to_owned(), parts, wholes);
    lane.archive = Some(archive());
    lane.track = Some(Track::new(TIMELINE, size().start_of(Lsn(start)), Lsn(start)));
    lane.attach(TIMELINE);
    let window = Window::new(TIMELINE, size().start_of(Lsn(start)), size());
    Played {
        lane,
        parts: take_parts,
        wholes: take_wholes,
        window,
        stored: vec![(0, start)],
        now: Instant::now(),
    }
}

impl Played {
    fn hand_out(&mut self, urgent: bool) {
        self.lane.hand_out(&self.window, urgent, self.now).unwrap();
        let whole = self.lane.track.as_ref().unwrap().whole;
        self.window.release(whole);
    }

    /// Gets what a hand has been given done. Gives whether it had something.
    fn finish(&mut self, hand: Hand) -> bool {
        let jobs = if hand == Hand::Parts { &self.parts } else { &self.wholes };
        let Ok(job) = jobs.try_recv() else { return false };
        let outcome = match job {
            Job::Part { start, from, bytes, .. } => {
                assert_eq!(u64::from(from), size().offset_of(start.lsn));
                Outcome::Stored(start, Lsn(start.lsn.0 + bytes.len() as u64))
            }
            Job::Whole { start, bytes, .. } => {
                assert_eq!((bytes.len() as u64, start.lsn.0 % MIB), (MIB, 0));
                Outcome::Stored(start, Lsn(start.lsn.0 + MIB))
            }
            Job::Join { start, .. } => Outcome::Stored(start, Lsn(start.lsn.0 + MIB)),
            Job::Compare { .. } => Outcome::Compared,
            Job::File { .. } => Outcome::Filed,
            Job::Open { .. } => panic!("it is open"),
        };
        if let Outcome::Stored(start, end) = &outcome {
            self.stored.push((start.lsn.0, end.0));
        }
        assert!(self.lane.hear(hand, outcome, size()).unwrap().is_none());
        true
    }

    fn durable(&self) -> u64 {
        self.lane.track.as_ref().unwrap().frontier.durable().0
    }

    /// What joins from the beginning, by a slower way.
    fn joined(&self) -> u64 {
        let mut end = 0;
        while let Some((_, next)) = self.stored.iter().find(|(from, to)| *from <= end && *to > end) {
            end = *next;
        }
        end
    }
}

proptest! {
    #[test]
    fn in_every_order_all_is_stored_and_nothing_is_said_before(
        offset in 0u64..MIB, steps in prop::collection::vec((0u8..6, 1u64..400_000), 1..120),
    ) {
        let mut played = played(3 * MIB + offset);
        played.window.push(&vec![1; usize::try_from(offset).unwrap()]);
        for (step, length) in steps {
            match step {
                0 | 1 if !played.window.is_full() => {
                    played.window.push(&vec![7; usize::try_from(length).unwrap()]);
                }
                2 => drop(played.finish(Hand::Parts)),
                3 => drop(played.finish(Hand::Wholes)),
                4 => played.now += Duration::from_millis(length / 1000),
                5 if length < 20_000 && played.lane.is_done_with(&played.window) => {
                    played.window.shrink();
                }
                _ => {}
            }
            played.hand_out(length % 2 == 0);
            prop_assert_eq!(played.durable(), played.joined());
        }
        for _ in 0..20 {
            played.hand_out(true);
            played.finish(Hand::Parts);
            played.finish(Hand::Wholes);
        }
        let received = played.window.received();
        prop_assert_eq!(played.durable(), received.0.max(3 * MIB + offset));
        prop_assert_eq!(played.lane.track.as_ref().unwrap().whole, size().start_of(received));
        prop_assert!(!played.lane.is_busy() && played.lane.due().is_none());
    }
}

#[test]
fn files_come_before_everything_and_parts_wait_for_each_other() {
    let mut played = played(3 * MIB);
    let history = WalFileName::History(TimelineId::new(2).unwrap());
    played.lane.file(history, &Arc::default());
    played.lane.file(history, &Arc::default());
    played.window.push(&[1; 100]);
    played.hand_out(true);
    assert!(matches!(played.parts.try_recv(), Ok(Job::File { .. })));
    played.lane.hear(Hand::Parts, Outcome::Filed, size()).unwrap();
    played.hand_out(false);
    assert!(played.parts.try_recv().is_err(), "others may come");
    played.window.push(&[1; 50]);
    played.now += LINGER;
    played.hand_out(false);
    let Ok(Job::Part { bytes, .. }) = played.parts.try_recv() else { panic!("nothing is given away") };
    assert_eq!(bytes.len(), 150);
    played.window.push(&[1; 50]);
    played.hand_out(true);
    assert!(played.parts.try_recv().is_err(), "one at a time");
}

#[test]
fn a_failure_is_told_and_a_refusal_ends_the_stream() {
    let mut played = played(3 * MIB);
    played.window.push(&[1; 100]);
    played.hand_out(true);
    let away = || Error::new(ErrorKind::Unavailable, codes::STORE_UNAVAILABLE, "away");
    assert!(played.lane.hear(Hand::Parts, Outcome::Failed(away()), size()).unwrap().is_some());
    assert!(played.lane.is_failing && played.lane.is_busy());
    assert!(played.finish(Hand::Parts));
    assert!(!played.lane.is_failing && played.lane.has_all(&played.window));
    let other = Error::new(ErrorKind::Conflict, codes::WAL_CONFLICT, "other");
    assert!(played.lane.hear(Hand::Wholes, Outcome::Refused(other), size()).is_err());
}

#[test]
fn bytes_that_are_still_to_be_compared_stay() {
    let mut played = played(3 * MIB + 10);
    played.window.push(&[1; 4]);
    assert!(played.lane.has_all(&played.window) && !played.lane.is_done_with(&played.window));
    played.hand_out(true);
    assert!(!played.lane.is_busy(), "the server has not sent all that is stored yet");
    played.window.push(&[1; 6]);
    played.hand_out(true);
    assert!(played.finish(Hand::Parts) && played.lane.is_done_with(&played.window));
    // Where nothing is stored of the segment, there is nothing to compare.
    let played = self::played(3 * MIB);
    assert!(played.lane.is_done_with(&played.window));
}

#[test]
fn what_a_broken_stream_had_given_away_is_given_again() {
    let mut played = played(3 * MIB + 10);
    played.window.push(&[1; 300]);
    // Nothing before the bytes that are there are known to be the server's.
    played.hand_out(true);
    assert!(matches!(&played.parts.try_recv(), Ok(Job::Compare { bytes, .. }) if bytes.len() == 10));
    played.lane.hear(Hand::Parts, Outcome::Compared, size()).unwrap();
    played.hand_out(true);
    assert!(played.finish(Hand::Parts));
    played.window = Window::new(TIMELINE, Lsn(3 * MIB), size());
    played.lane.attach(TIMELINE);
    played.window.push(&[1; 400]);
    played.hand_out(true);
    assert!(matches!(&played.parts.try_recv(), Ok(Job::Compare { bytes, .. }) if bytes.len() == 300));
    played.lane.hear(Hand::Parts, Outcome::Compared, size()).unwrap();
    played.hand_out(true);
    let Ok(Job::Part { start, bytes, .. }) = played.parts.try_recv() else { panic!("nothing is given away") };
    assert_eq!((start.lsn.0, bytes.len()), (3 * MIB + 300, 100));
}

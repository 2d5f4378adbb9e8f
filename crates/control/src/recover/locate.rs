//! Where a target lies in the WAL: reads the records behind the snapshots, and touches nothing.
//!
//! A transaction or a restore point is looked for behind the newest snapshot that can come before it, then behind older ones:
//! the server that is given the target starts from there and stops at the first. Of a time it is enough to know whether a
//! transaction ended later; the last segments tell that.

use crate::wal::look_everywhere;
use jiff::Timestamp;
use retoma_core::decide::recovery::{Candidate, Goal, Target};
use retoma_core::postgres::{Lsn, SegmentName, SegmentSize, TimelineHistory, TimelineId, WalFileName};
use retoma_core::{Error, Result, ResultExt as _};
use retoma_repo::wal::Archive;
use retoma_sources::postgres::wal_records::{Meaning, RecordReader, WalRecord};
use std::cmp::Reverse;
use std::ops::ControlFlow;
use std::sync::mpsc;

/// So many segments wait to be read while the next one is fetched.
const WAITING: usize = 1;
/// In so many segments before a position the last transaction is looked for.
const LAST_SEGMENTS: u64 = 4;

/// The WAL of a server along the history of one timeline.
pub(super) struct Wal<'a> {
    pub(super) archives: &'a [Archive],
    pub(super) size: SegmentSize,
    pub(super) system_identifier: u64,
    pub(super) timeline: TimelineId,
    pub(super) history: Option<&'a TimelineHistory>,
}

/// Where `goal` lies. `None` where nobody has to know: what is before the end of the WAL the server finds by itself. What is not
/// there lies at the end.
///
/// # Errors
/// What the archives say.
pub(super) fn locate(wal: &Wal<'_>, goal: &Goal, candidates: &[Candidate]) -> Result<Option<Lsn>> {
    match &goal.target {
        Target::Latest => Ok(None),
        Target::Lsn(lsn) => Ok(Some(*lsn)),
        Target::Time(time) => {
            let right = |candidate: &Candidate| candidate.stopped <= *time;
            let Some((stop, until)) = stretches(candidates, wal.timeline, right).into_iter().next() else {
                return Ok(None);
            };
            let is_later = |record: &WalRecord| match record.meaning {
                Meaning::Commit { at, .. } | Meaning::Abort { at, .. } => {
                    Some(if goal.inclusive { at > *time } else { at >= *time })
                }
                _ => None,
            };
            Ok(if wal.last(stop, until, is_later)?.unwrap_or(false) { None } else { Some(until) })
        }
        Target::Transaction(id) => {
            let right = |candidate: &Candidate| candidate.ended.as_ref().is_none_or(|ended| !ended.has(*id));
            wal.first(&stretches(candidates, wal.timeline, right), |record| match record.meaning {
                // Records have the last 32 bits of a number.
                Meaning::Commit { xid, .. } | Meaning::Abort { xid, .. } => {
                    u64::from(xid) == *id & 0xFFFF_FFFF
                }
                _ => false,
            })
        }
        Target::Name(wanted) => wal.first(
            &stretches(candidates, wal.timeline, |_| true),
            |record| matches!(&record.meaning, Meaning::RestorePoint { name, .. } if name == wanted),
        ),
    }
}

/// When the last transaction before `until` ended, where one of the last segments behind `from` tells. What cannot be read tells
/// nothing.
pub(super) fn last_end(wal: &Wal<'_>, from: Lsn, until: Lsn) -> Option<Timestamp> {
    let mut last = None;
    let ended = |record: &WalRecord| match record.meaning {
        Meaning::Commit { at, .. } | Meaning::Abort { at, .. } => Some(at),
        _ => None,
    };
    let nearest = Lsn(until.0.saturating_sub(LAST_SEGMENTS * wal.size.bytes()));
    let told = wal.last(from.max(nearest), until, |record| {
        last = ended(record).or(last.take());
        last.map(|_| true)
    });
    told.ok().flatten().and(last)
}

/// From the stop of each right candidate on to that of the next one or to the end of its WAL, newest first.
fn stretches(
    candidates: &[Candidate],
    timeline: TimelineId,
    is_right: impl Fn(&Candidate) -> bool,
) -> Vec<(Lsn, Lsn)> {
    let leading = candidates.iter().filter(|candidate| is_right(candidate));
    let ways =
        leading.filter_map(|it| Some((it.stop, it.ways.iter().find(|way| way.timeline == timeline)?.until)));
    let mut found: Vec<(Lsn, Lsn)> = ways.collect();
    found.sort_unstable_by_key(|(stop, until)| (Reverse(*stop), Reverse(*until)));
    for older in 1..found.len() {
        found[older].1 = found[older].1.min(found[older - 1].0);
    }
    found
}

impl Wal<'_> {
    /// The first record that is meant, in the first stretch that has one; else the end of the WAL. `None` without a stretch.
    fn first(&self, stretches: &[(Lsn, Lsn)], is_meant: impl Fn(&WalRecord) -> bool) -> Result<Option<Lsn>> {
        for (from, until) in stretches {
            let mut found = None;
            self.records(*from, *until, &mut |record| {
                if is_meant(&record) {
                    found = Some(record.start);
                    return ControlFlow::Break(());
                }
                ControlFlow::Continue(())
            })?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(stretches.iter().map(|(_, until)| *until).max())
    }

    /// What `told` says of the last record before `until` of which it says anything, looking back segment by segment.
    fn last(
        &self,
        from: Lsn,
        until: Lsn,
        mut told: impl FnMut(&WalRecord) -> Option<bool>,
    ) -> Result<Option<bool>> {
        let mut end = until;
        while end > from {
            let begin = from.max(self.size.start_of(Lsn(end.0 - 1)));
            let mut last = None;
            self.records(begin, end, &mut |record| {
                last = told(&record).or(last);
                ControlFlow::Continue(())
            })?;
            if last.is_some() {
                return Ok(last);
            }
            end = begin;
        }
        Ok(None)
    }

    /// Gives the records that begin in a stretch to `each`, until it breaks, the stretch ends, or a server would stop replaying.
    fn records(
        &self,
        from: Lsn,
        until: Lsn,
        each: &mut dyn FnMut(WalRecord) -> ControlFlow<()>,
    ) -> Result<()> {
        let numbers = self.size.number_of(from)..=self.size.number_before(until);
        std::thread::scope(|scope| {
            let (send, segments) = mpsc::sync_channel(WAITING);
            scope.spawn(move || {
                for number in numbers {
                    // Nobody listens any more: it was found.
                    if send.send(self.fetch(number)).is_err() {
                        return;
                    }
                }
            });
            let mut reader = None;
            for segment in segments {
                let (start, Some(bytes)) = segment? else { continue };
                let reader =
                    reader.get_or_insert_with(|| RecordReader::new(start, self.size, self.system_identifier));
                let mut flow = ControlFlow::Continue(());
                reader.read(&bytes, &mut |record| {
                    if flow.is_continue() && record.start >= from {
                        let is_behind = record.start >= until;
                        flow = if is_behind { ControlFlow::Break(()) } else { each(record) };
                    }
                });
                if flow.is_break() || reader.end().is_some() {
                    return Ok(());
                }
            }
            Ok(())
        })
    }

    /// A segment's beginning and contents. That of a stop may be missing: a backup has it inside, and leaves it.
    fn fetch(&self, number: u64) -> Result<(Lsn, Option<Vec<u8>>)> {
        let beyond = || Error::internal("a segment beyond all positions");
        let start = self.size.start_of_number(number).ok_or_else(beyond)?;
        let last = Lsn(start.0 + (self.size.bytes() - 1));
        let timeline = self.history.map_or(self.timeline, |history| history.timeline_at(last));
        let name = SegmentName::new(timeline, number, self.size).ok_or_else(beyond)?;
        let asked = self.archives.iter().cloned().map(Ok);
        let file = WalFileName::Segment(name);
        let found = look_everywhere(asked, file, |archive| archive.fetch(file), Ok)
            .with_context(|| format!("look for the target in `{name}`"))?;
        Ok((start, found.map(|(_, bytes, _)| bytes)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use retoma_core::decide::recovery::Way;

    fn candidate(stop: u64, until: u64) -> Candidate {
        let timeline = TimelineId::FIRST;
        Candidate {
            timeline,
            stop: Lsn(stop),
            stopped: jiff::Timestamp::UNIX_EPOCH,
            ended: None,
            ways: vec![Way { timeline, until: Lsn(until), gap: None }],
        }
    }

    #[test]
    fn stretches_are_disjoint_and_begin_with_the_newest() {
        let of = |candidates: &[Candidate]| stretches(candidates, TimelineId::FIRST, |_| true);
        assert_eq!(of(&[]), []);
        let all = [candidate(10, 100), candidate(50, 100), candidate(200, 250)];
        assert_eq!(of(&all), [(Lsn(200), Lsn(250)), (Lsn(50), Lsn(100)), (Lsn(10), Lsn(50))]);
        let other = TimelineId::new(2).unwrap();
        assert_eq!(stretches(&all, other, |_| true), []);
        assert_eq!(stretches(&all, TimelineId::FIRST, |it| it.stop < Lsn(20)), [(Lsn(10), Lsn(100))]);
    }
}

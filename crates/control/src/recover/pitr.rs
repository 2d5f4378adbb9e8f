//! How far a database server comes back: which snapshot, which WAL, and whether that leads to the goal. Looks at everything,
//! touches nothing.

use super::Request;
use super::dump;
use super::locate::{Wal, last_end, locate};
use crate::wal::check::{self, ServerWal, WalFacts};
use retoma_core::decide::recovery::{
    Candidate, Choice, Goal, Refusal, Target, Window, choose, newest_timeline, windows,
};
use retoma_core::manifest::{Component, ComponentKind};
use retoma_core::postgres::{Lsn, SegmentSize, TimelineHistory, TimelineId};
use retoma_core::{Error, ErrorKind, Result, ResultExt as _, error::codes};
use retoma_repo::SnapshotId;
use retoma_repo::copies::Copies;
use retoma_repo::wal::Archive;
use retoma_sources::postgres::{self as source, Along, Recovery};

/// How a server of a plan recovers.
#[derive(Debug, Clone)]
pub struct PlannedRecovery {
    /// What was asked for.
    pub goal: Goal,
    /// The timeline whose history is followed.
    pub timeline: TimelineId,
    /// The timeline of the snapshot.
    pub from_timeline: TimelineId,
    /// Everything before this position is there, behind the snapshot.
    pub until: Lsn,
    /// What can be recovered at all, along this timeline.
    pub windows: Vec<Window>,
    /// What needs care.
    pub care: Vec<String>,
    /// What the server is told.
    pub recovery: Recovery,
    /// Where its WAL comes from; empty when nothing was ever archived.
    pub archives: Vec<Archive>,
    history: Option<TimelineHistory>,
}

impl PlannedRecovery {
    /// The timeline that a position was written on.
    pub fn timeline_before(&self, position: Lsn) -> TimelineId {
        let last = Lsn(position.0.saturating_sub(1));
        self.history.as_ref().map_or(self.timeline, |history| history.timeline_at(last))
    }
}

/// A goal that only a database server has is for exactly one.
///
/// # Errors
/// `R0002`.
pub(super) fn check_fits(goal: &Goal, snapshot: Option<&str>, wanted: &[&Component]) -> Result<()> {
    let usage = |message: &str, hint: &'static str| {
        Err(Error::new(ErrorKind::Invalid, codes::USAGE, message).with_hint(hint))
    };
    if !goal.inclusive && goal.target == Target::Latest {
        return usage(
            "`--exclusive` needs a target",
            "give one with `--at`, `--lsn`, `--xid` or `--name`, or leave it out",
        );
    }
    let is_general = matches!(goal.target, Target::Latest | Target::Time(_));
    if is_general && goal.inclusive && goal.timeline.is_none() && snapshot.is_none() {
        return Ok(());
    }
    match wanted {
        [one] if one.kind() == ComponentKind::Postgres => Ok(()),
        _ => usage(
            "this target is for one PostgreSQL server, and other components are wanted too",
            "name the component with `--only NAME`",
        ),
    }
}

/// Chooses the snapshot of a PostgreSQL component and how it recovers.
///
/// # Errors
/// `R0002` for a goal without a sense; `R0506` for a target outside of the recoverable window, `R0423` for one behind a gap, `R0211` without a snapshot; what
/// the repositories say.
pub fn plan(request: &Request<'_>, component: &Component) -> Result<(SnapshotId, PlannedRecovery)> {
    check_fits(&request.goal, request.snapshot, &[component])?;
    if dump::is_dumped(component) {
        let message = format!("`{}` is backed up by dumps: there is no server to recover", component.name);
        return Err(Error::new(ErrorKind::Unsupported, codes::USAGE, message).with_hint(
            "`retoma restore` gives the dumps, and `pg_restore --table` brings one table out of them",
        ));
    }
    let name = component.name.as_str();
    let (mut all, mut damaged) = (Vec::new(), Vec::new());
    for facts in check::each_wal_facts(request.repository)? {
        match facts {
            Ok(facts) => all.push(facts),
            Err(error) => damaged.push(format!("a snapshot cannot be used: {error}")),
        }
    }
    let own = all.iter().filter(|facts| facts.component == name).filter(|facts| match request.snapshot {
        Some(id) => facts.id.to_hex().starts_with(id),
        None => facts.is_complete,
    });
    let own: Vec<&WalFacts> = own.collect();
    let server = which_server(&own, &request.goal).ok_or_else(|| match request.snapshot {
        Some(id) => {
            let message = format!("no snapshot `{}` of `{name}` is a physical backup", id.escape_debug());
            Error::new(ErrorKind::NotFound, codes::SNAPSHOT_NOT_FOUND, message)
                .with_hint("list them with `retoma snapshots`")
        }
        None => Refusal::NoSnapshot.into_error(name),
    })?;
    let own: Vec<&WalFacts> = own.into_iter().filter(|facts| facts.system_identifier == server.0).collect();
    let (archives, mut unusable) = archives(request, component, server.0)?;
    let known =
        check::look(&archives, server.1, &own).with_context(|| format!("look at the WAL of `{name}`"))?;
    let known = known.ok_or_else(|| Error::internal("a component has no repository"))?;
    let (id, mut planned) = decide(request, name, &known, server, archives)?;
    planned.care.append(&mut damaged);
    planned.care.append(&mut unusable);
    Ok((id, planned))
}

fn decide(
    request: &Request<'_>,
    name: &str,
    known: &ServerWal,
    server: (u64, SegmentSize),
    archives: Vec<Archive>,
) -> Result<(SnapshotId, PlannedRecovery)> {
    // One that is named is used, also when something in it could not be read.
    let usable: Vec<_> =
        known.snapshots.iter().filter(|it| it.is_complete || request.snapshot.is_some()).collect();
    let candidates: Vec<Candidate> = usable.iter().map(|snapshot| snapshot.candidate()).collect();
    let goal = &request.goal;
    let has_archive = !known.listing.timelines.is_empty();
    let timelines = known.listing.timelines.keys().copied();
    let timelines = timelines.chain(candidates.iter().map(|it| it.timeline)).collect();
    let timeline = goal.timeline.or_else(|| newest_timeline(&candidates));
    let located = match timeline {
        Some(timeline) if has_archive => {
            let history = known.histories.get(&timeline);
            let (system_identifier, size) = server;
            locate(
                &Wal { archives: &archives, size, system_identifier, timeline, history },
                goal,
                &candidates,
            )?
        }
        _ => None,
    };
    let chosen = choose(goal, &candidates, &timelines, located);
    let mut choice =
        chosen.map_err(|why| with_loss(why, known, server, &archives, timeline).into_error(name))?;
    let mut care = Vec::new();
    if !has_archive && matches!(choice.target, Target::Time(_)) {
        choice.target = Target::Latest;
        care.push(format!("no WAL of `{name}` is archived: it comes back as of its backup"));
    }
    for timeline in known.without_history.iter().filter(|it| known.listing.timelines.contains_key(it)) {
        care.push(format!(
            "`{}` is missing: what `{name}` did on timeline {timeline} cannot be reached",
            timeline.history_file_name()
        ));
    }
    let chosen = usable.get(choice.candidate);
    let chosen = chosen.ok_or_else(|| Error::internal("a snapshot that is not there was chosen"))?;
    let planned = PlannedRecovery {
        goal: goal.clone(),
        timeline: choice.timeline,
        from_timeline: chosen.timeline,
        until: choice.until,
        windows: windows(&candidates, choice.timeline),
        care,
        recovery: told(&choice, goal, chosen.timeline),
        archives: if has_archive { archives } else { Vec::new() },
        history: known.histories.get(&choice.timeline).cloned(),
    };
    Ok((chosen.id, planned))
}

/// Says what lies behind a gap, as far as that can be found out: on a bad day it decides whether to go on without it.
fn with_loss(
    mut why: Refusal,
    known: &ServerWal,
    (system_identifier, size): (u64, SegmentSize),
    archives: &[Archive],
    timeline: Option<TimelineId>,
) -> Refusal {
    let (Refusal::BehindGap { gap, until, loss, .. }, Some(timeline)) = (&mut why, timeline) else {
        return why;
    };
    let wal = Wal { archives, size, system_identifier, timeline, history: known.histories.get(&timeline) };
    loss.after = last_end(&wal, Lsn::ZERO, *until);
    let stored = known.listing.timelines.get(&timeline);
    let last = stored.and_then(|stored| stored.segments.last());
    let end = last.and_then(|last| size.start_of_number(last + 1));
    let behind = gap.1.start(size).and_then(|start| start.checked_add(size.bytes()));
    if let (Some(end), Some(behind)) = (end, behind)
        && end > *until
    {
        loss.bytes = Some(end.bytes_since(*until));
        loss.up_to = last_end(&wal, behind, end);
    }
    why
}

/// What PostgreSQL is told.
fn told(choice: &Choice, goal: &Goal, backup: TimelineId) -> Recovery {
    let target = match &choice.target {
        Target::Latest => source::Target::End,
        Target::Time(time) => source::Target::Time(*time),
        Target::Lsn(lsn) => source::Target::Lsn(*lsn),
        Target::Transaction(id) => source::Target::Transaction(*id),
        Target::Name(name) => source::Target::Name(name.clone()),
    };
    let along = if choice.timeline == backup { Along::Backup } else { Along::Timeline(choice.timeline) };
    Recovery { target, along, inclusive: goal.inclusive, ..Recovery::default() }
}

/// The server that the component was: another one may have had its name before. The newest that had a snapshot by then.
fn which_server(own: &[&WalFacts], goal: &Goal) -> Option<(u64, SegmentSize)> {
    let in_time = |facts: &&&WalFacts| match goal.target {
        Target::Time(time) => facts.stopped <= time,
        _ => true,
    };
    let found = own.iter().rev().find(in_time).or(own.last())?;
    Some((found.system_identifier, found.size))
}

/// The archives of a server: in the repository that the snapshot comes from, and in its copies; and what to say about those that
/// cannot be opened.
fn archives(
    request: &Request<'_>,
    component: &Component,
    system_identifier: u64,
) -> Result<(Vec<Archive>, Vec<String>)> {
    let name = component.name.as_str();
    let mut found = vec![Archive::new(request.repository, name, system_identifier)?];
    let mut care = Vec::new();
    for (other, opened) in request.repository.copies().into_iter().flat_map(Copies::repositories) {
        match opened {
            Ok(repository) => found.push(Archive::new(repository, name, system_identifier)?),
            Err(error) => {
                care.push(format!("WAL of `{name}` that only repository `{other}` has is not used: {error}"));
            }
        }
    }
    Ok((found, care))
}

#[cfg(test)]
mod tests;
